"""One `verdict` event per flow, whichever path judges its packets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from strict.policy import StrictPolicy
from strict.table import StrictTable
from strict.verdicts import PLAINTEXT_THIS_TIME, UNENCRYPTED_THIS_TIME, Decision, Rule
from tests.dataplane.differential import BothPaths, trains_of
from tests.dataplane.oracle import Packet
from tests.dataplane.toolbox import kit  # noqa: F401

WHOLE = Packet(payload=bytes(range(250)) * 40)
SEGMENTS = [packet.build() for packet in WHOLE.segments(1000)]


@pytest.fixture(params=["batch", "readable"])
def told(request: pytest.FixtureRequest) -> tuple[BothPaths, StrictPolicy, list[Mapping[str, Any]]]:
    """Two paths behind policies that refuse everything, and the events of one of them."""
    both, listening, events = BothPaths(), StrictPolicy(), []
    listening.verdict_listener = events.append
    pair = (listening, StrictPolicy())
    both.batch.policy, both.readable.policy = pair if request.param == "batch" else pair[::-1]
    return both, listening, events


def test_what_the_host_sends(told) -> None:
    both, policy, events = told
    for _ in range(3):
        both.read_from_tun([WHOLE.offloaded(1, 1000)] * 2)
    both.read_from_tun([replace(WHOLE, destination=bytes([10, 0, 0, 7])).offloaded(1, 1000)])
    assert [(e["direction"], e["destination"]) for e in events] == [
        ("egress", "10.0.0.2"), ("egress", "10.0.0.7")]
    policy.replace(StrictTable())
    both.read_from_tun([WHOLE.offloaded(1, 1000)])
    assert len(events) == 3, "another table is another verdict"


def test_what_a_tunnel_delivers(told) -> None:
    both, _, events = told
    for _ in range(2):
        both.remote.send(SEGMENTS, now=both.now)
        datagrams = [bytes(d.data) for d in both.remote.pull_datagrams()]
        assert both.arrive(trains_of(datagrams)) == []
    assert [(e["direction"], e["source"]) for e in events] == [("ingress", "10.0.0.1")]


def test_where_the_ports_decide_once_per_outcome(monkeypatch: pytest.MonkeyPatch) -> None:
    policy, events = StrictPolicy(), []
    policy.verdict_listener = events.append

    def by_port(_table: object, _source: bytes, _destination: bytes, packet: bytes) -> Decision:
        etcd = packet == b"etcd"
        verdict = PLAINTEXT_THIS_TIME if etcd else UNENCRYPTED_THIS_TIME
        return Decision(Rule.NODE_UNKNOWN, verdict)

    monkeypatch.setattr(StrictTable, "decide", by_port)
    for packet in (b"etcd", b"ssh", b"etcd", b"ssh"):
        policy.egress(bytes(4), bytes(4), packet)
    assert [e["outcome"] for e in events] == ["plaintext", "dropped"]
