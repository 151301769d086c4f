"""RabbitMQ with its MQTT plugin, from Debian, with Erlang unpacked beside it.

A message that no queue takes is acknowledged at once. With a persistent subscriber away there is a durable queue, and the
acknowledgement waits for the message store.
"""

import install
from brokers import Broker, free_port

CONFIG = """listeners.tcp = none
mqtt.listeners.tcp.1 = 127.0.0.1:{port}
mqtt.allow_anonymous = true
mqtt.default_user = guest
mqtt.default_pass = guest
vm_memory_high_watermark.relative = 0.6
disk_free_limit.absolute = 50MB
log.console = true
log.console.level = error
log.file = false
"""


class RabbitMq(Broker):
    name = "RabbitMQ"
    durability = "acks before any write; no queue takes it"
    durability_kept = "durable queue: acks once its store has synced, for many at once (default)"

    def setup(self):
        self.root = install.debian("rabbitmq-server")
        # Debian's `erl` knows only the place at which the package would be installed.
        for erl in self.root.glob("usr/lib/erlang/**/bin/erl"):
            text = erl.read_text()
            erl.write_text(text.replace("ROOTDIR=/usr/lib/erlang\n", f"ROOTDIR={self.root}/usr/lib/erlang\n"))
        self.home = next(self.root.glob("usr/lib/rabbitmq/lib/rabbitmq_server-*"))
        return self.home.name.split("-")[-1]

    def launch(self, run):
        run.port = free_port()
        (run.dir / "rabbitmq.conf").write_text(CONFIG.format(port=run.port))
        (run.dir / "enabled_plugins").write_text("[rabbitmq_mqtt].\n")
        (run.dir / "env.conf").write_text("")
        (run.dir / "home").mkdir()
        environment = {
            **install.debian_environment(self.root),
            "HOME": str(run.dir / "home"),
            "RABBITMQ_HOME": str(self.home),
            "RABBITMQ_CONF_ENV_FILE": str(run.dir / "env.conf"),
            "RABBITMQ_CONFIG_FILE": str(run.dir / "rabbitmq"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(run.dir / "enabled_plugins"),
            "RABBITMQ_MNESIA_BASE": str(run.dir / "mnesia"),
            "RABBITMQ_LOG_BASE": str(run.dir / "log"),
            "RABBITMQ_NODENAME": "bench@localhost",
            "RABBITMQ_DIST_PORT": str(free_port()),
            # The port mapper in the foreground, so that it ends with the broker.
            "ERL_EPMD_PORT": str(free_port()),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
        }
        script = f"epmd & exec {self.home}/sbin/rabbitmq-server"
        return ["sh", "-c", script], environment
