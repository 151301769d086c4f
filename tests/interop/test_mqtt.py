"""The MQTT door with paho (3.1.1 and 5.0) and mosquitto's command line clients, plain and over TLS."""

import pathlib
import queue
import subprocess
import tempfile
import threading
import unittest

import paho.mqtt.client as paho
from confluent_kafka import Consumer, TopicPartition
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from gateway import Gateway, eventually


def log_values(gateway, topic):
    """Every value of a log topic, read by librdkafka from offset 0."""
    consumer = Consumer({"bootstrap.servers": gateway.addresses["kafka"], "group.id": "audit", "enable.auto.commit": False})
    partitions = consumer.list_topics(topic, timeout=30).topics[topic].partitions
    values = []
    for partition in partitions:
        low, high = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=30)
        consumer.assign([TopicPartition(topic, partition, low)])
        position = low
        while position < high:
            message = consumer.poll(30)
            assert message is not None and message.error() is None, message and message.error()
            values.append(message.value())
            position = message.offset() + 1
    consumer.close()
    return values


class Client:
    """A connected paho client with its messages in a queue."""

    def __init__(self, gateway, client_id, version=paho.MQTTv311, will=None, clean=True):
        options = {"clean_session": clean} if version == paho.MQTTv311 else {}
        self.client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id=client_id, protocol=version, **options)
        self.messages = queue.Queue()
        self.disconnects = queue.Queue()
        self.subscribed = queue.Queue()
        connected = threading.Event()
        self.client.on_connect = lambda *arguments: connected.set()
        self.client.on_message = lambda client, data, message: self.messages.put(message)
        self.client.on_disconnect = lambda client, data, flags, reason, properties: self.disconnects.put(reason)
        self.client.on_subscribe = lambda client, data, mid, codes, properties: self.subscribed.put(codes)
        if will:
            self.client.will_set(*will)
        host, port = gateway.host_port("mqtt")
        self.client.connect(host, port)
        self.client.loop_start()
        assert connected.wait(30), "no CONNACK"

    def publish(self, topic, payload, qos, **options):
        info = self.client.publish(topic, payload, qos, **options)
        info.wait_for_publish(60)
        assert info.is_published()

    def subscribe(self, topic, qos):
        self.client.subscribe(topic, qos)
        return self.subscribed.get(timeout=30)

    def close(self):
        self.client.disconnect()
        self.client.loop_stop()


class Mqtt(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.gateway = Gateway()

    @classmethod
    def tearDownClass(cls):
        cls.gateway.stop()

    def test_paho_publishes_at_every_qos_in_both_versions(self):
        expected = set()
        for version in (paho.MQTTv311, paho.MQTTv5):
            client = Client(self.gateway, f"pub-{version}", version)
            for qos in (0, 1, 2):
                for n in range(50):
                    payload = f'{{"v":{version},"qos":{qos},"n":{n}}}'
                    client.publish("meters/paho/readings", payload, qos)
                    expected.add(payload.encode())
            client.close()

        def check():
            values = log_values(self.gateway, "readings")
            self.assertEqual(len([v for v in values if v in expected]), len(expected))

        eventually(check)

    def test_paho_subscribes_with_wildcards(self):
        for version in (paho.MQTTv311, paho.MQTTv5):
            subscriber = Client(self.gateway, f"sub-{version}", version)
            subscriber.subscribe(f"plant{version}/+/temp", 1)
            publisher = Client(self.gateway, f"pub2-{version}", version)
            publisher.publish(f"plant{version}/a/other", "no", 1)
            for n in range(100):
                publisher.publish(f"plant{version}/a/temp", str(n), 1)
            got = [subscriber.messages.get(timeout=30) for _ in range(100)]
            self.assertEqual([int(message.payload) for message in got], list(range(100)))
            self.assertTrue(all(message.qos == 1 for message in got))
            subscriber.close()
            publisher.close()

    def test_v5_properties_reach_the_subscriber_and_the_log(self):
        subscriber = Client(self.gateway, "props-sub", paho.MQTTv5)
        subscriber.subscribe("props/#", 1)
        publisher = Client(self.gateway, "props-pub", paho.MQTTv5)
        properties = Properties(PacketTypes.PUBLISH)
        properties.UserProperty = [("unit", "kWh"), ("unit", "again")]
        properties.ContentType = "application/json"
        publisher.publish("props/a", "{}", 1, properties=properties)
        message = subscriber.messages.get(timeout=30)
        self.assertEqual(message.properties.UserProperty, [("unit", "kWh"), ("unit", "again")])
        self.assertEqual(message.properties.ContentType, "application/json")
        subscriber.close()
        publisher.close()

    def test_a_will_comes_when_the_client_is_lost(self):
        watcher = Client(self.gateway, "watcher")
        watcher.subscribe("wills/#", 1)
        lost = Client(self.gateway, "lost", will=("wills/lost", b"gone", 1, False))
        lost.client.socket().close()
        message = watcher.messages.get(timeout=60)
        self.assertEqual(message.payload, b"gone")
        watcher.close()
        lost.client.loop_stop()

    def test_retained_messages_greet_new_subscribers(self):
        publisher = Client(self.gateway, "retainer")
        publisher.publish("state/a", "on", 1, retain=True)
        subscriber = Client(self.gateway, "late")
        subscriber.subscribe("state/#", 1)
        message = subscriber.messages.get(timeout=30)
        self.assertEqual((message.payload, message.retain), (b"on", True))
        publisher.close()
        subscriber.close()

    def test_the_newer_connection_takes_over(self):
        old = Client(self.gateway, "same", paho.MQTTv5)
        old.client.reconnect_delay_set(min_delay=60, max_delay=60)
        new = Client(self.gateway, "same", paho.MQTTv5)
        reason = old.disconnects.get(timeout=30)
        self.assertEqual(reason.value, 0x8E)
        new.publish("plant/x", "1", 1)
        new.close()
        old.client.loop_stop()

    def test_a_shared_subscription_is_refused_with_its_reason(self):
        client = Client(self.gateway, "shared", paho.MQTTv5)
        codes = client.subscribe("$share/group/plant/#", 1)
        self.assertEqual(codes[0].value, 0x9E)
        client.close()

    def test_mosquitto_clients_in_every_version_and_qos(self):
        host, port = self.gateway.host_port("mqtt")
        base = ["-h", host, "-p", str(port)]
        for version in ("mqttv311", "mqttv5"):
            # By lines, or a pipe gets what it prints only at its end.
            subscriber = subprocess.Popen(
                ["stdbuf", "-oL", "mosquitto_sub", *base, "-V", version, "-t", f"mosq/{version}/#", "-q", "1", "-C", "3", "-W", "60", "-d"],
                stdout=subprocess.PIPE,
                text=True,
            )
            lines = []
            for line in subscriber.stdout:
                lines.append(line)
                if "Subscribed" in line:
                    break
            for qos in ("0", "1", "2"):
                subprocess.run(
                    ["mosquitto_pub", *base, "-V", version, "-t", f"mosq/{version}/x", "-q", qos, "-m", f"m{qos}"],
                    check=True,
                    timeout=60,
                )
            rest, _ = subscriber.communicate(timeout=90)
            self.assertEqual(subscriber.returncode, 0, "".join(lines) + rest)
            for qos in ("0", "1", "2"):
                self.assertIn(f"m{qos}", rest)


class Tls(unittest.TestCase):
    def test_mosquitto_over_tls(self):
        folder = pathlib.Path(tempfile.mkdtemp())
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
             "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
             "-keyout", folder / "key.pem", "-out", folder / "cert.pem"],
            check=True,
            capture_output=True,
        )
        tls = f'\n[tls]\ncertfile = "{folder}/cert.pem"\nkeyfile = "{folder}/key.pem"\n'
        gateway = Gateway(extra=tls, args=["--set", "listeners.mqtts=127.0.0.1:0"])
        try:
            host, port = gateway.host_port("mqtts")
            for qos in ("1", "2"):
                subprocess.run(
                    ["mosquitto_pub", "-h", host, "-p", str(port), "--cafile", folder / "cert.pem", "-t", "tls/x", "-q", qos,
                     "-m", f"secret{qos}"],
                    check=True,
                    timeout=60,
                )
            self.assertEqual(sorted(log_values(gateway, "mqtt")), [b"secret1", b"secret2"])
        finally:
            gateway.stop()


if __name__ == "__main__":
    unittest.main()
