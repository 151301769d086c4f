"""Runs all interoperability tests and ends at once with their result.

An orderly exit of the interpreter now and then aborts when pyarrow's threads outlive it, after every test has passed.
"""

import os
import pathlib
import sys
import unittest

suite = unittest.defaultTestLoader.discover(str(pathlib.Path(__file__).parent))
result = unittest.TextTestRunner(verbosity=2).run(suite)
sys.stdout.flush()
sys.stderr.flush()
os._exit(0 if result.wasSuccessful() and result.testsRun else 1)
