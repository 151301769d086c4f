"""Forebay itself: all defaults, which means an fsync before every acknowledgement, on ports that are free."""

import os
import pathlib
import re
import shutil

import install
from brokers import Broker, Failed, free_port

ROOT = pathlib.Path(__file__).resolve().parents[3]


def binary():
    """The program: FOREBAY_BIN, or what `cargo build --release` made."""
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    places = [os.environ.get("FOREBAY_BIN"), target / "release" / "forebay", shutil.which("forebay")]
    for place in places:
        if place and os.access(place, os.X_OK):
            return str(pathlib.Path(place).resolve())
    raise install.Missing("no release binary of Forebay: run cargo build --release, or set FOREBAY_BIN")


class Forebay(Broker):
    name = "Forebay"
    durability = "fsync before every ack"
    patience = 20.0

    def setup(self):
        return install.command([binary(), "--version"], 20).split()[-1]

    def launch(self, run):
        run.port, run.kafka_port, run.quic_port = free_port(), free_port(), free_port()
        ports = {"mqtt": run.port, "kafka": run.kafka_port, "quic": run.quic_port, "http": free_port()}
        certificate = []
        if run.tls:
            ports["mqtts"] = run.tls_port = free_port()
            cert, key = install.certificate()
            certificate = [f"tls.certfile={cert}", f"tls.keyfile={key}"]
        keys = [f"listeners.{name}=127.0.0.1:{port}" for name, port in ports.items()] + certificate
        keys += [f"{key}={value}" for key, value in run.settings.items()]
        words = [binary(), "serve", "--data-dir", run.dir / "data"]
        for key in keys:
            words += ["--set", key]
        return words, {**os.environ, "RUST_LOG": "warn"}


class ForebayLog(Forebay):
    """The same without the lake: what the offload takes from a short, heavy load is the difference."""

    name = "Forebay, lake off"

    def launch(self, run):
        run.settings.setdefault("topic_defaults.remote.storage.enable", "false")
        return super().launch(run)


def ready_line(run):
    """What `forebay serve` said when all its listeners accepted."""
    found = re.search(r"^forebay ready .*$", run.output(), re.MULTILINE)
    if found is None:
        raise Failed(f"no ready line: {run.last_words()}")
    return found.group()
