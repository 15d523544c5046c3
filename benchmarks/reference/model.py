"""What the two references share: a model's config, its weights, norms, embedding, heads, loss and optimiser.

A model takes the keys of a model's config.json, and its parameters have the names of model.safetensors, so that
`model.load_state_dict(read_safetensors(file))` is all that loading takes. Rows of a batch are padded at their end; `real` (B, T) tells what is no padding, None that there
is none.
"""

import json
import math
import struct
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch import nn

DEFAULTS = dict(
    layer="seqboat", encoder="ema", input="tokens", vocab_size=0, channels=1, d_hidden=0, d_state=16, window_size=0, truncation=0, causal=False,
    attention="softmax", position="simple", max_positions=1024, norm="layernorm", norm_affine=True, prenorm=False, final_norm_affine=True,
    embedding_norm=False, sinusoidal=False, d_embedding=0, scale_embedding=False, tie_embedding=True, dropout=0.0, ffn_dim=0,
    temperature_init=0.3, router_bias=0.0, task="classification", classes=0, pool="mean", classifier_layers=1, d_classifier=0)


def complete(config):
    """A config.json's keys as attributes, with defaults; what this file does not know is refused."""
    c = SimpleNamespace(**{**DEFAULTS, **config})
    c.d_hidden, c.d_classifier, c.d_embedding = c.d_hidden or 2 * c.d_model, c.d_classifier or 2 * c.d_model, c.d_embedding or c.d_model
    known = dict(layer=("seqboat", "seqboat-full"), encoder=("ema",), position=("simple", "local", "rotary"), task=("classification", "language-model"))
    for key, values in known.items():
        if getattr(c, key) not in values:
            raise ValueError(f"the padded reference knows {key} = {' or '.join(values)}, found {getattr(c, key)}")
    return c


def read_safetensors(path):
    """{name: tensor}. A file is the header's length (8 bytes), the header (JSON), the numbers."""
    dtypes = {"F32": torch.float32, "F64": torch.float64, "I64": torch.int64, "U8": torch.uint8}
    with open(path, "rb") as file:
        content = bytearray(file.read())
    begin = 8 + struct.unpack("<Q", content[:8])[0]
    tensors = {}
    for name, entry in json.loads(content[8:begin]).items():
        if name != "__metadata__":
            numbers = content[begin + entry["data_offsets"][0] : begin + entry["data_offsets"][1]]
            tensors[name] = torch.frombuffer(numbers, dtype=dtypes[entry["dtype"]]).reshape(entry["shape"])
    return tensors


def parameter(*shape, std=0.0, value=0.0):
    """Normal numbers cut at two standard deviations, or a constant."""
    tensor = torch.full(shape, value)
    return nn.Parameter(nn.init.trunc_normal_(tensor, std=std, a=-2 * std, b=2 * std) if std > 0 else tensor)


def linear(inputs, outputs):
    """y = W x + b with W as SeqBoat's projections begin."""
    layer = nn.Linear(inputs, outputs)
    nn.init.trunc_normal_(layer.weight, std=0.02, a=-0.04, b=0.04)
    nn.init.zeros_(layer.bias)
    return layer


class Norm(nn.Module):
    """layernorm (x - mean) / sqrt(var + eps); scalenorm and rmsnorm x / sqrt(mean(x^2) + eps); batchnorm by channel, over real steps alone."""

    def __init__(self, kind, width, affine=True):
        super().__init__()
        self.kind, self.weight, self.bias = kind, None, None
        if affine:
            self.weight = parameter(1 if kind == "scalenorm" else width, value=1.0)
        if affine and kind in ("layernorm", "batchnorm"):
            self.bias = parameter(width)
        if kind == "batchnorm":
            self.register_buffer("running_mean", torch.zeros(width))
            self.register_buffer("running_var", torch.ones(width))
            self.register_buffer("num_batches_tracked", torch.zeros((), dtype=torch.int64))

    def forward(self, x, real):
        if self.kind == "layernorm":
            return F.layer_norm(x, x.shape[-1:], self.weight, self.bias, 1e-5)
        if self.kind != "batchnorm":
            y = F.rms_norm(x, x.shape[-1:], None, 1e-5)
            return y if self.weight is None else y * self.weight
        if self.training:
            self.num_batches_tracked += 1
        rows = x.flatten(0, 1) if real is None else x[real]
        rows = F.batch_norm(rows, self.running_mean, self.running_var, self.weight, self.bias, self.training, 0.1, 1e-5)
        return rows.view_as(x) if real is None else torch.zeros_like(x).masked_scatter(real[..., None], rows)


class TokenEmbedding(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(c.vocab_size, c.d_embedding) * c.d_embedding**-0.5)
        if c.task == "language-model":
            self.weight.data[1].zero_()  # <pad>

    def forward(self, tokens):
        return F.embedding(tokens, self.weight)


class RealEmbedding(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(c.d_model, c.channels)), nn.Parameter(torch.randn(c.d_model) * 0.1)

    def forward(self, values):
        return F.linear(values, self.weight, self.bias)


class SinusoidalPositions(nn.Module):
    """x + scale [sin(t f_i), cos(t f_i)], f_i = 10000^(-2i/D)."""

    def __init__(self, width):
        super().__init__()
        self.scale = parameter(1, value=width**-0.5)
        self.register_buffer("inv_freq", 10000.0 ** (-torch.arange(0, width, 2) / width))

    def forward(self, x):
        angle = torch.arange(x.shape[1], dtype=x.dtype)[:, None] * self.inv_freq.to(x.dtype)
        return x + self.scale * torch.cat((angle.sin(), angle.cos()), -1)


class Classifier(nn.Module):
    def __init__(self, c):
        super().__init__()
        widths = [c.d_model] + [c.d_classifier] * c.classifier_layers
        self.hidden = nn.ModuleList(nn.Linear(a, b) for a, b in zip(widths, widths[1:]))
        self.out, self.dropout = nn.Linear(widths[-1], c.classes, bias=False), c.dropout
        for layer in [*self.hidden, self.out]:
            nn.init.xavier_uniform_(layer.weight)
        for layer in self.hidden:
            nn.init.zeros_(layer.bias)

    def forward(self, x):
        for layer in self.hidden:
            x = F.gelu(F.dropout(layer(x), self.dropout, self.training))
        return self.out(x)


class Model(nn.Module):
    """Embedding, encoder and head. `encoder(c)` makes what maps (B, T, D) to (B, T, D) and a list of each layer's decisions (B, T)."""

    def __init__(self, c, encoder):
        super().__init__()
        self.c = c
        self.embedding = TokenEmbedding(c) if c.input == "tokens" else RealEmbedding(c)
        if c.d_embedding != c.d_model:
            self.input_proj = nn.Linear(c.d_embedding, c.d_model, bias=False)
        if c.sinusoidal:
            self.positions = SinusoidalPositions(c.d_model)
        if c.embedding_norm:
            self.embedding_norm = Norm(c.norm, c.d_model, c.norm_affine)
        self.encoder = encoder(c)
        if c.task == "classification":
            self.classifier = Classifier(c)
        elif not c.tie_embedding:
            self.output = nn.Linear(c.d_model, c.vocab_size, bias=False)
            nn.init.normal_(self.output.weight, std=c.d_model**-0.5)

    def forward(self, inputs, real=None, forced=None):
        """Tokens (B, T) or numbers (B, T, channels) to logits (B, classes) or (B, T, V), and each layer's decisions."""
        c = self.c
        x = self.embedding(inputs)
        if c.scale_embedding:
            x = x * math.sqrt(c.d_model)
        if hasattr(self, "input_proj"):
            x = self.input_proj(x)
        if c.sinusoidal:
            x = self.positions(x)
        if c.embedding_norm:
            x = self.embedding_norm(x, real)
        x, decisions = self.encoder(F.dropout(x, c.dropout, self.training), real, forced)
        if c.task == "language-model":
            return F.linear(x, self.embedding.weight if c.tie_embedding else self.output.weight), decisions
        if c.pool == "first":
            pooled = x[:, 0]
        else:
            pooled = x.mean(1) if real is None else (x * real[..., None]).sum(1) / real.sum(1, keepdim=True)
        return self.classifier(pooled), decisions


def loss_sum(logits, targets, real=None):
    """Cross entropy, summed over the sequences of a classifier or the real steps of a language model; and over how many that is."""
    if logits.dim() == 3:
        logits, targets = (logits.flatten(0, 1), targets.flatten()) if real is None else (logits[real], targets[real])
    return F.cross_entropy(logits, targets, reduction="sum"), targets.numel()


def make_optimizer(optim, parameters):
    """[optim] of a recipe. Weight decay is decoupled and on every parameter."""
    options = dict(lr=optim["lr"], betas=tuple(optim["betas"]), eps=optim["eps"], weight_decay=optim["weight_decay"])
    if optim["name"] == "adam":
        return torch.optim.AdamW(parameters, fused=True, **options)
    if optim["name"] == "radam":
        return torch.optim.RAdam(parameters, decoupled_weight_decay=True, foreach=True, **options)
    raise ValueError(f"the references know the optimisers adam and radam, found {optim['name']}")


def train_step(model, optimizer, clip_norm, inputs, targets, real=None, forced=None):
    """One update. Returns the mean loss, the gradient's norm before clipping, and the decisions."""
    optimizer.zero_grad(set_to_none=True)
    logits, decisions = model(inputs, real, forced)
    total, count = loss_sum(logits, targets, real)
    loss = total / count
    loss.backward()
    norm = nn.utils.clip_grad_norm_(model.parameters(), clip_norm if clip_norm > 0 else math.inf)
    optimizer.step()
    return loss.item(), norm.item(), decisions
