"""Clusters of three on this machine: Forebay as its example sets it up, and Apache Kafka with three nodes that are controller and
broker at once (KRaft), everything else as it comes but for three replicas of which two have to be in sync, as Forebay's are."""

import os

import install
from trio import NODES, Trio

from . import forebay, kafka

# What the paced meters publish is one partition, whose leader is killed and moved.
CONFIG = """[topics.load]
num.partitions = 1

[[routes]]
filter = "load/+"
topic = "load"
key = "{1}"
"""
THREE = """default.replication.factor=3
min.insync.replicas=2
"""


class ForebayThree(Trio):
    name = "Forebay, 3 nodes"
    durability = "fsync on all in-sync replicas before every ack"
    more = ()

    def setup(self):
        return install.command([forebay.binary(), "--version"], 20).split()[-1]

    def launch(self, run, node):
        config = run.dir / "forebay.toml"
        config.write_text(CONFIG)
        peers = ",".join(f"{one}@127.0.0.1:{run.peer[one]}" for one in NODES)
        keys = [f"node.id={node}", f"cluster.peers={peers}", f"object_store.url=file:{run.dir}/lake", "listeners.quic=off"]
        keys += [f"listeners.{name}=127.0.0.1:{ports[node]}" for name, ports in (("mqtt", run.mqtt), ("kafka", run.kafka), ("http", run.http))]
        keys += [*self.more, *(f"{key}={value}" for key, value in run.settings.items())]
        words = [forebay.binary(), "serve", "--config", config, "--data-dir", run.dir / str(node) / "data"]
        for key in keys:
            words += ["--set", key]
        return words, {**os.environ, "RUST_LOG": "warn"}


class KafkaThree(Trio):
    name = "Kafka, 3 brokers"
    durability = "acks from the page cache of all in-sync replicas; never fsyncs (default)"
    warmup = 8.0
    more = ""

    def setup(self):
        self.one = kafka.Kafka()
        return self.one.setup()

    def launch(self, run, node):
        run.mqtt = {}
        home = run.dir / str(node)
        config = home / "server.properties"
        if not config.exists():
            voters = ",".join(f"{one}@127.0.0.1:{run.peer[one]}" for one in NODES)
            text = kafka.CONFIG.format(port=run.kafka[node], controller=run.peer[node], dir=home, more=THREE + self.more)
            text = text.replace("node.id=1", f"node.id={node}").replace("replication.factor=1", "replication.factor=3")
            config.write_text(text.replace("min.isr=1", "min.isr=2").replace(f"1@127.0.0.1:{run.peer[node]}", voters))
            (home / "log4j2.yaml").write_text(kafka.LOG4J)
            install.command(self.one.java(HomeOnly(home), "kafka.tools.StorageTool", "format", "-t", kafka.CLUSTER, "-c", config), 60)
        return self.one.java(HomeOnly(home), "kafka.Kafka", config), dict(os.environ)


class HomeOnly:
    """What `Kafka.java` takes of a run."""

    def __init__(self, home):
        self.dir = home


class KafkaThreeFsync(KafkaThree):
    name = "Kafka, 3 brokers, fsync"
    durability = "fsync on all in-sync replicas before every ack (log.flush.interval.messages=1)"
    more = "log.flush.interval.messages=1"
