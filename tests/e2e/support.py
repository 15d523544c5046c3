"""What the end-to-end tests share: running the program, and files to feed it."""

import json
import os
import pathlib
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import unittest

BINARY = os.environ.get("SEQBOAT_BINARY", "build/release/bin/seqboat")
WRITE_RANDOM_MODEL = os.environ.get("SEQBOAT_WRITE_RANDOM_MODEL", "build/release/bin/write_random_model")
SOURCE_DIR = pathlib.Path(os.environ.get("SEQBOAT_SOURCE_DIR", pathlib.Path(__file__).resolve().parents[2]))

# CMake says whether train, eval and bench were built; without CMake the module beside the program does.
HAS_TRAIN = os.environ.get("SEQBOAT_EXPECT_TRAIN", str(int(any(pathlib.Path(BINARY).resolve().parent.parent.glob("lib/libseqboat_train_verbs.so"))))) == "1"

# TensorBoard's own readers are in the Python that tools/test has installed them for.
_VENV_PYTHON = SOURCE_DIR / ".venv/bin/python3"
TENSORBOARD_PYTHON = os.environ.get("SEQBOAT_TENSORBOARD_PYTHON") or (str(_VENV_PYTHON) if _VENV_PYTHON.exists() else sys.executable)

# So is the PyTorch that the references of benchmarks/reference run on.
TORCH_PYTHON = os.environ.get("SEQBOAT_TORCH_PYTHON") or (str(_VENV_PYTHON) if _VENV_PYTHON.exists() else sys.executable)

MODEL_CONFIG = {
    "layer": "seqboat", "encoder": "ema", "input": "tokens", "vocab_size": 20, "channels": 1, "d_model": 8, "d_hidden": 16, "d_attn": 4,
    "d_state": 2, "n_layers": 1, "window_size": 4, "chunk_size": 0, "n_heads": 0, "truncation": 0, "causal": False, "attention": "softmax", "position": "simple",
    "max_positions": 16, "norm": "layernorm", "norm_affine": True, "prenorm": False, "final_norm_affine": True, "embedding_norm": False,
    "sinusoidal": False, "d_embedding": 0, "scale_embedding": False, "tie_embedding": True, "dropout": 0.0, "ffn_dim": 0,
    "router": "tempered-softmax", "temperature_init": 0.3, "router_bias": 0.0, "router_temperature": 1.0, "router_threshold": 0.5, "router_horizon": 256, "rates": [0.5], "task": "classification", "classes": 10, "pool": "mean",
    "nli": False, "classifier_layers": 1, "d_classifier": 0,
}


# What is set on a recipe of ListOps so that a run takes a second or two and has everything that a long one has.
TINY_LISTOPS = {
    "model.d_model": 16, "model.d_hidden": 24, "model.d_attn": 8, "model.d_state": 4, "model.n_layers": 2, "model.window_size": 8,
    "model.max_positions": 64, "model.dropout": 0.1, "task.d_classifier": 16, "router.temperature_init": 1.0,
    "data.min_length": 4, "data.max_length": 40, "data.max_depth": 3, "data.max_args": 4,
    "data.train_examples": 400, "data.valid_examples": 60, "data.test_examples": 60,
    "train.batch_size": 8, "train.steps": 60, "optim.total_steps": 60, "optim.warmup": 5, "train.eval_every": 20, "train.save_every": 10,
    "train.log_every": 5, "train.keep": 2,
}


def parameter_count(c):
    """Counted by hand from the shapes of a post-norm layernorm classifier of tokens with a simple position bias."""
    d, h, z, n = c["d_model"], c["d_hidden"], c["d_attn"], c["d_state"]
    directions = 1 if c["causal"] else 2
    layer = 2 * d + (4 * directions * d * n + d) + (2 * d + 2 + 1) + (d * d + d) + (z + 2 * h) * (d + 1) + d * (h + 1) + 4 * z + 2 * c["max_positions"] - 1
    return c["vocab_size"] * d + c["n_layers"] * layer + (d + 1) * 2 * d + 2 * d * c["classes"]


def safetensors(tensors):
    """Bytes of a file with the given float32 shapes, all zero."""
    header, offset = {}, 0
    for name, shape in tensors.items():
        size = 4
        for extent in shape:
            size *= extent
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + bytes(offset)


def write_model(folder, **changes):
    """A model folder that inspect accepts: one tensor with as many numbers as the config asks for. Returns the config."""
    config = {**MODEL_CONFIG, **changes}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_bytes(safetensors({"everything": [parameter_count(config)]}))
    return config


def wav(samples, rate=8000, channels=1):
    """16-bit PCM; the samples in [-1, 1]."""
    data = b"".join(struct.pack("<h", round(32767 * x)) * channels for x in samples)
    head = struct.pack("<4sI4s4sIHHIIHH4sI", b"RIFF", 36 + len(data), b"WAVE", b"fmt ", 16, 1, channels, rate, 2 * channels * rate, 2 * channels, 16, b"data", len(data))
    return head + data


def random_model(folder, seed=0, **changes):
    """A model folder of random numbers that runs: a causal language model of bytes, but for the changes. Returns the config."""
    config = {**MODEL_CONFIG, "task": "language-model", "causal": True, "vocab_size": 260, "classes": 0, "d_model": 16, "d_hidden": 24, "d_attn": 8, "n_layers": 2,
              "window_size": 8, **changes}
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "wanted.json"
    file.write_text(json.dumps(config))
    done = subprocess.run([WRITE_RANDOM_MODEL, file, folder, str(seed)], capture_output=True, text=True)
    if done.returncode != 0:
        raise AssertionError(f"{WRITE_RANDOM_MODEL}: {done.stderr}")
    file.unlink()
    return config


def scale_tensor(file, name, factor):
    """Multiplies a float32 tensor of a safetensors file in its place, within float32's range."""
    data = bytearray(file.read_bytes())
    size = struct.unpack_from("<Q", data)[0]
    begin, end = (8 + size + offset for offset in json.loads(data[8 : 8 + size])[name]["data_offsets"])
    form = f"<{(end - begin) // 4}f"
    struct.pack_into(form, data, begin, *(max(-3e38, min(3e38, x * factor)) for x in struct.unpack_from(form, data, begin)))
    file.write_bytes(data)


def read_events(folder):
    """What TensorBoard's own readers make of the event files in a folder: see read_events.py. Skips the test where they are not installed, unless
    they must be (SEQBOAT_EXPECT_TENSORBOARD=1)."""
    command = [TENSORBOARD_PYTHON, "-B", "-c", "import importlib.util, sys; sys.exit(importlib.util.find_spec('tensorboard') is None)"]
    if subprocess.run(command).returncode != 0 and os.environ.get("SEQBOAT_EXPECT_TENSORBOARD") != "1":
        raise unittest.SkipTest(f"the Python package tensorboard is not installed for {TENSORBOARD_PYTHON} (tools/test installs it into .venv)")
    done = subprocess.run([TENSORBOARD_PYTHON, "-B", str(pathlib.Path(__file__).with_name("read_events.py")), str(folder)], capture_output=True, text=True)
    if done.returncode != 0:
        raise AssertionError(f"TensorBoard cannot read {folder}:\n{done.stderr}")
    return json.loads(done.stdout)


def torch_python():
    """The Python that has torch. Skips the test where there is none, unless one was named: CMake names the one that it found LibTorch by."""
    command = [TORCH_PYTHON, "-B", "-c", "import importlib.util, sys; sys.exit(importlib.util.find_spec('torch') is None)"]
    if not os.environ.get("SEQBOAT_TORCH_PYTHON") and subprocess.run(command).returncode != 0:
        raise unittest.SkipTest(f"the Python package torch is not installed for {TORCH_PYTHON}; SEQBOAT_TORCH_PYTHON names another Python")
    return TORCH_PYTHON


class CliTest(unittest.TestCase):
    """A test case with a scratch folder and a way to run the program."""

    timeout = 300  # seconds a command may take

    def setUp(self):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="seqboat-e2e-"))
        self.addCleanup(self.remove_dir)

    def remove_dir(self):
        for path in [self.dir, *self.dir.rglob("*")]:
            if path.is_dir() and not path.is_symlink():
                path.chmod(0o755)
        shutil.rmtree(self.dir)

    def run_cli(self, *arguments, env=None, **options):
        environment = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "SEQBOAT_RECIPES")}
        environment["XDG_CACHE_HOME"] = str(self.dir / "cache")
        environment.update(env or {})
        return subprocess.run([BINARY, *map(str, arguments)], capture_output=True, text=True, env=environment, timeout=self.timeout, **options)

    def help_of(self, *words):
        """What --help says of a verb: {"text", "verbs": [names], "options": {"--name": line}}."""
        text = self.expect(0, *words, "--help").stdout
        verbs = re.findall(r"^  ([a-z]\S*)", text.split("Subcommands:\n")[1].split("\n\n")[0], flags=re.MULTILINE) if "Subcommands:\n" in text else []
        listed = text.split("\nOptions:\n")[1].split("\n\n")[0]
        options = {}
        for line in re.findall(r"^  -.*$", listed, flags=re.MULTILINE):
            for name in re.findall(r"(?:^  |,)(--?[\w-]+)", line):
                options[name] = line.strip()
        return {"text": text, "verbs": verbs, "options": options}

    def all_verbs(self, *words):
        """Every verb and verb within a verb, as lists of words: what the program itself lists."""
        found = []
        for verb in self.help_of(*words)["verbs"]:
            found.append([*words, verb])
            found.extend(self.all_verbs(*words, verb))
        return found

    def expect(self, code, *arguments, parts=(), **options):
        """Runs, compares the exit code; on failure demands one line on stderr that holds the parts, and nothing on stdout."""
        done = self.run_cli(*arguments, **options)
        self.assertEqual(done.returncode, code, f"{arguments}\nstdout: {done.stdout}\nstderr: {done.stderr}")
        if code != 0:
            self.assertEqual(done.stdout, "", arguments)
            errors = [line for line in done.stderr.splitlines() if line.startswith("seqboat: error: ")]
            self.assertEqual(len(errors), 1, done.stderr)
            self.assertTrue(done.stderr.endswith(errors[0] + "\n"), done.stderr)
            for part in parts:
                self.assertIn(str(part), errors[0])
        return done

    def json_of(self, *arguments, **options):
        """The one JSON object on one line that --json gives."""
        done = self.expect(0, *arguments, "--json", **options)
        self.assertEqual(done.stdout.count("\n"), 1, done.stdout)
        value = json.loads(done.stdout)
        self.assertIsInstance(value, dict)
        return value
