"""The installed package: a program outside the tree finds it, builds against it and runs, and the page that explains it shows its code."""

import os
import pathlib
import re
import subprocess
import tempfile
import unittest

SOURCE = pathlib.Path(os.environ["SEQBOAT_SOURCE_DIR"])
BUILD = pathlib.Path(os.environ["SEQBOAT_BUILD_DIR"])


def run(*words, **more):
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, timeout=500, **more)
    assert done.returncode == 0, f"{words}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


class Install(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.prefix = pathlib.Path(cls.folder.name, "prefix")
        run("cmake", "--install", BUILD, "--prefix", cls.prefix)

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    def test_the_program_runs_from_there(self):
        program = self.prefix / "bin/seqboat"
        self.assertRegex(run(program, "version"), r"^seqboat \d+\.\d+\.\d+")
        self.assertIn("lra/listops", run(program, "recipes", "list"))
        # The verbs that need LibTorch are in a library that it loads.
        self.assertIn("parameters", run(program, "train", "lra/listops-quick", "--dry-run", cwd=self.folder.name))

    def test_a_module_of_ones_own(self):
        build = pathlib.Path(self.folder.name, "own_module")
        run("cmake", "-S", SOURCE / "examples/own_module", "-B", build, "-G", "Ninja", f"-DCMAKE_PREFIX_PATH={self.prefix}")
        run("cmake", "--build", build)
        lines = run(build / "own_module", "300", env={**os.environ, "OMP_NUM_THREADS": "1"}).splitlines()
        loss = [float(re.search(r"loss (\S+)", line).group(1)) for line in lines]
        self.assertLess(loss[-1], 0.8 * loss[0], lines)
        for module in ("attention", "ffn", "mix"):
            self.assertRegex(lines[0], module + r" [01]\.\d\d")

    def test_the_page_shows_the_code(self):
        code = (SOURCE / "examples/own_module/main.cc").read_text()
        blocks = re.findall(r"```cpp\n(.*?)```", (SOURCE / "docs/MODULES.md").read_text(), flags=re.DOTALL)
        self.assertEqual(len(blocks), 2)
        for block in blocks:
            self.assertIn(block.rstrip(), code)


if __name__ == "__main__":
    unittest.main()
