"""Needle and associative recall: from nothing to an accuracy at other lengths, the table of items, and models that are cut."""

import json
import unittest

from support import HAS_TRAIN, CliTest

TINY = {
    "model.d_model": 16, "model.d_hidden": 16, "model.d_attn": 8, "model.d_state": 4, "model.n_layers": 2, "model.window_size": 8, "data.length": 40,
    "data.pairs": 3, "data.train_examples": 200, "data.valid_examples": 10, "data.test_examples": 20, "train.max_tokens": 200, "train.steps": 20,
    "optim.total_steps": 20, "optim.warmup": 2, "train.eval_every": 10, "train.log_every": 5,
}


@unittest.skipUnless(HAS_TRAIN, "this build has no LibTorch: no train, no eval")
class Recall(CliTest):
    def train(self, name, recipe, *more):
        words = ["train", recipe, "--out", self.dir / name, "--threads", 1, "--quiet"]
        for key, value in TINY.items():
            words += ["--set", f"{key}={json.dumps(value)}"]
        return [*words, *more]

    def test_any_length_is_tested(self):
        for recipe in ("synthetic/mqar", "synthetic/needle"):
            run = self.dir / recipe.replace("/", "-")
            self.expect(0, *self.train(run.name, recipe))
            value = self.json_of("eval", run)
            self.assertEqual((value["metric"], value["examples"], value["questions"], value["length"], value["pairs"]), ("accuracy", 20, 60, 40, 3))
            longer = self.json_of("eval", run, "--set", "data.length=900", "--set", "data.test_examples=5", "--activations")
            self.assertEqual((longer["questions"], longer["length"]), (15, 900))
            by_class = longer["activation"][0]["modules"]["attention"]["by_class"]
            self.assertEqual({name: row["tokens"] for name, row in by_class.items()}, {"filler": 5 * (900 - 9), "key": 30, "value": 15})

    def test_table_of_items(self):
        run = self.dir / "run"
        self.expect(0, *self.train("run", "synthetic/mqar"))
        table = self.dir / "items.tsv"
        value = self.json_of("eval", run, "--items", table)
        rows = [line.split("\t") for line in table.read_text().splitlines()]
        self.assertEqual(rows[0], ["item", "count", "correct", "loss"])
        self.assertEqual([(int(row[0]), int(row[1])) for row in rows[1:]], [(i, 3) for i in range(20)])
        self.assertEqual(sum(int(row[2]) for row in rows[1:]) / 60, value["value"])
        self.assertAlmostEqual(sum(float(row[3]) for row in rows[1:]) / 60, value["loss"], places=12)
        self.expect(2, "eval", run, "--items", self.dir / "none" / "items.tsv", parts=["--items", "there is no folder"])
        self.expect(2, "eval", run, "--items", self.dir, parts=["--items", "found a folder"])

    def test_cut_models(self):
        run = self.dir / "run"
        self.expect(0, *self.train("run", "synthetic/mqar", "--set", "model.position=simple"))
        whole = self.json_of("eval", run)
        cut = self.json_of("eval", run, "--window", 1, "--truncation", 2)
        self.assertEqual((cut["window_size"], cut["truncation"]), (1, 2))
        self.assertNotEqual(cut["loss"], whole["loss"])
        self.assertLessEqual(max(cut["attention_span"]), max(whole["attention_span"]))
        self.assertEqual(self.json_of("eval", run, "--window", 8, "--truncation", 40)["loss"], whole["loss"])  # as far as it looks anyway
        self.expect(0, *self.train("ema", "synthetic/mqar", "--set", "model.layer=ema"))
        self.expect(2, "eval", self.dir / "ema", "--window", 4, parts=["--window 4", '"ema"'])
        self.expect(0, *self.train("local", "synthetic/mqar"))
        self.expect(2, "eval", self.dir / "local", "--window", 4, parts=["--window 4", '"local"'])
        self.expect(0, *self.train("s4d", "synthetic/mqar", "--set", "model.layer=s4d"))
        self.expect(2, "eval", self.dir / "s4d", "--truncation", 4, parts=["--truncation 4", "without an EMA"])

    def test_refuses(self):
        self.expect(3, *self.train("a", "synthetic/mqar", "--set", "data.length=8"), parts=["data.length", "at least 9", "data.pairs = 3"])
        self.expect(3, *self.train("a", "synthetic/mqar", "--set", "data.pairs=65"), parts=["data.pairs", "64"])
        self.expect(2, *self.train("a", "synthetic/mqar"), "--data", self.dir, parts=["made in memory"])
        self.expect(3, *self.train("a", "synthetic/mqar", "--set", "task.kind=classification", "--set", "task.classes=10"), parts=["language-model"])


if __name__ == "__main__":
    unittest.main()
