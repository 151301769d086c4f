"""What the machine is and what its disk does: the yardsticks beside the figures of the brokers."""

import os
import pathlib
import platform
import re
import shutil
import statistics
import subprocess
import time

BLOCK = 4 << 10
CHUNK = 1 << 20


def facts(folder):
    """The machine in words, for the head of the tables; `folder` tells which filesystem counts."""
    memory = re.search(r"MemTotal:\s+(\d+)", text("/proc/meminfo"))
    model = re.search(r"model name\s*:\s*(.+)", text("/proc/cpuinfo"))
    return {
        "cpu": model.group(1).strip() if model else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "memory_gib": round(int(memory.group(1)) / (1 << 20)) if memory else None,
        "kernel": platform.release(),
        "virtual": "hypervisor" in text("/proc/cpuinfo"),
        "filesystem": filesystem(folder),
        "fdatasync_seconds": fdatasync_seconds(folder),
    }


def filesystem(folder):
    """Type of the filesystem that `folder` is on, from the longest mount point that leads to it."""
    best = ("", "unknown")
    for line in text("/proc/self/mounts").splitlines():
        words = line.split()
        if len(words) > 2 and pathlib.Path(folder).is_relative_to(words[1]) and len(words[1]) >= len(best[0]):
            best = (words[1], words[2])
    return best[1]


def busy_seconds():
    """CPU time that all programs and the kernel have used since the machine started."""
    fields = [int(word) for word in text("/proc/stat").split("\n", 1)[0].split()[1:]]
    # user, nice, system, irq, softirq, steal: all but idle and iowait.
    return (sum(fields[:3]) + sum(fields[5:8])) / os.sysconf("SC_CLK_TCK")


def fdatasync_seconds(folder, count=300):
    """Median of `count` bare appends of 4 KiB, each with its fdatasync."""
    path, block, times = pathlib.Path(folder) / "fdatasync.probe", os.urandom(BLOCK), []
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        for _ in range(count):
            begin = time.perf_counter()
            os.write(handle, block)
            os.fdatasync(handle)
            times.append(time.perf_counter() - begin)
    finally:
        os.close(handle)
        path.unlink()
    return statistics.median(times)


def write_rate(folder, seconds):
    """Bytes a second of one thread that appends chunks of 1 MiB, each with its fdatasync."""
    path, chunk, written = pathlib.Path(folder) / "write.probe", os.urandom(CHUNK), 0
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        begin = time.perf_counter()
        while time.perf_counter() - begin < seconds:
            written += os.write(handle, chunk)
            os.fdatasync(handle)
        return written / (time.perf_counter() - begin)
    finally:
        os.close(handle)
        path.unlink()


def settle():
    """Lets the disk finish what the run before left to it, so that the next does not pay."""
    try:
        subprocess.run(["sync"], timeout=120, check=False)
    except (OSError, subprocess.TimeoutExpired):
        print("warning: the disk is still busy with what was written before")


def free_bytes(folder):
    return shutil.disk_usage(folder).free


def text(path):
    try:
        return pathlib.Path(path).read_text()
    except OSError:
        return ""
