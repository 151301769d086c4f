"""What is done to a cluster of three, and what its clients notice: leaders killed and moved, a follower that was away, a thousand
replicas at rest. Each function takes a running cluster and returns figures."""

import json
import pathlib
import statistics
import subprocess
import sys
import time

import kafka_wire
from brokers import Failed
from trio import NODES

TOPIC = "load"
# Of each paced client: seconds between two messages, and bytes of one.
INTERVAL, SIZE = 0.01, 200
# Around a move: what counts as before and as after, in seconds.
BEFORE, AFTER = 1.0, 1.0
# How long a killed leader stays away once another leads: whoever waits for it to come back shall not be taken for resumed.
AWAY = 3.0
FOLLOWER = 3


class Paced:
    """The process of paced.py: a Kafka producer, and where the cluster speaks MQTT a client of each node."""

    def __init__(self, run, mqtt=True):
        ports = ",".join(str(port) for port in run.kafka.values())
        clients = [f"kafka:{TOPIC}:{ports}", *(f"mqtt:load/{node}:{port}" for node, port in run.mqtt.items() if mqtt)]
        words = [sys.executable, str(pathlib.Path(__file__).with_name("paced.py")), str(INTERVAL), str(SIZE), *clients]
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        time.sleep(run.broker.warmup)

    def end(self):
        """Acks of the producer, and by node those of the MQTT clients: pairs of due time and time of the ack."""
        said, _ = self.process.communicate("", timeout=60)
        clients = [client["acks"] for client in json.loads(said)]
        return clients[0], dict(zip(NODES, clients[1:]))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


def load_topic(run):
    """The topic of the paced clients is there, with every replica in sync."""
    if TOPIC not in kafka_wire.metadata(run.kafka[1], [TOPIC])[1]:
        run.create(TOPIC, 1)
    run.wait_in_sync()


def lead_at(run, node):
    """Gives the leadership to a node, asked for by a new order of the replicas and an election, as the cluster's own tools do; returns the
    moment before the election."""
    leader, replicas, _ = run.partition(TOPIC)
    wanted = [node, *(one for one in replicas if one != node)]
    if replicas != wanted:
        kafka_wire.reassign(run.kafka[1], TOPIC, 0, wanted)
        run.wait(lambda: run.partition(TOPIC)[1] == wanted, "replicas were not put in order", 30)
    if leader != node:
        time.sleep(BEFORE)
    at = time.monotonic()
    kafka_wire.elect(run.kafka[1], TOPIC, 0)
    run.wait(lambda: run.partition(TOPIC)[0] == node, "the leadership did not move", 30)
    return at


def failover(run, kills):
    """Kills each node in turn when it leads, under load. It is started anew when another leads; the next one is killed when all is in sync."""
    load_topic(run)
    done, controllers = [], 0
    with Paced(run) as paced:
        for number in range(kills):
            leader = NODES[number % len(NODES)]
            lead_at(run, leader)
            time.sleep(AFTER)
            controllers += kafka_wire.controller(run.kafka[1]) == leader
            done.append((leader, run.kill(leader)))
            run.wait(lambda old=leader: run.partition(TOPIC)[0] not in (-1, old), "no new leader", 60)
            time.sleep(AWAY)
            run.start(leader)
            run.wait_in_sync()
            time.sleep(1)
        produced, published = paced.end()
    survivors = [resumed(published[node], at) for killed, at in done for node in published if node != killed]
    return {"kills": kills, "controllers": controllers, "producer": [resumed(produced, at) for _, at in done], "survivors": survivors}


def resumed(acks, at):
    """Seconds from `at` until the first ack of a message that was due later."""
    found = [acked for due, acked in acks if due >= at]
    if not found:
        raise Failed("acks never came again")
    return min(found) - at


def moves(run, count):
    """Moves the leadership to each other node in turn."""
    load_topic(run)
    done = []
    with Paced(run) as paced:
        for number in range(count):
            leader, replicas, _ = run.partition(TOPIC)
            done.append(lead_at(run, [one for one in replicas if one != leader][number % 2]))
            # As long again without a move.
            time.sleep(2 * (AFTER + BEFORE))
        produced, published = paced.end()
    added_mqtt = [added(acks, at) for at in done for acks in published.values()]
    still = [added(produced, at + AFTER + BEFORE) for at in done]
    return {"moves": count, "producer": [added(produced, at) for at in done], "survivors": added_mqtt, "still": still}


def added(acks, at):
    """The longest latency around `at` less the median before."""
    before = [acked - due for due, acked in acks if at - BEFORE <= due < at - 0.1]
    around = [acked - due for due, acked in acks if at - 0.1 <= due < at + AFTER]
    if not before or not around:
        raise Failed("no acks around a move")
    return max(around) - statistics.median(before)


def log_bytes(run, node, topic):
    """Of a topic's segments on one node."""
    return sum(path.stat().st_size for path in (run.dir / str(node)).rglob("*.log") if path.parent.name.startswith(f"{topic}-"))


def catch_up(run, produce, gigabytes):
    """A follower is killed, `produce(messages)` loads the others, and it comes back under paced load."""
    load_topic(run)
    run.create("bench", 4)
    produce(20_000)
    run.kill(FOLLOWER)
    run.wait(lambda: not run.leaders() & {-1, FOLLOWER}, "no new leaders", 60)
    time.sleep(2)
    produce(int(gigabytes * 1e6))
    whole = log_bytes(run, 1, "bench")
    behind = whole - log_bytes(run, FOLLOWER, "bench")
    with Paced(run, mqtt=False) as paced:
        begin = time.monotonic()
        run.start(FOLLOWER)
        ready = time.monotonic()
        run.wait(lambda: log_bytes(run, FOLLOWER, "bench") >= whole, "the follower did not catch up", 300)
        end = time.monotonic()
        run.wait_in_sync()
        in_sync = time.monotonic()
        time.sleep(1)
        produced, _ = paced.end()
    # From its readiness on, though it may have begun before: a JVM's start is not what is asked for.
    during = [acked - due for due, acked in produced if begin <= due < end]
    if not during:
        raise Failed("nothing was acknowledged meanwhile")
    return {
        "behind_bytes": behind,
        "megabytes_per_second": behind / (end - begin) / 1e6,
        "from_ready_megabytes_per_second": behind / max(end - ready, 0.001) / 1e6,
        "in_sync_seconds": in_sync - begin,
        "acked": len(during),
        "p50_seconds": statistics.median(during),
        "max_seconds": max(during),
        "peak_bytes": run.resident(FOLLOWER)[1],
    }


def idle(run, partitions, minutes):
    """A topic of many partitions at rest, and a start of all nodes with it."""
    run.settle(10)
    empty = max(run.resident(node)[0] for node in NODES)
    begin = time.monotonic()
    run.create("many", partitions)
    made = time.monotonic() - begin
    time.sleep(10)
    used, begin = run.cpu_seconds(), time.monotonic()
    time.sleep(minutes * 60)
    cores = (run.cpu_seconds() - used) / (time.monotonic() - begin)
    resident = [run.resident(node)[0] for node in NODES]
    for node in NODES:
        run.kill(node)
    begin = time.monotonic()
    for node in NODES:
        run.start(node, wait=False)
    for node in NODES:
        run.wait_ready(node)
    ready = time.monotonic() - begin
    run.wait_in_sync()
    return {"partitions": partitions, "empty_bytes": empty, "resident_bytes": max(resident), "made_seconds": made, "cores": cores,
            "start_seconds": ready, "in_sync_seconds": time.monotonic() - begin,
            "again_bytes": max(run.resident(node)[0] for node in NODES)}  # fmt: skip


def spread_clients(clients, ports):
    """How many clients each port gets."""
    return [clients // len(ports) + (1 if number < clients % len(ports) else 0) for number in range(len(ports))]


def quantile(values, share):
    """The smallest value that at least `share` of all do not exceed (nearest rank)."""
    ordered = sorted(values)
    rank = max(-(-len(ordered) * round(share * 1000) // 1000), 1)
    return ordered[rank - 1]
