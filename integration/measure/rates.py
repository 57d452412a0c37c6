"""Calls a second over the socket, by the same clients in turns."""

import json
import subprocess

from .host import Disk, built, fail, need
from .peers import Cairnd, Containerd
from .usage import Run

# Beside collections: so long 99 of 100 of these calls may take, and each of them, in milliseconds.
WAIT_MOST, WAIT_LONGEST = 20, 100
WAITING = ("content write", "snapshot prepare", "snapshot commit", "snapshot stat")


def peer(daemon, name):
    return ["--peer", f"{name},{daemon.pid},{daemon.socket}"]


def collecting(large):
    """What the clients are told when garbage is to be collected meanwhile."""
    if not large:
        # A call may wait for a whole collection there, which takes seconds.
        return ["--snapshots", "20000", "--blobs", "50000", "--count", "40"]
    # For one in a hundred of ours there have to be some hundreds.
    return ["--snapshots", "50000", "--blobs", "200000", "--count", "200", "--count-others", "4"]


def run(options, report):
    need("containerd", "e2fsprogs")
    binaries = built()
    with Disk() as disk, Cairnd(disk.path, binaries) as cairnd, Containerd(disk.path) as containerd:
        out = disk.path / "rates.json"
        command = [binaries / "cairn-rates", "--rounds", str(options.rounds), "--only", options.only or "",
                   "--out", out, *peer(cairnd, "cairn"), *peer(containerd, "containerd")]
        if options.gc:
            command += collecting(options.large)
        ran = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        if ran.returncode != 0:
            fail(f"the clients gave up; cairnd said: {cairnd.said()}", "run it with --only OPERATION")
        report.say(f"\nrates{', while garbage is collected' if options.gc else ''}")
        report.say(ran.stdout)
        rows = json.loads(out.read_text())
    for row in rows:
        title = f"rates, {row['what']}, {row['clients']} client{'s' if row['clients'] > 1 else ''}"
        title += ' while collecting' if options.gc else ''
        # As seconds for a thousand calls, or a gigabyte, so that it compares as everything else.
        report.benches[title] = {name: [Run(1000 / rate) for rate in of] for name, of in row["rates"].items()}
        pairs = zip(row["rates"].get("cairn", []), row["rates"].get("containerd", []))
        ratios = sorted(ours / theirs for ours, theirs in pairs)
        if ratios:
            report.mark(f"{title}: times containerd", ratios[len(ratios) // 2], row["mark"], least=True)
        if options.gc and row["what"].startswith(WAITING):
            waits = row["waits"]["cairn"]
            report.mark(f"{title}: ms of 99 in 100", waits["p99"], WAIT_MOST, least=False)
            report.mark(f"{title}: ms of the longest", waits["max"], WAIT_LONGEST, least=False)
