"""benchmarks/compare and benchmarks/make_tables, with a program and a Python that are scripts of a few lines: what is run, what is written, what is left out."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
import unittest

BENCHMARKS = pathlib.Path(__file__).resolve().parents[2] / "benchmarks"

# It takes 10 ms and as much more as is activated, keeps a log of its calls, and fails as asked.
PROGRAM = r"""#!{python}
import json, os, sys, time
words = sys.argv[1:]
value = lambda name, default: words[words.index(name) + 1] if name in words else default
folder = os.path.dirname(os.path.abspath(__file__))
with open(folder + "/calls", "a") as file:
    file.write(" ".join(words) + "\n")
if words[0] == "version":
    print(json.dumps(dict(version="9.9", simd="avx3", simd_supported=["avx3", "avx2", "scalar"])))
elif words[:2] == ["recipes", "show"]:
    if not words[2].startswith("bench/"):
        sys.exit("seqboat: error: no recipe " + words[2])
    print('[model]\nposition = "simple"\nmax_positions = 4096')
elif words[:2] == ["bench", "--help"]:
    print("--recipe --simd" if os.path.exists(folder + "/simd") else "--recipe")
elif words[0] == "bench":
    behave = {behave!r}
    if behave in words:
        sys.exit({code})
    if behave == "slow" and value("--activation-rate", "") == "1.0":
        time.sleep(60)
    length, rate = int(value("--length", 100)), float(value("--activation-rate", .4))
    ms = length * (.1 + rate) * (2 if value("--simd", "") == "avx2" else 1) / int(value("--threads", 1))
    print(json.dumps(dict(batch=2, length=length, ms=dict(min=ms, median=ms), added_rss_bytes=int(1e6 * (1 + rate)), limit_fraction=.5, reachable_fraction=1.25,
                          machine=dict(gemm_gflops=300.0, fma_gflops=363.0))))
"""

# Stands for a Python with torch: the reference needs 1000 ms, and memory without end at length 4096.
PYTHON = r"""#!{python}
import json, sys
words = sys.argv[1:]
if words[0] == "-c":
    print("2.0")
elif "4096" in words and "padded" in words:
    sys.exit(7)
else:
    print(json.dumps(dict(batch=2, length=int(words[words.index("--length") + 1]) if "--length" in words else 100, ms=dict(min=1000.0, median=1000.0), added_rss_bytes=10**7)))
"""


class BenchTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.dir = pathlib.Path(folder.name)
        self.results = self.dir / "results.jsonl"
        self.make()

    def make(self, behave="nothing", code=1):
        for name, text in (("seqboat", PROGRAM), ("python", PYTHON)):
            text = text.replace("{python}", sys.executable).replace("{behave!r}", repr(behave)).replace("{code}", str(code))
            (self.dir / name).write_text(text)
            (self.dir / name).chmod(0o755)

    def command(self, *words):
        return [sys.executable, "-B", str(BENCHMARKS / "compare"), "--seqboat", str(self.dir / "seqboat"), "--python", str(self.dir / "python"), "--results", str(self.results), *words]

    def compare(self, code, *words):
        done = subprocess.run(self.command(*words), capture_output=True, text=True, timeout=120)
        self.assertEqual(done.returncode, code, done.stderr)
        return done

    def lines(self):
        return [json.loads(line) for line in self.results.read_text().splitlines()]

    def calls(self):
        return [line for line in (self.dir / "calls").read_text().splitlines() if line.startswith("bench --recipe")]


class Compare(BenchTest):
    def test_measurements_run_in_turns_and_become_tables(self):
        done = self.compare(0, "--recipes", "bench/a,bench/b", "--modes", "train", "--rates", "1,.1", "--threads", "2", "--rivals", "padded,transformer", "--repetitions", "2")
        lines = self.lines()
        # Two rates of two, and the Transformer once; twice; for two recipes.
        self.assertEqual(len(lines), 2 * 2 * 5)
        first = [(line["contender"], line["rate"], line["repetition"]) for line in lines[:6]]
        self.assertEqual(first, [("seqboat", 0.1, 0), ("padded", 0.1, 0), ("transformer", None, 0), ("seqboat", 1.0, 0), ("padded", 1.0, 0), ("seqboat", 0.1, 1)])
        self.assertIn("--mode train --threads 2 --json", self.calls()[0])
        # 100 (.1 + .1) / 2 = 10 ms of 200 tokens; the reference takes 1000; half of the limit's speed.
        row = next(line for line in done.stdout.splitlines() if line.startswith("| bench/a | 0.1 |"))
        self.assertEqual([word.strip() for word in row.strip("|").split("|")], ["bench/a", "0.1", "10", "20,000", "50%", "125%", "1,000", "100 ×", "1,000", "100 ×"])
        self.assertIn("| large GEMM, GF/s | 300 |", done.stdout)
        self.assertRegex(done.stdout, r"\| bench/a \| seqboat \| 10 \| 55 \| 0.18 \|")  # the cost of a tenth in that of the whole

    def test_it_goes_on_where_it_was(self):
        words = ["--recipes", "bench/a", "--modes", "train", "--rates", ".5", "--rivals", "", "--repetitions", "3"]
        self.compare(0, *words)
        self.assertEqual(len(self.calls()), 3)
        # One measurement is lost, of another half a line was written.
        whole = self.results.read_text().splitlines()
        self.results.write_text("\n".join(whole[:2]) + "\n" + whole[2][:50])
        self.compare(0, *words)
        self.assertEqual((len(self.calls()), len(self.lines())), (4, 3))
        self.compare(0, *words)
        self.assertEqual(len(self.calls()), 4)
        self.compare(0, *words, "--fresh")
        self.assertEqual(len(self.calls()), 7)
        self.assertIn("| bench/a | 0.5 |", self.compare(0, "--tables").stdout)

    def test_an_interrupted_run_leaves_whole_lines(self):
        self.make(behave="slow")
        words = ["--recipes", "bench/a", "--modes", "train", "--rates", ".5,1", "--rivals", "", "--repetitions", "1"]
        process = subprocess.Popen(self.command(*words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        deadline = time.time() + 60
        while len(self.calls() if (self.dir / "calls").exists() else []) < 2 and time.time() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 130, error)
        self.assertIn("goes on from there", error)
        self.assertEqual([line["rate"] for line in self.lines()], [0.5])

    def test_what_takes_too_long_or_too_much_is_left_out(self):
        done = self.compare(0, "--sweep", "length", "--recipes", "bench/a", "--modes", "train", "--lengths", "2k,4k,8192", "--rivals", "padded", "--repetitions", "2")
        left = [(line["length"], line["left_out"]) for line in self.lines() if "left_out" in line]
        self.assertEqual([length for length, _ in left], [4096, 8192])
        self.assertIn("more memory than", left[0][1])
        self.assertIn("as at rate 0.5, length 4,096: more memory than", left[1][1])
        self.assertTrue(self.calls()[0].endswith("--batch 1 --length 2048 --activation-rate 0.5"), self.calls()[0])
        self.assertTrue(self.calls()[2].endswith("--length 8192 --activation-rate 0.5 --set model.max_positions=8192"), self.calls()[2])
        self.assertRegex(done.stdout, r"\| bench/a \| train \| padded PyTorch \| 244 \| left out \| left out \| – \|")
        self.assertIn("Left out: padded PyTorch, bench/a train at rate 0.5, length 4,096: more memory", done.stdout)
        self.make(behave="slow")
        self.results.unlink()
        self.compare(0, "--recipes", "bench/a", "--modes", "train", "--rates", ".5,1", "--rivals", "", "--repetitions", "1", "--time-limit", "2")
        self.assertEqual([line.get("left_out") for line in self.lines()], [None, "more than 2 s"])

    def test_threads_and_simd_targets(self):
        done = self.compare(0, "--sweep", "threads", "--recipes", "bench/a", "--modes", "forward", "--repetitions", "1")
        self.assertRegex(done.stdout, r"\| bench/a \| forward \| 0.5 \| seqboat \| 60 \| 30 \| 2 × \|")
        simd = ["--sweep", "simd", "--recipes", "bench/a", "--modes", "train", "--repetitions", "1"]
        self.assertIn("no option --simd", self.compare(2, *simd).stderr)
        (self.dir / "simd").touch()
        self.assertRegex(self.compare(0, *simd).stdout, r"\| bench/a \| train \| 0.5 \| 30 \| 60 \| 2 × \|")

    def test_errors_are_clear(self):
        common = ["--modes", "train", "--rates", ".5", "--repetitions", "1"]
        self.assertIn("no recipe nothing/such", self.compare(2, "--recipes", "bench/a,nothing/such", *common).stderr)
        self.assertFalse(self.results.exists())
        self.assertIn("--rates .5,two", self.compare(2, "--rates", ".5,two").stderr)
        self.assertIn("--rates 1.5", self.compare(2, "--rates", "1.5").stderr)
        self.assertIn("--rivals mamba: expected padded, blocked, transformer", self.compare(2, "--rivals", "mamba").stderr)
        self.assertIn("--rivals=", self.compare(2, "--modes", "decode").stderr)
        (self.dir / "python").write_text(f"#!{sys.executable}\nimport sys; sys.exit('No module named torch')\n")
        self.assertIn("has no torch (No module named torch)", self.compare(2, "--recipes", "bench/a", *common).stderr)
        self.make(behave="bench/a", code=3)
        error = self.compare(1, "--recipes", "bench/a", *common).stderr
        self.assertIn("exit code 3", error)
        self.assertIn("bench --recipe bench/a", error)
        os.remove(self.dir / "seqboat")
        self.assertIn("no program; build it", self.compare(2, "--recipes", "bench/a", *common).stderr)
        self.results.write_text('{"half": 1}\n')
        self.assertIn("results.jsonl:1: no measurement: expected sweep", self.compare(1, "--tables").stderr)


class MakeTables(BenchTest):
    PAGE = "# Page\n\nBefore.\n\n<!-- table: train -->\nold\n<!-- end -->\n\nBetween.\n\n```\n<!-- table: none -->\n```\n\n<!-- table: machine -->\n<!-- end -->\nAfter.\n"

    def setUp(self):
        super().setUp()
        self.page = self.dir / "page.md"
        self.page.write_text(self.PAGE)
        self.compare(0, "--recipes", "bench/a", "--modes", "train", "--rates", ".5", "--rivals", "", "--repetitions", "1")

    def make_tables(self, code, *words):
        done = subprocess.run([sys.executable, "-B", str(BENCHMARKS / "make_tables"), str(self.results), "--document", str(self.page), *words], capture_output=True, text=True)
        self.assertEqual(done.returncode, code, done.stderr)
        return done.stdout + done.stderr

    def test_a_page_is_filled_and_stays(self):
        self.assertIn("out of date", self.make_tables(1, "--check"))
        self.assertEqual(self.page.read_text(), self.PAGE)
        self.assertIn("2 tables, written", self.make_tables(0))
        text = self.page.read_text()
        self.assertNotIn("old", text)
        for words in ("# Page\n\nBefore.\n\n<!-- table: train -->\n\n| recipe", "| bench/a | 0.5 |", "\n<!-- end -->\n\nBetween.\n\n```\n<!-- table: none -->\n```\n", "\n<!-- end -->\nAfter.\n"):
            self.assertIn(words, text)
        self.assertIn("unchanged", self.make_tables(0))
        self.assertEqual(self.page.read_text(), text)
        self.make_tables(0, "--check")

    def test_what_is_wrong_is_named_and_nothing_is_written(self):
        for page, words in (
            ("a\n<!-- table: trian -->\n<!-- end -->\n", ["page.md:2", "'trian'", "expected one of machine, train"]),
            ("<!-- table: train -->\n", ["page.md:1", "has no <!-- end -->"]),
            ("<!-- table: train -->\n<!-- table: machine -->\n<!-- end -->\n", ["page.md:2", "before this one begins"]),
            ("<!-- end -->\n", ["page.md:1", "without a table"]),
            ("<!-- table: train -->\n<!-- end -->\n<!-- table: threads -->\nx\n<!-- end -->\n", ["page.md:3", "--sweep threads"]),
        ):
            self.page.write_text(page)
            error = self.make_tables(2)
            for word in words:
                self.assertIn(word, error)
            self.assertEqual(self.page.read_text(), page)
        self.make_tables(0, "--keep")
        self.assertIn("<!-- table: threads -->\nx\n<!-- end -->", self.page.read_text())
        self.results.unlink()
        self.assertIn("no such file", self.make_tables(2))


if __name__ == "__main__":
    unittest.main()
