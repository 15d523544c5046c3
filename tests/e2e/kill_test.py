"""Twenty runs, each killed at a random moment (preparation, updates, checkpoints, exports) and continued, end with the bytes of one that was not."""

import json
import os
import random
import shutil
import signal
import subprocess
import time
import unittest

from support import BINARY, HAS_TRAIN, TINY_LISTOPS, CliTest

SETTINGS = {**TINY_LISTOPS, "train.steps": 300, "optim.total_steps": 300, "train.save_every": 5, "train.log_every": 3}
KILLS = 20


@unittest.skipUnless(HAS_TRAIN, "this build has no LibTorch: no train, no eval")
class Kill(CliTest):
    def start(self, name):
        words = [BINARY, "train", "lra/listops-short", "--out", str(self.dir / name), "--threads", "1", "--quiet"]
        for key, value in SETTINGS.items():
            words += ["--set", f"{key}={json.dumps(value)}"]
        return subprocess.Popen(words, env={**os.environ, "XDG_CACHE_HOME": str(self.dir / "cache")}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    def finish(self, name):
        process = self.start(name)
        _, error = process.communicate(timeout=self.timeout)
        self.assertEqual(process.returncode, 0, error)

    def outcome(self, name):
        """All that a run is judged by."""
        run = self.dir / name
        timing = ("tokens_per_s",)
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        newest = run / "checkpoints" / (run / "latest").read_text().strip()
        state = json.loads((newest / "trainer_state.json").read_text())
        state.pop("seconds")
        files = {file: (newest / file).read_bytes() for file in ("config.json", "model.safetensors", "optimizer.safetensors")}
        files["export"] = (run / "model" / "model.safetensors").read_bytes()
        return {"files": files, "state": state, "latest": newest.name, "best": (run / "best").read_text(),
                "metrics": [{key: value for key, value in line.items() if key not in timing} for line in lines]}

    def test_twenty_of_twenty_are_byte_equal(self):
        seconds = None
        for name in ("data", "whole"):  # the first makes the data and warms the caches
            begin = time.monotonic()
            self.finish(name)
            seconds = time.monotonic() - begin
        whole = self.outcome("whole")
        self.assertEqual(whole["latest"], "step-00000300")
        seed = random.randrange(2**32)
        moments, killed, steps = random.Random(seed), 0, []
        for number in range(4 * KILLS):
            name = f"run{number}"
            process = self.start(name)
            time.sleep(moments.uniform(0, seconds))
            process.send_signal(signal.SIGKILL)
            process.communicate(timeout=60)
            if process.returncode != -signal.SIGKILL:  # it was done before: the machine has become quicker
                seconds *= 0.8
                continue
            killed += 1
            latest = self.dir / name / "latest"
            steps.append(int(latest.read_text()[5:]) if latest.exists() else 0)
            self.finish(name)
            outcome = self.outcome(name)
            for part in outcome:
                self.assertTrue(outcome[part] == whole[part], f"{part} of {name} differs, killed after checkpoint {steps[-1]} (seed {seed})")
            shutil.rmtree(self.dir / name)
            if killed == KILLS:
                break
        print(f"{killed} of {KILLS} killed runs are byte-equal; their checkpoints were of {sorted(steps)}; seed {seed}")
        self.assertEqual(killed, KILLS, f"too few were still running when the signal came: seed {seed}")
        self.assertGreater(len(set(steps)), 5, "the moments were not spread over the run")


if __name__ == "__main__":
    unittest.main()
