"""Kafka's own command line tools (Apache Kafka's jars from Maven) as an administrator and a tester would use them."""

import collections
import json
import pathlib
import re
import subprocess
import tempfile
import time
import unittest
import uuid

import tools
from confluent_kafka import Producer
from gateway import Gateway, eventually

TOOLS = "org.apache.kafka.tools."
TOPICS, OFFSETS = TOOLS + "TopicCommand", TOOLS + "GetOffsetShell"
CONFIGS = "kafka.admin.ConfigCommand"
# Short runs: no time for the second compiler, and little memory.
JAVA = ["java", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", tools.java_classpath("kafka", tools.KAFKA)]


def name(what):
    return f"{what}-{uuid.uuid4().hex[:8]}"


def events(output, kind):
    """The events of one kind in what a verifiable client printed."""
    found = (json.loads(line) for line in output.splitlines() if line.startswith("{"))
    return [event for event in found if event["name"] == kind]


class JavaTools(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.gateway = Gateway()
        cls.bootstrap = cls.gateway.addresses["kafka"]

    @classmethod
    def tearDownClass(cls):
        cls.gateway.stop()

    def java(self, tool, *arguments, server=True, stdin=None):
        to = ("--bootstrap-server", self.bootstrap) if server else ()
        return tools.run([*JAVA, tool, *to, *arguments], input=stdin, timeout=120)

    def topic(self, partitions=2, **configs):
        topic = name("tools")
        more = [word for key, value in configs.items() for word in ("--config", f"{key.replace('_', '.')}={value}")]
        self.java(TOPICS, "--create", "--topic", topic, "--partitions", str(partitions), *more)
        return topic

    def offsets(self, topic, time):
        """Partition -> offset of what GetOffsetShell finds for `time`."""
        lines = self.java(OFFSETS, "--topic", topic, "--time", time).split()
        return {int(line.split(":")[1]): int(line.split(":")[2]) for line in lines}

    def perf(self, topic, count):
        """Records of 1 KiB from an idempotent producer."""
        props = ("--producer-props", f"bootstrap.servers={self.bootstrap}", "acks=all", "linger.ms=5")
        load = ("--topic", topic, "--num-records", str(count), "--record-size", "1024", "--throughput", "-1")
        return self.java(TOOLS + "ProducerPerformance", *load, *props, server=False)

    def verifiable_producer(self, topic, count, *more):
        out = self.java(TOOLS + "VerifiableProducer", "--topic", topic, "--max-messages", str(count), *more)
        sent = events(out, "producer_send_success")
        self.assertEqual(len({(event["partition"], event["offset"]) for event in sent}), count)
        self.assertEqual(events(out, "producer_send_error"), [])
        self.assertEqual(events(out, "tool_data")[0]["acked"], count)
        return sent

    def test_topics_are_made_described_and_deleted(self):
        topic = self.topic(3, retention_ms=3600000)
        self.assertIn(topic, self.java(TOPICS, "--list").split())
        described = self.java(TOPICS, "--describe", "--topic", topic)
        self.assertIn("PartitionCount: 3", described)
        self.assertIn("ReplicationFactor: 1", described)
        self.assertIn("retention.ms=3600000", described)
        self.assertEqual(described.count("Leader: "), 3)
        # A topic that exists is no fault when it is asked for with this flag.
        self.java(TOPICS, "--create", "--topic", topic, "--if-not-exists")
        for trouble in ("--under-replicated-partitions", "--unavailable-partitions", "--under-min-isr-partitions"):
            self.assertNotIn(topic, self.java(TOPICS, "--describe", trouble))
        with self.assertRaisesRegex(AssertionError, " exists"):
            self.java(TOPICS, "--create", "--topic", topic)
        with self.assertRaisesRegex(AssertionError, "(?i)replication factor"):
            self.java(TOPICS, "--create", "--topic", name("tools"), "--replication-factor", "3")
        self.java(TOPICS, "--delete", "--topic", topic)
        self.assertNotIn(topic, self.java(TOPICS, "--list").split())

    def test_partitions_are_added(self):
        topic = self.topic(2)
        self.verifiable_producer(topic, 20)
        self.java(TOPICS, "--alter", "--topic", topic, "--partitions", "5")
        self.assertIn("PartitionCount: 5", self.java(TOPICS, "--describe", "--topic", topic))
        self.verifiable_producer(topic, 50)
        self.assertEqual(sum(self.offsets(topic, "latest").values()), 70)
        with self.assertRaisesRegex(AssertionError, "Error while executing topic command"):
            self.java(TOPICS, "--alter", "--topic", topic, "--partitions", "3")

    def test_configs_are_set_and_taken_back(self):
        entity = ("--entity-type", "topics", "--entity-name", self.topic())
        changes = "retention.ms=7200000,segment.bytes=1048576,cleanup.policy=[delete]"
        self.java(CONFIGS, "--alter", *entity, "--add-config", changes)
        described = self.java(CONFIGS, "--describe", *entity)
        self.assertIn("retention.ms=7200000", described)
        self.assertIn("segment.bytes=1048576", described)
        self.java(CONFIGS, "--alter", *entity, "--delete-config", "retention.ms")
        described = self.java(CONFIGS, "--describe", *entity)
        self.assertNotIn("retention.ms=7200000", described)
        self.assertIn("segment.bytes=1048576", described)
        everything = self.java(CONFIGS, "--describe", *entity, "--all")
        self.assertIn("max.message.bytes=", everything)
        with self.assertRaisesRegex(AssertionError, "InvalidConfigurationException"):
            self.java(CONFIGS, "--alter", *entity, "--add-config", "retention.ms=never")
        node = self.gateway.get("/api/v1/status")["node"]
        self.assertIn("configs", self.java(CONFIGS, "--describe", "--entity-type", "brokers", "--entity-name", str(node), "--all"))

    def seconds_to_send(self, client_id, topic, records=30):
        """How long 30 records of 10 KB take a client of this id, and the longest throttle that it was told of in ms."""
        throttles = [0]
        settings = {"bootstrap.servers": self.bootstrap, "client.id": client_id, "batch.num.messages": 1, "linger.ms": 0}
        producer = Producer({**settings, "throttle_cb": lambda event: throttles.append(int(event.throttle_time * 1000))})
        began = time.monotonic()
        for _ in range(records):
            producer.produce(topic, b"x" * 10_000)
        self.assertEqual(producer.flush(60), 0)
        return time.monotonic() - began, max(throttles)

    def test_a_client_over_its_quota_is_slowed_down(self):
        topic = self.topic(1)
        entity = ("--entity-type", "clients", "--entity-name", "greedy")
        self.java(CONFIGS, "--alter", *entity, "--add-config", "producer_byte_rate=100000,consumer_byte_rate=200000")
        described = self.java(CONFIGS, "--describe", *entity)
        self.assertIn("producer_byte_rate=100000", described)
        self.assertIn("consumer_byte_rate=200000", described)
        # 300 KB, of which the first second's worth goes at once.
        seconds, throttle = self.seconds_to_send("greedy", topic)
        self.assertGreater(seconds, 1.5)
        self.assertGreater(throttle, 0)
        self.assertEqual(self.seconds_to_send("modest", topic)[1], 0)
        self.java(CONFIGS, "--alter", *entity, "--delete-config", "producer_byte_rate,consumer_byte_rate")
        self.assertNotIn("byte_rate", self.java(CONFIGS, "--describe", *entity))
        self.assertEqual(self.seconds_to_send("greedy", topic)[1], 0)
        with self.assertRaisesRegex(AssertionError, "(?i)request_percentage"):
            self.java(CONFIGS, "--alter", *entity, "--add-config", "request_percentage=50")

    def test_console_producer_and_consumer(self):
        topic = self.topic(1)
        lines = "".join(f"h:{n}\tkey{n % 7}\tvalue {n}\n" for n in range(200))
        parse = [word for each in ("parse.key=true", "parse.headers=true") for word in ("--property", each)]
        for codec in ("none", "gzip", "snappy", "lz4", "zstd"):
            codec_of = ("--compression-codec", codec, "--producer-property", "acks=all")
            self.java(TOOLS + "ConsoleProducer", "--topic", topic, *parse, *codec_of, stdin=lines)
        shown = [word for each in ("print.key=true", "print.headers=true", "print.offset=true") for word in ("--property", each)]
        group = name("console")
        read = ("--topic", topic, "--group", group, "--from-beginning", "--max-messages", "1000", "--timeout-ms", "30000")
        got = [line.split("\t") for line in self.java(TOOLS + "consumer.ConsoleConsumer", *read, *shown).splitlines()]
        self.assertEqual(got[201], ["Offset:201", "h:1", "key1", "value 1"])
        self.assertEqual([int(line[0].split(":")[1]) for line in got], list(range(1000)))

    def test_performance_tools(self):
        topic = self.topic(4)
        produced = self.perf(topic, 20000)
        self.assertIn("20000 records sent", produced)
        self.assertIn("99th", produced)
        consumed = self.java(TOOLS + "ConsumerPerformance", "--topic", topic, "--messages", "20000", "--timeout", "30000", "--hide-header")
        # start, end, MB, MB/s, records, ...
        fields = consumed.strip().splitlines()[-1].split(", ")
        self.assertEqual(int(fields[4]), 20000, consumed)
        latency = self.java(TOOLS + "EndToEndLatency", self.bootstrap, self.topic(1), "500", "all", "100", server=False)
        self.assertIn("Percentiles: 50th", latency)

    def test_verifiable_producer_and_consumers_of_a_group(self):
        topic, group = self.topic(4), name("verifiable")
        sent = self.verifiable_producer(topic, 2000, "--acks", "-1", "--repeating-keys", "50", "--value-prefix", "1")
        by_key = collections.defaultdict(set)
        for event in sent:
            by_key[event["key"]].add(event["partition"])
        self.assertTrue(all(len(partitions) == 1 for partitions in by_key.values()), "a key went to several partitions")
        assignor = "org.apache.kafka.clients.consumer.CooperativeStickyAssignor"
        words = [*JAVA, TOOLS + "VerifiableConsumer", "--bootstrap-server", self.bootstrap, "--topic", topic, "--group-id", group]
        words += ["--verbose", "--reset-policy", "earliest", "--assignment-strategy", assignor]
        output = [tempfile.NamedTemporaryFile("w+", suffix=".json") for _ in range(2)]
        members = [subprocess.Popen(words, stdout=file, stderr=subprocess.DEVNULL) for file in output]

        def printed():
            text = [pathlib.Path(file.name).read_text() for file in output]
            return [one[: one.rfind("\n") + 1] for one in text]

        def read():
            return [(event["partition"], event["offset"]) for one in printed() for event in events(one, "record_data")]

        try:
            eventually(lambda: self.assertGreaterEqual(len(read()), 2000), 60)
            eventually(lambda: self.assertTrue(all(events(one, "partitions_assigned") for one in printed())), 60)
            self.verifiable_producer(topic, 2000)
            eventually(lambda: self.assertGreaterEqual(len(read()), 4000), 60)
        finally:
            for member in members:
                member.terminate()
            codes = [member.wait(30) for member in members]
        self.assertEqual(len(set(read())), 4000)
        self.assertEqual(len(read()), 4000, "a record was read twice")
        ended = printed()
        self.assertTrue(all(events(one, "shutdown_complete") for one in ended), codes)
        committed = [event for one in ended for event in events(one, "offsets_committed")]
        self.assertTrue(committed and all(event["success"] for event in committed))
        last = {}
        for event in committed:
            for place in event["offsets"]:
                last[place["partition"]] = max(place["offset"], last.get(place["partition"], 0))
        self.assertEqual(last, self.offsets(topic, "latest"))

    def test_verifiable_consumer_of_the_new_group_protocol(self):
        topic, group = self.topic(4), name("kip848")
        self.verifiable_producer(topic, 500, "--repeating-keys", "50")
        words = ("--topic", topic, "--group-id", group, "--group-protocol", "consumer", "--max-messages", "500", "--verbose")
        out = self.java(TOOLS + "VerifiableConsumer", *words)
        got = [(event["partition"], event["offset"]) for event in events(out, "record_data")]
        self.assertEqual((len(got), len(set(got))), (500, 500))
        described = self.java(TOOLS + "consumer.group.ConsumerGroupCommand", "--describe", "--group", group)
        committed = [int(line.split()[3]) for line in described.splitlines() if topic in line]
        self.assertEqual((len(committed), sum(committed)), (4, 500), described)

    def test_offsets_show_the_border_of_hot_and_cold(self):
        topic = self.topic(1)
        self.perf(topic, 4000)
        self.assertEqual(self.offsets(topic, "earliest"), {0: 0})
        self.assertEqual(self.offsets(topic, "latest"), {0: 4000})

        def gone():
            self.assertGreater(self.offsets(topic, "earliest-local")[0], 0)

        eventually(gone, 60)
        self.assertEqual(self.offsets(topic, "earliest"), {0: 0})
        local, tiered = self.offsets(topic, "earliest-local")[0], self.offsets(topic, "latest-tiered")[0]
        self.assertLess(local, 4000)
        self.assertGreaterEqual(tiered, local - 1, "a record that is neither here nor there")
        newest = self.offsets(topic, "max-timestamp")[0]
        self.assertTrue(0 <= newest < 4000, newest)
        read = ("--topic", topic, "--partition", "0", "--offset", "0", "--max-messages", "4000", "--timeout-ms", "30000")
        self.assertEqual(len(self.java(TOOLS + "consumer.ConsoleConsumer", *read).splitlines()), 4000)

    def test_a_compacted_topic_keeps_each_keys_last_value(self):
        topic = self.topic(1, cleanup_policy="compact", segment_bytes=65536, min_cleanable_dirty_ratio=0.01)
        parse = [word for each in ("parse.key=true", "null.marker=NULL") for word in ("--property", each)]
        write = (TOOLS + "ConsoleProducer", "--topic", topic, *parse)
        self.java(*write, stdin="".join(f"key{n % 20}\tvalue {n}\n" for n in range(8000)))
        self.java(*write, stdin="key3\tNULL\n" + "".join(f"other{n}\tvalue {n}\n" for n in range(4000)))
        shown = [word for each in ("print.key=true", "print.offset=true", "null.literal=NULL") for word in ("--property", each)]
        # Compaction leaves holes: how many records there are is only known from an end that nobody waits for.
        read = ("--topic", topic, "--from-beginning", "--timeout-ms", "3000", *shown)

        def compacted():
            lines = self.java(TOOLS + "consumer.ConsoleConsumer", *read).splitlines()
            offsets = [int(line.split("\t")[0].split(":")[1]) for line in lines]
            self.assertEqual(offsets, sorted(set(offsets)))
            self.assertEqual(offsets[-1], 12000)
            self.assertLess(len(lines), 8000)
            return dict(line.split("\t")[1:] for line in lines)

        last = eventually(compacted, 90)
        wanted = {f"key{n}": f"value {7980 + n}" for n in range(20)} | {f"other{n}": f"value {n}" for n in range(4000)}
        self.assertEqual(last, wanted | {"key3": "NULL"})
        self.assertEqual(self.offsets(topic, "latest"), {0: 12001})

    def test_records_are_deleted(self):
        topic = self.topic(2)
        self.verifiable_producer(topic, 200, "--repeating-keys", "50")
        ends = self.offsets(topic, "latest")
        with tempfile.NamedTemporaryFile("w", suffix=".json") as wanted:
            places = [{"topic": topic, "partition": 0, "offset": 30}, {"topic": topic, "partition": 1, "offset": -1}]
            wanted.write(json.dumps({"version": 1, "partitions": places}))
            wanted.flush()
            said = self.java(TOOLS + "DeleteRecordsCommand", "--offset-json-file", wanted.name)
        self.assertIn("low_watermark: 30", said)
        self.assertEqual(self.offsets(topic, "earliest"), {0: 30, 1: ends[1]})
        self.assertEqual(self.offsets(topic, "latest"), ends)

    def test_log_dirs_tell_sizes(self):
        topic = self.topic(2)
        self.verifiable_producer(topic, 500)
        said = self.java(TOOLS + "LogDirsCommand", "--describe", "--topic-list", topic)
        described = json.loads(next(line for line in said.splitlines() if line.startswith("{")))
        (folder,) = described["brokers"][0]["logDirs"]
        self.assertIsNone(folder["error"])
        sizes = {place["partition"]: place["size"] for place in folder["partitions"]}
        self.assertEqual(sorted(sizes), [f"{topic}-0", f"{topic}-1"])
        self.assertGreater(sum(sizes.values()), 1000)

    def test_active_producers_are_described(self):
        topic = self.topic(1)
        self.perf(topic, 100)
        said = self.java(TOOLS + "TransactionsCommand", "describe-producers", "--topic", topic, "--partition", "0")
        head, row = (line.split() for line in said.strip().splitlines()[-2:])
        producer = dict(zip(head, row))
        self.assertEqual(producer["LastSequence"], "99", said)

    def test_cluster_and_api_versions(self):
        cluster = self.java(TOOLS + "ClusterTool", "cluster-id", "--bootstrap-server", self.bootstrap, server=False)
        self.assertRegex(cluster, "Cluster ID: \\S{22}")
        said = self.java(TOOLS + "BrokerApiVersionsCommand")
        self.assertIn("Fetch(1): ", said)
        listed = re.findall(r"^\t\w+\((\d+)\): (?!UNSUPPORTED)", said, re.MULTILINE)
        self.assertEqual({int(key) for key in listed}, self.gateway.served())


if __name__ == "__main__":
    unittest.main()
