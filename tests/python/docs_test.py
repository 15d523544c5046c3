"""What docs/PYTHON.md shows, and the example that it tells of."""

import os
import re
import subprocess
import sys
import unittest

from support import SOURCE_DIR


class Docs(unittest.TestCase):
    def test_the_page_runs(self):
        blocks = re.findall(r"```python\n(.*?)```", (SOURCE_DIR / "docs/PYTHON.md").read_text(), flags=re.DOTALL)
        self.assertGreaterEqual(len(blocks), 5)
        scope = {}
        for block in blocks:
            exec(compile(block, "docs/PYTHON.md", "exec"), scope)

    def test_the_example_learns(self):
        script = SOURCE_DIR / "examples/train_listops.py"
        done = subprocess.run([sys.executable, "-B", script, "--steps", "150"], capture_output=True, text=True, timeout=500,
                              env={**os.environ, "OMP_NUM_THREADS": "1"})
        self.assertEqual(done.returncode, 0, done.stderr)
        accuracy, frequent = map(float, re.search(r"accuracy (\S+) \(always the most frequent value: (\S+)\)", done.stdout).groups())
        self.assertGreater(accuracy, 2 * frequent)


if __name__ == "__main__":
    unittest.main()
