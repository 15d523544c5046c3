"""Film reviews by their bytes: both forms of the data, from training to an accuracy, and what the user gets wrong."""

import json
import random
import unittest

from support import HAS_TRAIN, CliTest

TINY = {
    "model.d_model": 16, "model.d_hidden": 24, "model.d_attn": 8, "model.d_state": 4, "model.n_layers": 2, "model.window_size": 8, "model.dropout": 0.0,
    "model.truncation": 0, "task.d_classifier": 16, "data.max_length": 40, "train.max_tokens": 400, "train.steps": 120, "optim.total_steps": 120,
    "optim.warmup": 10, "optim.lr": 0.02, "train.eval_every": 40, "train.log_every": 10,
}


def reviews(count, seed):
    """(label, id, rating, text): a word somewhere in the text decides."""
    draw = random.Random(seed)
    for label in (0, 1):
        for number in range(count):
            words = [draw.choice(["film", "plot", "actor", "the", "a"]) for _ in range(draw.randint(2, 6))]
            words.insert(draw.randint(0, len(words)), ["bad", "good"][label])
            yield label, number, draw.choice([[1, 2, 3, 4], [7, 8, 9, 10]][label]), " ".join(words)


class ImdbTest(CliTest):
    def setUp(self):
        super().setUp()
        for split, count in (("train", 100), ("test", 60)):
            rows = list(reviews(count, split))
            (self.dir / "compact").mkdir(exist_ok=True)
            (self.dir / "compact" / f"imdb_{split}.tsv").write_text("".join("\t".join(map(str, row)) + " \n" for row in rows))
            for label, number, rating, text in rows:
                folder = self.dir / "aclImdb" / split / ("neg", "pos")[label]
                folder.mkdir(parents=True, exist_ok=True)
                (folder / f"{number}_{rating}.txt").write_text(text + "\n")


class Data(ImdbTest):
    def test_check_and_stats_of_both_forms(self):
        for where, names in (("compact", ["imdb_train.tsv", "imdb_test.tsv"]), ("aclImdb", ["train", "test"]), ("", ["train", "test"])):
            checked = self.json_of("data", "check", self.dir / where)
            self.assertIs(checked["ok"], True)
            self.assertEqual([(f["path"].split("/")[-1], f["samples"], f["negative"], f["positive"]) for f in checked["files"]],
                             [(names[0], 200, 100, 100), (names[1], 120, 60, 60)])
            stats = self.json_of("data", "stats", self.dir / where)
            self.assertEqual((stats["length"]["sequences"], stats["labels"], stats["longer_than_4000"]), (120, [60, 60], 0))
            self.assertEqual(stats["length"]["tokens"], checked["files"][1]["tokens"])
            self.assertEqual(sum(stats["ratings"].values()), 120)
            self.assertEqual([self.json_of("data", "stats", self.dir / where, "--split", split)["labels"] for split in ("train", "valid", "test")],
                             [[90, 90], [10, 10], [60, 60]])
        self.assertIn("longer than 4000", self.expect(0, "data", "stats", self.dir / "compact" / "imdb_train.tsv").stdout)
        self.expect(2, "data", "stats", self.dir / "compact" / "imdb_train.tsv", "--split", "test", parts=["--split"])

    def test_bad_data_are_named(self):
        file = self.dir / "compact" / "imdb_test.tsv"
        rows = file.read_text()
        for text, parts in (("", ["empty"]), (rows + "1\t7\n", [f"{file}:121", "4 columns", "found 2"]), (rows + "1\t70\t2\tx\n", [f"{file}:121", "7 to 10", "found 2"])):
            file.write_text(text)
            self.expect(4, "data", "check", self.dir / "compact", "--quiet", parts=parts)
        file.rename(self.dir / "renamed")
        self.expect(4, "data", "check", self.dir / "renamed", "--quiet", parts=["renamed:121", "7 to 10"])
        (self.dir / "packed").mkdir()
        (self.dir / "packed" / "imdb_train.tsv.xz").write_bytes(b"x")
        for verb in ("check", "stats"):
            self.expect(4, "data", verb, self.dir / "packed", parts=["run xz -dk", self.dir / "packed"])

    def test_list_says_how_to_come_by_them(self):
        self.assertIn("aclImdb", next(d["source"] for d in self.json_of("data", "list")["data"] if d["name"] == "imdb"))
        self.expect(2, "data", "make", "imdb", parts=["nothing is made", "aclImdb"])


@unittest.skipUnless(HAS_TRAIN, "this build has no LibTorch: no train, no eval")
class Train(ImdbTest):
    def arguments(self, name, **changes):
        settings = {**TINY, **{key.replace("__", "."): value for key, value in changes.items()}}
        words = ["train", "lra/text-small", "--out", self.dir / name, "--threads", 1]
        for key, value in settings.items():
            words += ["--set", f"{key}={json.dumps(value) if not isinstance(value, str) else value}"]
        return words

    def test_from_either_form_to_an_accuracy(self):
        result = json.loads(self.expect(0, *self.arguments("run"), "--data", self.dir / "aclImdb", "--json", "--quiet").stdout)
        self.assertEqual(result["metric"], "accuracy")
        value = self.json_of("eval", self.dir / "run")
        self.assertEqual((value["task"], value["split"], value["examples"]), ("imdb", "test", 120))
        self.assertGreater(value["value"], 0.9)
        self.assertEqual(self.json_of("eval", self.dir / "run", "--split", "valid")["examples"], 20)
        # The other form is the same data: the same accuracy and loss, and a run goes on with it.
        for data in (self.dir / "compact", self.dir / "compact" / "imdb_test.tsv"):
            again = self.json_of("eval", self.dir / "run", "--data", data)
            self.assertEqual((again["value"], again["loss"]), (value["value"], value["loss"]))
        self.expect(0, "train", self.dir / "run", "--data", self.dir / "compact", "--steps", 130, "--quiet")
        (self.dir / "compact" / "imdb_train.tsv").write_text("".join("\t".join(map(str, row)) + "\n" for row in reviews(100, "other")))
        self.expect(5, "train", self.dir / "run", "--data", self.dir / "compact", "--steps", 140, parts=["other training data"])

    def test_the_arenas_own_way(self):
        self.expect(0, *self.arguments("run", data__valid="test", task__pool="first", train__steps=6), "--data", self.dir / "aclImdb", "--quiet")
        self.assertIn("200 training and 120 validation examples", (self.dir / "run" / "train.log").read_text())

    def test_what_a_user_gets_wrong(self):
        self.expect(4, *self.arguments("a"), parts=["no such folder", "aclImdb_v1.tar.gz", "--data DIR", self.dir / "cache" / "seqboat" / "imdb"])
        self.expect(4, *self.arguments("a"), "--data", self.dir / "compact" / "imdb_train.tsv", parts=["expected a folder", "found a file"])
        self.expect(3, *self.arguments("a", task__classes=3), "--data", self.dir / "aclImdb", parts=["task.classes must be 2", "found 3"])
        self.expect(3, *self.arguments("a", data__valid="half"), "--data", self.dir / "aclImdb", parts=["data.valid", "tenth", "half"])
        self.expect(3, *self.arguments("a", data__min_length=3), "--data", self.dir / "aclImdb", parts=["data.min_length", "belongs to", "listops"])
        self.expect(3, "train", "lra/listops", "--set", "data.valid=test", parts=["data.valid", "belongs to", "imdb"])
        (self.dir / "aclImdb" / "train" / "neg" / "notes.txt").write_text("x")
        self.expect(4, *self.arguments("a"), "--data", self.dir, parts=["ID_RATING.txt", "notes.txt"])


if __name__ == "__main__":
    unittest.main()
