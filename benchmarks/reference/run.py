#!/usr/bin/env python3
"""Times a training step or a forward pass of one of the two PyTorch references, on random data; the counterpart of `seqboat bench`.

    benchmarks/reference/run.py --model padded --recipe recipes/bench/listops.toml --mode train --activation-rate 0.25 --threads 2

Models: padded (SeqBoat, dense score matrices), blocked (the same with the score matrix cut into the window's blocks), transformer (SDPA). Prints one JSON object. PyTorch runs
as it comes, but for denormals, which are flushed to zero. The memory added is the peak of the resident set over what it was with the model built, so it holds activations,
gradients and the optimiser's state. Exit codes as the program's: 2 wrong usage, 3 a recipe that the references do not know, 7 out of memory.
"""

import argparse
import json
import pathlib
import resource
import statistics
import sys
import time
import tomllib

sys.dont_write_bytecode = True
ROOT = pathlib.Path(__file__).resolve().parents[2]
MODELS = ("padded", "blocked", "transformer")


class Failure(Exception):
    def __init__(self, code, message):
        super().__init__(message)
        self.code = code


def read_recipe(name, settings):
    """Sections of a recipe, a file or a name under recipes/, with section.key=value set on top."""
    file = next((f for f in (pathlib.Path(name), ROOT / "recipes" / f"{name}.toml") if f.is_file()), None)
    if file is None:
        raise Failure(2, f"no recipe {name!r}: expected a .toml file or a name under {ROOT / 'recipes'}")
    try:
        recipe = tomllib.loads(file.read_text())
        for setting in settings:
            name, equals, value = setting.partition("=")
            section, dot, key = name.partition(".")
            if not (equals and dot):
                raise Failure(2, f"--set {setting}: expected section.key=value")
            try:
                value = tomllib.loads(f"value = {value}")["value"]
            except tomllib.TOMLDecodeError:
                pass  # a bare word
            recipe.setdefault(section, {})[key] = value
    except tomllib.TOMLDecodeError as error:
        raise Failure(3, f"{file}: {error}") from None
    return recipe


def model_config(recipe):
    """The keys of config.json: [model], what [router] decides of it, and [task]."""
    router, task = recipe.get("router", {}), recipe.get("task", {})
    config = {**recipe.get("model", {}), **{k: v for k, v in task.items() if k not in ("kind", "auxiliary_weight")}}
    config["task"] = task.get("kind", "classification")
    config.update({ours: router[theirs] for ours, theirs in (("temperature_init", "temperature_init"), ("router_bias", "bias")) if theirs in router})
    if config.get("input", "tokens") == "tokens" and not config.get("vocab_size"):
        config["vocab_size"] = {"listops": 20, "bytes": 260}.get(recipe.get("data", {}).get("name"), 0)
    return config


def optim_config(recipe):
    return {"name": "adam", "lr": 1e-3, "betas": [0.9, 0.98], "eps": 1e-8, "weight_decay": 0.0, "clip_norm": 1.0, **recipe.get("optim", {})}


def batch_and_length(recipe, batch, length):
    data = recipe.get("data", {})
    at = {"synthetic": "length", "bytes": "block_length", "listops": "max_length"}.get(data.get("name", "listops"), "length")
    batch, length = batch or recipe.get("train", {}).get("batch_size", 0), length or data.get(at, 0)
    if batch <= 0 or length <= 0:
        raise Failure(3, f"the recipe must name train.batch_size and data.{at}, or --batch and --length must; found {batch} and {length}")
    return batch, length


def forced_decisions(torch, rate, layers, batch, length, seed):
    """Each layer's (B, T) decisions, the same that `seqboat bench` forces: Philox 4x32-10 of (seed, layer, token), activated where it is below the rate."""
    tokens, out, low = batch * length, [], 0xFFFFFFFF
    block = torch.arange((tokens + 3) // 4, dtype=torch.int64)
    for layer in range(layers):
        words, keys = [block & low, block >> 32, torch.full_like(block, layer), torch.full_like(block, 0x66726364)], [seed & low, seed >> 32]
        for _ in range(10):
            first, second = words[0] * 0xD2511F53, words[2] * 0xCD9E8D57  # the upper halves of the products are right though they wrap around
            words = [(second >> 32 & low) ^ words[1] ^ keys[0], second & low, (first >> 32 & low) ^ words[3] ^ keys[1], first & low]
            keys = [keys[0] + 0x9E3779B9 & low, keys[1] + 0xBB67AE85 & low]
        out.append((torch.stack(words, 1).flatten()[:tokens] < rate * 2**32).view(batch, length))
    return out


def resident_bytes(what):
    """VmRSS or VmHWM, the peak since reset_peak(); where there is no /proc, the peak of the process."""
    try:
        for line in pathlib.Path("/proc/self/status").read_text().splitlines():
            if line.startswith(what + ":"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def reset_peak():
    try:
        pathlib.Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        pass  # the peak then holds the start, too


def measure(arguments):
    recipe = read_recipe(arguments.recipe, arguments.set)
    batch, length = batch_and_length(recipe, arguments.batch, arguments.length)
    try:
        import torch
    except ImportError:
        raise Failure(1, f"the Python package torch is not installed for {sys.executable}") from None
    import padded_seqboat
    import sdpa_transformer
    from model import Model, complete, make_optimizer, train_step

    torch.set_num_threads(arguments.threads)
    torch.set_flush_denormal(True)
    torch.manual_seed(arguments.seed)
    try:
        c = complete(model_config(recipe))
        model = Model(c, sdpa_transformer.Encoder if arguments.model == "transformer" else padded_seqboat.Encoder)
        optim = optim_config(recipe)
        optimizer = make_optimizer(optim, model.parameters()) if arguments.mode == "train" else None
    except (ValueError, AttributeError) as error:
        raise Failure(3, f"{arguments.recipe}: {error}") from None
    for module in model.modules():
        if isinstance(module, padded_seqboat.GatedAttentionUnit):
            module.blocked = arguments.model == "blocked"
    model.train(arguments.mode == "train")
    inputs = torch.randint(4, c.vocab_size, (batch, length)) if c.input == "tokens" else torch.randn(batch, length, c.channels)
    targets = torch.randint(4, c.vocab_size, (batch, length)) if c.task == "language-model" else torch.randint(c.classes, (batch,))
    forced = None if arguments.activation_rate is None else forced_decisions(torch, arguments.activation_rate, c.n_layers, batch, length, recipe.get("train", {}).get("seed", 1))

    def step():
        if arguments.mode == "train":
            return train_step(model, optimizer, optim["clip_norm"], inputs, targets, forced=forced)[2]
        with torch.no_grad():
            return model(inputs, forced=forced)[1]

    reset_peak()
    before, times, begin = resident_bytes("VmRSS"), [], time.perf_counter()
    step()  # the first one warms up: its pages are fresh and its tables new
    while len(times) < arguments.repetitions and (len(times) < 2 or time.perf_counter() - begin < arguments.seconds):
        start = time.perf_counter()
        decisions = step()
        times.append(1000 * (time.perf_counter() - start))
    peak = resident_bytes("VmHWM")
    return {
        "model": arguments.model, "mode": arguments.mode, "recipe": arguments.recipe, "batch": batch, "length": length, "threads": arguments.threads,
        "params": sum(p.numel() for p in model.parameters()), "activation_rate": [active.float().mean().item() for active in decisions],
        "tokens_per_s": 1000 * batch * length / min(times), "ms": {"min": min(times), "median": statistics.median(times)}, "repetitions": len(times),
        "added_rss_bytes": max(0, peak - before), "peak_rss_bytes": peak, "torch": torch.__version__}


def main():
    parser = argparse.ArgumentParser(description="Times a PyTorch reference on random data and prints one JSON object.")
    parser.add_argument("--model", required=True, choices=MODELS)
    parser.add_argument("--recipe", required=True, help="a .toml file, or a name under recipes/")
    parser.add_argument("--set", action="append", default=[], metavar="section.key=value", help="sets a key of the recipe; repeatable")
    parser.add_argument("--mode", choices=("train", "forward"), default="train", help="a whole update, or the forward pass of evaluation")
    parser.add_argument("--activation-rate", type=float, help="share of tokens activated, chosen by the hash that seqboat bench uses; without it the router decides")
    parser.add_argument("--batch", type=int, default=0, help="sequences; default: train.batch_size")
    parser.add_argument("--length", type=int, default=0, help="steps a sequence; default: data.length")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repetitions", type=int, default=5, help="at most; at least two")
    parser.add_argument("--seconds", type=float, default=20, help="no further repetition begins after so long")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    try:
        print(json.dumps(measure(arguments)))
    except Failure as failure:
        print(f"run.py: error: {failure}", file=sys.stderr)
        return failure.code
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, RuntimeError) and "memory" not in str(error):
            raise
        print(f"run.py: error: out of memory: {str(error).splitlines()[0] if str(error) else 'no more is to be had'}", file=sys.stderr)
        return 7
    return 0


if __name__ == "__main__":
    sys.exit(main())
