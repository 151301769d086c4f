"""KafkaJS: kafkajs_client.mjs with the version that is pinned here, from npm."""

import os
import pathlib
import sys
import unittest

import tools
from gateway import Gateway

HERE = pathlib.Path(__file__).parent
VERSION = "2.2.4"


def kafkajs():
    def install(target):
        tools.run(["npm", "install", "--no-audit", "--no-fund", "--prefix", target, f"kafkajs@{VERSION}"], timeout=300)

    return tools.once(f"kafkajs-{VERSION}", install)


class KafkaJs(unittest.TestCase):
    def test_producer_groups_and_admin(self):
        gateway = Gateway()
        try:
            environment = {**os.environ, "KAFKAJS": str(kafkajs()), "BOOTSTRAP": gateway.addresses["kafka"]}
            environment["KAFKAJS_NO_PARTITIONER_WARNING"] = "1"
            said = tools.run(["node", "--test-reporter=spec", HERE / "kafkajs_client.mjs"], env=environment, timeout=240)
            print(said, file=sys.stderr)
        finally:
            gateway.stop()


if __name__ == "__main__":
    unittest.main()
