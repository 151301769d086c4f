"""The lake as others read it: deltalake, pyarrow and DuckDB, and Spark with Delta's own connector."""

import json
import pathlib
import subprocess
import sys
import unittest

import paho.mqtt.client as paho
from deltalake import DeltaTable

from gateway import Gateway
from test_mqtt import Client, log_values
from tools import DELTA, jars

HERE = pathlib.Path(__file__).parent


class Lake(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.gateway = Gateway()
        client = Client(cls.gateway, "fleet")
        for n in range(3000):
            meter = f"m{n % 30}"
            payload = {"meter": meter, "ts": f"2013-02-{4 + n // 300:02}T00:30:00Z", "kwh": n / 1000, "n": n}
            if n % 100 == 99:
                payload["extra"] = {"phase": n % 3}
            client.client.publish(f"meters/{meter}/readings", json.dumps(payload, separators=(",", ":")), 1)
            if n % 500 == 499:
                client.publish("meters/broken/readings", b"\xff not json", 1)
        client.publish("meters/m0/readings", '{"meter":"m0","last":true}', 1)
        client.close()
        cls.gateway.flush("readings")
        cls.table = cls.gateway.lake / "readings"
        cls.count = 3000 + 6 + 1

    @classmethod
    def tearDownClass(cls):
        cls.gateway.stop()

    def test_log_and_table_hold_the_same(self):
        self.assertEqual(len(log_values(self.gateway, "readings")), self.count)
        rows = DeltaTable(str(self.table)).to_pyarrow_table()
        self.assertEqual(rows.num_rows, self.count)

    def test_deltalake_pyarrow_and_duckdb_agree(self):
        subprocess.run([sys.executable, HERE / "lake_readers.py", str(self.table), str(self.count)], check=True, timeout=120)

    def test_payload_fields_are_typed_columns(self):
        table = DeltaTable(str(self.table)).to_pyarrow_table()
        rows = sorted((row for row in table.to_pylist() if row["n"] is not None), key=lambda row: row["n"])
        self.assertEqual([row["n"] for row in rows], list(range(3000)))
        self.assertEqual(rows[1234]["kwh"], 1.234)
        self.assertEqual(rows[99]["extra"], {"phase": 0})
        self.assertEqual(rows[0]["ts"].isoformat()[:19], "2013-02-04T00:30:00")
        self.assertTrue(all(row["_value"] is None and row["_error"] is None for row in rows))
        broken = [row for row in table.to_pylist() if row["_error"] is not None]
        self.assertEqual([row["_value"] for row in broken], [b"\xff not json"] * 6)

    def test_spark_reads_the_table(self):
        wanted = [str(jar) for jar in jars("delta", DELTA) if jar.name.startswith(("delta-s", "antlr4-runtime"))]
        self.assertTrue(wanted, "no Delta jars")
        from pyspark.sql import SparkSession

        spark = (
            SparkSession.builder.master("local[2]")
            .config("spark.jars", ",".join(wanted))
            .config("spark.sql.extensions", "io.delta.sql.DeltaSparkSessionExtension")
            .config("spark.sql.catalog.spark_catalog", "org.apache.spark.sql.delta.catalog.DeltaCatalog")
            .config("spark.ui.enabled", "false")
            .config("spark.sql.session.timeZone", "UTC")
            .getOrCreate()
        )
        try:
            table = spark.read.format("delta").load(str(self.table))
            self.assertEqual(table.count(), self.count)
            self.assertEqual(table.select("_partition", "_offset").distinct().count(), self.count)
            self.assertAlmostEqual(table.selectExpr("sum(kwh)").first()[0], sum(n / 1000 for n in range(3000)), places=6)
        finally:
            spark.stop()


if __name__ == "__main__":
    unittest.main()
