"""How long acknowledgements paused: the longest time between two acks of one device, the one that still lasts included."""

import threading
import time


class Pauses:
    def __init__(self):
        self.lock = threading.Lock()
        self.last = {}
        self.worst = {}

    def ack(self, device):
        now = time.monotonic()
        with self.lock:
            before = self.last.get(device, now)
            self.last[device] = now
            self.worst[device] = max(self.worst.get(device, 0), now - before)

    def begin(self):
        """Forgets the pauses of before."""
        with self.lock:
            self.worst = {}

    def longest(self):
        """Seconds, over all devices."""
        now = time.monotonic()
        with self.lock:
            return max((max(self.worst.get(device, 0), now - last) for device, last in self.last.items()), default=0)

    def stopped(self, since):
        """Devices without an ack since the time `since`."""
        with self.lock:
            return sorted(device for device, last in self.last.items() if last < since)
