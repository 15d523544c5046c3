"""golden_check must see what is wrong: each case here is a good one with one number changed, and a check that passed it would be worth nothing."""

import json
import os
import pathlib
import shutil
import struct
import subprocess
import tempfile
import unittest

BINARY = os.environ["SEQBOAT_GOLDEN_CHECK"]
TRAJECTORIES = pathlib.Path(__file__).resolve().parent / "trajectories"


class GoldenCase(unittest.TestCase):
    def setUp(self):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="seqboat-golden-"))
        self.addCleanup(shutil.rmtree, self.dir)
        self.take("traj_listops")

    def take(self, case):
        for suffix in (".json", ".safetensors"):
            shutil.copy(TRAJECTORIES / (case + suffix), self.dir / (case + suffix))
            (self.dir / (case + suffix)).chmod(0o644)
        self.case = case
        (self.dir / "manifest.json").write_text(json.dumps({"cases": [{"case": case, "kind": "trajectory"}]}))

    def change(self, tensor, element, factor):
        """Multiplies one element of a float64 tensor."""
        file = self.dir / (self.case + ".safetensors")
        data = bytearray(file.read_bytes())
        size = struct.unpack_from("<Q", data)[0]
        entry = json.loads(data[8:8 + size])[tensor]
        self.assertEqual(entry["dtype"], "F64")
        at = 8 + size + entry["data_offsets"][0] + 8 * element
        value = struct.unpack_from("<d", data, at)[0]
        self.assertNotEqual(value, 0)
        struct.pack_into("<d", data, at, value * factor)
        file.write_bytes(data)

    def change_json(self, change):
        file = self.dir / (self.case + ".json")
        content = json.loads(file.read_text())
        change(content)
        file.write_text(json.dumps(content))

    def run_check(self):
        done = subprocess.run([BINARY, str(self.dir)], capture_output=True, text=True, timeout=300)
        return done.returncode, done.stdout + done.stderr

    def expect_failure(self, *parts):
        code, text = self.run_check()
        self.assertEqual(code, 1, text)
        self.assertIn("0 passed, 1 failed, 0 skipped", text)
        for part in parts:
            self.assertIn(part, text)


class sees_faults(GoldenCase):  # noqa: N801: the names by which ctest runs them
    def test_an_untouched_case_passes(self):
        code, text = self.run_check()
        self.assertEqual(code, 0, text)
        self.assertTrue(text.endswith("1 passed, 0 failed, 0 skipped\n"), text)

    def test_a_loss_late_in_the_run(self):
        self.change("trace.loss.f64", 180, 1 + 1e-9)
        self.expect_failure("float64: trace.loss.f64 of update 181 ")

    def test_a_gradient_norm_that_only_float64_resolves(self):
        self.change("trace.grad_norm.f64", 3, 1 + 1e-9)
        self.expect_failure("float64: trace.grad_norm.f64 of update 4 ")

    def test_a_weight_after_200_updates(self):
        self.change("after200.param.classifier.0.0.weight", 7, 1.1)
        self.expect_failure("after200.param.classifier.0.0.weight", "float32", "float64")


class sees_other_settings(GoldenCase):  # noqa: N801
    def test_the_official_schedule_one_update_late(self):
        self.change_json(lambda content: content["optimizer"].update(warmup_updates=21))
        self.expect_failure()

    def test_no_weight_decay(self):
        self.change_json(lambda content: content["optimizer"].update(weight_decay=0.0))
        self.expect_failure()

    def test_no_clipping(self):
        self.change_json(lambda content: content["optimizer"].update(clip_norm=0.0))
        self.expect_failure()

    def test_a_window_off_by_one(self):
        self.change_json(lambda content: content["config"].update(chunk_size=15))
        self.expect_failure()


if __name__ == "__main__":
    unittest.main()
