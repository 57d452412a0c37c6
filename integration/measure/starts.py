"""From an unpacked image to a container that has run."""

import itertools
import subprocess

from . import images
from .host import Disk, built, need
from .peers import Cairnd, Containerd, podman
from .report import middle
from .rounds import in_turns
from .usage import Run, timed

# Seconds that a bundle of an unpacked image may take.
BUNDLE_SECONDS = 0.030
TIMES = 20


def run(options, report):
    need("containerd", "podman", "runc", "e2fsprogs")
    binaries = built()
    layout = images.five(options)
    with Disk() as disk, Cairnd(disk.path, binaries) as cairnd, Containerd(disk.path) as containerd:
        archive = disk.path / "image.tar"
        subprocess.run(["tar", "-C", layout, "-cf", archive, "blobs", "index.json", "oci-layout"], check=True)
        alone = [binaries / "cairn", "--root", disk.path / "store"]
        ways = {"cairn": Cairn(alone, disk.path / "alone"),
                "cairn, by its daemon": Cairn(cairnd.client(), disk.path / "served"),
                "containerd": Ctr(containerd.client()), "podman": Podman(podman(disk.path), layout)}
        for way in ways.values():
            way.bring(archive)
        results, bundles = {name: [] for name in ways}, {}
        for _, name in in_turns(TIMES, list(ways)):
            made, ran = ways[name].start()
            results[name].append(Run(made + ran))
            bundles.setdefault(name, []).append(Run(made))
    report.add("start, unpacked image to a container that has run", results)
    report.add("start, the bundle alone", {name: bundles[name] for name in ways if name.startswith("cairn")})
    for name in ways:
        if name.startswith("cairn"):
            report.mark(f"start, {name}: ms for a bundle", middle(bundles[name]) * 1000, BUNDLE_SECONDS * 1000,
                        least=False)
        else:
            report.mark(f"start: times as fast as {name}", middle(results[name]) / middle(results["cairn"]), 1,
                        least=True)


class Cairn:
    """A bundle made by Cairn, run by runc; both are removed after the time was taken."""

    def __init__(self, command, dir):
        self.command, self.dir, self.numbers = command, dir, itertools.count()

    def bring(self, archive):
        subprocess.run([*self.command, "-q", "images", "import", "--base-name", "localhost/real", archive], check=True,
                       stdout=subprocess.DEVNULL)

    def start(self):
        bundle = f"{self.dir}-{next(self.numbers)}"
        made = timed([*self.command, "-q", "bundle", "create", "localhost/real:real", bundle, "--", "/bin/true"])
        ran = timed(["runc", "run", "-b", bundle, bundle.strip("/").replace("/", "-")], stdin=subprocess.DEVNULL)
        subprocess.run([*self.command, "-q", "bundle", "rm", bundle], check=True, stdout=subprocess.DEVNULL)
        return made, ran


class Ctr:
    def __init__(self, command):
        self.command, self.numbers = command, itertools.count()

    def bring(self, archive):
        subprocess.run([*self.command, "images", "import", "--base-name", "localhost/real", archive], check=True,
                       stdout=subprocess.DEVNULL)
        listed = subprocess.run([*self.command, "images", "ls", "-q"], check=True, capture_output=True, text=True)
        self.image = listed.stdout.split()[0]

    def start(self):
        return 0, timed([*self.command, "run", "--rm", self.image, f"start-{next(self.numbers)}", "/bin/true"])


class Podman:
    def __init__(self, command, layout):
        self.command, self.layout = command, layout

    def bring(self, _):
        pulled = subprocess.run([*self.command, "pull", "-q", f"oci:{self.layout}:real"], check=True,
                                capture_output=True, text=True)
        self.image = pulled.stdout.strip()

    def start(self):
        # Its default limits are above what some machines allow.
        limits = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"]
        # And by the runtime that all of them use.
        return 0, timed([*self.command, "--runtime", "runc", "--cgroup-manager", "cgroupfs", "run", "--rm", "--network", "none",
                         *limits, self.image, "/bin/true"])
