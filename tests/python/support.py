"""What the tests of the Python module share. They run by a Python that has torch; SEQBOAT_OPS_LIBRARY names the operators' library."""

import json
import pathlib
import sys

sys.dont_write_bytecode = True
SOURCE_DIR = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(SOURCE_DIR / "python"), str(SOURCE_DIR / "benchmarks/reference")]

import torch  # noqa: E402
from model import read_safetensors  # noqa: E402
import seqboat_torch as sbt  # noqa: E402

torch.set_num_threads(1)  # on a busy machine the threads of these tiny sums wait for each other
GOLDEN = SOURCE_DIR / "tests/golden/official"


def make_layer(seed=0, dtype=torch.float32, **options):
    """A layer with weights all over the place: those that a layer begins with make of attention next to nothing."""
    torch.manual_seed(seed)
    layer = sbt.SeqBoatLayer(**{**dict(d_model=16, d_attn=6, d_hidden=20, d_state=4, window_size=5, max_positions=40), **options}).to(dtype)
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            parameter += (0.1 if "log_temperature" in name else 0.4) * torch.randn_like(parameter)
    return layer


def gradients(layer, y, *inputs):
    """Of a loss that weighs every number of y differently: by the inputs and by every parameter, in one list."""
    weights = torch.cos(torch.arange(y.numel(), dtype=y.dtype)).view(y.shape)
    return list(torch.autograd.grad((y * weights).sum(), [*inputs, *layer.parameters()]))


def largest_error(got, want):
    """Largest difference over the largest magnitude wanted of all (at least 1e-30), so that a number near zero counts with its neighbours."""
    pairs = list(zip(got, want, strict=True))
    scale = max([1e-30, *(w.abs().max().item() for _, w in pairs if w.numel())])
    return max([0.0, *((g - w).abs().max().item() for g, w in pairs if w.numel())]) / scale


def golden_cases(kind):
    """Names of the stored cases of a kind that show no deliberate difference (spec of tests/golden)."""
    cases = json.loads((GOLDEN / "manifest.json").read_text())["cases"]
    return [case["case"] for case in cases if case["kind"] == kind and not case["official_artefact"]]


def read_golden(name):
    return json.loads((GOLDEN / f"{name}.json").read_text()), read_safetensors(GOLDEN / f"{name}.safetensors")
