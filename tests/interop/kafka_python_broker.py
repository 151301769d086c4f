"""A pytest plugin that runs kafka-python's own integration suite on Forebay: `pytest -p kafka_python_broker`.

The suite starts Kafka by scripts of its source tree, which its source distribution does not carry. Here a node takes the place
of that fixture, and what the suite's files import but the distribution left out is filled in. The outcome of every test goes
to the file that KAFKA_PYTHON_OUTCOMES names, as JSON: test -> [outcome, reason].
"""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import types

import kafka
import pytest

from gateway import Gateway

SUITE = pathlib.Path(os.environ["KAFKA_PYTHON_SUITE"])
# The suite makes its topics with the broker's number of partitions and counts on this one.
PARTITIONS = 4


class Broker:
    """What the suite asks of its KafkaFixture."""

    partitions, replicas, zookeeper, child = PARTITIONS, 1, None, types.SimpleNamespace(dump_logs=lambda: None)
    user, password = "alice", "alice-secret"

    @classmethod
    def instance(cls, _node_id, transport="PLAINTEXT", sasl_mechanism=None, **_):
        return cls(transport, sasl_mechanism)

    def __init__(self, transport, mechanism):
        self.transport, self.mechanism, self.ssl_dir = transport, mechanism, None
        # The suite's broker is number 0, and lets sessions be short.
        settings = [f"topic_defaults.num.partitions={PARTITIONS}", "node.id=0", "kafka.group.min.session.timeout.ms=1000"]
        # As in the suite's own broker: there is an authorizer, and what no ACL is about is allowed.
        security = ["authorizer.enable=true", "allow.everyone.if.no.acl.found=true", f"security.protocol={transport}"]
        if mechanism:
            security.append(f'sasl.enabled.mechanisms=["{mechanism}"]')
            settings.append(f"users.{self.user}={self.password}")
        if transport.endswith("SSL"):
            self.ssl_dir = certificates()
            settings += [f"tls.certfile={self.ssl_dir}/cert.pem", f"tls.keyfile={self.ssl_dir}/key.pem", "tls.tls_version=tlsv1.2"]
        settings += [f"kafka.{setting}" for setting in security]
        self.gateway = Gateway(args=[word for setting in settings for word in ("--set", setting)])
        self.host, self.port = self.gateway.host_port("kafka")

    def start(self):
        pass

    def close(self):
        self.gateway.stop()
        if self.ssl_dir:
            shutil.rmtree(self.ssl_dir)

    def get_topic_names(self):
        with kafka.KafkaAdminClient(**self._enrich_client_params({})) as admin:
            return admin.list_topics()

    def _enrich_client_params(self, params, **defaults):
        own = {"bootstrap_servers": f"{self.host}:{self.port}", "security_protocol": self.transport}
        if self.mechanism:
            own |= {"sasl_mechanism": self.mechanism, "sasl_plain_username": self.user, "sasl_plain_password": self.password}
        if self.ssl_dir:
            own |= {"ssl_cafile": f"{self.ssl_dir}/ca-cert", "ssl_check_hostname": False}
        return {**own, **defaults, **params}


def certificates():
    """A folder with a self-signed certificate, which is its own authority."""
    folder = tempfile.mkdtemp(prefix="forebay-suite-")
    names = "subjectAltName=DNS:localhost,IP:127.0.0.1"
    make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    make += ["-subj", "/CN=localhost", "-addext", names, "-keyout", "key.pem", "-out", "cert.pem"]
    subprocess.run(make, cwd=folder, check=True, capture_output=True, timeout=60)
    shutil.copy(f"{folder}/cert.pem", f"{folder}/ca-cert")
    return folder


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
