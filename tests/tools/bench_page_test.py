"""docs/BENCHMARKS.md says what benchmarks/results.jsonl says."""

import pathlib
import subprocess
import sys
import unittest

BENCHMARKS = pathlib.Path(__file__).resolve().parents[2] / "benchmarks"


class BenchPage(unittest.TestCase):
    @unittest.skipUnless((BENCHMARKS / "results.jsonl").is_file(), "benchmarks/results.jsonl is not there: the tables of docs/BENCHMARKS.md have nothing to agree with")
    def test_the_tables_are_of_the_committed_results(self):
        done = subprocess.run([sys.executable, "-B", str(BENCHMARKS / "make_tables"), "--check"], capture_output=True, text=True, timeout=120)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)


if __name__ == "__main__":
    unittest.main(verbosity=2)
