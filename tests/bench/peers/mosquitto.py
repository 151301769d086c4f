"""Eclipse Mosquitto, from Debian.

Persistence is off by default. With it on, mosquitto writes its whole database every `autosave_interval` (1 s here, its
default is 1800 s) and acknowledges without waiting for that.
"""

import os
import re

import install
from brokers import Broker, free_port


class Mosquitto(Broker):
    name = "mosquitto"
    durability = "acks from memory; persistence off (default)"
    durability_kept = "acks from memory; the whole database saved every second"
    patience = 20.0

    def setup(self):
        self.root = install.debian("mosquitto")
        self.environment = install.debian_environment(self.root)
        package = install.command(["apt-cache", "policy", "mosquitto"], 30)
        found = re.search(r"Candidate: (\S+)", package)
        return found.group(1).split("-")[0] if found else "of Debian"

    def launch(self, run):
        run.port = free_port()
        lines = [f"listener {run.port} 127.0.0.1", "allow_anonymous true", "log_dest none"]
        if run.kept:
            # Messages for sessions that are away are dropped beyond 1000 by default.
            lines += ["persistence true", f"persistence_location {run.dir}/", "autosave_interval 1", "max_queued_messages 0"]
        if run.tls:
            run.tls_port = free_port()
            cert, key = install.certificate()
            lines += [f"listener {run.tls_port} 127.0.0.1", f"certfile {cert}", f"keyfile {key}", "tls_version tlsv1.3"]
        if os.geteuid() == 0:
            lines.insert(0, "user root")
        config = run.dir / "mosquitto.conf"
        config.write_text("\n".join(lines) + "\n")
        return [self.root / "usr/sbin/mosquitto", "-c", config], self.environment
