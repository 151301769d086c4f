"""What the tests need beyond Debian and Python packages, fetched once into the tools folder outside of the tree."""

import contextlib
import os
import pathlib
import shutil
import socket
import subprocess
import tempfile

DELTA = [("io.delta", "delta-spark_2.13", "4.0.0")]
KAFKA = [("org.apache.kafka", "kafka_2.13", "4.0.0"), ("org.apache.kafka", "kafka-tools", "4.0.0")]


def folder():
    root = pathlib.Path(os.environ.get("FOREBAY_INTEROP_DIR", pathlib.Path(tempfile.gettempdir()) / "forebay-interop"))
    root.mkdir(parents=True, exist_ok=True)
    return root


def once(name, build):
    """The folder `name`, filled by `build(folder)` unless an earlier run did so to the end."""
    target = folder() / name
    if not target.exists():
        half = folder() / f"{name}.part"
        shutil.rmtree(half, ignore_errors=True)
        half.mkdir()
        build(half)
        half.rename(target)
    return target


def run(words, **settings):
    """Runs a tool and returns what it printed; raises with all of it when it fails."""
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, **settings)
    if done.returncode != 0:
        raise AssertionError(f"{' '.join(map(str, words))[:300]}: code {done.returncode}\n{done.stdout[-6000:]}\n{done.stderr[-6000:]}")
    return done.stdout


def free_ports(count):
    """The first of `count` ports in a row that nobody has."""
    for first in range(20000 + os.getpid() % 5000, 60000, count):
        with contextlib.ExitStack() as held:
            try:
                for port in range(first, first + count):
                    held.enter_context(socket.socket()).bind(("127.0.0.1", port))
                return first
            except OSError:
                continue
    raise RuntimeError("no free ports")


def jars(name, artifacts):
    """The jars of Maven artifacts and of what they need."""

    def fetch(target):
        dependencies = "".join(
            f"<dependency><groupId>{group}</groupId><artifactId>{artifact}</artifactId><version>{version}</version></dependency>"
            for group, artifact, version in artifacts
        )
        with tempfile.TemporaryDirectory() as project:
            (pathlib.Path(project) / "pom.xml").write_text(
                '<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion><groupId>forebay</groupId>'
                f"<artifactId>interop</artifactId><version>1</version><dependencies>{dependencies}</dependencies></project>"
            )
            run(["mvn", "-q", "-B", "dependency:copy-dependencies", f"-DoutputDirectory={target}"], cwd=project, timeout=900)

    return sorted(once(name, fetch).glob("*.jar"))


def java_classpath(name, artifacts):
    """The same as Java's option -cp takes it."""
    return f"{jars(name, artifacts)[0].parent}/*"
