"""wgpy's daemon and the Linux kernel's own WireGuard, which runs in a micro-VM.

Each side initiates, with and without a preshared key, over IPv4 and IPv6 outside and with
both inside; then either end appears at another address.  The tunnels are cells of the
conformance suite's interop grid: a relay joins the namespace of `wireguard-py` and the tap
device of the VM.  One boot serves all of a kernel's cells.
"""

from __future__ import annotations

import asyncio

import pytest

from wgspec import targets
from wgspec.grid import Grid, Outcome

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(400)]

STEPS = ("handshake", "data", "roam")
PACKETS = 100
_done: dict[str, dict[tuple[str, str], Outcome]] = {}


def outcomes(series: str) -> dict[tuple[str, str], Outcome]:
    """All cells with this kernel by (initiator, variant); run once."""
    if series not in _done:
        pair = [targets.make("wgpy"), targets.make(f"microvm {series}")]
        grid = Grid(pair, packets=PACKETS, jobs=4, steps=STEPS)
        found = asyncio.run(grid.run())
        _done[series] = {(o.cell.initiator, o.cell.variant): o for o in found}
    return _done[series]


def cells(series: str) -> list[object]:
    """Parameters of one kernel, kept together so that it boots once."""
    group = pytest.mark.xdist_group(f"kernel-{series}")
    return [
        pytest.param(series, initiator, f"IPv{family}{psk}", marks=group)
        for initiator in ("wgpy", f"linux-{series}")
        for family in (4, 6)
        for psk in ("", " PSK")
    ]


@pytest.mark.parametrize(("series", "initiator", "variant"), [*cells("6.1"), *cells("6.12")])
def test_handshake_data_and_roaming(series: str, initiator: str, variant: str) -> None:
    outcome = outcomes(series)[initiator, variant]
    assert (outcome.verdict, outcome.reason) == ("PASS", "")
    assert outcome.done == list(STEPS)
    # Every packet came out once: the first, those each way, and those after each move.
    assert outcome.packets == 1 + 2 * PACKETS + 20
