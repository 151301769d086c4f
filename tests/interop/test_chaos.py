"""Three real nodes under load: the leader is killed, paused, cut off, its disk filled; real clients say what is left.

FOREBAY_CHAOS_ROUNDS sets how many rounds, FOREBAY_CHAOS_SEED which; see chaos/rounds.py.
"""

import unittest

from chaos import network


class Chaos(unittest.TestCase):
    def test_nothing_acknowledged_is_lost(self):
        self.assertEqual(network.run_inside("chaos.rounds"), 0, "see what it printed")


if __name__ == "__main__":
    unittest.main()
