"""What is measured: the plan of a whole run, and how one step of it is done.

A step starts one broker in a fresh directory, loads it with `forebay bench`, and gives its figures. Steps of one round and
one pair stand side by side: ratios are only ever taken within them.
"""

import dataclasses
import json
import os
import resource
import statistics
import subprocess
import time
from typing import Any, Callable

import install
import machine
import wire
from brokers import Failed
from peers import forebay as forebay_module

# Room for what a produce run may leave on the disk.
NEEDED_BYTES = 12 << 30
RAW = "one thread, 1 MiB writes, fdatasync"


@dataclasses.dataclass
class Step:
    """One measurement. `row` is its line of the table, `pair` the steps with which it is compared."""

    scenario: str
    round: int
    pair: str
    row: str
    broker: Any
    act: Callable[["Step"], dict]


class Session:
    """A run of the benchmark: who takes part, how long, and the figures so far."""

    needed_bytes = NEEDED_BYTES

    def __init__(self, options, mqtt, kafka):
        self.options, self.mqtt, self.kafka = options, mqtt, kafka
        self.forebay, self.forebay_log = forebay_module.Forebay(), forebay_module.ForebayLog()
        self.results = []

    def plan(self):
        """All steps, in order."""
        wanted = self.options.scenarios
        makers = {
            "mqtt": self.plan_mqtt,
            "kept": self.plan_kept,
            "doors": self.plan_doors,
            "latency": self.plan_latency,
            "half": self.plan_half,
            "produce": self.plan_produce,
            "fetch": self.plan_fetch,
        }
        return [step for name, make in makers.items() if name in wanted for step in make()]

    def rounds(self):
        return range(1, self.options.rounds + 1)

    def in_turns(self, scenario, peers, act):
        """Forebay and a peer in turns: A B A B, each pair of neighbours one comparison."""
        peers = peers or [None]
        for round_ in self.rounds():
            for peer in peers:
                for broker in (self.forebay, peer):
                    if broker is not None:
                        yield Step(scenario, round_, peer.name if peer else "", broker.name, broker, act)

    def plan_mqtt(self):
        return self.in_turns("mqtt", self.mqtt, lambda step: self.publish(step.broker))

    def plan_kept(self):
        return self.in_turns("kept", self.mqtt, lambda step: self.publish(step.broker, kept=True))

    def plan_doors(self):
        peers = [peer for peer in self.mqtt if peer.name == "mosquitto"]
        for round_ in self.rounds():
            for broker in [self.forebay, *peers]:
                for door in ("TCP", "TLS 1.3", *(["QUIC"] if broker is self.forebay else [])):
                    act = lambda step, door=door: self.publish(step.broker, door=door)  # noqa: E731
                    yield Step("doors", round_, broker.name, f"{broker.name}, {door}", broker, act)

    def plan_latency(self):
        peers = [peer for peer in self.mqtt if peer.name == "mosquitto"]

        def act(step):
            beside = machine.fdatasync_seconds(install.cache_dir())
            figures = self.publish(step.broker, load=["--clients", "1", "--inflight", "1"])
            beside = (beside + machine.fdatasync_seconds(install.cache_dir())) / 2
            return {**figures, "fdatasync_seconds": beside}

        return self.in_turns("latency", peers, act)

    def plan_half(self):
        peers = [peer for peer in self.mqtt if peer.name == "mosquitto"]

        def act(step):
            full = self.median("mqtt", step.row, "messages_per_second")
            if full is None:
                full = self.publish(step.broker)["messages_per_second"]
            return self.publish(step.broker, load=["--rate", f"{full / 2:.0f}"])

        return self.in_turns("half", peers, act)

    def plan_produce(self):
        brokers = [self.forebay, *([] if self.options.quick else [self.forebay_log]), *self.kafka]
        for round_ in self.rounds():
            yield Step("produce", round_, "", RAW, None, lambda step: self.write_disk())
            for broker in brokers:
                yield Step("produce", round_, "", broker.name, broker, lambda step: self.produce(step.broker))

    def plan_fetch(self):
        brokers = [self.forebay, *[broker for broker in self.kafka if "fsync" not in broker.name]]
        for round_ in self.rounds():
            for broker in brokers:
                yield Step("fetch", round_, "", broker.name, broker, lambda step: self.fetch(step.broker))

    def median(self, scenario, row, field):
        """Median of a figure over the rounds so far; `None` if there is none."""
        found = [r[field] for r in self.results if (r["scenario"], r["row"]) == (scenario, row) and field in r]
        return statistics.median(found) if found else None

    def timing(self, broker):
        warmup = min(broker.warmup, 0.5) if self.options.quick else broker.warmup
        return ["--duration", f"{self.options.seconds}s", "--warmup", f"{warmup * 1000:.0f}ms", "--threads", str(self.options.threads)]

    def publish(self, broker, kept=False, door="TCP", load=()):
        """MQTT QoS 1, 200-byte JSON readings, 100 connections with 20 in flight unless `load` says otherwise."""
        with broker.start(kept=kept, tls=door != "TCP") as run:
            if kept:
                wire.leave_subscription(run.port, "away", "meters/#")
            words = ["quic", "--insecure"] if door == "QUIC" else ["mqtt"]
            if door == "TLS 1.3":
                words += ["--tls", "--insecure"]
            port = {"TCP": run.port, "TLS 1.3": run.tls_port, "QUIC": run.quic_port}[door]
            return self.measured(run, [*words, "--port", str(port), *load, *self.timing(broker)])

    def produce(self, broker):
        """Kafka, acks=all: 1 KiB records in batches of 64 KiB, 4 connections with 5 requests in flight."""
        with broker.start() as run:
            target = ["kafka", "--bootstrap", f"127.0.0.1:{run.kafka_port}", "--topic", "bench"]
            self.make_topic(target)
            return self.measured(run, [*target, *self.timing(broker)])

    def fetch(self, broker):
        """Kafka: 4 connections read what was produced before, again and again, from the page cache."""
        with broker.start() as run:
            target = ["kafka", "--bootstrap", f"127.0.0.1:{run.kafka_port}", "--topic", "bench"]
            self.make_topic(target)
            self.bench([*target, "--count", "100000" if self.options.quick else "400000"])
            run.settle(20)
            return self.measured(run, [*target, "--fetch", *self.timing(broker)])

    def make_topic(self, target):
        """A new topic has its leaders only after a moment; until then Kafka refuses."""
        for attempt in range(20):
            try:
                self.bench([*target, "--count", "2000"])
                return
            except Failed:
                if attempt == 19:
                    raise
                time.sleep(0.25)

    def write_disk(self):
        rate = machine.write_rate(install.cache_dir(), self.options.seconds)
        return {"megabytes_per_second": rate / 1e6}

    def measured(self, run, words):
        """Runs the generator and adds what the broker spent on it."""
        report, costs = self.watched(run, lambda: self.bench(words))
        millions = max(report["acked"], 1) / 1e6
        latency = report["ack_latency_seconds"] or {}
        return {
            "command": "forebay bench " + without_ports(words),
            **costs,
            "cpu_per_million": costs["cpu_seconds"] / millions,
            "generator_cpu_per_million": costs["generator_cpu_seconds"] / millions,
            "acked": report["acked"],
            "rate": report["target_messages_per_second"],
            "messages_per_second": report["messages_per_second"],
            "megabytes_per_second": report["megabytes_per_second"],
            **{f"{name}_seconds": value for name, value in latency.items()},
            **{f"late_{name}_seconds": value for name, value in (report["sent_late_by_seconds"] or {}).items()},
        }

    def watched(self, run, load):
        """What `load` returns, and what broker, generator and others spent meanwhile."""
        begin, busy, cpu, own = time.monotonic(), machine.busy_seconds(), run.cpu_seconds(), children_cpu()
        report = load()
        cpu, own = run.cpu_seconds() - cpu, children_cpu() - own
        others = max(machine.busy_seconds() - busy - cpu - own, 0) / (time.monotonic() - begin)
        resident, peak = run.memory()
        return report, {
            "ready_seconds": run.ready_seconds,
            "idle_bytes": run.idle_bytes,
            "resident_bytes": resident,
            "peak_bytes": peak,
            "cpu_seconds": cpu,
            "generator_cpu_seconds": own,
            "others_cores": others,
        }

    def bench(self, words):
        """One run of `forebay bench`; its report. `Failed` if it does not end well."""
        words = [forebay_module.binary(), "bench", *words, "--json"]
        if self.options.pin:
            words = ["taskset", "-c", str((os.cpu_count() or 1) - 1), *words]
        try:
            done = subprocess.run(words, capture_output=True, text=True, timeout=self.options.seconds + 90, stdin=subprocess.DEVNULL)
        except subprocess.TimeoutExpired:
            raise Failed("the generator did not end in time") from None
        if done.returncode != 0 or not done.stdout.startswith("{"):
            said = [line.strip() for line in done.stderr.splitlines() if line.strip()]
            raise Failed("; ".join(said[-3:])[:300] or f"the generator ended with code {done.returncode}")
        return json.loads(done.stdout)

    def do(self, step):
        """Does a step and keeps its figures, or why there are none; returns them."""
        result = {"scenario": step.scenario, "round": step.round, "pair": step.pair, "row": step.row}
        machine.settle()
        try:
            if machine.free_bytes(install.cache_dir()) < self.needed_bytes:
                raise Failed(f"less than {self.needed_bytes >> 30} GiB free on the disk of {install.cache_dir()}")
            result.update(step.act(step))
        except (Failed, install.Missing, OSError) as error:
            result["error"] = str(error) or type(error).__name__
        self.results.append(result)
        return result


def children_cpu():
    """User and system time of the programs that ended: of the generator, as brokers end later."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def without_ports(words):
    """A command line to show: the ports are other ones each time."""
    shown, hide = [], False
    for word in words:
        shown.append("PORT" if hide else "HOST:PORT" if word.startswith("127.0.0.1:") else word)
        hide = word == "--port"
    return " ".join(shown)
