"""The watchman of a running cluster: says at once when a pod packet is seen in plaintext.

`python -m testbed.sentinel NAME` runs as long as its cluster does.  It keeps the counts in
`sentinel.json` and appends every plaintext packet between pods to `sentinel.jsonl`, so that
`wgpy testbed inspect` can tell what has been on the wire since the cluster came up.
Tests use `Sniffer` directly; this process is for clusters that outlive the command that
made them.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from testbed.classify import Kind
from testbed.cluster import Cluster
from testbed.discovery import write
from testbed.sniffer import Record, Sniffer

INTERVAL = 0.25
"""Seconds between two looks into the ring."""
LOG_LIMIT = 10_000
"""Plaintext packets written down; counting goes on."""


def describe(record: Record) -> dict[str, Any]:
    """A record for machines; `head` is hexadecimal."""
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
    """The counters for machines."""
    return {
        "frames": sniffer.frames,
        "missed": sniffer.missed,
        "kinds": {kind.name: sniffer.counts[kind] for kind in Kind if sniffer.counts[kind]},
    }


def watch(cluster: Cluster) -> None:
    """Until the cluster goes away."""
    written = 0
    last: dict[str, Any] = {}
    with (cluster.folder / "sentinel.jsonl").open("a", encoding="utf-8") as log:

        def on_record(record: Record) -> None:
            nonlocal written
            if record.packet.kind is Kind.POD_TO_POD and written < LOG_LIMIT:
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


def read(folder: Path) -> dict[str, Any]:
    """The sentinel's counts, empty before its first look."""
    try:
        found: dict[str, Any] = json.loads((folder / "sentinel.json").read_text())
    except OSError:
        return {}
    return found


if __name__ == "__main__":
    watch(Cluster.load(sys.argv[1]))
