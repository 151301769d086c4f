#!/usr/bin/env python3
"""Benchmarks Forebay side by side with other brokers on this machine, and writes the tables of BENCHMARKS.md.

    cargo build --release
    tests/bench/side_by_side.py --quick         # Forebay and mosquitto only, within a minute
    tests/bench/side_by_side.py --write         # everything, about 15 minutes, into BENCHMARKS.md

Forebay and each peer run in turns (A B A B), one broker at a time, each in a fresh data directory, loaded by `forebay bench`
on the same machine. Of several rounds the median, the lowest and the highest are shown, and ratios within pairs of
neighbouring runs. CPU time of the broker for a million messages and its peak memory come from /proc: they hold on a noisy
machine too, where rates do not.

Peers are put into a cache directory (FOREBAY_BENCH_DIR, default /tmp/forebay-bench) and nothing is installed: Debian's
mosquitto and RabbitMQ are unpacked, rumqttd is compiled from crates.io, Kafka and HiveMQ CE come from Maven Central. What
cannot be had here is left out, with the reason in the table. Needed: Linux, Python 3.9, a release binary (FOREBAY_BIN
names another one); for the peers apt, cargo, Java 17 and Maven, for TLS openssl. Data is written to the cache directory,
so it should be on the disk that counts. Raw results stay there as JSON (results/), for --tables.
"""

import argparse
import datetime
import json
import pathlib
import signal
import sys
import time

sys.dont_write_bytecode = True

import brokers  # noqa: E402
import install  # noqa: E402
import machine  # noqa: E402
import peers  # noqa: E402
import scenarios  # noqa: E402
import tables  # noqa: E402
from peers import forebay  # noqa: E402

BENCHMARKS = pathlib.Path(__file__).resolve().parents[2] / "BENCHMARKS.md"
ALL_PEERS = {**peers.MQTT, **peers.KAFKA}


def arguments(words):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = ",".join(ALL_PEERS)
    parser.add_argument("--peers", metavar="NAMES", default=names, help=f"which peers, comma separated, or none [default: {names}]")
    parser.add_argument("--scenarios", metavar="NAMES", default=",".join(tables.TITLES), help="which tables [default: %(default)s]")
    parser.add_argument("--seconds", type=int, default=5, metavar="N", help="measured seconds of a run [default: 5]")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="rounds of all runs [default: 3]")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="threads of the generator [default: 1]")
    parser.add_argument("--pin", action="store_true", help="generator on the last core, brokers on the others")
    parser.add_argument("--quick", action="store_true", help="mosquitto only, 2 s a run, one round")
    parser.add_argument("--write", action="store_true", help="write the tables into BENCHMARKS.md instead of printing them")
    parser.add_argument("--tables", metavar="FILE", help="tables of the raw results of an earlier run; nothing is measured")
    parser.add_argument("--self-test", action="store_true", help="check median, ratios and tables on made-up results")
    options = parser.parse_args(words)
    if options.quick:
        options.peers, options.seconds, options.rounds = "mosquitto", 2, 1
    options.peers = [name for name in options.peers.split(",") if name not in ("", "none")]
    options.scenarios = options.scenarios.split(",")
    for given, known in ((options.peers, ALL_PEERS), (options.scenarios, tables.TITLES)):
        for name in given:
            if name not in known:
                parser.error(f"{name!r} is unknown; known are {', '.join(known)}")
    if min(options.seconds, options.rounds, options.threads) < 1:
        parser.error("--seconds, --rounds and --threads begin at 1")
    return options


def say(text):
    print(text, flush=True)


def install_peers(names):
    """The peers that can be had, their versions, and why the others cannot."""
    ready, versions, skipped = {}, {}, {}
    for name in names:
        peer = ALL_PEERS[name]()
        begin = time.monotonic()
        try:
            versions[peer.name] = peer.setup()
            ready[name] = peer
            say(f"{peer.name} {versions[peer.name]} is there ({time.monotonic() - begin:.0f} s)")
        except install.Missing as error:
            skipped[peer.name] = str(error)
            say(f"{peer.name} is left out: {error}")
    return ready, versions, skipped


def measure(options):
    """Does the whole plan and returns the raw results, which are also kept in a file after every step."""
    cache = install.cache_dir()
    own = forebay.Forebay()
    version = own.setup()
    ready, versions, skipped = install_peers(options.peers)
    versions[own.name] = version
    brokers.Broker.pinned = options.pin
    session = scenarios.Session(
        options,
        mqtt=[peer for name, peer in ready.items() if name in peers.MQTT],
        kafka=[peer for name, peer in ready.items() if name in peers.KAFKA])  # fmt: skip
    everyone = [*ready.values(), own, session.forebay_log]
    now = datetime.datetime.now(datetime.timezone.utc)
    data = {
        "date": now.strftime("%Y-%m-%d"),
        "machine": machine.facts(cache),
        "options": {"seconds": options.seconds, "rounds": options.rounds, "threads": options.threads, "pin": options.pin},
        "versions": versions,
        "skipped": skipped,
        "protocols": {ALL_PEERS[name].name: ALL_PEERS[name].speaks for name in ALL_PEERS},
        "durability": {b.name: {"plain": b.durability, "kept": b.durability_kept or b.durability} for b in everyone},
        "results": session.results,
    }
    path = perform(session, data, now.strftime("%Y%m%d-%H%M%S.json"), progress)
    say(f"raw results: {path}")
    if tables.others(session.results) > tables.QUIET:
        say("warning: other programs were at work meanwhile; rates and latencies are worse than on a quiet machine")
    return data


def perform(session, data, name, tell):
    """Does the plan of `session`, keeping `data` in a file after every step; `tell` puts a step's figures into words. Returns the file."""
    (install.cache_dir() / "results").mkdir(exist_ok=True)
    path = install.cache_dir() / "results" / name
    begin, steps, broken = time.monotonic(), list(session.plan()), set()
    for count, step in enumerate(steps, 1):
        if step.broker in broken:
            continue
        started = time.monotonic()
        result = session.do(step)
        if "was not ready" in result.get("error", ""):
            broken.add(step.broker)
        left = (time.monotonic() - begin) / count * (len(steps) - count)
        figures = f"failed: {result['error']}" if "error" in result else tell(result)
        took = time.monotonic() - started
        say(f"[{count}/{len(steps)}] {step.scenario} {step.round}, {step.row}: {figures} ({took:.0f} s, {left / 60:.0f} min left)")
        path.write_text(json.dumps(data, indent=1))
    return path


def progress(result):
    """What a step gave, in words."""
    if "messages_per_second" not in result:
        return f"{result['megabytes_per_second']:,.0f} MB/s"
    figures = f"{result['messages_per_second']:,.0f} messages/s, {result['megabytes_per_second']:,.0f} MB/s"
    figures += f", p50 {result.get('p50_seconds', 0) * 1e3:.2f} ms, p99 {result.get('p99_seconds', 0) * 1e3:.1f} ms"
    return figures + f", broker {result['cpu_per_million']:.2f} CPU s per million, peak {result['peak_bytes'] / 1e6:.0f} MB"


def self_test():
    """Checks what is pure: medians, ratios, the tables and their place."""
    row = lambda round_, name, rate, **more: {  # noqa: E731
        "scenario": "mqtt", "round": round_, "pair": "other", "row": name, "messages_per_second": rate, **more}  # fmt: skip
    results = [row(1, "Forebay", 300.0), row(1, "other", 100.0), row(2, "Forebay", 90.0), row(2, "other", 45.0)]
    results += [row(3, "Forebay", 400.0), row(3, "other", 100.0), row(4, "other", None, error="no luck")]
    check(tables.ratios(results, "messages_per_second", "other", "Forebay"), [3.0, 2.0, 4.0])
    check(tables.spread([3.0, 1.0, 2.0]), "2 (1–3)")
    check((tables.spread([1234.5], 1), tables.spread([]), tables.spread([2.0, 2.0])), ("1,234.5", "–", "2"))
    check(tables.replace_between(f"a\n{tables.BEGIN}\nold\n{tables.END}\nb\n", "new"), f"a\n{tables.BEGIN}\n\nnew\n{tables.END}\nb\n")
    check(scenarios.without_ports(["mqtt", "--port", "5", "--bootstrap", "127.0.0.1:7"]), "mqtt --port PORT --bootstrap HOST:PORT")
    facts = {"cpu": "C", "cores": 2, "memory_gib": 4, "kernel": "6", "virtual": False, "filesystem": "ext4"}
    data = {
        "date": "2026-01-01", "machine": {**facts, "fdatasync_seconds": 0.001},
        "options": {"seconds": 5, "rounds": 3, "threads": 1, "pin": False}, "versions": {"other": "1.2"}, "skipped": {"third": "no Java"},
        "protocols": {"third": "mqtt"}, "durability": {"other": {"plain": "hope", "kept": "hope"}}, "results": results,
    }  # fmt: skip
    text = tables.render(data)
    for wanted in ("| other 1.2 | hope | 100 (45–100) | 3.00 (2.00–4.00) |", "| third | left out: no Java |", "failed in 1 of the runs"):
        check(wanted in text, True)
    check(len({line.count("|") for line in text.split("### Start")[0].splitlines() if "|" in line}), 1)
    for packet, size in ((0, b"\x00"), (127, b"\x7f"), (128, b"\x80\x01"), (16_384, b"\x80\x80\x01")):
        check(scenarios.wire.length(packet), size)
    check(len(arguments(["--quick"]).peers), 1)


def check(got, wanted):
    if got != wanted:
        raise AssertionError(f"got {got!r}, wanted {wanted!r}")


def main():
    options = arguments(sys.argv[1:])
    if options.self_test:
        self_test()
        say("side_by_side: self-test passed")
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        data = json.loads(pathlib.Path(options.tables).read_text()) if options.tables else measure(options)
    except (install.Missing, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        return 130
    finally:
        brokers.stop_all()
    text = tables.render(data)
    if options.write:
        BENCHMARKS.write_text(tables.replace_between(BENCHMARKS.read_text(), text))
        say(f"wrote {BENCHMARKS}")
    else:
        print("\n" + text)
    return 1 if any(r["row"].startswith("Forebay") and "error" in r for r in data["results"]) else 0


if __name__ == "__main__":
    sys.exit(main())
