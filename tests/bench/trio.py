"""Three broker processes as one cluster, each of which can be killed and started again, and what a client sees of them."""

import os
import re
import shutil
import signal
import subprocess
import time

import brokers
import install
import kafka_wire
import wire
from brokers import Failed
from peers import forebay

NODES = (1, 2, 3)


class Trio:
    """A cluster that can be started. Subclasses set the texts and implement `setup` and `launch`."""

    name = ""
    durability = ""
    # Seconds of load before a measurement; a JVM needs some to compile.
    warmup = 1.0
    patience = 90.0

    def setup(self):
        """Installs what is needed and returns the version; raises `install.Missing`."""
        raise NotImplementedError

    def launch(self, run, node):
        """Returns command line and environment of one node of `run`."""
        raise NotImplementedError

    def start(self, **settings):
        """Starts three nodes and returns the `TrioRun` once all answer."""
        return TrioRun(self, settings)


class TrioRun:
    """A running cluster. `kafka` and, of Forebay, `mqtt`, `http` are ports by node."""

    def __init__(self, broker, settings):
        self.broker, self.settings = broker, settings
        self.dir = install.cache_dir() / "data" / re.sub(r"[^a-z0-9]+", "-", broker.name.lower())
        shutil.rmtree(self.dir, ignore_errors=True)
        self.kafka, self.mqtt, self.http, self.peer = ({node: brokers.free_port() for node in NODES} for _ in range(4))
        self.processes, self.logs = {}, {}
        brokers.RUNNING.append(self)
        try:
            begin = time.monotonic()
            for node in NODES:
                (self.dir / str(node)).mkdir(parents=True)
                self.start(node, wait=False)
            for node in NODES:
                self.wait_ready(node)
            self.ready_seconds = time.monotonic() - begin
        except BaseException:
            self.stop()
            raise

    def start(self, node, wait=True):
        words, environment = self.broker.launch(self, node)
        log = open(self.dir / f"{node}.log", "ab")
        self.processes[node] = subprocess.Popen(
            [str(word) for word in words], cwd=self.dir / str(node), env=environment, stdin=subprocess.DEVNULL,
            stdout=log, stderr=subprocess.STDOUT, start_new_session=True)  # fmt: skip
        log.close()
        if wait:
            self.wait_ready(node)

    def wait_ready(self, node):
        process = self.processes[node]

        def answers():
            if process.poll() is not None:
                raise Failed(f"node {node} of {self.broker.name} ended with code {process.returncode}: {self.last_words(node)}")
            # A client of its own on each: the nodes would have to hand over the session of one.
            mqtt = self.mqtt.get(node)
            return wire.kafka_answers(self.kafka[node]) and (mqtt is None or wire.mqtt_answers(mqtt, client=f"ready-{node}"))

        self.wait(answers, f"node {node} was not ready")

    def wait(self, holds, what, seconds=None, pause=0.01):
        """Waits until `holds()`; returns the seconds that it took."""
        begin = time.monotonic()
        while True:
            try:
                if holds():
                    return time.monotonic() - begin
            except (OSError, IndexError, KeyError):
                pass
            if time.monotonic() - begin > (seconds or self.broker.patience):
                raise Failed(f"{self.broker.name}: {what} within {seconds or self.broker.patience:.0f} s")
            time.sleep(pause)

    def kill(self, node):
        """kill -9; returns the moment just before."""
        begin = time.monotonic()
        os.killpg(self.processes[node].pid, signal.SIGKILL)
        self.processes[node].wait()
        return begin

    def alive(self):
        return [node for node in NODES if node in self.processes and self.processes[node].poll() is None]

    def partition(self, topic, index=0):
        """Leader, replicas and in-sync replicas, as the first node that lives has it."""
        return kafka_wire.metadata(self.kafka[self.alive()[0]], [topic])[1][topic][index]

    def leaders(self):
        """Who leads any partition, as the first node that lives has it."""
        topics = kafka_wire.metadata(self.kafka[self.alive()[0]])[1]
        return {leader for partitions in topics.values() for leader, _, _ in partitions.values()}

    def in_sync(self):
        """Whether every node says that of all partitions it knows every replica is in sync, each with a leader."""
        for node in NODES:
            topics = kafka_wire.metadata(self.kafka[node])[1]
            for leader, replicas, in_sync in (one for partitions in topics.values() for one in partitions.values()):
                if leader < 0 or len(in_sync) < len(replicas):
                    return False
        return True

    def wait_in_sync(self, seconds=120, pause=0.05):
        return self.wait(self.in_sync, "replicas were not in sync", seconds, pause)

    def create(self, topic, partitions, replicas=3, **configs):
        """Makes a topic and waits until its replicas are in sync."""
        words = [forebay.binary(), "topic", "create", topic, "--bootstrap", f"127.0.0.1:{self.kafka[1]}", "--partitions", str(partitions)]
        words += ["--replication-factor", str(replicas)]
        for key, value in configs.items():
            words += ["--config", f"{key}={value}"]
        done = subprocess.run(words, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=300)
        if done.returncode != 0:
            raise Failed(f"topic {topic}: {done.stderr.strip()[-200:]}")
        self.wait(lambda: topic in kafka_wire.metadata(self.kafka[1], [topic])[1], f"topic {topic} is not there", 60)
        self.wait_in_sync()

    def last_words(self, node):
        lines = [line for line in (self.dir / f"{node}.log").read_text(errors="replace").splitlines() if line.strip()]
        return install.plain(" | ".join(lines[-3:]))[-300:] or "it printed nothing"

    def cpu_seconds(self):
        return sum(brokers.cpu_of(pid) for node in self.alive() for pid in brokers.family(self.processes[node].pid))

    def resident(self, node):
        """Resident bytes of one node now, and at their highest."""
        fields = [brokers.status(pid) for pid in brokers.family(self.processes[node].pid)]
        return sum(field.get("VmRSS", 0) for field in fields), sum(field.get("VmHWM", 0) for field in fields)

    def memory(self):
        """As a `Run` has it: all nodes together."""
        both = [self.resident(node) for node in self.alive()]
        return sum(now for now, _ in both), sum(peak for _, peak in both)

    idle_bytes = None

    def settle(self, seconds):
        brokers.Run.settle(self, seconds)

    def stop(self):
        if self in brokers.RUNNING:
            brokers.RUNNING.remove(self)
        for process in self.processes.values():
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        for process in self.processes.values():
            process.wait(timeout=20)
        shutil.rmtree(self.dir, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()
