"""The faults: each is done to one node, kept for a while, and healed."""

import random

from . import network

NODES = network.NODES


def kill(cluster, victim, others):
    cluster.nodes[victim].kill()


def start(cluster, victim, others):
    cluster.nodes[victim].begin()


def pause(cluster, victim, others):
    cluster.nodes[victim].pause()


def go_on(cluster, victim, others):
    cluster.nodes[victim].go_on()


def fill(cluster, victim, others):
    cluster.nodes[victim].fill()


def empty(cluster, victim, others):
    cluster.nodes[victim].empty()


def mute(cluster, victim, others):
    for other in others:
        cluster.network.lose(victim, other)


def deafen(cluster, victim, others):
    for other in others:
        cluster.network.lose(other, victim)


def cut(cluster, victim, others):
    mute(cluster, victim, others)
    deafen(cluster, victim, others)


def isolate(cluster, victim, others):
    cut(cluster, victim, [*others, network.CLIENTS])


def cut_from_one(cluster, victim, others):
    cut(cluster, victim, others[:1])


def heal(cluster, victim, others):
    cluster.network.heal()


def die_and_heal(cluster, victim, others):
    """The node is killed with what it took while nobody heard it, and comes back to the others."""
    kill(cluster, victim, others)
    heal(cluster, victim, others)
    start(cluster, victim, others)


def kill_all(cluster, victim, others):
    for node in (victim, *others):
        kill(cluster, node, ())


def start_all(cluster, victim, others):
    for node in (*others, victim):
        start(cluster, node, ())


# What is done, what heals it, and what the machine must allow.
KINDS = {
    "is killed -9": (kill, start, None),
    "is paused": (pause, go_on, None),
    "cannot be heard by the other nodes": (mute, heal, "cuts"),
    "cannot hear the other nodes": (deafen, heal, "cuts"),
    "is cut off from the other nodes": (cut, heal, "cuts"),
    "is cut off from all, clients too": (isolate, heal, "cuts"),
    "is cut off from one other node": (cut_from_one, heal, "cuts"),
    "is cut off from the other nodes, then killed -9,": (cut, die_and_heal, "cuts"),
    "is killed -9, as are the others,": (kill_all, start_all, None),
    "has a full disk": (fill, empty, "disks"),
}
GROUP = "the group's offsets"
QUORUM = "the quorum"
# What clients see and what only nodes see.
TARGETS = (
    [("readings", partition) for partition in range(4)] * 2
    + [("purchases", partition) for partition in range(3)] * 2
    + [GROUP, QUORUM, QUORUM, ("_mqtt_sessions", 0), ("_lake_manifest", 0)]
)
# Shorter and longer than a node's session (3 s), in seconds, and around the time a follower may be behind (10 s).
LASTS = ((0.2, 3), (3, 8), (3, 8), (8, 13))


def plan(seed, rounds, allowed, only=""):
    """What is done in which round, drawn from the seed: (kind, whose leader, how long, the others' order, leaders go back after)."""
    draw = random.Random(seed)
    kinds = [kind for kind, (_, _, needs) in KINDS.items() if only in kind and (needs is None or needs in allowed)]
    deck, planned = [], []
    for _ in range(rounds):
        if not deck:
            deck = draw.sample(kinds, len(kinds))
        seconds = draw.uniform(*draw.choice(LASTS))
        planned.append((deck.pop(), draw.choice(TARGETS), round(seconds, 1), draw.random() < 0.5, draw.random() < 0.5))
    return planned
