"""seqboat doctor: what it says of this machine, and of machines that lack something."""

import json
import os
import pathlib
import pty
import resource
import shutil
import stat
import subprocess
import time
import unittest

from support import BINARY, HAS_TRAIN, SOURCE_DIR, CliTest

NAMES = ["program", "libtorch", "simd", "denormals", "threads", "openmp", "memory", "allocator", "recipes", "cache", "terminal"]

# What would colour the answers about this machine.
SETTINGS = ("OMP_", "GOMP_", "MKL_", "KMP_", "MALLOC_", "GLIBC_TUNABLES", "ATEN_CPU_CAPABILITY")


class DoctorTest(CliTest):
    def setUp(self):
        super().setUp()
        for name in [name for name in os.environ if name.startswith(SETTINGS)]:
            value = os.environ.pop(name)
            self.addCleanup(os.environ.__setitem__, name, value)

    def examine(self, *arguments, code=0, binary=None, **options):
        """The checks by name, after holding the report to its form."""
        command = ["doctor", *arguments, "--json"]
        if binary:
            environment = {**os.environ, "XDG_CACHE_HOME": str(self.dir / "cache"), "SEQBOAT_RECIPES": str(SOURCE_DIR / "recipes")}
            done = subprocess.run([binary, *command], capture_output=True, text=True, env=environment, timeout=120)
        else:
            done = self.run_cli(*command, **options)
        self.assertEqual(done.returncode, code, done.stdout + done.stderr)
        self.assertEqual(done.stderr, "")
        self.assertEqual(done.stdout.count("\n"), 1)
        report = json.loads(done.stdout)
        self.assertEqual([check["name"] for check in report["checks"]], NAMES)
        for check in report["checks"]:
            self.assertEqual(list(check), ["name", "status", "found", "remedy"])
            self.assertIn(check["status"], ("ok", "note", "poor", "missing"))
            self.assertTrue(check["found"], check)
            self.assertNotIn("\n", check["found"] + check["remedy"])
            if check["status"] in ("poor", "missing"):
                self.assertTrue(check["remedy"], check)
        missing = [check["name"] for check in report["checks"] if check["status"] == "missing"]
        self.assertEqual(report["ok"], not missing, missing)
        self.assertEqual(done.returncode, 1 if missing else 0)
        return {check["name"]: check for check in report["checks"]}

    def has_sanitizers(self):
        if not hasattr(DoctorTest, "sanitizers"):
            DoctorTest.sanitizers = "sanitizers" in self.examine()["program"]["found"]
        return DoctorTest.sanitizers

    def needs_glibc(self):
        if "glibc" not in self.examine()["allocator"]["found"].split(";")[0]:
            self.skipTest("another allocator than glibc's")

    def lines_of(self, done):
        """The text report: name -> (status, found)."""
        report = {}
        for line in done.stdout.splitlines():
            words = line.split(None, 2)
            if len(words) == 3 and words[1] in NAMES:
                report[words[1]] = (words[0], words[2])
        return report


class ThisMachine(DoctorTest):
    def test_text_says_what_json_says(self):
        done = self.run_cli("doctor")
        self.assertEqual(done.returncode, 0, done.stdout)
        self.assertEqual(done.stderr, "")
        self.assertNotIn("\x1b", done.stdout)
        report = self.lines_of(done)
        for name, check in self.examine().items():
            self.assertEqual(report[name][0], check["status"], name)
            if name not in ("memory", "cache"):  # their figures move
                self.assertEqual(report[name][1], check["found"], name)
        self.assertIn("ready to train" if HAS_TRAIN else "ready, without train, eval and bench", done.stdout.splitlines()[-1])

    def test_build_and_simd_are_those_of_version(self):
        version = self.json_of("version")
        checks = self.examine()
        self.assertIn(version["version"], checks["program"]["found"])
        self.assertIn(version["build"], checks["program"]["found"])
        self.assertTrue(checks["simd"]["found"].startswith(version["simd"] + " "))
        self.assertIn(", ".join(version["simd_supported"]), checks["simd"]["found"])
        self.assertEqual(checks["denormals"]["status"], "ok")

    def test_it_is_quick(self):
        seconds = []
        for _ in range(3):
            begin = time.monotonic()
            self.examine()
            seconds.append(time.monotonic() - begin)
        self.assertLess(min(seconds), 3.0, "the best of three; a second where the machine has nothing else to do")

    @unittest.skipIf(HAS_TRAIN, "this build has LibTorch")
    def test_build_without_libtorch_is_no_fault(self):
        check = self.examine()["libtorch"]
        self.assertEqual(check["status"], "note")
        self.assertIn("train, eval and bench are not there", check["found"])
        self.assertIn("cmake --preset release", check["remedy"])

    @unittest.skipUnless(HAS_TRAIN, "this build has no LibTorch")
    def test_libtorch_tells_its_version(self):
        check = self.examine()["libtorch"]
        self.assertEqual(check["status"], "ok", check)
        self.assertRegex(check["found"], r"^\d+\.\d+\.\d+, ")
        self.assertIn("libtorch_cpu", check["found"])

    def test_threads_follow_the_affinity(self):
        cores = sorted(os.sched_getaffinity(0))
        self.assertIn(f"{len(cores)} usable core", self.examine()["threads"]["found"])
        one = self.examine(preexec_fn=lambda: os.sched_setaffinity(0, cores[:1]))["threads"]
        self.assertIn("1 usable core;", one["found"])
        many = self.examine("--threads", 4096)["threads"]
        self.assertEqual(many["status"], "poor")
        self.assertIn("--threads 4096 takes 4096", many["found"])
        self.assertIn("--threads ", many["remedy"])

    def test_little_memory(self):
        if self.has_sanitizers():
            self.skipTest("sanitizers need the whole address space")
        limit = 900 << 20
        done = self.run_cli("doctor", "--json", preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)))
        memory = next(check for check in json.loads(done.stdout)["checks"] if check["name"] == "memory")
        self.assertEqual(memory["status"], "poor")
        self.assertIn("limited to 900 MiB", memory["found"])
        self.assertIn("ulimit -v", memory["remedy"])


class Recipes(DoctorTest):
    def test_found(self):
        check = self.examine(env={"SEQBOAT_RECIPES": str(SOURCE_DIR / "recipes")})["recipes"]
        self.assertEqual(check["status"], "ok")
        count = len(list((SOURCE_DIR / "recipes").rglob("*.toml")))
        self.assertEqual(check["found"], f"{count} recipes in {SOURCE_DIR / 'recipes'}")

    def test_absent_or_empty_is_a_fault(self):
        for folder in (self.dir / "absent", self.dir):
            check = self.examine(code=1, env={"SEQBOAT_RECIPES": str(folder)})["recipes"]
            self.assertEqual(check["status"], "missing")
            self.assertIn(str(folder), check["found"])
        done = self.run_cli("doctor", env={"SEQBOAT_RECIPES": str(self.dir)})
        self.assertEqual(done.returncode, 1)
        self.assertEqual(done.stdout.splitlines()[-1], "not ready: recipes")


class Cache(DoctorTest):
    def test_nothing_is_left_behind(self):
        check = self.examine()["cache"]
        self.assertEqual(check["status"], "ok" if "less than" not in check["found"] else "poor")
        self.assertIn(f"{self.dir / 'cache' / 'seqboat'} (made when it is needed), ", check["found"])
        self.assertEqual(list(self.dir.iterdir()), [])
        (self.dir / "cache" / "seqboat").mkdir(parents=True)
        self.assertNotIn("made when", self.examine()["cache"]["found"])
        self.assertEqual(list((self.dir / "cache" / "seqboat").iterdir()), [])

    def test_what_cannot_be_written_is_a_fault(self):
        (self.dir / "file").write_text("")
        for place in (self.dir / "file", pathlib.Path("/proc/none")):  # no folder; a folder in which nobody makes one
            check = self.examine(code=1, env={"XDG_CACHE_HOME": str(place)})["cache"]
            self.assertEqual(check["status"], "missing")
            self.assertIn(str(place / "seqboat"), check["found"])
            self.assertIn("XDG_CACHE_HOME", check["remedy"])

    @unittest.skipIf(os.geteuid() == 0, "root may write anywhere")
    def test_permissions(self):
        (self.dir / "cache" / "seqboat").mkdir(parents=True)
        (self.dir / "cache" / "seqboat").chmod(stat.S_IRUSR | stat.S_IXUSR)
        self.assertIn("cannot be written", self.examine(code=1)["cache"]["found"])

    def test_no_home(self):
        check = self.examine(code=1, env={"XDG_CACHE_HOME": "", "HOME": ""})["cache"]
        self.assertIn("HOME", check["remedy"])


class Settings(DoctorTest):
    def test_allocator(self):
        self.needs_glibc()
        if self.has_sanitizers():
            self.skipTest("the sanitizers' own allocator, which the report notes")
        self.assertEqual(self.examine()["allocator"]["status"], "ok")
        for name, value, status in [("MALLOC_PERTURB_", "5", "poor"), ("MALLOC_ARENA_MAX", "1", "note"), ("MALLOC_TRIM_THRESHOLD_", "1", "note"),
                                    ("GLIBC_TUNABLES", "glibc.malloc.perturb=5", "poor"), ("GLIBC_TUNABLES", "glibc.malloc.arena_max=1", "note"),
                                    ("GLIBC_TUNABLES", "glibc.rtld.nns=4", "ok")]:
            check = self.examine(env={name: value})["allocator"]
            self.assertEqual(check["status"], status, (name, value, check))
            if status != "ok":
                self.assertIn(f"{name}={value}", check["found"])
        # What a terminal would act on is shown in a form that it does not.
        self.assertIn("'\\x1b[31m'", self.examine(env={"MALLOC_ARENA_MAX": "\x1b[31m"})["allocator"]["found"])

    @unittest.skipUnless(HAS_TRAIN, "OpenMP comes with LibTorch")
    def test_openmp(self):
        self.assertEqual(self.examine()["openmp"]["status"], "ok")
        for name, value, status in [("OMP_NUM_THREADS", "1", "note"), ("MKL_NUM_THREADS", "1", "note"), ("OMP_DYNAMIC", "true", "note"),
                                    ("OMP_WAIT_POLICY", "active", "note"), ("GOMP_SPINCOUNT", "infinite", "poor"), ("GOMP_SPINCOUNT", "100", "note")]:
            check = self.examine(env={name: value})["openmp"]
            self.assertEqual(check["status"], status, (name, value, check))
            self.assertIn(f"{name}={value}", check["found"])
        check = self.examine("--threads", 2, env={"OMP_THREAD_LIMIT": "1"})["openmp"]
        self.assertEqual((check["status"], check["remedy"]), ("poor", "unset OMP_THREAD_LIMIT"))
        check = self.examine(env={"ATEN_CPU_CAPABILITY": "default"})
        self.assertEqual(check["simd"]["status"], "note")
        self.assertTrue(check["libtorch"]["found"].split(", ")[1].endswith("DEFAULT"), check["libtorch"])

    @unittest.skipUnless(HAS_TRAIN and len(os.sched_getaffinity(0)) > 1, "OpenMP comes with LibTorch, and binds where there are two cores")
    def test_a_binding_that_leaves_one_core_is_found(self):
        cores = len(os.sched_getaffinity(0))
        check = self.examine(env={"OMP_PROC_BIND": "true"})["openmp"]
        self.assertEqual(check["status"], "poor")
        self.assertIn(f"of {cores} cores", check["found"])
        self.assertEqual(check["remedy"], "unset OMP_PROC_BIND")

    def test_terminal(self):
        self.assertIn("stdout is no terminal", self.examine()["terminal"]["found"])
        for colour in (True, False):
            master, slave = pty.openpty()
            env = {**os.environ, "TERM": "xterm", "LC_ALL": "C.UTF-8", "NO_COLOR": "" if colour else "1", "XDG_CACHE_HOME": str(self.dir)}
            process = subprocess.Popen([BINARY, "doctor"], stdin=slave, stdout=slave, stderr=slave, env=env)
            os.close(slave)
            text = b""
            while True:
                try:
                    piece = os.read(master, 65536)
                except OSError:  # how Linux says that the other side is closed
                    break
                if not piece:
                    break
                text += piece
            os.close(master)
            self.assertEqual(process.wait(timeout=60), 0, text)
            self.assertEqual(b"\x1b[32mok" in text, colour)
            self.assertEqual(b"\x1b" in text, colour)
            self.assertIn(b"stdout is a terminal " + (b"with" if colour else b"without") + b" colours", text)
            self.assertEqual(b"NO_COLOR=1" in text, not colour)


class BrokenModule(DoctorTest):
    def setUp(self):
        super().setUp()
        if self.has_sanitizers():
            self.skipTest("a module without the sanitizers' runtime says nothing here")
        (self.dir / "bin").mkdir()
        (self.dir / "lib").mkdir()
        self.binary = shutil.copy(BINARY, self.dir / "bin")
        self.module = self.dir / "lib" / "libseqboat_train_verbs.so"

    def compile(self, source):
        compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
        if not compiler:
            self.skipTest("no C compiler")
        file = self.dir / "module.c"
        file.write_text(source)
        subprocess.run([compiler, "-shared", "-fPIC", "-o", self.module, file], check=True, capture_output=True)

    def broken(self, *parts):
        check = self.examine(code=1, binary=self.binary)["libtorch"]
        self.assertEqual(check["status"], "missing")
        for part in parts:
            self.assertIn(part, check["found"])
        return check

    def test_that_is_no_library(self):
        self.module.write_text("not a library")
        check = self.broken(str(self.module))
        self.assertIn("tools/quickstart", check["remedy"])

    def test_of_another_version(self):
        self.compile('const char* seqboat_verbs_version() { return "0.0.7"; }')
        self.assertIn("together", self.broken("0.0.7")["remedy"])

    def test_that_crashes_while_it_is_loaded(self):
        self.compile("#include <signal.h>\n__attribute__((constructor)) void boom() { raise(SIGILL); }")
        self.broken("signal 4")

    @unittest.skipUnless(HAS_TRAIN, "a build without LibTorch has none to miss")
    def test_that_is_gone(self):
        self.broken("libseqboat_train_verbs.so", str(self.dir / "bin"))


if __name__ == "__main__":
    unittest.main()
