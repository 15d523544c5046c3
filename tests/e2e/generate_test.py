"""seqboat generate: a byte language model that goes on where it stood."""

import base64
import os
import signal
import subprocess
import time
import unittest

from support import BINARY, CliTest, random_model, scale_tensor

KEYS = ["text", "bytes", "tokens", "tokens_per_s", "us_per_token", "state_bytes", "prompt_tokens", "ended", "threads"]


class Generate(CliTest):
    def setUp(self):
        super().setUp()
        self.model = self.dir / "m"
        random_model(self.model)

    def bytes_of(self, *arguments, model=None, **options):
        """What is written to standard output, as bytes."""
        done = subprocess.run([BINARY, "generate", str(model or self.model), "--quiet", *map(str, arguments)], capture_output=True, timeout=self.timeout, **options)
        self.assertEqual((done.returncode, done.stderr), (0, b""))
        return done.stdout

    def test_json_and_bytes_are_the_same_text(self):
        got = self.json_of("generate", self.model, "--prompt", "ab", "--max-tokens", 50, "--seed", 3)
        self.assertEqual(list(got), KEYS)
        self.assertEqual((got["tokens"], got["prompt_tokens"], got["ended"]), (50, 2, "max-tokens"))
        self.assertGreater(got["tokens_per_s"], 0)
        self.assertLessEqual(got["us_per_token"]["p50"], got["us_per_token"]["p99"])
        text = base64.b64decode(got["bytes"], validate=True)
        self.assertEqual(len(text), 50)
        self.assertEqual(self.bytes_of("--prompt", "ab", "--max-tokens", 50, "--seed", 3), text)
        # Random weights give bytes that are no UTF-8: each stands as U+FFFD.
        self.assertIn("\ufffd", got["text"])
        file = self.dir / "prompt"
        file.write_bytes(b"ab")
        self.assertEqual(self.bytes_of("--file", file, "--max-tokens", 50, "--seed", 3), text)
        self.assertEqual(self.bytes_of("--file", "-", "--max-tokens", 50, "--seed", 3, input=b"ab"), text)
        self.assertEqual(self.bytes_of("--prompt", "ab", "--max-tokens", 50, "--seed", 3, "--threads", 1), text)
        self.assertNotEqual(self.bytes_of("--prompt", "ab", "--max-tokens", 50, "--seed", 4), text)
        self.assertNotEqual(self.bytes_of("--prompt", "ba", "--max-tokens", 50, "--seed", 3), text)

    def test_a_state_goes_on_where_it_stood(self):
        for kind in ({}, {"layer": "mega-chunk", "chunk_size": 8}, {"window_size": 0, "position": "rotary"}):
            model = self.dir / "kind"
            random_model(model, **kind)
            for how in (["--temperature", 0], ["--seed", 5], ["--seed", 5, "--top-k", 9, "--temperature", 2], ["--top-p", 0.7]):
                whole = self.bytes_of("--prompt", "once", "--max-tokens", 60, *how, model=model)
                self.assertEqual(len(whole), 60)
                state = self.dir / "state"
                parts = self.bytes_of("--prompt", "once", "--max-tokens", 20, "--state-out", state, *how, model=model)
                parts += self.bytes_of("--state-in", state, "--max-tokens", 25, "--state-out", state, *how, model=model)
                parts += self.bytes_of("--state-in", state, "--max-tokens", 15, *how, model=model)
                self.assertEqual(parts, whole, (kind, how))
        # What is printed and what is given as prompt are the same to a state.
        whole = self.bytes_of("--prompt", "once", "--max-tokens", 20, "--seed", 1)
        self.bytes_of("--prompt", "on", "--max-tokens", 0, "--state-out", state)
        self.assertEqual(self.bytes_of("--state-in", state, "--prompt", "ce", "--max-tokens", 20, "--seed", 1), whole)
        # Without a prompt a fresh model begins a text, as it does after </s> alone.
        first = self.bytes_of("--max-tokens", 20)
        self.bytes_of("--max-tokens", 0, "--state-out", state)
        self.assertEqual(self.bytes_of("--state-in", state, "--max-tokens", 20), first)

    def test_stop(self):
        whole = self.bytes_of("--prompt", "x", "--max-tokens", 200, "--seed", 7)
        letters = [c for c in range(len(whole)) if 0x21 <= whole[c] < 0x7F]
        text = chr(whole[letters[3]])
        until = whole[: whole.index(text.encode()) + 1]
        self.assertEqual(self.bytes_of("--prompt", "x", "--max-tokens", 200, "--seed", 7, "--stop", text), until)
        got = self.json_of("generate", self.model, "--prompt", "x", "--max-tokens", 200, "--seed", 7, "--stop", text)
        self.assertEqual((base64.b64decode(got["bytes"]), got["ended"], got["tokens"]), (until, "stop", len(until)))

    def test_ring(self):
        self.assertLess(self.json_of("generate", self.model, "--ring", "bf16")["state_bytes"], self.json_of("generate", self.model)["state_bytes"])
        state = self.dir / "state"
        self.bytes_of("--state-out", state)
        self.expect(5, "generate", self.model, "--ring", "bf16", "--state-in", state, parts=[state, "expected bf16"])

    def test_what_a_user_gets_wrong(self):
        state = self.dir / "state"
        self.bytes_of("--state-out", state)
        other = self.dir / "other"
        random_model(other, seed=1)
        self.expect(5, "generate", other, "--state-in", state, parts=[state, "another model"])
        self.expect(5, "generate", self.model, "--state-in", self.dir / "none", parts=[self.dir / "none", "No such file"])
        (self.dir / "half").write_bytes(state.read_bytes()[:200])
        self.expect(5, "generate", self.model, "--state-in", self.dir / "half", parts=["half"])
        (self.dir / "newer").write_bytes(state.read_bytes().replace(b'"version":"1"', b'"version":"2"'))
        self.expect(5, "generate", self.model, "--state-in", self.dir / "newer", parts=["newer", "version 2", "up to 1"])
        self.expect(5, "generate", self.model, "--state-in", self.model / "model.safetensors", parts=["no state of a stream"])
        self.expect(5, "generate", self.model, "--state-in", self.model / "config.json", parts=["config.json"])
        self.expect(5, "generate", self.dir / "nowhere", parts=["no such folder"])
        classifier = {"task": "classification", "classes": 3}
        random_model(other, **classifier)
        self.expect(5, "generate", other, parts=["expected a language model", "classifier of 3 classes", "seqboat stream"])
        random_model(other, **classifier, causal=False)
        self.expect(5, "generate", other, parts=["expected a language model", "cannot stream", "seqboat eval"])
        random_model(other, **classifier, pool="first")  # what its first token says is no answer to a stream
        self.expect(5, "generate", other, parts=["expected a language model", "cannot stream", "seqboat eval"])
        random_model(other, vocab_size=30)
        self.expect(5, "generate", other, parts=["reads no bytes", "at least 260", "found 30"])
        self.expect(4, "generate", self.model, "--file", self.dir / "none", parts=[self.dir / "none", "no such file"])
        (self.dir / "empty").touch()
        self.expect(4, "generate", self.model, "--file", self.dir / "empty", parts=[self.dir / "empty", "is empty"])
        self.expect(4, "generate", self.model, "--file", "-", parts=["standard input is empty"], stdin=subprocess.DEVNULL)
        self.expect(4, "generate", self.model, "--file", self.dir, parts=["expected a file, found a folder"])
        self.expect(4, "generate", self.model, "--file", "/dev/null", parts=["found a pipe or a device"])
        self.expect(2, "generate", self.model, "--prompt", "a", "--file", "b", parts=["--prompt", "--file"])
        self.expect(2, "generate", self.model, "--temperature", -1, parts=["--temperature", "from 0"])
        self.expect(2, "generate", self.model, "--top-p", 0, parts=["--top-p"])
        self.expect(2, "generate", self.model, "--ring", "int8", parts=["--ring"])
        self.expect(2, "generate", self.model, "--state-out", self.dir / "no" / "state", parts=["--state-out", "there is no folder"])
        self.expect(2, "generate", self.model, "--state-out", self.dir, parts=["--state-out", "folder"])
        os.mkfifo(self.dir / "pipe")
        self.expect(2, "generate", self.model, "--state-out", self.dir / "pipe", parts=["--state-out", "pipe"])
        random_model(other, window_size=0, position="rotary")
        self.expect(4, "generate", other, "--prompt", "abc", "--max-tokens", 10, "--max-context", 13, parts=["room for 13", "need 14", "--max-context"])
        self.assertEqual(len(self.bytes_of("--prompt", "abc", "--max-tokens", 10, "--max-context", 14, model=other)), 10)
        self.bytes_of("--max-tokens", 5, "--max-context", 20, "--state-out", state, model=other)
        self.expect(2, "generate", other, "--state-in", state, "--max-context", 30, parts=["--max-context 30", "made for 20"])
        self.expect(4, "generate", other, "--state-in", state, "--max-tokens", 15, parts=["room for 14"])

    def test_logits_that_are_no_numbers(self):
        scale_tensor(self.model / "model.safetensors", "embedding.weight", 1e40)
        state = self.dir / "state"
        self.expect(6, "generate", self.model, "--state-out", state, parts=["logit"])
        self.expect(6, "stream", self.model, "--state-out", state, parts=["step 3", "not finite"], input="abc")
        self.assertFalse(state.exists())

    def test_no_further_than_the_model_can_tell_apart(self):
        random_model(self.model, layer="mega", ffn_dim=16, max_positions=40)
        self.assertEqual(len(self.bytes_of("--max-tokens", 39)), 39)
        self.expect(4, "generate", self.model, "--max-tokens", 40, parts=["room for 40", "need 41"])
        self.expect(2, "generate", self.model, "--max-tokens", 40, "--max-context", 41, parts=["at most 40", "model.max_positions"])

    def test_reader_that_goes_away(self):
        state = self.dir / "state"
        read_end, write_end = os.pipe()
        process = subprocess.Popen([BINARY, "generate", self.model, "--max-tokens", "1000000000", "--state-out", state, "--quiet"], stdout=write_end, stderr=subprocess.PIPE)
        os.close(write_end)
        self.assertTrue(os.read(read_end, 10))  # bytes come before the end
        os.close(read_end)
        _, errors = process.communicate(timeout=60)
        self.assertEqual((process.returncode, errors), (0, b""))
        self.assertEqual(len(self.bytes_of("--state-in", state, "--max-tokens", 3)), 3)

    def test_interrupted(self):
        state = self.dir / "state"
        for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
            process = subprocess.Popen([BINARY, "generate", self.model, "--max-tokens", "1000000000", "--seed", "2", "--state-out", state, "--quiet"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            begun = os.read(process.stdout.fileno(), 100)
            process.send_signal(number)
            rest, errors = process.communicate(timeout=60)
            self.assertEqual((process.returncode, errors), (code, b""))
            # Printed bytes and state belong together.
            text = begun + rest
            whole = self.bytes_of("--max-tokens", len(text) + 20, "--seed", 2)
            self.assertEqual(text + self.bytes_of("--state-in", state, "--max-tokens", 20, "--seed", 2), whole)

    def test_waiting_for_a_prompt_can_be_interrupted(self):
        process = subprocess.Popen([BINARY, "generate", self.model, "--file", "-", "--quiet"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        process.stdin.write(b"abc")
        process.stdin.flush()
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        process.wait(timeout=60)
        process.communicate()
        self.assertEqual(process.returncode, 130)


if __name__ == "__main__":
    unittest.main()
