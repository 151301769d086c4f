"""Reads logs from offset 0 by clients that are not ours: librdkafka, at the leader or at the replica of a rack, kafka-python, and kcat."""

import json
import subprocess
import time

from confluent_kafka import Consumer, KafkaException, TopicPartition
from kafka import KafkaConsumer
from kafka import TopicPartition as PythonPartition

from gateway import eventually

PATIENCE = 60


class Reader:
    """librdkafka's consumer on given partitions; with a rack it reads from the replica there."""

    def __init__(self, bootstrap, rack=None):
        self.read_from = {}
        settings = {
            "bootstrap.servers": bootstrap, "group.id": "audit", "enable.auto.commit": False, "auto.offset.reset": "error",
            "topic.metadata.refresh.interval.ms": 1000, "fetch.wait.max.ms": 100, "socket.timeout.ms": 5000, "log_level": 2,
        }
        if rack:
            settings |= {"client.rack": rack, "statistics.interval.ms": 100, "stats_cb": self.on_statistics}
        self.consumer = Consumer(settings)

    def on_statistics(self, told):
        """Notes how many records came from which node: librdkafka counts them for each partition, and names its node."""
        for topic, counts in json.loads(told)["topics"].items():
            for partition, one in counts["partitions"].items():
                if one["rxmsgs"]:
                    self.read_from.setdefault((topic, int(partition)), set()).add(one["broker"])

    def ends(self, partitions):
        """The end of each partition, its high watermark, as its leader says."""
        return {one: eventually(lambda: self.end(one), PATIENCE) for one in partitions}

    def end(self, one):
        try:
            return self.consumer.get_watermark_offsets(TopicPartition(*one), timeout=5)[1]
        except KafkaException as error:
            # Such as that the leader has just changed.
            raise AssertionError(f"{one} does not say where it ends: {error}") from error

    def read(self, starts, ends):
        """By partition, the records from its start up to its end: (offset, key, value)."""
        records = {one: [] for one in ends}
        left = {one for one, end in ends.items() if end > starts.get(one, 0)}
        self.consumer.assign([TopicPartition(*one, starts.get(one, 0)) for one in left])
        deadline = time.monotonic() + PATIENCE
        while left:
            for message in self.consumer.consume(2000, 0.2):
                if message.error() is not None:
                    raise AssertionError(f"reading: {message.error()}")
                one = (message.topic(), message.partition())
                if message.offset() < ends[one]:
                    records[one].append((message.offset(), message.key(), message.value()))
                    deadline = time.monotonic() + PATIENCE
                if message.offset() >= ends[one] - 1:
                    left.discard(one)
            if time.monotonic() > deadline:
                raise AssertionError(f"nothing comes any more of {sorted(left)}")
        # Once more, for the statistics.
        self.consumer.poll(0.3)
        self.consumer.unassign()
        return records

    def close(self):
        self.consumer.close()


def by_kafka_python(bootstrap, ends):
    consumer = KafkaConsumer(
        bootstrap_servers=bootstrap.split(","), enable_auto_commit=False, auto_offset_reset="none", fetch_max_wait_ms=100
    )
    partitions = {PythonPartition(*one): one for one, end in ends.items() if end > 0}
    consumer.assign(list(partitions))
    for partition in partitions:
        consumer.seek(partition, 0)
    records = {one: [] for one in ends}
    deadline = time.monotonic() + PATIENCE
    while any(consumer.position(partition) < ends[one] for partition, one in partitions.items()):
        for partition, got in consumer.poll(200, 5000).items():
            one = partitions[partition]
            records[one] += [(record.offset, record.key, record.value) for record in got if record.offset < ends[one]]
            deadline = time.monotonic() + PATIENCE
        if time.monotonic() > deadline:
            raise AssertionError("nothing comes any more for kafka-python")
    consumer.close()
    return records


def by_kcat(bootstrap, ends):
    records = {}
    for (topic, partition), end in ends.items():
        words = ["kcat", "-C", "-q", "-b", bootstrap, "-t", topic, "-p", str(partition), "-o", "beginning", "-c", str(end), "-f", "%o\\t%k\\t%s\\n"]
        done = subprocess.run(words, capture_output=True, timeout=PATIENCE) if end else None
        rows = [row.split(b"\t", 2) for row in done.stdout.splitlines()] if done else []
        records[topic, partition] = [(int(offset), key, value) for offset, key, value in rows]
    return records
