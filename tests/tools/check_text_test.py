"""tools/check_text finds each kind of fault, and lets pass what only looks like one."""

import subprocess
import unittest

from tool_case import ToolTest


class CheckTextTest(ToolTest):
    tool = "check_text"

    def setUp(self):
        super().setUp()
        subprocess.run(["git", "init", "--quiet", str(self.root)], check=True)
        self.write("README.md", "# Title\n")

    def test_a_clean_tree(self):
        self.write("src/a.cc", "// network/work/x, framework/, ./root/x, build/root/x and ~/work are nobody's machine; XXXXXX is a template\n")
        self.expect_clean()

    def test_exit_codes(self):
        self.assertEqual(self.exit_code(), 0)
        self.write("README.md", "[gone](A.md)\n")
        self.assertEqual(self.exit_code(), 1)

    def test_paths_of_a_machine(self):
        for folder in ("work", "farm", "root"):
            for text in (f"/{folder}/main", f"cd /{folder}", f'"/{folder}/x"', f"see (/{folder}/a.b)."):
                with self.subTest(text=text):
                    self.write("a.txt", f"first line\n{text}\n")
                    self.expect_fault("a.txt:2:", f"/{folder}")

    def test_words_of_unfinished_work(self):
        for word in ("TO" + "DO", "FIX" + "ME", "XX" + "X", "HA" + "CK"):
            with self.subTest(word=word):
                self.write("src/a.cc", f"\n\n// {word}: later\n")
                self.expect_fault("src/a.cc:3:", word)

    def test_large_files(self):
        self.write("a.bin", b"\0" * 2_000_000)
        self.expect_clean()
        self.write("a.bin", b"\0" * 2_000_001)
        self.expect_fault("a.bin", "2000001 bytes")

    def test_ignored_files_are_left_alone(self):
        self.write(".gitignore", "/build/\n")
        self.write("build/a.txt", "/" + "work/main\n")
        self.expect_clean()

    def test_links(self):
        self.write("docs/A.md", "# A\n\n## One `two`, three\n\n[b](B.md) [r](../README.md#title) [t](#one-two-three) [w](https://example.org/x)\n")
        self.write("docs/B.md", "# B\n")
        self.expect_clean()
        self.write("docs/B.md", "# B\n\n[gone](C.md)\n")
        self.expect_fault("docs/B.md:3:", "C.md")
        self.write("docs/B.md", "# B\n\n[gone](A.md#four)\n")
        self.expect_fault("docs/B.md:3:", "A.md#four")

    def test_paths_in_code_style(self):
        self.write("docs/A.md", "`src/a.cc` `src/<lib>/x.cc` `src/kernels/cpu/foo.cc` `src/ops/{cpu,cuda}` `recipes/*.toml` `build/release`\n")
        self.write("src/a.cc", "")
        self.write("tools/a", "")
        self.expect_clean()
        self.write("docs/A.md", "`tools/a`\n`src/gone.cc`\n")
        self.expect_fault("docs/A.md:2:", "src/gone.cc")
        self.write("docs/A.md", "```\n`src/gone.cc` [x](gone)\n```\n")
        self.expect_clean()


if __name__ == "__main__":
    unittest.main()
