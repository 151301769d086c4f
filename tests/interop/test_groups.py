"""Consumer groups with librdkafka (confluent-kafka), kafka-python, kcat and Kafka's own Java tools: members come, go, crash and
restart; each record is read once, offsets survive the node."""

import subprocess
import sys
import threading
import time
import unittest
import uuid

import confluent_kafka
import confluent_kafka.admin
import kafka

from gateway import Gateway, eventually
from tools import KAFKA, java_classpath

PARTITIONS = 8
TOOLS = "org.apache.kafka.tools."


def name(what):
    return f"{what}-{uuid.uuid4().hex[:8]}"


class Member:
    """A librdkafka consumer on a thread of its own."""

    def __init__(self, bootstrap, group, topic, **config):
        self.read, self.owned, self.revoked, self.over = [], set(), 0, threading.Event()
        settings = {
            "bootstrap.servers": bootstrap,
            "group.id": group,
            "auto.offset.reset": "earliest",
            "session.timeout.ms": 6000,
            "heartbeat.interval.ms": 500,
            "auto.commit.interval.ms": 200,
            **config,
        }
        self.cooperative = settings.get("partition.assignment.strategy") == "cooperative-sticky"
        self.consumer = confluent_kafka.Consumer(settings)
        self.consumer.subscribe([topic], on_assign=self.assigned, on_revoke=self.taken, on_lost=self.taken)
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def assigned(self, consumer, partitions):
        self.owned |= {part.partition for part in partitions}
        (consumer.incremental_assign if self.cooperative else consumer.assign)(partitions)

    def taken(self, consumer, partitions):
        self.revoked += 1
        self.owned -= {part.partition for part in partitions}
        if self.cooperative:
            consumer.incremental_unassign(partitions)
        else:
            consumer.unassign()

    def run(self):
        while not self.over.is_set():
            message = self.consumer.poll(0.1)
            if message is not None and message.error() is None:
                self.read.append((message.partition(), message.offset()))

    def leave(self):
        self.over.set()
        self.thread.join()
        self.consumer.close()


def fill(bootstrap, topic, count):
    producer = confluent_kafka.Producer({"bootstrap.servers": bootstrap, "acks": "all"})
    for n in range(count):
        producer.produce(topic, key=f"meter {n % 50}", value=f"reading {n}")
        producer.poll(0)
    assert producer.flush(30) == 0


class Groups(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.gateway = Gateway()
        cls.bootstrap = cls.gateway.addresses["kafka"]
        cls.admin = confluent_kafka.admin.AdminClient({"bootstrap.servers": cls.bootstrap})

    @classmethod
    def tearDownClass(cls):
        cls.gateway.stop()

    def topic(self):
        topic = name("grouped")
        new = confluent_kafka.admin.NewTopic(topic, PARTITIONS)
        self.admin.create_topics([new])[topic].result(30)
        return topic

    def shared_by(self, members):
        """Waits until the members own all partitions, each one once."""

        def check():
            owned = [part for member in members for part in member.owned]
            self.assertEqual(sorted(owned), list(range(PARTITIONS)))
            self.assertTrue(all(member.owned for member in members), [member.owned for member in members])

        eventually(check, 40)

    def members_come_and_go(self, **config):
        topic, group = self.topic(), name("fleet")
        members = [Member(self.bootstrap, group, topic, **config) for _ in range(3)]
        self.shared_by(members)
        fill(self.bootstrap, topic, 1000)
        eventually(lambda: self.assertEqual(sum(len(member.read) for member in members), 1000))
        members.append(Member(self.bootstrap, group, topic, **config))
        self.shared_by(members)
        members.pop(0).leave()
        self.shared_by(members)
        before = sum(len(member.read) for member in members)
        fill(self.bootstrap, topic, 1000)
        eventually(lambda: self.assertGreaterEqual(sum(len(member.read) for member in members) - before, 1000))
        read = [record for member in members for record in member.read]
        self.assertEqual(len(set(read)), len(read), "a record was read twice")
        for member in members:
            member.leave()

    def test_members_of_an_eager_group_come_and_go(self):
        self.members_come_and_go(**{"partition.assignment.strategy": "range"})

    def test_members_of_a_cooperative_group_come_and_go(self):
        self.members_come_and_go(**{"partition.assignment.strategy": "cooperative-sticky"})

    def test_a_static_member_that_restarts_disturbs_nobody(self):
        topic, group = self.topic(), name("static")
        static = {"group.instance.id": "one"}
        other, one = Member(self.bootstrap, group, topic), Member(self.bootstrap, group, topic, **static)
        self.shared_by([other, one])
        owned, revoked = set(one.owned), other.revoked
        # A static member leaves nobody behind when it closes: only its session's end would take its partitions.
        one.leave()
        one = Member(self.bootstrap, group, topic, **static)
        eventually(lambda: self.assertEqual(one.owned, owned))
        self.assertEqual(other.revoked, revoked)
        one.leave()
        other.leave()

    def test_a_member_that_vanishes_is_replaced_after_its_session(self):
        topic, group = self.topic(), name("crash")
        stays = Member(self.bootstrap, group, topic)
        script = (
            "import confluent_kafka as c, sys, time\n"
            f"m = c.Consumer({{'bootstrap.servers': '{self.bootstrap}', 'group.id': '{group}', 'session.timeout.ms': 6000}})\n"
            f"m.subscribe(['{topic}'], on_assign=lambda *_: (print('in', flush=True)))\n"
            "while True: m.poll(0.1)\n"
        )
        goes = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
        self.assertEqual(goes.stdout.readline().strip(), "in")
        eventually(lambda: self.assertLess(len(stays.owned), PARTITIONS))
        goes.kill()
        goes.wait()
        killed = time.monotonic()
        self.shared_by([stays])
        self.assertGreater(time.monotonic() - killed, 3)
        stays.leave()

    def test_a_group_goes_on_where_it_was_after_the_node_was_killed(self):
        topic, group = self.topic(), name("survivor")
        member = Member(self.bootstrap, group, topic)
        self.shared_by([member])
        fill(self.bootstrap, topic, 500)
        eventually(lambda: self.assertEqual(len(member.read), 500))

        onlooker = confluent_kafka.Consumer({"bootstrap.servers": self.bootstrap, "group.id": group})
        parts = [confluent_kafka.TopicPartition(topic, part) for part in range(PARTITIONS)]

        def committed():
            got = onlooker.committed(parts, timeout=10)
            self.assertEqual(sum(max(part.offset, 0) for part in got), 500)

        eventually(committed)
        onlooker.close()
        self.gateway.kill()
        self.gateway.start()
        fill(self.bootstrap, topic, 500)
        eventually(lambda: self.assertEqual(len(member.read), 1000), 60)
        self.assertEqual(len(set(member.read)), 1000)
        member.leave()

    def test_kafka_python_shares_a_topic_and_its_admin_sees_the_group(self):
        topic, group = self.topic(), name("python")
        config = {"bootstrap_servers": self.bootstrap, "group_id": group, "auto_offset_reset": "earliest"}
        consumers = [kafka.KafkaConsumer(topic, **config) for _ in range(2)]
        read = []
        over = threading.Event()

        def run(consumer):
            while not over.is_set():
                for records in consumer.poll(timeout_ms=200).values():
                    read.extend((record.partition, record.offset) for record in records)
            consumer.close()

        threads = [threading.Thread(target=run, args=(consumer,)) for consumer in consumers]
        for thread in threads:
            thread.start()
        admin = kafka.KafkaAdminClient(bootstrap_servers=self.bootstrap)
        try:
            self.kafka_python_sees(admin, group)
            fill(self.bootstrap, topic, 600)
            eventually(lambda: self.assertEqual(len(read), 600))
            self.assertEqual(len(set(read)), 600)
        finally:
            over.set()
            for thread in threads:
                thread.join()
        offsets = admin.list_group_offsets(group)[group]
        self.assertEqual(sum(offset.offset for offset in offsets.values()), 600)
        admin.delete_groups([group])
        self.assertNotIn(group, [listed["group_id"] for listed in admin.list_groups()])
        admin.close()

    def kafka_python_sees(self, admin, group):
        def check():
            described = admin.describe_groups([group])[group]
            self.assertEqual((described["group_state"], len(described["members"])), ("Stable", 2), described)

        eventually(check, 40)

    def test_confluents_admin_lists_describes_moves_and_deletes(self):
        topic, group = self.topic(), name("admin")
        fill(self.bootstrap, topic, 100)
        member = Member(self.bootstrap, group, topic)
        eventually(lambda: self.assertEqual(len(member.read), 100))
        described = self.admin.describe_consumer_groups([group])[group].result(30)
        self.assertEqual(described.state, confluent_kafka.ConsumerGroupState.STABLE)
        self.assertEqual(len(described.members), 1)
        self.assertEqual(len(described.members[0].assignment.topic_partitions), PARTITIONS)
        with self.assertRaises(confluent_kafka.KafkaException) as refused:
            self.admin.delete_consumer_groups([group])[group].result(30)
        self.assertEqual(refused.exception.args[0].code(), confluent_kafka.KafkaError.NON_EMPTY_GROUP)
        member.leave()
        listed = self.admin.list_consumer_groups().result(30).valid
        self.assertIn(group, [one.group_id for one in listed])
        back = confluent_kafka.ConsumerGroupTopicPartitions(group, [confluent_kafka.TopicPartition(topic, 0, 0)])
        self.admin.alter_consumer_group_offsets([back])[group].result(30)
        again = Member(self.bootstrap, group, topic)
        eventually(lambda: self.assertTrue(again.read and {part for part, _ in again.read} == {0}))
        again.leave()
        self.admin.delete_consumer_groups([group])[group].result(30)

    def test_kcat_balances_with_others(self):
        topic, group = self.topic(), name("kcat")
        fill(self.bootstrap, topic, 100)
        done = subprocess.run(
            ["kcat", "-b", self.bootstrap, "-X", "auto.offset.reset=earliest", "-c", "100", "-G", group, topic],
            capture_output=True, text=True, timeout=60, check=True,
        )
        self.assertEqual(len(done.stdout.splitlines()), 100)

    def java(self, tool, *args, stdin=None):
        command = ["java", "-Xmx256m", "-cp", java_classpath("kafka", KAFKA), tool, "--bootstrap-server", self.bootstrap, *args]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=120)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return done.stdout

    def test_kafkas_own_tools_consume_in_a_group_and_manage_it(self):
        topic, group = self.topic(), name("java")
        fill(self.bootstrap, topic, 100)
        consume = ("--topic", topic, "--group", group, "--from-beginning", "--max-messages", "100", "--timeout-ms", "30000")
        self.assertEqual(len(self.java(TOOLS + "consumer.ConsoleConsumer", *consume).splitlines()), 100)
        groups = TOOLS + "consumer.group.ConsumerGroupCommand"
        self.assertIn(group, self.java(groups, "--list"))
        rows = [line.split() for line in self.java(groups, "--describe", "--group", group).splitlines() if topic in line]
        self.assertEqual(len(rows), PARTITIONS)
        self.assertEqual(sum(int(row[3]) for row in rows), 100, rows)
        self.assertEqual(sum(int(row[5]) for row in rows), 0, "lag")
        self.assertIn("Empty", self.java(groups, "--describe", "--group", group, "--state"))
        self.java(groups, "--group", group, "--reset-offsets", "--to-earliest", "--topic", topic, "--execute")
        rows = [line.split() for line in self.java(groups, "--describe", "--group", group).splitlines() if topic in line]
        self.assertEqual(sum(int(row[5]) for row in rows), 100, rows)
        self.java(groups, "--delete-offsets", "--group", group, "--topic", topic)
        self.java(groups, "--delete", "--group", group)
        self.assertNotIn(group, self.java(groups, "--list"))
