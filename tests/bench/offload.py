#!/usr/bin/env python3
"""Measures the way from segment files to a committed Delta table in the running program: loads a node over MQTT, then asks for
everything to be in the table, and prints readings per second of the node's CPU time and of the clock meanwhile."""

import argparse
import json
import pathlib
import statistics
import subprocess
import tempfile
import time
import urllib.request

from node import Node

ROOT = pathlib.Path(__file__).resolve().parents[2]
TOPIC = "mqtt"


def ask(node, method, path):
    request = urllib.request.Request(f"http://{node.addresses['http']}{path}", method=method)
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def table(node):
    topics = ask(node, "GET", "/api/v1/lake")["topics"]
    return next((topic for topic in topics if topic["topic"] == TOPIC), {"rows": 0, "lag_records": 0})


def run(args):
    with tempfile.TemporaryDirectory(dir=args.dir, prefix="forebay-offload-") as directory:
        node = Node(args.program, directory, [f"topic_defaults.segment.bytes={args.segment}"])
        try:
            return measure(args, node)
        finally:
            node.stop()


def measure(args, node):
    load = [str(args.program), "bench", "mqtt", "--port", str(node.port("mqtt")), "--duration", f"{args.seconds}s", "--json"]
    subprocess.run(load, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    # What was copied while the load ran does not count, nor does what the node still has to do for it.
    before, cpu, clock = table(node), node.cpu_seconds(), time.monotonic()
    after = ask(node, "POST", f"/api/v1/lake/flush?topic={TOPIC}")["topic"]
    clock, cpu = time.monotonic() - clock, node.cpu_seconds() - cpu
    rows = after["rows"] - before["rows"]
    if after["lag_records"] != 0:
        raise SystemExit(f"{after['lag_records']} readings are not in the table")
    peak = node.status("VmHWM") / 1024
    print(f"{rows:,} readings: {rows / cpu:,.0f} per second of CPU, {rows / clock:,.0f} per second; peak {peak:.0f} MB", flush=True)
    return rows / cpu, rows / clock


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--program", default=ROOT / "target/release/forebay", type=pathlib.Path, help="the binary to measure")
    parser.add_argument("--dir", default=None, help="where data directories are made; default: the system's place for such")
    parser.add_argument("--seconds", type=int, default=5, help="seconds of load before the copy")
    parser.add_argument("--segment", default="64MiB", help="size of a segment")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    runs = [run(args) for _ in range(args.rounds)]
    of_cpu, of_clock = (statistics.median(values) for values in zip(*runs))
    print(f"median: {of_cpu:,.0f} readings per second of CPU, {of_clock:,.0f} per second of the clock")


if __name__ == "__main__":
    main()
