"""An image of a registry to unpacked layers."""

import os
import statistics
import tempfile
from pathlib import Path

from . import images
from .host import Disk, built, need, shell
from .peers import Containerd, Registry, Throttle, podman, skopeo_copy
from .report import middle
from .rounds import chosen, rounds
from .usage import measure

# How many times as fast as each peer, and how many times its own import a pull may take.
TIMES_PEER = 3
TIMES_IMPORT = 1.2
SLOW_RATE = 50_000_000
LARGE_BYTES = 20 << 30
LARGE_MEMORY_BYTES = 128 << 20


def pull_cairn(place, name, binaries):
    return measure([binaries / "cairn", "--root", place / "store", "images", "pull", "--plain-http", name])


def pull_containerd(place, name, _):
    with Containerd(place) as daemon:
        return measure([*daemon.client(), "images", "pull", "--plain-http", name], [daemon.pid])


def pull_skopeo(place, name, _):
    return skopeo_copy(place, f"docker://{name}", "--src-tls-verify=false")


def pull_podman(place, name, _):
    return measure([*podman(place), "pull", "-q", "--tls-verify=false", name])


CONTENDERS = {"cairn": pull_cairn, "containerd": pull_containerd, "skopeo": pull_skopeo, "podman": pull_podman}


def run(options, report):
    need("containerd", "skopeo", "podman", "docker-registry", "e2fsprogs")
    binaries = built()
    with tempfile.TemporaryDirectory(dir="/dev/shm") as work, Registry(Path(work)) as registry:
        if options.large:
            return large(report, registry, Path(work), binaries)
        for packing, layout in ("gzip", images.five(options)), ("zstd", images.five_zstd()):
            image = images.Image(layout, Path(work) / packing)
            registry.push(image.layout, packing)
            one(options, report, packing, f"{registry.host}/bench/real:{packing}", binaries, image)
        with Throttle(binaries / "cairn-throttle", registry, SLOW_RATE) as slow:
            one(options, report, "gzip, 50 MB/s a connection", f"{slow.host}/bench/real:gzip", binaries)


def one(options, report, title, name, binaries, image=None):
    title = titled(title)
    results = measured(options, title, name, binaries, image)
    report.add(title, results)
    marks(report, title, results)


def titled(name):
    return f"pull, {name}"


def measured(options, title, name, binaries, image=None):
    runs = {who: lambda place, pull=CONTENDERS[who]: pull(place, name, binaries)
            for who in chosen(options, CONTENDERS)}
    if image and "cairn" in runs:
        runs["cairn import"] = lambda place: measure(
            [binaries / "cairn", "--root", place / "store", "images", "import", image.archive])
    return rounds(options.rounds, runs, f"{title}: ")


def marks(report, title, results):
    cairn = results.get("cairn")
    if not cairn:
        return
    for who in results.keys() & (CONTENDERS.keys() - {"cairn"}):
        report.mark(f"{title}: times as fast as {who}", middle(results[who]) / middle(cairn), TIMES_PEER, least=True)
    if "cairn import" in results:
        report.mark(f"{title}: times its own import", middle(cairn) / middle(results["cairn import"]), TIMES_IMPORT,
                    least=False)
    busy = statistics.median(run.cpu / run.wall / os.cpu_count() for run in cairn)
    report.say(f"cores in use by cairn alone: {busy:.0%}")


def large(report, registry, work, binaries):
    """20 GiB, most of them holes, by Cairn alone."""
    folder = work / "large"
    folder.mkdir()
    with open(folder / "file", "wb") as file:
        file.truncate(LARGE_BYTES)
        for offset in range(0, LARGE_BYTES, LARGE_BYTES // 64):
            file.seek(offset)
            file.write(os.urandom(8 << 20))
    layer, layout = work / "layer.tar.gz", work / "layout"
    shell(f"tar --sparse --format=pax --numeric-owner -C {folder} -cf - file | gzip -1 >{layer}")
    (folder / "file").unlink()
    diff = shell(f"gzip -dc {layer} | sha256sum", capture_output=True, text=True).stdout.split()[0]
    (layout / "blobs/sha256").mkdir(parents=True)
    described = images.blob_of_file(layout, f"{images.OCI}.layer.v1.tar+gzip", layer)
    images.image(layout, [(described, f"sha256:{diff}")])
    registry.push(layout, "large")
    with Disk() as disk:
        pulled = pull_cairn(disk.path, f"{registry.host}/bench/real:large", binaries)
    report.add("pull, 20 GiB", {"cairn": [pulled]})
    report.mark("pull, 20 GiB: MiB of anonymous memory", pulled.memory / (1 << 20), LARGE_MEMORY_BYTES >> 20,
                least=False)
