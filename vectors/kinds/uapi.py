"""Requests on the configuration socket and their replies, errors included."""

from __future__ import annotations

from vectors.kinds.base import Compute, Computed, plain
from vectors.model import Json
from wgpy.protocol.crypto import Crypto
from wgpy.protocol.engine import Engine
from wgpy.uapi import UapiError, format_get, format_set_reply, parse_set


def _uapi(crypto: Crypto, inputs: Json) -> Computed:
    """`set` requests in order on a fresh device: each one's reply and the `get` after all."""
    engine = Engine(crypto=crypto, entropy=lambda size: bytes(size), now=0, wall=10**18)
    engine.set_up(False, now=0)  # as a fresh TUN device: nothing is sent
    replies = []
    for request in inputs["sets"]:
        try:
            engine.apply(parse_set(request), now=0)
            replies.append(format_set_reply(0))
        except UapiError as error:
            replies.append(format_set_reply(error.errno))
    return plain({"replies": replies, "get": format_get(engine.snapshot())})


KINDS: dict[str, Compute] = {"uapi": _uapi}
