"""seqboat data"""

import os
import resource
import signal
import subprocess
import time
import unittest

from support import BINARY, CliTest

SMALL = ("--short", "--train", 400, "--valid", 50, "--test", 50)


class Make(CliTest):
    def make(self, folder, *more):
        return self.json_of("data", "make", "listops", *SMALL, "--out", folder, *more)

    def test_makes_only_what_is_missing(self):
        folder = self.dir / "d"
        self.assertEqual(self.make(folder)["made"], ["train", "val", "test"])
        content = (folder / "basic_val.tsv").read_bytes()
        self.assertEqual(self.make(folder)["made"], [])
        (folder / "basic_val.tsv").unlink()
        self.assertEqual(self.make(folder)["made"], ["val"])
        self.assertEqual((folder / "basic_val.tsv").read_bytes(), content)

    def test_seed_decides_and_threads_do_not(self):
        content = lambda name: (self.dir / name / "basic_test.tsv").read_bytes()
        self.make(self.dir / "a")
        self.make(self.dir / "b", "--threads", 1)
        self.make(self.dir / "c", "--seed", 1)
        self.assertEqual(content("a"), content("b"))
        self.assertNotEqual(content("a"), content("c"))

    def test_goes_to_the_cache_by_default(self):
        made = self.json_of("data", "make", "listops", *SMALL)
        self.assertTrue(made["path"].startswith(str(self.dir / "cache" / "seqboat")), made)
        self.assertEqual(made["made"], ["train", "val", "test"])

    def test_refuses(self):
        self.expect(2, "data", "make", "listop", parts=["did you mean listops?"])
        self.expect(2, "data", "make", "listops", "--max-args", 1, parts=["--max-args"])
        self.expect(2, "data", "make", "listops", "--seed", "-1", parts=["--seed"])
        self.expect(3, "data", "make", "listops", "--max-depth", 2, "--out", self.dir / "x", parts=["min_length"])
        self.assertFalse((self.dir / "x").exists())
        self.make(self.dir / "d")
        before = (self.dir / "d" / "basic_train.tsv").read_bytes()
        self.expect(4, "data", "make", "listops", *SMALL, "--seed", 7, "--out", self.dir / "d", parts=["seed 0", "seed 7"])
        self.assertEqual((self.dir / "d" / "basic_train.tsv").read_bytes(), before)
        (self.dir / "file").write_text("x")
        self.assertIn(self.run_cli("data", "make", "listops", *SMALL, "--out", self.dir / "file").returncode, (1, 4))
        self.assertEqual((self.dir / "file").read_text(), "x")

    @unittest.skipIf(os.geteuid() == 0, "root may write everywhere")
    def test_read_only_folder(self):
        self.dir.chmod(0o555)
        self.expect(1, "data", "make", "listops", *SMALL, "--out", self.dir / "d")

    def test_folder_that_nobody_may_write_to(self):
        self.expect(1, "data", "make", "listops", *SMALL, "--out", "/proc/nowhere", parts=["/proc/nowhere"])

    def test_no_space(self):
        # The limit on file sizes stands for a full disk: the write fails in the middle of a file.
        limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        done = self.expect(7, "data", "make", "listops", *SMALL, "--out", self.dir / "d", preexec_fn=limit)
        self.assertIn("basic_train.tsv", done.stderr)
        self.assertFalse([p.name for p in (self.dir / "d").iterdir() if p.name != "listops.json"])
        self.assertEqual(self.make(self.dir / "d")["made"], ["train", "val", "test"])

    def test_interrupted(self):
        folder = self.dir / "d"
        for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
            process = subprocess.Popen([BINARY, "data", "make", "listops", "--train", "5000000", "--out", str(folder)], stderr=subprocess.PIPE, text=True)
            deadline = time.monotonic() + 60
            while not (folder.is_dir() and any(folder.iterdir())) and time.monotonic() < deadline:
                time.sleep(0.02)
            time.sleep(0.1)
            process.send_signal(number)
            _, stderr = process.communicate(timeout=60)
            self.assertEqual(process.returncode, code, stderr)
            self.assertIn("interrupted", stderr)
            self.assertFalse([p.name for p in folder.iterdir() if p.name != "listops.json"])


class CheckAndStats(CliTest):
    HEADER = "Source\tTarget\n"

    def file(self, text):
        path = self.dir / "x.tsv"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    def test_good(self):
        self.json_of("data", "make", "listops", *SMALL, "--out", self.dir / "d")
        checked = self.json_of("data", "check", self.dir / "d")
        self.assertIs(checked["ok"], True)
        self.assertEqual([f["samples"] for f in checked["files"]], [400, 50, 50])
        path = self.file(self.HEADER + "( ( ( [MAX 2 ) 9 ) ] )\t9\n[SM 5 6 ]\t1\n")
        self.assertEqual(self.json_of("data", "check", path)["files"][0]["tokens"], 8)
        stats = self.json_of("data", "stats", self.dir / "d")
        self.assertTrue(stats["path"].endswith("basic_test.tsv"))
        ladder = stats["shortcut_ladder"]
        self.assertEqual(ladder["fitted_on"], "train")
        for key in ("constant", "root_operator", "one_level", "two_levels", "three_levels"):
            self.assertTrue(0 <= ladder[key] <= 1)
        self.assertGreater(ladder["three_levels"], ladder["root_operator"])
        self.assertTrue(self.json_of("data", "stats", self.dir / "d", "--split", "valid")["path"].endswith("basic_val.tsv"))
        text = self.expect(0, "data", "stats", self.dir / "d" / "basic_val.tsv").stdout
        self.assertIn("shortcuts", text)
        self.expect(2, "data", "stats", self.dir / "d" / "basic_val.tsv", "--split", "test", parts=["--split"])

    def test_bad_files_are_named_with_their_line(self):
        for text, parts in [
            ("", ["empty"]),
            (self.HEADER, ["x.tsv"]),
            ("Target\tSource\n[MAX 1 2 ]\t2\n", ["x.tsv"]),
            (self.HEADER + "[MAX 1 2 ]\t2\n[MAX 1 oops ]\t2\n", ["x.tsv:3", "oops"]),
            (self.HEADER + "[MAX 1 2 ]\t12\n", ["x.tsv:2", "12"]),
            (self.HEADER + "[MAX 1 2 ]\n", ["x.tsv:2"]),
            (self.HEADER + "[MAX 1 2 ] ]\t2\n", ["x.tsv:2"]),
            (self.HEADER + "[MAX 1 2 ]\t1\n", ["x.tsv:2"]),
            (b"\0\1\2\3" * 100, ["x.tsv"]),
        ]:
            path = self.file(text)
            self.expect(4, "data", "check", path, "--quiet", parts=parts)
        self.expect(4, "data", "check", self.dir / "absent", parts=["absent"])
        (self.dir / "nothing").mkdir()
        self.expect(4, "data", "check", self.dir / "nothing", parts=["basic_train.tsv"])
        self.expect(4, "data", "stats", self.dir / "nothing", parts=["basic_train.tsv"])

    def test_list(self):
        self.assertIn("listops", [d["name"] for d in self.json_of("data", "list")["data"]])


if __name__ == "__main__":
    unittest.main()
