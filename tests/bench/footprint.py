#!/usr/bin/env python3
"""Measures what Forebay takes: size of the program, time to ready, memory idle, per connection and under load, and how soon
ten gigabytes of log are open again after kill -9. Prints a table and, with --write, puts it into BENCHMARKS.md."""

import argparse
import json
import os
import pathlib
import platform
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time

from node import Node, Watch

ROOT = pathlib.Path(__file__).resolve().parents[2]
BEGIN, END = "<!-- footprint: begin -->", "<!-- footprint: end -->"
MIB = 1 << 20
# Open files that are no connections: of the node's limit it keeps shares for its log and its other doors.
SHARE_OF_MQTT = 0.7


def say(text):
    print(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)


def connect_packet(version, number):
    name = b"idle-%06d" % number
    body = b"\x00\x04MQTT" + bytes([version, 2]) + b"\x00\x00" + (b"\x00" if version == 5 else b"")
    body += len(name).to_bytes(2, "big") + name
    return bytes([0x10, len(body)]) + body


def publish_packet(version, number):
    topic = b"meters/idle-%06d/readings" % number
    body = len(topic).to_bytes(2, "big") + topic + b"\x00\x01" + (b"\x00" if version == 5 else b"")
    body += b'{"voltage":%d.1,"filler":"%s"}' % (200 + number % 50, b"x" * 150)
    return bytes([0x32]) + (bytes([len(body)]) if len(body) < 128 else bytes([len(body) % 128 | 128, len(body) // 128])) + body


def read_packet(connection):
    head = connection.recv(2)
    left = head[1] if len(head) == 2 else 0
    body = connection.recv(left, socket.MSG_WAITALL) if left else b""
    if len(head) < 2 or head[0] >> 4 not in (2, 4):
        raise SystemExit(f"expected CONNACK or PUBACK, got {head + body!r}")
    return head[0] >> 4, body


def settled(node):
    """Resident KiB, once it has stopped moving."""
    last = node.status("VmRSS")
    for _ in range(20):
        time.sleep(1)
        now = node.status("VmRSS")
        if abs(now - last) < 128:
            break
        last = now
    return now


def ready(args, rows):
    times = []
    for _ in range(args.starts):
        with tempfile.TemporaryDirectory(dir=args.dir, prefix="forebay-footprint-") as directory:
            node = Node(args.program, directory)
            times.append(node.ready_ms)
            node.kill()
    say(f"ready on an empty directory: {statistics.median(times):.1f} ms, {min(times):.1f} to {max(times):.1f}")
    what = f"exec to ready line, empty directory (median of {len(times)}, slowest {max(times):.0f} ms)"
    rows.append((what, f"{statistics.median(times):.0f} ms", "100 ms"))


def idle(args, rows):
    with tempfile.TemporaryDirectory(dir=args.dir, prefix="forebay-footprint-") as directory:
        node = Node(args.program, directory)
        kib = settled(node)
        detail = ", ".join(f"{name[3:].lower()} {node.status(name) / 1024:.1f}" for name in ("RssAnon", "RssFile"))
        node.stop()
    say(f"idle: {kib / 1024:.1f} MiB ({detail})")
    rows.append((f"resident, idle ({detail})", f"{kib * 1024 / 1e6:.1f} MB", "40 MB"))


def connections(args, rows):
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    count = min(args.connections, int(hard * SHARE_OF_MQTT))
    for version, name in ((4, "3.1.1"), (5, "5.0")):
        with tempfile.TemporaryDirectory(dir=args.dir, prefix="forebay-footprint-") as directory:
            node = Node(args.program, directory)
            # One that comes and goes, so that what the first connection ever needs is not counted.
            with socket.create_connection(("127.0.0.1", node.port("mqtt"))) as first:
                first.sendall(connect_packet(version, 0) + publish_packet(version, 0))
                read_packet(first), read_packet(first)
            before = settled(node)
            open_ones = []
            for number in range(count):
                one = socket.create_connection(("127.0.0.1", node.port("mqtt")))
                one.sendall(connect_packet(version, number + 1))
                read_packet(one)
                open_ones.append(one)
                if number % 5000 == 4999:
                    say(f"MQTT {name}: {number + 1} of {count} connected")
            silent = (settled(node) - before) / count
            for number, one in enumerate(open_ones):
                one.sendall(publish_packet(version, number + 1))
            for one in open_ones:
                read_packet(one)
            after = (settled(node) - before) / count
            say(f"MQTT {name}: {silent:.2f} KiB each after CONNACK, {after:.2f} KiB each after one publish each")
            rows.append((f"resident per idle connection, MQTT {name}, {count} of them", f"{silent:.1f} KiB", "12 KB"))
            rows.append((f"the same after one publish of each at once, MQTT {name}", f"{after:.1f} KiB", "12 KB"))
            for one in open_ones:
                one.close()
            node.stop()


def load(args, rows):
    with tempfile.TemporaryDirectory(dir=args.dir, prefix="forebay-footprint-") as directory:
        node = Node(args.program, directory)
        settled(node)
        command = [args.program, "bench", "mqtt", "--port", str(node.port("mqtt")), "--clients", "100", "--inflight", "20"]
        command += ["--qos", "1", "--size", "200", "--duration", f"{args.seconds}s", "--json"]
        say(f"load: {' '.join(map(str, command[1:]))}")
        with Watch(node) as watch:
            done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
        report = json.loads(done.stdout)
        peak, cpu = node.status("VmHWM"), node.cpu_seconds()
        node.stop()
    acked = report["acked"]
    third = max(1, len(watch.samples) // 3)
    early, late = (statistics.median(part) / 1024 for part in (watch.samples[third : 2 * third], watch.samples[-third:]))
    say(f"load: peak {peak / 1024:.1f} MiB, middle third {early:.1f}, last third {late:.1f}; {acked} acked, {cpu / acked * 1e6:.2f} us CPU each")
    rows.append((f"resident at the load of the first benchmark, peak of {args.seconds} s", f"{peak * 1024 / 1e6:.0f} MB", "150 MB"))
    rows.append(("its median in the second and in the last third", f"{early * 1.048576:.0f} and {late * 1.048576:.0f} MB", "flat"))


def forget_cached(directory):
    """Drops the pages of all files below from the page cache, as after a restart of the machine."""
    os.sync()
    for path in pathlib.Path(directory).rglob("*"):
        if path.is_file():
            with open(path, "rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def first_record(args, node, partition):
    command = [args.program, "consume", "big", "--bootstrap", node.addresses["kafka"], "--from", "beginning"]
    before = time.monotonic()
    done = subprocess.run([*command, "--partition", str(partition), "--max", "1"], stdout=subprocess.PIPE, check=True)
    assert len(done.stdout) > 100, "the first record is not there"
    return (time.monotonic() - before) * 1000


def reopen(args, rows):
    directory = tempfile.mkdtemp(dir=args.dir, prefix="forebay-footprint-")
    try:
        settings = ("topic_defaults.remote.storage.enable=false",)
        node = Node(args.program, directory, settings)
        bootstrap = ["--bootstrap", node.addresses["kafka"]]
        subprocess.run([args.program, "topic", "create", "big", "--partitions", "4", *bootstrap], check=True, stdout=subprocess.DEVNULL)
        command = [args.program, "bench", "kafka", "--topic", "big", *bootstrap, "--count", str(args.gigabytes * 1_000_000 + 1_000_000)]
        producer = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        def size():
            return sum(path.stat().st_blocks * 512 for path in pathlib.Path(directory, "data").rglob("*.log"))
        while (bytes_now := size()) < args.gigabytes * 1e9:
            if producer.poll() is not None:
                raise SystemExit("the producer ended too early")
            say(f"log: {bytes_now / 1e9:.1f} of {args.gigabytes} GB")
            time.sleep(2)
        node.kill()
        producer.wait()
        gigabytes = size() / 1e9
        for what, drop in (("warm page cache", False), ("cold page cache", True)):
            if drop:
                forget_cached(directory)
            node = Node(args.program, directory, settings)
            fetched = [first_record(args, node, partition) for partition in range(4)]
            say(f"{gigabytes:.1f} GB, {what}: ready {node.ready_ms:.0f} ms, first record of each partition {max(fetched):.0f} ms at most")
            label = f"exec to ready line after kill -9 under load, {gigabytes:.1f} GB of log, {what}"
            rows.append((label, f"{node.ready_ms:.0f} ms", "1,000 ms"))
            rows.append((f"then to the first record by `forebay consume`, {what}", f"{max(fetched):.0f} ms", ""))
            node.kill()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


PARTS = {"ready": ready, "idle": idle, "connections": connections, "load": load, "reopen": reopen}


def write(table):
    path = ROOT / "BENCHMARKS.md"
    text = path.read_text() if path.exists() else "# Benchmarks\n"
    section = f"{BEGIN}\n{table}{END}"
    if BEGIN in text:
        text = text[: text.index(BEGIN)] + section + text[text.index(END) + len(END) :]
    else:
        text = f"{text.rstrip()}\n\n## Footprint\n\n{section}\n"
    path.write_text(text)
    say(f"written to {path}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--program", default=ROOT / "target/release/forebay", type=pathlib.Path, help="the binary to measure")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="which parts to measure")
    parser.add_argument("--dir", default=None, help="where data directories are made; default: the system's place for such")
    parser.add_argument("--starts", type=int, default=20, help="starts on an empty directory")
    parser.add_argument("--connections", type=int, default=20_000, help="idle connections, as far as open files allow")
    parser.add_argument("--seconds", type=int, default=300, help="seconds of load")
    parser.add_argument("--gigabytes", type=int, default=10, help="gigabytes of log to reopen")
    parser.add_argument("--quick", action="store_true", help="5 starts, 2000 connections, 10 s of load, 1 GB")
    parser.add_argument("--write", action="store_true", help="put the table into BENCHMARKS.md")
    args = parser.parse_args()
    if args.quick:
        args.starts, args.connections, args.seconds, args.gigabytes = 5, 2000, 10, 1
    args.program = args.program.resolve()
    if not args.program.exists():
        parser.error(f"{args.program} is missing: cargo build --release, or --program FILE")
    rows = [("size of the release program", f"{args.program.stat().st_size / 1e6:.1f} MB", "40 MB")]
    for name in args.only:
        PARTS[name](args, rows)
    table = f"`python3 tests/bench/footprint.py` on {os.cpu_count()} cores, {platform.system()} {platform.release()}:\n\n"
    table += "| what | measured | asked: at most |\n|---|---|---|\n"
    table += "".join(f"| {what} | {value} | {asked} |\n" for what, value, asked in rows)
    print(table, end="")
    if args.write:
        write(table)


if __name__ == "__main__":
    main()
