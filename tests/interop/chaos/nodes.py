"""The three nodes as processes: started, killed, paused, their disks filled, and asked how they are."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

import tools
from gateway import eventually

from . import network

CONFIG = """
allow_anonymous = true

[cluster]
peers = [{peers}]

[object_store]
url = "file:{lake}"

[durability]
acks = "{acks}"

[topic_defaults]
segment.bytes = "256KiB"
local.retention.bytes = "1MiB"
lake.commit.interval.ms = "1s"
min.insync.replicas = {min_insync}

[topics.readings]
num.partitions = 4

[topics.purchases]
num.partitions = 3

[[routes]]
filter = "meters/+/readings"
topic = "readings"
key = "{{1}}"
"""
TOPICS = ("readings", "purchases")
DISK = "512m"


class Ended(Exception):
    """A node ended by itself."""

    def __init__(self, node):
        said = node.log.read_text()[-600:]
        super().__init__(f"node {node.number} ended by itself with {node.process.returncode}: ...{said}")
        self.node = node


class Node:
    def __init__(self, number, cluster):
        self.number, self.cluster = number, cluster
        self.output = cluster.dir / f"node{number}.out"
        self.log = cluster.dir / f"node{number}.log"
        self.data = cluster.dir / f"node{number}"
        if cluster.disks:
            network.small_disk(self.data, DISK)
        self.ballast = self.data / "ballast"
        self.binary = os.environ.get("FOREBAY_CHAOS_FROM") or os.environ["FOREBAY_BIN"]
        self.process = None

    def begin(self):
        place = self.cluster.network
        command = [*network.BOUND, *place.inside(self.number), self.binary, "serve", "--config", str(self.cluster.config)]
        command += ["--data-dir", str(self.data), "--set", f"node.id={self.number}", "--set", f"node.rack=site-{self.number}"]
        command += ["--set", f"node.advertised_host={place.host(self.number)}", "--set", "listeners.quic=off"]
        for listener in ("mqtt", "kafka", "http"):
            command += ["--set", f"listeners.{listener}={place.address(self.number, listener)}"]
        with open(self.output, "wb") as output, open(self.log, "ab") as log:
            self.process = subprocess.Popen(command, stdout=output, stderr=log)

    def check_runs(self):
        if self.process.poll() is not None:
            raise Ended(self)

    def ready(self):
        self.check_runs()
        assert b"forebay ready" in self.output.read_bytes(), f"node {self.number} is not ready: {self.log.read_text()[-3000:]}"

    def kill(self):
        self.process.kill()
        self.process.wait()

    def upgrade(self):
        """Stops as an operator stops it, and goes on with this release."""
        self.process.terminate()
        code = self.process.wait(30)
        self.binary = os.environ["FOREBAY_BIN"]
        self.begin()
        assert code == 0, f"node {self.number} ended with {code}"

    def pause(self):
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self):
        self.process.send_signal(signal.SIGCONT)

    def fill(self):
        """Leaves not one page free on the node's disk."""
        with open(self.ballast, "ab", buffering=0) as file:
            size = 1 << 20
            while size >= 4096:
                try:
                    file.write(bytes(size))
                except OSError:
                    size //= 2

    def empty(self):
        self.ballast.unlink(missing_ok=True)


class Cluster:
    """Three nodes with one lake. `flaw` weakens the promise of an ack, to see that the checks notice."""

    def __init__(self, place, disks, flaw=None):
        self.network, self.disks = place, disks
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="forebay-chaos-"))
        self.lake = self.dir / "lake"
        self.config = self.dir / "forebay.toml"
        weak = flaw == "leader-acks"
        peers = ", ".join(f'"{number}@{place.address(number, "cluster")}"' for number in network.NODES)
        self.config.write_text(
            CONFIG.format(peers=peers, lake=self.lake, acks="leader" if weak else "all", min_insync=1 if weak else 2)
        )
        self.nodes = {number: Node(number, self) for number in network.NODES}
        for node in self.nodes.values():
            node.begin()
        for node in self.nodes.values():
            eventually(node.ready, 60)
        self.bootstrap = ",".join(place.address(number, "kafka") for number in network.NODES)

    def get(self, path, node, patience=5, data=None):
        request = urllib.request.Request(f"http://{self.network.address(node, 'http')}{path}", data=data)
        with urllib.request.urlopen(request, timeout=patience) as answer:
            return json.loads(answer.read() or b"null")

    def post(self, path, node, patience=60):
        return self.get(path, node, patience, b"")

    def status(self):
        """The cluster as the first node tells it that answers."""
        for number in network.NODES:
            try:
                return self.get("/api/v1/cluster", number)
            except (OSError, urllib.error.URLError):
                continue
        raise AssertionError("no node tells how the cluster is")

    def partitions(self):
        return {(one["topic"], one["partition"]): one for one in self.status()["partitions"]}

    def leader(self, partition):
        def led():
            number = self.partitions()[partition]["leader"]
            assert number in self.nodes, f"{partition} has no leader"
            return number

        return eventually(led, 60)

    def controller(self):
        def led():
            number = self.status()["controller"]
            assert number in self.nodes, "there is no controller"
            return number

        return eventually(led, 60)

    def check_whole(self):
        """Every node says that all nodes are up and all replicas in sync."""
        for number in network.NODES:
            self.nodes[number].check_runs()
            try:
                status = self.get("/api/v1/cluster", number)
            except (OSError, urllib.error.URLError) as error:
                raise AssertionError(f"node {number} does not answer: {error}") from error
            assert all(node["state"] == "up" for node in status["nodes"]), [(node["id"], node["state"]) for node in status["nodes"]]
            lacking = {
                f"{one['topic']}-{one['partition']}": (one["leader"], one["isr"])
                for one in status["partitions"]
                if one["leader"] not in self.nodes or len(one["isr"]) != len(one["replicas"])
            }
            assert not lacking, f"node {number} says that these are not whole (leader, in sync): {lacking}"

    def become_whole(self, seconds):
        """Waits for `check_whole`; how long it took."""
        start = time.monotonic()
        eventually(self.check_whole, seconds)
        return time.monotonic() - start

    def elect(self):
        """Gives leaderships back to the preferred leaders, once one whose disk was full has said that it has room."""
        url = f"http://{self.network.address(1, 'http')}"
        eventually(lambda: tools.run([os.environ["FOREBAY_BIN"], "cluster", "elect", "--url", url], timeout=30), 10)

    def stop(self, keep):
        for node in self.nodes.values():
            if node.process.poll() is None:
                node.go_on()
                node.process.send_signal(signal.SIGTERM)
        codes = {}
        for number, node in self.nodes.items():
            try:
                codes[number] = node.process.wait(30)
            except subprocess.TimeoutExpired:
                node.kill()
                codes[number] = "does not stop"
        for node in self.nodes.values():
            if keep and self.disks:
                shutil.copytree(node.data, f"{node.data}-data", ignore=shutil.ignore_patterns("reserve"))
            if self.disks:
                subprocess.run(["umount", "-l", node.data], check=True)
        if not keep:
            shutil.rmtree(self.dir, ignore_errors=True)
        return codes
