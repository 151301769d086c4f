"""Apache Kafka, from Maven Central: one node that is controller and broker at once (KRaft), heap as its own start script sets it.

By default it never fsyncs: replicas on other machines are its durability, and one node has none. `KafkaFsync` sets
`log.flush.interval.messages=1`, with which it does what Forebay does: an fsync before every acknowledgement.
"""

import os

import install
from brokers import Broker, free_port

# Any 16 bytes in base64 that do not begin with a dash.
CLUSTER = "Zm9yZWJheS1iZW5jaC0wMQ"
CONFIG = """process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
log.dirs={dir}/log
num.partitions=4
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
auto.create.topics.enable=true
{more}
"""
LOG4J = """Configuration:
  Appenders:
    Console:
      name: out
      PatternLayout: {pattern: "%p %m%n"}
  Loggers:
    Root:
      level: ERROR
      AppenderRef: {ref: out}
"""


class Kafka(Broker):
    name = "Kafka"
    durability = "acks from the page cache; never fsyncs (default)"
    speaks = "kafka"
    warmup = 4.0
    more = ""

    def setup(self):
        self.jars, version = install.maven("org.apache.kafka", "kafka_2.13", ["4.3.1", "4.2.1", "4.1.1", "4.0.0"])
        return version

    def java(self, run, main, *arguments):
        # The heap and collector of kafka-server-start.sh.
        flags = ["-Xmx1G", "-Xms1G", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20", "-XX:InitiatingHeapOccupancyPercent=35"]
        flags += [f"-Dlog4j2.configurationFile={run.dir}/log4j2.yaml"]
        return ["java", *flags, "-cp", f"{self.jars}/*", main, *[str(argument) for argument in arguments]]

    def launch(self, run):
        run.port = run.kafka_port = free_port()
        config = run.dir / "server.properties"
        config.write_text(CONFIG.format(port=run.port, controller=free_port(), dir=run.dir, more=self.more))
        (run.dir / "log4j2.yaml").write_text(LOG4J)
        install.command(self.java(run, "kafka.tools.StorageTool", "format", "-t", CLUSTER, "-c", config), 60)
        return self.java(run, "kafka.Kafka", config), dict(os.environ)


class KafkaFsync(Kafka):
    name = "Kafka, fsync"
    durability = "fsync before every ack (log.flush.interval.messages=1)"
    more = "log.flush.interval.messages=1"
