"""What the tests of the tools share: a small project in a temporary folder, and a tool run over it."""

import pathlib
import subprocess
import sys
import tempfile
import unittest

TOOLS = pathlib.Path(__file__).resolve().parent.parent.parent / "tools"


class ToolTest(unittest.TestCase):
    tool = ""  # its name in tools/

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = pathlib.Path(folder.name)

    def write(self, name, text):
        file = self.root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(text, bytes):
            file.write_bytes(text)
        else:
            file.write_text(text, encoding="utf-8")

    def run_tool(self):
        return subprocess.run([sys.executable, str(TOOLS / self.tool), "--root", str(self.root)], capture_output=True, text=True)

    def expect_clean(self):
        done = self.run_tool()
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def expect_fault(self, *words):
        """The tool fails, and one line of its output holds all the words."""
        done = self.run_tool()
        self.assertEqual(done.returncode, 1, done.stdout + done.stderr)
        self.assertTrue(any(all(word in line for word in words) for line in done.stdout.splitlines()), f"no line with {words} in:\n{done.stdout}")
