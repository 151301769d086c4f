"""A pytest plugin that runs kafka-python's own integration suite on Forebay: `pytest -p kafka_python_broker`.

The suite starts Kafka by scripts of its source tree, which its source distribution does not carry. Here a node takes the place
of that fixture, and what the suite's files import but the distribution left out is filled in. The outcome of every test goes
to the file that KAFKA_PYTHON_OUTCOMES names, as JSON: test -> [outcome, reason].
"""

import json
import os
import pathlib
import sys
import types

import pytest

from gateway import Gateway

SUITE = pathlib.Path(os.environ["KAFKA_PYTHON_SUITE"])
# The suite makes its topics with the broker's number of partitions and counts on this one.
PARTITIONS = 4


class Broker:
    """What the suite asks of its KafkaFixture."""

    partitions, replicas, zookeeper, child = PARTITIONS, 1, None, types.SimpleNamespace(dump_logs=lambda: None)

    @classmethod
    def instance(cls, _node_id, transport="PLAINTEXT", **_):
        if transport != "PLAINTEXT":
            raise NotImplementedError(f"{transport} on the Kafka port")
        return cls()

    def __init__(self):
        self.gateway = Gateway(args=["--set", f"topic_defaults.num.partitions={PARTITIONS}"])
        self.host, self.port = self.gateway.host_port("kafka")

    def start(self):
        pass

    def close(self):
        self.gateway.stop()

    def _enrich_client_params(self, params, **defaults):
        return {"bootstrap_servers": f"{self.host}:{self.port}", "security_protocol": "PLAINTEXT", **defaults, **params}


def fill_in():
    """The suite's packages, ahead of the `test` package that comes with Python."""
    test, service = types.ModuleType("test"), types.ModuleType("test.service")
    test.__path__ = [str(SUITE / "test")]
    service.ExternalService = service.SpawnedService = None
    sys.modules.update({"test": test, "test.service": service})
    from test.integration import fixtures

    fixtures.KafkaFixture = Broker


fill_in()
outcomes = {}


@pytest.hookimpl
def pytest_runtest_logreport(report):
    """A test passes when all its phases do; the first phase that does not decides."""
    name = report.nodeid.split("/")[-1]
    if report.passed:
        outcomes.setdefault(name, ["passed", ""])
    elif outcomes.get(name, ["passed"])[0] == "passed":
        crash = getattr(report.longrepr, "reprcrash", None)
        why = crash.message if crash else report.longrepr[2] if report.skipped else str(report.longrepr)
        outcomes[name] = [report.outcome, why[:500]]


@pytest.hookimpl
def pytest_sessionfinish(session):
    pathlib.Path(os.environ["KAFKA_PYTHON_OUTCOMES"]).write_text(json.dumps(outcomes, indent=1))
