"""The monitor of a running cluster: records every pod packet seen in plaintext.

It looks into frames, not at addresses alone, and calls everything a leak that is not of a
class which belongs on an underlay (`classify`).

`python -P -m testbed.sentinel NAME` runs as long as its cluster does.  It keeps the counts in
`sentinel.json` and appends every leaked packet to `sentinel.jsonl`, so that
`wgpy testbed inspect` can report what has been on the wire since the cluster started.
Tests use `Sniffer` directly; this process is for clusters that outlive the command that
started them.

Its counts are meaningful only while it receives frames.  So `ask` sends a canary from every
node and waits until the sentinel has recorded all of them; earlier frames are then counted
too.  A sentinel that is dead, stopped, late, receives nothing or missed a frame is a
`SentinelError`, never a zero.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from testbed.classify import LEAKS, Kind
from testbed.cluster import Cluster
from testbed.discovery import write
from testbed.namespaces import start_time
from testbed.sniffer import Record, Sniffer, SnifferBlind, send_canaries
from wgpy.programs import python_module

INTERVAL = 0.05
"""Seconds between two polls of the ring."""
PATIENCE = 10.0
"""Seconds within which a canary must be recorded."""
LOG_LIMIT = 10_000
"""Plaintext packets recorded; counting continues."""


class SentinelError(Exception):
    """The sentinel does not work; says why and what to do."""


def describe(record: Record) -> dict[str, Any]:
    """A record as JSON; `head` is hexadecimal."""
    packet = asdict(record.packet)
    packet["kind"] = record.packet.kind.name
    return {
        "at": record.at,
        "port": record.port,
        "length": record.length,
        "head": record.head.hex(),
        **packet,
    }


def counts(sniffer: Sniffer) -> dict[str, Any]:
    """The counters as JSON."""
    return {
        "frames": sniffer.frames,
        "missed": sniffer.missed,
        "pid": os.getpid(),
        "started": start_time(os.getpid()),
        "canaries": [canary.hex() for canary in sniffer.canaries],
        "kinds": {kind.name: sniffer.counts[kind] for kind in Kind if sniffer.counts[kind]},
    }


def watch(cluster: Cluster) -> None:
    """Until the cluster goes away."""
    written = 0
    last: dict[str, Any] = {}
    with (cluster.folder / "sentinel.jsonl").open("a", encoding="utf-8") as log:

        def on_record(record: Record) -> None:
            nonlocal written
            if record.packet.kind in LEAKS and written < LOG_LIMIT:
                written += 1
                log.write(json.dumps(describe(record)) + "\n")
                log.flush()

        with cluster.sniffer(on_record=on_record) as sniffer:
            while cluster.folder.exists():
                sniffer.drain()
                if (now := counts(sniffer)) != last:
                    last = now
                    write(cluster.folder / "sentinel.json", json.dumps(now))
                time.sleep(INTERVAL)


def launch(cluster: Cluster) -> None:
    """Start the sentinel of `cluster`; returns when it has seen its first canary."""
    with (cluster.folder / "sentinel.log").open("wb") as log:
        process = subprocess.Popen(
            python_module("testbed.sentinel", cluster.name),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=log,
            start_new_session=True,
        )
    deadline = time.monotonic() + PATIENCE
    while not read(cluster.folder):
        if process.poll() is not None or time.monotonic() > deadline:
            raise SentinelError(f"the sentinel did not start: {_last_words(cluster.folder)}")
        time.sleep(0.01)
    ask(cluster)


def ask(cluster: Cluster, patience: float = PATIENCE) -> dict[str, Any]:
    """The counts, of everything that was on the wire before the call.  Raises `SentinelError`."""
    _alive(cluster.folder)
    try:
        waiting = {canary.hex() for canary in send_canaries(cluster.senders())}
    except SnifferBlind as error:
        raise SentinelError(f"the sentinel receives nothing: {error}") from error
    deadline = time.monotonic() + patience
    while True:
        found = _alive(cluster.folder)
        if waiting <= set(found["canaries"]):
            break
        if time.monotonic() > deadline:
            raise SentinelError(
                f"the sentinel receives nothing, or is late: after {patience:g} s it has not seen "
                f"{len(waiting - set(found['canaries']))} of {len(waiting)} canaries{RESTART}"
            )
        time.sleep(0.01)
    if found["missed"]:
        raise SentinelError(
            f"the sentinel missed {found['missed']} of {found['frames'] + found['missed']} frames: "
            f"its counts are incomplete{RESTART}"
        )
    return {key: found[key] for key in ("frames", "missed", "kinds")}


RESTART = "; start the cluster again to trust its counts"


def _alive(folder: Path) -> dict[str, Any]:
    """What the sentinel last wrote.  Raises `SentinelError` when it cannot write any more."""
    found = read(folder)
    pid = int(found.get("pid", 0))
    if not found or start_time(pid) != found["started"]:
        words = _last_words(folder)
        raise SentinelError(f"the sentinel is dead{f' ({words})' if words else ''}{RESTART}")
    state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    if state in "Tt":
        raise SentinelError(f"the sentinel is stopped: kill -CONT {pid}")
    return found


def _last_words(folder: Path) -> str:
    try:
        lines = (folder / "sentinel.log").read_text(errors="replace").splitlines()
    except OSError:
        return ""
    return lines[-1] if lines else ""


def end(folder: Path) -> None:
    """End the sentinel, also one that is stopped."""
    found = read(folder)
    if found and start_time(int(found["pid"])) == found["started"]:
        os.kill(int(found["pid"]), signal.SIGKILL)


def read(folder: Path) -> dict[str, Any]:
    """The sentinel's counts, empty before its first look."""
    try:
        found: dict[str, Any] = json.loads((folder / "sentinel.json").read_text())
    except OSError:
        return {}
    return found


if __name__ == "__main__":
    watch(Cluster.load(sys.argv[1]))
