"""The lake in an S3 bucket: moto's server speaks S3 with conditional puts; deltalake reads the table from there."""

import json
import pathlib
import subprocess
import sys
import unittest

import boto3
from deltalake import DeltaTable

import tools
from gateway import Gateway, eventually
from test_mqtt import Client, log_values

KEYS = {"aws_access_key_id": "k", "aws_secret_access_key": "s"}


class S3(unittest.TestCase):
    def test_the_lake_in_a_bucket(self):
        endpoint = f"http://127.0.0.1:{tools.free_ports(1)}"
        moto = pathlib.Path(sys.executable).parent / "moto_server"
        server = subprocess.Popen(
            [moto, "-H", "127.0.0.1", "-p", endpoint.rsplit(":", 1)[1]], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            store = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1", **KEYS)

            def bucket():
                try:
                    store.create_bucket(Bucket="meters")
                except Exception as error:
                    raise AssertionError(error) from error

            eventually(bucket)
            settings = {
                "url": "s3://meters/forebay",
                "endpoint": endpoint,
                "region": "us-east-1",
                "access_key_id": "k",
                "secret_access_key": "s",
                "allow_http": "true",
            }
            sets = [word for key, value in settings.items() for word in ("--set", f"object_store.{key}={value}")]
            gateway = Gateway(args=sets)
            try:
                client = Client(gateway, "fleet")
                for n in range(500):
                    client.client.publish(f"meters/m{n % 9}/readings", json.dumps({"n": n, "kwh": n / 8}), 1)
                client.publish("meters/m0/readings", '{"n": 500}', 1)
                client.close()
                gateway.flush("readings")
                # Killed and started again: what is in the bucket is not put there twice.
                gateway.kill()
                gateway.start()
                gateway.flush("readings")
                self.assertTrue(gateway.get("/api/v1/lake/verify?topic=readings")["agree"])
                self.assertEqual(len(log_values(gateway, "readings")), 501)
                options = {
                    "AWS_ENDPOINT_URL": endpoint,
                    "AWS_REGION": "us-east-1",
                    "AWS_ACCESS_KEY_ID": "k",
                    "AWS_SECRET_ACCESS_KEY": "s",
                    "AWS_ALLOW_HTTP": "true",
                }
                rows = DeltaTable("s3://meters/forebay/readings", storage_options=options).to_pyarrow_table()
                self.assertEqual(sorted(rows["n"].to_pylist()), list(range(501)))
            finally:
                gateway.stop()
        finally:
            server.kill()
            server.wait()


if __name__ == "__main__":
    unittest.main()
