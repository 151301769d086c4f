"""Security on the Kafka port with librdkafka (confluent-kafka), kafka-python, kcat and Kafka's own Java tools: logins by every
mechanism, TLS with and without client certificates, users and ACLs made by the tools that Kafka's operators use."""

import pathlib
import shutil
import signal
import subprocess
import tempfile
import unittest
import uuid

import confluent_kafka
import confluent_kafka.admin as ck
import kafka
import kafka.errors

from gateway import Gateway, eventually
from test_kafka import KAFKA, java_classpath

CONFIG = """
[kafka]
security.protocol = "{protocol}"
sasl.enabled.mechanisms = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]
authorizer.enable = true
super.users = "User:admin;User:CN=admin,O=Utility"
ssl.client.auth = "{client_auth}"

[users]
admin = "admin-secret"
alice = "alice-secret"
carol = "file:carol.password"

[tls]
certfile = "{tls}/server.pem"
keyfile = "{tls}/server.key"
cafile = "{tls}/ca.pem"
tls_version = "tlsv1.2"
"""
MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
JAAS = "org.apache.kafka.common.security."


def name(what):
    return f"{what}-{uuid.uuid4().hex[:8]}"


def openssl(folder, *args):
    subprocess.run(["openssl", *args], cwd=folder, check=True, capture_output=True, timeout=60)


def certificates(folder):
    """An authority, and what it has signed for the server and for two clients."""
    openssl(folder, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "ca.key", "-out", "ca.pem", "-days", "2",
            "-subj", "/CN=Test Authority", "-addext", "basicConstraints=critical,CA:TRUE")
    subjects = {"server": "/CN=server", "meter": "/O=Utility/CN=meter-1", "client": "/O=Utility/CN=admin"}
    for who, subject in subjects.items():
        openssl(folder, "req", "-newkey", "rsa:2048", "-nodes", "-keyout", f"{who}.key", "-out", f"{who}.csr", "-subj", subject)
        (folder / "ext").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
        openssl(folder, "x509", "-req", "-in", f"{who}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2",
                "-out", f"{who}.pem", "-extfile", "ext")
        # Java wants PKCS #8 and takes key and chain from one file.
        both = (folder / f"{who}.key").read_text() + (folder / f"{who}.pem").read_text()
        (folder / f"{who}-both.pem").write_text(both)


class Secured(unittest.TestCase):
    protocol, client_auth = "SASL_PLAINTEXT", "none"

    @classmethod
    def setUpClass(cls):
        cls.tls = pathlib.Path(tempfile.mkdtemp(prefix="forebay-tls-"))
        certificates(cls.tls)
        cls.gateway = None
        config = CONFIG.format(protocol=cls.protocol, client_auth=cls.client_auth, tls=cls.tls)
        if cls.protocol == "SASL_PLAINTEXT":
            config = config.replace('ssl.client.auth = "none"\n', "")
        (cls.tls / "carol.password").write_text("first\n")
        config = config.replace("file:carol.password", f"file:{cls.tls}/carol.password")
        cls.gateway = Gateway(extra=config)
        cls.bootstrap = cls.gateway.addresses["kafka"]

    @classmethod
    def tearDownClass(cls):
        if cls.gateway:
            cls.gateway.stop()
        shutil.rmtree(cls.tls, ignore_errors=True)

    def settings(self, user="admin", password=None, mechanism="SCRAM-SHA-256", **more):
        """Of librdkafka."""
        settings = {"bootstrap.servers": self.bootstrap, "security.protocol": self.protocol, "log_level": 0, **more}
        if "SASL" in self.protocol:
            password = password or f"{user}-secret"
            settings.update({"sasl.mechanism": mechanism, "sasl.username": user, "sasl.password": password})
        if "SSL" in self.protocol:
            settings["ssl.ca.location"] = str(self.tls / "ca.pem")
        return settings

    def properties(self, user="admin", password=None, mechanism="SCRAM-SHA-256", identity=None):
        """A properties file of Kafka's Java clients, which our own commands read, too."""
        lines = [f"security.protocol={self.protocol}"]
        if "SASL" in self.protocol:
            module = "plain.PlainLoginModule" if mechanism == "PLAIN" else "scram.ScramLoginModule"
            password = password or f"{user}-secret"
            lines.append(f"sasl.mechanism={mechanism}")
            lines.append(f'sasl.jaas.config={JAAS}{module} required username="{user}" password="{password}";')
        if "SSL" in self.protocol:
            lines += ["ssl.truststore.type=PEM", f"ssl.truststore.location={self.tls / 'ca.pem'}"]
        if identity:
            lines += ["ssl.keystore.type=PEM", f"ssl.keystore.location={self.tls / identity}-both.pem"]
        file = self.tls / f"{uuid.uuid4().hex}.properties"
        file.write_text("\n".join(lines) + "\n")
        return str(file)

    def java(self, tool, *args, config="--command-config", properties=None, stdin=None, codes=(0,)):
        properties = properties or self.properties()
        command = ["java", "-Xmx256m", "-cp", java_classpath("kafka", KAFKA), tool, "--bootstrap-server", self.bootstrap]
        done = subprocess.run([*command, config, properties, *args], input=stdin, capture_output=True, text=True, timeout=120)
        self.assertIn(done.returncode, codes, done.stdout + done.stderr)
        return done.stdout + done.stderr

    def forebay(self, *args, properties=None, stdin=None, code=0):
        import os

        command = [os.environ["FOREBAY_BIN"], *args, "--bootstrap", self.bootstrap]
        command += ["--command-config", properties] if properties else []
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=60)
        self.assertEqual(done.returncode, code, done.stdout + done.stderr)
        return done.stdout + done.stderr

    def topic(self):
        topic = name("secured")
        admin = ck.AdminClient(self.settings())
        admin.create_topics([ck.NewTopic(topic, 2)])[topic].result(30)
        return topic

    def allow(self, principal, operation, kind, resource, pattern=ck.ResourcePatternType.LITERAL):
        acl = ck.AclBinding(kind, resource, pattern, principal, "*", operation, ck.AclPermissionType.ALLOW)
        admin = ck.AdminClient(self.settings())
        admin.create_acls([acl])[acl].result(30)
        return acl

    def ends(self, topic):
        """The offsets at which its partitions end."""
        consumer = confluent_kafka.Consumer(self.settings(**{"group.id": "looks"}))
        places = [confluent_kafka.TopicPartition(topic, partition) for partition in range(2)]
        ends = [consumer.get_watermark_offsets(place, timeout=20)[1] for place in places]
        consumer.close()
        return ends

    def fails(self, code, call):
        with self.assertRaises(confluent_kafka.KafkaException) as refused:
            call()
        self.assertEqual(refused.exception.args[0].code(), code, refused.exception)

    def round_trip(self, topic, settings, group):
        """Produces idempotently and reads in a group."""
        told = []
        producer = confluent_kafka.Producer({**settings, "enable.idempotence": True})
        for n in range(50):
            producer.produce(topic, value=f"{n}", on_delivery=lambda error, _: told.append(error))
        self.assertEqual(producer.flush(30), 0)
        self.assertEqual([error for error in told if error], [])
        consumer = confluent_kafka.Consumer({**settings, "group.id": group, "auto.offset.reset": "earliest"})
        consumer.subscribe([topic])
        got = []
        while len(got) < 50:
            messages = consumer.consume(50, 10)
            self.assertTrue(messages)
            self.assertEqual([message.error() for message in messages if message.error()], [])
            got += messages
        consumer.commit(asynchronous=False)
        consumer.close()


class Sasl(Secured):
    def test_librdkafka_logs_in_with_every_mechanism_and_with_no_wrong_password(self):
        for mechanism in MECHANISMS:
            admin = ck.AdminClient(self.settings(mechanism=mechanism))
            self.assertEqual(len(admin.list_topics(timeout=20).brokers), 1)
            for user, password in (("admin", "wrong"), ("nobody", "admin-secret")):
                errors = []
                wrong = ck.AdminClient(self.settings(user, password, mechanism, error_cb=errors.append))
                with self.assertRaises(confluent_kafka.KafkaException):
                    wrong.list_topics(timeout=3)
                wrong.poll(1)
                self.assertIn(confluent_kafka.KafkaError._AUTHENTICATION, [error.code() for error in errors])

    def test_kafka_python_logs_in_with_every_mechanism_and_with_no_wrong_password(self):
        topic = self.topic()
        config = {"bootstrap_servers": self.bootstrap, "security_protocol": self.protocol, "sasl_plain_username": "admin"}
        if "SSL" in self.protocol:
            config["ssl_cafile"] = str(self.tls / "ca.pem")
        for mechanism in MECHANISMS:
            good = {**config, "sasl_mechanism": mechanism, "sasl_plain_password": "admin-secret"}
            producer = kafka.KafkaProducer(**good)
            producer.send(topic, value=b"x").get(30)
            producer.close()
            with self.assertRaises(kafka.errors.KafkaError):
                kafka.KafkaAdminClient(**{**good, "sasl_plain_password": "wrong"}, request_timeout_ms=3000, api_version=(3, 9))

    def test_kcat_logs_in(self):
        topic = self.topic()
        options = [arg for key, value in self.settings().items() if key != "bootstrap.servers" for arg in ("-X", f"{key}={value}")]
        produce = ["kcat", "-b", self.bootstrap, *options, "-P", "-t", topic]
        subprocess.run(produce, input=b"a\nb\n", check=True, timeout=60)
        read = ["kcat", "-b", self.bootstrap, *options, "-C", "-t", topic, "-e", "-q"]
        done = subprocess.run(read, check=True, timeout=60, capture_output=True)
        self.assertEqual(sorted(done.stdout.split()), [b"a", b"b"])

    def test_confluents_admin_makes_changes_and_removes_users_who_survive_a_kill(self):
        admin, user = ck.AdminClient(self.settings()), name("user")
        infos = [ck.ScramCredentialInfo(ck.ScramMechanism.SCRAM_SHA_256, 8192), ck.ScramCredentialInfo(ck.ScramMechanism.SCRAM_SHA_512, 4096)]
        made = [ck.UserScramCredentialUpsertion(user, info, b"bob-secret") for info in infos]
        admin.alter_user_scram_credentials(made)[user].result(30)
        described = admin.describe_user_scram_credentials([user])[user].result(30)
        self.assertEqual(sorted(info.iterations for info in described.scram_credential_infos), [4096, 8192])
        self.gateway.kill()
        self.gateway.start()
        for mechanism in MECHANISMS[1:]:
            ck.AdminClient(self.settings(user, "bob-secret", mechanism)).list_topics(timeout=20)
        gone = ck.UserScramCredentialDeletion(user, ck.ScramMechanism.SCRAM_SHA_256)
        admin = ck.AdminClient(self.settings())
        admin.alter_user_scram_credentials([gone])[user].result(30)
        with self.assertRaises(confluent_kafka.KafkaException):
            ck.AdminClient(self.settings(user, "bob-secret", "SCRAM-SHA-256")).list_topics(timeout=3)
        ck.AdminClient(self.settings(user, "bob-secret", "SCRAM-SHA-512")).list_topics(timeout=20)
        weak = ck.UserScramCredentialUpsertion(user, ck.ScramCredentialInfo(ck.ScramMechanism.SCRAM_SHA_256, 100), b"x")
        refused = confluent_kafka.KafkaError.UNACCEPTABLE_CREDENTIAL
        self.fails(refused, lambda: admin.alter_user_scram_credentials([weak])[user].result(30))

    def test_confluents_admin_makes_acls_that_hold_at_once(self):
        topic, group = self.topic(), name("group")
        alice = self.settings("alice")
        denied = confluent_kafka.KafkaError.TOPIC_AUTHORIZATION_FAILED
        seen = ck.AdminClient(alice).list_topics(timeout=20).topics
        self.assertNotIn(topic, seen)
        asked = ck.AdminClient(alice).list_topics(topic, timeout=20).topics[topic]
        self.assertEqual(asked.error.code(), denied)
        kinds = ck.ResourceType
        prefix = topic[:-2]
        acls = [
            self.allow("User:alice", ck.AclOperation.WRITE, kinds.TOPIC, prefix, ck.ResourcePatternType.PREFIXED),
            self.allow("User:alice", ck.AclOperation.READ, kinds.TOPIC, topic),
            self.allow("User:alice", ck.AclOperation.READ, kinds.GROUP, group),
        ]
        self.round_trip(topic, alice, group)
        admin = ck.AdminClient(self.settings())
        about = ck.AclBindingFilter(kinds.TOPIC, topic, ck.ResourcePatternType.MATCH, None, None, ck.AclOperation.ANY, ck.AclPermissionType.ANY)
        self.assertEqual(len(admin.describe_acls(about).result(30)), 2)
        other = ck.AdminClient(alice)
        cluster = confluent_kafka.KafkaError.CLUSTER_AUTHORIZATION_FAILED
        self.fails(cluster, lambda: other.create_acls([acls[0]])[acls[0]].result(30))
        # librdkafka knows errors of single ACLs only: to it a refused list is an empty one.
        self.assertEqual(other.describe_acls(about).result(30), [])
        gone = admin.delete_acls([about])[about].result(30)
        self.assertEqual({acl.name for acl in gone}, {prefix, topic})
        told = []
        producer = confluent_kafka.Producer(alice)
        producer.produce(topic, value="x", on_delivery=lambda error, _: told.append(error))
        producer.flush(20)
        self.assertEqual([error.code() for error in told], [denied])

    def test_kafkas_own_tools_manage_users_and_acls_and_use_them(self):
        topic, user = self.topic(), name("java")
        configs, acls, tools = "kafka.admin.ConfigCommand", "org.apache.kafka.tools.AclCommand", "org.apache.kafka.tools."
        users = ("--entity-type", "users", "--entity-name", user)
        self.java(configs, "--alter", *users, "--add-config", "SCRAM-SHA-512=[iterations=8192,password=java-secret]")
        mine = self.properties(user, "java-secret", "SCRAM-SHA-512")
        produce = (tools + "ConsoleProducer", "--topic", topic)
        # Denied as long as there is no ACL: the tool says so to its log, or ends with 1 where the refusal of its
        # producer id comes before its first record is handed over.
        denied = {"config": "--producer.config", "properties": mine, "stdin": "no\n", "codes": (0, 1)}
        self.java(*produce, **denied)
        self.assertEqual(sum(self.ends(topic)), 0)
        principal = ("--allow-principal", f"User:{user}")
        self.java(acls, "--add", *principal, "--producer", "--topic", topic)
        self.java(acls, "--add", *principal, "--consumer", "--topic", topic, "--group", "java-", "--resource-pattern-type", "prefixed")
        listed = self.java(acls, "--list", "--principal", f"User:{user}")
        for what in ("WRITE", "READ", "DESCRIBE", "CREATE", "PREFIXED", "LITERAL"):
            self.assertIn(what, listed)
        self.java(*produce, config="--producer.config", properties=mine, stdin="one\ntwo\n")
        consume = ("--topic", topic, "--group", name("java"), "--from-beginning", "--max-messages", "2", "--timeout-ms", "30000")
        got = self.java(tools + "consumer.ConsoleConsumer", *consume, config="--consumer.config", properties=mine)
        self.assertEqual(sorted(line for line in got.splitlines() if line in ("one", "two", "no")), ["one", "two"])
        described = self.java(configs, "--describe", *users)
        self.assertIn("SCRAM-SHA-512=iterations=8192", described)
        self.java(acls, "--remove", "--force", *principal, "--producer", "--topic", topic)
        self.java(*produce, **denied)
        self.assertEqual(sum(self.ends(topic)), 2)
        self.java(configs, "--alter", *users, "--delete-config", "SCRAM-SHA-512")
        with self.assertRaises(confluent_kafka.KafkaException):
            ck.AdminClient(self.settings(user, "java-secret", "SCRAM-SHA-512")).list_topics(timeout=3)

    def test_our_own_commands_take_kafkas_properties(self):
        topic = name("own")
        for mechanism in MECHANISMS:
            self.assertNotIn("error", self.forebay("topic", "list", properties=self.properties(mechanism=mechanism)))
        admin = self.properties()
        self.forebay("topic", "create", topic, "--partitions", "1", properties=admin)
        self.forebay("produce", topic, properties=admin, stdin="one\ntwo\n")
        read = self.forebay("consume", topic, "--from", "beginning", "--max", "2", properties=admin)
        self.assertEqual(read.split(), ["one", "two"])
        self.forebay("group", "seek", topic, "--topic", topic, "--to", "end", properties=admin)
        self.assertIn(topic, self.forebay("group", "list", properties=admin))
        self.forebay("bench", "kafka", "--topic", topic, "--count", "1000", "--verify", properties=admin)
        self.assertIn("invalid credentials", self.forebay("topic", "list", properties=self.properties("alice", "wrong"), code=1))
        self.assertIn("uthoriz", self.forebay("topic", "describe", topic, properties=self.properties("alice"), code=1))

    def test_a_password_file_is_read_again_on_sighup(self):
        try_carol = lambda password: ck.AdminClient(self.settings("carol", password)).list_topics(timeout=3)
        try_carol("first")
        (self.tls / "carol.password").write_text("second\n")
        self.gateway.process.send_signal(signal.SIGHUP)

        def changed():
            try:
                try_carol("second")
            except confluent_kafka.KafkaException as error:
                raise AssertionError(error) from error

        eventually(changed)
        with self.assertRaises(confluent_kafka.KafkaException):
            try_carol("first")


class SaslSsl(Sasl):
    """All of it over TLS."""

    protocol = "SASL_SSL"


class MutualTls(Secured):
    protocol, client_auth = "SSL", "required"

    def settings(self, who="client", **more):
        identity = {"ssl.certificate.location": str(self.tls / f"{who}.pem"), "ssl.key.location": str(self.tls / f"{who}.key")}
        return {**super().settings(), **identity, **more}

    def test_librdkafka_is_who_its_certificate_says(self):
        topic, group = self.topic(), name("group")
        meter = self.settings("meter")
        asked = ck.AdminClient(meter).list_topics(topic, timeout=20).topics[topic]
        self.assertEqual(asked.error.code(), confluent_kafka.KafkaError.TOPIC_AUTHORIZATION_FAILED)
        principal = "User:CN=meter-1,O=Utility"
        self.allow(principal, ck.AclOperation.ALL, ck.ResourceType.TOPIC, topic)
        self.allow(principal, ck.AclOperation.READ, ck.ResourceType.GROUP, group)
        self.round_trip(topic, meter, group)

    def test_without_a_certificate_nobody_gets_in(self):
        settings = super().settings()
        with self.assertRaises(confluent_kafka.KafkaException):
            ck.AdminClient(settings).list_topics(timeout=3)

    def test_javas_clients_and_our_own_commands_show_their_certificates(self):
        topic, admin = self.topic(), self.properties(identity="client")
        produce = ("org.apache.kafka.tools.ConsoleProducer", "--topic", topic)
        self.java(*produce, config="--producer.config", properties=admin, stdin="one\n")
        read = self.forebay("consume", topic, "--from", "beginning", "--max", "1", properties=admin)
        self.assertEqual(read.split(), ["one"])
        listed = self.java("org.apache.kafka.tools.TopicCommand", "--list", properties=self.properties(identity="meter"))
        self.assertNotIn(topic, listed)


if __name__ == "__main__":
    unittest.main()
