"""A compacted topic as every client reads it: the last value of each key, and nothing that a client stumbles over."""

import asyncio
import os
import subprocess
import unittest
import uuid

from aiokafka import AIOKafkaConsumer
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from gateway import Gateway, eventually
from kafka import KafkaConsumer
from kafka import TopicPartition as Place

KEYS, RECORDS = 10, 600


class CompactedTopic(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.gateway = Gateway()
        cls.bootstrap = cls.gateway.addresses["kafka"]
        cls.topic = f"compacted-{uuid.uuid4().hex[:8]}"
        config = {"cleanup.policy": "compact", "segment.bytes": "16384", "min.cleanable.dirty.ratio": "0.01"}
        admin = AdminClient({"bootstrap.servers": cls.bootstrap})
        admin.create_topics([NewTopic(cls.topic, 1, 1, config=config)])[cls.topic].result(30)
        producer = Producer({"bootstrap.servers": cls.bootstrap, "enable.idempotence": True, "linger.ms": 0})
        for n in range(RECORDS):
            producer.produce(cls.topic, key=f"k{n % KEYS}", value=f"v{n} " + "x" * 300)
            producer.flush(30)
        eventually(cls.compacted)

    @classmethod
    def tearDownClass(cls):
        cls.gateway.stop()

    @classmethod
    def compacted(cls):
        assert len(cls.librdkafka()) < RECORDS / 4

    @classmethod
    def librdkafka(cls):
        settings = {"group.id": uuid.uuid4().hex, "enable.partition.eof": True}
        consumer = Consumer({"bootstrap.servers": cls.bootstrap, **settings})
        consumer.assign([TopicPartition(cls.topic, 0, 0)])
        read = []
        while True:
            message = consumer.poll(30)
            if message.error():
                if message.error().name() != "_PARTITION_EOF":
                    raise RuntimeError(str(message.error()))
                break
            read.append((message.offset(), message.key().decode(), message.value().decode()))
        consumer.close()
        return read

    def check(self, read):
        last = {key: (offset, value.split()[0]) for offset, key, value in read}
        expected = {f"k{n % KEYS}": (n, f"v{n}") for n in range(RECORDS - KEYS, RECORDS)}
        self.assertEqual(last, expected)
        self.assertEqual(sorted(offset for offset, _, _ in read), [offset for offset, _, _ in read])
        self.assertLess(len(read), RECORDS)

    def test_librdkafka(self):
        self.check(self.librdkafka())

    def test_kcat(self):
        words = ["kcat", "-C", "-b", self.bootstrap, "-t", self.topic, "-o", "beginning", "-e", "-q", "-f", "%o\\t%k\\t%s\\n"]
        out = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True).stdout
        fields = [line.split("\t") for line in out.splitlines()]
        self.check([(int(offset), key, value) for offset, key, value in fields])

    def test_kafka_python(self):
        consumer = KafkaConsumer(bootstrap_servers=self.bootstrap, consumer_timeout_ms=5000)
        consumer.assign([Place(self.topic, 0)])
        consumer.seek_to_beginning()
        self.check([(m.offset, m.key.decode(), m.value.decode()) for m in consumer])
        consumer.close()

    def test_aiokafka(self):
        async def read():
            consumer = AIOKafkaConsumer(self.topic, bootstrap_servers=self.bootstrap, auto_offset_reset="earliest")
            await consumer.start()
            found = []
            while batches := await consumer.getmany(timeout_ms=3000):
                found += [(m.offset, m.key.decode(), m.value.decode()) for of in batches.values() for m in of]
            await consumer.stop()
            return found

        self.check(asyncio.run(read()))

    def test_our_own_consumer(self):
        count = str(len(self.librdkafka()))
        words = [os.environ["FOREBAY_BIN"], "consume", self.topic, "--bootstrap", self.bootstrap, "--from", "beginning", "--max", count]
        out = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True).stdout
        self.assertEqual(len(out.splitlines()), int(count))
        self.assertTrue(out.splitlines()[-1].startswith(f"v{RECORDS - 1} ") or f"v{RECORDS - 1} " in out)
