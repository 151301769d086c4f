"""HiveMQ Community Edition, from Maven Central: its embedded artifact has everything that the broker needs.

Moquette is in Maven Central too; HiveMQ is the one more used. Embedded it lets everybody in, for which the server itself needs
an extension that is not in Maven Central.
"""

import os

import install
from brokers import Broker, free_port

# The default configuration but for the address, and for messages to sessions that are away, of which it drops more than 1000.
CONFIG = """<?xml version="1.0"?>
<hivemq xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">
  <listeners><tcp-listener><port>{port}</port><bind-address>127.0.0.1</bind-address></tcp-listener></listeners>
  <mqtt><queued-messages><max-queue-size>100000000</max-queue-size></queued-messages></mqtt>
  <persistence><mode>file</mode></persistence>
  <anonymous-usage-statistics><enabled>false</enabled></anonymous-usage-statistics>
</hivemq>
"""
LOGBACK = """<configuration><appender name="out" class="ch.qos.logback.core.ConsoleAppender">
<encoder><pattern>%level %msg%n</pattern></encoder></appender>
<root level="WARN"><appender-ref ref="out"/></root></configuration>
"""


MAIN = """import com.hivemq.embedded.EmbeddedHiveMQBuilder;
import java.nio.file.Path;

public class Serve {
    public static void main(String[] args) throws Exception {
        Path home = Path.of(args[0]);
        EmbeddedHiveMQBuilder.builder().withConfigurationFolder(home.resolve("conf")).withDataFolder(home.resolve("data"))
            .withExtensionsFolder(home.resolve("extensions")).build().start().join();
        Thread.currentThread().join();
    }
}
"""
OPEN = ["java.base/java.lang", "java.base/java.nio", "java.base/sun.nio.ch", "java.base/jdk.internal.misc"]
OPEN += ["jdk.management/com.sun.management.internal"]


class HiveMq(Broker):
    name = "HiveMQ CE"
    durability = "acks before any write; nobody to keep it for"
    durability_kept = "acks after a write to Xodus and RocksDB; synced every second (default)"
    warmup = 4.0

    def setup(self):
        self.jars, version = install.maven("com.hivemq", "hivemq-community-edition-embedded", ["2025.5", "2025.4", "2024.6"])
        source = self.jars.parent / "Serve.java"
        if not source.with_suffix(".class").exists():
            source.write_text(MAIN)
            install.command(["javac", "-cp", f"{self.jars}/*", str(source)], 120, cwd=self.jars.parent)
        return version

    def launch(self, run):
        run.port = free_port()
        for folder in ("conf", "data", "log", "extensions"):
            (run.dir / folder).mkdir()
        (run.dir / "conf/config.xml").write_text(CONFIG.format(port=run.port))
        (run.dir / "conf/logback.xml").write_text(LOGBACK)
        words = ["java", "-Djava.net.preferIPv4Stack=true", f"-Dhivemq.log.folder={run.dir}/log"]
        for package in OPEN:
            words += ["--add-opens", f"{package}=ALL-UNNAMED"]
        return words + ["-cp", f"{self.jars.parent}:{self.jars}/*", "Serve", run.dir], dict(os.environ)
