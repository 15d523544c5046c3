"""What all verbs have in common: help, exit codes, streams, colours."""

import os
import pty
import subprocess
import unittest

from support import BINARY, CliTest

VERBS = ["train", "eval", "generate", "stream", "bench", "quantize", "inspect", "recipes", "data", "doctor", "completion", "help", "version"]
INNER = ["recipes list", "recipes show", "recipes copy", "data list", "data make", "data check", "data stats"]
COLUMNS = 100


class Help(CliTest):
    def test_no_verb_prints_help_and_is_wrong_usage(self):
        done = self.run_cli()
        self.assertEqual(done.returncode, 2)
        self.assertEqual(done.stdout, "")
        self.assertEqual(done.stderr, self.expect(0, "--help").stdout)

    def test_every_verb_is_listed(self):
        # The other tests go by this list: it must not be empty without anybody noticing.
        listed = [" ".join(words) for words in self.all_verbs()]
        for verb in VERBS + INNER:
            self.assertIn(verb, listed)

    def test_every_help_ends_with_two_examples(self):
        hidden = ["recipes", "keys"]
        for words in [[], *self.all_verbs(), hidden]:
            for flag in ("--help", "-h"):
                done = self.expect(0, *words, flag)
                self.assertEqual(done.stderr, "")
                self.assertNotIn("\x1b", done.stdout)
                self.assertTrue(done.stdout.isascii(), words)
                lines = done.stdout.rstrip("\n").splitlines()
                self.assertLessEqual(max(map(len, lines)), COLUMNS, words)
                self.assertEqual(lines[-3], "Examples:", words)
                self.assertNotEqual(lines[-1], lines[-2], words)
                for line in lines[-2:]:
                    self.assertTrue(line.startswith("  " + " ".join(["seqboat", *words])), line)
                    self.check_example(line)

    def check_example(self, line):
        """An example names verbs and options that there are: with --help behind it, it ends well, and its options stand in that help."""
        words = line.split(">")[0].split()[1:]  # what follows is for the shell
        text = self.expect(0, *words, "--help").stdout
        for word in words:
            if word.startswith("-"):
                self.assertRegex(text, rf"(?m)^  (?:-\w,)?{word}\b", line)

    def test_examples_that_need_no_model_run(self):
        ran = 0
        for words in self.all_verbs():
            if words[0] in ("train", "eval", "generate", "stream", "bench", "quantize", "inspect", "data", "doctor") or words == ["recipes", "copy"]:
                continue  # they need a run, data, minutes, or judge the machine
            for line in self.help_of(*words)["text"].rstrip("\n").splitlines()[-2:]:
                arguments = line.split(">")[0].split()[1:]
                if arguments[:2] != ["recipes", "copy"]:
                    self.expect(0, *arguments)
                    ran += 1
        self.assertGreater(ran, 8)

    def test_the_verb_help_says_the_same(self):
        for words in [[], *self.all_verbs()]:
            self.assertEqual(self.expect(0, "help", *words).stdout, self.expect(0, *words, "--help").stdout)
        answer = self.json_of("help", "data", "make")
        self.assertEqual(answer["verb"], "data make")
        self.assertIn("--parentheses", answer["text"])
        self.expect(2, "help", "trian", parts=["'seqboat trian'", "did you mean train?"])
        self.expect(2, "help", "data", "mke", parts=["'seqboat data mke'", "did you mean make?"])
        self.expect(2, "help", "version", "more", parts=["'seqboat version more'"])

    def test_every_verb_takes_the_common_options(self):
        for words in self.all_verbs():
            known = self.help_of(*words)
            if not known["verbs"]:
                for option in ("--json", "--quiet", "-q", "--threads"):
                    self.assertIn(option, known["options"], words)

    def test_version(self):
        version = self.json_of("version")
        for key in ("version", "build", "compiler", "simd", "simd_supported", "libtorch"):
            self.assertIn(key, version)
        self.assertIn(version["simd"], version["simd_supported"])
        self.assertEqual(self.expect(0, "--version").stdout.strip(), version["version"])
        self.assertIn(version["version"], self.expect(0, "version").stdout)


class WrongUsage(CliTest):
    def test_unknown_words_name_the_nearest(self):
        self.expect(2, "trian", parts=["'trian'", "did you mean train?"])
        self.expect(2, "zzzzzz", parts=["'zzzzzz'", "--help"])
        self.expect(2, "recipes", "lst", parts=["did you mean list?"])
        self.expect(2, "recipes", parts=["list, show, copy"])
        self.expect(2, "data", parts=["list, make, check, stats"])
        self.expect(2, "version", "--jsn", parts=["'--jsn'", "did you mean --json?"])
        self.expect(2, "--verison", parts=["did you mean --version?"])
        self.expect(2, "train", "lra/listops", "--stepz=3", parts=["did you mean --steps?"])
        self.expect(2, "version", "extra", parts=["unexpected argument 'extra'"])
        self.expect(2, "--json", "version", parts=["--json stands behind the verb", "seqboat VERB --json"])
        self.expect(2, "data", "make", "listop", parts=["did you mean listops?"])
        self.expect(2, "", parts=["unknown verb ''"])
        self.expect(2, "line\nbreak\x1b[31m", parts=["unknown verb"])

    def test_missing_and_bad_values(self):
        self.expect(2, "train", parts=["RECIPE|RUN_DIR is required"])
        self.expect(2, "eval", parts=["MODEL is required"])
        self.expect(2, "inspect", parts=["MODEL is required"])
        self.expect(2, "version", "--threads", parts=["--threads"])
        self.expect(2, "version", "--threads", "-1", parts=["--threads", "from 0 to 4096", "'-1'"])
        self.expect(2, "version", "--threads", "two", parts=["'two'"])
        self.expect(2, "version", "--threads", "99999999999999999999", parts=["--threads"])
        self.expect(2, "train", "lra/listops", "--steps", "0", parts=["--steps", "at least 1"])
        self.expect(2, "train", "lra/listops", "--steps", "1.5", parts=["'1.5'"])
        self.expect(2, "train", "lra/listops", "--minutes", "nan", parts=["--minutes"])
        self.expect(2, "train", "lra/listops", "--out", "a", "--out", "b", parts=["--out"])
        self.expect(2, "eval", "x", "--split", "tset", parts=["--split", "tset"])
        self.expect(2, "inspect", "x", "--activation-rate", "1.5", parts=["--activation-rate", "from 0 to 1"])

    def test_recipes_of_train(self):
        self.expect(2, "train", "lra/listop", parts=["'lra/listop'", "did you mean lra/listops?"])
        self.expect(2, "train", "listops-short", parts=["did you mean lra/listops-short?"])
        self.expect(2, "train", "no-such.toml", parts=["no-such.toml", "no such recipe file"])
        self.expect(3, "train", "lra/listops", "--set", "model.d_modle=3", parts=["--set model.d_modle=3", "did you mean model.d_model?"])
        self.expect(3, "train", "lra/listops", "--set", "model.d_model=wide", parts=["model.d_model must be an integer", "wide"])
        self.expect(3, "train", "lra/listops", "--set", "model.d_model=0", parts=["model.d_model", "found 0"])
        self.expect(3, "train", "lra/listops", "--set", "nonsense", parts=["section.key=value"])
        self.expect(3, "train", "lra/listops", "--set", "model.attention=softmx", parts=["did you mean softmax?"])

    def test_recipe_files(self):
        recipe = self.dir / "mine.toml"
        recipe.write_text("[model]\nd_model = 8\nwindowsize = 3\n")
        self.expect(3, "train", recipe, parts=[f"{recipe}:3", "model.windowsize", "did you mean model.window_size?"])
        recipe.write_text("[model\n")
        self.expect(3, "train", recipe, parts=[f"{recipe}:1:"])
        recipe.write_text("")
        self.expect(3, "train", recipe, parts=["not set"])
        recipe.write_bytes(b"\x80\x81\x82")
        self.expect(3, "train", recipe, parts=[str(recipe)])

    def test_folders_that_are_no_run(self):
        self.expect(5, "train", self.dir, parts=[str(self.dir), "config.toml"])
        self.expect(5, "eval", self.dir, parts=["neither a model folder"])
        self.expect(5, "eval", self.dir / "absent", parts=["no such folder"])
        run = self.dir / "run"
        run.mkdir()
        (run / "config.toml").write_text("[model]\nd_model = 'x'\n")
        self.expect(3, "train", run, parts=["config.toml:2"])
        self.expect(2, "train", run, "--out", "elsewhere", parts=["--out"])


class Streams(CliTest):
    def test_stdout_is_clean_and_quiet_is_quiet(self):
        done = self.expect(0, "data", "make", "listops", "--short", "--train", 300, "--valid", 20, "--test", 20, "--out", self.dir / "d", "--quiet")
        self.assertEqual(done.stderr, "")
        self.assertEqual(len(done.stdout.splitlines()), 3)

    def test_reader_that_goes_away(self):
        read_end, write_end = os.pipe()
        os.close(read_end)
        done = subprocess.run([BINARY, "recipes", "show", "lra/listops"], stdout=write_end, stderr=subprocess.PIPE, text=True, timeout=60)
        os.close(write_end)
        self.assertEqual((done.returncode, done.stderr), (0, ""))

    @unittest.skipUnless(os.path.exists("/dev/full"), "no /dev/full")
    def test_full_disk_behind_stdout(self):
        with open("/dev/full", "w", encoding="utf-8") as full:
            done = subprocess.run([BINARY, "recipes", "list"], stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
        self.assertEqual(done.returncode, 7)
        self.assertIn("standard output", done.stderr)

    def test_closed_streams(self):
        done = subprocess.run(["sh", "-c", f'"{BINARY}" version >&-'], stderr=subprocess.PIPE, text=True, timeout=60)
        self.assertEqual(done.returncode, 1)
        done = subprocess.run(["sh", "-c", f'"{BINARY}" version --json <&- 2>&-'], stdout=subprocess.PIPE, text=True, timeout=60)
        self.assertEqual(done.returncode, 0)

    def on_terminal(self, *arguments, **environment):
        """What the program writes on a terminal that is its stderr."""
        master, slave = pty.openpty()
        env = {**os.environ, "TERM": "xterm", "LC_ALL": "C.UTF-8", **environment}
        process = subprocess.Popen([BINARY, *map(str, arguments)], stdin=slave, stdout=subprocess.DEVNULL, stderr=slave, env=env)
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
        process.wait(timeout=60)
        return text.decode()

    def test_bar_and_colours_on_a_terminal_only(self):
        make = ("data", "make", "listops", "--short", "--train", 2000, "--valid", 20, "--test", 20, "--out")
        plain_env = {k: "" for k in ("NO_COLOR",)}
        bar = self.on_terminal(*make, self.dir / "a", **plain_env)
        self.assertIn("\r", bar)
        self.assertIn("\u2588", bar)
        self.assertIn("\x1b[32m", bar)
        self.assertIn("100%", bar)

        plain = self.on_terminal(*make, self.dir / "b", NO_COLOR="1")
        self.assertIn("\u2588", plain)
        self.assertNotIn("\x1b[3", plain)

        dumb = self.on_terminal(*make, self.dir / "c", TERM="dumb", **plain_env)
        self.assertNotIn("\x1b", dumb)

        piped = self.expect(0, *make, self.dir / "d")
        self.assertNotIn("\x1b", piped.stderr)
        self.assertNotIn("\r", piped.stderr)
        self.assertIn("listops train: 100%  samples 2000/2000", piped.stderr)

        self.assertIn("\x1b[1;31merror:", self.on_terminal("trian", **plain_env))
        self.assertNotIn("\x1b", self.on_terminal("trian", NO_COLOR="1"))


class WithoutLibtorch(CliTest):
    def test_train_and_eval_say_what_is_missing(self):
        if self.json_of("version")["libtorch"]:
            self.skipTest("this build has LibTorch")
        self.expect(1, "train", "lra/listops", "--out", self.dir / "run", parts=["LibTorch", "Remedy", "cmake --preset release"])
        self.assertFalse((self.dir / "run").exists())


if __name__ == "__main__":
    unittest.main()
