"""seqboat quantize: the same model in fewer bits, whole or not at all."""

import json
import math
import unittest

from support import MODEL_CONFIG, CliTest, random_model, wav


class Quantize(CliTest):
    def setUp(self):
        super().setUp()
        self.model = self.dir / "m"
        random_model(self.model, d_model=32, d_hidden=64)

    def names(self):
        return sorted(path.name for path in self.dir.iterdir())

    def test_sizes_speed_and_quality(self):
        text = self.dir / "text"
        text.write_bytes(bytes(i * i % 251 for i in range(3000)))
        share = {"bf16": 0.8, "int8": 0.65}
        costs = {}
        for kind in ("bf16", "int8"):
            got = self.json_of("quantize", self.model, "-o", self.dir / kind, "--type", kind, "--data", text)
            self.assertEqual(list(got), ["model", "path", "type", "file_bytes", "weight_bytes", "us_per_token", "value"])
            for key in ("file_bytes", "us_per_token", "weight_bytes"):
                self.assertTrue(got[key]["before"] > 0 and got[key]["after"] > 0, key)
            self.assertLess(got["file_bytes"]["after"], share[kind] * got["file_bytes"]["before"])
            self.assertEqual(got["file_bytes"]["after"] > (self.dir / kind / "model.safetensors").stat().st_size, False)
            self.assertEqual((got["value"]["metric"], got["value"]["measured_on"]), ("bits-per-byte", 3000))
            costs[kind] = abs(got["value"]["after"] - got["value"]["before"])
            self.assertGreater(costs[kind], 0)  # it is another model
            # What is measured is what `stream` says of the same bytes.
            with open(text, "rb") as file:
                stream = self.expect(0, "stream", self.dir / kind, "--every", 3000, "--quiet", stdin=file).stdout
            self.assertAlmostEqual(json.loads(stream)["bits_per_byte"], got["value"]["after"], places=9)
            self.assertEqual(json.loads((self.dir / kind / "config.json").read_text()), json.loads((self.model / "config.json").read_text()))
            self.assertEqual(self.json_of("generate", self.dir / kind, "--max-tokens", 5)["tokens"], 5)
        self.assertLess(costs["bf16"], 0.2)
        got = self.json_of("quantize", self.model, "-o", self.dir / "few", "--type", "int8", "--data", text, "--limit", 100)
        self.assertEqual(got["value"]["measured_on"], 100)
        told = self.expect(0, "quantize", self.model, "-o", self.dir / "untold", "--type", "bf16").stdout
        self.assertIn("not measured", told)

    def test_a_bidirectional_classifier(self):
        random_model(self.model, **{key: MODEL_CONFIG[key] for key in ("task", "classes", "causal", "vocab_size")})
        data = self.dir / "data.tsv"
        data.write_text("Source\tTarget\n" + "[MAX 2 9 [MIN 4 7 ] 0 ]\t9\n[SM 2 9 ]\t1\n" * 5)
        got = self.json_of("quantize", self.model, "-o", self.dir / "out", "--type", "bf16", "--data", data)
        self.assertEqual((got["value"]["metric"], got["value"]["measured_on"], got["us_per_token"]), ("accuracy", 10, None))
        self.assertIn(got["value"]["before"], (0, 0.5, 1))

    def test_spoken_words(self):
        words = {"name": "fsdd", "sample_rate": 8000, "frame": 80, "gain": 1.0, "normalize": "none", "labels": [str(digit) for digit in range(10)]}
        spoken = {key: MODEL_CONFIG[key] for key in ("task", "classes")}
        random_model(self.model, **spoken, causal=True, input="real", vocab_size=0, channels=80, data=words)
        folder = self.dir / "recordings"
        folder.mkdir()
        for digit in range(10):
            for index in range(6):  # 0 to 4 are the test's
                (folder / f"{digit}_ann_{index}.wav").write_bytes(wav([0.3 * math.sin(digit * i * i / 100 + index) for i in range(2000 + 37 * index)]))
        got = self.json_of("quantize", self.model, "-o", self.dir / "out", "--type", "int8", "--data", self.dir)
        self.assertEqual((got["value"]["metric"], got["value"]["measured_on"]), ("accuracy", 50))
        # What is measured is what `stream` says at the end of each recording.
        for kind, model in (("before", self.model), ("after", self.dir / "out")):
            right = 0
            for digit in range(10):
                for index in range(5):
                    samples = (folder / f"{digit}_ann_{index}.wav").read_bytes()[44:]
                    raw = self.dir / "raw"
                    raw.write_bytes(samples + bytes(-len(samples) % 160))
                    with open(raw, "rb") as file:
                        said = self.expect(0, "stream", model, "--pcm", "s16le", "--every", 100, "--quiet", stdin=file).stdout
                    right += json.loads(said.splitlines()[-1])["label"] == str(digit)
            self.assertAlmostEqual(got["value"][kind], right / 50)
        self.assertEqual(self.json_of("quantize", self.model, "-o", self.dir / "few", "--type", "int8", "--data", folder, "--limit", 7)["value"]["measured_on"], 7)
        # Of another data set, of other words, of a form that only training knows.
        self.expect(4, "quantize", self.model, "-o", self.dir / "x", "--type", "int8", "--data", self.dir / "few", parts=["few"])
        (folder / "3_ann_2.wav").write_bytes(b"RIFF")
        self.expect(4, "quantize", self.model, "-o", self.dir / "x", "--type", "int8", "--data", self.dir, parts=["3_ann_2.wav"])
        random_model(self.dir / "other", **spoken, causal=True, input="real", vocab_size=0, channels=80, data={**words, "labels": [*"012345678", "nine"]})
        self.expect(4, "quantize", self.dir / "other", "-o", self.dir / "x", "--type", "int8", "--data", self.dir, parts=["nine"])
        random_model(self.dir / "scaled", **spoken, causal=True, input="real", vocab_size=0, channels=80, data={**words, "normalize": "time-index"})
        self.expect(2, "quantize", self.dir / "scaled", "-o", self.dir / "x", "--type", "int8", "--data", self.dir, parts=["time-index"])
        self.assertFalse((self.dir / "x").exists())

    def test_no_more_than_the_model_can_tell_apart(self):
        random_model(self.model, layer="mega", ffn_dim=16, max_positions=40)
        text = self.dir / "text"
        text.write_bytes(bytes(100))
        got = self.json_of("quantize", self.model, "-o", self.dir / "out", "--type", "int8", "--data", text)
        self.assertEqual(got["value"]["measured_on"], 39)  # </s> stands before them
        self.assertGreater(got["us_per_token"]["after"], 0)

    def test_whole_or_not_at_all(self):
        (self.dir / "there").mkdir()
        (self.dir / "there" / "file").touch()
        before = self.names()
        self.expect(2, "quantize", self.model, "-o", self.dir / "there", "--type", "int8", parts=["there", "new folder"])
        self.expect(2, "quantize", self.model, "-o", "", "--type", "int8", parts=["--out"])
        self.expect(2, "quantize", self.model, "-o", self.dir / "x", parts=["--type is required"])
        self.expect(2, "quantize", self.model, "--type", "int8", parts=["--out is required"])
        self.expect(2, "quantize", self.model, "-o", self.dir / "x", "--type", "int4", parts=["--type"])
        self.expect(4, "quantize", self.model, "-o", self.dir / "x", "--type", "int8", "--data", self.dir / "none", parts=["none", "no such file"])
        (self.dir / "x.tsv").write_text("Source\tTarget\n[MAX 2 9 3 4 ]\t9\n")
        random_model(self.dir / "listops", **{**{key: MODEL_CONFIG[key] for key in ("task", "classes", "causal", "vocab_size")}, "layer": "mega", "ffn_dim": 16, "max_positions": 3})
        # A sequence that the model cannot read: found before anything is written.
        self.expect(4, "quantize", self.dir / "listops", "-o", self.dir / "x", "--type", "int8", "--data", self.dir / "x.tsv", parts=["max_positions"])
        self.expect(2, "quantize", self.model, "-o", self.dir / "x", "--type", "int8", "--data", self.dir / "x.tsv", "--limit", 0, parts=["--limit"])
        before = self.names()
        self.expect(5, "quantize", self.dir / "nowhere", "-o", self.dir / "x", "--type", "int8", parts=["no such folder"])
        self.assertEqual(self.names(), before)
        self.expect(0, "quantize", self.model, "-o", self.dir / "x", "--type", "int8")
        self.expect(5, "quantize", self.dir / "x", "-o", self.dir / "y", "--type", "bf16", parts=["int8 already", "float32"])
        weights = self.model / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-1])
        self.expect(5, "quantize", self.model, "-o", self.dir / "y", "--type", "bf16", parts=["model.safetensors"])
        self.assertEqual(self.names(), sorted([*before, "x"]))


if __name__ == "__main__":
    unittest.main()
