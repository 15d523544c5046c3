"""The tables of docs/RESULTS.md from docs/results: intervals by a paired bootstrap over seeds and test items, as docs/PROTOCOL.md says it."""

import gzip
import json
import math
import pathlib

import numpy

DOCUMENT = pathlib.Path(__file__).resolve().parents[1] / "docs" / "RESULTS.md"
BEGIN, END = "<!-- study: begin, written by experiments/study tables -->", "<!-- study: end -->"
PAIRS = (("H1", "seqboat", "mega-chunk"), ("H2", "seqboat", "seqboat-stride"), ("H3", "seqboat", "seqboat-full"))


def read_items(folder):
    """(n, 2) numbers: of a classifier right answers and questions, of a text bytes and nats."""
    text = gzip.decompress((folder / "items.gz").read_bytes()).decode()
    return numpy.array([line.split() for line in text.splitlines()], dtype=float)


def differences(first, second, metric):
    """Of each item what the first model is better by, and what that is a share of. Bits count down, accuracy counts up."""
    if metric == "accuracy":
        assert (first[:, 1] == second[:, 1]).all(), "two tables of items of other questions"
        return first[:, 0] - second[:, 0], first[:, 1]
    assert (first[:, 0] == second[:, 0]).all(), "two tables of items of other blocks"
    return (second[:, 1] - first[:, 1]) / math.log(2), first[:, 0]


def bootstrap(pairs, metric, draws, seed=0):
    """pairs: (items of the first, items of the second) of each seed. Returns the mean difference, each seed's, and the 95 % interval."""
    found = [differences(first, second, metric) for first, second in pairs]
    gain, weight = numpy.array([gain for gain, _ in found]), found[0][1]
    own = gain.sum(1) / weight.sum()
    # Items that are alike in every seed are drawn together: what comes of n draws from u kinds of items is multinomial.
    kinds, counts = numpy.unique(numpy.vstack([gain, weight]), axis=1, return_counts=True)
    random = numpy.random.default_rng(seed)
    values = []
    for _ in range(0, draws, 500):
        drawn = random.multinomial(counts.sum(), counts / counts.sum(), size=500)
        seeds = random.multinomial(len(pairs), [1 / len(pairs)] * len(pairs), size=500) / len(pairs)
        values.append(((seeds @ kinds[:-1]) * drawn).sum(1) / (drawn * kinds[-1]).sum(1))
    low, high = numpy.percentile(numpy.concatenate(values), [2.5, 97.5])
    return own.mean(), own, low, high


def verdict(own, low, high, margin):
    """The words of docs/PROTOCOL.md."""
    if low > 0 and (own > 0).all():
        return "better"
    if high < 0 and (own < 0).all():
        return "worse"
    if low > -margin and (own > -margin).all():
        return "not worse"
    return "not shown"


class Tables:
    def __init__(self, protocol, results):
        self.protocol, self.results, self.lines, self.rows = protocol, results, [], []
        self.found = {}
        for path in sorted(results.rglob("result.json")):
            result = json.loads(path.read_text())
            self.found[result["id"]] = (result, path.parent)

    def result(self, name):
        return self.found.get(name, (None, None))[0]

    def text(self, value, metric):
        return "–" if value is None else f"{100 * value:.1f}" if metric == "accuracy" else f"{value:.3f}"

    def add(self, *lines):
        self.lines += lines

    def task(self, name):
        task = self.protocol["tasks"][name]
        metric, kinds = task["metric"], task["kinds"]
        if not any(key.startswith(f"{name}/") for key in self.found):
            return
        unit = "accuracy, %" if metric == "accuracy" else "bits a byte"
        self.add("", f"### {name}: `{task['recipe']}`", "")
        self.grid(name, metric, kinds, unit)
        self.main(name, metric, kinds, unit)
        self.compare(name, metric, task["margin"])
        self.variants(name, metric, unit)
        self.critics(name, metric, unit)

    def grid(self, name, metric, kinds, unit):
        factors = self.protocol["grid"]
        rows = []
        for kind in kinds:
            found = [self.result(f"{name}/{kind}/grid-{factor:g}") for factor in factors]
            if not any(found):
                continue
            values = [of and of["valid"]["value"] for of in found]
            done = [(value if metric == "accuracy" else -value, -factor) for value, factor in zip(values, factors) if value is not None]
            best = -max(done)[1] if len(done) == len(factors) else None
            cells = [("**%s**" if factor == best else "%s") % self.text(value, metric) for value, factor in zip(values, factors)]
            edge = "" if best is None or factors[0] < best < factors[-1] else ", at the end of the grid"
            rows.append(f"| {kind} | {' | '.join(cells)} | {'' if best is None else f'{best:g}{edge}'} |")
        if rows:
            self.add(f"Learning rates, a quarter of the time, seed {self.protocol['grid_seed']}: {unit} on the validation split.", "")
            self.add("| | " + " | ".join(f"{factor:g} × {self.protocol['tasks'][name]['lr']:g}" for factor in factors) + " | taken |", "|---|" + "---|" * (len(factors) + 1), *rows, "")

    def row(self, result, cost):
        test, metric = result["test"], result["test"]["metric"]
        low, high = test["ci95"]
        self.rows.append(dict(id=result["id"], recipe=result["recipe"], settings=result["settings"], updates=result["steps"], commit=result["commit"], metric=metric, value=test["value"], ci95=test["ci95"],
                              loss=test["loss"], activation_rate=test["activation_rate"], flops=test["flops"]["spent"], tokens=result["tokens"]))
        return (f"{self.text(test['value'], metric)} | {self.text(low, metric)} to {self.text(high, metric)} | {' '.join(f'{rate:.3f}' for rate in test['activation_rate'])} | {result['steps']:,} | "
                f"{result['tokens'] / 1e6:.0f} | {cost} | {test['flops']['spent'] / 1e9:,.0f}")

    def main(self, name, metric, kinds, unit):
        times = json.loads((self.results / "time.json").read_text()).get(name, {}).get("main", {}) if (self.results / "time.json").exists() else {}
        rows = []
        for kind in kinds:
            for seed in self.protocol["seeds"]:
                result = self.result(f"{name}/{kind}/seed-{seed}")
                if result:
                    ms = times.get(kind, {}).get(str(seed), times.get(kind, {}).get("any"))
                    rows.append(f"| {kind} | {seed} | {self.row(result, '–' if ms is None else f'{ms:.1f}')} |")
        if rows:
            self.add(f"Equal time. Test split, {unit}.", "", "| | seed | test | 95 % interval | activated, by layer | updates | tokens, million | ms an update | GFLOP of the test |", "|---|---|---|---|---|---|---|---|---|", *rows, "")

    def compare(self, name, metric, margin):
        rows = []
        for hypothesis, first, second in PAIRS:
            folders = [(self.found.get(f"{name}/{first}/seed-{seed}"), self.found.get(f"{name}/{second}/seed-{seed}")) for seed in self.protocol["seeds"]]
            if not all(a and b for a, b in folders):
                continue
            mean, own, low, high = bootstrap([(read_items(a[1]), read_items(b[1])) for a, b in folders], metric, self.protocol["draws"])
            scale, digits = (100, 2) if metric == "accuracy" else (1, 4)
            words = verdict(own, low, high, margin)
            flops = numpy.mean([a[0]["test"]["flops"]["spent"] / b[0]["test"]["flops"]["spent"] for a, b in folders])
            self.rows.append(dict(hypothesis=hypothesis, task=name, first=first, second=second, difference=mean, by_seed=list(own), ci95=[low, high], verdict=words, flops_ratio=flops))
            rows.append(f"| {hypothesis} | {first} against {second} | {scale * mean:+.{digits}f} | {scale * low:+.{digits}f} to {scale * high:+.{digits}f} | "
                        f"{' '.join(f'{scale * value:+.{digits}f}' for value in own)} | {words} | {flops:.2f} |")
        if rows:
            what = "points of accuracy" if metric == "accuracy" else "bits a byte (positive: the first needs fewer)"
            self.add(f"Differences in {what}.", "", "| | | difference | 95 % interval | by seed | | FLOPs of the test, ratio |", "|---|---|---|---|---|---|---|", *rows, "")

    def variants(self, name, metric, unit):
        rows = []
        for variant in self.protocol["tasks"][name].get("variants", []):
            result = self.result(f"{name}/{variant['kind']}/{variant['name']}-seed-{self.protocol['seeds'][0]}")
            if result:
                rows.append(f"| {variant['kind']} | {variant['name']} | {self.row(result, '–')} |")
        if rows:
            self.add(f"As many tokens as seqboat's runs, one seed. Test split, {unit}.", "", "| | | test | 95 % interval | activated, by layer | updates | tokens, million | ms an update | GFLOP of the test |", "|---|---|---|---|---|---|---|---|---|",
                     *rows, "")

    def critics(self, name, metric, unit):
        rows, ladder = [], None
        for seed in self.protocol["seeds"]:
            result = self.result(f"{name}/seqboat/seed-{seed}")
            if not result:
                continue
            ladder = result["test"].get("shortcut_ladder", ladder)
            forced = {each["decisions"]: each["value"] for each in result.get("forced", {}).get("interventions", {}).get("results", [])}
            if "cut" in result or forced:
                cells = [result["test"]["value"], result.get("cut", {}).get("value")] + [forced.get(word) for word in ("none", "all", "random", "inverted")]
                rows.append(f"| {seed} | " + " | ".join(self.text(value, metric) for value in cells) + " |")
        if rows:
            self.add(f"seqboat with less to see, and with other decisions: {unit}.", "", "| seed | as trained | state cut to 32 steps, window to 16 | nothing activated | all | as many at random | the inverse |", "|---|---|---|---|---|---|---|", *rows, "")
        if ladder:
            self.add(f"Shortcuts on the same data: the best constant {100 * ladder['constant']:.1f} %, a constant for each root operator {100 * ladder['root_operator']:.1f} %, one level evaluated {100 * ladder['one_level']:.1f} %, "
                     f"two {100 * ladder['two_levels']:.1f} %, three {100 * ladder['three_levels']:.1f} %.", "")


def main(protocol, results):
    tables = Tables(protocol, results)
    for name in protocol["tasks"]:
        tables.task(name)
    (results / "results.json").write_text(json.dumps(tables.rows, indent=1) + "\n")
    text = DOCUMENT.read_text()
    if BEGIN not in text:
        text = text.rstrip("\n") + f"\n\n{BEGIN}\n{END}\n"
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    DOCUMENT.write_text(before + BEGIN + "\n" + "\n".join(tables.lines).strip("\n") + "\n" + END + after)
    print(f"{len(tables.found)} runs; docs/RESULTS.md and docs/results/results.json are written")
