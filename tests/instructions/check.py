#!/usr/bin/env python3
"""Counts the instructions of the hot pieces and compares them with those that were recorded in counts.txt.

    tests/instructions/check.py                    # what CI runs
    tests/instructions/check.py --record           # writes counts.txt anew: for a change that is meant to cost, or that saves
    tests/instructions/check.py -p forebay-log     # counts one crate only

Each piece runs twice under callgrind, the second time twice as often: the difference is free of start-up and of what a
piece makes ready. Instructions, unlike times, are the same on a busy machine. They do depend on the compiler, and a
little on the processor (which memcpy, which SIMD), hence the tolerance of each piece, in percent.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile

CRATES = ["forebay-log", "forebay-disk", "forebay-sinks", "forebay-tiering", "forebay"]
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
COUNTS = os.path.join(ROOT, "tests", "instructions", "counts.txt")
RUNS = 3
TOLERANCE = 5.0
# Codecs and large copies choose their code by the processor; what is read back is inlined now in this way, now in that.
WIDE_TOLERANCE = 15.0
WIDE = re.compile("zstd|lz4|checksum|parquet|megabyte|records_of")
HEADER = """\
# Instructions of each hot piece, by item (a reading, a packet, a batch: see the crate's benches/pieces.rs).
# Written by `tests/instructions/check.py --record`.
# crate piece instructions tolerance-in-percent
"""


def have_valgrind():
    """Whether valgrind is there; on a CI machine, as root, it is installed."""
    if shutil.which("valgrind"):
        return True
    if os.environ.get("CI") and os.geteuid() == 0 and shutil.which("apt-get"):
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        subprocess.run(["apt-get", "update"], **quiet)
        subprocess.run(["apt-get", "install", "-y", "--no-install-recommends", "valgrind"], **quiet)
    return shutil.which("valgrind") is not None


def build(crates):
    """Builds the benches; returns the binary of each crate."""
    command = ["cargo", "bench", "--no-run", "--bench", "pieces", "--message-format=json-render-diagnostics"]
    for crate in crates:
        command += ["-p", crate]
    output = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    built = {}
    for line in output.splitlines():
        message = json.loads(line)
        if message.get("executable") and message["target"]["name"] == "pieces":
            # The folder of the manifest tells the crate: package ids have changed their form before.
            with open(message["manifest_path"], encoding="utf-8") as manifest:
                built[re.search(r'^name = "(.*)"', manifest.read(), re.M)[1]] = message["executable"]
    return built


def instructions(binary, piece, runs):
    """All instructions of a process that runs the piece so often."""
    with tempfile.TemporaryDirectory() as folder:
        out = os.path.join(folder, "callgrind.out")
        command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}", binary, "count", piece, str(runs)]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode != 0:
            sys.exit(f"error: {piece} failed under callgrind\n{done.stdout}")
        with open(out, encoding="utf-8", errors="replace") as profile:
            # Of a process with threads there is one line for all.
            return int(re.search(r"^(?:summary|totals): (\d+)", profile.read(), re.M)[1])


def measure(binary):
    """Instructions by item of every piece of a crate."""
    listed = subprocess.run([binary, "list"], check=True, stdout=subprocess.PIPE, text=True).stdout
    counts = {}
    for line in listed.splitlines():
        piece, items = line.split()
        once, twice = instructions(binary, piece, RUNS), instructions(binary, piece, 2 * RUNS)
        counts[piece] = (twice - once) / (RUNS * int(items))
    return counts


def read_counts():
    """What was recorded: (crate, piece) to instructions and tolerance."""
    recorded = {}
    if os.path.exists(COUNTS):
        with open(COUNTS, encoding="utf-8") as lines:
            for line in lines:
                if line.strip() and not line.startswith("#"):
                    crate, piece, count, tolerance = line.split()
                    recorded[crate, piece] = (float(count), float(tolerance))
    return recorded


def write_counts(counts):
    with open(COUNTS, "w", encoding="utf-8") as file:
        file.write(HEADER)
        for (crate, piece), (count, tolerance) in sorted(counts.items()):
            file.write(f"{crate} {piece} {count:.1f} {tolerance:g}\n")


def compare(key, count, recorded):
    """Prints a piece's line; returns what is wrong with it, if anything is."""
    name = " ".join(key)
    if key not in recorded:
        print(f"{name}: {count:.1f}, not recorded")
        return f"{name} is not recorded"
    before, tolerance = recorded[key]
    change = 100 * (count - before) / before
    print(f"{name}: {count:.1f} ({change:+.1f} % of {before:.1f})")
    if change > tolerance:
        return f"{name} grew by {change:.1f} %: from {before:.1f} to {count:.1f} instructions an item ({tolerance:g} % are allowed)"
    if change < -tolerance:
        print("  fewer than recorded: record it, so that it stays so")
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", action="store_true", help="write counts.txt instead of comparing with it")
    parser.add_argument("-p", "--package", action="append", choices=CRATES, help="this crate only")
    arguments = parser.parse_args()
    crates = arguments.package or CRATES
    if not have_valgrind():
        print("valgrind is not on this machine: skipped")
        return 0
    # Always all of them: what is built together shares its features and is inlined alike.
    binaries = build(CRATES)
    measured = {}
    for crate in crates:
        for piece, count in measure(binaries[crate]).items():
            measured[crate, piece] = count
    recorded = read_counts()
    if arguments.record:
        kept = {key: value for key, value in recorded.items() if key[0] not in crates}
        tolerance = {key: WIDE_TOLERANCE if WIDE.search(key[1]) else TOLERANCE for key in measured}
        write_counts(kept | {key: (count, tolerance[key]) for key, count in measured.items()})
        print(f"{len(measured)} counts recorded")
        return 0
    problems = [problem for key, count in measured.items() if (problem := compare(key, count, recorded))]
    gone = [key for key in recorded if key[0] in crates and key not in measured]
    problems += [f"{' '.join(key)} is recorded, but there is no such piece" for key in gone]
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    if problems:
        print("  If that is meant: tests/instructions/check.py --record, and say why in the commit.", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
