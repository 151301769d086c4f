"""The example programs do what their first line says."""

import pathlib
import subprocess
import sys
import unittest

from gateway import Gateway

EXAMPLES = pathlib.Path(__file__).parents[2] / "examples" / "python"


def run(name, *arguments):
    done = subprocess.run(
        [sys.executable, EXAMPLES / name, *map(str, arguments)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


class Examples(unittest.TestCase):
    def test_publish_consume_and_read_the_lake(self):
        gateway = Gateway()
        try:
            self.assertIn("25 readings", run("publish.py", gateway.addresses["mqtt"], "m7", 25))
            self.assertIn("25 records", run("consume.py", gateway.addresses["kafka"], "readings"))
            gateway.flush("readings")
            self.assertIn("25 rows", run("lake.py", gateway.lake / "readings"))
        finally:
            gateway.stop()


if __name__ == "__main__":
    unittest.main()
