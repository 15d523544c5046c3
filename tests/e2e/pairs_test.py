"""Pairs of documents: both forms of the data, from training to an accuracy, and what the user gets wrong."""

import json
import random
import unittest

from support import HAS_TRAIN, CliTest

TINY = {
    "model.d_model": 16, "model.d_hidden": 24, "model.d_attn": 8, "model.d_state": 4, "model.n_layers": 2, "model.window_size": 8, "model.dropout": 0.0,
    "model.truncation": 0, "task.d_classifier": 16, "data.max_length": 24, "train.batch_size": 8, "train.steps": 80, "optim.total_steps": 80,
    "optim.warmup": 10, "optim.lr": 0.02, "train.eval_every": 40, "train.log_every": 10,
}


class PairsTest(CliTest):
    def setUp(self):
        super().setUp()
        draw = random.Random(1)
        self.arena, self.places = self.dir / "tsv_data", self.dir / "places"
        self.arena.mkdir()
        self.places.mkdir()
        for arena, ours, count in (("train", "train", 200), ("eval", "valid", 20), ("test", "test", 40)):
            rows, offsets = [], ["label\toff1\toff2"]
            for number in range(count):
                label = number % 2
                # Related documents are of one letter.
                first = draw.choice("abcdefgh")
                second = first if label else draw.choice([c for c in "abcdefgh" if c != first])
                rows.append(f"{label}.0\tP{number}\tQ{number}\t{first * draw.randint(5, 24)}\t{second * draw.randint(5, 24)}")
                offsets.append(f"{label}\t{4000 * (ord(first) - 97)}\t{4000 * (ord(second) - 97)}")
            (self.arena / f"new_aan_pairs.{arena}.tsv").write_text("\n".join(rows) + "\n")
            (self.places / f"match_{ours}.tsv").write_text("\n".join(offsets) + "\n")
            (self.places / f"text_{ours}.txt").write_text("".join(c * 4000 for c in "abcdefgh"))

    def test_check_and_stats_of_both_forms(self):
        for where in (self.arena, self.places):
            checked = self.json_of("data", "check", where)
            self.assertEqual([(f["samples"], f["unrelated"], f["related"]) for f in checked["files"]], [(200, 100, 100), (20, 10, 10), (40, 20, 20)])
            stats = self.json_of("data", "stats", where, "--split", "valid")
            self.assertEqual((stats["length"]["sequences"], stats["labels"]), (40, [10, 10]))
        self.assertEqual(self.json_of("data", "stats", self.places)["length"]["min"], 4000)
        (self.places / "match_test.tsv").write_text("label\toff1\toff2\n1\t0\t28001\n")
        self.expect(4, "data", "check", self.places, "--quiet", parts=["match_test.tsv:2", "off2", "0 to 28000"])
        for table in self.places.glob("match_*"):
            table.unlink()
        self.assertEqual([f["tokens"] for f in self.json_of("data", "check", self.places)["files"]], [32000] * 3)  # a text in three parts

    @unittest.skipUnless(HAS_TRAIN, "this build has no LibTorch: no train, no eval")
    def test_from_tables_to_an_accuracy(self):
        for where in (self.arena, self.places):
            words = ["train", "lra/retrieval-small", "--out", self.dir / f"run-{where.name}", "--threads", 1, "--quiet", "--data", where]
            for key, value in TINY.items():
                words += ["--set", f"{key}={json.dumps(value)}"]
            self.expect(0, *words)
            value = self.json_of("eval", self.dir / f"run-{where.name}", "--items", self.dir / "items.tsv")
            self.assertEqual((value["metric"], value["examples"]), ("accuracy", 40))
            self.assertGreater(value["value"], 0.75)  # eight letters: one guess in two is right
            self.assertEqual(len((self.dir / "items.tsv").read_text().splitlines()), 41)
        self.expect(3, "train", "lra/retrieval-small", "--out", self.dir / "b", "--data", self.arena, "--set", "task.kind=classification", "--set", "task.nli=false", parts=["retrieval"])
        self.expect(4, "train", "lra/retrieval-small", "--out", self.dir / "c", "--data", self.dir / "none", parts=["no such file or folder", "lra_release.gz"])


if __name__ == "__main__":
    unittest.main()
