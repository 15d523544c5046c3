"""tools/compare_runs names what differs between runs, and refuses what is none."""

import contextlib
import io
import json
import pathlib
import sys
import tempfile
import unittest

from tool_case import load_tool


class CompareRunsTest(unittest.TestCase):
    def setUp(self):
        self.tool = load_tool("compare_runs")
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.dir = pathlib.Path(folder.name)

    def make_run(self, name, lr, values, metric="accuracy"):
        run = self.dir / name
        (run / "checkpoints" / "step-00000020").mkdir(parents=True)
        (run / "config.toml").write_text(f'[model]\nlayer = "seqboat"\n\n[optim]\nlr = {lr}\n')
        lines = [{"step": 10, "tokens": 500, "loss": 2.0, "lr": lr, "grad_norm": 1.0, "tokens_per_s": 1000.0, "activation_rate": [0.5, 0.25]}]
        lines += [{"step": 10 * (i + 1), "split": "valid", "metric": metric, "value": value, "ci95": [value - 0.1, None]} for i, value in enumerate(values)]
        (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        (run / "latest").write_text("step-00000020\n")
        (run / "checkpoints" / "step-00000020" / "trainer_state.json").write_text(json.dumps({"step": 20, "tokens": 1000, "seconds": 3.5}))
        return run

    def run_tool(self, *runs):
        out, error = io.StringIO(), io.StringIO()
        argv, sys.argv = sys.argv, ["compare_runs", *map(str, runs)]
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
                code = self.tool.main()
        finally:
            sys.argv = argv
        return code, out.getvalue(), error.getvalue()

    def test_two_runs(self):
        code, out, _ = self.run_tool(self.make_run("a", 0.1, [0.3, 0.5]), self.make_run("b", 0.2, [0.4, 0.35]))
        self.assertEqual(code, 0)
        rows = {line.split("  ")[0]: line for line in out.splitlines()}
        self.assertIn("0.5000 at 20", rows["best validation"])
        self.assertIn("0.4000 at 10", rows["best validation"])
        self.assertEqual(rows["optim.lr"].split(), ["optim.lr", "0.1", "0.2"])
        self.assertNotIn("model.layer", out)
        self.assertEqual(rows["20"].split(), ["20", "0.5000", "0.3500"])
        self.assertIn("0.375", rows["activation rate, mean"])

    def test_of_bits_the_fewest_are_best(self):
        _, out, _ = self.run_tool(self.make_run("a", 0.1, [3.0, 2.5, 2.7], metric="bits-per-byte"))
        self.assertIn("2.5000 at 20", out)
        self.assertIn("The configs are the same.", out)

    def test_what_a_kill_leaves(self):
        run = self.make_run("a", 0.1, [0.3])
        with open(run / "metrics.jsonl", "a") as file:
            file.write('{"step":20,"lo')
        (run / "latest").write_text("step-00000030\n")
        code, out, _ = self.run_tool(run)
        self.assertEqual(code, 0)
        self.assertIn("0.3000 at 10", out)

    def test_no_run(self):
        code, out, error = self.run_tool(self.make_run("a", 0.1, [0.3]), self.dir / "nothing")
        self.assertEqual((code, out), (5, ""))
        self.assertIn("nothing: no run directory: it has no config.toml", error)

    def test_a_run_before_its_first_checkpoint(self):
        run = self.make_run("a", 0.1, [])
        (run / "latest").unlink()
        (run / "metrics.jsonl").write_text("")
        code, out, _ = self.run_tool(run)
        self.assertEqual(code, 0)
        self.assertRegex(out, r"best validation +-\n")


if __name__ == "__main__":
    unittest.main()
