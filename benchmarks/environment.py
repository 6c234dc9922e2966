"""What a reader needs to judge or repeat the figures: machine, disk, versions."""

from __future__ import annotations

import datetime
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import psutil

from benchmarks.cluster import ROOT, disk_directory, filesystem
from benchmarks.commands import executable
from benchmarks.errors import BenchmarkError
from benchmarks.targets import ETCD

FSYNCS = 200
RECORD = 512  # bytes: about what a small batch of log entries takes

PACKAGES = ("raftstacks", "uvloop", "httptools", "msgspec", "starlette", "granian", "hypercorn", "locust")


@dataclass(frozen=True, slots=True)
class FsyncLatency:
    """Microseconds that an append of RECORD bytes and its fdatasync take."""

    p50_us: float
    p99_us: float
    count: int


def fsync_latency(directory: Path) -> FsyncLatency:
    """Measure on the disk of ``directory``, as a log writes: append, fdatasync, again."""
    times: list[float] = []
    with tempfile.NamedTemporaryFile(dir=directory, prefix="raftstacks-fsync-") as file:
        descriptor = file.fileno()
        os.posix_fallocate(descriptor, 0, FSYNCS * RECORD)
        os.fsync(descriptor)
        for _ in range(FSYNCS):
            began = time.perf_counter()
            os.write(descriptor, b"x" * RECORD)
            os.fdatasync(descriptor)
            times.append((time.perf_counter() - began) * 1e6)
    times.sort()
    return FsyncLatency(round(times[FSYNCS // 2], 1), round(times[FSYNCS * 99 // 100], 1), FSYNCS)


def describe() -> dict[str, str]:
    """Name and value of each fact, in the order in which a report shows them."""
    directory = disk_directory()
    latency = fsync_latency(directory)
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "revision": revision(),
        "processor": f"{_processor()}, {os.cpu_count()} CPUs",
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "disk": f"{filesystem(directory)}; append of {RECORD} bytes and fdatasync: "
        f"p50 {latency.p50_us:.0f} us, p99 {latency.p99_us:.0f} us ({latency.count} times)",
        "python": f"{platform.python_implementation()} {' '.join(sys.version.split())}",  # also how it was built
        **versions(),
    }


def revision(root: Path = ROOT) -> str:
    """The commit, and whether anything but results differs from it."""
    git = ("git", "-C", str(root))
    told = _run([*git, "describe", "--always"])
    if told is None or told.returncode != 0:
        return "unknown"
    changed = _run([*git, "status", "--porcelain", "--untracked-files=no", "--", ".", ":(exclude)stats"])
    return told.stdout.strip() + ("-dirty" if changed is not None and changed.stdout else "")


def load() -> float:
    """How many processes have wanted to run, in the mean of the last minute."""
    return os.getloadavg()[0]


def versions() -> dict[str, str]:
    found = {"etcd": _etcd_version(), "wrk": _wrk_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {name: version for name, version in found.items() if version}


def _etcd_version() -> str:
    try:
        told = _first_line(executable([ETCD, "--version"]))
    except BenchmarkError:
        return ""
    return told.removeprefix("etcd Version: ")


def _wrk_version() -> str:
    if shutil.which("wrk") is None:
        return ""
    # `wrk -v` prints its version and its usage and ends with status 1.
    told = re.search(r"^wrk (\S+)", _first_line(["wrk", "-v"]))
    return told.group(1) if told else "unknown"


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        named = re.search(r"^model name\s*:\s*(.+)$", cpuinfo.read_text(), re.MULTILINE)
        if named:
            return named.group(1)
    return platform.processor() or platform.machine()


def _first_line(command: Sequence[str]) -> str:
    told = _run(command)
    return next(iter((told.stdout or told.stderr).splitlines()), "") if told is not None else ""


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str] | None:
    """None where there is no such program, or it does not end."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, cwd=ROOT, check=False)
    except (OSError, subprocess.SubprocessError):
        return None
