#!/usr/bin/env python3
"""Trains a small SeqBoat classifier in plain PyTorch: what is the value of [MAX 3 [MED 7 5 0 ] 1 ]? Prints its accuracy on expressions that are new.

    cmake --preset release && cmake --build --preset release --target seqboat_ops
    .venv/bin/python examples/train_listops.py
"""

import argparse
import pathlib
import random
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "python"))

import torch  # noqa: E402
from seqboat_torch import SeqBoatLayer  # noqa: E402

OPERATORS = {"MAX": max, "MIN": min, "MED": lambda values: sorted(values)[len(values) // 2]}
WORDS = {word: i for i, word in enumerate([*"0123456789", *(f"[{name}" for name in OPERATORS), "]"])}


def expression(draw, depth):
    """A random expression's words and its value."""
    if depth == 0 or draw.random() < 0.3:
        digit = draw.randrange(10)
        return [str(digit)], digit
    name = draw.choice(list(OPERATORS))
    parts = [expression(draw, depth - 1) for _ in range(draw.randint(2, 4))]
    return [f"[{name}", *(word for words, _ in parts for word in words), "]"], OPERATORS[name]([value for _, value in parts])


def batch(draw, size):
    """Expressions one after the other, without padding: words (sum T), where each begins and the last one ends (size + 1), values (size)."""
    rows = []
    while len(rows) < size:
        words, value = expression(draw, 2)
        if len(words) > 1:
            rows.append(([WORDS[word] for word in words], value))
    lengths = torch.tensor([0] + [len(words) for words, _ in rows])
    return torch.tensor([word for words, _ in rows for word in words]), lengths.cumsum(0), torch.tensor([value for _, value in rows])


class Classifier(torch.nn.Module):
    def __init__(self, width=64, layers=3):
        super().__init__()
        self.embedding = torch.nn.Embedding(len(WORDS), width)
        self.layers = torch.nn.ModuleList(SeqBoatLayer(width, 32, window_size=32, max_positions=64, temperature_init=1.0) for _ in range(layers))
        self.out = torch.nn.Linear(width, 10)

    def forward(self, words, cu_seqlens):
        x = self.embedding(words)
        for layer in self.layers:
            x = layer(x, cu_seqlens)
        return self.out(torch.segment_reduce(x, "mean", offsets=cu_seqlens))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1200, help="updates, of 64 expressions each")
    steps = parser.parse_args().steps
    torch.manual_seed(1)
    train, test, began = random.Random(1), random.Random(2), time.perf_counter()
    model = Classifier()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.004, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.004, total_steps=steps)
    for step in range(1, steps + 1):
        words, cu_seqlens, values = batch(train, 64)
        loss = torch.nn.functional.cross_entropy(model(words, cu_seqlens), values)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 100 == 0 or step == steps:
            print(f"step {step:4}  loss {loss.item():.3f}  {time.perf_counter() - began:.1f} s", flush=True)
    model.eval()
    words, cu_seqlens, values = batch(test, 2000)
    with torch.no_grad():
        accuracy = (model(words, cu_seqlens).argmax(1) == values).float().mean().item()
    print(f"accuracy {accuracy:.3f} (always the most frequent value: {values.bincount().max().item() / len(values):.3f})")


if __name__ == "__main__":
    main()
