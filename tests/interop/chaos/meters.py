"""Meters: MQTT clients that publish a numbered reading after the other, at any node, and send again what was not acknowledged.

Half speak 3.1.1 with several readings in flight, which paho itself sends again in order, some of them at QoS 2; half speak 5.0 at
QoS 1 with one in flight, which they publish again when it is refused.
"""

import json
import random
import select
import threading
import time

import paho.mqtt.client as paho
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from . import network

KEEPALIVE = 2
# A meter without an ack for so many seconds tries another node.
PATIENCE = 2.0
SESSION_SECONDS = 3600


class Roaming(threading.Thread):
    """An MQTT client with a session that outlives its connections, each of which may be to another node."""

    def __init__(self, name, place, version):
        super().__init__(name=name, daemon=True)
        self.place, self.version = place, version
        self.random = random.Random(name)
        self.at = self.random.choice(network.NODES)
        self.session = {"keepalive": KEEPALIVE}
        options = {"clean_session": False}
        if version == paho.MQTTv5:
            options = {}
            expiry = Properties(PacketTypes.CONNECT)
            expiry.SessionExpiryInterval = SESSION_SECONDS
            self.session.update(clean_start=False, properties=expiry)
        self.client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id=name, protocol=version, **options)
        self.client.connect_timeout = 1.0
        self.client.on_connect = self.on_connect
        self.connected = False
        self.connections = 0
        self.ending = False
        self.wrong = []

    def run(self):
        try:
            while not self.done():
                if self.connect():
                    self.serve()
                self.connected = False
                self.at = self.random.choice([node for node in network.NODES if node != self.at])
            self.client.disconnect()
        except Exception as error:
            self.wrong.append(f"{self.name} ended: {error!r}")
            raise

    def connect(self):
        # Otherwise paho forgets at a second attempt without CONNACK that a publish was released, and publishes it again.
        for message in self.client._out_messages.values():
            if message.state == paho.mqtt_ms_resend_pubrel:
                message.state = paho.mqtt_ms_wait_for_pubcomp
        try:
            self.client.connect(self.place.host(self.at), self.place.port(self.at, "mqtt"), **self.session)
        except OSError:
            time.sleep(0.05)
            return False
        deadline = time.monotonic() + PATIENCE
        while not self.connected and time.monotonic() < deadline:
            if not self.step(0.2):
                return False
        return self.connected

    def step(self, seconds):
        """Reads and writes once, waiting at most so long; false when the connection is lost."""
        socket = self.client.socket()
        if socket is None:
            return False
        readable, writable, _ = select.select([socket], [socket] if self.client.want_write() else [], [], seconds)
        for ready, act in (readable, self.client.loop_read), (writable, self.client.loop_write):
            if ready and act() != paho.MQTT_ERR_SUCCESS:
                return False
        return self.client.loop_misc() == paho.MQTT_ERR_SUCCESS

    def drop(self):
        """Lets the connection go as if its cable were pulled."""
        socket = self.client.socket()
        if socket is not None:
            socket.close()

    def on_connect(self, client, data, flags, reason, properties):
        if not reason.is_failure:
            if self.connections and not flags.session_present:
                self.wrong.append(f"node {self.at} does not know the session of {self.name}, which had {self.connections} connections")
            self.connected = True
            self.connections += 1


class Meter(Roaming):
    def __init__(self, name, place, pauses, rate):
        number = int(name.lstrip("m"))
        super().__init__(name, place, paho.MQTTv311 if number % 2 else paho.MQTTv5)
        # paho follows the refusals of exactly-once publishes in 3.1.1 alone, where they end the connection.
        self.qos = 2 if number % 4 == 3 else 1
        self.pauses, self.every = pauses, 1 / rate
        self.window = 8 if self.version == paho.MQTTv311 else 1
        self.next = 0
        self.in_flight = {}
        # How often a number was sent at QoS 1, where that is more than once.
        self.sent = {}
        self.acked = []
        self.refused = 0
        self.client.on_publish = self.on_publish

    def done(self):
        return self.ending and not self.in_flight

    def serve(self):
        due = heard = time.monotonic()
        while not self.done():
            now = time.monotonic()
            if now >= due and len(self.in_flight) < self.window and not self.ending:
                if not self.in_flight:
                    heard = now
                self.publish(self.next)
                self.next += 1
                due = max(due + self.every, now - 1)
            acked = len(self.acked)
            if not self.step(max(0.0, min(0.2, due - time.monotonic())) if len(self.in_flight) < self.window else 0.2):
                return
            now = time.monotonic()
            if len(self.acked) > acked or not self.in_flight:
                heard = now
            if now - heard > PATIENCE:
                return self.drop()

    def publish(self, number):
        reading = json.dumps({"device": self.name, "seq": number, "voltage": 230 + number % 17 / 8})
        # paho answers with the error where the connection is lost already, and keeps the message all the same.
        self.in_flight[self.client.publish(f"meters/{self.name}/readings", reading, self.qos).mid] = number

    def on_connect(self, client, data, flags, reason, properties):
        super().on_connect(client, data, flags, reason, properties)
        if self.connected and self.qos == 1:
            for number in self.in_flight.values():
                self.sent[number] = self.sent.get(number, 1) + 1

    def on_publish(self, client, data, packet, reason, properties):
        number = self.in_flight.pop(packet)
        if reason.is_failure:
            self.refused += 1
            time.sleep(0.1)
            self.sent[number] = self.sent.get(number, 1) + 1
            self.publish(number)
        else:
            self.acked.append(number)
            self.pauses.ack(self.name)


class Subscriber(Roaming):
    """Subscribes to all readings at QoS 1, and takes what it missed when it is back."""

    def __init__(self, name, place):
        super().__init__(name, place, paho.MQTTv311)
        self.received = []
        self.subscribed = False
        self.client.on_message = lambda client, data, message: self.received.append(message.payload)
        self.client.on_subscribe = lambda *told: setattr(self, "subscribed", True)

    def done(self):
        return self.ending

    def serve(self):
        if not self.subscribed:
            self.client.subscribe("meters/+/readings", 1)
        while not self.ending and self.step(0.2):
            pass
