"""Kinds that script a data structure: replay window and allowed IPs (§5.4.6, §2)."""

from __future__ import annotations

from vectors.kinds.base import Compute, Computed, plain
from vectors.model import Json
from wgpy.protocol.allowedips import PrefixTable
from wgpy.protocol.crypto import Crypto
from wgpy.protocol.endpoint import Prefix, parse_address
from wgpy.protocol.replay import ReplayWindow


def _replay(_crypto: Crypto, inputs: Json) -> Computed:
    """Authenticated counters in, one verdict each out."""
    window = ReplayWindow(inputs["window"])
    verdicts = []
    for counter in inputs["counters"]:
        reason = window.accept(int(counter))
        verdicts.append("accept" if reason is None else reason.name)
    return plain({"verdicts": verdicts})


def _allowed_ips(_crypto: Crypto, inputs: Json) -> Computed:
    """Inserts and removals in order, then the owner of each looked-up address."""
    table: PrefixTable[str] = PrefixTable()
    for action, prefix, owner in inputs["routes"]:
        if action == "insert":
            table.insert(Prefix.parse(prefix), owner)
        else:
            table.remove(Prefix.parse(prefix), owner)
    return plain({"owners": [table.lookup(parse_address(ip)) for ip in inputs["lookups"]]})


KINDS: dict[str, Compute] = {"replay": _replay, "allowed-ips": _allowed_ips}
