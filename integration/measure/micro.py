"""The parts that Cairn consists of, each for itself, by criterion. Nobody else's have the same seams."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from .host import Disk, fail, need, shell
from .usage import Run

BYTES = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")]
COUNTS = [(1e6, "M"), (1e3, "k")]
SECONDS = [(1, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns")]


def run(options, report):
    need("e2fsprogs")
    command = [program(), "--bench", "--noplot"]
    if options.quick:
        command.append("--quick")
    if options.filter:
        command.append(options.filter)
    with Disk() as disk, tempfile.TemporaryDirectory(dir="/dev/shm") as home:
        places = {"TMPDIR": str(disk.path), "CRITERION_HOME": home}
        # What it says of its progress is none of the figures.
        ran = subprocess.run(command, stdout=sys.stderr, env=os.environ | places)
        if ran.returncode != 0:
            fail("a benchmark gave up; it said why above", "run it by `micro` and its name")
        measured = figures(Path(home))
    if not measured:
        fail(f"no benchmark matches {options.filter!r}", "integration/bench micro, for all of them")
    report.say("\nmicro: the median, the fastest and the slowest, and what the median is a second")
    for what, runs, throughput in measured:
        low, middle, high = (scaled(run.wall, SECONDS) for run in runs)
        report.say(f"{what:34}  {middle:>9}  {low:>9} .. {high:<9}  {rate(throughput, runs[1].wall):>12}")
        report.benches[f"micro, {what}"] = {"cairn": runs}


def program():
    """Builds it as what is measured is installed; where it is then."""
    built = shell("build bench --profile dist --locked -q -p cairn-micro --features micro --bench micro --no-run"
                  " --message-format json", stdout=subprocess.PIPE, text=True).stdout
    made = [json.loads(line) for line in built.splitlines()]
    return next(one["executable"] for one in made if one.get("executable"))


def figures(home):
    """Of each benchmark: its name, the fastest, the median and the slowest run, and what one run does."""
    found = []
    for file in home.rglob("new/benchmark.json"):
        read = lambda name: json.loads((file.parent / f"{name}.json").read_text())
        sample, median = read("sample"), read("estimates")["median"]["point_estimate"]
        each = [time / times for time, times in zip(sample["times"], sample["iters"])]
        runs = [Run(nanos / 1e9) for nanos in (min(each), median, max(each))]
        found.append((file.stat().st_mtime_ns, read("benchmark")["full_id"], runs, read("benchmark")["throughput"]))
    return [of[1:] for of in sorted(found, key=lambda of: of[0])]


def rate(throughput, seconds):
    (unit, amount), = throughput.items()
    if unit == "Bytes":
        return f"{scaled(amount / seconds, BYTES)}/s"
    return f"{scaled(amount / seconds, COUNTS)}/s"


def scaled(value, units):
    """Three figures of it, by the largest unit of which there is one."""
    size, name = next((of for of in units if value >= of[0]), (1, "") if units is COUNTS else units[-1])
    value /= size
    return f"{value:.{max(0, 3 - len(str(int(value))))}f} {name}".strip()
