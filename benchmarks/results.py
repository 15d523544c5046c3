"""Results of benchmarks/compare: a file of JSON lines, and the Markdown tables that are made of them.

A line is one measurement: what was measured (KEYS), which repetition, in which sitting, by which build on which host, and either `result`, the object that `seqboat bench --json` or
benchmarks/reference/run.py printed, or `left_out`, the reason why there is none, and the `limit` that it broke. Figures of two builds or hosts are never put into one: see Chosen.
"""

import collections
import json
import os
import pathlib

KEYS = ("sweep", "contender", "recipe", "mode", "rate", "threads", "batch", "length", "simd")
CONTENDERS = {
    "seqboat": "seqboat", "padded": "padded PyTorch", "blocked": "padded PyTorch, score matrix in blocks", "transformer": "Transformer (SDPA)",
}
KINDS = ("seqboat-full", "ema", "s4d", "mega-chunk", "mega", "attention")  # layers of seqboat itself that its own is compared with
CONTENDERS.update({kind: kind for kind in KINDS})
RATELESS = {"transformer", *KINDS}  # nothing chooses there, so that one measurement stands beside every rate


class BadResults(Exception):
    pass


class Results:
    """The lines of a file, oldest first, and a way to add to them. Half a line at the end, which a killed process may leave, is passed over, and cut off when a line is added."""

    def __init__(self, path):
        self.path, self.lines, self.whole = pathlib.Path(path), [], None
        if not self.path.exists():
            return
        content = self.path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            self.whole = whole
        for number, text in enumerate(content[:whole].decode("utf-8", errors="replace").splitlines(), 1):
            try:
                line = json.loads(text)
                missing = [key for key in KEYS if key not in line]
            except (ValueError, TypeError):
                raise BadResults(f"{self.path}:{number}: no JSON object") from None
            if missing or ("result" in line) == ("left_out" in line):
                raise BadResults(f"{self.path}:{number}: no measurement: expected {', '.join(missing) or 'result or left_out'}")
            self.lines.append(line)

    def add(self, line):
        """Appends it in one write, so that whatever happens there are whole lines in the file."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.whole is not None:
            os.truncate(self.path, self.whole)
            self.whole = None
        file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            os.write(file, (json.dumps(line) + "\n").encode())
        finally:
            os.close(file)
        self.lines.append(line)


UNKNOWN = (None, None)  # build and host of the lines of older files, which do not tell them


def identity(line):
    """What was measured where: (build, host)."""
    return (line["build"], line["host"]) if line.get("build") and line.get("host") else UNKNOWN


def is_of(line, spec):
    return all(line[key] == spec[key] for key in KEYS)


def anew(lines):
    """Without what a run with --fresh measured again: of each specification of a build, the lines before its last one with `fresh`."""
    at, begin = lambda line: (*(line[key] for key in KEYS), *identity(line)), {}
    for i, line in enumerate(lines):
        if line.get("fresh"):
            begin[at(line)] = i
    return [line for i, line in enumerate(lines) if i >= begin.get(at(line), 0)]


class Chosen:
    """The lines that tables are made of, and those of other builds and hosts that are left aside. Each contender stands by one build: that of its newest sitting, on the host of the
    newest sitting of all; an unknown build is older than any known one. identities, {contender: (build, host)}, names instead what has just been measured."""

    def __init__(self, lines, identities=None):
        lines = anew(lines)
        age = lambda i: (identity(lines[i]) != UNKNOWN, lines[i]["sitting"], i)
        hosts = [host for _, host in (identities or {}).values()]
        host = hosts[0] if hosts else identity(lines[max(range(len(lines)), key=age)])[1] if lines else None
        self.identities = dict(identities or {})
        here = [i for i in range(len(lines)) if identity(lines[i])[1] in (host, None)]
        for i in sorted(here, key=age, reverse=True):
            self.identities.setdefault(lines[i]["contender"], identity(lines[i]))
        # A contender that this host never measured has an identity that no line has.
        of_it = [identity(line) == self.identities.get(line["contender"]) for line in lines]
        self.lines = [line for line, yes in zip(lines, of_it) if yes]
        self.aside = [line for line, yes in zip(lines, of_it) if not yes]


class Cell:
    """What is known of one specification: the minima over its repetitions."""

    def __init__(self, lines):
        done = [line["result"] for line in lines if "result" in line]
        self.left_out = None if done else lines[-1]["left_out"]
        self.repetitions = len(done)
        self.line, self.lines = lines[-1], lines
        if done:
            self.best = min(done, key=lambda result: result["ms"]["min"])
            self.ms = self.best["ms"]["min"]
            # Where a system does not tell a peak from the one before, there is none.
            self.added_mb = min((result["added_rss_bytes"] / 1e6 for result in done if result["added_rss_bytes"] is not None), default=None)
            self.us_per_token = 1000 * self.ms / (self.best["batch"] * self.best["length"])
            # Each by the repetition that found the machine fastest, as the step is: a process in a disturbed moment measures low rates, and a limit that the step of another breaks.
            self.limit_share, self.reachable_share = self.share(done, "limit_ms"), self.share(done, "reachable_ms")

    def share(self, done, what):
        least = min((result[what] for result in done if result.get(what) is not None), default=None)
        return None if least is None else least / self.ms


class Found(collections.OrderedDict):
    """The cells of a table, and the lines that would have been in it but for their build or host."""

    aside = ()


def cells(chosen, sweep, **wanted):
    """{(recipe, mode, rate, threads, batch, length, simd): {contender: Cell}} of a sweep's lines, in the order of the first line of each. Those that know no rate
    and are measured once stand at every one."""
    grouped = collections.OrderedDict()
    belongs = lambda line: line["sweep"] == sweep and all(line[key] == value for key, value in wanted.items())
    for line in chosen.lines:
        if belongs(line):
            at = tuple(line[key] for key in KEYS[2:])
            grouped.setdefault(at, collections.OrderedDict()).setdefault(line["contender"], []).append(line)
    for at in [at for at, contenders in grouped.items() if RATELESS & set(contenders) and at[2] is None]:
        same = [other for other in grouped if other != at and other[:2] + other[3:] == at[:2] + at[3:]]
        for name in RATELESS & set(grouped[at]):
            for other in same:
                grouped[other].setdefault(name, grouped[at][name])
        if same and set(grouped[at]) <= RATELESS:
            del grouped[at]
    found = Found((at, {name: Cell(lines) for name, lines in contenders.items()}) for at, contenders in grouped.items())
    found.aside = [line for line in chosen.aside if belongs(line)]
    return found


def number(value):
    """Three digits that count, and no exponent."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def rate_text(rate):
    return "router" if rate is None else f"{rate:g}"


def markdown(head, rows):
    align = ["---" if i == 0 else "---:" for i in range(len(head))]
    return "\n".join("| " + " | ".join(map(str, row)) + " |" for row in [head, align, *rows])


def of_cell(cell, what):
    if cell is None:
        return "–"
    return number(getattr(cell, what)) if cell.left_out is None else "left out"


def ratio(theirs, ours, what):
    """How much more they take; with what was left out there is none."""
    if theirs is None or ours is None or theirs.left_out is not None or ours.left_out is not None or not getattr(ours, what) or getattr(theirs, what) is None:
        return "–"
    value = getattr(theirs, what) / getattr(ours, what)
    return f"{value:,.0f} ×" if value >= 9.95 else f"{value:.2g} ×"


def builds(lines):
    """Who was built how, in words."""
    by_build = {}
    for line in sorted(lines, key=lambda line: list(CONTENDERS).index(line["contender"])):
        by_build.setdefault(identity(line)[0], {}).setdefault(CONTENDERS[line["contender"]])
    return ", ".join(f"{build or 'unknown'} ({'; '.join(who)})" for build, who in by_build.items())


def aside_note(aside):
    if not aside:
        return ""
    count = collections.Counter((line["contender"], *identity(line)) for line in aside)
    parts = [f"{n} of {CONTENDERS[name]} (build {build or 'unknown'}{f', {host}' if host else ''})" for (name, build, host), n in count.items()]
    return f"\n\nLeft aside, since measured by another build or on another machine than the newest: {'; '.join(parts)}."


def notes(found):
    """What stands under a table: the machine, the builds, the sittings, and what was left out or aside."""
    all_cells = [cell for contenders in found.values() for cell in contenders.values()]
    lines = [line for cell in all_cells for line in cell.lines]
    stamp = sorted({line["sitting"] for line in lines})
    repetitions = sorted({cell.repetitions for cell in all_cells if cell.left_out is None})
    parts = sorted({line["machine"] for line in lines if line.get("machine")})
    parts = [part for part in parts if not any(other.startswith(part + ", ") for other in parts)]  # one with torch says all that the one without it does
    built = f" Builds: {builds(lines)}." if any(identity(line) != UNKNOWN for line in lines) else ""
    rounds = f"{' or '.join(map(str, repetitions)) or 'no'} repetition{'' if repetitions == [1] else 's'}"
    text = f"{'; '.join(parts)}.{built} Minima of {rounds}, sitting{'s' if len(stamp) > 1 else ''} {', '.join(stamp)}."
    left = dict.fromkeys(f"{CONTENDERS[c.line['contender']]}, {c.line['recipe']} {c.line['mode']}{place(c.line)}: {c.left_out}" for c in all_cells if c.left_out is not None)
    if left:
        text += "\n\nLeft out: " + "; ".join(left) + ". These limits are for a whole process, warm-up and all its steps, not for one step."
    return text + aside_note(found.aside)


def place(line):
    at = [f"rate {rate_text(line['rate'])}"] if line["contender"] not in RATELESS else []
    at += [f"length {line['length']:,}"] if line["length"] else []
    return " at " + ", ".join(at) if at else ""


def present(found):
    """The contenders that occur, ours first."""
    there = {name for contenders in found.values() for name in contenders}
    return [name for name in CONTENDERS if name in there]


# Each takes a Chosen and gives a table's Markdown, or None where nothing was measured for it.


def table_machine(chosen):
    rates = {}
    for line in chosen.lines:
        for name, value in (line.get("result", {}).get("machine") or {}).items():
            if isinstance(value, (int, float)):
                rates.setdefault((line["threads"], name), []).append(value)
    if not rates:
        return None
    threads, names = sorted({t for t, _ in rates}), list(dict.fromkeys(name for _, name in rates))
    words = {"gemm_gflops": "large GEMM, GF/s", "fma_gflops": "FMA, GF/s", "triad_l2_gbs": "triad in L2, GB/s", "triad_64mb_gbs": "triad over 64 MB, GB/s", "triad_dram_gbs": "triad in DRAM, GB/s"}
    rows = [[words.get(name, name), *(number(max(rates.get((t, name), [None]))) for t in threads)] for name in names]
    table = markdown(["best of all sittings", *(f"{t} thread{'s' if t > 1 else ''}" for t in threads)], rows)
    return table + aside_note([line for line in chosen.aside if line.get("result", {}).get("machine")])


def table_speed(mode):
    def render(chosen):
        found = cells(chosen, "activation", mode=mode)
        if not found:
            return None
        others = [name for name in present(found) if name != "seqboat"]
        head = ["recipe", "activation", "seqboat, ms", "tokens/s", "of the limit's speed", "of the reachable"]
        for name in others:
            head += [f"{CONTENDERS[name]}, ms", "to ours"]
        rows = []
        for (recipe, _, rate, *_), row in found.items():
            ours = row.get("seqboat")
            measured = ours is not None and ours.left_out is None
            cell = [recipe, rate_text(rate), of_cell(ours, "ms"), f"{1e6 / ours.us_per_token:,.0f}" if measured else "–"]
            cell += [f"{share:.0%}" if measured and share else "–" for share in ((ours.limit_share, ours.reachable_share) if measured else (None, None))]
            for name in others:
                cell += [of_cell(row.get(name), "ms"), ratio(row.get(name), ours, "ms")]
            rows.append(cell)
        return markdown(head, rows) + "\n\n" + notes(found)

    return render


def table_activation(what, unit):
    def render(chosen):
        texts = []
        for mode in dict.fromkeys(line["mode"] for line in chosen.lines if line["sweep"] == "activation"):
            found = cells(chosen, "activation", mode=mode)
            rates = sorted({at[2] for at in found if at[2] is not None})
            if not rates:
                continue
            low = min(rates, key=lambda rate: abs(rate - 0.1))
            rows = []
            for recipe, name in dict.fromkeys((at[0], name) for name in present(found) for at in found):
                by_rate = {at[2]: contenders.get(name) for at, contenders in found.items() if at[0] == recipe}
                # The share that the target speaks of; of the Transformer, to which rates mean nothing, there is none.
                share = "–" if name == "transformer" else ratio(by_rate.get(low), by_rate.get(rates[-1]), what).removesuffix(" ×")
                rows.append([recipe, CONTENDERS[name], *(of_cell(by_rate.get(rate), what) for rate in rates), *([share] if low != rates[-1] else [])])
            rows.sort(key=lambda row: list(dict.fromkeys(at[0] for at in found)).index(row[0]))
            head = [f"{mode}, {unit}", "", *map(rate_text, rates)] + ([f"{rate_text(low)} / {rate_text(rates[-1])}"] if low != rates[-1] else [])
            texts.append(markdown(head, rows) + "\n\n" + notes(found))
        return "\n\n".join(texts) or None

    return render


def table_threads(chosen):
    found = cells(chosen, "threads")
    if not found:
        return None
    counts = sorted({at[3] for at in found})
    rows = []
    for at in dict.fromkeys((recipe, mode, rate) for recipe, mode, rate, *_ in found):
        for name in present(found):
            by_count = {key[3]: contenders.get(name) for key, contenders in found.items() if key[:3] == at}
            if any(by_count.values()):
                rows.append([at[0], at[1], rate_text(at[2]), CONTENDERS[name], *(of_cell(by_count.get(n), "ms") for n in counts), ratio(by_count.get(counts[0]), by_count.get(counts[-1]), "ms")])
    return markdown(["recipe", "mode", "activation", "", *(f"{n} thread{'s' if n > 1 else ''}, ms" for n in counts), "gain"], rows) + "\n\n" + notes(found)


def table_simd(chosen):
    found = cells(chosen, "simd")
    if not found:
        return None
    targets = list(dict.fromkeys(at[6] for at in found))
    rows = []
    for at in dict.fromkeys((recipe, mode, rate) for recipe, mode, rate, *_ in found):
        by_target = {key[6]: contenders.get("seqboat") for key, contenders in found.items() if key[:3] == at}
        cell = [at[0], at[1], rate_text(at[2])]
        for target in targets:
            cell += [of_cell(by_target.get(target), "ms")] + ([ratio(by_target.get(target), by_target.get(targets[0]), "ms")] if target != targets[0] else [])
        rows.append(cell)
    head = ["recipe", "mode", "activation"]
    for target in targets:
        head += [f"{target}, ms"] + ([f"to {targets[0]}"] if target != targets[0] else [])
    return markdown(head, rows) + "\n\n" + notes(found)


def table_length(chosen):
    found = cells(chosen, "length")
    if not found:
        return None
    lengths, rows = sorted({at[5] for at in found}), []
    base = min(lengths, key=lambda length: abs(length - 4096))
    for at in dict.fromkeys((recipe, mode, rate) for recipe, mode, rate, *_ in found):
        for name in present(found):
            by_length = {key[5]: contenders.get(name) for key, contenders in found.items() if key[:3] == at}
            if any(by_length.values()):
                last = [n for n in lengths if by_length.get(n) is not None and by_length[n].left_out is None]
                growth = ratio(by_length[last[-1]], by_length.get(base), "us_per_token") if last and last[-1] != base else "–"
                rows.append([at[0], at[1], CONTENDERS[name], *(of_cell(by_length.get(n), "us_per_token") for n in lengths), growth])
    head = ["recipe", "mode", "µs a token", *(f"{n // 1024}k" if n % 1024 == 0 else f"{n:,}" for n in lengths), f"longest measured / {base:,}"]
    return markdown(head, rows) + "\n\n" + notes(found)


def table_kinds(chosen):
    found = cells(chosen, "kinds")
    rows = []
    for (recipe, mode, rate, *_), row in found.items():
        ours = row.get("seqboat")
        for name in present(found):
            cell = row.get(name)
            measured = cell is not None and cell.left_out is None
            share = lambda of, what: getattr(of, what) if of is not None and of.left_out is None else None
            text = [f"{value:.0%}" if value else "–" for value in (share(cell, "limit_share"), share(cell, "reachable_share"))]
            beside = [f"{share(cell, what) / share(ours, what):.0%}" if share(cell, what) and share(ours, what) else "–" for what in ("limit_share", "reachable_share")]
            at = f" at {rate_text(rate)}" if name == "seqboat" else ""
            rows.append([recipe, mode, CONTENDERS[name] + at, of_cell(cell, "ms"), of_cell(cell, "added_mb") if measured else "–", *text, *beside])
    if not rows:
        return None
    head = ["recipe", "mode", "layer", "ms", "MB added", "of its limit's speed", "of its reachable", "its share of the limit to seqboat's", "of the reachable"]
    return markdown(head, rows) + "\n\n" + notes(found)


# The name of each table: what makes it, and the sweep of benchmarks/compare that measures what is in it.
TABLES = {
    "machine": (table_machine, "activation"),
    "train": (table_speed("train"), "activation"),
    "forward": (table_speed("forward"), "activation"),
    "activation": (table_activation("ms", "ms"), "activation"),
    "memory": (table_activation("added_mb", "MB added"), "activation"),
    "threads": (table_threads, "threads"),
    "length": (table_length, "length"),
    "simd": (table_simd, "simd"),
    "kinds": (table_kinds, "kinds"),
}
