"""Work beside what others have yet to write: gigabytes of dirty pages on the same file system.

`syncfs(2)` waits for all of them, and so does the kernel when a writable overlay is unmounted (it syncs the
file system of the upper directory); who unpacks, starts or removes through either stands still for as long.
"""

import itertools
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from . import images
from .host import IMAGE_BYTES, Disk, built, fail, need
from .peers import daemons
from .report import middle
from .rounds import in_turns
from .starts import Ctr
from .starts import Cairn as Starts
from .usage import Run, timed

MEMORY = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
BYTES = min(8 << 30, MEMORY // 3)
# Ext4 begins to write when less than twice of what is dirty would be free (`ext4_nonda_switch`).
DISK_BYTES = max(IMAGE_BYTES, 4 * BYTES)
# How many times as long as with nothing dirty.
SLOWER = 1.10
STARTS = 5
# One by itself takes little longer than its client.
REMOVALS = 10
OPERATIONS = {"unpack": "an image of five layers to unpacked", "stop": "a container from its start to its removal",
              "commit": "a thousand files to a committed snapshot", "remove": "a snapshot of a thousand files removed"}
# A commit of what a client wrote has to wait until it is on the disk: nothing could make it again.
MARKED = [what for what in OPERATIONS if what != "commit"]


class Unwritten:
    """Nothing is written back unasked, as long as it is entered: what is dirty stays so until somebody syncs."""

    # More than there is memory, so that nobody who writes is held up either.
    WANTED = {"dirty_bytes": 4 * MEMORY, "dirty_background_bytes": 2 * MEMORY, "dirty_writeback_centisecs": 0}
    SETTINGS = Path("/proc/sys/vm")

    def __enter__(self):
        # Else what the whole machine has would stay so.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
        before = [*self.WANTED, "dirty_ratio", "dirty_background_ratio"]
        self.before = {name: (self.SETTINGS / name).read_text().strip() for name in before}
        self.write(self.WANTED)
        return self

    def __exit__(self, *_):
        # Of a ratio and its bytes one is always 0; writing one sets the other to that (kernel, sysctl/vm).
        self.write({name: value for name, value in self.before.items()
                    if value != "0" or name.endswith("centisecs")})

    def write(self, values):
        for name, value in values.items():
            (self.SETTINGS / name).write_text(str(value))


def dirty():
    """Bytes of all file systems that are yet to be written."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("Dirty:"):
            return int(line.split()[1]) << 10
    fail("the kernel does not say what is dirty", "look at /proc/meminfo")


def spoil(file):
    subprocess.run(f"head -c {BYTES} /dev/zero > {file}", shell=True, check=True)
    if dirty() < BYTES * 9 // 10:
        fail("the kernel wrote back what was to stay dirty", "free some memory")


class Cairn(Starts):
    def stop(self):
        bundle = f"{self.dir}-{next(self.numbers)}"
        name = bundle.strip("/").replace("/", "-")
        script = ('bundle=$1; id=$2; shift 2; "$@" bundle create localhost/real:real "$bundle" -- /bin/true; '
                  'runc run -b "$bundle" "$id" < /dev/null; exec "$@" bundle rm "$bundle"')
        return timed(["sh", "-ec", script, "sh", bundle, name, *self.command, "-q"])


class Containers(Ctr):
    def stop(self):
        return self.start()[1]


def run(options, report):
    need("containerd", "runc", "e2fsprogs")
    binaries = built()
    layout = images.five(options)
    made = daemons(binaries)
    clients = {"cairn": lambda place, daemon: Cairn(daemon.client(), place / "bundle"),
               "containerd": lambda _, daemon: Containers(daemon.client())}
    ways = {who + ("" if spoilt else ", nothing dirty"): (who, spoilt)
            for who, spoilt in itertools.product(made, (True, False))}
    results = {what: {name: [] for name in ways} for what in OPERATIONS}
    left = {name: [] for name in made}
    with tempfile.TemporaryDirectory(dir="/dev/shm") as work, Unwritten():
        archive = images.Image(layout, Path(work) / "image").archive
        for _, name in in_turns(options.rounds, list(ways)):
            who, spoilt = ways[name]
            # Without free memory the kernel writes back what is dirty, to have some.
            (Unwritten.SETTINGS / "drop_caches").write_text("1")
            with Disk(size=DISK_BYTES) as disk, made[who](disk.path) as daemon:
                foreign = disk.path / "foreign"
                if spoilt:
                    spoil(foreign)
                took = once(clients[who](disk.path, daemon), daemon, disk.path, archive)
                if spoilt:
                    left[who].append(dirty())
                    # Dropped, not written: the next run is to have the memory.
                    foreign.unlink()
            for what, seconds in took.items():
                results[what][name].append(Run(seconds))
    for what, about in OPERATIONS.items():
        report.add(f"dirty, {about}", results[what])
    for who, seen in left.items():
        report.say(f"dirty, {who}: {min(seen) / 2**30:.1f} of {BYTES / 2**30:.1f} GiB were still to be written at the end")
    for what in MARKED:
        slower = middle(results[what]["cairn"]) / middle(results[what]["cairn, nothing dirty"])
        report.mark(f"dirty, {OPERATIONS[what]}: times as long", slower, SLOWER, least=False)


def once(client, daemon, place, archive):
    """Seconds of each operation."""
    quiet = ["-q"] if daemon.name == "cairnd" else []
    bring = [*daemon.client(), *quiet, "images", "import", "--base-name", "localhost/real", archive]
    took = {"unpack": timed(bring)}
    client.bring(archive)
    took["stop"] = sum(client.stop() for _ in range(STARTS)) / STARTS
    return took | snapshot(daemon, place)


def snapshot(daemon, place):
    """Of ones without a parent, which are bound and no overlay: unmounting them syncs nothing."""
    ctr = ["ctr", "--address", daemon.socket, "snapshots"]
    at = place / "mnt"
    at.mkdir()
    for number in range(REMOVALS):
        mounts = subprocess.run([*ctr, "prepare", "--target", at, f"many-{number}"], check=True, capture_output=True,
                                text=True).stdout
        subprocess.run(["sh", "-e", "-c", mounts], check=True)
        subprocess.run("seq 1000000 | split -a 4 -l 1000", shell=True, check=True, cwd=at)
        subprocess.run(["umount", at], check=True)
    numbers = range(REMOVALS)
    return {"commit": sum(timed([*ctr, "commit", f"made-{n}", f"many-{n}"]) for n in numbers) / REMOVALS,
            "remove": sum(timed([*ctr, "rm", f"made-{n}"]) for n in numbers) / REMOVALS}
