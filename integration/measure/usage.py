"""What a command takes: seconds, processor, memory, bytes written."""

import os
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from .host import fail

TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Run:
    """One run of one contender. What was not measured is None."""

    wall: float | None = None
    cpu: float | None = None
    memory: int | None = None
    written: int | None = None


def stat_fields(pid):
    text = Path(f"/proc/{pid}/stat").read_text()
    return text[text.rindex(")") + 2:].split()


def family(roots):
    """The given processes and all their descendants."""
    parents = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                parents.setdefault(int(stat_fields(entry)[1]), []).append(int(entry))
            except (OSError, ValueError):
                pass
    found, queue = [], list(roots)
    while queue:
        pid = queue.pop()
        found.append(pid)
        queue.extend(parents.get(pid, []))
    return found


def anonymous_bytes(pid):
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) << 10
    except OSError:
        pass
    return 0


def cpu_seconds(pid):
    """Of a living process and the children it has waited for."""
    return sum(int(field) for field in stat_fields(pid)[11:15]) / TICKS


class Sampler(threading.Thread):
    """The peak of anonymous memory of process trees, for as long as it is entered."""

    def __init__(self, roots):
        super().__init__(daemon=True)
        self.roots, self.peak, self.stop = roots, 0, threading.Event()

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        self.join()

    def run(self):
        while not self.stop.wait(0.02):
            self.peak = max(self.peak, sum(map(anonymous_bytes, family(self.roots))))


def measure(command, daemons=()):
    """Runs a command; what it and the daemons took."""
    before = sum(map(cpu_seconds, daemons))
    start = time.monotonic()
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    drained = []
    reader = threading.Thread(target=lambda: drained.append(child.stderr.read()))
    with Sampler([child.pid, *daemons]) as sampler:
        reader.start()
        _, status, usage = os.wait4(child.pid, 0)
        wall = time.monotonic() - start
    child.returncode = os.waitstatus_to_exitcode(status)
    reader.join()
    if child.returncode != 0:
        fail(f"{command[0]} failed: {drained[0].decode(errors='replace')[-2000:]}", "run it by hand")
    cpu = usage.ru_utime + usage.ru_stime + sum(map(cpu_seconds, daemons)) - before
    return Run(wall, cpu, sampler.peak)


def timed(command, **options):
    """Seconds that a short command takes, and nothing else of it."""
    start = time.monotonic()
    ran = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, **options)
    wall = time.monotonic() - start
    if ran.returncode != 0:
        fail(f"{command[0]} failed: {ran.stderr.decode(errors='replace')[-2000:]}", "run it by hand")
    return wall
