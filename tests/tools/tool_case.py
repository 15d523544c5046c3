"""What the tests of the tools share: a small project in a temporary folder, and a tool that looks through it."""

import importlib.machinery
import importlib.util
import pathlib
import subprocess
import sys
import tempfile
import unittest

TOOLS = pathlib.Path(__file__).resolve().parent.parent.parent / "tools"


def load_tool(name):
    """A script of tools/ as a module."""
    sys.dont_write_bytecode = True
    loader = importlib.machinery.SourceFileLoader(name, str(TOOLS / name))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(name, loader))
    loader.exec_module(module)
    return module


class ToolTest(unittest.TestCase):
    tool = ""  # its name in tools/

    @classmethod
    def setUpClass(cls):
        cls.module = load_tool(cls.tool)

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

    def expect_clean(self):
        faults, files = self.module.check(self.root)
        self.assertEqual(faults, [])
        self.assertGreater(files, 0)

    def expect_fault(self, *words):
        """One of the faults found holds all the words."""
        faults, _ = self.module.check(self.root)
        self.assertTrue(any(all(word in fault for word in words) for fault in faults), f"none with {words} in {faults}")

    def exit_code(self):
        """Of the tool as a program."""
        return subprocess.run([sys.executable, str(TOOLS / self.tool), "--root", str(self.root)], capture_output=True).returncode
