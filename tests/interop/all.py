"""Runs all interoperability tests, or those of the modules named, and ends at once with their result.

An orderly exit of the interpreter now and then aborts when pyarrow's threads outlive it, after every test has passed.
"""

import os
import pathlib
import sys
import unittest

names = sys.argv[1:]
loader = unittest.defaultTestLoader
suite = loader.loadTestsFromNames(names) if names else loader.discover(str(pathlib.Path(__file__).parent))
result = unittest.TextTestRunner(verbosity=2).run(suite)
sys.stdout.flush()
sys.stderr.flush()
os._exit(0 if result.wasSuccessful() and result.testsRun else 1)
