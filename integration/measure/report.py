"""Tables, marks, plots, and a comparison with an earlier run."""

import json
import math
import statistics
from pathlib import Path

from .usage import Run

# What a figure may lose against an earlier run before it is named.
LOSS = 0.10
COLUMNS = [("wall", "wall s", 1, ".2f"), ("cpu", "CPU s", 1, ".2f"), ("memory", "anonymous MiB", 1 << 20, ".0f"),
           ("written", "written MiB", 1 << 20, ".0f")]


def spread(values, unit):
    return "/".join(format(v, unit) for v in (min(values), statistics.median(values), max(values)))


def middle(runs, figure="wall"):
    return statistics.median(getattr(run, figure) for run in runs)


def compared(runs):
    """The median of what runs are compared by: their time, or their memory where that alone was measured."""
    return middle(runs, "memory" if runs[0].wall is None else "wall")


class Report:
    """All that was measured, by benchmark, and the marks that were looked at."""

    def __init__(self, machine):
        self.machine, self.benches, self.marks, self.lines = machine, {}, [], []

    def say(self, text=""):
        print(text)
        self.lines.append(text)

    def add(self, title, results, first="cairn"):
        """A table of runs, min/median/max; how many times as much as the first it takes."""
        self.benches[title] = results
        self.say(f"\n{title}")
        present = [column for column in COLUMNS
                   if any(getattr(run, column[0]) is not None for runs in results.values() for run in runs)]
        self.say(f"{'':20}" + "".join(f"  {head:>20}" for _, head, _, _ in present) + f"  {'times ' + first:>13}")
        base = compared(results.get(first) or next(iter(results.values())))
        for name, runs in results.items():
            cells = ""
            for field, _, unit, form in present:
                values = [getattr(run, field) for run in runs if getattr(run, field) is not None]
                cells += f"  {spread([v / unit for v in values], form) if values else '':>20}"
            self.say(f"{name:20}{cells}  {compared(runs) / base:>13.2f}")

    def mark(self, what, seen, wanted, least):
        """Notes whether a figure is at least, or at most, what is wanted."""
        met = seen >= wanted if least else seen <= wanted
        self.marks.append({"what": what, "seen": seen, "wanted": wanted, "met": met})
        self.say(f"{what}: {seen:.3g}, {'at least' if least else 'at most'} {wanted} wanted: "
                 f"{'met' if met else 'MISSED'}")

    def as_json(self):
        benches = {title: {name: [vars(run) for run in runs] for name, runs in results.items()}
                   for title, results in self.benches.items()}
        return {"machine": self.machine, "benches": benches, "marks": self.marks}

    def compare(self, earlier, first="cairn"):
        """How far ahead of its peers it was and is; what was lost is named."""
        self.say(f"\nagainst an earlier run on {earlier['machine']}: how far ahead of its peers, then and now")
        alone = []
        for title, results in self.benches.items():
            runs = {name: [Run(**run) for run in of] for name, of in earlier["benches"].get(title, {}).items()}
            now, then = ahead(results, first), ahead(runs, first)
            shared = now.keys() & then.keys()
            if not shared:
                alone += [(title, compared(runs[first]) / compared(results[first]))] if first in runs else []
                continue
            mean = lambda of: math.exp(statistics.fmean(math.log(of[name]) for name in shared))
            ratio = mean(now) / mean(then)
            self.say(f"{title:40} {mean(then):8.2f} {mean(now):8.2f} {ratio:8.2f}{lost(ratio)}")
        if not alone:
            return
        if earlier["machine"] != self.machine:
            self.say("what has no peers is compared on the same machine alone")
            return
        self.say("what has no peers: how many times as fast as then")
        for title, ratio in alone:
            self.say(f"{title:58} {ratio:8.2f}{lost(ratio)}")

    def save(self, out):
        """The tables as text and as Markdown, the figures as JSON, and plots, into a directory."""
        out = Path(out)
        out.mkdir(parents=True, exist_ok=True)
        (out / "results.json").write_text(json.dumps(self.as_json(), indent=1))
        (out / "table.txt").write_text("\n".join([self.machine, *self.lines, ""]))
        (out / "table.md").write_text(markdown(self))
        plot(self, out)

    def end(self):
        """What is missed; nothing when all is met."""
        missed = [mark["what"] for mark in self.marks if not mark["met"]]
        if self.marks:
            self.say(f"\n{len(self.marks) - len(missed)} of {len(self.marks)} marks met")
        for what in missed:
            self.say(f"MISSED: {what}")
        return missed


def ahead(results, first):
    """How many times as much as the first each other one takes."""
    medians = {name: compared(runs) for name, runs in results.items()}
    base = medians.get(first)
    return {name: median / base for name, median in medians.items() if base and name != first and median > 0}


def lost(ratio):
    return "  LOST" if ratio < 1 - LOSS else ""


def markdown(report, first="cairn"):
    """For each verb what the first takes, least, median and most, and the others as multiples of its median."""
    verbs = {}
    for title, results in report.benches.items():
        if first in results and len(results) > 1:
            verb, _, what = title.partition(", ")
            verbs.setdefault(verb, []).append((what, results))
    tables = [report.machine]
    for verb, rows in verbs.items():
        others = list(dict.fromkeys(name for _, results in rows for name in results if name != first))
        lines = [f"| {verb} | {first} | {' | '.join(name.replace('|', '&#124;') for name in others)} |",
                 f"|---|{'---|' * (len(others) + 1)}"]
        for what, results in rows:
            factors = ahead(results, first)
            cells = [f"{factors[name]:.2f}" if name in factors else "" for name in others]
            lines.append(f"| {what} | {taken(verb, what, results[first])} | {' | '.join(cells)} |")
        tables.append("\n".join(lines))
    return "\n\n".join(tables) + "\n"


def taken(verb, what, runs):
    """What runs took, in the unit that it is told in."""
    if runs[0].wall is None:
        return f"{spread([run.memory / (1 << 20) for run in runs], '.1f')} MiB"
    if verb == "rates":
        return f"{spread([1000 / run.wall for run in runs], ',.0f')} {'MB/s' if what.startswith('blob') else '/s'}"
    if middle(runs) < 0.5:
        return f"{spread([1000 * run.wall for run in runs], '.0f')} ms"
    return f"{spread([run.wall for run in runs], '.2f')} s"


def plot(report, out):
    """Bars of median wall time, or memory, as multiples of Cairn's; nothing of what has no peers."""
    import matplotlib
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    bars = []
    for title, results in reversed(report.benches.items()):
        if len(results) < 2:
            continue
        base = compared(results.get("cairn") or next(iter(results.values())))
        bars += [(f"{title}: {name}", compared(runs) / base, name) for name, runs in reversed(results.items())]
    if not bars:
        return
    labels, values, names = zip(*bars)
    figure, axes = plt.subplots(figsize=(9, 1 + 0.24 * len(bars)))
    colours = ["tab:green" if name.startswith("cairn") else "tab:gray" for name in names]
    axes.barh(labels, values, color=colours)
    axes.axvline(1, color="black", linewidth=0.6)
    axes.set_xscale("log")
    axes.set_xlabel("median wall time (memory: at its peak), as a multiple of Cairn's")
    axes.set_title(report.machine, fontsize=8)
    axes.tick_params(labelsize=7)
    figure.tight_layout()
    for form in "svg", "png":
        figure.savefig(out / f"plot.{form}", dpi=150)
