"""The trained models that come with the repository: they load, stream, and say what their pages say."""

import json
import math
import os
import pathlib
import struct
import subprocess
import unittest

from support import BINARY, CliTest

MODELS = pathlib.Path(os.environ["SEQBOAT_SOURCE_DIR"]) / "models"


class Models(CliTest):
    def run_on(self, data, *arguments):
        done = subprocess.run([BINARY, *map(str, arguments)], input=data, capture_output=True, timeout=self.timeout)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def test_each_is_small_and_has_a_page(self):
        folders = sorted(folder for folder in MODELS.iterdir() if folder.is_dir())
        self.assertEqual([folder.name for folder in folders], ["digits-tiny", "lm-tiny"])
        for folder in folders:
            self.assertLess(sum(file.stat().st_size for file in folder.iterdir()), 2_000_000)
            self.assertIn("icen", (folder / "README.md").read_text())
            self.assertEqual(self.json_of("inspect", folder)["config"]["causal"], True)

    def test_the_language_model_knows_its_text(self):
        text = b"What, is the king but sick? and dies to-night?\n\nROMEO:\nI will not say the word, my lord, to thee.\n"
        events = [json.loads(line) for line in self.run_on(text, "stream", MODELS / "lm-tiny", "--every", len(text), "--quiet").splitlines()]
        # English of its kind: far below the eight bits of a byte, above what its own test part reaches with much context.
        self.assertLess(events[0]["bits_per_byte"], 3.0)
        backwards = [json.loads(line) for line in self.run_on(text[::-1], "stream", MODELS / "lm-tiny", "--every", len(text), "--quiet").splitlines()]
        self.assertGreater(backwards[0]["bits_per_byte"], 4.0)

    def test_the_digits_model_answers_every_tenth_of_a_second(self):
        tone = b"".join(struct.pack("<h", round(3000 * math.sin(2 * math.pi * 440 * i / 8000))) for i in range(4000))
        events = [json.loads(line) for line in self.run_on(tone, "stream", MODELS / "digits-tiny", "--pcm", "s16le", "--quiet").splitlines()]
        self.assertEqual([event["time_s"] for event in events], [0.1, 0.2, 0.3, 0.4, 0.5])
        self.assertTrue(all(event["label"] in list("0123456789") and 0 < event["probability"] <= 1 for event in events))


if __name__ == "__main__":
    unittest.main()
