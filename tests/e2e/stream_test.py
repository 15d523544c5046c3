"""seqboat stream: standard input as it comes, a JSON line an event."""

import json
import math
import os
import random
import signal
import struct
import subprocess
import time
import unittest

from support import BINARY, CliTest, random_model

CLASSIFIER = {"task": "classification", "classes": 3, "layer": "seqboat", "d_classifier": 8}
NUMBERS = {**CLASSIFIER, "input": "real", "vocab_size": 0, "channels": 3}
SOUND = {**NUMBERS, "channels": 80,
         "data": {"name": "fsdd", "sample_rate": 8000, "frame": 80, "gain": 10.0, "normalize": "none", "labels": ["no", "yes", "maybe"]}}


def pcm(samples):
    return struct.pack(f"<{len(samples)}h", *samples)


def noise(count, seed=0):
    draw = random.Random(seed)
    return [draw.randrange(-20000, 20000) for _ in range(count)]


def lines_of(rows):
    return "".join(",".join(map(repr, row)) + "\n" for row in rows).encode()


class StreamTest(CliTest):
    def setUp(self):
        super().setUp()
        self.model = self.dir / "m"

    def events(self, data, *arguments, model=None):
        done = subprocess.run([BINARY, "stream", str(model or self.model), "--quiet", *map(str, arguments)], input=data, capture_output=True, timeout=self.timeout)
        self.assertEqual((done.returncode, done.stderr), (0, b""))
        return [json.loads(line) for line in done.stdout.splitlines()]

    def refuse(self, code, data, *arguments, parts=(), model=None):
        """Exit code and the one line of the error; what came before it is returned."""
        done = subprocess.run([BINARY, "stream", str(model or self.model), "--quiet", *map(str, arguments)], input=data, capture_output=True, timeout=self.timeout)
        errors = done.stderr.decode()
        self.assertEqual((done.returncode, errors.count("\n")), (code, 1), errors)
        self.assertTrue(errors.startswith("seqboat: error: "), errors)
        for part in parts:
            self.assertIn(str(part), errors)
        return [json.loads(line) for line in done.stdout.splitlines()]


class LanguageModels(StreamTest):
    def setUp(self):
        super().setUp()
        random_model(self.model)
        self.text = bytes(noise(1000, 1)[i] % 256 for i in range(1000))

    def test_surprise(self):
        events = self.events(self.text, "--every", 300)
        self.assertEqual([e["step"] for e in events], [300, 600, 900, 1000])
        for event in events:
            self.assertEqual(list(event), ["step", "bits_per_byte", "since", "activation_rate"])
            self.assertEqual(event["since"], 0)
            self.assertEqual(len(event["activation_rate"]), 2)
            self.assertTrue(0 < event["bits_per_byte"] < 20 and all(0 <= rate <= 1 for rate in event["activation_rate"]))
        # Means of means: the events' bits are those of their bytes alone.
        one = self.events(self.text, "--every", 1)
        self.assertEqual(len(one), 1000)
        self.assertAlmostEqual(sum(e["bits_per_byte"] for e in one[300:600]) / 300, events[1]["bits_per_byte"], places=9)
        for layer in range(2):
            self.assertAlmostEqual(sum(e["activation_rate"][layer] for e in one[300:600]) / 300, events[1]["activation_rate"][layer], places=9)
        # What the model finds probable surprises it little.
        done = subprocess.run([BINARY, "generate", self.model, "--temperature", "0.01", "--max-tokens", "300", "--quiet"], capture_output=True, timeout=60)
        self.assertLess(self.events(done.stdout, "--every", 300)[0]["bits_per_byte"], events[0]["bits_per_byte"] - 1)
        self.assertEqual(self.events(self.text, "--every", 300, "--threads", 1), events)
        self.assertEqual(self.events(self.text, "--every", 300, "--bytes"), events)

    def test_a_state_goes_on_where_it_stood(self):
        whole = self.events(self.text, "--every", 100)
        state = self.dir / "state"
        parts = self.events(self.text[:400], "--every", 100, "--state-out", state)
        parts += self.events(self.text[400:700], "--every", 100, "--state-in", state, "--state-out", state)
        parts += self.events(self.text[700:], "--every", 100, "--state-in", state)
        self.assertEqual(parts, whole)

    def test_resets(self):
        events = self.events(self.text, "--every", 1000, "--reset-every", 400)
        self.assertEqual([(e["step"], e["since"]) for e in events], [(400, 0), (800, 400), (1000, 800)])
        alone = self.events(self.text[400:800], "--every", 1000)
        self.assertEqual(alone[0]["bits_per_byte"], events[1]["bits_per_byte"])

    def test_a_live_pipe(self):
        process = subprocess.Popen([BINARY, "stream", self.model, "--every", "5", "--quiet"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        expected = self.events(self.text[:23], "--every", 5)
        for i in range(23):
            process.stdin.write(self.text[i:i + 1])
            process.stdin.flush()
            if i % 5 == 4:  # the answer comes though the pipe stays open and far from full
                self.assertEqual(json.loads(process.stdout.readline()), expected[i // 5])
        process.stdin.close()
        self.assertEqual(json.loads(process.stdout.readline()), expected[-1])
        self.assertEqual(process.stdout.read(), b"")
        process.stdout.close()
        self.assertEqual(process.wait(timeout=60), 0)

    def test_reader_that_goes_away(self):
        state = self.dir / "state"
        process = subprocess.Popen([BINARY, "stream", self.model, "--every", "1", "--state-out", state, "--quiet"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        process.stdin.write(b"a")
        process.stdin.flush()
        process.stdout.readline()
        process.stdout.close()
        # Nothing more comes, and yet it ends.
        self.assertEqual(process.wait(timeout=60), 0)
        self.assertEqual(process.stderr.read(), b"")
        process.stderr.close()
        process.stdin.close()
        self.assertEqual(self.events(b"bc", "--every", 1, "--state-in", state), self.events(b"abc", "--every", 1)[1:])

    def test_interrupted(self):
        state = self.dir / "state"
        process = subprocess.Popen([BINARY, "stream", self.model, "--every", "2", "--state-out", state, "--quiet"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        process.stdin.write(self.text[:7])
        process.stdin.flush()
        lines = [process.stdout.readline() for _ in range(3)]
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=60)
        self.assertEqual((process.returncode, errors), (130, b""))
        got = [json.loads(line) for line in lines + rest.splitlines()]
        self.assertEqual([e["step"] for e in got], [2, 4, 6, 7])
        whole = self.events(self.text[:20], "--every", 1)
        self.assertEqual(self.events(self.text[7:20], "--every", 1, "--state-in", state), whole[7:])

    def test_interrupted_with_input_to_come(self):
        endless, state = self.dir / "endless", self.dir / "state"
        with open(endless, "wb") as file:
            file.truncate(1 << 40)  # a hole: takes no room
        with open(endless, "rb") as file:
            process = subprocess.Popen([BINARY, "stream", self.model, "--state-out", state, "--quiet"], stdin=file, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            first = process.stdout.readline()
            process.send_signal(signal.SIGTERM)
            rest, errors = process.communicate(timeout=60)
        self.assertEqual((process.returncode, errors), (143, b""))
        step = [json.loads(line) for line in [first, *rest.splitlines()]][-1]["step"]
        # What had been read and not yet fed does not count: the state is that of the last line.
        self.events(bytes(step), "--state-out", self.dir / "expected")
        self.assertEqual(state.read_bytes(), (self.dir / "expected").read_bytes())

    def test_what_a_user_gets_wrong(self):
        self.refuse(4, b"", parts=["standard input is empty"])
        self.refuse(2, b"a", "--window", 8, parts=["--window is for classifiers"])
        self.refuse(2, b"a", "--probabilities", parts=["--probabilities is for classifiers"])
        self.refuse(5, b"1\n", "--csv", parts=["reads tokens", "--bytes"])
        self.refuse(5, b"ab", "--pcm", "s16le", parts=["--pcm", "tokens: --bytes"])
        self.refuse(2, b"a", "--rate", 8000, parts=["--rate goes with --pcm"])
        self.refuse(2, b"a", "--pcm", "u8", parts=["--pcm"])
        self.refuse(2, b"a", "--bytes", "--csv", parts=["--bytes", "--csv"])
        self.refuse(2, b"a", "--every", 0, parts=["--every", "from 1"])
        self.refuse(2, b"a", "--window", 8, "--reset-every", 9, parts=["--window", "--reset-every"])
        random_model(self.model, **CLASSIFIER, causal=False)
        self.refuse(5, b"a", parts=["cannot stream", "bidirectional"])
        random_model(self.model, **CLASSIFIER, pool="first")
        self.refuse(5, b"a", parts=["cannot stream", "first token"])
        random_model(self.model, window_size=0, position="rotary")
        self.refuse(4, self.text, "--max-context", 500, parts=["step 499", "room for 500", "--max-context"])
        self.assertEqual(len(self.events(self.text[:499], "--max-context", 500, "--every", 499)), 1)


class Classifiers(StreamTest):
    def test_bytes(self):
        random_model(self.model, **CLASSIFIER)
        text = bytes(range(200))
        events = self.events(text, "--every", 80, "--probabilities")
        self.assertEqual([e["step"] for e in events], [80, 160, 200])
        for event in events:
            self.assertEqual(list(event), ["step", "label", "class", "probability", "probabilities", "since", "activation_rate"])
            self.assertIsNone(event["label"])
            self.assertAlmostEqual(sum(event["probabilities"]), 1)
            self.assertEqual(event["probability"], max(event["probabilities"]))
            self.assertEqual(event["class"], event["probabilities"].index(event["probability"]))
        # An answer is about everything since the beginning, and nothing after.
        self.assertEqual(self.events(text[:80], "--probabilities")[0], events[0])
        one = self.events(text, "--every", 1, "--probabilities")
        for event in events:
            self.assertEqual(one[event["step"] - 1]["probabilities"], event["probabilities"])

    def test_windows_and_resets(self):
        random_model(self.model, **CLASSIFIER)
        text = bytes(noise(100, 2)[i] % 256 for i in range(100))
        for window in (20, 7):
            half = window // 2
            for event in self.events(text, "--every", 1, "--window", window, "--probabilities"):
                since, step = event["since"], event["step"]
                covered = step - since
                self.assertLessEqual(covered, window)
                self.assertTrue(covered >= half or since == 0, event)
                if step % 5 != 1:  # each is a start of the program
                    continue
                alone = self.events(text[since:step], "--every", 1000, "--probabilities")[0]
                self.assertEqual(event["probabilities"], alone["probabilities"], (window, step))
        for event in self.events(text, "--every", 7, "--reset-every", 20, "--probabilities"):
            self.assertEqual(event["since"], (event["step"] - 1) // 20 * 20)
            alone = self.events(text[event["since"]:event["step"]], "--every", 1000, "--probabilities")[0]
            self.assertEqual(event["probabilities"], alone["probabilities"])
        self.refuse(2, b"a", "--window", 8, "--state-out", self.dir / "s", parts=["--window", "--state-out"])


class Numbers(StreamTest):
    def setUp(self):
        super().setUp()
        random_model(self.model, **NUMBERS)

    def test_lines(self):
        rows = [[math.sin(i), i / 7, -1e-3 * i] for i in range(40)]
        events = self.events(lines_of(rows), "--csv", "--every", 15)
        self.assertEqual([e["step"] for e in events], [15, 30, 40])
        odd = lines_of(rows).replace(b",", b" ,\t").replace(b"\n", b"\r\n")[:-2]
        self.assertEqual(self.events(odd, "--csv", "--every", 15), events)
        self.assertEqual(self.events(b"+1,2.,3e0\n", "--csv"), self.events(b"1,2,3\n", "--csv"))
        state = self.dir / "state"
        parts = self.events(lines_of(rows[:15]), "--csv", "--every", 15, "--state-out", state) + self.events(lines_of(rows[15:]), "--csv", "--every", 15, "--state-in", state)
        self.assertEqual(parts, events)

    def test_bad_lines(self):
        good = b"1,2,3\n" * 4
        for line, parts in [(b"1,2\n", ["expected 3 numbers", "found 2"]), (b"1,2,3,4\n", ["found 4"]), (b"\n", ["found nothing"]),
                            (b"1,x,3\n", ["column 2", "'x'"]), (b"1,2,\n", ["column 3", "''"]), (b"1,nan,3\n", ["column 2", "nan"]), (b"1,2,inf\n", ["column 3"]),
                            (b"1,2,1e39\n", ["column 3"]), (b"1,2,3 4\n", ["column 3"]), (b"1;2;3\n", ["column 1"]), (b"9" * 5000 + b"\n", ["at most"])]:
            before = self.refuse(4, good + line + good, "--csv", "--every", 2, parts=["line 5", *parts])
            self.assertEqual([e["step"] for e in before], [2, 4], line)
        self.refuse(4, b"x,y,z\n" + good, "--csv", parts=["line 1", "a line of names is not read"])
        self.refuse(4, b"", "--csv", parts=["empty"])
        self.refuse(2, b"1,2,3\n", parts=["3 numbers a step", "--csv"])
        self.refuse(5, b"abc", "--bytes", parts=["reads 3 numbers a step"])
        self.refuse(5, b"abcd", "--pcm", "f32le", parts=["data.sample_rate", "--csv"])

    def test_sound(self):
        random_model(self.model, **SOUND)
        samples = noise(80 * 25 + 30)
        events = self.events(pcm(samples), "--pcm", "s16le", "--rate", 8000)
        self.assertEqual([e["step"] for e in events], [10, 20, 26])
        self.assertEqual([e["time_s"] for e in events], [0.1, 0.2, 0.26])
        self.assertEqual(self.events(pcm(samples), "--pcm", "s16le", "--every", 7)[0]["time_s"], 0.07)
        for event in events:
            self.assertEqual(list(event), ["step", "time_s", "label", "class", "probability", "since", "activation_rate"])
            self.assertEqual(event["label"], SOUND["data"]["labels"][event["class"]])
        # The same sound in other numbers, the last step filled up by hand, and as the steps themselves.
        self.assertEqual(self.events(pcm(samples + [0] * 50), "--pcm", "s16le"), events)
        self.assertEqual(self.events(struct.pack(f"<{len(samples)}f", *(s / 32768 for s in samples)), "--pcm", "f32le"), events)
        whole = samples + [0] * 50
        steps = self.events(lines_of([[s / 32768 * 10 for s in whole[i:i + 80]] for i in range(0, len(whole), 80)]), "--csv", "--every", 10)
        self.assertEqual([{k: v for k, v in e.items() if k != "time_s"} for e in events], steps)

    def test_pieces_of_sound(self):
        random_model(self.model, **SOUND)
        data = pcm(noise(80 * 4, 3))
        expected = self.events(data, "--pcm", "s16le", "--every", 2)
        process = subprocess.Popen([BINARY, "stream", self.model, "--pcm", "s16le", "--every", "2", "--quiet"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for begin in range(0, len(data), 37):  # between two bytes of a sample, too
            os.write(process.stdin.fileno(), data[begin:begin + 37])
            time.sleep(0.002)
        got, _ = process.communicate(timeout=60)
        self.assertEqual([json.loads(line) for line in got.splitlines()], expected)
        # A state that is to go on knows whole steps alone, and says so.
        state = self.dir / "state"
        done = subprocess.run([BINARY, "stream", self.model, "--pcm", "s16le", "--every", "2", "--quiet", "--state-out", state], input=data[:2 * 170], capture_output=True, timeout=60)
        self.assertEqual(done.returncode, 0)
        self.assertIn(b"the last 10 samples", done.stderr)
        self.assertEqual([json.loads(line) for line in done.stdout.splitlines()] + self.events(data[2 * 160:], "--pcm", "s16le", "--every", 2, "--state-in", state), expected)

    @unittest.skipUnless(os.path.exists("/proc/self/status"), "no /proc: what a process takes cannot be read")
    def test_memory_does_not_grow(self):
        def peak_kb(process):
            with open(f"/proc/{process.pid}/status", encoding="utf-8") as file:
                return next(int(line.split()[1]) for line in file if line.startswith("VmHWM"))

        random_model(self.dir / "sound", **SOUND)
        for how, model, step in ((["--pcm", "s16le"], "sound", bytes(160)), (["--csv"], "m", b"1,2,3\n")):
            with subprocess.Popen([BINARY, "stream", self.dir / model, *how, "--every", "1000", "--quiet"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
                peaks = []
                for _ in range(30):
                    process.stdin.write(step * 1000)
                    process.stdin.flush()
                    process.stdout.readline()  # all of it is through
                    peaks.append(peak_kb(process))
                process.stdin.close()
                process.stdout.read()
            # The first pieces find the size of the buffers; 2.4 million samples or 27,000 lines more take no more.
            self.assertLess(peaks[-1], peaks[2] + 256, peaks)

    def test_bad_sound(self):
        random_model(self.model, **SOUND)
        self.refuse(4, pcm([1] * 200) + b"x", "--pcm", "s16le", parts=["ends within a sample", "multiple of 2", "found 401"])
        self.refuse(4, bytes(803), "--pcm", "f32le", parts=["multiple of 4", "found 803"])
        bad = struct.pack("<200f", *([0.1] * 165 + [math.nan] + [0.1] * 34))
        before = self.refuse(4, bad, "--pcm", "f32le", "--every", 1, parts=["sample 165", "byte 660", "nan"])
        self.assertEqual([e["step"] for e in before], [1, 2])
        self.refuse(2, pcm([1] * 200), "--pcm", "s16le", "--rate", 16000, parts=["--rate 16000", "8000 samples a second"])
        self.refuse(2, pcm([1] * 200), parts=["8000 samples", "--pcm s16le"])
        random_model(self.model, **{**SOUND, "data": {**SOUND["data"], "normalize": "time-index"}})
        self.refuse(5, pcm([1] * 200), "--pcm", "s16le", parts=["cannot stream", "time-index"])


if __name__ == "__main__":
    unittest.main()
