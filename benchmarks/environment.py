"""The machine, the kernel, the versions and the commit a recording was made on."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

from benchmarks.implementations import Implementation
from benchmarks.lab import End, LabError

PACKAGES = ("cryptography", "numpy", "pynacl", "pyroute2", "python-pytun", "numba", "pyperf")
OFFLOADS = (
    "tx-checksumming",
    "scatter-gather",
    "tcp-segmentation-offload",
    "generic-segmentation-offload",
    "generic-receive-offload",
    "tx-udp-segmentation",
)


def environment() -> dict[str, Any]:
    """Everything that does not depend on an implementation."""
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "cpu": _cpu_model(),
        "cpus": os.cpu_count(),
        "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "openssl": _openssl(),
        "packages": {name: version for name in PACKAGES if (version := _package(name))},
        "load_average": os.getloadavg()[0],
    }


def tools() -> dict[str, str]:
    """Versions of the programs the whole-system benchmark uses."""
    return {name: _first_line([name, flag]) for name, flag in
            (("iperf3", "--version"), ("ping", "-V"), ("wg", "--version"))}  # fmt: skip


def commit() -> str:
    """The commit of the source tree, with ``+changes`` when it differs; empty elsewhere."""
    here = str(Path(__file__).parent)
    found = _first_line(["git", "-C", here, "rev-parse", "HEAD"])
    if not found:
        return ""
    tracked = ["git", "-C", here, "status", "--porcelain", "--untracked-files=no"]
    return found + ("+changes" if _first_line(tracked) else "")


def device(end: End, interface: str) -> dict[str, Any]:
    """MTU, segment limits and offloads of an interface of a lab."""
    found: dict[str, Any] = {}
    try:
        link = json.loads(end.run("ip", "-j", "-d", "link", "show", interface))
        found = {key: link[0][key] for key in ("mtu", "gso_max_size", "txqlen") if key in link[0]}
        features = end.run("ethtool", "-k", interface)
    except (LabError, FileNotFoundError):
        return found
    for line in features.splitlines():
        name, _, state = line.partition(": ")
        if name in OFFLOADS:
            found[name] = state.split()[0]
    return found


def versions(implementations: list[Implementation]) -> dict[str, str]:
    """The version that each program reports, by name."""
    return {i.name: i.version() for i in implementations if i.command}


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def _openssl() -> str:
    from cryptography.hazmat.backends.openssl import backend

    return backend.openssl_version_text()


def _package(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _first_line(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip().partition("\n")[0] if done.returncode == 0 else ""
