"""Runs one `forebay serve` for the interoperability tests, as a user would start it."""

import json
import os
import pathlib
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import time
import urllib.request

CONFIG = """
allow_anonymous = true

[object_store]
url = "file:{lake}"

[topic_defaults]
num.partitions = 2
segment.bytes = "256KiB"
local.retention.bytes = "512KiB"
lake.commit.interval.ms = "500ms"

[topics.readings]
num.partitions = 4

[[routes]]
filter = "meters/+/readings"
topic = "readings"
key = "{{1}}"
timestamp = "/ts"
{extra}
"""


class Gateway:
    """A node in a temporary directory; `addresses` has the listeners of its ready line."""

    def __init__(self, extra="", args=()):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="forebay-interop-"))
        self.lake = self.dir / "lake"
        self.config = self.dir / "forebay.toml"
        self.config.write_text(CONFIG.format(lake=self.lake, extra=extra))
        self.args = list(args)
        self.addresses = {}
        self.start()

    def start(self):
        command = [os.environ["FOREBAY_BIN"], "serve", "--config", str(self.config), "--data-dir", str(self.dir / "data")]
        for listener in ("mqtt", "quic", "kafka", "http"):
            address = self.addresses.get(listener, "127.0.0.1:0")
            command += ["--set", f"listeners.{listener}={address}"]
        self.log = open(self.dir / "stderr.log", "ab")
        self.process = subprocess.Popen(command + self.args, stdout=subprocess.PIPE, stderr=self.log, text=True)
        for line in self.process.stdout:
            if line.startswith("forebay ready "):
                fields = dict(field.split("=", 1) for field in line.split()[2:])
                self.addresses = {name: value for name, value in fields.items() if name != "node"}
                return
        raise RuntimeError("no ready line: " + (self.dir / "stderr.log").read_text())

    def host_port(self, listener):
        host, port = self.addresses[listener].rsplit(":", 1)
        return host, int(port)

    def served(self):
        """The keys of the APIs that the Kafka listener advertises (ApiVersions v0)."""
        with socket.create_connection(self.host_port("kafka"), 10) as stream, stream.makefile("rb") as answers:
            stream.sendall(struct.pack(">ihhih", 10, 18, 0, 1, -1))
            answer = answers.read(struct.unpack(">i", answers.read(4))[0])
        count = struct.unpack(">i", answer[6:10])[0]
        return {key for key, _, _ in struct.iter_unpack(">hhh", answer[10 : 10 + 6 * count])}

    def get(self, path):
        with urllib.request.urlopen(f"http://{self.addresses['http']}{path}", timeout=30) as answer:
            return json.loads(answer.read())

    def flush(self, topic):
        """Waits until everything in `topic` is in its table."""
        request = urllib.request.Request(
            f"http://{self.addresses['http']}/api/v1/lake/flush?topic={topic}", method="POST", data=b""
        )
        urllib.request.urlopen(request, timeout=120).read()

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self):
        """Ends the node as an operator would and checks that it ended well."""
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(20)
        self.log.close()
        if code != 0:
            raise RuntimeError(f"exit {code}: " + (self.dir / "stderr.log").read_text()[-4000:])
        shutil.rmtree(self.dir, ignore_errors=True)


def eventually(check, seconds=60):
    """Repeats `check` until it raises no AssertionError, at most for `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return check()
        except AssertionError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
