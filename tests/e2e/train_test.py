"""Training, interruption, continuing, evaluation: through the command line, with a model small enough for seconds."""

import json
import os
import resource
import signal
import subprocess
import time
import unittest

from support import BINARY, HAS_TRAIN, TINY_LISTOPS, CliTest, read_events


@unittest.skipUnless(HAS_TRAIN, "this build has no LibTorch: no train, no eval")
class Training(CliTest):
    def arguments(self, name, **changes):
        settings = {**TINY_LISTOPS, **{key.replace("__", "."): value for key, value in changes.items()}}
        words = ["train", "lra/listops-short", "--out", self.dir / name, "--threads", settings.pop("threads", 1)]
        for key, value in settings.items():
            words += ["--set", f"{key}={json.dumps(value) if not isinstance(value, str) else value}"]
        return words

    def train(self, name, **changes):
        return self.expect(0, *self.arguments(name, **changes), "--quiet")

    def metrics(self, name):
        return [json.loads(line) for line in (self.dir / name / "metrics.jsonl").read_text().splitlines()]

    def newest(self, name):
        return self.dir / name / "checkpoints" / (self.dir / name / "latest").read_text().strip()

    def weights(self, name):
        return [(self.newest(name) / file).read_bytes() for file in ("model.safetensors", "optimizer.safetensors")]

    def test_a_run_leaves_its_files_and_the_model_can_be_used(self):
        result = json.loads(self.expect(0, *self.arguments("run"), "--json", "--quiet").stdout)
        self.assertEqual(result["steps"], 60)
        run = self.dir / "run"
        for file in ("config.toml", "environment.json", "metrics.jsonl", "train.log", "latest", "best", "model/config.json", "model/model.safetensors"):
            self.assertTrue((run / file).is_file(), file)
        for file in ("config.json", "model.safetensors", "optimizer.safetensors", "trainer_state.json"):
            self.assertTrue((self.newest("run") / file).is_file(), file)
        self.assertLessEqual(len(list((run / "checkpoints").iterdir())), 3)  # two kept and the best
        lines = self.metrics("run")
        training, validation = [x for x in lines if "split" not in x], [x for x in lines if "split" in x]
        self.assertEqual([x["step"] for x in training], list(range(5, 61, 5)))
        self.assertEqual([x["step"] for x in validation], [20, 40, 60])
        for key in ("step", "tokens", "loss", "lr", "grad_norm", "tokens_per_s", "activation_rate"):
            self.assertIn(key, training[0])
        self.assertEqual(len(training[0]["activation_rate"]), 2)
        for key in ("split", "metric", "value"):
            self.assertIn(key, validation[0])

        for model in (run, run / "model"):
            value = self.json_of("eval", model, *(["--data", next((self.dir / "cache").rglob("basic_test.tsv")).parent] if model != run else []))
            for key in ("task", "split", "metric", "value", "ci95", "examples", "loss", "activation_rate", "attention_span", "shortcut_ladder"):
                self.assertIn(key, value)
            self.assertEqual(value["examples"], 60)
            self.assertLessEqual(value["ci95"][0], value["value"])
        self.assertIn("root operator", self.expect(0, "eval", run).stdout)
        self.assertEqual(self.json_of("inspect", run)["parameters"], self.json_of("inspect", run / "model")["parameters"])

    def test_same_seed_same_bytes_at_any_thread_count(self):
        self.train("one", threads=1)
        self.train("two", threads=2)
        self.train("other", threads=1, train__seed=2)
        self.assertEqual(self.weights("one"), self.weights("two"))
        self.assertNotEqual(self.weights("one"), self.weights("other"))
        timing = ("tokens_per_s", "seconds")
        strip = lambda lines: [{k: v for k, v in line.items() if k not in timing} for line in lines]
        self.assertEqual(strip(self.metrics("one")), strip(self.metrics("two")))

    def interrupt(self, name, number, after_step, **changes):
        env = {**os.environ, "XDG_CACHE_HOME": str(self.dir / "cache")}
        process = subprocess.Popen([BINARY, *map(str, self.arguments(name, **changes)), "--quiet"], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        metrics = self.dir / name / "metrics.jsonl"
        deadline = time.time() + 120
        while time.time() < deadline and process.poll() is None:
            if metrics.exists() and f'"step":{after_step},' in metrics.read_text():
                break
            time.sleep(0.002)
        process.send_signal(number)
        out, error = process.communicate(timeout=120)
        return process.returncode, error

    def test_interrupted_and_continued_is_byte_equal(self):
        long = {"train__steps": 400, "optim__total_steps": 400, "train__eval_every": 100, "train__save_every": 50}
        self.train("whole", **long)
        for name, number, code in (("int", signal.SIGINT, 130), ("term", signal.SIGTERM, 143)):
            returned, error = self.interrupt(name, number, 20, **long)
            self.assertEqual(returned, code, error)
            self.assertTrue(self.newest(name).is_dir())
            self.expect(0, "train", self.dir / name, "--quiet")
            self.assertEqual(self.weights(name), self.weights("whole"), name)
        returned, _ = self.interrupt("kill", signal.SIGKILL, 60, **long)
        self.assertEqual(returned, -signal.SIGKILL)
        self.expect(0, "train", self.dir / "kill", "--quiet")
        self.assertEqual(self.weights("kill"), self.weights("whole"))
        steps = [x["step"] for x in self.metrics("kill") if "split" not in x]
        self.assertEqual(steps, list(range(5, 401, 5)))

    def test_tensorboard_shows_what_metrics_hold_also_after_a_kill(self):
        long = {"train__steps": 400, "optim__total_steps": 400, "train__eval_every": 100, "train__save_every": 50}
        self.interrupt("run", signal.SIGKILL, 120, **long)
        self.expect(0, "train", self.dir / "run", "--quiet")
        lines = self.metrics("run")
        found = read_events(self.dir / "run")
        self.assertTrue(found["canonical"])
        for reader in ("accumulator", "server"):
            scalars = found[reader]["scalars"]
            for tag, key, split in (("train/loss", "loss", None), ("train/lr", "lr", None), ("train/grad_norm", "grad_norm", None), ("train/tokens", "tokens", None),
                                    ("valid/accuracy", "value", "valid"), ("valid/loss", "loss", "valid")):
                want = [(line["step"], line[key]) for line in lines if line.get("split") == split]
                got = [(step, value) for step, _, value in scalars[tag]]
                self.assertEqual([step for step, _ in got], [step for step, _ in want], f"{tag} by {reader}")
                for (_, a), (_, b) in zip(got, want):
                    self.assertAlmostEqual(a, b, delta=1e-6 * abs(b))
            rates = [[line["activation_rate"][1] for line in lines if "split" not in line], [value for _, _, value in scalars["train/activation_rate/layer_1"]]]
            self.assertEqual(len(rates[0]), len(rates[1]))
            self.assertIn("d_model = 16", found[reader]["texts"]["recipe"][0][2])

    def test_a_run_that_is_done_says_so_and_stays(self):
        self.train("run")
        before = self.weights("run")
        self.expect(0, "train", self.dir / "run", "--quiet")
        self.assertEqual(self.weights("run"), before)

    def test_another_config_is_refused_and_nothing_is_harmed(self):
        self.train("run")
        before = sorted((p, p.read_bytes()) for p in (self.dir / "run").rglob("*.safetensors"))
        self.expect(5, *self.arguments("run", model__d_model=32), parts=["d_model", self.dir / "run"])
        self.assertEqual(sorted((p, p.read_bytes()) for p in (self.dir / "run").rglob("*.safetensors")), before)

    def test_a_half_written_checkpoint_is_passed_over(self):
        self.train("run", train__steps=50)
        newest = self.newest("run") / "model.safetensors"
        newest.write_bytes(newest.read_bytes()[:1000])
        done = self.expect(0, "train", self.dir / "run", "--quiet")
        self.assertIn(newest.parent.name, done.stderr)
        self.assertIn("warning", done.stderr)

    def test_a_loss_that_is_not_finite_stops_with_step_and_batch(self):
        done = self.expect(6, *self.arguments("run", optim__lr=1e30, optim__warmup=0, optim__clip_norm=0.0), "--quiet", parts=["step"])
        self.assertIn("batch", done.stderr)

    def test_bad_data_names_file_and_line(self):
        folder = self.dir / "data"
        self.expect(0, "data", "make", "listops", "--out", folder, "--min-length", 4, "--max-length", 40, "--max-depth", 3, "--max-args", 4, "--train", 50, "--valid", 20,
                    "--test", 20, "--quiet")
        train = next(folder.glob("*train*.tsv"))
        lines = train.read_text().splitlines()
        lines[7] = "[MAX 1 2 x ]\t2"  # line 8 of the file
        train.write_text("\n".join(lines) + "\n")
        self.expect(4, *self.arguments("run", data__train_examples=50, data__valid_examples=20, data__test_examples=20), "--data", folder, parts=[train, "8", "x"])
        train.write_text("")
        self.expect(4, *self.arguments("run2", data__train_examples=50, data__valid_examples=20, data__test_examples=20), "--data", folder, parts=[train, "empty"])

    def make_other_data(self, folder):
        """Data of other options than the recipe's."""
        self.expect(0, "data", "make", "listops", "--out", folder, "--min-length", 5, "--max-length", 30, "--max-depth", 3, "--max-args", 3, "--train", 70, "--valid", 30,
                    "--test", 20, "--quiet")

    def test_data_given_by_hand_are_taken_as_they_are(self):
        folder = self.dir / "data"
        self.make_other_data(folder)
        short = {"train__steps": 20, "train__eval_every": 10}
        self.expect(0, *self.arguments("run", **short), "--data", folder, "--quiet")
        self.assertIn(str(folder), (self.dir / "run" / "config.toml").read_text())
        self.expect(0, *self.arguments("run", **{**short, "train__steps": 30}), "--quiet")  # the run remembers the folder
        self.expect(0, "train", self.dir / "run", "--steps", 40, "--quiet")
        self.assertEqual((self.dir / "run" / "train.log").read_text().count(f"70 training and 30 validation examples in {folder}"), 3)
        self.assertEqual(self.json_of("eval", self.dir / "run", "--split", "valid")["examples"], 30)
        # What the recipe names is held to what it says.
        self.expect(4, *self.arguments("named", data__path=str(folder)), parts=["other options"])
        self.expect(4, "eval", self.dir / "run", "--set", "data.max_length=50", parts=["other options"])
        # One file cannot be two splits.
        for more in ([], ["--dry-run"]):
            self.expect(4, *self.arguments("file"), *more, "--data", folder / "basic_train.tsv", parts=["basic_train.tsv: expected a folder with basic_train.tsv and basic_val.tsv"])

    def test_a_failed_beginning_leaves_the_folder_to_a_corrected_recipe(self):
        self.make_other_data(self.dir / "data")
        self.expect(4, *self.arguments("run", data__path=str(self.dir / "data")))
        self.expect(4, *self.arguments("run", train__max_tokens=3), parts=["max_tokens"])
        self.assertFalse((self.dir / "run" / "config.toml").exists())
        self.expect(0, *self.arguments("run", train__steps=10, model__d_model=8), "--quiet")

    def test_a_folder_with_another_config_toml_is_left_alone(self):
        for number, text in enumerate(("this is = = no TOML", "[server]\nport = 80\n", "")):
            folder = self.dir / f"other{number}"
            folder.mkdir()
            (folder / "config.toml").write_text(text)
            self.expect(5, *self.arguments(folder.name), parts=[folder])
            self.assertEqual([p.name for p in folder.iterdir()], ["config.toml"])
            self.assertEqual((folder / "config.toml").read_text(), text)

    def test_no_space(self):
        # The limit on file sizes stands for a full disk.
        limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (6000, 6000))
        self.train("run", train__steps=20)
        before, checkpoint = self.weights("run"), self.newest("run").name
        self.expect(7, *self.arguments("run", train__steps=60), "--quiet", parts=["safetensors"], preexec_fn=limit)
        self.assertEqual((self.newest("run").name, self.weights("run")), (checkpoint, before))
        self.assertEqual(self.json_of("eval", self.dir / "run")["examples"], 60)
        # A file that grows, before the first checkpoint.
        self.expect(7, *self.arguments("lines", train__log_every=1, train__save_every=1000, train__eval_every=1000), "--quiet", parts=[self.dir / "lines" / "events.out.tfevents"], preexec_fn=limit)
        self.train("run", train__steps=60)
        self.assertEqual(self.newest("run").name, "step-00000060")

    def test_a_model_larger_than_the_machine_is_refused_at_once(self):
        for key, value in (("d_model", 65536), ("max_positions", 10**9)):
            settings = {"model__position": "simple", "model__n_layers": 1024, f"model__{key}": value}
            done = self.expect(7, *self.arguments("large", **settings), parts=["GiB", "model.n_layers = 1024", f"model.{key} = {value}"])
            self.assertIn("parameters", done.stderr)
            self.assertFalse((self.dir / "large").exists())
        # A model whose config asks for what its file has not.
        self.train("run", train__steps=20)
        config = self.dir / "run" / "model" / "config.json"
        config.write_text(json.dumps({**json.loads(config.read_text()), "d_model": 65536, "n_layers": 1024}))
        self.expect(5, "eval", self.dir / "run", parts=["model.safetensors", "parameters"])

    def test_eval_of_what_is_no_model(self):
        self.expect(5, "eval", self.dir)
        self.train("run")
        file = self.dir / "run" / "model" / "model.safetensors"
        file.write_bytes(file.read_bytes()[:-8])
        self.expect(5, "eval", self.dir / "run" / "model", parts=["model.safetensors"])


if __name__ == "__main__":
    unittest.main()
