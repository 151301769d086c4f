#!/usr/bin/env python3
"""Three nodes of Forebay beside three brokers of Apache Kafka on this machine: what a lost leader, a planned move and three copies cost.

    cargo build --release
    tests/bench/cluster.py --quick              # each part once, small, some minutes
    tests/bench/cluster.py --write              # everything, into BENCHMARKS.md

failover: kill -9 of the leader of a loaded partition, until acks come again. moves: the leadership is given to another node. mqtt:
full MQTT load into one node alone and into three; meters: the same with more connections. produce: acks=all over Kafka's protocol, three replicas. catchup: a follower that was
away. idle: a thousand partitions of three replicas at rest. Clients with short pauses of their own (paced.py) measure the first two,
`forebay bench` the next. Like side_by_side.py, with the same cache directory and the same needs; Kafka's rows are left out where it
cannot be had.
"""

import argparse
import concurrent.futures
import datetime
import json
import pathlib
import signal
import sys

sys.dont_write_bytecode = True

import brokers  # noqa: E402
import cluster_parts  # noqa: E402
import cluster_tables  # noqa: E402
import install  # noqa: E402
import kafka_wire  # noqa: E402
import machine  # noqa: E402
import scenarios  # noqa: E402
import side_by_side  # noqa: E402
import tables  # noqa: E402
from cluster_parts import quantile  # noqa: E402
from cluster_tables import ALL, ONE, PARTS, SINGLE, render, tell  # noqa: E402
from peers import three  # noqa: E402
from scenarios import Step  # noqa: E402
from side_by_side import BENCHMARKS, check, say  # noqa: E402

BEGIN, END = "<!-- cluster:begin -->", "<!-- cluster:end -->"
PEERS = {"kafka": three.KafkaThree, "kafka-fsync": three.KafkaThreeFsync}
# MQTT connections at full load, by part.
CLIENTS = {"mqtt": 100, "meters": 500}


def arguments(words):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", metavar="NAMES", default=",".join(PEERS), help="which peers, or none [default: %(default)s]")
    parser.add_argument("--parts", metavar="NAMES", default=",".join(PARTS), help="which parts [default: %(default)s]")
    parser.add_argument("--kills", type=int, default=50, metavar="N", help="leaders of Forebay killed, 0 to leave it out [default: 50]")
    parser.add_argument("--kafka-kills", type=int, default=10, metavar="N", help="the same of Kafka, half a minute each [default: 10]")
    parser.add_argument("--moves", type=int, default=20, metavar="N", help="leaderships moved [default: 20]")
    parser.add_argument("--seconds", type=int, default=5, metavar="N", help="measured seconds of a run at full load [default: 5]")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="rounds of full load [default: 3]")
    parser.add_argument("--gigabytes", type=float, default=2, metavar="N", help="how far the follower is behind [default: 2]")
    parser.add_argument("--partitions", type=int, default=1000, metavar="N", help="partitions at rest [default: 1000]")
    parser.add_argument("--quick", action="store_true", help="3 kills and moves, one round of 2 s, 1 GB, 100 partitions")
    parser.add_argument("--write", action="store_true", help="write the tables into BENCHMARKS.md instead of printing them")
    parser.add_argument("--tables", metavar="FILES", help="tables of the raw results of earlier runs; nothing is measured")
    parser.add_argument("--self-test", action="store_true", help="check what is pure on made-up results")
    options = parser.parse_args(words)
    options.minutes = 0.5
    if options.quick:
        options.kills = options.kafka_kills = options.moves = 3
        options.rounds, options.seconds, options.gigabytes, options.partitions, options.minutes = 1, 2, 1, 100, 0.1
    options.peers = [name for name in options.peers.split(",") if name not in ("", "none")]
    options.scenarios = options.parts.split(",")
    for given, known in ((options.peers, PEERS), (options.scenarios, PARTS)):
        for name in given:
            if name not in known:
                parser.error(f"{name!r} is unknown; known are {', '.join(known)}")
    options.threads, options.pin = 1, False
    return options


class Session(scenarios.Session):
    """The plan of this benchmark; how a step is done and kept is that of the side-by-side benchmark."""

    # Three copies of what a follower has to catch up with, and the lake's.
    needed_bytes = 8 << 30

    def __init__(self, options, peers):
        super().__init__(options, mqtt=[], kafka=peers)
        self.three = three.ForebayThree()

    def plan(self):
        defaults = [self.three, *(peer for peer in self.kafka if "fsync" not in peer.name)]
        for name in self.options.scenarios:
            if name in CLIENTS:
                yield from self.plan_mqtt(name)
                continue
            act, full = getattr(self, name), name == "produce"
            for round_ in self.rounds() if full else [1]:
                for broker in [self.three, *self.kafka] if full else defaults:
                    if name == "failover" and not self.kills(broker):
                        continue
                    yield Step(name, round_, "", broker.name, broker, act)

    def plan_mqtt(self, part):
        for round_ in self.rounds():
            for row, broker in ((ONE, self.forebay), (ALL, self.three), (SINGLE, self.three)):
                yield Step(part, round_, "", row, broker, self.mqtt_load)

    def failover(self, step):
        with step.broker.start() as run:
            return cluster_parts.failover(run, self.kills(step.broker))

    def kills(self, broker):
        return self.options.kills if broker is self.three else self.options.kafka_kills

    def moves(self, step):
        with step.broker.start() as run:
            return cluster_parts.moves(run, self.options.moves)

    def mqtt_load(self, step):
        """One generator for each node that has clients, all at once."""
        with step.broker.start() as run:
            if step.broker is self.forebay:
                ports = [run.port]
            else:
                run.wait_in_sync()
                ports = list(run.mqtt.values())[: 3 if step.row == ALL else 1]

            def load():
                clients = cluster_parts.spread_clients(CLIENTS[step.scenario], ports)
                timing = self.timing(step.broker)
                words = [["mqtt", "--port", str(port), "--clients", str(count), *timing] for port, count in zip(ports, clients)]
                with concurrent.futures.ThreadPoolExecutor() as pool:
                    return list(pool.map(self.bench, words))

            reports, costs = self.watched(run, load)
            return {**costs, **together(reports, costs)}

    def produce(self, step):
        with step.broker.start() as run:
            run.create("bench", 4)
            words = ["kafka", "--bootstrap", f"127.0.0.1:{run.kafka[1]}", "--topic", "bench"]
            self.make_topic(words)
            return self.measured(run, [*words, *self.timing(step.broker)])

    def catchup(self, step):
        with step.broker.start() as run:
            words = ["kafka", "--bootstrap", f"127.0.0.1:{run.kafka[1]}", "--topic", "bench"]

            def produce(count):
                self.make_topic(words)
                self.bench([*words, "--count", str(count)])

            return cluster_parts.catch_up(run, produce, self.options.gigabytes)

    def idle(self, step):
        with step.broker.start() as run:
            return cluster_parts.idle(run, self.options.partitions, self.options.minutes)


def together(reports, costs):
    """What several generators measured, as one: rates add up, of latencies the worst counts."""
    millions = max(sum(report["acked"] for report in reports), 1) / 1e6
    latencies = [report["ack_latency_seconds"] or {} for report in reports]
    return {
        "acked": sum(report["acked"] for report in reports),
        "messages_per_second": sum(report["messages_per_second"] for report in reports),
        "cpu_per_million": costs["cpu_seconds"] / millions,
        "generator_cpu_per_million": costs["generator_cpu_seconds"] / millions,
        **{f"{name}_seconds": max(one.get(name, 0) for one in latencies) for name in ("p50", "p99")},
    }


def self_test():
    check((quantile([3, 1, 2], 0.5), quantile(range(1, 51), 0.99), quantile(range(1, 201), 0.99), quantile([7], 1)), (2, 50, 198, 7))
    check(cluster_parts.spread_clients(100, [1, 2, 3]), [34, 33, 33])
    acks = [(second / 100, second / 100 + 0.001) for second in range(300)]
    check(round(cluster_parts.resumed(acks, 1.005), 3), 0.006)
    late = [(due, acked + (0.04 if 2.0 <= due < 2.02 else 0)) for due, acked in acks]
    check(round(cluster_parts.added(late, 2.0), 3), 0.04)
    check(kafka_wire.crc32c(b"123456789"), 0xE3069283)
    check([kafka_wire.varint(value) for value in (0, -1, 1, 300)], [b"\x00", b"\x01", b"\x02", b"\xd8\x04"])
    answer = b"\x00\x00\x00\x01\x00\x01t\x00\x00\x00\x01" + bytes(4) + b"\x00\x06" + bytes(24)
    check(kafka_wire.produced(answer + bytes(4)), 6)
    row = lambda part, name, **more: {"scenario": part, "round": 1, "pair": "", "row": name, **more}  # noqa: E731
    results = [row("failover", "Forebay, 3 nodes", kills=3, controllers=1, producer=[0.3, 0.5, 0.4], survivors=[0.6] * 6)]
    results += [row("failover", "Kafka, 3 brokers", kills=2, controllers=0, producer=[9.0, 8.0], survivors=[]), row("moves", "Kafka, 3 brokers", error="no luck")]
    results += [row("mqtt", name, messages_per_second=rate) for name, rate in ((ONE, 400.0), (ALL, 220.0))]
    facts = {"cpu": "C", "cores": 2, "memory_gib": 4, "kernel": "6", "virtual": False, "filesystem": "ext4", "fdatasync_seconds": 0.001}
    data = {"date": "2026-01-01", "machine": facts, "options": {}, "versions": {"Kafka": "4"}, "durability": {},
            "skipped": {"Kafka, 3 brokers, fsync": "no Java"}, "results": results}  # fmt: skip
    text = render(data)
    wanted = ["| Forebay, 3 nodes | – | 3 | 1 | 400 | 500 | 500 | 600 | 600 | 600 |"]
    wanted += ["| Kafka 4, 3 brokers | – | 2 | 0 | 8,000 | 9,000 | 9,000 | – | – | – |"]
    for part in (*wanted, "| 220 | 0.55 |", "failed in 1 of the runs: no luck", "fsync is left out: no Java."):
        check((part in text, part), (True, part))
    joined = together([{"acked": 5, "messages_per_second": 2.0, "ack_latency_seconds": {"p50": value, "p99": 2}} for value in (1, 3)],
                      {"cpu_seconds": 1, "generator_cpu_seconds": 2})  # fmt: skip
    check((joined["messages_per_second"], joined["p50_seconds"], round(joined["cpu_per_million"])), (4.0, 3, 100_000))
    check(arguments(["--quick", "--parts", "idle", "--peers", "none"]).peers, [])
    check(tables.replace_between(f"a\n{BEGIN}\nold\n{END}\n", "new", BEGIN, END), f"a\n{BEGIN}\n\nnew\n{END}\n")


def install_peers(names):
    """The peers that can be had, their versions, and why the others cannot."""
    ready, versions, skipped = [], {}, {}
    for name in names:
        peer = PEERS[name]()
        try:
            versions["Kafka"] = peer.setup()
            ready.append(peer)
        except install.Missing as error:
            skipped[peer.name] = str(error)
            say(f"{peer.name} is left out: {error}")
    return ready, versions, skipped


def measure(options):
    ready, versions, skipped = install_peers(options.peers)
    session = Session(options, ready)
    versions["Forebay"] = session.three.setup()
    now = datetime.datetime.now(datetime.timezone.utc)
    everyone = [session.forebay, session.three, *ready]
    durability = {broker.name: {"plain": broker.durability} for broker in everyone}
    durability[SINGLE] = durability[ALL]
    data = {
        "date": now.strftime("%Y-%m-%d"),
        "machine": machine.facts(install.cache_dir()),
        "options": vars(options),
        "versions": versions,
        "skipped": skipped,
        "durability": durability,
        "results": session.results,
    }
    path = side_by_side.perform(session, data, now.strftime("cluster-%Y%m%d-%H%M%S.json"), tell)
    say(f"raw results: {path}")
    return data


def main():
    options = arguments(sys.argv[1:])
    if options.self_test:
        self_test()
        say("cluster: self-test passed")
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        data = joined_results(options.tables) if options.tables else measure(options)
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


def joined_results(files):
    """Raw results of several runs as one: parts that take long are often measured by themselves."""
    found = [json.loads(pathlib.Path(path).read_text()) for path in files.split(",")]
    return {**found[-1], "results": [result for one in found for result in one["results"]]}


if __name__ == "__main__":
    sys.exit(main())
