"""The few messages of Kafka's protocol that the cluster benchmark speaks itself, so that no library's pauses are measured: who leads,
one record to a leader, moving leaderships, who is the controller."""

import socket
import struct
import time

from wire import exact

PRODUCE, METADATA, ELECT_LEADERS, REASSIGN, DESCRIBE_QUORUM = 0, 3, 43, 45, 55
# The last versions before lengths became compact, or the first of those that were never otherwise (KIP-482).
VERSIONS = {PRODUCE: 7, METADATA: 7, ELECT_LEADERS: 1, REASSIGN: 0, DESCRIBE_QUORUM: 0}
COMPACT = {REASSIGN, DESCRIBE_QUORUM}
MAX_FRAME = 64 << 20
CLIENT = b"bench"


class Refused(Exception):
    """A broker's answer that is an error; `code` is Kafka's."""

    def __init__(self, what, code):
        super().__init__(f"{what}: error {code}")
        self.code = code


def text(value):
    data = value.encode()
    return struct.pack(">h", len(data)) + data


def compact(value):
    data = value.encode()
    return bytes([len(data) + 1]) + data


def frame(api, correlation, body):
    """A whole request."""
    head = struct.pack(">hhi", api, VERSIONS[api], correlation) + text(CLIENT.decode()) + (b"\x00" if api in COMPACT else b"")
    return struct.pack(">i", len(head) + len(body)) + head + body


class Reader:
    """Takes an answer apart."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, layout):
        values = struct.unpack_from(">" + layout, self.data, self.at)
        self.at += struct.calcsize(">" + layout)
        return values[0] if len(values) == 1 else values

    def text(self):
        size = self.take("h")
        self.at += max(size, 0)
        return None if size < 0 else self.data[self.at - size : self.at].decode()

    def list(self, one):
        return [one() for _ in range(self.take("i"))]


def ask(port, api, body, timeout=10.0):
    """One request on a connection of its own; the answer behind its correlation id."""
    with socket.create_connection(("127.0.0.1", port), timeout) as stream:
        stream.sendall(frame(api, 1, body))
        size = struct.unpack(">i", exact(stream, 4))[0]
        if not 4 <= size <= MAX_FRAME:
            raise OSError(f"an answer of {size} bytes")
        return Reader(exact(stream, size)[4:])


def metadata(port, topics=None, timeout=10.0):
    """Ports of the brokers by their id, and for each topic its partitions: index -> (leader, replicas, in-sync replicas)."""
    body = struct.pack(">i", -1) if topics is None else struct.pack(">i", len(topics)) + b"".join(map(text, topics))
    answer = ask(port, METADATA, body + b"\x00", timeout)
    answer.take("i")
    ports = {}

    def broker():
        number, _, ports_of, _ = answer.take("i"), answer.text(), answer.take("i"), answer.text()
        ports[number] = ports_of

    answer.list(broker)
    answer.text(), answer.take("i")
    found = {}

    def partition():
        _, index, leader, _ = answer.take("hiii")
        replicas, in_sync, _ = (answer.list(lambda: answer.take("i")) for _ in range(3))
        return index, (leader, replicas, in_sync)

    def topic():
        code, name, _ = answer.take("h"), answer.text(), answer.take("b")
        partitions = dict(answer.list(partition))
        if code == 0:
            found[name] = partitions

    answer.list(topic)
    return ports, found


def elect(port, topic, partition, timeout=10.0):
    """Gives the leadership to the first replica; it is there already if the answer is ELECTION_NOT_NEEDED (84)."""
    body = b"\x00" + struct.pack(">i", 1) + text(topic) + struct.pack(">iii", 1, partition, int(timeout * 1000))
    answer = ask(port, ELECT_LEADERS, body, timeout)
    _, code = answer.take("ih")

    def of_partition():
        return answer.take("ih")[1], answer.text()

    topics = answer.list(lambda: (answer.text(), answer.list(of_partition)))
    for code in [code, *(code for _, partitions in topics for code, _ in partitions)]:
        if code not in (0, 84):
            raise Refused("ElectLeaders", code)


def reassign(port, topic, partition, replicas, timeout=10.0):
    """Sets the replicas of a partition, first the one that is to lead."""
    body = struct.pack(">i", int(timeout * 1000)) + b"\x02" + compact(topic) + b"\x02" + struct.pack(">i", partition)
    body += bytes([len(replicas) + 1]) + b"".join(struct.pack(">i", one) for one in replicas) + b"\x00\x00\x00"
    answer = ask(port, REASSIGN, body, timeout)
    answer.take("b")
    _, code = answer.take("ih")
    if code:
        raise Refused("AlterPartitionReassignments", code)
    # An error of the partition alone shows as a leadership that never moves; whoever calls waits for that.


def controller(port, timeout=10.0):
    """The node that leads the controllers' quorum."""
    answer = ask(port, DESCRIBE_QUORUM, b"\x02" + compact("__cluster_metadata") + b"\x02" + bytes(7), timeout)
    _, code, _, size = answer.take("bhbb")
    answer.at += size - 1
    _, _, problem, leader = answer.take("bihi")
    if code or problem:
        raise Refused("DescribeQuorum", code or problem)
    return leader


def crc32c(data):
    """Castagnoli's CRC, bit by bit: for a few batches, not for a load."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def varint(value):
    """A signed number as records have it: zigzag, seven bits a byte."""
    value, out = value << 1 if value >= 0 else (-value << 1) - 1, bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def batch(value):
    """A batch of one record without key, from no producer, as format v2 has it."""
    record = b"\x00\x00\x00" + varint(-1) + varint(len(value)) + value + varint(0)
    record = varint(len(record)) + record
    now = int(time.time() * 1000)
    rest = struct.pack(">hiqqqhii", 0, 0, now, now, -1, -1, -1, 1) + record
    return struct.pack(">qiibI", 0, len(rest) + 9, -1, 2, crc32c(rest)) + rest


def produce_body(topic, partition, records, timeout_ms=30_000):
    """The body of a request with acks=all."""
    head = struct.pack(">hhi", -1, -1, timeout_ms) + struct.pack(">i", 1) + text(topic)
    return head + struct.pack(">iii", 1, partition, len(records)) + records


def produced(data):
    """The error code of the one partition in an answer to a produce request; `data` begins behind the correlation id."""
    answer = Reader(data)
    return answer.list(lambda: (answer.text(), answer.list(lambda: answer.take("ihqqq")[1])))[0][1][0]
