"""Where the nodes run: each in a network namespace of its own on one bridge, or, where that is not allowed, on loopback ports.

A cut is silent, as a broken switch is: the sender believes that the receiver has a link-layer address that nobody has.
"""

import collections
import os
import pathlib
import subprocess
import sys

import tools

NODES = (1, 2, 3)
CLIENTS = 0
LISTENERS = {"mqtt": 1883, "kafka": 9092, "http": 8080, "cluster": 9192}
NOBODY = "02:00:00:00:00:99"
INSIDE = "FOREBAY_CHAOS_INSIDE"
# Lines of a run that failed which its test repeats.
TOLD = 20
# In front of a command: it ends when the process that started it does, however that ended.
BOUND = ["setpriv", "--pdeathsig", "SIGKILL"]

# Root takes namespaces without a user namespace; others get one in which they are root.
WAYS = {
    "networks": (["unshare", "--net", "--mount"], ["unshare", "--user", "--map-root-user", "--net", "--mount"]),
    "disks": (["unshare", "--mount"], ["unshare", "--user", "--map-root-user", "--mount"]),
}
PROBES = {
    "networks": "mount -t tmpfs none /run && ip netns add probe && ip link add probe type bridge && ip link set lo up",
    "disks": "mount -t tmpfs none /run",
}


def surroundings():
    """What this machine allows (`networks`, `disks` or `nothing`), and the command in front that gives it."""
    for what, ways in WAYS.items():
        for words in ways:
            try:
                done = subprocess.run([*words, "sh", "-c", PROBES[what]], capture_output=True, timeout=20)
            except (OSError, subprocess.TimeoutExpired):
                continue
            if done.returncode == 0:
                return what, words
    return "nothing", []


def ip(*words):
    tools.run(["ip", *words])


class Loopback:
    """All nodes on this machine's loopback: no link can be cut."""

    cuts = False

    def __init__(self):
        self.first = tools.free_ports(len(NODES) * len(LISTENERS))

    def host(self, node):
        return "127.0.0.1"

    def port(self, node, listener):
        return self.first + len(LISTENERS) * (node - 1) + list(LISTENERS).index(listener)

    def inside(self, node):
        return []

    def address(self, node, listener):
        return f"{self.host(node)}:{self.port(node, listener)}"

    def heal(self):
        pass


class Namespaces(Loopback):
    """A namespace for each node, joined by a bridge in this process's own, where the clients are. All of it ends with this process."""

    cuts = True

    def __init__(self):
        self.lost = set()
        subprocess.run(["mount", "-t", "tmpfs", "none", "/run"], check=True)
        ip("link", "set", "lo", "up")
        ip("link", "add", "hub", "type", "bridge")
        ip("address", "add", f"{self.host(CLIENTS)}/24", "dev", "hub")
        for node in NODES:
            ip("netns", "add", f"node{node}")
            ip("link", "add", f"node{node}", "type", "veth", "peer", "name", "eth0", "netns", f"node{node}")
            ip("link", "set", f"node{node}", "master", "hub", "up")
            for words in (["link", "set", "lo", "up"], ["link", "set", "eth0", "up"], ["address", "add", f"{self.host(node)}/24", "dev", "eth0"]):
                self.ip_of(node, *words)
        ip("link", "set", "hub", "up")

    def host(self, node):
        return f"10.77.0.{node or 254}"

    def port(self, node, listener):
        return LISTENERS[listener]

    def inside(self, node):
        return [] if node == CLIENTS else ["nsenter", f"--net=/run/netns/node{node}"]

    def ip_of(self, node, *words):
        tools.run([*self.inside(node), "ip", *words])

    def lose(self, sender, receiver):
        """Whatever `sender` sends to `receiver` is lost from now on."""
        device = "hub" if sender == CLIENTS else "eth0"
        self.ip_of(sender, "neigh", "replace", self.host(receiver), "lladdr", NOBODY, "dev", device, "nud", "permanent")
        self.lost.add((sender, receiver, device))

    def heal(self):
        for sender, receiver, device in self.lost:
            self.ip_of(sender, "neigh", "del", self.host(receiver), "dev", device)
        self.lost = set()


def run_inside(module):
    """Runs `python -m module` in namespaces of its own, as far as this machine allows; its exit code and what it found, or last printed."""
    allowed, words = surroundings()
    words = [*BOUND, *words, sys.executable, "-u", "-W", "ignore::ResourceWarning", "-m", module]
    found, last = [], collections.deque(maxlen=TOLD)
    with subprocess.Popen(
        words,
        cwd=pathlib.Path(__file__).parents[1],
        env={**os.environ, INSIDE: allowed},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        for line in process.stdout:
            print(line, end="", flush=True)
            if "WRONG" in line or line.startswith("seed "):
                found.append(line)
            # Not what librdkafka says of nodes that are gone.
            elif not line.startswith("%"):
                last.append(line)
    return process.returncode, "".join(found[:TOLD] + (list(last) if len(found) < 2 else []))


def here():
    """The network of this process, which `run_inside` has started; and whether it may mount small disks."""
    allowed = os.environ.get(INSIDE, "nothing")
    return (Namespaces() if allowed == "networks" else Loopback()), allowed != "nothing"


def small_disk(at, size):
    """Makes the folder `at` a file system of its own of `size`; gone with this process's namespace."""
    at.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", at], check=True)
