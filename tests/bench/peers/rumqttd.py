"""rumqttd, compiled from crates.io: a broker in Rust that keeps its log in memory only."""

import os

import install
from brokers import Broker, free_port

VERSION = "0.20.0"
# As in the example that comes with it, but for the address, the limit of the window and the log level.
CONFIG = """id = 0

[router]
id = 0
max_connections = 10010
max_outgoing_packet_count = 200
max_segment_size = 104857600
max_segment_count = 10

[v4.1]
name = "v4-1"
listen = "127.0.0.1:{port}"
next_connection_delay_ms = 1
    [v4.1.connections]
    connection_timeout_ms = 60000
    max_payload_size = 20480
    max_inflight_count = 100
    dynamic_filters = true
"""


class Rumqttd(Broker):
    name = "rumqttd"
    durability = "acks from memory; nothing is ever written"
    patience = 20.0

    def setup(self):
        self.binary = install.cargo("rumqttd", VERSION)
        return VERSION

    def launch(self, run):
        run.port = free_port()
        config = run.dir / "rumqttd.toml"
        config.write_text(CONFIG.format(port=run.port))
        return [self.binary, "-c", config, "-q"], dict(os.environ)
