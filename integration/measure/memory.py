"""Anonymous memory: of imports, a pull and served clients at its peak, of idle daemons as it is then.

What this run has measured already is shown again and not run again.
"""

import subprocess
import tempfile
from copy import copy
from pathlib import Path

from . import boots, images, imports, pulls
from .host import Disk, built, fail, need
from .peers import Registry, daemons
from .rates import peer
from .rounds import in_turns
from .usage import Run, Sampler

IMPORTS = ["five", "small", "single"]
CLIENTS = 16


def run(options, report):
    need("containerd", "skopeo", "docker-registry", "e2fsprogs")
    binaries = built()
    options = copy(options)
    options.only = "cairn,containerd"
    if options.verb == "all":
        options.rounds = 1
    for name in IMPORTS:
        title = imports.titled(name)
        known = report.benches.get(title)
        results = known or imports.measured(options, name, binaries)
        add(report, title, results)
        if "cairn" in results and not known:
            imports.mark_memory(report, title, results["cairn"])
    add(report, pulls.titled("gzip"), report.benches.get(pulls.titled("gzip")) or pulled(options, binaries))
    known = boots.EMPTY in report.benches
    started = report.benches if known else boots.measured(options.rounds, binaries)
    for title in boots.EMPTY, boots.FULL:
        add(report, title, started[title])
    add(report, f"a daemon with {CLIENTS} clients", served(options.rounds, binaries))
    if options.large:
        pulls.run(options, report)


def add(report, title, results):
    peaks = {name: [Run(memory=run.memory) for run in runs] for name, runs in results.items()}
    report.add(f"memory, {title}", peaks)


def pulled(options, binaries):
    """The five layers from a registry."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as work, Registry(Path(work)) as registry:
        registry.push(images.five(options), "gzip")
        return pulls.measured(options, pulls.titled("gzip"), f"{registry.host}/bench/real:gzip", binaries)


def served(count, binaries):
    """Both daemons while as many clients do all that `rates` measures."""
    contenders = daemons(binaries)
    results = {name: [] for name in contenders}
    for _, name in in_turns(count, list(contenders)):
        with Disk() as disk, contenders[name](disk.path) as daemon, Sampler([daemon.pid]) as sampler:
            clients = [binaries / "cairn-rates", "--rounds", "1", "--clients", str(CLIENTS), *peer(daemon, name)]
            if subprocess.run(clients, stdout=subprocess.DEVNULL).returncode != 0:
                fail(f"the clients gave up; {name} said: {daemon.said()}", "integration/bench rates, to see which")
        results[name].append(Run(memory=sampler.peak))
    return results
