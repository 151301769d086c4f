#!/usr/bin/env python3
"""Paced clients of a cluster, each a thread of a process of its own: one message each INTERVAL whatever became of those before. They
print what was acknowledged when, as JSON, once their standard input ends.

What a client waits on its own account is small and stated here: PAUSE before it asks for metadata or connects again.

    paced.py SECONDS-OF-INTERVAL BYTES kafka:TOPIC:PORT,PORT,PORT mqtt:TOPIC:PORT ...
"""

import collections
import json
import select
import socket
import struct
import sys
import threading
import time

sys.dont_write_bytecode = True

import kafka_wire  # noqa: E402
import wire  # noqa: E402

# Seconds between two attempts to find the leader, or to connect.
PAUSE = 0.01
# Seconds that a client gives a connection, or a question, before it tries the next node.
PATIENCE = 1.0
# The same for the answer to an MQTT client's CONNECT: one that gave up and came again would have to be taken over from itself.
CONNACK = 10.0
INFLIGHT = 50
# Seconds that acks are waited for in the end.
DRAIN = 15.0
OVER = threading.Event()


class Client(threading.Thread):
    """Sends what is due, takes answers, and begins again where a connection ends. `acks` are pairs of due time and time of the ack."""

    def __init__(self, interval, size):
        super().__init__(daemon=True)
        self.interval, self.size, self.acks, self.broken = interval, size, [], []
        self.waiting, self.sent = collections.deque(), collections.deque()

    def run(self):
        self.due = time.monotonic()
        while not self.is_done():
            try:
                with self.connect() as stream:
                    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    self.serve(stream)
            except (OSError, kafka_wire.Refused) as error:
                self.broken.append((time.monotonic(), str(error)))
                # What has no ack is sent again, in order.
                self.waiting.extendleft(reversed([entry[-1] for entry in self.sent]))
                self.sent.clear()
                time.sleep(PAUSE)

    def is_done(self):
        if not OVER.is_set():
            return False
        return not (self.waiting or self.sent) or time.monotonic() > self.due + DRAIN

    def serve(self, stream):
        buffer = b""
        while not self.is_done():
            now = time.monotonic()
            while self.due <= now and not OVER.is_set():
                self.waiting.append(self.due)
                self.due += self.interval
            while self.waiting and len(self.sent) < INFLIGHT:
                self.send(stream, self.waiting.popleft())
            if select.select([stream], [], [], min(max(self.due - time.monotonic(), 0.001), self.interval))[0]:
                data = stream.recv(1 << 16)
                if not data:
                    raise OSError("the connection ended")
                buffer = self.take(buffer + data, time.monotonic())


class KafkaClient(Client):
    """acks=all to the leader of partition 0 of a topic, found by asking the nodes in turn."""

    def __init__(self, interval, size, topic, ports):
        super().__init__(interval, size)
        self.topic, self.ports, self.turn, self.correlation = topic, ports, 0, 0
        self.body = kafka_wire.produce_body(topic, 0, kafka_wire.batch(b"x" * size))

    def connect(self):
        self.turn += 1
        ports, topics = kafka_wire.metadata(self.ports[self.turn % len(self.ports)], [self.topic], PATIENCE)
        port = ports.get(topics.get(self.topic, {}).get(0, (-1,))[0])
        if port is None:
            raise OSError("no leader")
        return socket.create_connection(("127.0.0.1", port), PATIENCE)

    def send(self, stream, due):
        self.correlation += 1
        self.sent.append((self.correlation, due))
        stream.sendall(kafka_wire.frame(kafka_wire.PRODUCE, self.correlation, self.body))

    def take(self, buffer, now):
        while len(buffer) >= 4 and len(buffer) >= 4 + (size := struct.unpack_from(">i", buffer)[0]):
            code = kafka_wire.produced(buffer[8 : 4 + size])
            if code:
                raise kafka_wire.Refused("Produce", code)
            self.acks.append((self.sent.popleft()[1], now))
            buffer = buffer[4 + size :]
        return buffer


class MqttClient(Client):
    """QoS 1 to one node; when that is killed, to the same again."""

    def __init__(self, interval, size, topic, ports):
        super().__init__(interval, size)
        self.port, self.id = ports[0], 0
        payload = b'{"v":"%s"}' % (b"x" * max(size - 8, 0))
        self.head = struct.pack(">H", len(topic)) + topic.encode(), payload

    def connect(self):
        stream = socket.create_connection(("127.0.0.1", self.port), PATIENCE)
        stream.settimeout(CONNACK)
        stream.sendall(wire.connect_packet(f"paced-{self.port}"))
        if wire.exact(stream, 4)[3] != 0:
            raise OSError("refused")
        return stream

    def send(self, stream, due):
        self.id = self.id % 65535 + 1
        self.sent.append((self.id, due))
        topic, payload = self.head
        body = topic + struct.pack(">H", self.id) + payload
        stream.sendall(b"\x32" + wire.length(len(body)) + body)

    def take(self, buffer, now):
        while len(buffer) >= 4:
            kind, _, number = struct.unpack_from(">BBH", buffer)
            if kind != 0x40 or not self.sent or self.sent[0][0] != number:
                raise OSError("not the PUBACK that is due")
            self.acks.append((self.sent.popleft()[1], now))
            buffer = buffer[4:]
        return buffer


def client(words, interval, size):
    kind, topic, ports = words.split(":")
    make = {"kafka": KafkaClient, "mqtt": MqttClient}[kind]
    return make(interval, size, topic, [int(port) for port in ports.split(",")])


def main():
    interval, size = float(sys.argv[1]), int(sys.argv[2])
    clients = [client(words, interval, size) for words in sys.argv[3:]]
    for one in clients:
        one.start()
    sys.stdin.read()
    OVER.set()
    for one in clients:
        one.join(DRAIN + 5)
    json.dump([{"acks": one.acks, "unacked": len(one.sent) + len(one.waiting), "broken": one.broken[-1000:]} for one in clients], sys.stdout)


if __name__ == "__main__":
    main()
