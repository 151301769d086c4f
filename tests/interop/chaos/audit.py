"""What must hold of the log whatever happened, as checks of what clients sent, were told, and read; each answers with what is wrong."""

import json

# What one check tells at most: of a broken log each record would be wrong.
TOLD = 5


def shortened(wrong):
    return wrong[:TOLD] + ([f"... and {len(wrong) - TOLD} more of the kind"] if len(wrong) > TOLD else [])


class Log:
    """What an auditor has read so far, and from it for each device how often each of its numbers is there, in which order first."""

    def __init__(self):
        self.records = {}
        self.wrong = []
        # By device: the number that comes first next, those passed over so far, and those there several times.
        self.next = {}
        self.missing = {}
        self.copies = {}
        self.first = {}
        self.partition = {}
        self.taken = {}
        self.told = set()

    def ends(self):
        return {one: len(records) for one, records in self.records.items()}

    def extend(self, read):
        """Takes what was read from the ends on."""
        for one, records in read.items():
            known = self.records.setdefault(one, [])
            for offset, key, value in records:
                if offset != len(known):
                    self.wrong.append(f"{one}: offset {offset} comes after {len(known) - 1}")
                    continue
                known.append((key, value))
                self.take(one, offset, key, value)

    def take(self, one, offset, key, value):
        reading = json.loads(value)
        device, number = reading["device"], reading["seq"]
        if key != device.encode() or self.partition.setdefault(device, one) != one:
            self.wrong.append(f"{device} is in {one} with key {key}, before in {self.partition[device]}")
        following = self.next.setdefault(device, 0)
        if number >= following:
            self.missing.setdefault(device, set()).update(range(following, number))
            self.next[device] = number + 1
            self.first.setdefault(device, []).append(number)
        elif number in self.missing.get(device, ()):
            self.missing[device].discard(number)
            self.first[device].append(number)
            self.wrong.append(f"{device}: {number} comes first at {one} offset {offset}, behind later numbers")
        else:
            self.copies[device, number] = self.copies.get((device, number), 1) + 1

    def has(self, device, number):
        return number < self.next.get(device, 0) and number not in self.missing.get(device, ())

    def since(self, name, acked):
        """What came to the list `acked` of this name since it was asked for last."""
        start = self.taken.get(name, 0)
        new = acked[start:]
        self.taken[name] = start + len(new)
        return new

    def repeated(self, allowed):
        """What is there more often than `allowed` says of a device and its number (None: another's); each is told once."""
        wrong = []
        for (device, number), count in self.copies.items():
            often = allowed(device, number)
            if often is not None and count > often and (device, number, count) not in self.told:
                self.told.add((device, number, count))
                wrong.append(f"{device}: {number} is there {count} times, sent {often} times")
        return wrong


def published(meter, log):
    """A meter's: all that was acknowledged is there, and what is there more than once was sent that often.

    Takes what was acknowledged since the check before; the check is made later, when the log was read up to here.
    """
    acked = log.since(meter.name, meter.acked)

    def check():
        sent = dict(meter.sent)
        lost = [f"{meter.name}: {number} was acknowledged and is lost" for number in acked if not log.has(meter.name, number)]
        return shortened(lost) + shortened(log.repeated(lambda device, number: sent.get(number, 1) if device == meter.name else None))

    return check


def produced(producer, log):
    """A producer's: what was acknowledged is at the offset that was told (None: not told), and nothing is there twice."""
    acked = log.since(producer.name, producer.acked)

    def check():
        wrong = []
        for device, number, partition, offset in acked:
            where = f"{device}: {number} was acknowledged at partition {partition} offset {offset}"
            if not log.has(device, number):
                wrong.append(f"{where} and is lost")
            elif offset is not None and not is_at(log.records.get(("purchases", partition), []), offset, device, number):
                wrong.append(f"{where}, where another record is")
        once = log.repeated(lambda device, number: 1 if producer.idempotent and device in producer.devices else None)
        return shortened(wrong) + shortened(once)

    return check


def is_at(records, offset, device, number):
    if offset >= len(records):
        return False
    reading = json.loads(records[offset][1])
    return (reading["device"], reading["seq"]) == (device, number)


def complete(log, sent):
    """At the end: each device's numbers from 0 to the last that it sent are there."""
    wrong = [f"{device}: {log.next.get(device, 0)} of {count} are there" for device, count in sent.items() if log.next.get(device, 0) != count]
    return shortened(wrong + [f"{device}: {sorted(numbers)[:9]} are not there" for device, numbers in log.missing.items() if numbers])


def same(log, read, who):
    """What another reader got, in full, is what the log has."""
    wrong = []
    for one, known in log.records.items():
        got = read.get(one, [])
        wrong += [
            f"{who}: {one} offset {offset} is {(key, value)}, which is {known[at] if at < len(known) else 'nothing'} at {at}"
            for at, (offset, key, value) in enumerate(got)
            if at >= len(known) or (offset, key, value) != (at, *known[at])
        ]
        if len(got) != len(known):
            wrong.append(f"{who}: {one} has {len(got)} records, not {len(known)}")
    return shortened(wrong)


def consumed(group, log):
    """A group's members have read all, what they read is what stayed, and no more is committed."""
    wrong = []
    for one, records in log.records.items():
        read = group.read.get(one, {})
        wrong += [
            f"the group read {value} at {one} offset {offset}, where {records[offset][1] if offset < len(records) else 'nothing'} is"
            for offset, value in list(read.items())
            if offset >= len(records) or records[offset][1] != value
        ]
        unread = [offset for offset in range(len(records)) if offset not in read]
        if unread:
            wrong.append(f"the group has not read {one} at {unread[:9]} ({len(unread)} of {len(records)})")
        if group.committed.get(one, 0) > len(records):
            wrong.append(f"{one}: {group.committed[one]} is committed, the end is {len(records)}")
    return shortened(wrong)


def delivered(received, log, topic):
    """A subscriber got each reading that is in the log, each device's in the log's order, counting first deliveries."""
    got = {}
    for payload in received:
        reading = json.loads(payload)
        got.setdefault(reading["device"], {})[reading["seq"]] = True
    wrong = []
    for device, one in log.partition.items():
        if one[0] == topic:
            there, has = list(got.get(device, ())), log.first[device]
            at = next((at for at, (a, b) in enumerate(zip(there, has)) if a != b), None)
            if at is not None:
                wrong.append(f"of {device} the subscriber got {there[at]} where the log has {has[at]}")
            elif len(there) != len(has):
                wrong.append(f"of {device} the subscriber got {len(there)} of {len(has)}")
    return shortened(wrong)


def in_lake(topic, rows, log):
    """The table's rows (partition, offset, device, number): each offset of the log once, saying what the log says."""
    wrong, seen = [], set()
    for partition, offset, device, number in rows:
        if (partition, offset) in seen:
            wrong.append(f"the table {topic} has partition {partition} offset {offset} more than once")
        seen.add((partition, offset))
        records = log.records.get((topic, partition), [])
        if not is_at(records, offset, device, number):
            wrong.append(f"the table {topic} has {device} {number} at partition {partition} offset {offset}, the log has not")
    for (other, partition), records in log.records.items():
        if other == topic:
            lacking = [offset for offset in range(len(records)) if (partition, offset) not in seen]
            if lacking:
                wrong.append(f"the table {topic} lacks partition {partition} offsets {lacking[:9]} ({len(lacking)} of {len(records)})")
    return shortened(wrong)
