"""kcat, confluent-kafka (librdkafka) and kafka-python against one Kafka listener: list, produce with every codec and every
acks, read from the beginning, from the middle, by timestamp and tailing, commit offsets, make, alter and remove topics.
With --classpath Kafka's own Java tools too.

    python kafka_clients.py --bootstrap 127.0.0.1:9092 [--classpath 'kafka/*'] [TEST...]

Exits with 0 when all of it held. Topics get names of their own, so that it can run again on the same node.
"""

import argparse
import subprocess
import sys
import threading
import time
import uuid

CODECS = ("none", "gzip", "snappy", "lz4", "zstd")
ACKS = ("0", "1", "all")
RECORDS = 200
PARTITIONS = 3
DEADLINE = 30


def name(what):
    return f"{what}-{uuid.uuid4().hex[:8]}"


def check(condition, *what):
    if not condition:
        raise AssertionError(" ".join(str(part) for part in what))


def eventually(condition, *what):
    deadline = time.monotonic() + DEADLINE
    while not condition():
        check(time.monotonic() < deadline, "not within", DEADLINE, "s:", *what)
        time.sleep(0.02)


def expected(codec, acks):
    return [(f"key {n % 17}".encode(), f"{codec} {acks} {n} {'x' * (n % 50)}".encode()) for n in range(RECORDS)]


def check_order(got, wanted):
    """Every record once, and those of one key in the order of production."""
    check(sorted(got) == sorted(wanted), f"{len(got)} records for {len(wanted)}")
    for key in {key for key, _ in wanted}:
        check([r for r in got if r[0] == key] == [r for r in wanted if r[0] == key], "order of", key)


# kcat


def kcat(bootstrap, *args, stdin=None, timeout=DEADLINE):
    done = subprocess.run(
        ["kcat", "-b", bootstrap, *args], input=stdin, capture_output=True, timeout=timeout, check=False
    )
    check(done.returncode == 0, "kcat", args, done.stderr.decode())
    return done.stdout


def kcat_read(bootstrap, topic, *args):
    out = kcat(bootstrap, "-C", "-t", topic, "-e", "-q", "-f", "%k\t%s\n", *args)
    return [tuple(line.split(b"\t", 1)) for line in out.splitlines()]


def test_kcat_produces_with_every_codec_and_acks(bootstrap):
    for codec in CODECS:
        for acks in ACKS:
            topic, wanted = name("kcat"), expected(codec, acks)
            lines = b"".join(key + b":" + value + b"\n" for key, value in wanted)
            kcat(bootstrap, "-P", "-t", topic, "-K", ":", "-z", codec, "-X", f"acks={acks}", stdin=lines)
            got = []
            # Without an answer the producer may be gone before the last record is stored.
            deadline = time.monotonic() + DEADLINE
            while len(got) < RECORDS and time.monotonic() < deadline:
                got = kcat_read(bootstrap, topic, "-o", "beginning")
            check_order(got, wanted)


def test_kcat_lists_and_reads_from_anywhere(bootstrap):
    topic = name("kcat-read")
    kcat(bootstrap, "-P", "-t", topic, "-p", "0", stdin=b"".join(b"%d\n" % n for n in range(100)))
    check(topic.encode() in kcat(bootstrap, "-L"), "topic is not listed")
    read = lambda *args: [int(value) for _, value in kcat_read(bootstrap, topic, "-p", "0", *args)]  # noqa: E731
    check(read("-o", "40") == list(range(40, 100)), "from offset 40")
    check(read("-o", "-5") == list(range(95, 100)), "the last five")
    stamps = kcat(bootstrap, "-C", "-t", topic, "-p", "0", "-o", "beginning", "-e", "-q", "-f", "%T\n").split()
    check(read("-o", f"s@{stamps[50].decode()}")[0] <= 50, "from a timestamp")
    check(read("-o", "s@9999999999999") == [], "from the future")
    offset = kcat(bootstrap, "-Q", "-t", f"{topic}:0:-1")
    check(b"offset 100" in offset, "end offset:", offset)


def test_idempotent_kcat_produces(bootstrap):
    topic, wanted = name("kcat-idempotent"), expected("zstd", "all")
    lines = b"".join(key + b":" + value + b"\n" for key, value in wanted)
    kcat(bootstrap, "-P", "-t", topic, "-K", ":", "-z", "zstd", "-X", "enable.idempotence=true", stdin=lines)
    check_order(kcat_read(bootstrap, topic, "-o", "beginning"), wanted)


# confluent-kafka


def confluent_consumer(bootstrap, **config):
    from confluent_kafka import Consumer

    return Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": name("group"),
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            **config,
        }
    )


def confluent_read(bootstrap, topic, offset, partitions=PARTITIONS):
    """Reads every partition from `offset` to its end."""
    from confluent_kafka import KafkaError, TopicPartition

    consumer = confluent_consumer(bootstrap)
    consumer.assign([TopicPartition(topic, index, offset) for index in range(partitions)])
    got, open_partitions, deadline = [], set(range(partitions)), time.monotonic() + DEADLINE
    while open_partitions:
        check(time.monotonic() < deadline, "partitions without an end:", open_partitions)
        message = consumer.poll(1)
        if message is None:
            continue
        if message.error():
            check(message.error().code() == KafkaError._PARTITION_EOF, message.error())
            open_partitions.discard(message.partition())
        else:
            got.append(message)
    consumer.close()
    return got


def test_confluent_produces_with_every_codec_and_acks(bootstrap):
    from confluent_kafka import OFFSET_BEGINNING, Producer
    from confluent_kafka.admin import AdminClient, NewTopic

    admin = AdminClient({"bootstrap.servers": bootstrap})
    for codec in CODECS:
        for acks in ACKS:
            topic, wanted = name("confluent"), expected(codec, acks)
            admin.create_topics([NewTopic(topic, PARTITIONS, 1)])[topic].result(DEADLINE)
            failed = []
            producer = Producer({"bootstrap.servers": bootstrap, "compression.type": codec, "acks": acks, "linger.ms": 5})
            for key, value in wanted:
                producer.produce(
                    topic, key=key, value=value, headers=[("a", b"1"), ("a", b"2")],
                    on_delivery=lambda error, _: failed.append(error) if error else None,
                )
            check(producer.flush(DEADLINE) == 0, "records left unsent")
            check(not failed, failed)
            got = []
            eventually(lambda: len(fill(got, lambda: confluent_read(bootstrap, topic, OFFSET_BEGINNING))) >= RECORDS, topic)
            check_order([(message.key(), message.value()) for message in got], wanted)
            check(got[0].headers() == [("a", b"1"), ("a", b"2")], "headers:", got[0].headers())


def fill(target, read):
    """Replaces the content of a list by what `read` gives."""
    target[:] = read()
    return target


def test_confluent_reads_by_timestamp_and_from_the_middle(bootstrap):
    from confluent_kafka import Producer, TopicPartition

    topic, start = name("confluent-time"), 1_700_000_000_000
    producer = Producer({"bootstrap.servers": bootstrap, "acks": "all"})
    for n in range(100):
        producer.produce(topic, value=str(n), partition=0, timestamp=start + n * 1000)
    check(producer.flush(DEADLINE) == 0, "records left unsent")
    consumer = confluent_consumer(bootstrap)
    found = consumer.offsets_for_times([TopicPartition(topic, 0, start + 41_500)], timeout=DEADLINE)
    check(found[0].offset == 42, "offset for a time:", found)
    late = consumer.offsets_for_times([TopicPartition(topic, 0, start + 10_000_000)], timeout=DEADLINE)
    check(late[0].offset == -1, "offset for the future:", late)
    check(consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=DEADLINE) == (0, 100), "watermarks")
    consumer.close()
    got = confluent_read(bootstrap, topic, 90, partitions=1)
    check([int(message.value()) for message in got] == list(range(90, 100)), "from the middle")


def test_confluent_idempotent_producer_and_tailing_consumer(bootstrap):
    from confluent_kafka import Producer, TopicPartition
    from confluent_kafka.admin import AdminClient, NewTopic

    topic = name("confluent-tail")
    admin = AdminClient({"bootstrap.servers": bootstrap})
    admin.create_topics([NewTopic(topic, 1, 1)])[topic].result(DEADLINE)
    consumer = confluent_consumer(bootstrap, **{"enable.partition.eof": False})
    consumer.assign([TopicPartition(topic, 0, 0)])
    producer = Producer({"bootstrap.servers": bootstrap, "enable.idempotence": True})
    waits = []
    for n in range(20):
        began = time.monotonic()
        producer.produce(topic, value=str(n))
        check(producer.flush(DEADLINE) == 0, "record left unsent")
        message = consumer.poll(DEADLINE)
        check(message is not None and not message.error(), "no record", message and message.error())
        check(message.value() == str(n).encode() and message.offset() == n, "record", n)
        waits.append(time.monotonic() - began)
    check(sorted(waits)[10] < 0.4, "a tailing consumer waits for its poll, not for the record:", waits)
    consumer.close()


def test_confluent_admin(bootstrap):
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import (
        AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewTopic, OffsetSpec, ResourceType,
    )
    from confluent_kafka import TopicPartition

    admin, topic = AdminClient({"bootstrap.servers": bootstrap}), name("confluent-admin")
    admin.create_topics([NewTopic(topic, 2, 1, config={"retention.ms": "3600000"})])[topic].result(DEADLINE)
    try:
        admin.create_topics([NewTopic(topic, 2, 1)])[topic].result(DEADLINE)
        check(False, "a topic was made twice")
    except KafkaException as error:
        check(error.args[0].name() == "TOPIC_ALREADY_EXISTS", error)
    check(len(admin.list_topics(timeout=DEADLINE).topics[topic].partitions) == 2, "partitions")
    resource = ConfigResource(ResourceType.TOPIC, topic)
    configs = admin.describe_configs([resource])[resource].result(DEADLINE)
    check(configs["retention.ms"].value == "3600000", configs["retention.ms"])
    change = ConfigEntry("retention.ms", "7200000", incremental_operation=AlterConfigOpType.SET)
    altered = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[change])
    admin.incremental_alter_configs([altered])[altered].result(DEADLINE)
    configs = admin.describe_configs([resource])[resource].result(DEADLINE)
    check(configs["retention.ms"].value == "7200000", configs["retention.ms"])
    wrong = ConfigEntry("retention.mss", "1", incremental_operation=AlterConfigOpType.SET)
    refused = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[wrong])
    try:
        admin.incremental_alter_configs([refused])[refused].result(DEADLINE)
        check(False, "an unknown config was accepted")
    except KafkaException as error:
        check(error.args[0].name() == "INVALID_CONFIG", error)
    broker = ConfigResource(ResourceType.BROKER, str(admin.list_topics(timeout=DEADLINE).controller_id))
    check(admin.describe_configs([broker])[broker].result(DEADLINE), "broker configs are empty")
    cluster = admin.describe_cluster(request_timeout=DEADLINE).result()
    check(len(cluster.nodes) >= 1 and cluster.cluster_id, "cluster")
    ends = admin.list_offsets({TopicPartition(topic, 0): OffsetSpec.max_timestamp()})
    check([end.result(DEADLINE).offset for end in ends.values()] == [-1], "largest timestamp of an empty partition")
    admin.delete_topics([topic])[topic].result(DEADLINE)
    eventually(lambda: topic not in admin.list_topics(timeout=DEADLINE).topics, "topic is not gone")
    for reserved in ("_alerts", "bad/name"):
        try:
            admin.create_topics([NewTopic(reserved, 1, 1)])[reserved].result(DEADLINE)
            check(False, "topic", reserved, "was made")
        except KafkaException as error:
            check(error.args[0].name() == "TOPIC_EXCEPTION", error)


# kafka-python


def python_read(bootstrap, topic, partitions):
    from kafka import KafkaConsumer, TopicPartition

    consumer = KafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False)
    all_partitions = [TopicPartition(topic, index) for index in range(partitions)]
    consumer.assign(all_partitions)
    consumer.seek_to_beginning()
    ends, got, deadline = consumer.end_offsets(all_partitions), [], time.monotonic() + DEADLINE
    while any(consumer.position(p) < end for p, end in ends.items()):
        check(time.monotonic() < deadline, "not read to the end")
        for records in consumer.poll(1000).values():
            got.extend(records)
    consumer.close()
    return got


def test_kafka_python_produces_with_every_codec_and_acks(bootstrap):
    from kafka import KafkaProducer

    for codec in CODECS:
        for acks in ACKS:
            topic, wanted = name("python"), expected(codec, acks)
            producer = KafkaProducer(
                bootstrap_servers=bootstrap, compression_type=None if codec == "none" else codec,
                acks=acks if acks == "all" else int(acks), linger_ms=5,
            )
            sent = [producer.send(topic, key=key, value=value, headers=[("a", b"1")]) for key, value in wanted]
            producer.flush(DEADLINE)
            for future in sent:
                future.get(DEADLINE)
            partitions = len(producer.partitions_for(topic))
            producer.close()
            got = []
            eventually(lambda: len(fill(got, lambda: python_read(bootstrap, topic, partitions))) >= RECORDS, topic)
            check_order([(record.key, record.value) for record in got], wanted)
            check(got[0].headers in ([("a", b"1")], (("a", b"1"),)), "headers:", got[0].headers)


def test_kafka_python_reads_by_timestamp_and_tails(bootstrap):
    from kafka import KafkaConsumer, KafkaProducer, TopicPartition

    topic, start = name("python-time"), 1_700_000_000_000
    producer = KafkaProducer(bootstrap_servers=bootstrap)
    for n in range(100):
        producer.send(topic, value=b"%d" % n, partition=0, timestamp_ms=start + n * 1000)
    producer.flush(DEADLINE)
    check(topic in KafkaConsumer(bootstrap_servers=bootstrap).topics(), "topic is not listed")
    place = TopicPartition(topic, 0)
    consumer = KafkaConsumer(bootstrap_servers=bootstrap)
    consumer.assign([place])
    found = consumer.offsets_for_times({place: start + 41_500})[place]
    check((found.offset, found.timestamp) == (42, start + 42_000), found)
    check(consumer.beginning_offsets([place])[place] == 0 and consumer.end_offsets([place])[place] == 100, "borders")
    consumer.seek(place, 100)
    threading.Timer(0.2, lambda: producer.send(topic, value=b"late", partition=0)).start()
    got, deadline = [], time.monotonic() + DEADLINE
    while not got:
        check(time.monotonic() < deadline, "no record")
        got = [record for records in consumer.poll(500).values() for record in records]
    check((got[0].value, got[0].offset) == (b"late", 100), got)
    producer.close()
    consumer.close()


def test_kafka_python_stores_and_reads_a_record_of_a_megabyte(bootstrap):
    from kafka import KafkaProducer
    from kafka.errors import MessageSizeTooLargeError

    topic = name("python-large")
    producer = KafkaProducer(bootstrap_servers=bootstrap, max_request_size=8 << 20)
    producer.send(topic, value=b"x" * 1_000_000, partition=0).get(DEADLINE)
    try:
        producer.send(topic, value=b"x" * 2_000_000, partition=0).get(DEADLINE)
        check(False, "a record over max.message.bytes was stored")
    except MessageSizeTooLargeError:
        pass
    producer.close()
    check([len(record.value) for record in python_read(bootstrap, topic, 1)] == [1_000_000], "the large record")


# groups: consumers that assign their partitions themselves and keep their offsets in a group


def test_confluent_commits_and_resumes_with_assigned_partitions(bootstrap):
    from confluent_kafka import Consumer, Producer, TopicPartition

    topic, group = name("confluent-commit"), name("group")
    producer = Producer({"bootstrap.servers": bootstrap})
    for n in range(10):
        producer.produce(topic, value=str(n), partition=0)
    check(producer.flush(DEADLINE) == 0, "records left unsent")
    config = {"bootstrap.servers": bootstrap, "group.id": group, "auto.offset.reset": "earliest", "enable.auto.commit": False}
    for first in (0, 6):
        consumer = Consumer(config)
        consumer.assign([TopicPartition(topic, 0)])
        message = consumer.poll(DEADLINE)
        check(message is not None and not message.error() and message.offset() == first, "resumed at", first, message)
        consumer.commit(offsets=[TopicPartition(topic, 0, 6, metadata="half way")], asynchronous=False)
        committed = consumer.committed([TopicPartition(topic, 0), TopicPartition(topic, 1)], timeout=DEADLINE)
        check([(c.offset, c.metadata) for c in committed] == [(6, "half way"), (-1001, None)], committed)
        consumer.close()


def test_kafka_python_commits_and_resumes_with_assigned_partitions(bootstrap):
    from kafka import KafkaConsumer, KafkaProducer, TopicPartition

    topic, group = name("python-commit"), name("group")
    producer = KafkaProducer(bootstrap_servers=bootstrap)
    for n in range(10):
        producer.send(topic, value=b"%d" % n, partition=0)
    producer.flush(DEADLINE)
    producer.close()
    for first in (0, 10):
        consumer = KafkaConsumer(bootstrap_servers=bootstrap, group_id=group, auto_offset_reset="earliest")
        place = TopicPartition(topic, 0)
        consumer.assign([place])
        check(consumer.position(place) == first, "resumed at", consumer.position(place))
        deadline = time.monotonic() + DEADLINE
        while consumer.position(place) < 10:
            check(time.monotonic() < deadline, "not read to the end")
            consumer.poll(500)
        consumer.commit()
        check(consumer.committed(place) == 10, "committed")
        consumer.close()


# Kafka's own tools, when their jars are given


def java(classpath, tool, *args, stdin=None):
    done = subprocess.run(
        ["java", "-Xmx256m", "-cp", classpath, tool, *args], input=stdin, capture_output=True, timeout=120, check=False
    )
    check(done.returncode == 0, tool, args, done.stderr.decode()[-2000:], done.stdout.decode()[-2000:])
    return done.stdout.decode()


def test_java_tools_make_describe_produce_and_consume(bootstrap, classpath):
    server, topic = ("--bootstrap-server", bootstrap), name("java")
    tools = "org.apache.kafka.tools."
    java(classpath, tools + "TopicCommand", *server, "--create", "--topic", topic, "--partitions", "2")
    check("PartitionCount: 2" in java(classpath, tools + "TopicCommand", *server, "--describe", "--topic", topic), topic)
    lines = b"".join(b"key%d:value %d\n" % (n % 7, n) for n in range(RECORDS))
    parse = ("--property", "parse.key=true", "--property", "key.separator=:")
    # The tool's producer is idempotent by default.
    java(classpath, tools + "ConsoleProducer", *server, "--topic", topic, *parse, stdin=lines)
    ends = java(classpath, tools + "GetOffsetShell", *server, "--topic", topic)
    counts = {int(line.split(":")[1]): int(line.split(":")[2]) for line in ends.split()}
    check(sum(counts.values()) == RECORDS, ends)
    got = []
    for partition, count in counts.items():
        place = ("--topic", topic, "--partition", str(partition), "--offset", "earliest", "--max-messages", str(count))
        got += java(classpath, tools + "consumer.ConsoleConsumer", *server, *place, "--timeout-ms", "30000").splitlines()
    check(sorted(got) == sorted(f"value {n}" for n in range(RECORDS)), "records of the Java producer")
    alter = ("--alter", "--entity-type", "topics", "--entity-name", topic, "--add-config", "retention.ms=3600000")
    java(classpath, "kafka.admin.ConfigCommand", *server, *alter)
    describe = ("--describe", "--entity-type", "topics", "--entity-name", topic)
    check("retention.ms=3600000" in java(classpath, "kafka.admin.ConfigCommand", *server, *describe), "altered config")
    java(classpath, tools + "TopicCommand", *server, "--delete", "--topic", topic)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bootstrap", default="127.0.0.1:9092")
    parser.add_argument("--classpath", help="jars of Kafka's own tools; without it they are not run")
    parser.add_argument("tests", nargs="*", help="names of tests, or parts of them; none means all")
    args = parser.parse_args()
    tests = [(test, run) for test, run in globals().items() if test.startswith("test_")]
    failed = 0
    for test, run in tests:
        if args.tests and not any(part in test for part in args.tests):
            continue
        java_tools = test.startswith("test_java")
        if java_tools and not args.classpath:
            print(f"skipped {test}: no --classpath", flush=True)
            continue
        began = time.monotonic()
        try:
            run(args.bootstrap, args.classpath) if java_tools else run(args.bootstrap)
            print(f"ok      {test} ({time.monotonic() - began:.1f} s)", flush=True)
        except Exception as error:  # the next test is of interest all the same
            failed += 1
            print(f"FAILED  {test}: {type(error).__name__}: {error}", flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
