"""Removing: a snapshot of very many files, and an image with all that nothing else needs."""

import os
import subprocess
import tempfile
import time
from pathlib import Path

from . import images
from .host import Disk, built, need
from .peers import Cairnd, Containerd, daemons, podman
from .report import middle
from .rounds import chosen, in_turns
from .usage import Run, timed

FILES = 1_000_000
ANSWER_SECONDS = 0.050


def run_rm(options, report):
    """A snapshot of a million files: until the answer, and until its files are gone."""
    need("containerd", "e2fsprogs")
    binaries = built()
    contenders = daemons(binaries)
    answered, gone = {name: [] for name in contenders}, {name: [] for name in contenders}
    for _, name in in_turns(options.rounds, list(contenders)):
        with Disk(options=["-N", str(FILES + 200_000)]) as disk, contenders[name](disk.path) as daemon:
            ctr = ["ctr", "--address", daemon.socket, "snapshots"]
            mounts = subprocess.run([*ctr, "prepare", "--target", disk.path / "mnt", "many"], check=True,
                                    capture_output=True, text=True).stdout
            (disk.path / "mnt").mkdir()
            subprocess.run(["sh", "-e", "-c", mounts], check=True)
            fill(disk.path / "mnt")
            subprocess.run(["umount", disk.path / "mnt"], check=True)
            full = files(disk.path)
            begun = time.monotonic()
            answered[name].append(Run(timed([*ctr, "rm", "many"])))
            while files(disk.path) > full - FILES:
                time.sleep(0.05)
            gone[name].append(Run(time.monotonic() - begun))
    report.add("rm, a snapshot of a million files: the answer", answered)
    report.add("rm, a snapshot of a million files: all gone", gone)
    # ctr itself takes a part of it, with any daemon.
    report.mark("rm: ms until the answer, by ctr", middle(answered["cairn"]) * 1000, ANSWER_SECONDS * 1000, least=False)


def files(path):
    seen = os.statvfs(path)
    return seen.f_files - seen.f_ffree


def fill(dir):
    """A thousand directories of a thousand empty files, by as many processes as there are cores."""
    script = 'd=$1; shift; for n; do mkdir "$d/$n" && cd "$d/$n" && seq 1000 | xargs touch; done'
    subprocess.run(f"seq {FILES // 1000} | xargs -P {os.cpu_count()} -n 50 sh -ec '{script}' sh {dir}", shell=True,
                   check=True)


def run_gc(options, report):
    """An image of sixty layers removed, with all that nothing else needs."""
    need("containerd", "podman", "e2fsprogs")
    binaries = built()

    def cairn(place, image):
        with Cairnd(place, binaries) as daemon:
            command = [*daemon.client(), "-q"]
            subprocess.run([*command, "images", "import", "--base-name", "localhost/real", image.archive], check=True,
                           stdout=subprocess.DEVNULL)
            script = ' "$@" images rm localhost/real:real && exec "$@" gc'
            return Run(timed(["sh", "-ec", script, "sh", *command]))

    def containerd(place, image):
        with Containerd(place) as daemon:
            ctr = [*daemon.client(), "images"]
            subprocess.run([*ctr, "import", "--base-name", "localhost/real", image.archive], check=True,
                           stdout=subprocess.DEVNULL)
            name = subprocess.run([*ctr, "ls", "-q"], check=True, capture_output=True, text=True).stdout.split()[0]
            return Run(timed([*ctr, "rm", "--sync", name]))

    def by_podman(place, image):
        command = podman(place)
        pulled = subprocess.run([*command, "pull", "-q", f"oci:{image.layout}:real"], check=True,
                                capture_output=True, text=True).stdout.strip()
        return Run(timed([*command, "rmi", pulled]))

    contenders = {"cairn": cairn, "containerd": containerd, "podman": by_podman}
    results = {name: [] for name in chosen(options, contenders)}
    with tempfile.TemporaryDirectory(dir="/dev/shm") as work:
        image = images.Image(images.sixty(), Path(work) / "image")
        for _, name in in_turns(options.rounds, list(results)):
            with Disk() as disk:
                results[name].append(contenders[name](disk.path, image))
    report.add("gc, an image of sixty layers removed", results)
    for name in results.keys() - {"cairn"}:
        report.mark(f"gc: times as fast as {name}", middle(results[name]) / middle(results["cairn"]), 1, least=True)
