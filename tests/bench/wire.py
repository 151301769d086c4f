"""The few packets that the benchmark speaks itself: is a broker ready, and a persistent session that waits for messages."""

import socket
import struct

CONNACK, SUBACK = 0x20, 0x90
TIMEOUT = 10.0


def connect_packet(client, clean=True):
    """An MQTT 3.1.1 CONNECT with a keep-alive of a minute (rumqttd refuses none)."""
    name = client.encode()
    body = b"\x00\x04MQTT\x04" + bytes([2 if clean else 0]) + b"\x00\x3c" + struct.pack(">H", len(name)) + name
    return b"\x10" + length(len(body)) + body


def subscribe_packet(topic_filter):
    """An MQTT 3.1.1 SUBSCRIBE at QoS 1."""
    name = topic_filter.encode()
    body = b"\x00\x01" + struct.pack(">H", len(name)) + name + b"\x01"
    return b"\x82" + length(len(body)) + body


def length(size):
    """MQTT's variable byte integer."""
    out = bytearray()
    while True:
        size, low = divmod(size, 128)
        out.append(low | (0x80 if size else 0))
        if not size:
            return bytes(out)


def exact(stream, count):
    """Reads `count` bytes or raises `OSError`."""
    data = b""
    while len(data) < count:
        part = stream.recv(count - len(data))
        if not part:
            raise OSError("the broker closed the connection")
        data += part
    return data


def mqtt_answers(port, timeout=TIMEOUT, client="ready"):
    """Whether a broker accepts a session of `client`."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout) as stream:
            stream.sendall(connect_packet(client))
            answer = exact(stream, 4)
            stream.sendall(b"\xe0\x00")
            return answer[0] == CONNACK and answer[3] == 0
    except OSError:
        return False


def leave_subscription(port, client, topic_filter):
    """Makes a persistent session that subscribes at QoS 1 and goes away: from now on the broker must keep what is published."""
    with socket.create_connection(("127.0.0.1", port), TIMEOUT) as stream:
        stream.sendall(connect_packet(client, clean=False))
        if exact(stream, 4)[3] != 0:
            raise OSError("the broker refused a persistent session")
        stream.sendall(subscribe_packet(topic_filter))
        answer = exact(stream, 5)
        if answer[0] != SUBACK or answer[4] > 2:
            raise OSError("the broker refused the subscription")
        stream.sendall(b"\xe0\x00")


def kafka_answers(port, timeout=TIMEOUT):
    """Whether a Kafka broker knows its cluster: Metadata (version 0, no topics) names a broker."""
    body = struct.pack(">hhih", 3, 1, 7, -1) + struct.pack(">i", 0)
    try:
        with socket.create_connection(("127.0.0.1", port), timeout) as stream:
            stream.sendall(struct.pack(">i", len(body)) + body)
            size = struct.unpack(">i", exact(stream, 4))[0]
            answer = exact(stream, min(size, 1 << 16))
            return struct.unpack(">ii", answer[:8])[1] > 0
    except OSError:
        return False
