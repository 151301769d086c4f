"""Many group members in one process, by librdkafka: `members.py hold|join ...`, started by kafka_tools.py in an environment of its own.

    members.py hold BOOTSTRAP TOPICS GROUPS MEMBERS [RATE]   GROUPS groups of MEMBERS, group g on topic g modulo TOPICS; a line of JSON each
                                                             second until stdin ends; with RATE also produces that many records a second
    members.py join BOOTSTRAP PARTITIONS MEMBERS HEARTBEAT   one group: how long until all have their partitions, when all come at once and
                                                             when one joins the others; HEARTBEAT in milliseconds; a line of JSON

Topics are named as `topic_name` says. Times are of the monotonic clock, in seconds.
"""

import json
import sys
import threading
import time

# How long one rebalance may take before it counts as failed.
PATIENCE = 120


def topic_name(number):
    return f"bench-{number}"


class Member:
    """A consumer on a thread of its own; knows what it owns, and when it last gave up and got partitions."""

    def __init__(self, bootstrap, group, topic, **settings):
        import confluent_kafka

        self.owned, self.read, self.rebalances = set(), 0, 0
        self.began = self.revoked = self.assigned = time.monotonic()
        self.over = threading.Event()
        config = {"bootstrap.servers": bootstrap, "group.id": group, "auto.offset.reset": "earliest", **settings}
        self.consumer = confluent_kafka.Consumer({"auto.commit.interval.ms": 1000, "queued.max.messages.kbytes": 1024, **config})
        self.consumer.subscribe([topic], on_assign=self.gets, on_revoke=self.gives, on_lost=self.gives)
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def gets(self, consumer, partitions):
        self.owned = {place.partition for place in partitions}
        self.assigned, self.rebalances = time.monotonic(), self.rebalances + 1
        consumer.assign(partitions)

    def gives(self, consumer, _):
        self.owned, self.revoked = set(), time.monotonic()
        consumer.unassign()

    def run(self):
        while not self.over.is_set():
            message = self.consumer.poll(0.5)
            if message is not None and message.error() is None:
                self.read += 1
        self.consumer.close()


def end(members):
    for member in members:
        member.over.set()
    for member in members:
        member.thread.join(30)


def hold(bootstrap, topics, groups, members, rate="0"):
    topics, members, rate = int(topics), int(members), int(rate)
    numbers = [int(number) for number in groups.split(",")]
    everyone = [
        Member(bootstrap, f"bench-group-{number}", topic_name(number % topics)) for number in numbers for _ in range(members)
    ]
    over, produced = threading.Event(), [0]
    threading.Thread(target=lambda: (sys.stdin.read(), over.set()), daemon=True).start()
    if rate:
        threading.Thread(target=produce, args=(bootstrap, topics, rate, produced, over), daemon=True).start()
    while not over.wait(1):
        state = {
            "owned": sum(len(member.owned) for member in everyone),
            "idle": sum(not member.owned for member in everyone),
            "rebalances": sum(member.rebalances for member in everyone),
            "read": sum(member.read for member in everyone),
            "produced": produced[0],
        }
        print(json.dumps(state), flush=True)
    end(everyone)


def produce(bootstrap, topics, rate, produced, over):
    """Records of 1 KiB to all topics in turn, each tenth of a second."""
    import confluent_kafka

    producer, value, number = confluent_kafka.Producer({"bootstrap.servers": bootstrap, "acks": "all"}), b"x" * 1024, 0

    def delivered(error, _):
        produced[0] += error is None

    while not over.wait(0.1):
        for _ in range(rate // 10):
            number += 1
            producer.produce(topic_name(number % topics), key=b"%d" % number, value=value, on_delivery=delivered)
        producer.poll(0)
    producer.flush(10)


def settle(members, partitions, since=None):
    """Waits until the members share all partitions; the seconds from the last join until all have theirs, and from `since`.

    Who gives up its partitions joins at once: the last one to do so, or the last to come, is the last join.
    """
    deadline = time.monotonic() + PATIENCE
    while True:
        owned = sorted(part for member in members for part in member.owned)
        if owned == list(range(partitions)) and all(member.owned for member in members):
            break
        if time.monotonic() > deadline:
            raise SystemExit(f"{len(owned)} of {partitions} partitions are owned after {PATIENCE} s")
        time.sleep(0.002)
    done = max(member.assigned for member in members)
    # A member without partitions has nothing to give up and joined when it came.
    joined = max(max(member.began, member.revoked) for member in members)
    return {"settle_seconds": done - joined, "total_seconds": done - (since or min(member.began for member in members))}


def join(bootstrap, partitions, members, heartbeat):
    partitions, members = int(partitions), int(members)
    settings = {"heartbeat.interval.ms": int(heartbeat), "partition.assignment.strategy": "range"}
    one = lambda: Member(bootstrap, "bench-rebalance", topic_name(0), **settings)  # noqa: E731
    everyone = [one() for _ in range(members - 1)]
    together = settle(everyone, partitions)
    time.sleep(2)
    since = time.monotonic()
    everyone.append(one())
    print(json.dumps({"together": together, "one_more": settle(everyone, partitions, since)}), flush=True)
    end(everyone)


if __name__ == "__main__":
    {"hold": hold, "join": join}[sys.argv[1]](*sys.argv[2:])
