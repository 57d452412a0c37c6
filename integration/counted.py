"""Says what a run of the tests has looked at: `counted.py LOG COUNTS`.

LOG is what cargo printed; COUNTS is where lanes have kept what they say (`integration/src/counts.rs`). Tests of
a hostile input bear the names of its rows (`crates/HOSTILE.md`): a letter for its kind and two digits, as
`p01_p02_...`.
"""

import re
import sys
from pathlib import Path

KINDS = {
    "p": "paths and links",
    "h": "tar headers",
    "w": "whiteouts",
    "z": "compression",
    "m": "manifests, configs and imports",
    "s": "the daemon, its store and snapshots",
    "k": "the kernel and mounts",
    "b": "bundles",
}
TEST = re.compile(r"^test (\S+)(?: - should panic)? \.\.\. (ok|FAILED|ignored)", re.M)
RESULT = re.compile(r"^test result: \S+ (\d+) passed; (\d+) failed; (\d+) ignored", re.M)
ROWS = re.compile(r"^(?:[a-z]\d\d_)+")


def hostile(tests):
    """Of each kind: which rows have tests, how many tests these are, and how many of them failed."""
    kinds = {kind: (set(), set(), set()) for kind in KINDS}
    for name, outcome in tests:
        found = ROWS.match(name.split("::")[-1])
        for row in found[0].strip("_").split("_") if found and outcome != "ignored" else []:
            if row[0] in kinds:
                rows, run, failed = kinds[row[0]]
                rows.add(row)
                run.add(name)
                if outcome == "FAILED":
                    failed.add(name)
    return kinds


def main(log, counts):
    """Prints all of it as Markdown."""
    text = Path(log).read_text(errors="replace")
    # The lines of single tests can be torn by what programs say that they start.
    sums = [sum(map(int, column)) for column in zip(*RESULT.findall(text))]
    passed, failed, left = sums or (0, 0, 0)
    print(f"\n{passed} tests passed, {failed} failed, {left} were left out.")
    lanes = sorted(Path(counts).glob("*")) if Path(counts).is_dir() else []
    for lane in lanes:
        print(f"\n{lane.name}:\n\n{lane.read_text().strip()}")
    print("\n| hostile input | rows | tests | failed |\n|---|---|---|---|")
    for kind, (rows, run, wrong) in hostile(TEST.findall(text)).items():
        print(f"| {KINDS[kind]} | {len(rows)} | {len(run)} | {len(wrong)} |")


if __name__ == "__main__":
    main(*sys.argv[1:])
