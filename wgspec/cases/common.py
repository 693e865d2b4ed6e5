"""What several sections share: ways to be wrong, and judgements of time."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from random import Random

from wgspec.check import check
from wgspec.lab import Lab
from wgspec.noise import Edit, Wrong, finish
from wgspec.peer import GUARD, Peer
from wgspec.surroundings import Surroundings
from wgspec.wire import FIELDS

_P = 2**255 - 19
LOW_ORDER = tuple(
    value.to_bytes(32, "little")
    for value in (
        0,
        1,
        0x00B8495F16056286FDB1329CEB8D09DA6AC49FF1FAE35616AEB8413B7C7AEBE0,
        0x57119FD0DD4E22D8868E1C58C45C44045BEF839C55B1D0B1248C50A3BC959C5F,
        _P - 1,
        _P,
        _P + 1,
    )
)
"""The Curve25519 points of low order, as u-coordinates: every DH with them is zero."""


def set_byte(offset: int, value: int) -> Edit:
    """An edit that overwrites one byte."""

    def edit(message: bytearray) -> None:
        message[offset] = value

    return edit


def flip_field(kind: int, name: str, bit: int = 0) -> Edit:
    """An edit that inverts one bit of a named field."""
    offset = next(o for n, o, _ in FIELDS[kind] if n == name)

    def edit(message: bytearray) -> None:
        message[offset + bit // 8] ^= 1 << (bit % 8)

    return edit


async def refused_initiations(lab: Lab, peer: Peer, wrongs: Iterable[tuple[str, Wrong]]) -> None:
    """The pattern of a negative case for initiations.

    A genuine handshake (the twin), the wrong ones (further apart than the flood guard)
    met with silence, the twin's session still alive, and a genuine initiation right after
    is answered: nothing was kept.  A reply to a wrong one is told by its receiver.
    """
    session = await peer.handshake()
    await peer.alive(session)
    senders: list[str] = []
    for name, wrong in wrongs:
        sent = await peer.send_initiation(peer.initiation(wrong=wrong))
        lab.note(f"that was {name}")
        senders.append(f"{sent.sender:08x} {name}")
    await peer.silence(f"wrong initiations: {', '.join(senders)}")
    await peer.alive(session)
    await peer.handshake()


def garbage_initiation(rng: Random, recipient: bytes) -> bytes:
    """148 random bytes that pass mac1 (and nothing else)."""
    return finish(b"\x01\0\0\0" + rng.randbytes(112), recipient, None)


def in_time(lab: Surroundings, what: str, seconds: float, least: float, most: float) -> None:
    """Check a measured interval, allowing for a busy machine."""
    check(
        least - lab.early <= seconds <= most + lab.slack,
        f"{what} after {least:g} to {most:g} s",
        f"after {seconds:.3f} s",
    )


async def collect_initiations(
    peer: Peer, seconds: float, *, allow: Iterable[int] = ()
) -> list[tuple[float, bytes]]:
    """(time, bytes) of all initiations that arrive in this time; others must be allowed."""
    out: list[tuple[float, bytes]] = []
    for got in await peer.silence("initiations only", seconds, allow={1, *allow}):
        if got.data[0] == 1:
            out.append((got.at, got.data))
    return out


def gaps(times: list[float]) -> list[float]:
    """Intervals between neighbours."""
    return [b - a for a, b in pairwise(times)]


__all__ = ["GUARD", "LOW_ORDER"]
