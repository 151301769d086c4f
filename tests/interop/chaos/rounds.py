"""Rounds of faults against three nodes under load, and the checks after each of them and at the end.

    FOREBAY_CHAOS_ROUNDS=200 FOREBAY_CHAOS_SEED=7 python -m unittest test_chaos

A seed decides which faults hit the leaders of which partitions for how long; the processes' own timing is not replayed.
FOREBAY_CHAOS_ONLY="killed" takes the kinds of faults with that in their name, FOREBAY_CHAOS_KEEP=1 keeps logs and data, and
FOREBAY_CHAOS_FLAW=leader-acks has meters and producers content with the leader's ack, to see that it is noticed.
Between the rounds one node after the other is stopped and started again; with FOREBAY_CHAOS_FROM=PROGRAM they begin with that
program, an earlier release, and are upgraded then.
"""

import os
import random
import sys
import time

from gateway import eventually

from . import audit, faults, lake, network, nodes, readers
from .kafka_load import Group, Purchases
from .meters import Meter, Subscriber
from .pauses import Pauses

METERS = 16
RATE = 8
PURCHASERS = 2
PURCHASE_RATE = 100
SETTLE = 60


class Run:
    def __init__(self, seed, rounds, flaw):
        self.seed, self.flaw = seed, flaw
        self.began = time.monotonic()
        self.findings = []
        place, disks = network.here()
        allowed = {name for name, there in (("cuts", place.cuts), ("disks", disks)) if there}
        for name, what in (("cuts", "network namespaces"), ("disks", "mounting a small disk")):
            if name not in allowed:
                self.say(f"LEFT OUT: this machine does not allow {what}")
        self.plan = faults.plan(seed, rounds, allowed, os.environ.get("FOREBAY_CHAOS_ONLY", ""))
        self.cluster = nodes.Cluster(place, disks, flaw)
        self.log = audit.Log()
        self.partitions = [("readings", number) for number in range(4)] + [("purchases", number) for number in range(3)]
        self.cluster.become_whole(SETTLE)
        self.begin_load()

    def say(self, text):
        print(f"[{time.monotonic() - self.began:6.1f} s] {text}", flush=True)

    def wrong(self, when, findings):
        for one in findings:
            self.say(f"WRONG, {when}: {one}")
        self.findings += findings

    def begin_load(self):
        bootstrap = self.cluster.bootstrap
        self.meter_pauses, self.producer_pauses = Pauses(), Pauses()
        self.subscriber = Subscriber("watcher", self.cluster.network)
        self.subscriber.start()
        eventually(lambda: self.must(self.subscriber.subscribed, "the subscriber has no SUBACK"), 30)
        self.meters = [Meter(f"m{number}", self.cluster.network, self.meter_pauses, RATE) for number in range(METERS)]
        self.producers = [
            Purchases(f"till{number}", bootstrap, [f"c{number}-{one}" for one in range(8)], self.producer_pauses, PURCHASE_RATE, self.flaw)
            for number in range(PURCHASERS)
        ]
        self.group = Group(bootstrap, nodes.TOPICS)
        self.group.start()
        for one in self.meters + self.producers:
            one.start()
        self.auditor = readers.Reader(bootstrap)
        eventually(lambda: self.must(len(self.meter_pauses.last) == METERS, "not all meters have an ack"), 30)

    def must(self, holds, text):
        assert holds, text

    def round(self, when, kind, target, seconds, turned, elect):
        victim, whose = self.victim(target)
        others = [node for node in network.NODES if node != victim]
        begin, end, _ = faults.KINDS[kind]
        arguments = (self.cluster, victim, others[::-1] if turned else others)
        self.say(f"{when}: node {victim}, the leader of {whose}, {kind} for {seconds} s")
        self.meter_pauses.begin()
        self.producer_pauses.begin()
        begin(*arguments)
        time.sleep(seconds)
        end(*arguments)
        healed = time.monotonic()
        took = self.settle(when)
        self.wait_for_acks(when, healed)
        self.say(
            f"    whole after {took:.1f} s; acks paused at most {self.meter_pauses.longest():.1f} s for meters, "
            f"{self.producer_pauses.longest():.1f} s for producers"
        )
        self.check(when)
        if elect:
            self.elect()

    def victim(self, target):
        """The node that leads the target, and what that is."""
        if target == faults.QUORUM:
            return self.cluster.controller(), "the quorum"
        partition = self.group_partition() if target == faults.GROUP else target
        return self.cluster.leader(partition), f"{partition[0]}-{partition[1]}"

    def settle(self, when):
        """Waits until the cluster is whole; a node that ended by itself is told and started again."""
        start = time.monotonic()
        while time.monotonic() < start + SETTLE:
            try:
                self.cluster.become_whole(SETTLE)
                break
            except nodes.Ended as ended:
                self.wrong(when, [str(ended)])
                ended.node.begin()
            except AssertionError as error:
                self.wrong(when, [f"the cluster does not become whole: {error}"])
        return time.monotonic() - start

    def wait_for_acks(self, when, since):
        """Every device gets acks again once all is healed."""

        def check():
            silent = self.meter_pauses.stopped(since) + self.producer_pauses.stopped(since)
            assert not silent, f"no acks since the fault was healed: {silent}"

        try:
            eventually(check, SETTLE)
        except AssertionError as error:
            self.wrong(when, [str(error)])

    def group_partition(self):
        """The partition of the group's offsets, by Kafka's rule."""
        code = 0
        for letter in "billing":
            code = (31 * code + ord(letter)) & 0xFFFFFFFF
        count = sum(topic == "__consumer_offsets" for topic, _ in self.cluster.partitions())
        return "__consumer_offsets", (code & 0x7FFFFFFF) % count

    def elect(self):
        try:
            self.cluster.elect()
        except AssertionError as error:
            self.wrong("elections", [f"leaders do not go back: {error}"])

    def read_on(self):
        """Takes what is new in the log."""
        ends = self.auditor.ends(self.partitions)
        known = self.log.ends()
        for one, end in ends.items():
            if end < known.get(one, 0):
                self.wrong("reading", [f"{one} ended at {known[one]} and ends at {end}"])
        self.log.extend(self.auditor.read(known, ends))

    def check(self, when):
        """Nothing acknowledged before this moment is missing."""
        checks = [audit.published(meter, self.log) for meter in self.meters] + [audit.produced(one, self.log) for one in self.producers]
        self.read_on()
        self.wrong(when, self.log.wrong)
        self.log.wrong = []
        for check in checks:
            self.wrong(when, check())
        self.wrong(when, audit.shortened(self.group.wrong))
        self.group.wrong = []
        for one in self.meters + [self.subscriber]:
            self.wrong(when, one.wrong)
            one.wrong = []
        for one in self.producers:
            self.wrong(when, audit.shortened([f"{one.name}: {text}" for text in one.fatal + one.failed]))
            one.failed = []

    def end_load(self):
        for one in self.meters + self.producers:
            one.ending = True
        for one in self.meters + self.producers:
            one.join(100)
            if one.is_alive():
                self.wrong("the end", [f"{one.name} still waits for acks"])
        self.check("the end")
        sent = {meter.name: meter.next for meter in self.meters}
        self.wrong("the end", audit.complete(self.log, {**sent, **self.log_of_producers()}))

    def log_of_producers(self):
        sent = {}
        for one in self.producers:
            for device, number, *_ in one.acked:
                sent[device] = max(sent.get(device, 0), number + 1)
        return sent

    def check_consumers(self):
        def check():
            wrong = audit.consumed(self.group, self.log) + audit.delivered(list(self.subscriber.received), self.log, "readings")
            assert not wrong, wrong

        try:
            eventually(check, 60)
        except AssertionError as error:
            self.wrong("the end", error.args[0])
        self.group.finish()
        self.subscriber.ending = True
        self.subscriber.join(10)

    def check_readers(self):
        """All is read again from offset 0: by other clients, and from each node's replica."""
        bootstrap, ends = self.cluster.bootstrap, self.log.ends()
        self.wrong("kcat", audit.same(self.log, readers.by_kcat(bootstrap, ends), "kcat"))
        self.wrong("kafka-python", audit.same(self.log, readers.by_kafka_python(bootstrap, ends), "kafka-python"))
        for node in network.NODES:
            reader = readers.Reader(bootstrap, f"site-{node}")
            self.wrong("replicas", audit.same(self.log, reader.read({}, ends), f"the replica on node {node}"))
            elsewhere = {one: reader.read_from.get(one) for one, end in ends.items() if end and node not in reader.read_from.get(one, ())}
            self.wrong("replicas", [f"not read from node {node}, its rack's: {elsewhere}"] if elsewhere else [])
            reader.close()

    def check_lake(self):
        for topic in nodes.TOPICS:
            # Each node flushes what it leads.
            for node in network.NODES:
                self.cluster.post(f"/api/v1/lake/flush?topic={topic}", node, 120)
            self.wrong("lake", audit.in_lake(topic, lake.rows(self.cluster.lake / topic), self.log))
            for node in network.NODES:
                verdict = self.cluster.get(f"/api/v1/lake/verify?topic={topic}", node, 120)
                self.wrong("lake", [] if verdict["agree"] else [f"node {node} says of {topic}: {verdict}"])

    def restart(self, node):
        """A rolling upgrade's step."""
        self.say(f"node {node} is stopped and started again")
        self.meter_pauses.begin()
        self.producer_pauses.begin()
        self.cluster.nodes[node].upgrade()
        started = time.monotonic()
        when = f"restart of node {node}"
        self.settle(when)
        self.wait_for_acks(when, started)
        self.say(f"    acks paused at most {self.meter_pauses.longest():.1f} s for meters, {self.producer_pauses.longest():.1f} s for producers")
        self.check(when)

    def all(self):
        for number, words in enumerate(self.plan):
            for node in network.NODES:
                if number == len(self.plan) * node // 4:
                    self.restart(node)
            self.round(f"round {number + 1}", *words)
        self.end_load()
        self.say(f"{sum(self.log.ends().values())} records; the load has ended")
        self.check_consumers()
        self.check_readers()
        self.say("read by all clients from all replicas")
        self.check_lake()
        refused = sum(meter.refused for meter in self.meters)
        connections = sum(meter.connections for meter in self.meters)
        self.say(
            f"{len(self.log.copies)} readings are there more than once, {sum(len(meter.sent) for meter in self.meters)} were sent again, "
            f"{refused} were refused; {connections} connections of meters; {self.group.commits} commits, {self.group.refused} failed, "
            f"{self.group.stale} answers of a coordinator of the past, at most for {self.group.stalest:.1f} s"
        )


def main():
    seed = int(os.environ.get("FOREBAY_CHAOS_SEED") or random.SystemRandom().randrange(1_000_000))
    rounds = int(os.environ.get("FOREBAY_CHAOS_ROUNDS", "20"))
    print(f"seed {seed}: FOREBAY_CHAOS_SEED={seed} FOREBAY_CHAOS_ROUNDS={rounds} does the same", flush=True)
    run = Run(seed, rounds, os.environ.get("FOREBAY_CHAOS_FLAW"))
    try:
        run.all()
    finally:
        keep = bool(run.findings or sys.exc_info()[0] or os.environ.get("FOREBAY_CHAOS_KEEP"))
        codes = run.cluster.stop(keep)
        if keep:
            run.say(f"logs and data: {run.cluster.dir}")
    if set(codes.values()) != {0}:
        run.wrong("the end", [f"the nodes' exit codes: {codes}"])
    run.say(f"seed {seed}: {len(run.findings)} findings")
    sys.stdout.flush()
    # librdkafka's and pyarrow's threads are not waited for.
    os._exit(1 if run.findings else 0)


if __name__ == "__main__":
    main()
