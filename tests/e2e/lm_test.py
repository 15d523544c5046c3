"""A byte-level language model from a file to its bits per byte, and what its user gets wrong."""

import json
import shutil
import unittest

from support import HAS_TRAIN, CliTest

TINY = {
    "model.d_model": 16, "model.d_hidden": 24, "model.d_attn": 8, "model.d_state": 4, "model.n_layers": 2, "model.window_size": 8,
    "data.block_length": 32, "train.batch_size": 8, "train.steps": 150, "optim.total_steps": 150, "optim.warmup": 5, "optim.lr": 0.02, "train.eval_every": 75, "train.log_every": 10,
}


@unittest.skipUnless(HAS_TRAIN, "this build has no LibTorch: no train, no eval")
class LanguageModel(CliTest):
    def setUp(self):
        super().setUp()
        self.file = self.dir / "text"
        self.file.write_text("".join(f"{i} times {i} is {i * i}\n" for i in range(6000)))

    def arguments(self, name, **changes):
        settings = {**TINY, **{key.replace("__", "."): value for key, value in changes.items()}}
        words = ["train", "lm/bytes-small", "--out", self.dir / name, "--threads", 1]
        for key, value in settings.items():
            words += ["--set", f"{key}={json.dumps(value) if not isinstance(value, str) else value}"]
        return words

    def test_from_a_file_to_bits_per_byte(self):
        for name, changes in (("plain", {}), ("carried", {"data__carry_state": True, "data__context": -1})):
            result = json.loads(self.expect(0, *self.arguments(name, **changes), "--data", self.file, "--json", "--quiet").stdout)
            self.assertEqual(result["metric"], "bits-per-byte")
            value = self.json_of("eval", self.dir / name)
            held_out = int(0.05 * self.file.stat().st_size)
            self.assertEqual(value["bytes"], held_out)
            self.assertAlmostEqual(2 ** value["value"], value["perplexity"], places=6)
            self.assertLess(value["value"], 5.0)  # below that of bytes drawn from the text's thirty or so
            self.assertLess(value["ci95"][0], value["value"])
            self.assertLess(value["value"], value["ci95"][1])
            lines = [json.loads(line) for line in (self.dir / name / "metrics.jsonl").read_text().splitlines()]
            self.assertEqual([x["step"] for x in lines if "split" in x], [75, 150])
        for context in (0, 16, 100, "stream"):
            value = self.json_of("eval", self.dir / "plain", "--context", context)
            self.assertEqual((value["bytes"], value["context"]), (held_out, context))
        text = self.expect(0, "eval", self.dir / "plain").stdout
        self.assertIn("bits-per-byte", text)
        self.assertIn("nats a byte", text)
        # Another text, from its first byte to its last, by the exported model alone.
        other = self.dir / "other"
        other.write_text("12 times 12 is 144\n" * 20)
        self.assertEqual(self.json_of("eval", self.dir / "plain", "--data", other, "--set", "data.valid_share=0", "--set", "data.test_share=1")["bytes"], 380)
        self.assertEqual(self.json_of("eval", self.dir / "plain" / "model", "--data", other)["bytes"], 19)  # the run's own share

    def test_what_a_user_gets_wrong(self):
        self.expect(4, *self.arguments("a"), parts=["--data FILE"])
        self.expect(4, *self.arguments("a"), "--data", self.dir / "nowhere", parts=["nowhere", "no such file"])
        self.expect(4, *self.arguments("a"), "--data", self.dir, parts=["expected a file for each of train, valid and test"])
        (self.dir / "empty").write_bytes(b"")
        self.expect(4, *self.arguments("a"), "--data", self.dir / "empty", parts=["empty"])
        (self.dir / "tiny").write_bytes(b"ab")
        self.expect(4, *self.arguments("a"), "--data", self.dir / "tiny", parts=["valid part of its 2 bytes is empty", "data.valid_share"])
        self.expect(3, *self.arguments("a", data__context=32), "--data", self.file, parts=["data.context must be below data.block_length = 32"])
        self.expect(3, *self.arguments("a", data__carry_state=True, model__window_size=0), "--data", self.file, parts=["data.carry_state", "model.window_size"])
        self.expect(3, *self.arguments("a", data__valid_share=0.7, data__test_share=0.7), "--data", self.file, parts=["data.valid_share", "at most 1"])
        self.expect(3, *self.arguments("a", router__target_weight=1.0, model__layer="seqboat-full"), "--data", self.file, parts=["router.target_weight"])
        self.expect(4, *self.arguments("a", data__carry_state=True, train__batch_size=5000), "--data", self.file, parts=["data.block_length = 32", "train.batch_size = 5000"])
        self.assertFalse((self.dir / "a" / "config.toml").exists())
        self.expect(0, *self.arguments("run"), "--data", self.file, "--quiet")
        self.expect(2, "eval", self.dir / "run", "--context", "all", parts=["--context", "a whole number from 0 on, or stream, found 'all'"])
        self.expect(2, "eval", self.dir / "run", "--context", -1, parts=["--context"])
        self.expect(3, *self.arguments("a", data__max_depth=4), "--data", self.file, parts=["data.max_depth", "belongs to", "listops"])
        self.expect(3, *self.arguments("a", router__target_rate=0.3), "--data", self.file, parts=["router.target_rate", "router.target_weight"])
        self.expect(2, "data", "make", "bytes", parts=["--data FILE"])
        # Other data than the run began with, and the folder is as it was.
        before = (self.dir / "run" / "config.toml").read_bytes()
        (self.dir / "grown").write_bytes(self.file.read_bytes() + b"more")
        self.expect(5, "train", self.dir / "run", "--steps", 200, "--data", self.dir / "grown", "--quiet", parts=["other training data", "grown"])
        self.assertEqual((self.dir / "run" / "config.toml").read_bytes(), before)
        shutil.copytree(self.dir / "run" / "model", self.dir / "bare")
        self.expect(2, "eval", self.dir / "bare", parts=["--data"])
        # A bare folder knows nothing of what was trained on: all of the file counts.
        self.assertEqual(self.json_of("eval", self.dir / "bare", "--data", self.file)["bytes"], self.file.stat().st_size)
        self.assertEqual(self.json_of("eval", self.dir / "bare", "--data", self.file, "--context", 600, "--examples", 3, "--set", "data.block_length=40")["bytes"], 120)


if __name__ == "__main__":
    unittest.main()
