"""What the padded PyTorch reference (benchmarks/reference) computes, in float64: run by reference_test.py with a Python that has torch.

Reads a JSON list of jobs from stdin and prints the list of their results. A job names `what` it is, and
    eval      model (a folder), data (a ListOps .tsv, or with `block` a file of bytes), optionally `config`: keys to change
    train     model, data, block, optim ([optim] of a recipe), steps
    golden    dir, case
and each may ask for `blocked` attention.
"""

import json
import pathlib
import re
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "benchmarks/reference"))

import torch  # noqa: E402
from model import Model, complete, loss_sum, make_optimizer, read_safetensors, train_step  # noqa: E402
from padded_seqboat import Encoder, GatedAttentionUnit  # noqa: E402

torch.set_default_dtype(torch.float64)
torch.set_num_threads(1)  # on a busy machine the threads of these tiny sums wait for each other
LISTOPS = {word: 4 + i for i, word in enumerate("[MIN [MAX [MED [SM ] 0 1 2 3 4 5 6 7 8 9".split())}


def padded(rows):
    """Rows of unequal length as a batch padded with <pad>, and what of it is real."""
    lengths = torch.tensor([len(row) for row in rows])
    batch = torch.ones(len(rows), int(lengths.max()), dtype=torch.int64)
    for i, row in enumerate(rows):
        batch[i, : len(row)] = torch.tensor(row)
    return batch, torch.arange(batch.shape[1]) < lengths[:, None]


def read_data(path, block):
    """(inputs, real, targets): a class each row, or a byte each step, where a model reads the byte before."""
    if block == 0:
        lines = [line.split("\t") for line in pathlib.Path(path).read_text().splitlines()[1:]]
        inputs, real = padded([[LISTOPS[word] for word in source.split()] for source, _ in lines])
        return inputs, real, torch.tensor([int(label) for _, label in lines])
    tokens = [4 + byte for byte in pathlib.Path(path).read_bytes()]
    starts = range(0, len(tokens), block)
    inputs, real = padded([([2] + tokens)[i : min(i + block, len(tokens))] for i in starts])  # </s> before the first byte
    return inputs, real, padded([tokens[i : i + block] for i in starts])[0]


def load(model, blocked, config=None):
    folder = pathlib.Path(model)
    made = Model(complete({**json.loads((folder / "config.json").read_text()), **(config or {})}), Encoder)
    made.load_state_dict(read_safetensors(folder / "model.safetensors"))
    return with_blocks(made, blocked)


def with_blocks(model, blocked):
    for module in model.modules():
        if isinstance(module, GatedAttentionUnit):
            module.blocked = blocked
    return model


def rates(decisions, real):
    return [active.sum().item() / real.sum().item() for active in decisions]


def evaluate(model, data, block=0, blocked=False, config=None):
    inputs, real, targets = read_data(data, block)
    model = load(model, blocked, config).eval()
    with torch.no_grad():
        logits, decisions = model(inputs, real)
    total, count = loss_sum(logits, targets, real)
    right = logits.argmax(-1) == targets
    right = right.double().mean() if right.dim() == 1 else right[real].double().mean()
    return {"loss": total.item() / count, "accuracy": right.item(), "activation_rate": rates(decisions, real), "examples": len(inputs)}


def train(model, data, optim, steps, block=0, blocked=False):
    inputs, real, targets = read_data(data, block)
    model = load(model, blocked).train()
    optimizer, lines = make_optimizer(optim, model.parameters()), []
    for step in range(1, steps + 1):
        if optim["name"] == "adam":  # torch adds eps to the corrected root of v, the published optimiser (and the program) to the plain one
            optimizer.param_groups[0]["eps"] = optim["eps"] / (1 - optim["betas"][1] ** step) ** 0.5
        loss, norm, decisions = train_step(model, optimizer, optim["clip_norm"], inputs, targets, real)
        lines.append({"loss": loss, "grad_norm": norm, "activation_rate": rates(decisions, real)})
    return lines


# Names of the published implementation, as the stored cases have them, and ours.
OURS = [
    (r"encoder\.encoder\.layers\.(\d+)\.mega_layer\.", r"encoder.layers.\1.layer."), (r"layer\.gamma$", "layer.attention.qk_gamma"), (r"layer\.beta$", "layer.attention.qk_beta"),
    (r"rel_pos_bias\.rel_pos_bias", "attention.position.table"), (r"q_router\.temp", "router.log_temperature"), (r"mx_proj", "attention.in_proj"),
    (r"h_proj\.", "attention.out_proj."), (r"\.move\.", ".ema."), (r"norm\.norm\.", "norm."), (r"norm\.scalar$", "norm.weight"),
    (r"encoder\.encoder\.final_norm", "encoder.final_norm"), (r"classifier\.(\d+)\.0\.", r"classifier.hidden.\1."), ("sentence_projection_layer", "classifier.out"),
    (r"encoder\.encoder\.embed_tokens\.(embed\.)?", "embedding."), (r"encoder\.encoder\.pos_emb", "positions"),
]


def our_names(tensors):
    """hx_proj holds the router's two rows and then the skip's; the rest is one for one."""
    out = {}
    for name, tensor in tensors.items():
        for pattern, ours in OURS:
            name = re.sub(pattern, ours, name)
        if "hx_attention.out_proj" in name:
            name = name.replace("hx_attention.out_proj", "hx_proj")
        if "hx_proj" in name:
            out[name.replace("hx_proj", "router.proj")], out[name.replace("hx_proj", "skip_proj")] = tensor[:2], tensor[2:]
        else:
            out[name] = tensor
    return out


def golden(dir, case, blocked=False):
    """Largest differences from the stored float64 output, loss and gradients, relative to the largest number there; decisions that differ."""
    stored, tensors = json.loads((pathlib.Path(dir) / f"{case}.json").read_text()), read_safetensors(pathlib.Path(dir) / f"{case}.safetensors")
    part = lambda prefix: our_names({key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)})
    k, weights, inputs = stored["config"], {**part("param."), **part("buffer.")}, tensors["input.tokens"]
    numbers = inputs.is_floating_point()
    config = complete(dict(
        input="real" if numbers else "tokens", vocab_size=stored["vocab"] or 0, d_model=k["encoder_embed_dim"], d_hidden=k["encoder_hidden_dim"], d_attn=k["z_dim"], d_state=k["n_dim"],
        n_layers=k["encoder_layers"], window_size=k["chunk_size"], truncation=k["truncation_length"], max_positions=k["max_positions"], norm=k["norm_type"].removeprefix("sync"),
        prenorm=k["encoder_normalize_before"], attention=k["attention_activation_fn"], position="local" if k["local_pos"] else k["rel_pos_bias"],
        sinusoidal="positions.scale" in weights, temperature_init=k["init_temp_scale"], classes=k["sentence_class_num"], classifier_layers=k["classifier_layers"],
        d_classifier=k["classifier_out_dim"]))
    model = with_blocks(Model(config, Encoder), blocked).train(stored["train"])
    shapes = model.state_dict()
    model.load_state_dict({key: value.reshape(shapes[key].shape) for key, value in weights.items() if key in shapes})
    if config.sinusoidal:
        model.positions.inv_freq = weights["positions.inv_freq"].double()  # numbers of float32 in the stored runs, too
    real = torch.arange(inputs.shape[1]) < tensors["input.lengths"][:, None]
    logits, decisions = model(inputs.double()[..., None] if numbers else inputs, None if real.all() else real)
    loss, _ = loss_sum(logits, tensors["input.target"])
    loss.backward()
    off = lambda a, b: (a.reshape(b.shape) - b).abs().max().item()
    gradients, wanted = {key: p.grad for key, p in model.named_parameters()}, part("grad.param.")
    return {
        "out": off(logits, tensors["out.f64"]) / tensors["out.f64"].abs().max().item(), "loss": off(loss, tensors["loss.f64"]) / loss.item(),
        "grad": max(off(gradients[key], value) for key, value in wanted.items()) / max(value.abs().max().item() for value in wanted.values()),
        "gradients_missing": sorted(set(gradients) - set(wanted)),
        "decisions": sum((decisions[i] != tensors[f"router.encoder.encoder.layers.{i}.mega_layer.active"].bool()).sum().item() for i in range(config.n_layers))}


if __name__ == "__main__":
    doing = {"eval": evaluate, "train": train, "golden": golden}
    print(json.dumps([doing[job.pop("what")](**job) for job in json.load(sys.stdin)]))
