"""Three nodes, as the example's one command starts them, operated with Kafka's own tools and with `forebay cluster`."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import time
import unittest
import urllib.request
import uuid

import tools
from confluent_kafka import Consumer, Producer, TopicPartition
from gateway import eventually

EXAMPLE = pathlib.Path(__file__).parents[2] / "examples" / "cluster" / "run.sh"
TOPICS = "org.apache.kafka.tools.TopicCommand"
REASSIGN = "org.apache.kafka.tools.reassign.ReassignPartitionsCommand"
ELECT = "org.apache.kafka.tools.LeaderElectionCommand"
QUORUM = "org.apache.kafka.tools.MetadataQuorumCommand"
JAVA = ["java", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", tools.java_classpath("kafka", tools.KAFKA)]


class Cluster(unittest.TestCase):
    def setUp(self):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="forebay-interop-"))
        self.first = tools.free_ports(12)
        command = ["bash", EXAMPLE, "--data-dir", self.dir, "--first-port", str(self.first)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.addCleanup(self.end)
        said = []
        for line in self.process.stdout:
            said.append(line)
            if line.startswith("Three nodes are up"):
                return
        self.fail("".join(said) + "".join(log.read_text()[-3000:] for log in self.dir.glob("*.log")))

    def end(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.communicate(timeout=30)
        self.assertEqual(self.process.returncode, 0)
        for pid in self.dir.glob("*.pid"):
            with self.assertRaises(ProcessLookupError, msg="the example leaves a node behind"):
                os.kill(int(pid.read_text()), 0)
        shutil.rmtree(self.dir, ignore_errors=True)

    def address(self, node, listener):
        return f"127.0.0.1:{self.first + 4 * (node - 1) + ('mqtt', 'kafka', 'http', 'cluster').index(listener)}"

    def java(self, tool, *arguments, node=1):
        return tools.run([*JAVA, tool, "--bootstrap-server", self.address(node, "kafka"), *arguments], timeout=120)

    def forebay(self, *arguments, node=1):
        url = f"http://{self.address(node, 'http')}"
        return tools.run([os.environ["FOREBAY_BIN"], "cluster", *arguments, "--url", url], timeout=60)

    def status(self, node=1):
        with urllib.request.urlopen(f"http://{self.address(node, 'http')}/api/v1/cluster", timeout=30) as answer:
            return json.loads(answer.read())

    def partition(self, topic, index=0, node=1):
        found = (one for one in self.status(node)["partitions"] if (one["topic"], one["partition"]) == (topic, index))
        return next(found, None)

    def placed(self, topic, index, replicas):
        eventually(lambda: self.assertEqual((self.partition(topic, index) or {}).get("replicas"), replicas), 10)

    def settled(self, topic, replicas, index=0):
        def check():
            one = self.partition(topic, index)
            self.assertEqual((one["replicas"], one["adding"], sorted(one["isr"])), (replicas, [], sorted(replicas)))

        eventually(check, 60)

    def plan(self, topic, replicas, index=0):
        path = self.dir / f"{uuid.uuid4().hex}.json"
        path.write_text(json.dumps({"version": 1, "partitions": [{"topic": topic, "partition": index, "replicas": replicas}]}))
        return str(path)

    def test_topics_lie_where_they_are_asked_for_and_troubles_are_told(self):
        self.java(TOPICS, "--create", "--topic", "three", "--partitions", "2", "--replication-factor", "3", node=2)
        self.java(TOPICS, "--create", "--topic", "placed", "--replica-assignment", "3:1,1:2", node=3)
        described = self.java(TOPICS, "--describe", "--topic", "three")
        self.assertIn("ReplicationFactor: 3", described)
        # Another node than the one that was asked hears of it a moment later.
        self.placed("placed", 0, [3, 1])
        self.placed("placed", 1, [1, 2])
        self.java(TOPICS, "--alter", "--topic", "placed", "--partitions", "3", "--replica-assignment", "3:1,1:2,2:3", node=2)
        self.placed("placed", 2, [2, 3])
        with self.assertRaisesRegex(AssertionError, "(?i)replication factor"):
            self.java(TOPICS, "--create", "--topic", "four", "--replication-factor", "4")
        with self.assertRaisesRegex(AssertionError, "InvalidReplicaAssignment|these replicas are not possible"):
            self.java(TOPICS, "--create", "--topic", "nowhere", "--replica-assignment", "1:9")
        self.assertNotIn("three", self.java(TOPICS, "--describe", "--under-replicated-partitions"))
        self.assertIn("under-replicated: 0 of", self.forebay("status"))

        os.kill(int((self.dir / "node3.pid").read_text()), signal.SIGKILL)
        eventually(lambda: self.assertIn("three-0", self.status()["under_replicated"]), 30)
        shown = self.java(TOPICS, "--describe", "--under-replicated-partitions")
        self.assertEqual(shown.count("Topic: three"), 2)
        status = self.forebay("status", node=2)
        self.assertIn("fenced", status)
        self.assertRegex(status, r"under-replicated: \d+ of \d+ partitions: .*three-0 three-1")
        self.assertEqual(self.status(2)["offline"], [])
        troubled = json.loads(self.forebay("status", "--troubled", "--json"))
        self.assertTrue(any(one["topic"] == "three" and len(one["isr"]) == 2 for one in troubled["partitions"]))

    def test_replicas_and_leaderships_move(self):
        self.java(TOPICS, "--create", "--topic", "moves", "--replica-assignment", "1:2")
        plan = self.plan("moves", [3, 2])
        self.java(REASSIGN, "--reassignment-json-file", plan, "--execute", node=2)
        self.settled("moves", [3, 2])
        verified = self.java(REASSIGN, "--reassignment-json-file", plan, "--verify")
        self.assertIn("Reassignment of partition moves-0 is completed", verified)
        self.assertIn("No partition reassignments found", self.java(REASSIGN, "--list"))
        self.assertIn("no partition is moving", self.forebay("reassign", "--status"))

        # By this program's own command, from another node, then back to the preferred leader.
        self.assertIn("moves:0 being reassigned", self.forebay("reassign", "moves:0=1,2,3", node=3))
        self.settled("moves", [1, 2, 3])
        self.forebay("elect", "moves:0", node=2)
        eventually(lambda: self.assertEqual(self.partition("moves")["leader"], 1), 30)
        with self.assertRaisesRegex(AssertionError, "stay as they were"):
            self.forebay("reassign", "moves:7=1")
        self.forebay("reassign", "--file", self.plan("moves", [2, 1]))
        self.settled("moves", [2, 1])
        elected = self.java(ELECT, "--election-type", "preferred", "--topic", "moves", "--partition", "0", node=3)
        self.assertRegex(elected, "Successfully completed leader election|Valid replica already elected")
        eventually(lambda: self.assertEqual(self.partition("moves")["leader"], 2), 30)

    def test_a_reassignment_to_a_dead_node_is_cancelled(self):
        self.java(TOPICS, "--create", "--topic", "stuck", "--replica-assignment", "1:2")
        os.kill(int((self.dir / "node3.pid").read_text()), signal.SIGKILL)
        plan = self.plan("stuck", [1, 3])
        with self.assertRaisesRegex(AssertionError, "Unknown broker id 3"):
            eventually(lambda: self.assertEqual(self.status()["nodes"][2]["state"], "fenced"), 30)
            self.java(REASSIGN, "--reassignment-json-file", plan, "--execute")
        self.forebay("reassign", "--file", plan)
        self.assertIn("stuck-0", self.java(REASSIGN, "--list", node=2))
        self.assertIn("stuck", self.forebay("reassign", "--status"))
        self.assertIn("still in progress", self.java(REASSIGN, "--reassignment-json-file", plan, "--verify"))
        self.java(REASSIGN, "--reassignment-json-file", plan, "--cancel", "--preserve-throttles")
        self.settled("stuck", [1, 2])
        self.forebay("reassign", "stuck:0=2,3")
        self.assertIn("stuck:0 cancelled", self.forebay("reassign", "--cancel", node=2))
        # As with Kafka, those that stay keep the order that was asked for.
        self.settled("stuck", [2, 1])

    def test_consumers_read_from_the_replica_in_their_rack(self):
        self.java(TOPICS, "--create", "--topic", "near", "--replica-assignment", "1:2")
        self.settled("near", [1, 2])
        producer = Producer({"bootstrap.servers": self.address(3, "kafka"), "acks": "all"})
        for number in range(1000):
            producer.produce("near", str(number))
        self.assertEqual(producer.flush(30), 0)
        read_from = set()
        consumer = Consumer({
            "bootstrap.servers": self.address(1, "kafka"), "group.id": "near", "auto.offset.reset": "earliest", "client.rack": "site-2",
            "statistics.interval.ms": 200,
            "stats_cb": lambda told: read_from.add(json.loads(told)["topics"].get("near", {}).get("partitions", {}).get("0", {}).get("broker")),
        })
        consumer.assign([TopicPartition("near", 0, 0)])
        values, deadline = [], time.monotonic() + 30
        while (len(values) < 1000 or 2 not in read_from) and time.monotonic() < deadline:
            message = consumer.poll(0.2)
            if message is not None:
                self.assertIsNone(message.error())
                values.append(int(message.value()))
        consumer.close()
        self.assertEqual(values, list(range(1000)))
        self.assertIn(2, read_from, "it reads from the leader alone")

    def test_the_quorum_is_described_on_every_node(self):
        for node in 1, 2, 3:
            status = self.java(QUORUM, "describe", "--status", node=node)
            self.assertRegex(status, r"LeaderId:\s+[123]\b")
            self.assertRegex(status, r"MaxFollowerLag:\s+\d+")
            for voter in 1, 2, 3:
                self.assertIn(f'"id": {voter}', status)
            rows = self.java(QUORUM, "describe", "--replication", node=node).splitlines()
            self.assertEqual(sum("Leader" in row for row in rows[1:]), 1, rows)
            self.assertEqual(sum("Follower" in row for row in rows[1:]), 2, rows)


if __name__ == "__main__":
    unittest.main()
