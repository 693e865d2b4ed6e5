"""Short ways to say addresses, nodes and tables in the tests of strict mode."""

from __future__ import annotations

import struct

from strict.ipcache import Entry, Source
from strict.nodes import Node
from strict.settings import Mode, TableConfig
from strict.table import StrictTable
from wgpy.protocol.endpoint import Endpoint, Prefix, parse_address
from wgpy.protocol.keys import PublicKey

a = parse_address
p = Prefix.parse

PODS = (p("10.244.0.0/16"), p("fd00:10::/48"))
NODES = (p("192.168.5.0/24"), p("fd00:5::/64"))
CONTROL = {"node-role.kubernetes.io/control-plane": ""}


def key(number: int) -> PublicKey:
    return PublicKey(bytes([number]) * 32)


def node(
    name: str,
    number: int,
    *,
    with_key: bool = True,
    cidrs: tuple[str, ...] = (),
    allowed: tuple[str, ...] = (),
    labels: dict[str, str] | None = None,
    endpoint: str = "",
) -> Node:
    """Node `number` has the addresses 192.168.5.N and fd00:5::N and the key NNN…."""
    return Node(
        name,
        (a(f"192.168.5.{number}"), a(f"fd00:5::{number}")),
        key(number) if with_key else None,
        tuple(map(p, cidrs)),
        labels or {},
        "",
        Endpoint.parse(endpoint) if endpoint else None,
        tuple(map(p, allowed)),
    )


def entry(prefix: str, where: str, *, encrypt: bool = True, source: Source = Source.CUSTOM_RESOURCE,
          identity: int = 0) -> Entry:
    return Entry(p(prefix), where, identity, encrypt, source)


def config(mode: Mode = Mode.STRICT, **changes: object) -> TableConfig:
    values: dict[str, object] = {"node": "here", "pod_cidrs": PODS, "node_cidrs": NODES}
    return TableConfig(mode=mode, **{**values, **changes})  # type: ignore[arg-type]


def table(mode: Mode = Mode.STRICT, **changes: object) -> StrictTable:
    """Nodes here (1), there (2, known by pod CIDR), pods (3, pod by pod) and keyless (4)."""
    made = StrictTable(config(mode, **changes))
    made.upsert_node(node("here", 1, cidrs=("10.244.1.0/24", "fd00:10:0:1::/64")))
    made.upsert_node(node("there", 2, cidrs=("10.244.2.0/24", "fd00:10:0:2::/64")))
    made.upsert_node(node("pods", 3))
    made.upsert_node(node("keyless", 4, with_key=False))
    for family in ("10.244.{}.7/32", "fd00:10:0:{}::7/128"):
        made.upsert_entry(entry(family.format(3), "pods"))
        made.upsert_entry(entry(family.format(4), "keyless"))
        made.upsert_entry(entry(family.format(5), "nobody"))
    return made


def tcp(
    source: str,
    destination: str,
    sport: int,
    dport: int,
    *,
    options: bytes = b"",
    offset: int = 0,
    header: int = 20,
) -> bytes:
    """A TCP packet; `offset` in fragments of 8 bytes, `header` cuts the TCP header."""
    body = (struct.pack(">HHIIBBHHH", sport, dport, 0, 0, 5 << 4, 2, 0, 0, 0) + b"data")[:header]
    src, dst = a(source), a(destination)
    if len(src) == 4:
        length = 5 + len(options) // 4
        head = struct.pack(
            ">BBHHHBBH", 0x40 | length, 0, length * 4 + len(body), 0, offset, 64, 6, 0
        )
        return head + src + dst + options + body
    following = 44 if offset else 6
    extension = struct.pack(">BBHI", 6, 0, offset << 3, 0) if offset else b""
    head = struct.pack(">IHBB", 6 << 28, len(extension) + len(body), following, 64)
    return head + src + dst + extension + body
