"""From raw results to Markdown: medians, spreads, ratios within pairs, and the place in BENCHMARKS.md. Nothing here measures."""

import statistics

# Cores that other programs may keep busy before a reader must be warned; the kernel's own threads take some for the disk.
QUIET = 0.3
BEGIN, END = "<!-- side-by-side:begin -->", "<!-- side-by-side:end -->"


def spread(values, digits=0, scale=1.0):
    """Median with lowest and highest: `12 (10–15)`; one value stands alone, none is a dash."""
    if not values:
        return "–"
    middle, low, high = (number(f(values) * scale, digits) for f in (statistics.median, min, max))
    return middle if len(values) == 1 or low == high else f"{middle} ({low}–{high})"


def number(value, digits=0):
    """With thousands separated, as everything here is read by people."""
    return f"{value:,.{digits}f}"


def ratios(results, field, row, reference):
    """`reference` divided by `row` for each pair of each round that has both: what load and disk did meanwhile cancels out."""
    found = []
    for r in results:
        if r["row"] != row or not r.get(field):
            continue
        beside = [o[field] for o in results if is_beside(o, r) and o["row"] == reference and o.get(field)]
        if beside:
            found.append(statistics.median(beside) / r[field])
    return found


def is_beside(one, other):
    return (one["scenario"], one["round"], one["pair"]) == (other["scenario"], other["round"], other["pair"])


def rows_of(results):
    """The rows of a table, in the order in which they were first measured."""
    return list(dict.fromkeys(r["row"] for r in results))


def values(results, row, field):
    return [r[field] for r in results if r["row"] == row and r.get(field) is not None]


def table(head, lines):
    """A Markdown table; figures, all but the first two columns, stand at the right."""
    marks = ["---" if column < 2 else "---:" for column in range(len(head))]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [head, marks, *lines])


def failures(results):
    """One line for each thing that went wrong, with how often."""
    counts = {}
    for r in results:
        if "error" in r:
            counts[(r["row"], r["error"])] = counts.get((r["row"], r["error"]), 0) + 1
    return "".join(f"\n- {row}: failed in {times} of the runs: {error}" for (row, error), times in counts.items())


COLUMNS = {
    "messages/s": lambda rs, row: spread(values(rs, row, "messages_per_second")),
    "MB/s": lambda rs, row: spread(values(rs, row, "megabytes_per_second")),
    "ack p50, ms": lambda rs, row: spread(values(rs, row, "p50_seconds"), 2, 1e3),
    "ack p99, ms": lambda rs, row: spread(values(rs, row, "p99_seconds"), 1, 1e3),
    "ack p99.9, ms": lambda rs, row: spread(values(rs, row, "p99.9_seconds"), 1, 1e3),
    "ack max, ms": lambda rs, row: spread(values(rs, row, "max_seconds"), 0, 1e3),
    "sent late by p99, ms": lambda rs, row: spread(values(rs, row, "late_p99_seconds"), 1, 1e3),
    "asked for, messages/s": lambda rs, row: spread(values(rs, row, "rate")),
    "broker's CPU, s per million": lambda rs, row: spread(values(rs, row, "cpu_per_million"), 2),
    "generator's CPU, s per million": lambda rs, row: spread(values(rs, row, "generator_cpu_per_million"), 2),
    "peak resident, MB": lambda rs, row: spread(values(rs, row, "peak_bytes"), 0, 1e-6),
}


def ratio_column(title, field, reference, inverse=False):
    """How many times `row` goes into `reference`, or with `inverse` what share of it `row` reaches."""

    def cell(results, row):
        found = ratios(results, field, row, reference)
        found = [1 / value for value in found] if inverse else found
        return "1" if row == reference else spread(found, 2)

    return title, cell


def columns_of(scenario):
    """The columns of a scenario's table: titles with the functions that fill them."""
    plain = lambda *names: [(name, COLUMNS[name]) for name in names]  # noqa: E731
    costs = plain("broker's CPU, s per million", "generator's CPU, s per million", "peak resident, MB")
    if scenario in ("mqtt", "kept"):
        against = ratio_column("Forebay is faster by", "messages_per_second", "Forebay")
        return [*plain("messages/s"), against, *plain("ack p50, ms", "ack p99, ms"), *costs]
    if scenario == "doors":
        share = [("share of its TCP", share_of_tcp)]
        return [*plain("messages/s"), *share, *plain("ack p50, ms", "ack p99, ms"), *costs]
    if scenario == "latency":
        middle = ("ack p50, ms", lambda rs, row: spread(values(rs, row, "p50_seconds"), 3, 1e3))
        bare = ("one bare fdatasync, ms", lambda rs, row: spread(values(rs, row, "fdatasync_seconds"), 3, 1e3))
        times = ("p50 in fdatasyncs", lambda rs, row: spread(in_fdatasyncs(rs, row), 2))
        return [middle, bare, times, *plain("ack p99, ms", "messages/s")]
    if scenario == "half":
        quantiles = plain("ack p50, ms", "ack p99, ms", "ack p99.9, ms", "ack max, ms")
        return [*plain("asked for, messages/s", "messages/s"), *quantiles, *plain("sent late by p99, ms")]
    if scenario == "produce":
        raw = "one thread, 1 MiB writes, fdatasync"
        return [*plain("MB/s"), ratio_column("share of the bare disk", "megabytes_per_second", raw, inverse=True),
                ratio_column("Forebay is faster by", "megabytes_per_second", "Forebay"),
                *plain("ack p50, ms", "ack p99, ms"), *costs]  # fmt: skip
    core = ("GB/s for each core of the broker", lambda rs, row: spread(per_core(rs, row), 2))
    against = ratio_column("Forebay is faster by", "megabytes_per_second", "Forebay")
    return [*plain("MB/s"), against, core, *plain("messages/s"), *costs]


def share_of_tcp(results, row):
    reference = row.rsplit(", ", 1)[0] + ", TCP"
    return ratio_column("", "messages_per_second", reference, inverse=True)[1](results, row)


def in_fdatasyncs(results, row):
    return [r["p50_seconds"] / r["fdatasync_seconds"] for r in results if r["row"] == row and r.get("p50_seconds")]


def per_core(results, row):
    """Bytes that the broker served for each second of its CPU time."""
    found = [r for r in results if r["row"] == row and r.get("cpu_per_million") and r.get("messages_per_second")]
    return [r["megabytes_per_second"] / r["messages_per_second"] * 1e3 / r["cpu_per_million"] for r in found]


TITLES = {
    "mqtt": ("MQTT at full load", "QoS 1, readings of 200 bytes in JSON, 100 connections with 20 in flight, no subscriber."),
    "kept": ("MQTT at full load, for a session that is away",
             "The same, while a persistent session that subscribed to everything at QoS 1 is away, so that every broker has a reason "
             "to keep the messages. Forebay keeps them in any case."),  # fmt: skip
    "doors": ("TCP, TLS 1.3 and QUIC", "The first load again, over each door."),
    "latency": ("One message at a time",
                "One connection with one message in flight, beside an append of 4 KiB with fdatasync in the same filesystem "
                "(median of 300 before and 300 after each run)."),  # fmt: skip
    "half": ("Half of the full load", "At a fixed rate of half of the broker's own median above; latency counts from the time at which a message was due. "
             "Late are messages for which the window was full, or the generator got no processor."),
    "produce": ("Kafka produce", "acks=all, records of 1 KiB in batches of 64 KiB, 4 connections with 5 requests in flight, 4 partitions. "
                "Forebay also moves closed segments into the lake meanwhile; the second row shows it without."),
    "fetch": ("Kafka fetch from the page cache", "4 connections read 4 partitions again and again, 4 MiB a request."),
}  # fmt: skip


def render(data):
    """All tables of one run."""
    parts = [head(data)]
    for scenario, (title, text) in TITLES.items():
        results = [r for r in data["results"] if r["scenario"] == scenario]
        if not results:
            continue
        columns = columns_of(scenario)
        lines = []
        for row in rows_of(results):
            first = [row_title(data, row), durability(data, row, scenario)]
            if any("error" not in r for r in results if r["row"] == row):
                lines.append(first + [cell(results, row) for _, cell in columns])
            else:
                lines.append(first + ["failed"] + ["–"] * (len(columns) - 1))
        for peer, reason in data["skipped"].items():
            if data["protocols"].get(peer) == ("kafka" if scenario in ("produce", "fetch") else "mqtt") and scenario in ("mqtt", "kept", "produce", "fetch"):
                lines.append([peer, f"left out: {reason}"] + ["–"] * len(columns))
        command = next((r["command"] for r in results if "command" in r), None)
        shown = f"\n\n```sh\n{command}\n```" if command else ""
        heads = ["broker", "what an ack means"] + [name for name, _ in columns]
        parts.append(f"### {title}\n\n{text}{shown}\n\n{table(heads, lines)}{failures(results)}")
    parts.append(start_and_memory(data))
    return "\n\n".join(parts) + "\n"


def row_title(data, row):
    """A row's name with the version of its broker."""
    name = row.split(",")[0]
    version = data["versions"].get(name)
    return row.replace(name, f"{name} {version}", 1) if version else row


def durability(data, row, scenario):
    words = data["durability"].get(row) or data["durability"].get(row.split(",")[0]) or {}
    return words.get("kept" if scenario == "kept" else "plain", "–")


def start_and_memory(data):
    """Time to readiness and memory, from all runs that started a broker."""
    started = [r for r in data["results"] if "ready_seconds" in r]
    lines = []
    for name in dict.fromkeys(r["row"].split(", T")[0].split(", Q")[0] for r in started):
        own = [r for r in started if r["row"] == name or r["row"].startswith((f"{name}, T", f"{name}, Q"))]
        full = [r for r in own if r["scenario"] in ("mqtt", "produce")]
        get = lambda field, rs=own: [r[field] for r in rs]  # noqa: E731
        lines.append([row_title(data, name), str(len(own)), spread(get("ready_seconds"), 0, 1e3), spread(get("idle_bytes"), 0, 1e-6),
                      spread(get("resident_bytes", full), 0, 1e-6), spread(get("peak_bytes", full), 0, 1e-6)])  # fmt: skip
    heads = ["broker", "starts", "ready after, ms", "resident idle, MB", "resident after full load, MB", "peak at full load, MB"]
    text = "From exec on an empty directory to the first accepted session (Kafka: the first answer that names a broker)."
    return f"### Start and memory\n\n{text}\n\n{table(heads, lines)}"


def head(data):
    """The machine and how the figures were made."""
    o = data["options"]
    return (
        f"{place(data)} {o['rounds']} rounds of {o['seconds']} s a run, "
        f"generator on the same machine, threads: {o['threads']}, {'pinned to the last core' if o['pin'] else 'not pinned'}. {HOW_TO_READ}"
    )


HOW_TO_READ = (
    "Cells show the median, with the lowest and the highest run in brackets; ratios are medians over the pairs of neighbouring runs. "
    "CPU is user and system time."
)


def place(data):
    """Where and when, and whether the machine was quiet."""
    m, noise = data["machine"], others(data["results"])
    noisy = ", so rates and latencies are worse than on a quiet machine" if noise > QUIET else ""
    kind = "virtual machine" if m["virtual"] else "machine"
    return (
        f"Taken on {data['date']} on a {kind} with {m['cores']} cores ({m['cpu']}), {m['memory_gib']} GiB of memory, Linux {m['kernel']}, "
        f"{m['filesystem']}; one bare fdatasync after an append of 4 KiB takes {m['fdatasync_seconds'] * 1e3:.2f} ms (median); "
        f"other programs and the kernel's own threads kept {noise:.1f} cores busy meanwhile{noisy}."
    )


def others(results):
    """Cores that were busy during the runs with neither broker nor generator, in the median."""
    return statistics.median([r["others_cores"] for r in results if "others_cores" in r] or [0.0])


def replace_between(text, tables, begin=BEGIN, end=END):
    """`text` with `tables` between the markers."""
    if begin not in text or end not in text:
        raise ValueError(f"no {begin} ... {end} to write between")
    before, rest = text.split(begin, 1)
    return f"{before}{begin}\n\n{tables}\n{end}{rest.split(end, 1)[1]}"
