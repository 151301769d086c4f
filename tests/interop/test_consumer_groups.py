"""Groups of the consumer protocol (KIP-848) with librdkafka (confluent-kafka) and Kafka's own Java clients and tools: members come,
go, crash and restart; each record counts once, epochs and offsets survive the node."""

import collections
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import unittest

import confluent_kafka
import confluent_kafka.admin

from gateway import Gateway, eventually
from test_groups import PARTITIONS, TOOLS, fill, name
from test_kafka import KAFKA, java_classpath


class Member:
    """A librdkafka consumer of the consumer protocol on a thread of its own. It commits what it has read before it gives
    partitions up, so that the next one goes on right behind."""

    def __init__(self, bootstrap, group, topic, **config):
        self.read, self.owned, self.revoked, self.lost, self.errors = [], set(), 0, 0, []
        self.over = threading.Event()
        settings = {
            "bootstrap.servers": bootstrap,
            "group.id": group,
            "group.protocol": "consumer",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "topic.metadata.refresh.interval.ms": 1000,
            **config,
        }
        self.eager = "range" in settings.get("partition.assignment.strategy", "")
        self.consumer = confluent_kafka.Consumer(settings)
        topics = [topic] if isinstance(topic, str) else topic
        self.consumer.subscribe(topics, on_assign=self.assigned, on_revoke=self.taken, on_lost=self.are_lost)
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def assigned(self, consumer, partitions):
        self.owned |= {(part.topic, part.partition) for part in partitions}
        (consumer.assign if self.eager else consumer.incremental_assign)(partitions)

    def taken(self, consumer, partitions):
        self.revoked += 1
        self.commit()
        self.let_go(consumer, partitions)

    def are_lost(self, consumer, partitions):
        self.lost += 1
        self.let_go(consumer, partitions)

    def let_go(self, consumer, partitions):
        self.owned -= {(part.topic, part.partition) for part in partitions}
        if self.eager:
            consumer.unassign()
        else:
            consumer.incremental_unassign(partitions)

    def commit(self):
        for _ in range(40):
            try:
                return self.consumer.commit(asynchronous=False)
            except confluent_kafka.KafkaException as error:
                code = error.args[0].code()
                if code == confluent_kafka.KafkaError._NO_OFFSET:
                    return None
                self.errors.append(str(error))
                # Another epoch by now: the next heartbeat tells which.
                time.sleep(0.1)

    def run(self):
        last = time.monotonic()
        while not self.over.is_set():
            message = self.consumer.poll(0.1)
            if message is not None and message.error() is None:
                self.read.append((message.topic(), message.partition(), message.offset()))
            elif message is not None:
                self.errors.append(str(message.error()))
            if time.monotonic() - last > 0.5:
                self.commit()
                last = time.monotonic()

    def leave(self):
        self.over.set()
        self.thread.join()
        self.commit()
        self.consumer.close()


class ConsumerGroups(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.gateway = Gateway()
        cls.bootstrap = cls.gateway.addresses["kafka"]
        cls.admin = confluent_kafka.admin.AdminClient({"bootstrap.servers": cls.bootstrap})

    @classmethod
    def tearDownClass(cls):
        cls.gateway.stop()

    def topic(self, what="next"):
        topic = name(what)
        new = confluent_kafka.admin.NewTopic(topic, PARTITIONS)
        self.admin.create_topics([new])[topic].result(30)
        return topic

    def shared_by(self, members, topics, within=40):
        def check():
            owned = [part for member in members for part in member.owned]
            self.assertEqual(sorted(owned), sorted((topic, part) for topic in topics for part in range(PARTITIONS)))
            counts = [len(member.owned) for member in members]
            self.assertLessEqual(max(counts) - min(counts), 1, counts)

        eventually(check, within)

    def once_each(self, members, count):
        """All records were read, and none of them twice."""
        eventually(lambda: self.assertGreaterEqual(sum(len(member.read) for member in members), count), 40)
        read = collections.Counter(record for member in members for record in member.read)
        self.assertEqual([record for record, times in read.items() if times > 1], [], "read twice")
        self.assertEqual(len(read), count)

    def described(self, group):
        return self.admin.describe_consumer_groups([group])[group].result(30)

    def listed(self, group):
        groups = {one["group"]: one for one in self.gateway.get("/api/v1/groups")["groups"]}
        self.assertIn(group, groups)
        return groups[group]

    def forebay(self, *args):
        command = [os.environ["FOREBAY_BIN"], *args, "--bootstrap", self.bootstrap]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout

    def test_members_come_and_go_and_each_record_is_read_once(self):
        topic, group = self.topic(), name("fleet")
        members = [Member(self.bootstrap, group, topic) for _ in range(3)]
        everyone = list(members)
        self.shared_by(members, [topic])
        fill(self.bootstrap, topic, 1000)
        members.append(Member(self.bootstrap, group, topic))
        everyone.append(members[-1])
        self.shared_by(members, [topic])
        members.pop(0).leave()
        self.shared_by(members, [topic])
        fill(self.bootstrap, topic, 1000)
        self.once_each(everyone, 2000)
        self.assertEqual(sum(member.lost for member in everyone), 0)
        for member in members:
            member.leave()
        self.assertEqual(self.described(group).state, confluent_kafka.ConsumerGroupState.EMPTY)

    def test_those_that_stay_keep_what_they_have(self):
        topic, group = self.topic(), name("sticky")
        members = [Member(self.bootstrap, group, topic) for _ in range(4)]
        self.shared_by(members, [topic])
        had, revoked = [set(member.owned) for member in members], [member.revoked for member in members]
        members.pop().leave()
        self.shared_by(members, [topic])
        for member, before, times in zip(members, had, revoked):
            self.assertLessEqual(before, member.owned)
            self.assertEqual(member.revoked, times)
        for member in members:
            member.leave()

    def test_a_static_member_that_restarts_disturbs_nobody(self):
        topic, group = self.topic(), name("static")
        static = {"group.instance.id": "one"}
        other, one = Member(self.bootstrap, group, topic), Member(self.bootstrap, group, topic, **static)
        self.shared_by([other, one], [topic])
        owned, revoked, epoch = set(one.owned), other.revoked, self.listed(group)["epoch"]
        one.leave()
        one = Member(self.bootstrap, group, topic, **static)
        eventually(lambda: self.assertEqual(one.owned, owned))
        self.assertEqual((other.revoked, self.listed(group)["epoch"]), (revoked, epoch))
        one.leave()
        other.leave()

    def test_a_member_that_vanishes_is_replaced_after_its_session(self):
        topic, group = self.topic(), name("crash")
        stays = Member(self.bootstrap, group, topic)
        script = (
            "import confluent_kafka as c\n"
            f"m = c.Consumer({{'bootstrap.servers': '{self.bootstrap}', 'group.id': '{group}', 'group.protocol': 'consumer'}})\n"
            f"m.subscribe(['{topic}'], on_assign=lambda *_: (print('in', flush=True)))\n"
            "while True: m.poll(0.1)\n"
        )
        goes = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
        self.assertEqual(goes.stdout.readline().strip(), "in")
        eventually(lambda: self.assertEqual(len(stays.owned), PARTITIONS // 2))
        goes.kill()
        goes.wait()
        killed = time.monotonic()
        self.shared_by([stays], [topic], 70)
        self.assertGreater(time.monotonic() - killed, 30)
        stays.leave()

    def test_a_group_goes_on_in_its_epoch_after_the_node_was_killed(self):
        topic, group = self.topic(), name("survivor")
        members = [Member(self.bootstrap, group, topic) for _ in range(2)]
        self.shared_by(members, [topic])
        fill(self.bootstrap, topic, 500)
        self.once_each(members, 500)
        before, revoked = self.listed(group), [member.revoked for member in members]
        self.gateway.kill()
        self.gateway.start()
        fill(self.bootstrap, topic, 500)
        self.once_each(members, 1000)
        after = self.listed(group)
        self.assertEqual((after["state"], after["epoch"]), ("Stable", before["epoch"]))
        self.assertEqual(sorted(map(str, after["members"])), sorted(map(str, before["members"])))
        self.assertEqual([member.revoked for member in members], revoked)
        eventually(lambda: self.assertEqual(self.listed(group)["lag"], 0))
        for member in members:
            member.leave()

    def test_topics_are_found_by_expression_also_those_made_later(self):
        prefix, group = name("by"), name("regex")
        first = self.topic(prefix)
        member = Member(self.bootstrap, group, f"^{prefix}.*")
        self.shared_by([member], [first])
        second = self.topic(prefix)
        fill(self.bootstrap, second, 100)
        self.once_each([member], 100)
        self.shared_by([member], [first, second])
        member.leave()

    def test_what_the_admin_is_told(self):
        topic, group = self.topic(), name("admin")
        fill(self.bootstrap, topic, 100)
        member = Member(self.bootstrap, group, topic)
        self.once_each([member], 100)
        self.shared_by([member], [topic])
        eventually(lambda: self.assertEqual(self.described(group).state, confluent_kafka.ConsumerGroupState.STABLE))
        described = self.described(group)
        self.assertEqual(described.type, confluent_kafka.ConsumerGroupType.CONSUMER)
        self.assertEqual(described.partition_assignor, "uniform")
        self.assertEqual(len(described.members[0].assignment.topic_partitions), PARTITIONS)
        types = {confluent_kafka.ConsumerGroupType.CONSUMER}
        listed = self.admin.list_consumer_groups(types=types).result(30).valid
        self.assertIn(group, [one.group_id for one in listed])
        types = {confluent_kafka.ConsumerGroupType.CLASSIC}
        listed = self.admin.list_consumer_groups(types=types).result(30).valid
        self.assertNotIn(group, [one.group_id for one in listed])
        with self.assertRaises(confluent_kafka.KafkaException) as refused:
            self.admin.delete_consumer_groups([group])[group].result(30)
        self.assertEqual(refused.exception.args[0].code(), confluent_kafka.KafkaError.NON_EMPTY_GROUP)
        self.assertIn("consumer", self.forebay("group", "list"))
        shown = self.forebay("group", "describe", group)
        self.assertIn("Type: consumer", shown)
        self.assertIn("Epoch: 1", shown)
        member.leave()
        back = confluent_kafka.ConsumerGroupTopicPartitions(group, [confluent_kafka.TopicPartition(topic, 0, 0)])
        self.admin.alter_consumer_group_offsets([back])[group].result(30)
        again = Member(self.bootstrap, group, topic)
        eventually(lambda: self.assertEqual({part for _, part, _ in again.read}, {0}))
        again.leave()
        self.admin.delete_consumer_groups([group])[group].result(30)
        self.assertNotIn(group, self.forebay("group", "list"))

    def test_an_empty_group_changes_its_kind_with_its_next_member(self):
        topic, group = self.topic(), name("both")
        fill(self.bootstrap, topic, 100)
        classic = {"group.protocol": "classic", "partition.assignment.strategy": "cooperative-sticky", "session.timeout.ms": 6000}
        one = Member(self.bootstrap, group, topic, **classic)
        self.once_each([one], 100)
        self.assertEqual(self.listed(group)["type"], "classic")
        one.leave()
        two = Member(self.bootstrap, group, topic)
        fill(self.bootstrap, topic, 100)
        self.once_each([one, two], 200)
        self.assertEqual(self.listed(group)["type"], "consumer")
        # While it has members the other kind is refused.
        other = Member(self.bootstrap, group, topic, **classic)
        eventually(lambda: self.assertTrue(any("INCONSISTENT" in e or "Inconsistent" in e for e in other.errors), other.errors))
        other.over.set()
        other.thread.join()
        two.leave()
        other.consumer.close()
        three = Member(self.bootstrap, group, topic, **classic)
        fill(self.bootstrap, topic, 100)
        self.once_each([one, two, three], 300)
        self.assertEqual(self.listed(group)["type"], "classic")
        three.leave()

    def java(self, tool, *args):
        command = ["java", "-Xmx256m", "-cp", java_classpath("kafka", KAFKA), tool, "--bootstrap-server", self.bootstrap, *args]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return done.stdout

    def console_consumer(self, topic, group, *args):
        command = ["java", "-Xmx256m", "-cp", java_classpath("kafka", KAFKA), TOOLS + "consumer.ConsoleConsumer"]
        command += ["--bootstrap-server", self.bootstrap, "--topic", topic, "--group", group, "--from-beginning"]
        command += ["--consumer-property", "group.protocol=consumer", *args]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.addCleanup(process.kill)
        return process

    def test_javas_console_consumers_share_a_topic(self):
        topic, group = self.topic(), name("java")
        fill(self.bootstrap, topic, 500)
        consumers = [self.console_consumer(topic, group) for _ in range(2)]
        groups = TOOLS + "consumer.group.ConsumerGroupCommand"

        def balanced():
            listed = self.listed(group)
            self.assertEqual((listed["state"], listed["type"], len(listed["members"])), ("Stable", "consumer", 2))
            owners = collections.Counter(part["member"] for part in listed["partitions"])
            self.assertEqual(sorted(owners.values()), [PARTITIONS // 2] * 2)

        eventually(balanced, 60)
        rows = [line.split() for line in self.java(groups, "--describe", "--group", group, "--members").splitlines() if group in line]
        self.assertEqual([row[4] for row in rows], [str(PARTITIONS // 2)] * 2, rows)
        state = self.java(groups, "--describe", "--group", group, "--state")
        self.assertIn("Stable", state)
        self.assertIn("uniform", state)
        # One that is killed has its partitions until its session ends; the node goes down meanwhile.
        consumers[0].kill()
        out = consumers[0].communicate()[0].splitlines()
        self.gateway.kill()
        self.gateway.start()
        fill(self.bootstrap, topic, 500)

        def taken_over():
            listed = self.listed(group)
            self.assertEqual((len(listed["members"]), listed["lag"]), (1, 0), listed)

        eventually(taken_over, 90)
        # Not SIGINT, which a JVM ignores where the shell that began all this runs it in the background.
        consumers[1].terminate()
        # Kafka's client gives its own goodbye 30 s.
        out += consumers[1].communicate(timeout=90)[0].splitlines()
        # What the killed one had printed and not committed comes once more.
        self.assertEqual(set(out), {f"reading {n}" for n in range(500)})
        self.assertGreaterEqual(len(out), 1000)
        eventually(lambda: self.assertEqual(self.listed(group)["state"], "Empty"))
        rows = [line.split() for line in self.java(groups, "--describe", "--group", group, "--offsets").splitlines() if topic in line]
        self.assertEqual(sum(int(row[3]) for row in rows), 1000, rows)
        self.assertEqual(sum(int(row[5]) for row in rows), 0, "lag")
        self.java(groups, "--delete", "--group", group)
        self.assertNotIn(group, self.java(groups, "--list"))

    def test_kafkas_dump_tool_reads_what_is_stored_of_groups(self):
        topic, group = self.topic(), name("dumped")
        members = [Member(self.bootstrap, group, topic), Member(self.bootstrap, group, f"^{topic}.*", **{"group.instance.id": "one"})]
        self.shared_by(members, [topic])
        for member in members:
            member.leave()
        segments = (self.gateway.dir / "data" / "log" / "__consumer_offsets-0").glob("*.log")
        dump = ["java", "-cp", java_classpath("kafka", KAFKA), "kafka.tools.DumpLogSegments", "--offsets-decoder", "--files"]
        done = subprocess.run([*dump, ",".join(map(str, segments))], capture_output=True, text=True, timeout=120)
        self.assertEqual(done.returncode, 0, done.stderr)
        record = re.compile(r'key: (\{.*\}) payload: (.*)')
        kinds = collections.defaultdict(list)
        for key, payload in record.findall(done.stdout):
            key = json.loads(key)
            if group in key["data"].values():
                kinds[int(key["type"])].append(payload)
        self.assertLessEqual({3, 4, 5, 6, 7, 8}, set(kinds))
        for kind, payloads in kinds.items():
            for payload in payloads:
                self.assertTrue(payload == "<DELETE>" or "data" in json.loads(payload), (kind, payload))
        regexes = {json.loads(one)["data"]["subscribedTopicRegex"] for one in kinds[5] if one != "<DELETE>"}
        self.assertTrue(any(topic in (regex or "") for regex in regexes), regexes)

    def consume(self, topic, group, *args):
        command = [os.environ["FOREBAY_BIN"], "consume", topic, "--bootstrap", self.bootstrap, "--group", group, *args]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def test_forebay_consume_shares_a_topic_with_others_and_goes_on_where_it_was(self):
        topic, group = self.topic(), name("cli")
        fill(self.bootstrap, topic, 100)
        first = self.consume(topic, group, "--from", "beginning", "--max", "30")
        out, err = first.communicate(timeout=30)
        self.assertEqual((len(out.splitlines()), first.returncode), (30, 0), err)
        self.assertEqual((self.listed(group)["state"], self.listed(group)["lag"]), ("Empty", 70))
        # With librdkafka in one group; the node goes down in between.
        other = Member(self.bootstrap, group, topic, **{"group.protocol": "classic", "partition.assignment.strategy": "range,roundrobin"})
        both = self.consume(topic, group, "--from", "beginning")

        def balanced():
            listed = self.listed(group)
            self.assertEqual((listed["state"], listed["assignor"], len(listed["members"])), ("Stable", "range", 2))

        eventually(balanced, 30)
        self.gateway.kill()
        self.gateway.start()
        fill(self.bootstrap, topic, 900)
        eventually(lambda: self.assertEqual(self.listed(group)["lag"], 0), 40)
        # The other one goes: what it had comes to the one that stays.
        other.over.set()
        other.thread.join()
        other.consumer.close()
        eventually(lambda: self.assertEqual(len({part["member"] for part in self.listed(group)["partitions"]}), 1), 30)
        fill(self.bootstrap, topic, 100)
        eventually(lambda: self.assertEqual(self.listed(group)["lag"], 0), 40)
        both.send_signal(signal.SIGINT)
        out2, err = both.communicate(timeout=30)
        self.assertEqual(both.returncode, 0, err)
        self.assertEqual(self.listed(group)["state"], "Empty")
        printed = len(out.splitlines()) + len(out2.splitlines())
        self.assertEqual(printed + len(other.read), 1100)
        self.assertGreaterEqual(len(out2.splitlines()), 100)

    def test_javas_range_and_a_limit(self):
        topic, group = self.topic(), name("range")
        fill(self.bootstrap, topic, 100)
        consumer = self.console_consumer(
            topic, group, "--max-messages", "100", "--timeout-ms", "40000", "--consumer-property", "group.remote.assignor=range"
        )
        out, err = consumer.communicate(timeout=60)
        self.assertEqual(len(out.splitlines()), 100, err)
        eventually(lambda: self.assertEqual(self.listed(group)["state"], "Empty"))
        self.assertEqual(self.listed(group)["lag"], 0)


if __name__ == "__main__":
    unittest.main()
