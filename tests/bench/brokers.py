"""One broker process at a time: started in a fresh data directory, waited for, watched through /proc, and killed in the end.

A peer is a subclass of `Broker` in a module of peers/; it says how it is installed, started and configured.
"""

import itertools
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import time

import install
import wire

TICKS = os.sysconf("SC_CLK_TCK")
RUNNING = []


class Failed(Exception):
    """A broker that does not start or a run that went wrong; the text says why."""


class Broker:
    """A broker that can be started. Subclasses set the texts and implement `setup` and `launch`."""

    # Whether brokers keep off the last core, which then is the generator's.
    pinned = False
    name = ""
    # What an acknowledgement stands for, in the table beside the figures.
    durability = ""
    # The same where a persistent session waits for the messages; default: `durability`.
    durability_kept = ""
    # "mqtt" or "kafka": what readiness is asked with.
    speaks = "mqtt"
    # Seconds of load before the measurement; a JVM needs some to compile.
    warmup = 1.0
    # Seconds that it may take to start.
    patience = 60.0

    def setup(self):
        """Installs the broker if need be and returns its version; raises `install.Missing`."""
        raise NotImplementedError

    def launch(self, run):
        """Returns command line and environment for `run`; sets the ports of `run`."""
        raise NotImplementedError

    def start(self, kept=False, tls=False, **settings):
        """Starts the broker and returns the `Run` once it answers."""
        return Run(self, kept, tls, settings)


class Run:
    """A running broker. `port` is that of its MQTT or Kafka listener, `tls_port` and `quic_port` are set where it has them."""

    def __init__(self, broker, kept, tls, settings):
        self.broker, self.kept, self.tls, self.settings = broker, kept, tls, settings
        self.dir = install.cache_dir() / "data" / re.sub(r"[^a-z0-9]+", "-", broker.name.lower())
        shutil.rmtree(self.dir, ignore_errors=True)
        self.dir.mkdir(parents=True)
        self.port = self.tls_port = self.quic_port = None
        words, environment = broker.launch(self)
        if Broker.pinned:
            words = ["taskset", "-c", "0" if (os.cpu_count() or 1) == 2 else f"0-{(os.cpu_count() or 2) - 2}", *words]
        self.log = open(self.dir / "output.log", "wb")
        begin = time.monotonic()
        # A session of its own: whatever the broker starts ends with it.
        self.process = subprocess.Popen(
            [str(word) for word in words], cwd=self.dir, env=environment, stdin=subprocess.DEVNULL,
            stdout=self.log, stderr=subprocess.STDOUT, start_new_session=True)  # fmt: skip
        RUNNING.append(self)
        try:
            self.wait_ready(begin + broker.patience)
        except BaseException:
            self.stop()
            raise
        self.ready_seconds = time.monotonic() - begin
        self.settle(1)
        self.idle_bytes = self.memory()[0]

    def wait_ready(self, deadline):
        """Asks until the broker answers as a client of its protocol expects."""
        ask = wire.mqtt_answers if self.broker.speaks == "mqtt" else wire.kafka_answers
        while not ask(self.port):
            if self.process.poll() is not None:
                raise Failed(f"{self.broker.name} ended with code {self.process.returncode}: {self.last_words()}")
            if time.monotonic() > deadline:
                raise Failed(f"{self.broker.name} was not ready within {self.broker.patience:.0f} s: {self.last_words()}")
            time.sleep(0.002)

    def settle(self, seconds):
        """Waits until the broker rests, at most `seconds`: starting and closing have their aftermath."""
        deadline, before = time.monotonic() + seconds, self.cpu_seconds()
        while time.monotonic() < deadline:
            time.sleep(0.25)
            now = self.cpu_seconds()
            if now - before < 0.02:
                return
            before = now

    def last_words(self):
        """The end of what the broker printed."""
        lines = [line for line in self.output().splitlines() if line.strip()]
        return install.plain(" | ".join(lines[-3:]))[-300:] or "it printed nothing"

    def output(self):
        return (self.dir / "output.log").read_text(errors="replace")

    def cpu_seconds(self):
        """User and system time of the broker and the processes that it started."""
        return sum(cpu_of(pid) for pid in family(self.process.pid))

    def memory(self):
        """Resident bytes now and at their highest, all processes together."""
        fields = [status(pid) for pid in family(self.process.pid)]
        return sum(field.get("VmRSS", 0) for field in fields), sum(field.get("VmHWM", 0) for field in fields)

    def stop(self):
        """Kills the broker and what it started, and removes its data."""
        if self in RUNNING:
            RUNNING.remove(self)
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            print(f"warning: {self.broker.name} (process {self.process.pid}) does not end")
        self.log.close()
        shutil.rmtree(self.dir, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


def stop_all():
    """Ends every broker that still runs, whatever went wrong before."""
    for run in list(RUNNING):
        run.stop()


# Below those that systems hand out by themselves (32768 and on): no other socket gets one before it is bound.
PORTS = itertools.cycle(range(12000, 32000))


def free_port():
    """A TCP port of loopback that nobody listens on, another one at each call."""
    while True:
        port = next(PORTS)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue


def family(pid):
    """The process and all its descendants."""
    children = {}
    for entry in pathlib.Path("/proc").glob("[0-9]*/stat"):
        fields = read(entry).rpartition(")")[2].split()
        if len(fields) > 1:
            children.setdefault(int(fields[1]), []).append(int(entry.parent.name))
    found, waiting = [], [pid]
    while waiting:
        found.append(waiting.pop())
        waiting += children.get(found[-1], [])
    return found


def cpu_of(pid):
    fields = read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS if len(fields) > 12 else 0.0


def status(pid):
    """The fields of /proc/PID/status that are in kB, in bytes."""
    lines = (line.split() for line in read(f"/proc/{pid}/status").splitlines())
    return {words[0].rstrip(":"): int(words[1]) * 1024 for words in lines if len(words) == 3 and words[2] == "kB"}


def read(path):
    """A file of /proc, empty if its process is gone."""
    try:
        return pathlib.Path(path).read_text()
    except OSError:
        return ""
