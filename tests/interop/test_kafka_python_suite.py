"""kafka-python's own integration suite, from the source distribution of the version that is installed.

Every test must pass, but for those that kafka_python_suite.toml lists with a reason; of these none may pass, so that the list
stays true.
"""

import importlib.metadata
import json
import os
import pathlib
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


class KafkaPythonSuite(unittest.TestCase):
    def test_what_is_not_listed_passes_and_what_is_listed_does_not(self):
        suite = source()
        path = tools.folder() / "kafka-python-outcomes.json"
        path.unlink(missing_ok=True)
        environment = {
            **os.environ,
            "PYTHONPATH": str(HERE),
            "KAFKA_VERSION": SPOKEN,
            "KAFKA_PYTHON_SUITE": str(suite),
            "KAFKA_PYTHON_OUTCOMES": str(path),
        }
        pytest = [sys.executable, "-m", "pytest", "-p", "kafka_python_broker", "-p", "no:cacheprovider", "-q", "--tb=short", "--show-capture=no"]
        place = ["--rootdir", str(suite), "-c", str(suite / "pyproject.toml"), "--timeout=90", "--timeout-method=signal", str(suite / "test" / "integration")]
        try:
            tools.run([*pytest, *place], env=environment, cwd=suite, timeout=540)
            said = ""
        except AssertionError as failed:
            said = str(failed)
        self.assertTrue(path.exists(), said)
        outcomes = json.loads(path.read_text())
        listed = tomllib.loads((HERE / "kafka_python_suite.toml").read_text())
        expected = {name: reason for section in listed.values() for name, reason in section.items()}
        self.assertGreater(len(outcomes), 60, "tests of the suite")
        self.assertEqual(sorted(set(expected) - set(outcomes)), [], "listed, but the suite has no such test")
        passed = {name for name, (outcome, _) in outcomes.items() if outcome == "passed"}
        missed = {name: outcome for name, outcome in outcomes.items() if name not in passed and name not in expected}
        self.assertEqual(missed, {}, said)
        self.assertEqual(sorted(passed & set(expected)), [], "listed, but passes: take it off the list")
        print(f"kafka-python {VERSION}: {len(passed)} tests passed, {len(expected)} are listed", file=sys.stderr)


if __name__ == "__main__":
    unittest.main()
