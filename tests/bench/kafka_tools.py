#!/usr/bin/env python3
"""Kafka's own load tools on Forebay and on Apache Kafka, and many members of groups on both.

    cargo build --release
    tests/bench/kafka_tools.py --quick          # each part once, small, some minutes
    tests/bench/kafka_tools.py --write          # everything, into BENCHMARKS.md

produce: kafka-producer-perf-test, 1 KiB records, acks=all, all else as the tool has it; Kafka as it comes, and with
log.flush.interval.messages=1. half: the same at half of the peer's rate, for latencies. consume: kafka-consumer-perf-test from
the page cache. groups: 1,000 partitions and 200 members for some minutes, what the broker needs of memory and CPU. rebalance: 50
members, from the last join until each has its partitions. Brokers take turns (A B A B), each in a fresh directory; like
side_by_side.py, with the same cache directory and the same needs, and confluent-kafka from pip for the members.
"""

import argparse
import datetime
import json
import pathlib
import re
import select
import signal
import statistics
import subprocess
import sys
import time

sys.dont_write_bytecode = True

import brokers  # noqa: E402
import install  # noqa: E402
import machine  # noqa: E402
import scenarios  # noqa: E402
import side_by_side  # noqa: E402
import tables  # noqa: E402
from members import topic_name  # noqa: E402
from peers import KAFKA, forebay  # noqa: E402
from scenarios import Step  # noqa: E402
from side_by_side import BENCHMARKS, check, say  # noqa: E402

BEGIN, END = "<!-- kafka-tools:begin -->", "<!-- kafka-tools:end -->"
# What Kafka's start scripts give to the tools.
JAVA = ["java", "-Xmx512M", "-server", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20", "-XX:InitiatingHeapOccupancyPercent=35"]
TOOLS = "org.apache.kafka.tools."
SIZE = 1024
PARTITIONS = 4
# Groups: topics, partitions of each, groups, members of each, records a second over all topics.
TOPICS, EACH, GROUPS, MEMBERS, RATE = 10, 100, 20, 10, 1000
# Rebalance: partitions, members, and their heartbeats, which is how soon a member learns that it has to join again.
SHARED, JOINING, HEARTBEAT = 100, 50, 500
SUMMARY = re.compile(
    r"(\d+) .*?records sent, ([\d.]+) records/sec \(([\d.]+) MB/sec\), ([\d.]+) ms avg latency, ([\d.]+) ms max latency, "
    r"(\d+) ms 50th, (\d+) ms 95th, (\d+) ms 99th, (\d+) ms 99.9th"
)


def arguments(words):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", metavar="NAMES", default=",".join(KAFKA), help="which peers, or none [default: %(default)s]")
    parser.add_argument("--parts", metavar="NAMES", default=",".join(PARTS), help="which parts [default: %(default)s]")
    parser.add_argument("--seconds", type=int, default=20, metavar="N", help="seconds of load of a run, roughly [default: 20]")
    parser.add_argument("--minutes", type=float, default=3, metavar="N", help="minutes of groups [default: 3]")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="rounds of all runs [default: 3]")
    parser.add_argument("--quick", action="store_true", help="one round, 2 s of load, 20 s of groups")
    parser.add_argument("--write", action="store_true", help="write the tables into BENCHMARKS.md instead of printing them")
    parser.add_argument("--tables", metavar="FILE", help="tables of the raw results of an earlier run; nothing is measured")
    parser.add_argument("--self-test", action="store_true", help="check what is pure on made-up results")
    options = parser.parse_args(words)
    if options.quick:
        options.rounds, options.seconds, options.minutes = 1, 2, 1 / 3
    options.peers = [name for name in options.peers.split(",") if name not in ("", "none")]
    options.scenarios = options.parts.split(",")
    for given, known in ((options.peers, KAFKA), (options.scenarios, PARTS)):
        for name in given:
            if name not in known:
                parser.error(f"{name!r} is unknown; known are {', '.join(known)}")
    options.threads, options.pin = 1, False
    return options


class Session(scenarios.Session):
    """The plan of this benchmark; how a step is done and kept is that of the side-by-side benchmark."""

    def __init__(self, options, kafka):
        super().__init__(options, mqtt=[], kafka=kafka)
        self.jars, self.version = install.maven("org.apache.kafka", "kafka-tools", ["4.3.1", "4.2.1"])

    def plan(self):
        unflushed = [peer for peer in self.kafka if peer.name == "Kafka"]
        for name in self.options.scenarios:
            act = getattr(self, name)
            # A fetch or a rebalance flushes nothing.
            yield from self.in_turns(name, self.kafka if name in ("produce", "half") else unflushed, act)

    def tool(self, run, name, *words, timeout=600):
        command = [*JAVA, "-cp", f"{self.jars}/*", TOOLS + name, "--bootstrap-server", f"127.0.0.1:{run.kafka_port}", *map(str, words)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL)
        except subprocess.TimeoutExpired:
            raise brokers.Failed(f"{name} did not end in time") from None
        if done.returncode != 0:
            raise brokers.Failed(f"{name}: {(done.stderr or done.stdout).strip()[-300:]}")
        return done.stdout

    def make_topic(self, run, topic, partitions):
        self.tool(run, "TopicCommand", "--create", "--topic", topic, "--partitions", partitions, "--replication-factor", 1)

    def perf(self, run, records, warmup, rate=-1):
        """One run of kafka-producer-perf-test; the figures after its warm-up."""
        load = ("--num-records", records + warmup, "--warmup-records", warmup, "--record-size", SIZE, "--throughput", rate)
        return summary(self.tool(run, "ProducerPerformance", "--topic", "bench", *load, "--command-property", "acks=all"))

    def loaded(self, run, seconds, rate=None):
        """Figures of `seconds` of load, at full speed or at `rate` records a second; brokers and tool are warm by then."""
        warm = min(rate or 100_000, 100_000)
        begin = time.monotonic()
        reached = self.perf(run, warm, 1, rate or -1)["messages_per_second"]
        # What a broker does at first tells too little of a slow one: at most three seconds go into warming it up.
        warmup = max(int(reached * max(0.5, 3 - (time.monotonic() - begin))), 1000)
        records = max(int(reached * seconds), 5000)
        figures, costs = self.watched(run, lambda: self.perf(run, records, warmup, rate or -1))
        millions = (records + warmup) / 1e6
        return {**figures, **costs, "rate": rate, "cpu_per_million": costs["cpu_seconds"] / millions,
                "generator_cpu_per_million": costs["generator_cpu_seconds"] / millions}  # fmt: skip

    def produce(self, step):
        with step.broker.start() as run:
            self.make_topic(run, "bench", PARTITIONS)
            return self.loaded(run, self.options.seconds)

    def half(self, step):
        """Both brokers of a pair get half of what the peer takes at full load."""
        full = self.median("produce", step.pair, "messages_per_second")
        if full is None:
            peer = next((peer for peer in self.kafka if peer.name == step.pair), step.broker)
            full = self.produce(Step("produce", step.round, step.pair, peer.name, peer, self.produce))["messages_per_second"]
            self.results.append({"scenario": "full", "round": step.round, "pair": step.pair, "row": step.pair, "messages_per_second": full})
        with step.broker.start() as run:
            self.make_topic(run, "bench", PARTITIONS)
            return self.loaded(run, self.options.seconds, int(full / 2))

    def consume(self, step):
        """Everything that was produced, by one consumer, while it is in the page cache."""
        records = 100_000 * self.options.seconds
        with step.broker.start() as run:
            self.make_topic(run, "bench", PARTITIONS)
            self.perf(run, records, 1)
            run.settle(20)
            words = ("--topic", "bench", "--num-records", records, "--timeout", 60_000, "--hide-header")
            said, costs = self.watched(run, lambda: self.tool(run, "ConsumerPerformance", *words))
            return {**consumed(said), **costs, "cpu_per_million": costs["cpu_seconds"] / records * 1e6,
                    "generator_cpu_per_million": costs["generator_cpu_seconds"] / records * 1e6}  # fmt: skip

    def groups(self, step):
        """Two processes of members, half of each group in either."""
        with step.broker.start() as run:
            for number in range(TOPICS):
                self.make_topic(run, topic_name(number), EACH)
            numbers = ",".join(str(number) for number in range(GROUPS))
            words = ["hold", f"127.0.0.1:{run.kafka_port}", TOPICS, numbers, MEMBERS // 2]
            with Members([*words, RATE]) as first, Members(words) as second:
                wanted = TOPICS * EACH * (GROUPS // TOPICS)
                deadline = time.monotonic() + 180
                while first.state["owned"] + second.state["owned"] < wanted or first.state["idle"] + second.state["idle"]:
                    if time.monotonic() > deadline:
                        raise brokers.Failed(f"members own {first.state['owned'] + second.state['owned']} of {wanted} partitions")
                    self.step_of(first, second)
                samples, before = [], self.sum_of(first, second, "rebalances")
                end = time.monotonic() + self.options.minutes * 60

                def steady():
                    while time.monotonic() < end:
                        self.step_of(first, second)
                        samples.append(run.memory()[0])

                _, costs = self.watched(run, steady)
                third = max(1, len(samples) // 3)
                return {
                    **costs,
                    "members": GROUPS * MEMBERS,
                    "partitions": TOPICS * EACH,
                    "early_bytes": statistics.median(samples[:third]),
                    "late_bytes": statistics.median(samples[-third:]),
                    "rebalances": self.sum_of(first, second, "rebalances") - before,
                    "unread": (GROUPS // TOPICS) * first.state["produced"] - self.sum_of(first, second, "read"),
                    "broker_cores": costs["cpu_seconds"] / (self.options.minutes * 60),
                }

    def step_of(self, *processes):
        for process in processes:
            process.next()

    def sum_of(self, first, second, field):
        return first.state[field] + second.state[field]

    def rebalance(self, step):
        with step.broker.start() as run:
            self.make_topic(run, topic_name(0), SHARED)
            with Members(["join", f"127.0.0.1:{run.kafka_port}", SHARED, JOINING, HEARTBEAT]) as members:
                found, costs = self.watched(run, lambda: members.next(150))
            return {**costs, **{f"{kind}_{what}": value for kind, times in found.items() for what, value in times.items()}}


class Members:
    """A process of members.py; `state` is the last line that it printed."""

    def __init__(self, words):
        self.state = {"owned": 0, "idle": 1, "rebalances": 0, "read": 0, "produced": 0}
        program = [python(), pathlib.Path(__file__).with_name("members.py"), *map(str, words)]
        self.errors = open(install.cache_dir() / "members.log", "wb")
        self.process = subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, text=True)

    def next(self, seconds=30):
        """Waits for the next line."""
        ready, _, _ = select.select([self.process.stdout], [], [], seconds)
        line = self.process.stdout.readline() if ready else ""
        if not line:
            said = (install.cache_dir() / "members.log").read_text(errors="replace").strip()[-300:]
            raise brokers.Failed(f"members fell silent: {said}")
        self.state = json.loads(line)
        return self.state

    def __enter__(self):
        return self

    def __exit__(self, *_):
        # The broker goes next: members that would leave one by one are not waited for.
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        self.process.stdin.close()
        self.errors.close()


def python():
    """A Python that has confluent-kafka."""

    def make(folder):
        install.command([sys.executable, "-m", "venv", str(folder / "venv")], 120)
        install.command([str(folder / "venv/bin/pip"), "install", "-q", "confluent-kafka"], 300)

    return install.once(install.cache_dir() / "members", make) / "venv/bin/python"


def summary(text):
    """The last summary of kafka-producer-perf-test: with a warm-up, that of the time after it."""
    found = SUMMARY.findall(text)
    if not found:
        raise brokers.Failed(f"no summary: {text.strip()[-300:]}")
    sent, rate, _, _, longest, *quantiles = (float(value) for value in found[-1])
    names = ("p50", "p95", "p99", "p99.9")
    latencies = {f"{name}_seconds": value / 1e3 for name, value in zip((*names, "max"), (*quantiles, longest))}
    return {"acked": sent, "messages_per_second": rate, "megabytes_per_second": rate * SIZE / 1e6, **latencies}


def consumed(text):
    """What kafka-consumer-perf-test says of the time in which it fetched, without that of joining its group."""
    fields = text.strip().splitlines()[-1].split(", ")
    return {"acked": int(fields[4]), "messages_per_second": float(fields[9]), "megabytes_per_second": float(fields[9]) * SIZE / 1e6}


def tell(result):
    """A step's figures in words."""
    if "messages_per_second" in result:
        return side_by_side.progress(result)
    if "late_bytes" in result:
        return f"{result['late_bytes'] / 1e6:.0f} MB resident, {result['rebalances']} rebalances, {result['broker_cores']:.2f} cores"
    return ", ".join(f"{name} {value:.3f}" for name, value in result.items() if name.endswith(("settle_seconds", "total_seconds")))


def values(field, digits=0, scale=1.0):
    return lambda results, row: tables.spread(tables.values(results, row, field), digits, scale)


def share(results, row):
    """Forebay's 99th percentile as a share of that of the peer beside it."""
    if row.startswith("Forebay"):
        return "1"
    return tables.spread(tables.ratios(results, "p99_seconds", row, f"Forebay, beside {row}"), 2)


RATES = [(name, tables.COLUMNS[name]) for name in ("messages/s", "MB/s")]
COSTS = [(name, tables.COLUMNS[name]) for name in ("broker's CPU, s per million", "peak resident, MB")]
QUANTILES = [(f"ack {name}, ms", values(f"{name}_seconds", 0, 1e3)) for name in ("p50", "p95", "p99", "p99.9", "max")]
FASTER = tables.ratio_column("Forebay is faster by", "messages_per_second", "Forebay")
PARTS = {
    "produce": ("kafka-producer-perf-test at full speed",
                "Records of 1 KiB, acks=all, 4 partitions, one producer with the tool's own settings.",
                [*RATES, FASTER, *QUANTILES[:4], *COSTS]),
    "half": ("The same at half of the peer's rate", "Forebay's rows are those of both pairs: each at half of what that peer took.",
             [("asked for, messages/s", values("rate")), *RATES[:1], *QUANTILES,
              ("Forebay's p99 is this share of it", share), *COSTS]),
    "consume": ("kafka-consumer-perf-test from the page cache", "One consumer in a group, 4 partitions, records of 1 KiB that were just produced.",
                [*RATES, FASTER, *COSTS]),
    "groups": (f"{TOPICS * EACH:,} partitions and {GROUPS * MEMBERS} members",
               f"{GROUPS} groups of {MEMBERS} librdkafka consumers on {TOPICS} topics of {EACH} partitions, {RATE} records/s of 1 KiB in all.",
               [("resident at first, MB", values("early_bytes", 0, 1e-6)), ("in the end, MB", values("late_bytes", 0, 1e-6)),
                ("peak, MB", values("peak_bytes", 0, 1e-6)), ("broker's cores", values("broker_cores", 2)),
                ("rebalances meanwhile", values("rebalances")), ("records unread in the end", values("unread"))]),
    "rebalance": (f"A rebalance of {JOINING} members",
                  f"librdkafka, range assignor, {SHARED} partitions, heartbeats each {HEARTBEAT} ms; from the last member's join until the last one "
                  "has its partitions, and from the beginning, which takes in the wait for heartbeats and the broker's delay for a group that is new.",
                  [("one joins 49: from the last join, s", values("one_more_settle_seconds", 3)),
                   ("from the beginning, s", values("one_more_total_seconds", 3)),
                   ("all come at once: from the last join, s", values("together_settle_seconds", 3)),
                   ("from the beginning, s", values("together_total_seconds", 3))]),
}  # fmt: skip


def render(data):
    """All tables of one run."""
    parts = [f"{tables.place(data)} {data['options']['rounds']} rounds, generator on the same machine: {data['tools']}. {tables.HOW_TO_READ}"]
    for part, (title, text, columns) in PARTS.items():
        results = [r for r in data["results"] if r["scenario"] == part]
        if not results:
            continue
        # Forebay runs beside each peer: a table has a row of it for each pair where the load differs.
        if part == "half":
            results = [{**r, "row": f"{r['row']}, beside {r['pair']}" if r["row"] == "Forebay" else r["row"]} for r in results]
        lines = []
        for row in tables.rows_of(results):
            first = [tables.row_title(data, row), tables.durability(data, row, part)]
            lines.append(first + [cell(results, row) for _, cell in columns])
        heads = ["broker", "what an ack means"] + [name for name, _ in columns]
        parts.append(f"### {title}\n\n{text}\n\n{tables.table(heads, lines)}{tables.failures(results)}")
    parts += [f"{peer} is left out: {reason}." for peer, reason in data["skipped"].items()]
    return "\n\n".join(parts) + "\n"


def self_test():
    line = "{} records sent, 100.5 records/sec (0.10 MB/sec), 3.40 ms avg latency, 250.00 ms max latency, "
    line += "2 ms 50th, 6 ms 95th, 9 ms 99th, 12 ms 99.9th.\n"
    found = summary(line.format("7") + line.format("50 steady state").replace("100.5", "200.5"))
    check((found["acked"], found["messages_per_second"], found["p99_seconds"], found["max_seconds"]), (50, 200.5, 0.009, 0.25))
    fields = "2026-01-01 00:00:00:000, 2026-01-01 00:00:02:000, 97.6, 48.8, 100000, 50000.0, 400, 1600, 61.0, 62500.0"
    check(consumed(fields)["messages_per_second"], 62500.0)
    row = lambda part, pair, name, **more: {"scenario": part, "round": 1, "pair": pair, "row": name, **more}  # noqa: E731
    results = [row("produce", "Kafka", "Forebay", messages_per_second=300.0, megabytes_per_second=0.3)]
    results += [row("produce", "Kafka", "Kafka", messages_per_second=100.0)]
    results += [row("half", pair, name, p99_seconds=p99, rate=50) for pair, name, p99 in (
        ("Kafka", "Forebay", 0.002), ("Kafka", "Kafka", 0.008), ("Kafka, fsync", "Forebay", 0.001), ("Kafka, fsync", "Kafka, fsync", 0.01))]
    results += [row("groups", "Kafka", "Forebay", early_bytes=50e6, late_bytes=60e6, rebalances=0)]
    results += [row("rebalance", "Kafka", "Kafka", error="no luck")]
    facts = {"cpu": "C", "cores": 2, "memory_gib": 4, "kernel": "6", "virtual": False, "filesystem": "ext4", "fdatasync_seconds": 0.001}
    data = {"date": "2026-01-01", "machine": facts, "options": {"rounds": 1}, "versions": {"Kafka": "4"}, "durability": {}, "tools": "tools",
            "skipped": {"Kafka, fsync": "no Java"}, "results": results}  # fmt: skip
    text = render(data)
    wanted = ["| 300 | 0 | 1 |", "| 3.00 |", "| Kafka 4 | ", "| 0.25 |", "| 0.10 |", "Forebay, beside Kafka, fsync", "| 50 | 60 |"]
    for part in (*wanted, "failed in 1 of the runs: no luck", "Kafka, fsync is left out: no Java."):
        check((part in text, part), (True, part))
    check(arguments(["--quick", "--parts", "half"]).scenarios, ["half"])
    check(tables.replace_between(f"a\n{BEGIN}\nold\n{END}\n", "new", BEGIN, END), f"a\n{BEGIN}\n\nnew\n{END}\n")


def measure(options):
    own = forebay.Forebay()
    version = own.setup()
    ready, versions, skipped = side_by_side.install_peers(options.peers)
    session = Session(options, list(ready.values()))
    now = datetime.datetime.now(datetime.timezone.utc)
    data = {
        "date": now.strftime("%Y-%m-%d"),
        "machine": machine.facts(install.cache_dir()),
        "options": {"seconds": options.seconds, "rounds": options.rounds, "minutes": options.minutes},
        "versions": {**versions, own.name: version},
        "tools": f"Kafka's tools {session.version}",
        "skipped": skipped,
        "durability": {broker.name: {"plain": broker.durability} for broker in (own, *ready.values())},
        "results": session.results,
    }
    path = side_by_side.perform(session, data, now.strftime("kafka-tools-%Y%m%d-%H%M%S.json"), tell)
    say(f"raw results: {path}")
    return data


def main():
    options = arguments(sys.argv[1:])
    if options.self_test:
        self_test()
        say("kafka_tools: self-test passed")
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        data = json.loads(pathlib.Path(options.tables).read_text()) if options.tables else measure(options)
    except (install.Missing, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    finally:
        brokers.stop_all()
    text = render(data)
    if options.write:
        BENCHMARKS.write_text(tables.replace_between(BENCHMARKS.read_text(), text, BEGIN, END))
        say(f"wrote {BENCHMARKS}")
    else:
        print("\n" + text)
    return 1 if any(r["row"].startswith("Forebay") and "error" in r for r in data["results"]) else 0


if __name__ == "__main__":
    sys.exit(main())
