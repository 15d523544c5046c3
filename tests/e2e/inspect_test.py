"""seqboat inspect, and what it says of damaged models"""

import json
import struct
import unittest

from support import CliTest, MODEL_CONFIG, parameter_count, random_model, safetensors, write_model


class Inspect(CliTest):
    def test_model_folder(self):
        config = write_model(self.dir / "m")
        got = self.json_of("inspect", self.dir / "m", "--activation-rate", "0.25", "--length", "100")
        self.assertEqual(got["config"], config)
        self.assertEqual(got["parameters"], parameter_count(config))
        self.assertEqual(got["weight_bytes"], 4 * parameter_count(config))
        self.assertEqual(got["tensors"], [{"name": "everything", "dtype": "F32", "shape": [parameter_count(config)]}])
        self.assertIs(got["streams"], False)
        self.assertIsNone(got["state_bytes"])
        flops = got["flops_per_token"]
        d, h, z, n, w = 8, 16, 4, 2, 4
        self.assertEqual(flops["products"], 2 * d * (d + 2) + 2 * 0.25 * (d * (z + 2 * h) + h * d))
        self.assertEqual(flops["attention"], 0.25 * (2 * w + 1) * (2 * (z + h) + 24))
        self.assertEqual(flops["scan"], 2 * 4 * n * d)
        self.assertEqual(flops["total"], flops["products"] + flops["attention"] + flops["scan"])
        text = self.expect(0, "inspect", self.dir / "m").stdout
        self.assertIn("bidirectional: cannot stream", text)
        self.assertIn("everything", text)

    def test_state_of_a_stream(self):
        write_model(self.dir / "m", causal=True, truncation=10)
        got = self.json_of("inspect", self.dir / "m")
        self.assertIs(got["streams"], True)
        self.assertEqual(got["state_bytes"], 4 * 8 * 2 + 5 * (4 * (4 + 16) + 8) + 4 * 8 * 10)
        write_model(self.dir / "m", causal=True, window_size=0)
        self.assertIn("without a window", self.expect(0, "inspect", self.dir / "m").stdout)

    def test_what_the_runtime_takes(self):
        random_model(self.dir / "m")
        got = self.json_of("inspect", self.dir / "m")
        self.assertIsNone(got["runtime"]["why_not"])
        self.assertGreaterEqual(got["runtime"]["state_bytes"], got["state_bytes"])
        self.assertEqual(got["runtime"]["state_bytes"], self.json_of("generate", self.dir / "m", "--max-tokens", 1)["state_bytes"])
        self.assertEqual(sum(got["weight_bytes_by_type"].values()), got["weight_bytes"])
        self.assertEqual(list(got["weight_bytes_by_type"]), ["F32"])
        for kind, dtype in (("bf16", "BF16"), ("int8", "I8")):
            self.expect(0, "quantize", self.dir / "m", "-o", self.dir / kind, "--type", kind)
            smaller = self.json_of("inspect", self.dir / kind)
            self.assertEqual(smaller["parameters"], got["parameters"])
            self.assertEqual(set(smaller["weight_bytes_by_type"]), {"F32", dtype})
            self.assertLess(smaller["weight_bytes"], got["weight_bytes"])
            self.assertIn(dtype, self.expect(0, "inspect", self.dir / kind).stdout)
        random_model(self.dir / "m", causal=False, task="classification", classes=2)
        self.assertIn("bidirectional", self.json_of("inspect", self.dir / "m")["runtime"]["why_not"])
        write_model(self.dir / "m")
        self.assertIn("model.safetensors", self.json_of("inspect", self.dir / "m")["runtime"]["why_not"])

    def test_run_directory(self):
        run = self.dir / "run"
        write_model(run / "checkpoints" / "step-00000010")
        write_model(run / "checkpoints" / "step-00000020")
        (run / "latest").write_text("step-00000020\n")
        self.assertTrue(self.json_of("inspect", run)["model"].endswith("step-00000020"))
        (run / "best").write_text("step-00000010\n")
        self.assertTrue(self.json_of("inspect", run)["model"].endswith("step-00000010"))
        write_model(run / "model")
        self.assertTrue(self.json_of("inspect", run)["model"].endswith("run/model"))

    def test_pointers_that_lead_nowhere(self):
        run = self.dir / "run"
        write_model(run / "checkpoints" / "step-00000010")
        write_model(self.dir / "outside")
        for name in ("step-00000011", "../../outside", "/etc", "", "..", "a\0b", "x" * 5000):
            (run / "best").write_text(name)
            self.expect(5, "inspect", run, parts=[str(run / "best")])

    def test_missing(self):
        self.expect(5, "inspect", self.dir / "absent", parts=["absent", "no such folder"])
        self.expect(5, "inspect", self.dir, parts=["neither a model folder"])
        self.expect(5, "inspect", "/dev/null", parts=["/dev/null"])
        write_model(self.dir / "m")
        (self.dir / "m" / "model.safetensors").unlink()
        self.expect(5, "inspect", self.dir / "m", parts=["model.safetensors"])
        write_model(self.dir / "m")
        (self.dir / "m" / "config.json").unlink()
        self.expect(5, "inspect", self.dir / "m", parts=["config.json", "no such file"])

    def test_damaged_config(self):
        write_model(self.dir / "m")
        path = self.dir / "m" / "config.json"
        for content, parts in [
            (b"", ["broken JSON", "empty"]),
            (b"{", ["broken JSON", "byte"]),
            (b"\xff\xfe", ["broken JSON"]),
            (b"[" * 100_000, ["broken JSON"]),
            (b"[]", ["expected a JSON object"]),
            (json.dumps({**MODEL_CONFIG, "d_modle": 1}).encode(), ["d_modle", "did you mean d_model?"]),
            (json.dumps({k: v for k, v in MODEL_CONFIG.items() if k != "d_attn"}).encode(), ["d_attn is missing"]),
            (json.dumps({**MODEL_CONFIG, "d_model": "8"}).encode(), ["d_model must be an integer"]),
            (json.dumps({**MODEL_CONFIG, "d_model": 0}).encode(), ["d_model", "found 0"]),
            (json.dumps({**MODEL_CONFIG, "d_model": 10**30}).encode(), ["d_model"]),
            (json.dumps({**MODEL_CONFIG, "n_layers": 2}).encode(), ["parameters"]),
        ]:
            path.write_bytes(content)
            self.expect(5, "inspect", self.dir / "m", parts=parts)

    def test_damaged_weights(self):
        config = write_model(self.dir / "m")
        path = self.dir / "m" / "model.safetensors"
        good = path.read_bytes()
        count = parameter_count(config)

        def with_header(header, data=b""):
            text = header if isinstance(header, bytes) else json.dumps(header).encode()
            return struct.pack("<Q", len(text)) + text + data

        entry = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
        for content in [
            b"",
            good[:4],
            good[:20],
            good[:-1],
            good + b"\0",
            struct.pack("<Q", 2**63) + good[8:],
            struct.pack("<Q", 2**64 - 1),
            struct.pack("<Q", len(good)) + good[8:],
            with_header(b"not json"),
            with_header(b"[1, 2]"),
            with_header({"a": {**entry, "dtype": "F33"}}, bytes(8)),
            with_header({"a": {**entry, "shape": [3]}}, bytes(8)),
            with_header({"a": {**entry, "shape": [-2]}}, bytes(8)),
            with_header({"a": {**entry, "shape": [2**62, 4]}}, bytes(8)),
            with_header({"a": {**entry, "data_offsets": [8, 0]}}, bytes(8)),
            with_header({"a": {**entry, "data_offsets": [0, 2**63]}}, bytes(8)),
            with_header({"a": entry, "b": entry}, bytes(8)),
            with_header({"a": entry, "b": {**entry, "data_offsets": [16, 24]}}, bytes(24)),
            with_header({"a": {"dtype": "F32"}}, bytes(8)),
        ]:
            path.write_bytes(content)
            self.expect(5, "inspect", self.dir / "m", parts=["model.safetensors"])
        path.write_bytes(safetensors({"everything": [count + 1]}))
        self.expect(5, "inspect", self.dir / "m", parts=[str(count), str(count + 1)])
        # Buffers are no parameters.
        path.write_bytes(safetensors({"everything": [count], "norm.running_mean": [8]}))
        self.expect(0, "inspect", self.dir / "m")


if __name__ == "__main__":
    unittest.main()
