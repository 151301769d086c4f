"""Kafka's load by librdkafka: idempotent producers with a key for each device, and a consumer group that commits."""

import json
import threading
import time

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

# Below librdkafka's defaults, so that a client gives a silent node up within a round.
PATIENCE = {"socket.timeout.ms": 3000, "reconnect.backoff.max.ms": 500, "topic.metadata.refresh.interval.ms": 2000, "log_level": 2}
# For so many seconds a coordinator of the past may be asked.
FRESH = 20


class Purchases(threading.Thread):
    """Produces the numbered purchases of some devices in turn; `acked` has where each acknowledged one is said to be.

    (Its device, its number, the partition, and the offset; None where the broker knows only that it has it.)
    """

    def __init__(self, name, bootstrap, devices, pauses, rate, flaw=None):
        super().__init__(name=name, daemon=True)
        self.devices, self.pauses, self.every = devices, pauses, 1 / rate
        self.acked = []
        self.failed = []
        self.fatal = []
        self.ending = False
        self.idempotent = flaw is None
        promise = {"acks": "all", "enable.idempotence": True}
        if flaw == "leader-acks":
            promise = {"acks": 1, "max.in.flight": 1}
        self.producer = Producer({
            "bootstrap.servers": bootstrap, "client.id": name, "linger.ms": 5, "retry.backoff.ms": 50, "retries": 1_000_000,
            # Without end: what a producer gave up would be a gap, and no fault of the cluster's.
            "message.timeout.ms": 0, "request.timeout.ms": 3000, "error_cb": self.on_error, **promise, **PATIENCE,
        })

    def on_error(self, error):
        if error.fatal():
            self.fatal.append(str(error))

    def run(self):
        due, number = time.monotonic(), 0
        while not self.ending and not self.fatal:
            for device in self.devices:
                self.send(device, number)
                due += self.every
                self.producer.poll(max(0, due - time.monotonic()))
            number += 1
            due = max(due, time.monotonic() - 1)
        self.producer.flush(90)

    def send(self, device, number):
        value = json.dumps({"device": device, "seq": number, "amount": number % 97})
        while not self.ending:
            try:
                self.producer.produce("purchases", value, device, on_delivery=lambda *told: self.on_delivery(device, number, *told))
                return
            except BufferError:
                self.producer.poll(0.1)

    def on_delivery(self, device, number, error, message):
        if error is not None:
            self.failed.append((device, number, str(error)))
        else:
            self.acked.append((device, number, message.partition(), message.offset()))
            self.pauses.ack(device)


class Group:
    """Members of one group; each commits what it has read, and an observer asks the coordinator what was committed."""

    def __init__(self, bootstrap, topics, members=2):
        self.settings = {
            "bootstrap.servers": bootstrap, "group.id": "billing", "enable.auto.commit": False, "auto.offset.reset": "earliest",
            "session.timeout.ms": 6000, "heartbeat.interval.ms": 1000, "partition.assignment.strategy": "cooperative-sticky", **PATIENCE,
        }
        self.topics = topics
        self.lock = threading.Lock()
        self.ending = False
        # By topic and partition: what was read at each offset, and the end up to which a commit was acknowledged.
        self.read = {}
        self.committed = {}
        self.commits = self.refused = self.stale = 0
        self.stalest = 0
        self.wrong = []
        self.threads = [threading.Thread(target=self.guarded, args=(self.member,), daemon=True) for _ in range(members)]
        self.threads.append(threading.Thread(target=self.guarded, args=(self.observe,), daemon=True))

    def start(self):
        for thread in self.threads:
            thread.start()

    def finish(self):
        self.ending = True
        for thread in self.threads:
            thread.join(60)

    def guarded(self, work):
        try:
            work()
        except Exception as error:
            self.wrong.append(f"the group's {work.__name__} ended: {error!r}")
            raise

    def member(self):
        consumer = Consumer(self.settings)
        consumer.subscribe(list(self.topics))
        committed = time.monotonic()
        dirty = False
        while not self.ending:
            for message in consumer.consume(500, 0.2):
                if message.error() is None:
                    self.take(message)
                    dirty = True
            if dirty and time.monotonic() > committed + 0.5:
                committed = time.monotonic()
                dirty = not self.commit(consumer)
        self.commit(consumer)
        consumer.close()

    def take(self, message):
        offsets = self.read.setdefault((message.topic(), message.partition()), {})
        before = offsets.setdefault(message.offset(), message.value())
        if before != message.value():
            where = f"{message.topic()}-{message.partition()} offset {message.offset()}"
            self.wrong.append(f"{where} was first {before!r}, then {message.value()!r}")

    def commit(self, consumer):
        """Commits what this member has read; whether all of it was taken."""
        try:
            answers = consumer.commit(asynchronous=False)
        except KafkaException:
            self.refused += 1
            return False
        with self.lock:
            self.commits += 1
            for one in answers:
                if one.error is None and one.offset >= 0:
                    key = (one.topic, one.partition)
                    self.committed[key] = max(self.committed.get(key, 0), one.offset)
        return all(one.error is None for one in answers)

    def observe(self):
        """Asks what was committed: it is never below what was acknowledged, or told, before the question.

        As with Kafka, a coordinator of the past that has not heard of it may answer from what it knew, so a lower answer is `stale`
        until another one follows within `FRESH` seconds, and only then wrong.
        """
        consumer = Consumer(self.settings)
        while not self.ending:
            with self.lock:
                floor = dict(self.committed)
            since = time.monotonic()
            while low := self.below(consumer, floor):
                self.stale += 1
                self.stalest = max(self.stalest, time.monotonic() - since)
                if self.ending or time.monotonic() > since + FRESH:
                    self.wrong += [f"{key}: offset {floor[key]} was committed, now {offset} is" for key, offset in low.items()]
                    break
                time.sleep(0.25)
            time.sleep(0.25)
        consumer.close()

    def below(self, consumer, floor):
        """Partitions whose committed offset is below `floor`, with what the coordinator says; raises the floor to come."""
        if not floor:
            return {}
        try:
            answers = consumer.committed([TopicPartition(*key) for key in floor], timeout=5)
        except KafkaException:
            return {}
        low = {}
        for one in answers:
            key = (one.topic, one.partition)
            if one.error is None and one.offset < floor[key]:
                low[key] = one.offset
            elif one.error is None:
                with self.lock:
                    self.committed[key] = max(self.committed.get(key, 0), one.offset)
        return low
