"""benchmarks/compare and benchmarks/make_tables, with a program and a Python that are scripts of a few lines: what is run, what is written, what is left out."""

import json
import os
import pathlib
import shutil
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
folder = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
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
    if behave == "slow" and value("--activation-rate", "") == "1.0" and not os.path.exists(folder + "/quick"):
        time.sleep(60)
    length, rate = int(value("--length", 100)), float(value("--activation-rate", .4))
    ms = length * (.1 + rate) * (2 if value("--simd", "") == "avx2" else 1) / int(value("--threads", 1))
    print(json.dumps(dict(batch=2, length=length, ms=dict(min=ms, median=ms), added_rss_bytes=int(1e6 * (1 + rate)), limit_ms=ms / 2, reachable_ms=ms * 1.25,
                          allocator=[v for k, v in sorted(os.environ.items()) if k.startswith("MALLOC_")], machine=dict(gemm_gflops=300.0, fma_gflops=363.0))))
"""

# Stands for a Python with torch: the reference needs 1000 ms, and memory without end at length 4096.
PYTHON = r"""#!{python}
import json, os, sys
folder = os.path.dirname(os.path.abspath(__file__))
words = sys.argv[1:]
if words[0] == "-c":
    print(open(folder + "/torch").read() if os.path.exists(folder + "/torch") else "2.0")
elif "4096" in words and "padded" in words and not os.path.exists(folder + "/memory"):
    sys.exit(7)
else:
    print(json.dumps(dict(batch=2, length=int(words[words.index("--length") + 1]) if "--length" in words else 100, ms=dict(min=1000.0, median=1000.0), added_rss_bytes=10**7, recipe="a file",
                          allocator=[v for k, v in sorted(os.environ.items()) if k.startswith("MALLOC_")])))
"""


class BenchTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.dir = pathlib.Path(folder.name)
        self.results = self.dir / "results.jsonl"
        self.make()

    def make(self, behave="nothing", code=1):
        (self.dir / "bin").mkdir(exist_ok=True)
        for name, text in (("bin/seqboat", PROGRAM), ("python", PYTHON)):
            text = text.replace("{python}", sys.executable).replace("{behave!r}", repr(behave)).replace("{code}", str(code))
            (self.dir / name).write_text(text)
            (self.dir / name).chmod(0o755)

    def command(self, *words):
        return [sys.executable, "-B", str(BENCHMARKS / "compare"), "--seqboat", str(self.dir / "bin/seqboat"), "--python", str(self.dir / "python"), "--results", str(self.results), *words]

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
        # A shell starts what it puts into the background with SIGINT ignored, and children inherit that: a terminal's programs have it at its default.
        process = subprocess.Popen(self.command(*words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                   preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
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
        self.assertIn("limits are for a whole process, warm-up and all its steps, not for one step", done.stdout)
        self.make(behave="slow")
        self.results.unlink()
        self.compare(0, "--recipes", "bench/a", "--modes", "train", "--rates", ".5,1", "--rivals", "", "--repetitions", "1", "--time-limit", "2")
        self.assertEqual([line.get("left_out") for line in self.lines()], [None, "more than 2 s"])

    def test_what_was_left_out_is_tried_again_under_a_raised_limit(self):
        self.make(behave="slow")
        words = ["--recipes", "bench/a", "--modes", "train", "--rates", ".5,1", "--rivals", "", "--repetitions", "1"]
        self.compare(0, *words, "--time-limit", "2")
        self.assertEqual(self.lines()[-1]["limit"], {"seconds": 2})
        (self.dir / "quick").touch()
        for limit in ("1", "2"):
            self.assertIn("left out", self.compare(0, *words, "--time-limit", limit).stdout)
        self.assertEqual(len(self.calls()), 2)
        self.assertNotIn("left out", self.compare(0, *words, "--time-limit", "60").stdout.lower())
        self.assertEqual((len(self.calls()), self.lines()[-1]["result"]["length"]), (3, 100))
        self.compare(0, *words, "--time-limit", "2")  # it is known now
        self.assertEqual(len(self.calls()), 3)

        self.results.unlink()
        words = ["--sweep", "length", "--recipes", "bench/a", "--modes", "train", "--lengths", "2k,4k,8k", "--rivals", "padded", "--repetitions", "1", "--memory-limit"]
        self.compare(0, *words, "4")
        left = [line["limit"] for line in self.lines() if "left_out" in line]
        self.assertEqual(left, [{"bytes": 4 * 2**30}] * 2)  # the longer one by what the shorter one broke
        (self.dir / "memory").touch()
        self.assertIn("left out", self.compare(0, *words, "4").stdout)
        self.assertNotIn("left out", self.compare(0, *words, "5").stdout.lower())
        self.assertEqual([line["length"] for line in self.lines()[-2:]], [4096, 8192])

    def test_what_is_measured_has_an_identity(self):
        words = ["--recipes", "bench/a", "--modes", "train", "--rates", ".5", "--rivals", "padded", "--repetitions", "1"]
        self.compare(0, *words)
        self.compare(0, *words)
        ours, theirs = self.lines()
        self.assertEqual(len(ours["build"]), 12)
        self.assertNotEqual(ours["build"], theirs["build"])
        self.assertEqual(ours["host"], theirs["host"])

        def measured_anew(contenders, *command):
            before = len(self.lines())
            done = subprocess.run(command, capture_output=True, text=True, timeout=120) if command else self.compare(0, *words)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertEqual([line["contender"] for line in self.lines()[before:]], contenders)
            return done.stdout

        (self.dir / "lib").mkdir()
        (self.dir / "lib/readme").touch()
        measured_anew([])
        (self.dir / "lib/libseqboat_ops.so").write_text("one")
        out = measured_anew(["seqboat"])
        self.assertIn(f"Left aside, since measured by another build or on another machine than the newest: 1 of seqboat (build {ours['build']}, {ours['host']}).", out)
        self.assertIn(f"Builds: {self.lines()[-1]['build']} (seqboat), {theirs['build']} (padded PyTorch).", out)
        (self.dir / "lib/libseqboat_ops.so").write_text("two")
        measured_anew(["seqboat"])
        (self.dir / "torch").write_text("2.1")
        measured_anew(["padded"])
        shutil.copytree(BENCHMARKS, self.dir / "benchmarks")
        command = self.command(*words)
        command[2] = str(self.dir / "benchmarks/compare")
        measured_anew([], *command)
        with open(self.dir / "benchmarks/reference/model.py", "a") as file:
            file.write("# another\n")
        measured_anew(["padded"], *command)
        # An older build measures nothing twice, and its tables are of it and not of the newest.
        shutil.rmtree(self.dir / "lib")
        (self.dir / "torch").unlink()
        out = measured_anew([])
        self.assertIn(f"Builds: {ours['build']} (seqboat), {theirs['build']} (padded PyTorch).", out)

    def test_kinds_of_layers_stand_beside_our_own(self):
        out = self.compare(0, "--sweep", "kinds", "--recipes", "bench/a", "--modes", "train", "--rates", ".6", "--repetitions", "1", "--python", "/none").stdout
        kinds = ["seqboat-full", "ema", "s4d", "mega-chunk", "mega", "attention"]
        self.assertEqual([line["contender"] for line in self.lines()], ["seqboat", *kinds])
        self.assertEqual(len({line["build"] for line in self.lines()}), 1)
        for kind, call in zip(kinds, self.calls()[-6:], strict=True):
            self.assertIn(f"--set model.layer={kind}", call)
            self.assertNotIn("--activation-rate", call)
        # The limit of the program above is half of its time, whoever it is.
        self.assertIn("| bench/a | train | seqboat at 0.6 | 35 |", out)
        self.assertIn("| bench/a | train | mega | 25 |", out)
        self.assertEqual(out.count("| 50% | 125% | 100% | 100% |"), 7)
        # A newer build's do not put the other tables aside.
        page = self.dir / "page.md"
        page.write_text("<!-- table: train -->\n<!-- end -->\n<!-- table: kinds -->\n<!-- end -->\n")
        self.compare(0, "--recipes", "bench/a", "--modes", "train", "--rates", ".5", "--rivals", "", "--repetitions", "1")
        (self.dir / "lib").mkdir()
        (self.dir / "lib/libseqboat_ops.so").write_text("newer")
        self.compare(0, "--sweep", "kinds", "--recipes", "bench/a", "--modes", "train", "--rivals", "ema", "--repetitions", "1")
        done = subprocess.run([sys.executable, "-B", str(BENCHMARKS / "make_tables"), str(self.results), "--document", str(page)], capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("| bench/a | 0.5 | 30 |", page.read_text())

    def test_references_have_the_allocator_of_the_program(self):
        self.compare(0, "--recipes", "bench/a", "--modes", "train", "--rates", ".5", "--repetitions", "1")
        self.assertEqual([line["contender"] for line in self.lines()], ["seqboat", "padded", "blocked", "transformer"])
        for line in self.lines():
            self.assertEqual(line["result"]["allocator"], [] if line["contender"] == "seqboat" else ["0", "16777216", "2147483647"])  # mmap_max, top_pad, trim_threshold
            self.assertEqual(line["result"]["recipe"], "bench/a")

    def test_where_routers_decide_there_are_no_rivals(self):
        self.compare(0, "--recipes", "bench/a", "--modes", "train", "--rates", "router,.5", "--rivals", "padded", "--repetitions", "1")
        self.assertEqual([(line["contender"], line["rate"]) for line in self.lines()], [("seqboat", None), ("seqboat", 0.5), ("padded", 0.5)])
        self.assertNotIn("--activation-rate", self.calls()[0])
        self.assertRegex(self.compare(0, "--tables").stdout, r"\| bench/a \| router \| 25 \| [^\n]* \| – \| – \|\n")
        (self.dir / "python").unlink()  # it is not needed
        self.compare(0, "--recipes", "bench/b", "--modes", "train", "--rates", "router", "--repetitions", "1")
        self.assertEqual(len(self.lines()), 4)

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
        self.assertIn("a share from 0 to 1, or router", self.compare(2, "--rates", "learned").stderr)
        for wrong in ("0", "-1"):
            self.assertIn(f"--repetitions {wrong}: expected at least 1", self.compare(2, "--repetitions", wrong).stderr)
            self.assertIn(f"--steps {wrong}: expected at least 1", self.compare(2, "--steps", wrong).stderr)
        self.assertIn("--rates 1.5", self.compare(2, "--rates", "1.5").stderr)
        self.assertIn("--rivals mamba: expected padded, blocked, transformer", self.compare(2, "--rivals", "mamba").stderr)
        self.assertIn("--rivals=", self.compare(2, "--modes", "decode").stderr)
        (self.dir / "python").write_text(f"#!{sys.executable}\nimport sys; sys.exit('No module named torch')\n")
        self.assertIn("has no torch (No module named torch)", self.compare(2, "--recipes", "bench/a", *common).stderr)
        self.make(behave="bench/a", code=3)
        error = self.compare(1, "--recipes", "bench/a", *common).stderr
        self.assertIn("exit code 3", error)
        self.assertIn("bench --recipe bench/a", error)
        os.remove(self.dir / "bin/seqboat")
        self.assertIn("no program; build it", self.compare(2, "--recipes", "bench/a", *common).stderr)
        self.results.write_text('{"half": 1}\n')
        self.assertIn("results.jsonl:1: no measurement: expected sweep", self.compare(1, "--tables").stderr)


class Tables(BenchTest):
    """Of lines that are written here."""

    A, B, HOST, OTHER = "aaaaaaaaaaaa", "bbbbbbbbbbbb", "machine one", "machine two"

    def line(self, contender="seqboat", ms=10.0, build=None, host=HOST, sitting="2000-01-01 10:00", limit=None, reachable=None, **spec):
        at = dict(sweep="activation", contender=contender, recipe="bench/a", mode="train", rate=0.5, threads=2, batch=None, length=None, simd=None, repetition=0, sitting=sitting)
        result = dict(batch=1, length=spec.get("length", 100), ms=dict(min=ms, median=ms), added_rss_bytes=10**6, limit_ms=limit, reachable_ms=reachable)
        if contender == "seqboat":
            result["machine"] = dict(gemm_gflops=ms)
        return {**at, **spec, **(dict(build=build, host=host) if build else {}), "result": result}

    def tables(self, *lines):
        self.results.write_text("".join(json.dumps(line) + "\n" for line in lines))
        return self.compare(0, "--tables").stdout

    def row(self, text, begin="| bench/a | 0.5 |"):
        return [word.strip() for word in next(line for line in text.splitlines() if line.startswith(begin)).strip("|").split("|")]

    def test_only_the_newest_build_counts(self):
        old, new = dict(build=self.A, ms=1.0), dict(build=self.B, ms=10.0, sitting="2000-01-02 10:00")
        # The newest by the clock, wherever it stands in the file.
        for lines in ([self.line(**old), self.line(**new)], [self.line(**new), self.line(**old)]):
            text = self.tables(*lines, self.line(rate=1.0, **old))
            self.assertEqual(self.row(text)[2], "10")
            self.assertNotIn("| bench/a | 1 |", text)
            self.assertIn("| large GEMM, GF/s | 10 |\n\nLeft aside", text)
            self.assertIn(f"than the newest: 2 of seqboat (build {self.A}, {self.HOST}).", text)
            self.assertIn(f"Builds: {self.B} (seqboat).", text)
        # Of one build the minimum, and nothing is said.
        text = self.tables(self.line(**old), self.line(**{**old, "ms": 2.0, "sitting": "2000-01-03 10:00"}))
        self.assertEqual(self.row(text)[2], "1")
        self.assertNotIn("aside", text)
        self.assertIn("sittings 2000-01-01 10:00, 2000-01-03 10:00", text)

    def test_each_contender_has_its_build_and_all_one_machine(self):
        text = self.tables(self.line(build=self.A), self.line("padded", 100.0, self.B), self.line(build="c" * 12, ms=20.0, sitting="2000-01-02 10:00"))
        self.assertEqual(self.row(text)[2:3] + self.row(text)[-2:], ["20", "100", "5 ×"])
        text = self.tables(self.line(build=self.A), self.line("padded", 100.0, self.B), self.line(build=self.A, host=self.OTHER, ms=20.0, sitting="2000-01-02 10:00"))
        self.assertEqual(self.row(text)[2:3] + self.row(text)[-1:], ["20", "–"])
        self.assertIn(f"1 of padded PyTorch (build {self.B}, {self.HOST})", text)

    def test_lines_of_older_files_are_of_one_unknown_build(self):
        text = self.tables(self.line(), self.line(ms=5.0, sitting="2000-01-09 10:00"), self.line("padded", 100.0))
        self.assertEqual(self.row(text)[2:3] + self.row(text)[-1:], ["5", "20 ×"])
        self.assertNotIn("Build", text)
        self.assertNotIn("aside", text)
        text = self.tables(self.line(build=self.A), self.line(ms=5.0, sitting="2000-01-09 10:00"), self.line("padded", 100.0))
        self.assertEqual(self.row(text)[2:3] + self.row(text)[-1:], ["10", "10 ×"])
        self.assertIn("1 of seqboat (build unknown)", text)
        self.assertIn(f"Builds: {self.A} (seqboat), unknown (padded PyTorch).", text)

    def test_what_was_measured_anew_replaces_what_was_there(self):
        words = ["--recipes", "bench/a", "--modes", "train", "--rates", ".5,1", "--rivals", "", "--repetitions", "2"]
        self.compare(0, *words)
        lines = self.lines()
        for line in lines:
            line["result"]["ms"]["min"] = 1.0
        self.results.write_text("".join(json.dumps(line) + "\n" for line in lines))
        done = self.compare(0, *words[:5], ".5", *words[6:], "--fresh")
        self.assertEqual(self.row(done.stdout)[2], "30")
        self.assertNotIn("| bench/a | 1 |", done.stdout)  # of the newest sitting only
        self.assertEqual([line.get("fresh") for line in self.lines()], [None] * 4 + [True, None])
        text = self.compare(0, "--tables").stdout
        self.assertEqual([self.row(text)[2], self.row(text, "| bench/a | 1 |")[2]], ["30", "1"])
        self.compare(0, *words)  # and a later run goes on from there
        self.assertEqual(len(self.lines()), 6)

    def test_shares_are_of_the_least_limit_over_the_least_time(self):
        # The second process was disturbed when it measured the machine, the first one in its steps.
        text = self.tables(self.line(ms=20.0, limit=8.0, reachable=9.0), self.line(ms=10.0, limit=15.0, reachable=16.0))
        self.assertEqual(self.row(text)[2:], ["10", "10,000", "80%", "90%"])
        self.assertEqual(self.row(self.tables(self.line()))[4:], ["–", "–"])

    def test_growth_needs_two_lengths(self):
        at = dict(sweep="length", batch=1)
        text = self.tables(self.line(length=4096, **at), self.line("padded", length=4096, **at), self.line("padded", length=8192, ms=30.0, **at))
        self.assertEqual(self.row(text, "| bench/a | train | seqboat")[-3:], ["2.44", "–", "–"])
        self.assertEqual(self.row(text, "| bench/a | train | padded")[-1], "1.5 ×")


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
        line = self.lines()[0]
        newer = {**line, "sweep": "threads", "build": "another", "sitting": "9999-01-01 10:00"}
        self.results.write_text(json.dumps(line) + "\n" + json.dumps(newer) + "\n")
        self.page.write_text(self.PAGE)
        self.assertIn("nothing was measured for the table 'train' by the newest build", self.make_tables(2))
        self.results.unlink()
        self.assertIn("no such file", self.make_tables(2))

    def test_results_are_only_read(self):
        half = self.results.read_text() + '{"half'
        self.results.write_text(half)
        self.make_tables(0)
        self.assertEqual(self.results.read_text(), half)

    def test_without_a_name_the_committed_results_are_taken(self):
        shutil.copytree(BENCHMARKS, self.dir / "benchmarks", ignore=shutil.ignore_patterns("results.jsonl"))
        command = [sys.executable, "-B", str(self.dir / "benchmarks/make_tables")]
        (self.dir / "docs").mkdir()
        self.page.rename(self.dir / "docs/BENCHMARKS.md")
        run = lambda *words: subprocess.run([*command, *words], capture_output=True, text=True)
        self.assertIn("benchmarks/results.jsonl: no such file", run("--check").stderr)
        shutil.copy(self.results, self.dir / "benchmarks/results.jsonl")
        self.assertEqual([run("--check").returncode, run().returncode, run("--check").returncode], [1, 0, 0])


if __name__ == "__main__":
    unittest.main()
