"""SeqBoat's layer for PyTorch: the operators of libseqboat_ops.so (torch.ops.seqboat), and a torch.nn.Module made of them. See docs/PYTHON.md.

    import seqboat_torch as sbt
    layer = sbt.SeqBoatLayer(d_model=256, d_attn=64, d_hidden=512, window_size=128, causal=True)
    y = layer(x)                                         # x (B, T, D); packed: layer(x, cu_seqlens) with x (sum T, D)
    y, state = layer(x, state=state, return_state=True)  # goes on where the state stands; None is the beginning
"""

import math
import os
import pathlib
from collections import namedtuple

import torch
from torch import nn
from torch.nn.functional import pad

_named, _here = os.environ.get("SEQBOAT_OPS_LIBRARY"), pathlib.Path(__file__).resolve().parent
_places = [pathlib.Path(_named)] if _named else [folder / "libseqboat_ops.so" for folder in (_here, _here.parent / "build/release/lib")]
_library = next((place for place in _places if place.is_file()), None)
if _library is None:
    raise ImportError(f"seqboat_torch: no operator library at {' or '.join(map(str, _places))}; SEQBOAT_OPS_LIBRARY names another file")
try:
    torch.ops.load_library(str(_library))
except OSError as error:
    raise ImportError(f"seqboat_torch: {_library} does not load into torch {torch.__version__}: {error}") from error
_ops = torch.ops.seqboat
_KEY_BLOCK = 64  # grid on which the attention takes its keys (kernels/window_attention.h); those of a state begin on it, for the sake of the bits
# What the published layer calls its tensors. The first two rows of its hx_proj are the router's.
_OFFICIAL = {"gamma": "attention.qk_gamma", "beta": "attention.qk_beta", "rel_pos_bias.rel_pos_bias": "attention.position.table", "ssm": "ema",
             "move": "ema", "q_router.temp": "router.log_temperature", "hx_proj": "skip_proj", "mx_proj": "attention.in_proj",
             "h_proj": "attention.out_proj", "norm.norm.scalar": "norm.weight", "norm.norm": "norm"}


# Sizes that depend on the data are told to a tracer here: C++ cannot.
@torch.library.register_fake("seqboat::active_index")
def _(active, cu_seqlens):
    count = torch.library.get_ctx().new_dynamic_size()
    return cu_seqlens.new_empty(count), cu_seqlens.new_empty(count), cu_seqlens.new_empty(cu_seqlens.shape)


@torch.library.register_fake("seqboat::_seqboat_layer_forward")
def _(*arguments):
    a = dict(zip((argument.name for argument in _ops.seqboat_layer.default._schema.arguments), arguments))
    x, (tokens, dim), routed, chosen = a["x"], a["x"].shape, a["router_weight"] is not None, a["forced"] is not None
    width, count = 1 + sum(a[name].shape[i] for i, name in enumerate(("in_weight", "out_weight")) if a[name] is not None), 0
    if a["in_weight"] is not None and not a["keep_inputs_only"]:
        count = torch.library.get_ctx().new_dynamic_size() if routed or chosen else tokens
    active, kept = x.new_empty(tokens if routed or chosen else 0, dtype=torch.uint8), 0 if a["keep_inputs_only"] else tokens * (2 * dim + 4)
    return x.new_empty(x.shape), active, x.new_empty(tokens if routed else 0), x.new_empty(kept), x.new_empty(count, width)


SeqBoatState = namedtuple("SeqBoatState", "time ema history k v positions offsets first")
SeqBoatState.__doc__ = """What a causal layer carries from chunk to chunk: a value, which no call changes. time (B): tokens so far; ema (B, D, N);
history (B, truncation, D) or None: the last inputs; k (R, Z), v (R, H), positions (R): keys and values that later tokens may see, and their times,
sequence after sequence as offsets (B+1) say, at most W + 63 each; first (B): number of the first of them among its sequence's activated tokens."""
SeqBoatState.detach = lambda self: SeqBoatState(*(t if t is None else t.detach() for t in self))


def _owners(offsets, rows):  # the sequence of each of the rows 0 .. rows-1; past the last one where the offsets leave rows out
    return torch.searchsorted(offsets[1:], torch.arange(rows), right=True)


def _group(**members):
    module = nn.Module()
    for name, member in members.items():
        (module.register_buffer if type(member) is torch.Tensor else module.__setattr__)(name, member)
    return module


class SeqBoatLayer(nn.Module):
    """m = SiLU(EMA(norm(x))); a router activates some tokens of m, and these alone reach a gated attention unit whose window counts activated tokens;
    y = SiLU(skip_proj(m) + p * unit(m) + x), with the norm first (prenorm) or last. Arguments are the model keys of docs/CONFIG.md, where 0 means
    d_hidden = 2 d_model, a window_size without end, no truncation; layer="seqboat-full" activates every token. load_state_dict takes the published
    layer's names as well. In a compiled graph the backward computes the layer again from its input: how much else to keep, no graph can know."""

    def __init__(self, d_model, d_attn, d_hidden=0, window_size=0, causal=False, *, d_state=16, truncation=0, attention="softmax", position="simple",
                 max_positions=1024, norm="layernorm", norm_affine=True, prenorm=False, dropout=0.0, temperature_init=0.3, router_bias=0.0,
                 layer="seqboat"):
        super().__init__()
        for key, given, allowed in (("attention", attention, "softmax relu2 laplace"), ("position", position, "simple local rotary"),
                                    ("norm", norm, "layernorm scalenorm rmsnorm batchnorm"), ("layer", layer, "seqboat seqboat-full")):
            if given not in allowed.split():
                raise ValueError(f"SeqBoatLayer: {key} must be one of {allowed}, got {given!r}")
        if window_size < 0 or (position == "local" and window_size == 0) or (position == "rotary" and d_attn % 2):
            raise ValueError("SeqBoatLayer: window_size must not be negative, position='local' needs one, position='rotary' needs an even d_attn")
        d_hidden = d_hidden or 2 * d_model
        self.d_model, self.widths, self.causal, self.window = d_model, [d_attn, d_hidden, d_hidden], causal, window_size or -1
        self.function, self.position, self.norm_kind, self.prenorm, self.truncation = attention, position, norm, prenorm, truncation
        self.dropout, self.router_bias = dropout, torch.tensor(router_bias, dtype=torch.float32, device="cpu").item()  # rounded, as published
        zeros, ones = (lambda n: nn.Parameter(torch.zeros(n))), (lambda n: nn.Parameter(torch.ones(n)))
        normal = lambda *shape, std=0.02: nn.Parameter(nn.init.trunc_normal_(torch.empty(shape), std=std, a=-2 * std, b=2 * std))
        linear = lambda inputs, outputs: _group(weight=normal(outputs, inputs), bias=zeros(outputs))
        statistics = dict(running_mean=torch.zeros(d_model), running_var=torch.ones(d_model), num_batches_tracked=torch.tensor(0))
        self.norm = _group(weight=ones(1 if norm == "scalenorm" else d_model) if norm_affine else None, **statistics if norm == "batchnorm" else {},
                           bias=zeros(d_model) if norm_affine and norm in ("layernorm", "batchnorm") else None)
        of_states = lambda std: normal(d_model if causal else 2 * d_model, d_state, std=std)
        self.ema = _group(delta=of_states(0.2), alpha=of_states(0.2), beta=of_states(0.02), gamma=of_states(1.0), omega=normal(d_model, std=1.0))
        self.ema.beta.data += 1 - 2 * (torch.arange(d_state) % 2)
        logarithm = math.log(temperature_init * math.sqrt(d_model))
        self.router = _group(proj=linear(d_model, 2), log_temperature=nn.Parameter(torch.full((1,), logarithm))) if layer == "seqboat" else None
        self.skip_proj = linear(d_model, d_model)
        table = None if position == "rotary" else normal(6 * window_size - 1 if position == "local" else 2 * max_positions - 1)
        self.attention = _group(in_proj=linear(d_model, d_attn + 2 * d_hidden), out_proj=linear(d_hidden, d_model), qk_gamma=normal(2, d_attn),
                                qk_beta=nn.Parameter(torch.zeros(2, d_attn)), position=_group(table=table))

    def forward(self, x, cu_seqlens=None, state=None, return_state=False):
        """x (B, T, D), or (sum T, D) with cu_seqlens (B+1) int32 or int64 -> y like x, or (y, SeqBoatState) with return_state. Causal layers with a
        window can carry a state: in chunks a sequence gives the bits that it gives whole (but for dropout, which is new in every call)."""
        dtype, packed, carries = self.skip_proj.weight.dtype, cu_seqlens is not None, return_state or state is not None
        if x.dim() != (2 if packed else 3) or x.shape[-1] != self.d_model or x.dtype != dtype:
            raise ValueError(f"SeqBoatLayer: x must be {'(sum T' if packed else '(B, T'}, {self.d_model}) {dtype}, got {tuple(x.shape)} {x.dtype}")
        if carries and not (self.causal and self.window > 0):
            raise ValueError("SeqBoatLayer: only a causal layer with a window_size carries a state")
        cu = cu_seqlens.to(torch.int64).contiguous() if packed else torch.arange(x.shape[0] + 1) * x.shape[1]
        if state is not None and len(state.time) != len(cu) - 1:
            raise ValueError(f"SeqBoatLayer: the state is one of {len(state.time)} sequences, the batch has {len(cu) - 1}")
        rows = x.reshape(-1, self.d_model)
        keys = _owners(cu, rows.shape[0])
        times = torch.arange(rows.shape[0]) - (cu if state is None else cu - pad(state.time, (0, 1)))[keys]
        dropout = self.dropout if self.training else 0.0
        # Masks go by torch's generator, through a tensor: a number would stay in a compiled graph for ever.
        keys = keys + torch.randint(2**62, ()) if dropout > 0 else keys
        p = _ops.activation(self.ema.delta, "sigmoid")
        c = p * self.ema.beta * self.ema.gamma * math.sqrt(1.0 / p.shape[1])
        ema = 1.0 - p * _ops.activation(self.ema.alpha, "sigmoid"), c, self.ema.omega
        if carries or (self.norm_kind == "batchnorm" and not self.prenorm):  # what the fused operator does not know
            y, state = self._composite(rows, cu, times, keys, ema, dropout, state)
        else:
            norm, unit, (mean, var, of_batch) = self.norm, self.attention, self._statistics(rows)
            router = (self.router.proj.weight, self.router.proj.bias, self.router.log_temperature) if self.router else (None, None, None)
            y = _ops.seqboat_layer(
                rows, cu, times, keys, None, norm.weight, norm.bias, mean, var, *ema, *router, self.skip_proj.weight, self.skip_proj.bias,
                unit.in_proj.weight, unit.in_proj.bias, unit.qk_gamma, unit.qk_beta, unit.position.table, unit.out_proj.weight, unit.out_proj.bias,
                self.norm_kind, self.prenorm, of_batch, 1e-5, self.causal, self.truncation, self.window, self.position, self.function,
                self.router_bias, dropout, [0, 0, 0, 1, 0], False)[0]
        return (y.view(x.shape), state) if return_state else y.view(x.shape)

    def _statistics(self, x):
        """Batch norm's mean and variance, and whether they are those of x."""
        if self.norm_kind != "batchnorm" or not self.training:
            return getattr(self.norm, "running_mean", None), getattr(self.norm, "running_var", None), False
        mean, var = _ops.batch_norm_stats(x.detach())
        self.norm.running_mean.mul_(0.9).add_(mean * 0.1)
        self.norm.running_var.mul_(0.9).add_(var * (0.1 * x.shape[0] / max(1, x.shape[0] - 1)))
        self.norm.num_batches_tracked += 1
        return mean, var, True

    def _composite(self, x, cu, times, keys, ema, dropout, state):
        """What the fused operator does, by single operators and with the same bits, from a state to the next."""
        drop = lambda t, site, keys, times: _ops.dropout(t, dropout, 0, 0, 0, 1, site, keys, times) if dropout > 0 else t
        linear = lambda t, part: _ops.linear(t, part.weight, part.bias)
        norm = lambda t: (_ops.batch_norm(t, self.norm.weight, self.norm.bias, *self._statistics(t), 1e-5) if self.norm_kind == "batchnorm" else
                          _ops.row_norm(t, self.norm.weight, self.norm.bias, self.norm_kind, 1e-5)[0])
        batch, unit, steps, count, none = len(cu) - 1, self.attention, self.truncation, torch.arange, [x.new_empty(0, width) for width in self.widths]
        state = state or SeqBoatState(cu[1:] * 0, None, None, *none[:2], torch.arange(0), cu * 0, cu[1:] * 0)
        inputs = norm(x) if self.prenorm else x
        encoded, ema = _ops.ema_scan(inputs, cu, *ema, steps, not self.causal, state.ema, state.history)
        mine = m = drop(_ops.activation(encoded, "silu"), 0, keys, times)
        at, whose, offsets = times, keys, cu
        if self.router:
            active, p, _ = _ops.router(linear(m, self.router.proj), self.router.log_temperature, self.router_bias)
            index, _, offsets = _ops.active_index(active, cu)
            mine, at, whose = _ops.compress(m, active, index), times[index], keys[index]
        z, r, v = _ops.activation(linear(mine, unit.in_proj), "silu").split(self.widths, 1)
        q, k = (z * unit.qk_gamma[i] + unit.qk_beta[i] for i in (0, 1))
        if self.position == "rotary":
            q, k = _ops.rotary(q, at), _ops.rotary(k, at)
        # Kept and new tokens of each sequence side by side; the kept ones ask nothing, with zeros for queries.
        old, new = len(state.k), count(len(k)) + state.offsets[_owners(offsets, len(k)) + 1]
        order = torch.cat([count(old) + offsets[_owners(state.offsets, old)], new]).argsort()
        pairs = (q.new_zeros(old, q.shape[1]), q), (state.k, k), (state.v, v), (state.positions, at)
        (q, k, v, all_at), offsets, table = (torch.cat(pair)[order] for pair in pairs), offsets + state.offsets, unit.position.table
        bias = self.position if table is not None else "none"
        h = linear(_ops.window_attention(q, k, v, all_at, offsets, table, bias, self.window, self.causal, self.function)[0][new] * r, unit.out_proj)
        h = h if self.causal else drop(h, 1, whose, at)
        h = linear(m, self.skip_proj) + (_ops.extract(h * _ops.compress(p[:, None], active, index), active, index) if self.router else h)
        y = _ops.activation((drop(h, 2, keys, times) if self.causal else h) + x, "silu")
        # What later chunks may see: keys from a block's beginning on, and the last inputs.
        end, owner, history = state.first + offsets.diff(), _owners(offsets, len(k)), None
        first = (end - self.window).clamp(min=0) // _KEY_BLOCK * _KEY_BLOCK
        keep = count(len(k)) - offsets[owner] >= (first - state.first)[owner]
        if steps:
            place = cu.diff()[:, None] + count(steps)  # in the history before and this chunk, one after the other
            place = torch.where(place < steps, place + count(batch)[:, None] * steps, place + (batch - 1) * steps + cu[:-1, None])
            history = torch.cat([x.new_zeros(batch * steps, x.shape[1]) if state.history is None else state.history.flatten(0, 1), inputs])[place]
        kept = k[keep], v[keep], all_at[keep], pad((end - first).cumsum(0), (1, 0)), first
        return (y if self.prenorm else norm(y)), SeqBoatState(state.time + cu.diff(), ema, history, *kept)

    def _load_from_state_dict(self, state_dict, prefix, *rest):
        for name in [name for name in state_dict if name.startswith(prefix)]:
            theirs = name[len(prefix):]
            part = next((part for part in _OFFICIAL if theirs == part or theirs.startswith(part + ".")), None)
            ours = part and prefix + _OFFICIAL[part] + theirs[len(part):]
            if part and ours not in state_dict:  # where both forms are given, one is left over
                value = state_dict.pop(name)
                if part == "hx_proj" and self.router:
                    state_dict[prefix + "router.proj" + theirs[len(part):]], value = value[:2], value[2:]
                state_dict[ours] = value.squeeze(-1) if _OFFICIAL[part] == "ema" and value.dim() == 3 else value
        super()._load_from_state_dict(state_dict, prefix, *rest)
