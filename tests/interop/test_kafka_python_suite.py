"""kafka-python's own integration suite, from the source distribution of the version that is installed.

Every test must pass, but for those that kafka_python_suite.toml lists with a reason; of these none may pass, so that the list
stays true.
"""

import importlib.metadata
import json
import os
import pathlib
import subprocess
import sys
import tarfile
import tomllib
import unittest

import tools

HERE = pathlib.Path(__file__).parent
VERSION = importlib.metadata.version("kafka-python")
# The version that the suite takes the broker for: it decides which tests are tried at all.
SPOKEN = "4.1.0"


def source():
    def download(target):
        tools.run(
            [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", "kafka-python", f"kafka-python=={VERSION}", "-d", target],
            timeout=300,
        )
        with tarfile.open(next(target.glob("*.tar.gz"))) as archive:
            archive.extractall(target, filter="data")

    return next(tools.once(f"kafka-python-{VERSION}", download).glob("*/"))


def outcomes(suite, *tests):
    """Runs tests of the suite, all by default; test -> (outcome, reason), and what pytest said."""
    path = tools.folder() / "kafka-python-outcomes.json"
    path.unlink(missing_ok=True)
    environment = {
        **os.environ,
        "PYTHONPATH": str(HERE),
        "KAFKA_VERSION": SPOKEN,
        "KAFKA_PYTHON_SUITE": str(suite),
        "KAFKA_PYTHON_OUTCOMES": str(path),
    }
    words = [sys.executable, "-m", "pytest", "-p", "kafka_python_broker", "-p", "no:cacheprovider", "-q", "--tb=short", "--show-capture=no"]
    words += ["--rootdir", suite, "-c", suite / "pyproject.toml", "--timeout=90", "--timeout-method=signal"]
    folder = suite / "test" / "integration"
    done = subprocess.run(
        [*map(str, words), *([f"{folder}/{test}" for test in tests] or [str(folder)])],
        env=environment, cwd=suite, capture_output=True, text=True, timeout=600,
    )
    if not path.exists():
        raise AssertionError(done.stdout[-6000:] + done.stderr[-6000:])
    return json.loads(path.read_text())


class KafkaPythonSuite(unittest.TestCase):
    def test_what_is_not_listed_passes_and_what_is_listed_does_not(self):
        suite = source()
        found = outcomes(suite)
        listed = tomllib.loads((HERE / "kafka_python_suite.toml").read_text())
        expected = {name: reason for section in listed.values() for name, reason in section.items()}
        self.assertGreater(len(found), 60, "tests of the suite")
        self.assertEqual(sorted(set(expected) - set(found)), [], "listed, but the suite has no such test")
        missed = [name for name, (outcome, _) in found.items() if outcome != "passed" and name not in expected]
        # Its deadlines are of a second or two, which a busy machine does not keep: what fails is tried once more.
        again = outcomes(suite, *missed) if missed else {}
        self.assertEqual({name: why for name, why in again.items() if why[0] != "passed"}, {})
        passed = {name for name, (outcome, _) in found.items() if outcome == "passed"}
        self.assertEqual(sorted(passed & set(expected)), [], "listed, but passes: take it off the list")
        what = f"{len(passed)} tests passed, {len(missed)} at the second try, {len(expected)} are listed"
        print(f"kafka-python {VERSION}: {what}", file=sys.stderr)


if __name__ == "__main__":
    unittest.main()
