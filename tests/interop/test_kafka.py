"""The Kafka door with kcat, librdkafka (confluent-kafka) and kafka-python, and Kafka's own dump tool on the segments."""

import pathlib
import subprocess
import sys
import unittest

from gateway import Gateway
from tools import KAFKA, java_classpath

HERE = pathlib.Path(__file__).parent


class Kafka(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.gateway = Gateway()

    @classmethod
    def tearDownClass(cls):
        cls.gateway.stop()

    def test_kcat_librdkafka_kafka_python_and_kafkas_own_tools_list_produce_and_consume(self):
        clients = [sys.executable, HERE / "kafka_clients.py", "--bootstrap", self.gateway.addresses["kafka"]]
        subprocess.run([*clients, "--classpath", java_classpath("kafka", KAFKA)], check=True, timeout=300)

    def test_kafka_dump_log_reads_our_segments(self):
        bootstrap = self.gateway.addresses["kafka"]
        lines = "".join(f"key{n}:value {n} {'x' * 200}\n" for n in range(5000))
        for codec in ("none", "gzip", "snappy", "lz4", "zstd"):
            subprocess.run(
                ["kcat", "-P", "-b", bootstrap, "-t", "dumped", "-p", "0", "-K", ":", "-z", codec, "-X", "acks=all"],
                input=lines, text=True, check=True, timeout=60,
            )
        folder = self.gateway.dir / "data" / "log" / "dumped-0"
        segments = sorted(str(path) for path in folder.iterdir() if path.suffix in (".log", ".index", ".timeindex"))
        self.assertTrue(any(name.endswith(".index") for name in segments), segments)
        logs = [name for name in segments if name.endswith(".log")]
        jars = java_classpath("kafka", KAFKA)
        dump = ["java", "-cp", jars, "org.apache.kafka.tools.DumpLogSegments"]
        output = subprocess.run(
            [*dump, "--deep-iteration", "--files", ",".join(logs)], capture_output=True, text=True, timeout=120
        )
        if "ClassNotFound" in output.stderr:
            dump[-1] = "kafka.tools.DumpLogSegments"
            output = subprocess.run(
                [*dump, "--deep-iteration", "--files", ",".join(logs)], capture_output=True, text=True, timeout=120
            )
        self.assertEqual(output.returncode, 0, output.stderr)
        self.assertEqual(output.stdout.count("| offset: "), 25000, output.stdout[:2000] + output.stderr)
        self.assertNotIn("isvalid: false", output.stdout)
        indexes = ",".join(name for name in segments if not name.endswith(".log"))
        sanity = subprocess.run([*dump, "--index-sanity-check", "--files", indexes], capture_output=True, text=True, timeout=120)
        self.assertEqual(sanity.returncode, 0, sanity.stderr)
        self.assertNotIn("Mismatches", sanity.stdout)
        self.assertIn("passed sanity check", sanity.stdout)


if __name__ == "__main__":
    unittest.main()
