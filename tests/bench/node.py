"""One `forebay serve` as a process whose memory can be read."""

import os
import pathlib
import signal
import subprocess
import threading
import time


class Node:
    """A node on ports of its own in `directory`; ready when constructed. `ready_ms` is the time from exec to the ready line."""

    def __init__(self, program, directory, settings=()):
        directory = pathlib.Path(directory)
        command = [str(program), "serve", "--data-dir", str(directory / "data")]
        for key in ("mqtt", "quic", "kafka", "http"):
            command += ["--set", f"listeners.{key}=127.0.0.1:0"]
        for setting in (f"object_store.url=file:{directory / 'lake'}", *settings):
            command += ["--set", setting]
        self.log = open(directory / "stderr.log", "ab")
        before = time.monotonic()
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self.log)
        line = self.process.stdout.readline().decode()
        self.ready_ms = (time.monotonic() - before) * 1000
        if not line.startswith("forebay ready "):
            self.kill()
            raise SystemExit(f"the node did not start: see {directory / 'stderr.log'}")
        self.addresses = dict(field.split("=", 1) for field in line.split()[2:])

    def port(self, listener):
        return int(self.addresses[listener].rsplit(":", 1)[1])

    def status(self, field):
        """A field of /proc/PID/status in KiB, such as VmRSS."""
        for line in open(f"/proc/{self.process.pid}/status"):
            if line.startswith(field + ":"):
                return int(line.split()[1])
        raise KeyError(field)

    def cpu_seconds(self):
        fields = open(f"/proc/{self.process.pid}/stat").read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.kill()
        self.log.close()

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


class Watch:
    """Samples a node's resident memory in KiB each `interval` seconds while the block runs."""

    def __init__(self, node, interval=0.25):
        self.node, self.interval, self.samples, self.over = node, interval, [], threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)

    def run(self):
        while not self.over.wait(self.interval):
            self.samples.append(self.node.status("VmRSS"))

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()
