"""An image on disk to unpacked layers."""

import os
import tempfile
from pathlib import Path

from . import images
from .host import PACKAGES, built, fail, need
from .peers import Containerd, skopeo_copy
from .report import middle
from .rounds import chosen, rounds
from .usage import measure

# How many times as fast as Debian's containerd, how many times a bare pipeline it may take, and bytes.
TIMES_CONTAINERD = 5
TIMES_BARE = 1.15
MEMORY_BYTES = 64 << 20


def contenders(image, binaries):
    """Each from an archive or from the layout, whatever it takes, to unpacked."""
    def cairn(place):
        return measure([binaries / "cairn", "--root", place / "store", "images", "import", image.archive])

    def containerd(place):
        with Containerd(place) as daemon:
            ctr = [*daemon.client(), "images", "import", "--base-name", "localhost/real", image.archive]
            return measure(ctr, [daemon.pid])

    def umoci(place):
        return measure(["umoci", "unpack", "--image", f"{image.layout}:real", place / "bundle"])

    def skopeo(place):
        return skopeo_copy(place, f"oci:{image.layout}:real")

    def bare(place):
        return measure([binaries / "cairn-bare", place, *image.layers()])

    def igzip_tar(place):
        """Inflating and unpacking alone, as many layers at once as there are cores; each into a directory."""
        script = ('d=$1; shift; for f; do echo "$f"; done | '
                  f'xargs -P {os.cpu_count()} -I % sh -c '
                  "'t=$(mktemp -d \"$0/XXXXXX\") && igzip -dc % | tar -x --numeric-owner -C \"$t\"' \"$d\"")
        return measure(["sh", "-c", script, "sh", place, *image.layers()])

    def dd(place):
        return measure(["dd", f"if={image.archive}", f"of={place}/copy", "bs=1M"])

    def sha256(_):
        return measure(["sha256sum", image.archive])

    return {"cairn": cairn, "containerd": containerd, "umoci": umoci, "skopeo": skopeo, "bare pipeline": bare,
            "igzip | tar": igzip_tar, "dd": dd, "sha256sum": sha256}


IMAGES = {
    "five": ("five layers, gzip", images.five),
    "zstd": ("five layers, zstd", images.five_zstd),
    "sixty": ("60 layers", images.sixty),
    "small": ("100,000 small files", images.small),
    "single": ("one layer of 1.2 GB", images.single),
}


def run(options, report):
    need("containerd", "umoci", "skopeo", "isal", *PACKAGES.values())
    binaries = built()
    names = options.images.split(",") if options.images else list(IMAGES)
    if unknown := [name for name in names if name not in IMAGES]:
        fail(f"no image {unknown[0]}", f"one of {', '.join(IMAGES)}")
    for kind in options.filesystems.split(","):
        for name in names:
            title = titled(name, kind)
            results = measured(options, name, binaries, kind)
            report.add(title, results)
            marks(report, title, results)


def titled(name, kind="ext4"):
    return f"import, {IMAGES[name][0]}, {kind}"


def measured(options, name, binaries, kind="ext4"):
    _, make = IMAGES[name]
    layout = images.five(options) if make is images.five else make()
    with tempfile.TemporaryDirectory(dir="/dev/shm") as work:
        image = images.Image(layout, Path(work) / "image")
        all_of = contenders(image, binaries)
        names = chosen(options, all_of)
        if make is images.five_zstd:
            # What does not know it, or is about gzip alone.
            names = [who for who in names if who not in ("umoci", "bare pipeline", "igzip | tar")]
        return rounds(options.rounds, {who: all_of[who] for who in names}, f"{titled(name, kind)}: ", kind)


def marks(report, title, results):
    cairn = results.get("cairn")
    if not cairn:
        return
    if "containerd" in results:
        report.mark(f"{title}: times as fast as containerd", middle(results["containerd"]) / middle(cairn),
                    TIMES_CONTAINERD, least=True)
    if "bare pipeline" in results:
        report.mark(f"{title}: times the bare pipeline", middle(cairn) / middle(results["bare pipeline"]),
                    TIMES_BARE, least=False)
    mark_memory(report, title, cairn)


def mark_memory(report, title, cairn):
    report.mark(f"{title}: MiB of anonymous memory", max(run.memory for run in cairn) / (1 << 20),
                MEMORY_BYTES >> 20, least=False)
