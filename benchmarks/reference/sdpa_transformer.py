"""A Transformer on PyTorch's fused attention, as wide and as deep as the SeqBoat model of a config, with the same embedding and head.

Pre-norm: x = x + W_o attention(norm(x)); x = x + W_2 gelu(W_1 norm(x)), W_1 (4 D, D); norms are layernorm. Every step attends to all (causal: to all before it). The heads are as
many as bring their width next to 64 among the divisors of D: 80 of 80, 128 = 2 x 64, 160 = 2 x 80, 60 = 1 x 60, 512 = 8 x 64. Positions are rotary where the config says rotary, else
sines and cosines added to the embedding. Dropout is on the embedding and on what each branch adds; attention weights have none, for with it PyTorch leaves the fused kernel.
"""

import torch
import torch.nn.functional as F
from model import Norm, SinusoidalPositions, linear
from torch import nn


def head_width(width):
    """The divisor of the width that is nearest to 64, of two the larger."""
    return min((d for d in range(2, width + 1, 2) if width % d == 0), key=lambda d: (abs(d - 64), -d))


class Rotary(nn.Module):
    """Turns the pairs (x_i, x_(i + width/2)) by t 10000^(-2i/width); x (B, heads, T, width)."""

    def __init__(self, width):
        super().__init__()
        self.frequencies = 10000.0 ** (-torch.arange(0, width, 2) / width)
        self.factors = None

    def forward(self, x):
        if self.factors is None or self.factors[0].shape[0] != x.shape[-2]:
            angle = torch.arange(x.shape[-2])[:, None] * self.frequencies
            self.factors = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
        cos, sin = self.factors
        a, b = x.chunk(2, -1)
        return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)


class Layer(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.c, self.width = c, head_width(c.d_model)
        self.attention_norm, self.ffn_norm = Norm("layernorm", c.d_model), Norm("layernorm", c.d_model)
        self.qkv, self.out = linear(c.d_model, 3 * c.d_model), linear(c.d_model, c.d_model)
        self.fc1, self.fc2 = linear(c.d_model, 4 * c.d_model), linear(4 * c.d_model, c.d_model)
        self.rotary = Rotary(self.width) if c.position == "rotary" else None

    def forward(self, x, real):
        drop = lambda a: F.dropout(a, self.c.dropout, self.training)
        q, k, v = self.qkv(self.attention_norm(x, real)).unflatten(-1, (3, -1, self.width)).permute(2, 0, 3, 1, 4)  # each (B, heads, T, width)
        if self.rotary is not None:
            q, k = self.rotary(q), self.rotary(k)
        # Padding lies at the end, so no real step of a causal model sees any.
        mask = None if real is None or self.c.causal else real[:, None, None, :]
        h = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=self.c.causal)
        x = x + drop(self.out(h.transpose(1, 2).flatten(2)))
        return x + drop(self.fc2(F.gelu(self.fc1(self.ffn_norm(x, real)))))


class Encoder(nn.Module):
    def __init__(self, c):
        super().__init__()
        # A config that adds sines and cosines by itself has them already.
        self.positions = SinusoidalPositions(c.d_model) if c.position != "rotary" and not c.sinusoidal else None
        self.layers = nn.ModuleList(Layer(c) for _ in range(c.n_layers))
        self.norm = Norm("layernorm", c.d_model)

    def forward(self, x, real, forced):
        if self.positions is not None:
            x = self.positions(x)
        for layer in self.layers:
            x = layer(x, real)
        return self.norm(x, real), []  # nothing is decided: every step is attended to
