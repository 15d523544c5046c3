#!/usr/bin/env python3
"""Summary of a ListOps file, for tests/property/data/listops_distribution_test.cc.

    python3 tests/golden/listops_reference_stats.py basic_val.tsv > tests/golden/listops_reference_stats.json

The committed summary is that of 2,000 samples (lengths 500-2000, depth 10, 10 arguments) drawn with the generator of the Long Range Arena itself. The
samples are not kept here, only these counts. Evaluates every expression by itself, with no code of the library.
"""
import collections
import json
import statistics
import sys


def parse(words):
    """-> (value, depth of the deepest node, [(operator, arguments, depth)], number of digits)"""
    stack, operators, digits, depth = [], [], 0, 1
    for word in words:
        if word.startswith("["):
            stack.append((word[1:], []))
            continue
        if word == "]":
            name, values = stack.pop()
            operators.append((name, len(values), len(stack) + 1))
            value = {"MIN": min, "MAX": max, "MED": lambda v: int(statistics.median(v)), "SM": lambda v: sum(v) % 10}[name](values)
        else:
            value = int(word)
            digits += 1
            depth = max(depth, len(stack) + 1)
        if not stack:
            return value, depth, operators, digits
        stack[-1][1].append(value)
    raise ValueError("unbalanced expression")


def deciles(values):
    """Nine edges (values that occur) and how many lie in each of the ten bins: bin b holds edges[b-1] < v <= edges[b]."""
    ordered = sorted(values)
    edges = [ordered[len(ordered) * k // 10 - 1] for k in range(1, 10)]
    counts = [0] * 10
    for v in values:
        counts[sum(v > e for e in edges)] += 1
    return {"edges": edges, "counts": counts}


def main(path):
    names = ["MIN", "MAX", "MED", "SM"]
    lengths, n_operators = [], []
    depth, labels, roots, root_arguments = (collections.Counter() for _ in range(4))
    per_sample = collections.defaultdict(list)
    with open(path) as lines:
        assert next(lines).split() == ["Source", "Target"]
        for line in lines:
            source, target = line.rstrip("\r\n").split("\t")
            words = [w for w in source.split() if w not in "()"]
            value, deepest, operators, digits = parse(words)
            assert value == int(target), (value, target)
            lengths.append(len(words))
            n_operators.append(len(operators))
            depth[deepest] += 1
            labels[value] += 1
            roots[operators[-1][0]] += 1
            root_arguments[operators[-1][1]] += 1
            kinds = collections.Counter(name for name, _, _ in operators)
            arguments = collections.Counter(count for _, count, _ in operators)
            for name in names:
                per_sample["operator " + name].append(kinds[name])
            for count in range(2, 11):
                per_sample[f"arguments {count}"].append(arguments[count])
            levels = collections.Counter(level for _, _, level in operators)
            for level in range(2, 10):
                per_sample[f"operators at depth {level}"].append(levels[level])
            per_sample["digits"].append(digits)
    result = {
        "samples": len(lengths),
        "length": deciles(lengths),
        "operators_per_sample": deciles(n_operators),
        "depth": {str(k): depth[k] for k in sorted(depth)},
        "labels": [labels[v] for v in range(10)],
        "roots": [roots[name] for name in names],
        "root_arguments": [root_arguments[count] for count in range(2, 11)],
        "per_sample": {k: {"mean": statistics.fmean(v), "variance": statistics.variance(v)} for k, v in per_sample.items()},
    }
    json.dump(result, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main(sys.argv[1])
