"""The tables of the cluster benchmark: which columns each part has, and how a step's figures read."""

import tables
from cluster_parts import quantile

ONE, ALL, SINGLE = "Forebay, one node", "Forebay, 3 nodes", "Forebay, 3 nodes, clients at one"


def of_all(field, share):
    """A quantile over the lists of all runs, in ms; a share of 1 is the highest."""

    def cell(results, row):
        found = [value for one in tables.values(results, row, field) for value in one]
        return tables.number(quantile(found, share) * 1e3) if found else "–"

    return cell


def quantiles(title, field, *names):
    shares = {"median": 0.5, "p90": 0.9, "p99": 0.99, "max": 1}
    return [(f"{title}, {name}, ms", of_all(field, shares[name])) for name in names]


def values(field, digits=0, scale=1.0):
    return lambda results, row: tables.spread(tables.values(results, row, field), digits, scale)


def named(*names):
    return [(name, tables.COLUMNS[name]) for name in names]


LATENCIES = named("ack p50, ms", "ack p99, ms")
COSTS = named("broker's CPU, s per million", "generator's CPU, s per million", "peak resident, MB")
MQTT_COLUMNS = [*named("messages/s"), ("share of one node", tables.ratio_column("", "messages_per_second", ONE, inverse=True)[1]), *LATENCIES, *COSTS]
PARTS = {
    "failover": (
        "The leader is killed",
        "kill -9 of the leader of a partition under paced load, until the first ack of a message that was due later. The node starts again, "
        "and when all replicas are in sync the next leader is killed, each node in turn; some of them were the controller, too.",
        [("kills", values("kills")), ("of them controllers", values("controllers")), *quantiles("producer", "producer", "median", "p99", "max"),
         *quantiles("MQTT at a survivor", "survivors", "median", "p99", "max")]),
    "moves": (
        "The leadership is moved",
        "The longest time of an ack within a second of the move, less the median of the second before. The last columns are the same about a "
        "moment between two moves: what disk and machine add by themselves.",
        [("moves", lambda results, row: str(sum(tables.values(results, row, "moves")))),
         *quantiles("producer", "producer", "median", "p90", "max"), *quantiles("MQTT, any node", "survivors", "median", "p90", "max"),
         *quantiles("without a move", "still", "median", "p90", "max")]),
    "mqtt": (
        "MQTT at full load, three replicas",
        "QoS 1, readings of 200 bytes, 100 connections with 20 in flight each, spread over the nodes or at one of them. All nodes and "
        "generators share the machine: the cores that make one copy make three.", MQTT_COLUMNS),
    "meters": (
        "MQTT at full load, three replicas, more meters",
        "The same with 500 connections: what a commit costs is shared by as many messages as wait for it.", MQTT_COLUMNS),
    "produce": (
        "Kafka produce, three replicas",
        "acks=all, records of 1 KiB in batches of 64 KiB, 4 connections with 5 requests in flight, 4 partitions.",
        [*named("MB/s"), tables.ratio_column("Forebay is faster by", "megabytes_per_second", ALL), *LATENCIES, *COSTS]),
    "catchup": (
        "A follower comes back",
        "One node is killed, the others are loaded over Kafka's protocol, and it starts again; what it lacks is in the others' page cache. No "
        "throttle is set. Meanwhile a paced producer goes on.",
        [("behind, GB", values("behind_bytes", 1, 1e-9)), ("MB/s from exec", values("megabytes_per_second")),
         ("MB/s from ready", values("from_ready_megabytes_per_second")), ("all in sync after, s", values("in_sync_seconds", 1)),
         ("acks meanwhile", values("acked")), ("p50, ms", values("p50_seconds", 1, 1e3)), ("max, ms", values("max_seconds", 0, 1e3)),
         ("the follower's peak, MB", values("peak_bytes", 0, 1e-6))]),
    "idle": (
        "Replicas at rest",
        "A topic with three replicas of each partition, nothing written; then all nodes are killed and started together. Memory is that of "
        "the largest node.",
        [("partitions", values("partitions")), ("resident without it, MB", values("empty_bytes", 0, 1e-6)),
         ("with it, MB", values("resident_bytes", 0, 1e-6)), ("after the restart, MB", values("again_bytes", 0, 1e-6)),
         ("made and in sync after, s", values("made_seconds", 1)), ("cores of all three", values("cores", 2)),
         ("restart: all ready after, s", values("start_seconds", 1)), ("all in sync after, s", values("in_sync_seconds", 1))]),
}  # fmt: skip


def tell(result):
    """A step's figures in words."""
    if "producer" in result:
        words = [f"{who} p50 {quantile(result[who], 0.5) * 1e3:,.0f} ms, max {max(result[who]) * 1e3:,.0f} ms"
                 for who in ("producer", "survivors") if result[who]]  # fmt: skip
        return ", ".join(words)
    if "behind_bytes" in result:
        return f"{result['megabytes_per_second']:,.0f} MB/s, {result['behind_bytes'] / 1e9:.1f} GB"
    if "made_seconds" in result:
        made, again = (f"{result[name]:.1f} s" for name in ("made_seconds", "in_sync_seconds"))
        return f"{result['resident_bytes'] / 1e6:.0f} MB, made in {made}, in sync again after {again}"
    figures = f"{result['messages_per_second']:,.0f} messages/s, p50 {result['p50_seconds'] * 1e3:.1f} ms"
    return f"{figures}, {result['cpu_per_million']:.2f} CPU s per million"


def render(data):
    """All tables of one run."""
    parts = [f"{tables.place(data)} {tables.HOW_TO_READ}"]
    for part, (title, text, columns) in PARTS.items():
        results = [r for r in data["results"] if r["scenario"] == part]
        if not results:
            continue
        lines = []
        for row in tables.rows_of(results):
            first = [row_title(data, row), tables.durability(data, row, part)]
            lines.append(first + [cell(results, row) for _, cell in columns])
        heads = ["cluster", "what an ack means"] + [name for name, _ in columns]
        parts.append(f"### {title}\n\n{text}\n\n{tables.table(heads, lines)}{tables.failures(results)}")
    parts += [f"{peer} is left out: {reason}." for peer, reason in data["skipped"].items()]
    return "\n\n".join(parts) + "\n"


def row_title(data, row):
    """A row's name with the version of its program."""
    name = row.split(",")[0]
    return row.replace(name, f"{name} {data['versions'][name]}", 1) if name in data["versions"] else row
