"""A. Wire format and silence (§5.1, §5.3, §5.4)."""

from __future__ import annotations

from wgspec.case import case
from wgspec.lab import Lab


@case(
    "R-01",
    level="M",
    cost="q",
    paper="5.4.3",
    text="A valid initiation is answered by exactly one 92-byte response, to the address it came "
    "from and from the port it went to, within a second; its receiver is our sender index and "
    "its reserved bytes are zero.",
)
async def one_response(lab: Lab) -> None:
    peer = await lab.peer()
    session = await peer.handshake()
    await peer.silence("one response only")
    await peer.alive(session)
