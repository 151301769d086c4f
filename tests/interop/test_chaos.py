"""Three real nodes under load: the leader is killed, paused, cut off, its disk filled; clients that are not ours say what is left.

FOREBAY_CHAOS_ROUNDS sets how many rounds, FOREBAY_CHAOS_SEED which; see chaos/rounds.py.
"""

import json
import types
import unittest

from chaos import audit, faults, network


def reading(device, number):
    return json.dumps({"device": device, "seq": number}).encode()


def log_of(partitions):
    """A log that was read: by topic and partition, the records as (device, number)."""
    log = audit.Log()
    log.extend({
        one: [(offset, device.encode(), reading(device, number)) for offset, (device, number) in enumerate(records)]
        for one, records in partitions.items()
    })
    return log


READINGS, PURCHASES = ("readings", 0), ("purchases", 0)


class Checks(unittest.TestCase):
    """Each check finds what it is for, and nothing where nothing is wrong."""

    def setUp(self):
        self.log = log_of({READINGS: [("m1", 0), ("m1", 1), ("m1", 1), ("m1", 2)], PURCHASES: [("c1", 0), ("c1", 1)]})

    def published(self, acked, sent, log=None):
        return audit.published(types.SimpleNamespace(name="m1", acked=acked, sent=sent), log or self.log)()

    def produced(self, acked, idempotent=True, log=None):
        log = log or self.log
        log.taken = {}
        return audit.produced(types.SimpleNamespace(name="till", devices=["c1"], acked=acked, idempotent=idempotent), log)()

    def test_a_lost_reading(self):
        self.assertEqual(self.published([0, 1, 2], {1: 2}), [])
        self.assertEqual(self.published([0, 1, 2, 3], {1: 2}), ["m1: 3 was acknowledged and is lost"])
        self.assertEqual(self.published([0, 1, 2, 3], {1: 2}), [], "told again")
        gap = log_of({READINGS: [("m1", 0), ("m1", 2)]})
        self.assertEqual(self.published([1], {}, gap), ["m1: 1 was acknowledged and is lost"])
        self.assertEqual(audit.complete(gap, {"m1": 3}), ["m1: [1] are not there"])

    def test_a_reading_that_is_there_more_often_than_it_was_sent(self):
        self.assertEqual(self.published([1], {}), ["m1: 1 is there 2 times, sent 1 times"])
        self.assertEqual(self.published([1], {}), [], "told again")

    def test_readings_out_of_order_and_in_two_partitions(self):
        self.assertEqual(self.log.wrong, [])
        self.assertRegex(log_of({READINGS: [("m1", 0), ("m1", 2), ("m1", 1)]}).wrong[0], "m1: 1 comes first at .* behind later")
        self.assertRegex(log_of({READINGS: [("m1", 0)], ("readings", 1): [("m1", 1)]}).wrong[0], "m1 is in")

    def test_offsets_with_a_gap(self):
        self.log.extend({READINGS: [(5, b"m1", reading("m1", 3))]})
        self.assertRegex(self.log.wrong[0], "offset 5 comes after 3")

    def test_a_purchase_that_is_lost_elsewhere_or_doubled(self):
        self.assertEqual(self.produced([("c1", 0, 0, 0), ("c1", 1, 0, None)]), [])
        self.assertRegex(self.produced([("c1", 2, 0, 2)])[0], "c1: 2 .* is lost")
        self.assertRegex(self.produced([("c1", 1, 0, 0)])[0], "where another record is")
        twice = {PURCHASES: [("c1", 0), ("c1", 0)]}
        self.assertEqual(self.produced([], log=log_of(twice)), ["c1: 0 is there 2 times, sent 1 times"])
        self.assertEqual(self.produced([], idempotent=False, log=log_of(twice)), [])

    def test_another_reader_that_gets_something_else(self):
        whole = {one: [(offset, *record) for offset, record in enumerate(records)] for one, records in self.log.records.items()}
        self.assertEqual(audit.same(self.log, whole, "kcat"), [])
        self.assertRegex(audit.same(self.log, {**whole, PURCHASES: whole[PURCHASES][:1]}, "kcat")[0], "has 1 records, not 2")
        other = [whole[PURCHASES][0], (1, b"c1", reading("c1", 9))]
        self.assertRegex(audit.same(self.log, {**whole, PURCHASES: other}, "kcat")[0], "offset 1 is")

    def test_a_group_that_read_what_did_not_stay_or_skipped_something(self):
        read = {one: {offset: value for offset, (_, value) in enumerate(records)} for one, records in self.log.records.items()}
        group = types.SimpleNamespace(read=read, committed={PURCHASES: 2})
        self.assertEqual(audit.consumed(group, self.log), [])
        group.committed[PURCHASES] = 3
        self.assertRegex(audit.consumed(group, self.log)[0], "3 is committed, the end is 2")
        group.read[PURCHASES] = {1: reading("c1", 7), 2: reading("c1", 2)}
        wrong = audit.consumed(group, self.log)
        self.assertRegex(wrong[0], "offset 1, where b")
        self.assertRegex(wrong[1], "offset 2, where nothing is")
        self.assertRegex(wrong[2], r"has not read .* at \[0\]")

    def test_a_subscriber_that_missed_or_mixed_readings(self):
        self.assertEqual(audit.delivered([reading("m1", number) for number in (0, 1, 0, 1, 2)], self.log, "readings"), [])
        self.assertRegex(audit.delivered([reading("m1", number) for number in (0, 2, 1)], self.log, "readings")[0], "got 2 where the log has 1")
        self.assertEqual(audit.delivered([reading("m1", 0)], self.log, "readings"), ["of m1 the subscriber got 1 of 3"])

    def test_a_table_that_lacks_doubles_or_changes_rows(self):
        rows = [(0, 0, "c1", 0), (0, 1, "c1", 1)]
        self.assertEqual(audit.in_lake("purchases", rows, self.log), [])
        self.assertRegex(audit.in_lake("purchases", rows + rows[:1], self.log)[0], "offset 0 more than once")
        self.assertRegex(audit.in_lake("purchases", rows[1:], self.log)[0], r"lacks partition 0 offsets \[0\]")
        self.assertRegex(audit.in_lake("purchases", [rows[0], (0, 1, "c1", 0)], self.log)[0], "the log has not")


class Chaos(unittest.TestCase):
    def test_a_seed_says_what_is_done(self):
        everything = {"cuts", "disks"}
        self.assertEqual(faults.plan(7, 20, everything), faults.plan(7, 20, everything))
        self.assertEqual({kind for kind, *_ in faults.plan(7, 20, everything)}, set(faults.KINDS))
        self.assertEqual({kind for kind, *_ in faults.plan(7, 20, set())}, {"is killed -9", "is killed -9, as are the others,", "is paused"})

    def test_nothing_acknowledged_is_lost(self):
        code, told = network.run_inside("chaos.rounds")
        self.assertEqual(code, 0, told)


if __name__ == "__main__":
    unittest.main()
