"""Spark structured streaming with format("kafka"): the connector by itself, and the example that writes a Delta table."""

import os
import pathlib
import sys
import tempfile
import unittest

import pyspark
from deltalake import DeltaTable

import tools
from gateway import Gateway

HERE = pathlib.Path(__file__).parent
EXAMPLE = HERE.parents[1] / "examples" / "python" / "spark_purchases.py"
CONNECTOR = [("org.apache.spark", "spark-sql-kafka-0-10_2.13", pyspark.__version__)]
# What of the connector's dependencies does not come with Spark itself.
NEEDED = ("spark-sql-kafka", "spark-token-provider-kafka", "kafka-clients", "commons-pool2", "delta-s", "antlr4-runtime")


def submit(program, *arguments):
    jars = [*tools.jars("spark-kafka", CONNECTOR), *tools.jars("delta", tools.DELTA)]
    jars = [str(jar) for jar in jars if jar.name.startswith(NEEDED)]
    settings = {
        "spark.ui.enabled": "false",
        "spark.log.level": "ERROR",
        "spark.sql.shuffle.partitions": "2",
        "spark.databricks.delta.snapshotPartitions": "1",
    }
    spark = [pathlib.Path(pyspark.__file__).parent / "bin" / "spark-submit", "--master", "local[2]", "--jars", ",".join(jars)]
    spark += [word for key, value in settings.items() for word in ("--conf", f"{key}={value}")]
    environment = {**os.environ, "PYSPARK_PYTHON": sys.executable, "SPARK_LOCAL_IP": "127.0.0.1"}
    return tools.run([*spark, program, *arguments], env=environment, timeout=300)


class SparkKafka(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.gateway = Gateway(args=["--set", "topic_defaults.num.partitions=4"])
        cls.bootstrap = cls.gateway.addresses["kafka"]

    @classmethod
    def tearDownClass(cls):
        cls.gateway.stop()

    def test_the_connector_reads_and_writes_topics(self):
        with tempfile.TemporaryDirectory() as folder:
            self.assertIn("spark and the topics agree", submit(HERE / "spark_kafka_client.py", self.bootstrap, folder))

    def test_purchases_become_a_delta_table(self):
        with tempfile.TemporaryDirectory() as folder:
            table = f"{folder}/purchases"
            self.assertIn(f"500 purchases in {table}", submit(EXAMPLE, self.bootstrap, table, "500"))
            self.assertIn(f"800 purchases in {table}", submit(EXAMPLE, self.bootstrap, table, "300"))
            rows = DeltaTable(table).to_pyarrow_table().to_pylist()
        self.assertEqual(len(rows), 800)
        self.assertEqual(len({(row["partition"], row["offset"]) for row in rows}), 800)
        prices = {"bread": 3.2, "milk": 1.1, "coffee": 7.9, "apples": 2.5}
        for row in rows:
            self.assertAlmostEqual(row["amount"], round(row["quantity"] * prices[row["item"]], 2))
        self.assertEqual({row["customer"] for row in rows}, {f"customer-{n}" for n in range(20)})
        # One customer, one partition.
        self.assertEqual(len({(row["customer"], row["partition"]) for row in rows}), 20)


if __name__ == "__main__":
    unittest.main()
