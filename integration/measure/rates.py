"""Calls a second over the socket, by the same clients in turns."""

import json
import subprocess

from .host import Disk, built, fail, need
from .peers import Cairnd, Containerd
from .usage import Run


def peer(daemon, name):
    return ["--peer", f"{name},{daemon.pid},{daemon.socket}"]


def run(options, report):
    need("containerd", "e2fsprogs")
    binaries = built()
    with Disk() as disk, Cairnd(disk.path, binaries) as cairnd, Containerd(disk.path) as containerd:
        out = disk.path / "rates.json"
        command = [binaries / "cairn-rates", "--rounds", str(options.rounds), "--only", options.only or "",
                   "--out", out, *peer(cairnd, "cairn"), *peer(containerd, "containerd")]
        if options.gc:
            # A call may wait for a whole collection there, which takes seconds.
            command += ["--snapshots", "20000", "--blobs", "50000", "--count", "40"]
        ran = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        if ran.returncode != 0:
            fail(f"the clients gave up; cairnd said: {cairnd.said()}", "run it with --only OPERATION")
        report.say(f"\nrates{', while garbage is collected' if options.gc else ''}")
        report.say(ran.stdout)
        rows = json.loads(out.read_text())
    for row in rows:
        title = f"{row['what']}, {row['clients']} client{'s' if row['clients'] > 1 else ''}"
        title = f"rates, {title}{' while collecting' if options.gc else ''}"
        # As seconds for a thousand calls, or a gigabyte, so that it compares as everything else.
        report.benches[title] = {name: [Run(1000 / rate) for rate in of] for name, of in row["rates"].items()}
        pairs = zip(row["rates"].get("cairn", []), row["rates"].get("containerd", []))
        ratios = sorted(ours / theirs for ours, theirs in pairs)
        if ratios:
            report.mark(f"{title}: times containerd", ratios[len(ratios) // 2], row["mark"], least=True)
