"""The padded PyTorch reference of benchmarks/ computes what the program computes, from the same weights: losses and decisions of evaluation, losses,
gradient norms and decisions of training. The reference runs in float64, so a difference is the rounding of our float32."""

import array
import json
import pathlib
import random
import struct
import subprocess
import unittest

from support import HAS_TRAIN, SOURCE_DIR, CliTest, torch_python

# A loss is a mean over examples of logits that went through some hundred roundings of 2^-24 each, of either sign: they add up like the root of their number.
LOSS = 10 * 2**-24
GRAD_NORM = 4 * LOSS

TINY = {
    "model.d_model": 16, "model.d_hidden": 24, "model.d_attn": 8, "model.d_state": 4, "model.n_layers": 2, "model.window_size": 6, "model.max_positions": 12, "model.dropout": 0.0,
    "model.truncation": 0, "router.temperature_init": 1.0, "optim.schedule": "constant", "optim.warmup": 0, "optim.warmup_init_lr": 0, "optim.total_steps": 0, "optim.weight_decay": 0.01,
    "train.batch_size": 8, "train.accumulate": 1, "train.log_every": 1, "train.eval_every": 0, "train.save_every": 0, "train.keep": 1,
}
LISTOPS = {
    **TINY, "task.d_classifier": 16, "data.min_length": 4, "data.max_length": 60, "data.max_depth": 4, "data.max_args": 4, "data.train_examples": 40, "data.valid_examples": 20, "data.test_examples": 40,
}
BYTES = {**TINY, "data.block_length": 32, "data.valid_share": 0.25, "data.test_share": 0.25, "data.context": 0}

CLASSIFIERS = {
    "layernorm after, bias by distance in time, truncated": {"model.truncation": 9},
    "layernorm before, relu2": {"model.prenorm": True, "model.attention": "relu2"},
    "scalenorm after, bias by distance among the activated, truncated": {"model.norm": "scalenorm", "model.position": "local", "model.truncation": 5},
    "rmsnorm before, laplace, sines": {"model.norm": "rmsnorm", "model.prenorm": True, "model.attention": "laplace", "model.sinusoidal": True},
    "batchnorm before, relu2, local, sines, truncated": {
        "model.norm": "batchnorm", "model.prenorm": True, "model.attention": "relu2", "model.position": "local", "model.sinusoidal": True, "model.truncation": 7},
    "batchnorm after, rotary": {"model.norm": "batchnorm", "model.position": "rotary"},
    "no window, softmax": {"model.window_size": 0},
    "no window, relu2": {"model.window_size": 0, "model.attention": "relu2"},
    "norm of the embedding, without numbers of its own": {"model.embedding_norm": True, "model.norm_affine": False},
    "feed-forward, two layers of classifier, bias of the router": {"model.ffn_dim": 20, "task.classifier_layers": 2, "router.bias": 0.2},
    "everything activated": {"model.layer": "seqboat-full"},
}
LANGUAGE_MODELS = {
    "rotary": {},
    "rotary, truncated, scalenorm after": {"model.truncation": 9, "model.norm": "scalenorm", "model.prenorm": False},
    "relu2, bias by distance in time, own output matrix, narrow embedding": {
        "model.attention": "relu2", "model.position": "simple", "model.tie_embedding": False, "model.d_embedding": 10, "model.final_norm_affine": True},
    "relu2, local, batchnorm": {"model.attention": "relu2", "model.position": "local", "model.norm": "batchnorm"},
    "no window, laplace": {"model.window_size": 0, "model.attention": "laplace"},
}


# A recipe for benchmarks/reference/run.py: every other key has its default.
RECIPE = """
[model]
vocab_size = 20
d_model = 32
d_attn = 8
n_layers = 2
window_size = 8
dropout = 0.1
[task]
classes = 10
[data]
name = "synthetic"
length = 64
[train]
batch_size = 3
"""


class TimingTheReferences(CliTest):
    @classmethod
    def setUpClass(cls):
        cls.python = torch_python()

    def run_reference(self, code, *words):
        (self.dir / "tiny.toml").write_text(RECIPE)
        script = SOURCE_DIR / "benchmarks/reference/run.py"
        done = subprocess.run([self.python, "-B", str(script), *map(str, words)], capture_output=True, text=True, timeout=self.timeout)
        self.assertEqual(done.returncode, code, done.stderr)
        return json.loads(done.stdout) if code == 0 else done.stderr

    def test_what_is_printed(self):
        for model, mode, more in (("padded", "train", ()), ("blocked", "forward", ()), ("transformer", "train", ()), ("padded", "forward", ("--set", "task.kind=language-model", "--set", "model.causal=true"))):
            rate = () if model == "transformer" else ("--activation-rate", 0.25)
            got = self.run_reference(0, "--model", model, "--recipe", self.dir / "tiny.toml", "--mode", mode, "--repetitions", 2, *rate, *more)
            self.assertEqual((got["model"], got["mode"], got["batch"], got["length"], got["threads"], got["repetitions"]), (model, mode, 3, 64, 1, 2))
            self.assertLess(0, got["ms"]["min"])
            self.assertLessEqual(got["ms"]["min"], got["ms"]["median"])
            self.assertAlmostEqual(got["tokens_per_s"] * got["ms"]["min"] / 1000, 192, places=6)
            self.assertGreater(got["added_rss_bytes"], 0)
            self.assertEqual(len(got["activation_rate"]), 0 if model == "transformer" else 2)
            for active in got["activation_rate"]:
                self.assertLess(abs(active - 0.25), 0.15)
                self.assertAlmostEqual(active * 192, round(active * 192), places=4)
        self.assertEqual(len(set(got["activation_rate"])), 2)  # each layer decides by itself

    def test_the_same_tokens_are_activated_as_by_bench(self):
        if not HAS_TRAIN or "bench" not in self.help_of()["verbs"]:
            self.skipTest("this program has no verb bench")
        (self.dir / "tiny.toml").write_text(RECIPE)
        options = ("--recipe", self.dir / "tiny.toml", "--mode", "train", "--activation-rate", 0.3, "--threads", 1)
        ours = self.json_of("bench", *options, "--set", "optim.lr=0.001", "--set", "train.steps=1", "--quiet")
        theirs = self.run_reference(0, "--model", "padded", *options)
        self.assertEqual((ours["params"], ours["batch"], ours["length"]), (theirs["params"], theirs["batch"], theirs["length"]))
        for a, b in zip(ours["activation_rate"], theirs["activation_rate"], strict=True):
            self.assertAlmostEqual(a, b, places=6)

    def test_what_is_refused(self):
        common = ("--model", "padded", "--recipe", self.dir / "tiny.toml")
        self.assertIn("no recipe 'nothing'", self.run_reference(2, "--model", "padded", "--recipe", "nothing"))
        self.assertIn("--set a=1: expected section.key=value", self.run_reference(2, *common, "--set", "a=1"))
        self.assertIn("position = simple or local or rotary, found t5", self.run_reference(3, *common, "--set", "model.position=t5"))
        self.assertIn("data.length", self.run_reference(3, *common, "--set", "data.length=0"))


@unittest.skipUnless(HAS_TRAIN, "this build has no LibTorch: no train, no eval")
class Reference(CliTest):
    @classmethod
    def setUpClass(cls):
        cls.python = torch_python()

    def reference(self, jobs):
        script = pathlib.Path(__file__).with_name("reference_values.py")
        text = json.dumps(jobs, default=str)
        done = subprocess.run([self.python, "-B", str(script)], input=text, capture_output=True, text=True, timeout=self.timeout)
        self.assertEqual(done.returncode, 0, done.stderr)
        return json.loads(done.stdout)

    def train(self, name, recipe, settings, *arguments):
        words = ["train", recipe, "--out", self.dir / name, "--threads", 1, "--quiet", *arguments]
        for key, value in settings.items():
            words += ["--set", f"{key}={json.dumps(value) if not isinstance(value, str) else value}"]
        self.expect(0, *words)
        return self.dir / name

    def untrained(self, name, recipe, settings, *arguments):
        """A run's folder whose exported model has weights all over the place: those that a model begins with make of attention next to nothing."""
        run = self.train(name, recipe, {**settings, "optim.lr": 1e-30, "train.steps": 1}, *arguments)
        file, draw = run / "model" / "model.safetensors", random.Random(1)
        content = bytearray(file.read_bytes())
        begin = 8 + struct.unpack("<Q", content[:8])[0]
        for tensor, entry in sorted(json.loads(content[8:begin]).items()):
            if tensor == "__metadata__" or entry["dtype"] != "F32" or tensor.endswith("inv_freq"):
                continue
            place = slice(begin + entry["data_offsets"][0], begin + entry["data_offsets"][1])
            numbers = array.array("f", content[place])
            spread = 0.1 if "running_var" in tensor or "log_temperature" in tensor else 0.5
            content[place] = array.array("f", [number + spread * draw.uniform(-1, 1) for number in numbers]).tobytes()
        file.write_bytes(content)
        return run

    def text(self, size):
        """Bytes that go on differently each time."""
        file = self.dir / f"text-{size}"
        file.write_text("".join(f"{i} times {i} is {i * i}; " for i in range(size))[:size])
        return file

    def listops_file(self, split):
        return next((self.dir / "cache").rglob(f"basic_{split}.tsv"))

    def assert_close(self, ours, theirs, tolerance, what):
        self.assertLessEqual(abs(ours - theirs), tolerance * max(1.0, abs(theirs)), f"{what}: {ours} and {theirs}")

    def test_evaluation(self):
        jobs, ours, names = [], [], []
        for name, changes in CLASSIFIERS.items():
            run = self.untrained(f"classifier-{len(names)}", "lra/listops", {**LISTOPS, **changes})
            ours.append(self.json_of("eval", run, "--threads", 1))
            jobs.append({"what": "eval", "model": run / "model", "data": self.listops_file("test")})
            names.append(name)
        file = self.text(1500)
        for name, changes in LANGUAGE_MODELS.items():
            run = self.untrained(f"language-model-{len(names)}", "lm/bytes-small", {**BYTES, **changes}, "--data", file)
            # 1500 is no multiple of 32: the last block is shorter than the others.
            ours.append(self.json_of("eval", run, "--threads", 1, "--set", "data.valid_share=0", "--set", "data.test_share=1"))
            jobs.append({"what": "eval", "model": run / "model", "data": file, "block": 32})
            names.append(name)
        plain = self.reference(jobs)
        blocked = self.reference([{**job, "blocked": True} for job in jobs])
        routed = 0
        for name, our, dense, blocks in zip(names, ours, plain, blocked):
            for theirs in (dense, blocks):
                self.assertEqual(our["examples"], theirs["examples"], name)
                self.assert_close(our["loss"], theirs["loss"], LOSS, name)
                self.assertEqual(len(our["activation_rate"]), len(theirs["activation_rate"]), name)
                for i, rate in enumerate(our["activation_rate"]):
                    self.assert_close(rate, theirs["activation_rate"][i], 1e-12, f"{name}, activation of layer {i}")
            if our["metric"] == "accuracy":
                self.assert_close(our["value"], dense["accuracy"], 1e-12, name)
            routed += sum(0.02 < rate < 0.98 for rate in our["activation_rate"])
        self.assertGreater(routed, len(names))  # most routers tell steps apart; else nothing would be seen of gathering and windows

    def test_another_model_is_noticed(self):
        run = self.untrained("a", "lra/listops", {**LISTOPS, "model.truncation": 9, "model.prenorm": True, "model.attention": "relu2"})
        ours = self.json_of("eval", run, "--threads", 1)
        changes = [{}, {"truncation": 10}, {"truncation": 0}, {"window_size": 7}, {"attention": "laplace"}, {"router_bias": 0.05}, {"pool": "first"}]
        job = {"what": "eval", "model": run / "model", "data": self.listops_file("test")}
        same, *others = self.reference([{**job, "config": change} for change in changes])
        self.assert_close(ours["loss"], same["loss"], LOSS, "the same model")
        for change, other in zip(changes[1:], others):
            self.assertGreater(abs(ours["loss"] - other["loss"]), 4 * LOSS, change)

    def test_training(self):
        """Whole data in each batch, so that their order does not matter. The initial weights are those after an update with next to no learning rate. eps is
        large: with a small one Adam makes a whole step of a gradient that is nothing but rounding."""
        file, jobs, names, runs = self.text(400), [], [], []
        data = {"data.train_examples": 8}
        cases = {
            "adam": ("lra/listops", {**LISTOPS, **data}, ()),
            "adam, batchnorm, relu2": ("lra/listops", {**LISTOPS, **data, **CLASSIFIERS["batchnorm before, relu2, local, sines, truncated"]}, ()),
            "radam, language model": ("lm/bytes-small", {**BYTES, "train.batch_size": 7}, ("--data", file)),  # 200 bytes to train on: six blocks and a quarter
        }
        (self.dir / "part").write_bytes(file.read_bytes()[:200])
        for name, (recipe, settings, arguments) in cases.items():
            begin = self.train(f"begin-{len(names)}", recipe, {**settings, "optim.lr": 1e-30, "train.steps": 1}, *arguments)
            run = self.train(f"run-{len(names)}", recipe, {**settings, "optim.lr": 1e-3, "optim.clip_norm": 0.25, "optim.eps": 1e-4, "train.steps": 8}, *arguments)
            runs.append([line for line in map(json.loads, (run / "metrics.jsonl").read_text().splitlines()) if "split" not in line])
            optim = {"name": name.split(",")[0], "lr": 1e-3, "betas": [0.9, 0.98], "eps": 1e-4, "weight_decay": 0.01, "clip_norm": 0.25}
            on = {"data": self.dir / "part", "block": 32} if arguments else {"data": self.listops_file("train")}
            jobs.append({"what": "train", "model": begin / "model", "optim": optim, "steps": 8, **on})
            names.append(name)
        for name, ours, theirs in zip(names, runs, self.reference(jobs)):
            self.assertEqual(len(ours), len(theirs))
            for step, (our, their) in enumerate(zip(ours, theirs), 1):
                what = f"{name}, update {step}"
                self.assert_close(our["loss"], their["loss"], LOSS, f"{what}, loss")
                self.assert_close(our["grad_norm"], their["grad_norm"], GRAD_NORM, f"{what}, gradient norm")
                self.assertEqual(len(our["activation_rate"]), len(their["activation_rate"]))
                for rate, other in zip(our["activation_rate"], their["activation_rate"]):
                    self.assert_close(rate, other, 1e-12, f"{what}, activation")
            self.assertGreater(abs(ours[-1]["loss"] - ours[0]["loss"]), 1e-3)

    def test_stored_cases_of_the_published_implementation(self):
        """What the program's own data sets cannot feed: real numbers (images, speech). golden_check holds the program to the same numbers."""
        cases = ["model_listops", "model_text", "model_image", "model_image_eval", "model_pathfinder", "model_pathx", "model_sc"]
        folder = SOURCE_DIR / "tests/golden/official"
        jobs = [{"what": "golden", "dir": folder, "case": case, "blocked": blocked} for case in cases for blocked in (False, True)]
        for job, found in zip(jobs, self.reference(jobs)):
            self.assertEqual((found["decisions"], found["gradients_missing"]), (0, []), job)
            for key in ("out", "loss", "grad"):
                self.assertLess(found[key], 1e-9, (job, key))


if __name__ == "__main__":
    unittest.main()
