"""seqboat completion: the scripts know what the program knows, and real shells complete with them.

zsh and fish are tested where they are installed; that their scripts name every verb, option and word is tested everywhere."""

import os
import pathlib
import pty
import re
import select
import shlex
import shutil
import subprocess
import time
import unittest

from support import BINARY, SOURCE_DIR, CliTest

SHELLS = ("bash", "zsh", "fish")
RECIPES = sorted(str(file.relative_to(SOURCE_DIR / "recipes").with_suffix("")) for file in (SOURCE_DIR / "recipes").rglob("*.toml"))

# Puts a command line into the variables that bash fills, calls the function, prints what it offers. bash cuts words at blanks and at each of
# COMP_WORDBREAKS; the lines of this test need no quotes.
BASH_DRIVER = r"""
offer() {
    COMP_LINE=$1 COMP_POINT=${#1} COMP_WORDS=() COMPREPLY=()
    local rest=$1 piece
    while [[ -n $rest ]]; do
        rest=${rest#"${rest%%[! ]*}"}
        if [[ $rest == [=:]* ]]; then piece=${rest%%[!=:]*}; else piece=${rest%%[ =:]*}; fi
        if [[ $COMP_WORDBREAKS != *=* ]]; then piece=${rest%% *}; fi
        [[ -n $piece ]] && COMP_WORDS+=("$piece")
        rest=${rest#"$piece"}
    done
    [[ $1 == *" " ]] && COMP_WORDS+=("")
    COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
    _seqboat
    echo "${COMPREPLY[*]}"
}
"""


class CompletionTest(CliTest):
    def script(self, shell):
        return self.expect(0, "completion", shell).stdout

    def script_file(self, shell):
        file = self.dir / f"completion.{shell}"
        file.write_text(self.script(shell))
        return file

    def environment(self, **more):
        """A shell of nobody's settings, in which `seqboat` is the program under test."""
        keep = {name: os.environ[name] for name in ("LD_LIBRARY_PATH", "ASAN_OPTIONS", "FPATH") if name in os.environ}
        (self.dir / "home").mkdir(exist_ok=True)
        tools = self.dir / "tools"
        if not tools.exists():
            tools.mkdir()
            (tools / "seqboat").symlink_to(pathlib.Path(BINARY).resolve())
        return {**keep, "PATH": f"{tools}:{os.environ['PATH']}", "HOME": str(self.dir / "home"), "ZDOTDIR": str(self.dir / "home"), "TERM": "dumb",
                "LC_ALL": "C.UTF-8", "SEQBOAT_RECIPES": str(SOURCE_DIR / "recipes"), **more}

    def type_into(self, command, lines, ready):
        """What a shell on a terminal prints when these lines are typed, each after the answer to the one before; \\t is the tab key."""
        master, slave = pty.openpty()
        process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env=self.environment(), cwd=self.dir, start_new_session=True)
        os.close(slave)
        text = b""

        def wait_for(mark, seconds=60):
            nonlocal text
            deadline = time.monotonic() + seconds
            while mark not in text:
                if not select.select([master], [], [], max(0, deadline - time.monotonic()))[0]:
                    self.fail(f"no {mark} from {command[0]}: {text.decode(errors='replace')}")
                try:
                    text += os.read(master, 65536)
                except OSError:
                    self.fail(f"{command[0]} ended: {text.decode(errors='replace')}")

        try:
            # The marks are put together by the shell: what was typed is echoed, and must not be taken for the answer.
            os.write(master, f"{ready}; echo ma''rk0\n".encode())
            wait_for(b"mark0")
            for number, line in enumerate(lines, 1):
                before, tab, after = line.partition("\t")
                os.write(master, (before + tab).encode())
                time.sleep(0.5)  # as a person would look at what came of it
                os.write(master, f"{after}; echo ma''rk{number}\n".encode())
                wait_for(f"mark{number}".encode())
        finally:
            process.kill()
            process.wait(timeout=60)
            os.close(master)
        return text.decode(errors="replace").replace("\r", "")

    def complete_and_run(self, command, ready):
        """Lines whose last word only the shell can finish, as the program then gets them."""
        (self.dir / "folder-of-mine").mkdir()
        (self.dir / "recipe-of-mine.toml").write_text((SOURCE_DIR / "recipes/lra/listops.toml").read_text())
        short = next(name for name in RECIPES if name.startswith("lra/listops-s"))
        text = self.type_into(command, ["seqboat compl\tbash --json",  # "completion "
                                        "seqboat recipes sh\tlra/listops-quick --json",
                                        "seqboat recipes show lra/listops-q\t--json",
                                        "seqboat recipes show lra/listops --json --set model.layer=seqboat-f\t",
                                        "seqboat recipes show recipe-of\t--json",
                                        f"seqboat recipes copy {short} folder\t"], ready)
        self.assertIn('{"shell":"bash"', text)
        self.assertEqual(text.count('{"name":"lra/listops-quick"'), 2, text)
        self.assertRegex(text, r'"layer":\s*"seqboat-full"')
        self.assertIn('{"name":"recipe-of-mine.toml"', text)
        self.assertTrue((self.dir / "folder-of-mine" / (short.split("/")[1] + ".toml")).exists(), text)


class Scripts(CompletionTest):
    def test_they_name_every_verb_option_and_word(self):
        scripts = {shell: self.script(shell) for shell in SHELLS}
        for words in self.all_verbs():
            known = self.help_of(*words)
            bash_options = re.search(rf"'seqboat {' '.join(words)}'\) REPLY='(-[^']*)'", scripts["bash"]).group(1).split()
            self.assertEqual(sorted(bash_options), sorted(known["options"]), words)
            zsh = re.search(rf"^_seqboat__{'__'.join(words)}\(\) \{{\n(.*?)^\}}", scripts["zsh"], flags=re.MULTILINE | re.DOTALL).group(1)
            fish = [line for line in scripts["fish"].splitlines() if f"""__seqboat_at "{' '.join(["seqboat", *words])}\"""" in line]
            for name, line in known["options"].items():
                self.assertIn(name, zsh, words)
                flag = f" -l {name[2:]} " if name.startswith("--") else f" -s {name[1:]} "
                self.assertTrue(any(flag in rule for rule in fish), (words, name))
                for choices in re.findall(r"\{([\w,]+)\}", line):
                    self.assertIn("(" + choices.replace(",", " ") + ")", zsh)
                    self.assertTrue(any(flag in rule and "'" + choices.replace(",", " ") + "'" in rule for rule in fish), (words, name))
            for verb in known["verbs"]:
                self.assertIn(f"'{verb}:", zsh, words)
                self.assertTrue(any(f" -a {verb} " in rule for rule in fish), (words, verb))

    def test_their_first_lines_say_how_to_install_them(self):
        for shell, install in (("bash", "source <(seqboat completion bash)"), ("zsh", "seqboat completion zsh > DIR/_seqboat"),
                               ("fish", "seqboat completion fish | source")):
            script = self.script(shell)
            head = script.split("\n\n")[0]
            self.assertIn(install, head)
            self.assertTrue(all(line.startswith("#") for line in head.splitlines()))
            self.assertIn(self.json_of("version")["version"], head)
            answer = self.json_of("completion", shell)
            self.assertEqual(answer, {"shell": shell, "script": script})
        self.assertTrue(self.script("zsh").startswith("#compdef seqboat\n"))

    def test_quotes_and_brackets_close(self):
        # A rough check for machines without zsh and fish: words of the help hold quotes, colons and brackets, which must not end a string.
        for shell in ("zsh", "fish"):
            for number, line in enumerate(self.script(shell).splitlines(), 1):
                if "'" in line and not line.startswith("#"):
                    try:
                        shlex.split(line.rstrip("\\").replace("\\'", "") if shell == "fish" else line.rstrip("\\"))
                    except ValueError as error:
                        self.fail(f"{shell}:{number}: {error}: {line}")

    def test_wrong_usage(self):
        self.expect(2, "completion", parts=["SHELL is required"])
        self.expect(2, "completion", "tcsh", parts=["tcsh"])


@unittest.skipUnless(shutil.which("bash"), "no bash")
class Bash(CompletionTest):
    def offers(self, *lines, setup=""):
        file = self.script_file("bash")
        calls = "\n".join(f"offer {shlex.quote(line)}" for line in lines)
        done = subprocess.run(["bash", "--norc", "-c", f"set -u; source {file}\n{setup}\n{BASH_DRIVER}\n{calls}"], capture_output=True, text=True,
                              env=self.environment(), cwd=self.dir, timeout=120)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        answers = [line.split() for line in done.stdout.split("\n")[:-1]]
        self.assertEqual(len(answers), len(lines))
        return answers

    def test_syntax(self):
        subprocess.run(["bash", "-n", self.script_file("bash")], check=True)

    def test_verbs(self):
        top = self.help_of()["verbs"]
        answers = self.offers("seqboat ", "seqboat tr", "seqboat recipes ", "seqboat data m", "seqboat nonsense ", "seqboat help ",
                              "seqboat train train ")
        self.assertEqual(answers, [top, ["train"], ["list", "show", "copy"], ["make"], [], top, []])

    def test_options(self):
        long_and_short, steps, nested, after, ended = self.offers("seqboat train -", "seqboat train lra/listops --st", "seqboat data stats --sp",
                                                                  "seqboat train --threads 2 --js", "seqboat inspect -- --le")
        self.assertEqual(sorted(long_and_short), sorted(self.help_of("train")["options"]))
        self.assertEqual([steps, nested, after, ended], [["--steps"], ["--split"], ["--json"], []])

    def test_fixed_words(self):
        answers = self.offers("seqboat eval m --split v", "seqboat eval m --split=te", "seqboat completion ", "seqboat data make ",
                              "seqboat train x --threads ", "seqboat eval m --force ")
        self.assertEqual(answers, [["valid", "val"], ["test"], ["bash", "zsh", "fish"], ["listops", "pathfinder"], [], ["none", "all", "random", "inverted"]])

    def test_recipes(self):
        answers = self.offers("seqboat train ", "seqboat recipes show lra/listops-q", "seqboat train --steps 3 lra/listops-q",
                              "seqboat train lra/listops ", "seqboat recipes copy lra/listops-q", f"{pathlib.Path(BINARY).resolve()} recipes show lra/listops-q")
        self.assertEqual(answers, [RECIPES, ["lra/listops-quick"], ["lra/listops-quick"], [], ["lra/listops-quick"], ["lra/listops-quick"]])

    def test_keys(self):
        whole, values, booleans, with_equals, second = self.offers(
            "seqboat train lra/listops --set model.n_la", "seqboat train lra/listops --set model.layer=", "seqboat train x --set model.causal=t",
            "seqboat train x --set=model.layer=seqboat-f", "seqboat train x --set model.d_model=8 --set optim.na")
        self.assertEqual(whole, ["model.n_layers="])
        self.assertIn("seqboat-full", values)  # bash puts them behind the "="
        self.assertEqual([booleans, with_equals, second], [["true"], ["seqboat-full"], ["optim.name="]])
        keys = self.offers("seqboat train x --set ")[0]
        table = re.findall(r"^\| `([a-z_]+\.[a-z_]+)` \|", self.expect(0, "recipes", "keys").stdout, flags=re.MULTILINE)
        self.assertEqual(sorted(keys), sorted(key + "=" for key in table))

    def test_where_bash_does_not_cut_words_at_equals_signs(self):
        setup = "COMP_WORDBREAKS=${COMP_WORDBREAKS//=}"
        answers = self.offers("seqboat train x --set model.layer=seqboat-f", "seqboat eval m --split=te", "seqboat train x --set=model.n_la",
                              setup=setup)
        self.assertEqual(answers, [["model.layer=seqboat-full"], ["--split=test"], ["--set=model.n_layers="]])

    def test_on_a_terminal(self):
        file = self.script_file("bash")
        self.complete_and_run(["bash", "--norc", "--noprofile", "-i"], f"bind 'set bell-style none'; source {file}")


@unittest.skipUnless(shutil.which("zsh"), "no zsh")
class Zsh(CompletionTest):
    def test_syntax(self):
        subprocess.run(["zsh", "-n", self.script_file("zsh")], check=True)

    def test_on_a_terminal(self):
        file = self.script_file("zsh")
        self.complete_and_run(["zsh", "-f", "-i"], f"autoload -Uz compinit; compinit -D -u; source {file}")

    def test_from_a_folder_of_functions(self):
        (self.dir / "functions").mkdir()
        shutil.copy(self.script_file("zsh"), self.dir / "functions" / "_seqboat")
        self.complete_and_run(["zsh", "-f", "-i"], f"fpath=({self.dir}/functions $fpath); autoload -Uz compinit; compinit -D -u")


@unittest.skipUnless(shutil.which("fish"), "no fish")
class Fish(CompletionTest):
    def offers(self, line):
        command = f"source {self.script_file('fish')}; complete -C {shlex.quote(line)}"
        done = subprocess.run(["fish", "--no-config", "-c", command], capture_output=True, text=True, env=self.environment(), cwd=self.dir, timeout=120)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        return [offer.split("\t")[0] for offer in done.stdout.splitlines()]

    def test_syntax(self):
        subprocess.run(["fish", "--no-config", "--no-execute", self.script_file("fish")], check=True, env=self.environment())

    def test_it_completes(self):
        (self.dir / "folder-of-mine").mkdir()
        (self.dir / "file-of-mine").write_text("")
        self.assertEqual(sorted(self.offers("seqboat ")), sorted(self.help_of()["verbs"]))
        self.assertEqual(self.offers("seqboat data m"), ["make"])
        self.assertEqual(self.offers("seqboat train lra/listops --st"), ["--steps"])
        self.assertEqual(sorted(self.offers("seqboat eval m --split v")), ["val", "valid"])
        self.assertEqual(self.offers("seqboat eval m --split=te"), ["--split=test"])
        self.assertEqual(self.offers("seqboat recipes show lra/listops-q"), ["lra/listops-quick"])
        self.assertEqual(self.offers("seqboat train --steps 3 lra/listops-q"), ["lra/listops-quick"])
        self.assertIn("model.layer=seqboat-full", self.offers("seqboat train x --set model.layer="))
        self.assertEqual(sorted(self.offers("seqboat completion ")), sorted(SHELLS))
        self.assertEqual(self.offers("seqboat train x --out fo"), ["folder-of-mine/"])
        self.assertEqual(self.offers("seqboat train x --out fi"), [])
        self.assertEqual(self.offers("seqboat data check fi"), ["file-of-mine"])
        self.assertEqual(self.offers("seqboat train x --steps f"), [])


if __name__ == "__main__":
    unittest.main()
