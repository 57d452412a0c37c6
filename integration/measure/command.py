"""What the command line says."""

import argparse
import json
import os
import sys

from . import boots, dirty, imports, memory, micro, pulls, rates, removals, starts
from .host import described, fail, need, prefer, target
from .report import Report

VERBS = {
    "import": (imports.run, "an image on disk to unpacked layers"),
    "pull": (pulls.run, "an image of a registry to unpacked layers"),
    "rates": (rates.run, "calls a second over the socket"),
    "start": (starts.run, "an unpacked image to a container that has run"),
    "rm": (removals.run_rm, "a snapshot of a million files"),
    "gc": (removals.run_gc, "an image with all that nothing else needs"),
    "boot": (boots.run, "a daemon until it is ready, and its memory"),
    "dirty": (dirty.run, "the same beside gigabytes that are yet to be written"),
    "memory": (memory.run, "memory that imports, a pull and daemons take"),
    "micro": (micro.run, "parts of Cairn, each for itself"),
}


def parsed(text):
    parser = argparse.ArgumentParser(prog="bench", description=text,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    every = {name: verbs.add_parser(name, help=what) for name, (_, what) in VERBS.items()}
    every["all"] = verbs.add_parser("all", help="all of these, the pull of 20 GiB among them")
    for verb in every.values():
        verb.add_argument("--rounds", type=int, default=5)
        verb.add_argument("--only", help="contenders, by comma; of rates, operations that begin so")
        verb.add_argument("--image", help="an OCI layout with the tag `real` instead of the five layers")
        verb.add_argument("--out", help="where tables, figures and plots go; bench in the target directory")
        verb.add_argument("--baseline", metavar="FILE", help="a results.json to compare with")
        verb.add_argument("--containerd", metavar="DIR", help="where a containerd and its ctr are, instead of Debian's")
    for name in "import", "all":
        every[name].add_argument("--images", help=f"of {', '.join(imports.IMAGES)}; all by default")
        every[name].add_argument("--filesystems", default="ext4", help="ext4, xfs, btrfs, by comma")
    every["pull"].add_argument("--large", action="store_true", help="an image of 20 GiB, by Cairn alone")
    every["memory"].add_argument("--large", action="store_true", help="and a pull of 20 GiB, by Cairn alone")
    every["memory"].set_defaults(rounds=1)
    every["micro"].add_argument("filter", nargs="?", metavar="FILTER", help="a regular expression for their names")
    every["micro"].add_argument("--quick", action="store_true", help="a first look: few runs, figures that vary")
    every["rates"].add_argument("--gc", action="store_true", help="in a large store, while garbage is collected")
    every["rates"].add_argument("--large", action="store_true", help="with --gc, in one of 200,000 blobs")
    options = parser.parse_args()
    for name in "large", "gc", "quick":
        vars(options).setdefault(name, False)
    vars(options).setdefault("filter", None)
    return options


def main(text):
    options = parsed(text)
    if os.geteuid() != 0:
        fail("cannot measure: mounting needs root", f"sudo {sys.argv[0]}")
    earlier = json.load(open(options.baseline)) if options.baseline else None
    need("python3-matplotlib")
    report = Report(described())
    report.say(report.machine)
    if options.containerd:
        report.say(f"beside {prefer(options.containerd, 'containerd', 'ctr')}")
    for name in VERBS if options.verb == "all" else [options.verb]:
        VERBS[name][0](options, report)
    if options.verb == "all":
        options.large = True
        pulls.run(options, report)
    if earlier:
        report.compare(earlier)
    missed = report.end()
    out = options.out or target() / "bench"
    report.save(out)
    print(f"figures and plots: {out}", file=sys.stderr)
    sys.exit(1 if missed else 0)
