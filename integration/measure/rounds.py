"""Who is run when: all in turns, the first one another in each round."""

import sys

from .host import Disk, fail


def chosen(options, contenders):
    """The contenders that were asked for."""
    names = options.only.split(",") if options.only else list(contenders)
    if unknown := [name for name in names if name not in contenders]:
        fail(f"no contender {unknown[0]}", f"one of {', '.join(contenders)}")
    return names


def in_turns(count, names):
    """Pairs of round and name."""
    for number in range(count):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            yield number + 1, name


def rounds(count, contenders, what="", kind="ext4"):
    """Runs each as often, on a fresh file system each; the runs, by name."""
    results = {name: [] for name in contenders}
    for number, name in in_turns(count, list(contenders)):
        with Disk(kind) as disk:
            run = contenders[name](disk.path)
            run.written = disk.written()
        results[name].append(run)
        print(f"round {number} {what}{name}: {run.wall:.2f} s", file=sys.stderr)
    return results
