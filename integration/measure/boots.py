"""A daemon's start with nothing and with much in its store, and what memory it takes then."""

import subprocess
import time

from .host import Disk, built, need
from .peers import daemons
from .rates import peer
from .report import middle
from .rounds import in_turns
from .usage import Run, anonymous_bytes, cpu_seconds

IMAGES, SNAPSHOTS = 2000, 20_000
EMPTY, FULL = "boot, an empty store", f"boot, {IMAGES:,} images and {SNAPSHOTS:,} snapshots"
EMPTY_SECONDS, FULL_SECONDS = 0.2, 1.0


def run(options, report):
    need("containerd", "e2fsprogs")
    results = measured(options.rounds, built())
    for title in EMPTY, FULL:
        report.add(title, results[title])
    report.mark("boot, empty: ms until ready", middle(results[EMPTY]["cairn"]) * 1000, EMPTY_SECONDS * 1000,
                least=False)
    report.mark("boot, full: ms until ready", middle(results[FULL]["cairn"]) * 1000, FULL_SECONDS * 1000,
                least=False)


def measured(count, binaries):
    """Runs of both daemons with nothing and with much, by title."""
    contenders = daemons(binaries)
    empty, full = ({name: [] for name in contenders} for _ in range(2))
    with Disk() as disk:
        for _, name in in_turns(count, list(contenders)):
            place = disk.path / f"empty-{len(empty[name])}-{name}"
            place.mkdir()
            empty[name].append(boot(contenders[name](place)))
        for name in contenders:
            place = disk.path / name
            place.mkdir()
            with contenders[name](place) as daemon:
                fill = [binaries / "cairn-rates", "--fill", str(IMAGES), "--snapshots", str(SNAPSHOTS)]
                subprocess.run([*fill, *peer(daemon, name)], check=True)
        for _, name in in_turns(count, list(contenders)):
            full[name].append(boot(contenders[name](disk.path / name)))
    return {EMPTY: empty, FULL: full}


def boot(daemon):
    """Starts and stops it."""
    wall = daemon.start()
    cpu = cpu_seconds(daemon.pid)
    # What it does after it is ready is part of what it takes.
    time.sleep(0.5)
    memory = anonymous_bytes(daemon.pid)
    daemon.stop()
    return Run(wall, cpu, memory)
