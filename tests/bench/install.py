"""Puts the peers into a cache directory: Debian packages unpacked, not installed (so that no service starts), jars from Maven
Central, programs from crates.io. What is there already is used again.

Every failure is a `Missing`: the peer is then left out of the run, with the reason in the table.
"""

import os
import pathlib
import re
import shutil
import subprocess

POM = """<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>forebay.bench</groupId><artifactId>{name}</artifactId><version>1</version><dependencies><dependency>
<groupId>{group}</groupId><artifactId>{artifact}</artifactId><version>{version}</version></dependency></dependencies></project>
"""


class Missing(Exception):
    """A peer cannot be installed here; the text says why."""


def cache_dir():
    """Where peers, data and raw results are kept."""
    path = pathlib.Path(os.environ.get("FOREBAY_BENCH_DIR", "/tmp/forebay-bench")).resolve()
    path.mkdir(parents=True, exist_ok=True)
    return path


def command(words, timeout, cwd=None):
    """Runs a tool of the system and returns what it printed; `Missing` if it is not there, fails or hangs."""
    if shutil.which(words[0]) is None:
        raise Missing(f"{words[0]} is not on this machine")
    try:
        done = subprocess.run(words, cwd=cwd, timeout=timeout, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired:
        raise Missing(f"`{' '.join(words[:4])}` took more than {timeout} s") from None
    if done.returncode != 0:
        said = plain(done.stderr + done.stdout).strip().splitlines()
        # Cargo ends with its error; Maven ends with advice, behind the line that counts.
        tells = [line for line in said if re.match(r"\[ERROR\]|error|E:", line)] or said[-1:] or ["it said nothing"]
        raise Missing(f"`{' '.join(words[:4])}` failed: {tells[0][:200]}")
    return done.stdout


def plain(text):
    """Text without the colours of a terminal."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def once(folder, build):
    """Fills `folder` by `build(folder)` unless an earlier run did so to the end."""
    mark = folder / ".complete"
    if not mark.exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        build(folder)
        mark.write_text("")
    return folder


def debian(package):
    """Unpacks a Debian package and what it needs beyond this machine's packages; returns the root of the tree."""

    def unpack(folder):
        plan = command(["apt-get", "install", "-s", "--no-install-recommends", "--reinstall", package], 60)
        needed = sorted(set(re.findall(r"^Inst (\S+)", plan, re.MULTILINE)))
        if not needed:
            raise Missing(f"apt knows no package {package}; try apt-get update")
        command(["apt-get", "download", *needed], 300, cwd=folder)
        for archive in sorted(folder.glob("*.deb")):
            command(["dpkg", "-x", str(archive), str(folder / "root")], 60)
            archive.unlink()

    return once(cache_dir() / "debian" / package, unpack) / "root"


def debian_environment(root):
    """An environment in which the unpacked programs and libraries are found."""
    libraries = [str(path) for path in (root / "usr/lib/x86_64-linux-gnu", root / "usr/lib/aarch64-linux-gnu", root / "usr/lib")]
    programs = [str(root / "usr/sbin"), str(root / "usr/bin"), str(root / "usr/lib/erlang/bin")]
    path = os.pathsep.join(programs + [os.environ.get("PATH", "/usr/bin:/bin")])
    return {**os.environ, "PATH": path, "LD_LIBRARY_PATH": os.pathsep.join(libraries)}


def maven(group, artifact, versions):
    """Copies an artifact and its dependencies into a folder; the first of `versions` that is complete in Maven Central.

    Returns the folder of jars and the version.
    """
    if shutil.which("java") is None:
        raise Missing("java is not on this machine")
    trouble = None
    for version in versions:

        def copy(folder, version=version):
            (folder / "pom.xml").write_text(POM.format(name=artifact, group=group, artifact=artifact, version=version))
            words = ["mvn", "-q", "-B", "dependency:copy-dependencies", "-DoutputDirectory=lib", "-DincludeScope=runtime"]
            command(words, 300, cwd=folder)

        try:
            return once(cache_dir() / "maven" / f"{artifact}-{version}", copy) / "lib", version
        except Missing as error:
            trouble = error
    raise trouble


def cargo(crate, version):
    """Compiles a program of crates.io, which takes minutes the first time; returns its path."""

    def compile_it(folder):
        # Not --locked: rumqttd 0.20.0 ships a lock file with a crate that today's compiler refuses (bytebeamio/rumqtt#1070).
        words = ["cargo", "install", crate, "--version", version, "--root", str(folder), "-j", "1"]
        command(["nice", "-n", "15", *words], 1500, cwd=folder)

    return once(cache_dir() / "cargo" / f"{crate}-{version}", compile_it) / "bin" / crate


def certificate():
    """A self-signed certificate for TLS listeners: the paths of certificate and key."""

    def make(folder):
        words = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "3650"]
        words += ["-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem"), "-subj", "/CN=localhost"]
        command(words + ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"], 60)

    folder = once(cache_dir() / "certificate", make)
    return folder / "cert.pem", folder / "key.pem"
