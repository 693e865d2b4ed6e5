"""What the strict table in front costs.

In memory: loading and memory over the number of entries, a fresh decision, the answer
for a flow that is already known, and the packet path with and without the table.  On
whole tunnels (root): the same daemon with and without the table, interleaved, and the
time and memory of loading the full table through the control socket.

With and without are always measured one right after the other, the one that comes first
alternating, and many short pairs are taken: a few per cent are less than what one second
differs from the next.
"""

from __future__ import annotations

import gc
import itertools
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks import system
from benchmarks.cpu_time import no_collector, set_aside
from benchmarks.environment import environment
from benchmarks.harness import TUNNEL_ADDRESS, Hub, inner_address
from benchmarks.implementations import Implementation
from benchmarks.lab import Lab
from benchmarks.meter import watched
from benchmarks.model import Recording, Sample
from benchmarks.packets import udp_run
from benchmarks.progress import Progress
from benchmarks.scale import ENTRIES, SIZE, per_packet, prefixes_of_a_cluster, resident
from benchmarks.subjects import Batch
from strict.client import StrictClient
from strict.ipcache import MAX_ENTRIES, Entry
from strict.nodes import Node
from strict.policy import StrictPolicy
from strict.settings import TableConfig
from strict.table import StrictTable
from wgpy.protocol.endpoint import Prefix, parse_address
from wgpy.protocol.keys import PublicKey

WITHOUT, WITH = "wgpy", "wgpy --policy strict"
LOADS = ("tcp1-up", "tcp1-down", "tcp4-up", "udp64-overload", "udp1372-overload", "ping")
PASSES = 6
"""Pairs of each load in a repetition, for loading two full tables takes several."""
PINGS = 2_000
INNER_CIDR = Prefix.parse("10.98.0.0/24")
OUTER_CIDR = Prefix.parse("10.99.0.0/24")
LOOKUPS = 20_000

Said = Callable[[str, float, str], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """`seconds` of CPU time for each value in memory; `most_entries` cuts the curve."""

    seconds: float = 0.1
    repetitions: int = 15
    most_entries: int = MAX_ENTRIES


def new_recording(plan: Plan) -> Recording:
    """An empty recording with the environment filled in."""
    options = {"seconds": plan.seconds, "repetitions": plan.repetitions, "packet": SIZE}
    return Recording("strict", environment(), options)


# In memory.


@dataclass(frozen=True, slots=True)
class Point:
    """A hub with a table of `entries` in front, and destinations that the table knows."""

    entries: int
    hub: Hub
    path: Batch
    table: StrictTable
    known: list[bytes]


def measure_in_memory(plan: Plan, recording: Recording, said: Said) -> None:
    """The curves; all points are built first and measured in turn."""

    def keep(figure: str, unit: str, name: str, value: float, repetition: int, x: int) -> None:
        said(f"{figure} · {name} · {x:,} entries", value, unit)
        sample = Sample(figure, unit, name, value, "", repetition, float(x))
        recording.samples.append(sample)

    with watched(recording, "in memory"):
        built = list(points(plan, keep))
        with set_aside():
            _measure_points(plan, built, keep)


def _measure_points(plan: Plan, built: Sequence[Point], keep: Callable[..., None]) -> None:
    plain = Hub(1)
    plain.establish()
    plain_path = Batch(plain)
    for repetition in range(plan.repetitions):
        for point in built:
            x = point.entries
            pair = [(WITHOUT, plain, plain_path), (WITH, point.hub, point.path)]
            for name, hub, path in reversed(pair) if repetition % 2 else pair:
                each = per_packet(hub, path, plan.seconds)
                keep("path.per_packet", "s", name, each, repetition, x)
            keep("flow.lookup", "s", WITH, warm_lookup(point), repetition, x)
            keep("table.decide", "s", WITH, fresh_decision(point), repetition, x)


def points(plan: Plan, keep: Callable[..., None]) -> Iterator[Point]:
    """Build all places of the curve; `keep` takes what loading cost."""
    for count in (e for e in ENTRIES if e <= plan.most_entries):
        hub = Hub(1)
        hub.establish()
        policy = StrictPolicy()
        entries = filler(count - 1, "left")
        gc.collect()
        memory, before = resident(), time.process_time()
        table = StrictTable(TableConfig("hub", pod_cidrs=(Prefix.parse("10.64.0.0/16"),)))
        table.upsert_node(Node("left", public_key=hub.members[0].public))
        table.upsert_entry(Entry(Prefix(inner_address(0), 32), "left"))
        known = [inner_address(0)]
        for entry in entries:
            table.upsert_entry(entry)
            if len(known) < LOOKUPS:
                known.append(entry.prefix.ip)
        keep("table.load", "s", WITH, time.process_time() - before, 0, count)
        keep("table.memory", "B", WITH, max(0, resident() - memory), 0, count)
        policy.replace(table)
        hub.engine.policy = policy
        random.Random(count).shuffle(known)
        yield Point(count, hub, Batch(hub), table, known)


def filler(count: int, node: str) -> Iterator[Entry]:
    """Entries of a large cluster, all on one node."""
    prefixes = itertools.islice(prefixes_of_a_cluster(), max(0, count))
    return (Entry(prefix, node, 4 + index % 60_000) for index, prefix in enumerate(prefixes))


def warm_lookup(point: Point) -> float:
    """Seconds for the answer about a flow that was asked before, as the packet path asks."""
    packets = udp_run(TUNNEL_ADDRESS, point.hub.members[0].address, SIZE, 1)
    point.path.offer(packets)
    point.path.send()
    point.path.came_out()
    lookup = point.path.flow_lookup()
    key = TUNNEL_ADDRESS + point.hub.members[0].address
    if lookup(key) is None:
        raise RuntimeError("the flow that was just sent is not known")
    return _each(lambda rounds: [lookup(key) for _ in rounds])


def fresh_decision(point: Point) -> float:
    """Seconds for a decision by the table, for destinations all over it."""
    decide, known = point.table.egress, itertools.cycle(point.known).__next__
    return _each(lambda rounds: [decide(TUNNEL_ADDRESS, known(), b"") for _ in rounds])


def _each(work: Callable[[range], object]) -> float:
    rounds = range(LOOKUPS)
    with no_collector():
        before = time.process_time_ns()
        work(rounds)
        return (time.process_time_ns() - before) / 1e9 / len(rounds)


# Whole tunnels.


def measure_tunnels(options: system.Options, recording: Recording, progress: Progress) -> None:
    """With and without the table, interleaved; the table is full."""
    times: list[Sample] = []

    def load(implementation: Implementation, lab: Lab) -> None:
        if implementation.name == WITH:
            times.extend(load_full_table(lab, len(times) // 2))

    system.measure(replace(options, prepare=load), recording, progress)
    recording.samples += times


def load_full_table(lab: Lab, repetition: int, entries: int = MAX_ENTRIES) -> list[Sample]:
    """Both ends get `entries` entries; what the second one took."""
    keys = (lab.left_key, lab.right_key)
    names = ("left", "right")
    nodes = [
        Node(name, (parse_address(end.outer),), PublicKey.from_base64(key))
        for name, end, key in zip(names, lab.ends, keys, strict=True)
    ]
    pods = [
        Entry(Prefix(parse_address(end.inner), 32), name)
        for name, end in zip(names, lab.ends, strict=True)
    ]
    samples = []
    for name, end, daemon in zip(names, lab.ends, lab.daemons, strict=True):
        config = TableConfig(name, pod_cidrs=(INNER_CIDR,), node_cidrs=(OUTER_CIDR,))
        table = itertools.chain(pods, filler(entries - len(pods), "left"))
        memory, before = rss(daemon.pid), time.monotonic()
        with StrictClient(end.tunnel) as client:
            client.replace(config, nodes, table)
        took, grown = time.monotonic() - before, max(0, rss(daemon.pid) - memory)
        samples = [
            Sample("full-table.load", "s", WITH, took, "", repetition),
            Sample("full-table.memory", "B", WITH, grown, "", repetition),
        ]
    return samples


def rss(pid: int) -> int:
    """Resident bytes now."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0
