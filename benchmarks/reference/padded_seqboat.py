"""SeqBoat in plain PyTorch, the textbook way: padded batches, dense masks, the EMA as a convolution by FFT, attention as a score matrix.

It stands beside the program in two ways: it computes the same numbers from the same weights (tests/e2e/reference_test.py), and benchmarks/compare
measures what the same model costs when nothing about it is special. `Model(complete(config), Encoder)` of model.py makes it whole.

Shapes: B sequences, T steps (of the longest), D d_model, H d_hidden, Z d_attn, N d_state, K activated steps (of the row that has most), W window.
"""

import math

import torch
import torch.nn.functional as F
from model import Norm, linear, parameter
from torch import nn

class Ema(nn.Module):
    """y_t = omega x_t + sum_l K_l x_(t-l), K_l = sqrt(1/N) sum_n p_n beta_n gamma_n q_n^l with p = sigmoid(delta), q = 1 - p sigmoid(alpha), l below
    the truncation. Bidirectional: a second kernel sums over x_(t+l), both from l = 0 on."""

    def __init__(self, c):
        super().__init__()
        rows, self.causal, self.truncation = c.d_model * (1 if c.causal else 2), c.causal, c.truncation
        self.delta, self.alpha = parameter(rows, c.d_state, std=0.2), parameter(rows, c.d_state, std=0.2)
        self.beta, self.gamma = parameter(rows, c.d_state, std=0.02), parameter(rows, c.d_state, std=1.0)
        with torch.no_grad():
            self.beta += torch.tensor([1.0, -1.0]).repeat(c.d_state)[: c.d_state]
        self.omega = parameter(c.d_model, std=1.0)
        self.kept = (None, None)  # evaluation computes a kernel once

    def kernel(self, length):
        key = (length, *(p._version for p in self.parameters()))
        if not torch.is_grad_enabled() and self.kept[0] == key:
            return self.kept[1]
        p = torch.sigmoid(self.delta)
        log_q = torch.log1p(-p * torch.sigmoid(self.alpha))
        powers = torch.exp(log_q[..., None] * torch.arange(length))  # (D, N, L)
        kernel = torch.einsum("dn,dnl->dl", p * self.beta * self.gamma / math.sqrt(self.beta.shape[1]), powers)
        if not torch.is_grad_enabled():
            self.kept = (key, kernel)
        return kernel

    def forward(self, x, real):
        steps = x.shape[1]
        length = min(steps, self.truncation or steps)
        kernel, n = self.kernel(length), fast_length(steps + length - 1)
        if self.causal:
            around = F.pad(kernel, (0, n - length))
        else:  # the second kernel lies backwards, from the circle's zero on: lag -l is at n - l
            past, future = kernel.chunk(2)
            around = F.pad(past, (0, n - length)) + F.pad(future.flip(-1), (n - length, 0)).roll(1, -1)
        masked = x if real is None else x * real[..., None]
        y = torch.fft.irfft(torch.fft.rfft(masked.transpose(1, 2), n) * torch.fft.rfft(around, n), n)[..., :steps]
        return y.transpose(1, 2) + self.omega * x


def fast_length(n):
    """The smallest even number from n on without a prime factor above 5: FFTs of it are quick."""
    def rest(k):
        for prime in (2, 3, 5):
            while k % prime == 0:
                k //= prime
        return k
    n += n % 2
    while rest(n) != 1:
        n += 2
    return n


class Router(nn.Module):
    """P = softmax(u / temperature); a step is activated if P(active) > P(inactive). Returns the decisions and p = P(active) where activated."""

    def __init__(self, c):
        super().__init__()
        self.log_temperature = parameter(1, value=math.log(c.temperature_init * math.sqrt(c.d_model)))
        self.proj, self.bias = linear(c.d_model, 2), c.router_bias

    def forward(self, m, real, forced):
        u = self.proj(m) + torch.tensor([self.bias, 0.0])
        active = u[..., 1] > u[..., 0] if forced is None else forced
        if real is not None:
            active = active & real
        return active, torch.softmax(u / torch.exp(self.log_temperature), -1)[..., 1] * active


class Position(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.table = parameter(6 * c.window_size - 1 if c.position == "local" else 2 * c.max_positions - 1, std=0.02)


def rotate(x, times):
    """Turns the pairs (x_2i, x_2i+1) by t 10000^(-2i/Z)."""
    angle = times[..., None] * 10000.0 ** (-torch.arange(0, x.shape[-1], 2) / x.shape[-1])
    sin, cos, even, odd = angle.sin(), angle.cos(), x[..., 0::2], x[..., 1::2]
    return torch.stack((even * cos - odd * sin, odd * cos + even * sin), -1).flatten(-2)


class GatedAttentionUnit(nn.Module):
    """z, r, v = SiLU(in_proj(x)); q, k = z gamma + beta; h = out_proj(r * f(q k^T + bias) v). Over the K gathered steps of each row, padded."""

    def __init__(self, c):
        super().__init__()
        self.c = c
        self.in_proj, self.out_proj = linear(c.d_model, c.d_attn + 2 * c.d_hidden), linear(c.d_hidden, c.d_model)
        self.qk_gamma, self.qk_beta = parameter(2, c.d_attn, std=0.02), parameter(2, c.d_attn)
        if c.position != "rotary":
            self.position = Position(c)
        self.blocked = False  # True: only the blocks of the score matrix that the window touches, W queries by 2 W or 3 W keys each

    def forward(self, x, times, real):
        c = self.c
        z, r, v = F.silu(self.in_proj(x)).split([c.d_attn, c.d_hidden, c.d_hidden], -1)
        q, k = (z * self.qk_gamma[i] + self.qk_beta[i] for i in (0, 1))
        if c.position == "rotary":
            q, k = rotate(q, times), rotate(k, times)
        i = torch.arange(x.shape[1])
        here = lambda a: a  # queries and what belongs to them
        there = lambda a: a  # keys and what belongs to them
        if self.blocked and c.window_size > 0:
            w, after = c.window_size, 0 if c.causal else c.window_size
            tail = -x.shape[1] % w
            pad = lambda a, front, back: F.pad(a.movedim(1, -1), (front, back))
            here = lambda a: pad(a, 0, tail).unfold(-1, w, w).movedim((-2, -1), (1, 2))
            there = lambda a: pad(a, w, tail + after).unfold(-1, 2 * w + after, w).movedim((-2, -1), (1, 2))
        distance = there(i[None])[..., None, :] - here(i[None])[..., None]  # of key j from query i among the gathered steps
        allowed = there(real)[..., None, :]
        if c.window_size > 0:
            allowed = allowed & (distance.abs() <= c.window_size)
        if c.causal:
            allowed = allowed & (distance <= 0)
        scores = here(q) @ there(k).transpose(-1, -2) * self.scale(i, real)
        if c.position == "simple":
            in_time = there(times)[..., None, :] - here(times)[..., None]
            scores = scores + self.position.table[(in_time + c.max_positions - 1).clamp(0, 2 * c.max_positions - 2)]
        elif c.position == "local":
            scores = scores + self.position.table[(distance + 4 * c.window_size - 1).clamp(0, 6 * c.window_size - 2)]
        if c.attention == "softmax":
            weights = scores.masked_fill(~allowed, torch.finfo(scores.dtype).min).softmax(-1)
        elif c.attention == "relu2":
            weights = F.relu(scores).square() * allowed
        else:  # laplace
            weights = 0.5 * (1 + torch.erf((scores - 0.707107) / (0.282095 * math.sqrt(2)))) * allowed
        h = (weights @ there(v)).reshape(*v.shape[:1], -1, c.d_hidden)[:, : x.shape[1]]
        return self.out_proj(h * r)

    def scale(self, i, real):
        """1/sqrt(Z) for softmax; for the others one over the keys that a query may see, by its window or by what there is."""
        c = self.c
        if c.attention == "softmax":
            return c.d_attn**-0.5
        if c.window_size > 0:
            return 1.0 / (c.window_size if c.causal else 2 * c.window_size)
        return 1.0 / (i + 1.0)[:, None] if c.causal else 1.0 / real.sum(1).clamp(min=1).to(self.qk_beta.dtype)[:, None, None]


class SeqBoatLayer(nn.Module):
    """m = dropout(SiLU(EMA(x))); h = scatter(p * GAU(gather(m))); y = SiLU(skip_proj(m) + h + x), with a norm before or after."""

    def __init__(self, c):
        super().__init__()
        self.c, self.norm, self.ema, self.skip_proj = c, Norm(c.norm, c.d_model, c.norm_affine), Ema(c), linear(c.d_model, c.d_model)
        self.router = Router(c) if c.layer == "seqboat" else None
        self.attention = GatedAttentionUnit(c)

    def forward(self, x, real, forced):
        c, drop = self.c, lambda a: F.dropout(a, self.c.dropout, self.training)
        m = drop(F.silu(self.ema(self.norm(x, real) if c.prenorm else x, real)))
        if self.router is not None:
            active, p = self.router(m, real, forced)
        else:
            active = torch.ones(x.shape[:2], dtype=torch.bool) if real is None else real
            p = active.to(x.dtype)
        # Gather: the activated steps of each row in order, padded to the row that has most.
        count = active.sum(1)
        times = torch.argsort(~active, dim=1, stable=True)[:, : max(int(count.max()), 1)]  # (B, K); padding names steps that are not activated
        filled = torch.arange(times.shape[1]) < count[:, None]
        wide = times[..., None].expand(-1, -1, c.d_model)
        h = self.attention(m.gather(1, wide) * filled[..., None], times, filled)
        h = (h if c.causal else drop(h)) * (p.gather(1, times) * filled)[..., None]
        h = torch.zeros_like(x).scatter(1, wide, h)
        branches = self.skip_proj(m) + h
        y = F.silu((drop(branches) if c.causal else branches) + x)
        return (y if c.prenorm else self.norm(y, real)), active


class FeedForward(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.c, self.norm, self.fc1, self.fc2 = c, Norm(c.norm, c.d_model, c.norm_affine), linear(c.d_model, c.ffn_dim), linear(c.ffn_dim, c.d_model)

    def forward(self, x, real):
        y = x + F.dropout(self.fc2(F.silu(self.fc1(self.norm(x, real) if self.c.prenorm else x))), self.c.dropout, self.training)
        return y if self.c.prenorm else self.norm(y, real)


class Encoder(nn.Module):
    def __init__(self, c):
        super().__init__()
        parts = lambda: {"layer": SeqBoatLayer(c), **({"ffn": FeedForward(c)} if c.ffn_dim > 0 else {})}
        self.layers = nn.ModuleList(nn.ModuleDict(parts()) for _ in range(c.n_layers))
        if c.prenorm:
            self.final_norm = Norm(c.norm, c.d_model, c.final_norm_affine)

    def forward(self, x, real, forced):
        decisions = []
        for i, block in enumerate(self.layers):
            x, active = block["layer"](x, real, None if forced is None else forced[i])
            decisions.append(active)
            if "ffn" in block:
                x = block["ffn"](x, real)
        return (self.final_norm(x, real) if hasattr(self, "final_norm") else x), decisions
