"""aiokafka: producer with every codec and idempotence, groups with rebalances, commits, seeks, times, and its admin client."""

import asyncio
import unittest
import uuid

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor
from aiokafka.errors import OffsetOutOfRangeError

from gateway import Gateway

PARTITIONS = 4
CODECS = (None, "gzip", "snappy", "lz4", "zstd")
DEADLINE = 30


def name(what):
    return f"aio-{what}-{uuid.uuid4().hex[:8]}"


class Counts(ConsumerRebalanceListener):
    """Counts how often a member was given its partitions."""

    def __init__(self):
        self.assigned = 0

    async def on_partitions_revoked(self, revoked):
        pass

    async def on_partitions_assigned(self, assigned):
        self.assigned += 1


class AioKafka(unittest.IsolatedAsyncioTestCase):
    @classmethod
    def setUpClass(cls):
        cls.gateway = Gateway()
        cls.bootstrap = cls.gateway.addresses["kafka"]

    @classmethod
    def tearDownClass(cls):
        cls.gateway.stop()

    async def asyncSetUp(self):
        # The debug mode of this kind of test tells of every slow step of a client that is none of ours.
        asyncio.get_running_loop().set_debug(False)
        self.admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap)
        await self.admin.start()
        self.addAsyncCleanup(self.admin.close)

    async def topic(self, partitions=PARTITIONS, **configs):
        topic = name("topic")
        made = await self.admin.create_topics([NewTopic(topic, partitions, 1, topic_configs=configs)])
        self.assertEqual([error[1] for error in made.topic_errors], [0], made)
        return topic

    async def producer(self, **config):
        producer = AIOKafkaProducer(bootstrap_servers=self.bootstrap, acks="all", **config)
        await producer.start()
        self.addAsyncCleanup(producer.stop)
        return producer

    async def consumer(self, *topics, **config):
        settings = {"auto_offset_reset": "earliest", "heartbeat_interval_ms": 300, "session_timeout_ms": 6000, **config}
        consumer = AIOKafkaConsumer(*topics, bootstrap_servers=self.bootstrap, **settings)
        await consumer.start()
        self.addAsyncCleanup(consumer.stop)
        return consumer

    async def fill(self, topic, count, **where):
        producer = await self.producer(linger_ms=5)
        sent = [await producer.send(topic, b"value %d" % n, key=b"key %d" % (n % 13), **where) for n in range(count)]
        return await asyncio.wait_for(asyncio.gather(*sent), DEADLINE)

    async def read(self, consumer, count):
        got = []
        async with asyncio.timeout(DEADLINE):
            while len(got) < count:
                for records in (await consumer.getmany(timeout_ms=500)).values():
                    got += records
        return got

    async def until(self, holds):
        async with asyncio.timeout(40):
            while not holds():
                await asyncio.sleep(0.05)

    async def test_every_codec_comes_back_as_it_was_sent(self):
        for codec in CODECS:
            for idempotent in (False, True):
                topic = await self.topic()
                producer = await self.producer(compression_type=codec, enable_idempotence=idempotent, linger_ms=5)
                wanted = [(b"key %d" % (n % 7), b"%d " % n + b"x" * (n % 90)) for n in range(300)]
                sent = [await producer.send(topic, value, key=key, headers=[("a", b"1")]) for key, value in wanted]
                placed = await asyncio.wait_for(asyncio.gather(*sent), DEADLINE)
                self.assertEqual(len({(place.partition, place.offset) for place in placed}), 300)
                got = await self.read(await self.consumer(topic), 300)
                self.assertEqual(sorted((record.key, record.value) for record in got), sorted(wanted), codec)
                for key in {key for key, _ in wanted}:
                    self.assertEqual([r.value for r in got if r.key == key], [v for k, v in wanted if k == key], codec)
                self.assertEqual(got[0].headers, (("a", b"1"),))

    async def test_a_batch_built_by_hand_is_taken_whole(self):
        topic = await self.topic(1)
        producer = await self.producer()
        batch = producer.create_batch()
        for n in range(5):
            batch.append(key=None, value=b"%d" % n, timestamp=1_700_000_000_000 + n)
        batch.close()
        placed = await (await producer.send_batch(batch, topic, partition=0))
        self.assertEqual(placed.offset, 0)
        got = await self.read(await self.consumer(topic), 5)
        self.assertEqual([(r.offset, r.timestamp) for r in got], [(n, 1_700_000_000_000 + n) for n in range(5)])

    async def test_positions_times_and_borders(self):
        topic = await self.topic(1)
        producer, start, place = await self.producer(), 1_700_000_000_000, TopicPartition(topic, 0)
        for n in range(100):
            await producer.send(topic, b"%d" % n, partition=0, timestamp_ms=start + n * 1000)
        await producer.flush()
        consumer = await self.consumer(enable_auto_commit=False)
        consumer.assign([place])
        found = (await consumer.offsets_for_times({place: start + 41_500}))[place]
        self.assertEqual((found.offset, found.timestamp), (42, start + 42_000))
        self.assertIsNone((await consumer.offsets_for_times({place: start + 10**9}))[place])
        self.assertEqual(await consumer.beginning_offsets([place]), {place: 0})
        self.assertEqual(await consumer.end_offsets([place]), {place: 100})
        consumer.seek(place, 40)
        self.assertEqual((await consumer.getone(place)).offset, 40)
        await consumer.seek_to_end(place)
        self.assertEqual(await consumer.position(place), 100)
        late = asyncio.create_task(consumer.getone(place))
        await producer.send_and_wait(topic, b"late", partition=0)
        self.assertEqual((await asyncio.wait_for(late, DEADLINE)).value, b"late")
        await consumer.seek_to_beginning(place)
        self.assertEqual((await consumer.getone(place)).offset, 0)
        consumer.pause(place)
        self.assertEqual(await consumer.getmany(timeout_ms=200), {})
        consumer.resume(place)
        # How a consumer learns that it asks for what is not there (any more).
        strict = await self.consumer(auto_offset_reset="none", enable_auto_commit=False)
        strict.assign([place])
        strict.seek(place, 1000)
        with self.assertRaises(OffsetOutOfRangeError):
            await asyncio.wait_for(strict.getone(place), DEADLINE)

    async def test_commits_by_hand_are_where_the_next_one_goes_on(self):
        topic, group = await self.topic(1), name("group")
        await self.fill(topic, 10, partition=0)
        place = TopicPartition(topic, 0)
        consumer = await self.consumer(topic, group_id=group, enable_auto_commit=False)
        await self.read(consumer, 10)
        await consumer.commit({place: (6, "half way")})
        self.assertEqual(await consumer.committed(place), 6)
        await consumer.stop()
        consumer = await self.consumer(topic, group_id=group, enable_auto_commit=False)
        self.assertEqual((await consumer.getone()).offset, 6)
        await consumer.commit()
        await consumer.stop()
        listed = await self.admin.list_consumer_group_offsets(group)
        self.assertEqual({place: committed.offset for place, committed in listed.items()}, {place: 7})

    async def members_share(self, **config):
        topic, group = await self.topic(), name("group")
        members, counts = [], []
        config = {"auto_commit_interval_ms": 200, **config}

        async def join():
            counts.append(Counts())
            consumer = await self.consumer(group_id=group, **config)
            consumer.subscribe([topic], listener=counts[-1])
            members.append(consumer)

        def shared():
            owned = [place.partition for member in members for place in member.assignment()]
            return sorted(owned) == list(range(PARTITIONS)) and all(member.assignment() for member in members)

        await join()
        await join()
        await self.until(shared)
        await self.fill(topic, 200)
        got = []

        async def reads(member):
            while True:
                got.extend((r.partition, r.offset) for rs in (await member.getmany(timeout_ms=200)).values() for r in rs)

        readers = [asyncio.create_task(reads(member)) for member in members]
        await self.until(lambda: len(got) >= 200)
        await join()
        readers.append(asyncio.create_task(reads(members[-1])))
        await self.until(shared)
        readers.pop(0).cancel()
        await members.pop(0).stop()
        await self.until(shared)
        await self.fill(topic, 200)
        await self.until(lambda: len(got) >= 400)
        self.assertEqual(len(set(got)), len(got), "a record was read twice")
        self.assertGreaterEqual(counts[1].assigned, 3)
        described = (await self.admin.describe_consumer_groups([group]))[0].groups[0]
        self.assertEqual((described[0], described[1], described[2], len(described[5])), (0, group, "Stable", 2), described)
        for reader in readers:
            reader.cancel()

    async def test_members_come_and_go(self):
        await self.members_share()

    async def test_members_with_the_sticky_assignor_come_and_go(self):
        await self.members_share(partition_assignment_strategy=[StickyPartitionAssignor])

    async def test_admin(self):
        topic = await self.topic(2, **{"retention.ms": "3600000"})
        self.assertIn(topic, await self.admin.list_topics())
        described = await self.admin.describe_topics([topic])
        self.assertEqual(len(described[0]["partitions"]), 2, described)
        self.assertEqual(len((await self.admin.describe_cluster())["brokers"]), 1)
        self.assertEqual((await self.config(topic))["retention.ms"], "3600000")
        broker = str((await self.admin.describe_cluster())["controller_id"])
        configs = await self.admin.describe_configs([ConfigResource(ConfigResourceType.BROKER, broker)])
        self.assertEqual(configs[0].resources[0][0], 0, configs)
        await self.admin.delete_topics([topic])
        self.assertNotIn(topic, await self.admin.list_topics())

    async def config(self, topic):
        answer = await self.admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
        code, message, _, _, entries = answer[0].resources[0]
        self.assertEqual(code, 0, message)
        return {entry[0]: entry[1] for entry in entries}

    async def test_admin_replaces_configs(self):
        topic = await self.topic(**{"retention.ms": "3600000"})
        change = ConfigResource(ConfigResourceType.TOPIC, topic, {"segment.bytes": "1048576"})
        answers = await self.admin.alter_configs([change])
        self.assertEqual(answers[0].resources[0][0], 0, answers)
        configs = await self.config(topic)
        self.assertEqual(configs["segment.bytes"], "1048576")
        self.assertNotEqual(configs["retention.ms"], "3600000", "what AlterConfigs does not name goes back to the default")

    async def test_admin_adds_partitions(self):
        topic = await self.topic(2)
        await self.admin.create_partitions({topic: NewPartitions(5)})
        self.assertEqual(len((await self.admin.describe_topics([topic]))[0]["partitions"]), 5)
        await self.fill(topic, 50, partition=4)
        self.assertEqual(len(await self.read(await self.consumer(topic), 50)), 50)

    async def test_admin_deletes_records(self):
        topic = await self.topic(1)
        await self.fill(topic, 100, partition=0)
        place = TopicPartition(topic, 0)
        self.assertEqual(await self.admin.delete_records({place: RecordsToDelete(40)}), {place: 40})
        consumer = await self.consumer(topic)
        self.assertEqual(await consumer.beginning_offsets([place]), {place: 40})
        self.assertEqual((await self.read(consumer, 60))[0].offset, 40)


if __name__ == "__main__":
    unittest.main()
