"""The strict table inside of the data plane, driven through its control socket.

`wireguard-py --policy strict IFACE` finds `load` through the entry-point group
`wgpy.policies`, so that `wgpy` needs no import of this package.  The policy starts
without settings, which lets nothing pass.

A transaction (``begin``, ``load`` …, ``commit``) builds a new table beside the one in
force and swaps it in whole; whatever goes wrong before leaves the old one.  The old one
is taken apart in slices afterwards, for half a million entries freed at once would hold
up the packets.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

from strict import headers
from strict.ipcache import IpcacheFull
from strict.settings import Mode, TableConfig
from strict.table import StrictTable
from strict.verdicts import Decision
from strict.wire import (
    MAX_ITEMS,
    SCHEMA,
    config_from_wire,
    config_to_wire,
    decision_to_wire,
    entry_from_wire,
    entry_to_wire,
    node_from_wire,
    node_to_wire,
    place_from_wire,
)
from wgpy.control.framing import Answer, ControlError
from wgpy.protocol.buffer import Buffer
from wgpy.protocol.endpoint import Prefix, format_address, parse_address
from wgpy.protocol.keys import PublicKey
from wgpy.protocol.policy import PLAINTEXT, Verdict

PART: Final = 500
"""Items in one part of a long answer."""
FREED_PER_SLICE: Final = 20_000
"""Entries of an old table forgotten per turn of the loop: about a millisecond."""

MAX_FLOWS: Final = 65_536
"""Flows remembered; when there are more, all are forgotten."""


_CHANGES: Final = frozenset(
    ("hold", "begin", "load", "commit", "update", "configure", "set_mode")
)


class StrictPolicy:
    """The table in force; implements `wgpy.control.policy.ControlledPolicy`."""

    __slots__ = (
        "_flows", "_old", "_seen", "_told", "holder", "loads", "table", "verdict_listener",
    )  # fmt: skip

    def __init__(self) -> None:
        self.table = StrictTable()
        self.verdict_listener: Callable[[Mapping[str, Any]], None] | None = None
        self.loads = 0
        self.holder: StrictSession | None = None
        """The only client that may change the table, while it is connected."""
        self._old: list[StrictTable] = []
        self._flows: dict[bytes, Verdict] = {}
        """By source, destination and, of what came out of a tunnel, the peer's key."""
        self._told: set[tuple[bytes, Verdict]] = set()
        """Events of flows that are not remembered, because the ports decide."""
        self._seen = 0
        """The generation that the flows were judged in; another table has a greater one."""

    @property
    def generation(self) -> int:
        return self.table.generation

    def egress(self, source: bytes, destination: bytes, packet: Buffer) -> Verdict:
        """See `StrictTable.decide`; remembered per flow until the table changes.

        A flow in plaintext may have a packet that quotes a pod's: each that could is judged.
        """
        self._refresh()
        flow = source + destination
        known = self._flows.get(flow)
        if known is not None and (known is not PLAINTEXT or headers.carried(packet) is None):
            return known
        decision = self.table.decide(source, destination, packet)
        if decision.verdict is not known:
            self._tell("egress", source, destination, decision)
        return self._remember(flow, decision.verdict)

    def ingress(
        self, source: bytes, destination: bytes, peer: PublicKey, packet: Buffer  # noqa: ARG002
    ) -> Verdict:
        """See `StrictTable.decide_ingress`; remembered per flow and peer until it changes."""
        self._refresh()
        flow = source + destination + peer
        verdict = self._flows.get(flow)
        if verdict is not None:
            return verdict
        decision = self.table.decide_ingress(source, destination, peer)
        self._tell("ingress", source, destination, decision)
        return self._remember(flow, decision.verdict)

    def _refresh(self) -> None:
        """Forget what was said about flows before the table changed."""
        if self.table.generation != self._seen:
            self._seen = self.table.generation
            self._flows.clear()
            self._told.clear()

    def _remember(self, flow: bytes, verdict: Verdict) -> Verdict:
        if not verdict.per_packet:
            if len(self._flows) >= MAX_FLOWS:
                self._flows.clear()
            self._flows[flow] = verdict
        return verdict

    def malformed(self, packet: Buffer) -> Verdict:
        """Row 1."""
        return self.table.malformed(packet)

    def describe(self) -> Mapping[str, Any]:
        """For ``hello`` and ``status``."""
        table = self.table
        return {
            "name": "strict",
            "schema": SCHEMA,
            "loaded": table.config is not None,
            "loads": self.loads,
            "generation": table.generation,
            "entries": len(table.ipcache),
            "nodes": len(table.nodes),
            "max_items": MAX_ITEMS,
            "config": config_to_wire(table.config) if table.config else None,
            "warnings": table.nodes.warnings(),
        }

    def session(self) -> StrictSession:
        return StrictSession(self)

    def replace(self, table: StrictTable) -> None:
        """Put another table in force, all at once."""
        old, self.table = self.table, table
        table.generation = max(old.generation, table.generation) + 1
        self.loads += 1
        self.discard(old)

    def discard(self, table: StrictTable) -> None:
        """Dispose of a table that is no longer used, in slices."""
        self._old.append(table)

    def housekeeping(self) -> bool:
        """A slice of `discard`; True while there is more."""
        if self._old and not self._old[-1].ipcache.discard_some(FREED_PER_SLICE):
            self._old.pop()
        return bool(self._old)

    def _tell(self, direction: str, source: bytes, destination: bytes, decision: Decision) -> None:
        """One event per flow; where the ports decide, one per flow and outcome."""
        if self.verdict_listener is None:
            return
        if decision.verdict.per_packet:
            told = (source + destination, decision.verdict)
            if told in self._told:
                return
            if len(self._told) >= MAX_FLOWS:
                self._told.clear()
            self._told.add(told)
        self.verdict_listener(
            {
                "direction": direction,
                "source": format_address(source),
                "destination": format_address(destination),
                **decision_to_wire(decision),
            }
        )


def load() -> StrictPolicy:
    """The entry point ``strict`` of the group ``wgpy.policies``."""
    return StrictPolicy()


class StrictSession:
    """One client: its requests, and the table it may be building."""

    def __init__(self, policy: StrictPolicy) -> None:
        self._policy = policy
        self._building: StrictTable | None = None
        self._broken = ""
        self.operations: Mapping[str, Callable[[Mapping[str, Any]], Answer]] = {
            "hold": self._hold,
            "begin": self._begin,
            "load": self._load,
            "commit": self._commit,
            "abort": self._abort,
            "update": self._update,
            "configure": self._configure,
            "set_mode": self._set_mode,
            "get": self._get,
            "match": self._match,
            "entries": self._entries,
            "nodes": self._nodes,
            "explain": self._explain,
            "explain_ingress": self._explain_ingress,
        }

    def request(self, op: str, message: Mapping[str, Any]) -> Answer:
        """Raises `ControlError` with code ``unknown_op``, ``invalid``, ``refused``, ``held``
        or ``state``.
        """
        operation = self.operations.get(op)
        if op in _CHANGES and self._policy.holder not in (None, self):
            raise ControlError(
                "held", f"{op}: an agent holds the table: change its configuration, or stop it"
            )
        if operation is None:
            known = ", ".join(self.operations)
            raise ControlError("unknown_op", f"unknown operation {op!r}; the policy knows {known}")
        try:
            return operation(message)
        except (ValueError, IpcacheFull) as error:
            if op == "load":
                self._broken = self._broken or str(error)
            code = "refused" if isinstance(error, IpcacheFull) else "invalid"
            raise ControlError(code, str(error)) from error

    def close(self) -> None:
        """Discard an uncommitted transaction, and release the table."""
        if self._policy.holder is self:
            self._policy.holder = None
        self._forget()

    def _forget(self) -> None:
        if self._building is not None:
            self._policy.discard(self._building)
            self._building = None

    def _hold(self, message: Mapping[str, Any]) -> Answer:  # noqa: ARG002
        """From now on only this client changes the table."""
        self._policy.holder = self
        return {}

    # Transactions.

    def _begin(self, message: Mapping[str, Any]) -> Answer:
        self._forget()
        self._broken = ""
        self._building = StrictTable(config_from_wire(message.get("config")))
        return {}

    def _load(self, message: Mapping[str, Any]) -> Answer:
        table = self._transaction()
        for node in [node_from_wire(item) for item in _items(message, "nodes")]:
            table.upsert_node(node)
        for item in _items(message, "entries"):
            table.upsert_entry(entry_from_wire(item))
        return {"entries": len(table.ipcache), "nodes": len(table.nodes)}

    def _commit(self, message: Mapping[str, Any]) -> Answer:  # noqa: ARG002
        table = self._transaction()
        if self._broken:
            self._forget()
            raise ControlError(
                "refused", f"the transaction is broken, the old table stays: {self._broken}"
            )
        self._building = None
        self._policy.replace(table)
        return self._state()

    def _abort(self, message: Mapping[str, Any]) -> Answer:  # noqa: ARG002
        self._transaction()
        self._forget()
        return {}

    def _transaction(self) -> StrictTable:
        if self._building is None:
            raise ControlError("state", "no transaction: send begin first")
        return self._building

    # Single changes.

    def _update(self, message: Mapping[str, Any]) -> Answer:
        """Deletions first.  Everything is read before anything is done."""
        count = sum(
            len(_items(message, key))
            for key in ("delete_nodes", "delete_entries", "nodes", "entries")
        )
        if count > MAX_ITEMS:
            raise ValueError(f"{count} items in one request; at most {MAX_ITEMS}")
        names = _items(message, "delete_nodes")
        if not all(isinstance(name, str) for name in names):
            raise ValueError("delete_nodes must be a list of names")
        places = [place_from_wire(item) for item in _items(message, "delete_entries")]
        nodes = [node_from_wire(item) for item in _items(message, "nodes")]
        entries = [entry_from_wire(item) for item in _items(message, "entries")]
        table, refused = self._policy.table, []
        for prefix, source in places:
            table.delete_entry(prefix, source)
        for name in names:
            table.delete_node(name)
        for node in nodes:
            try:
                table.upsert_node(node)
            except ValueError as error:
                refused.append({"node": node.name, "error": str(error)})
        for entry in entries:
            table.upsert_entry(entry)
        return {**self._state(), "refused": refused}

    def _configure(self, message: Mapping[str, Any]) -> Answer:
        self._policy.table.configure(config_from_wire(message.get("config")))
        return self._state()

    def _set_mode(self, message: Mapping[str, Any]) -> Answer:
        config = self._config()
        self._policy.table.configure(replace(config, mode=Mode(message.get("mode"))))
        return self._state()

    def _config(self) -> TableConfig:
        config = self._policy.table.config
        if config is None:
            raise ControlError("state", "the table is not loaded yet: send a transaction first")
        return config

    def _state(self) -> dict[str, Any]:
        table = self._policy.table
        return {
            "generation": table.generation,
            "entries": len(table.ipcache),
            "nodes": len(table.nodes),
        }

    # Questions.

    def _get(self, message: Mapping[str, Any]) -> Answer:
        prefix = Prefix.parse(_text(message, "prefix"))
        found = self._policy.table.ipcache.get(prefix)
        return {"entries": [entry_to_wire(entry) for entry in found]}

    def _match(self, message: Mapping[str, Any]) -> Answer:
        address = parse_address(_text(message, "address"))
        table = self._policy.table
        entry = table.ipcache.lookup(address)
        covering = table.nodes.covering(address)
        owner = table.nodes.at(address)
        return {
            "kind": table.kind(address).value,
            "entry": entry_to_wire(entry) if entry else None,
            "pod_cidr": [str(covering[0]), covering[1].name] if covering else None,
            "node_address_of": owner.name if owner else None,
        }

    def _entries(self, message: Mapping[str, Any]) -> Answer:  # noqa: ARG002
        return _parts("entries", map(entry_to_wire, self._policy.table.ipcache))

    def _nodes(self, message: Mapping[str, Any]) -> Answer:  # noqa: ARG002
        table = self._policy.table
        config = table.config
        return _parts(
            "nodes",
            (
                {
                    **node_to_wire(node),
                    "local": config is not None and node.name == config.node,
                    "opted_out": table.opted_out(node),
                }
                for node in table.nodes
            ),
        )

    def _explain(self, message: Mapping[str, Any]) -> Answer:
        source = parse_address(_text(message, "source"))
        destination = parse_address(_text(message, "destination"))
        ports = message.get("source_port", 0), message.get("destination_port", 0)
        if not all(isinstance(port, int) and 0 <= port < 65536 for port in ports):
            raise ValueError("ports are numbers from 0 to 65535")
        packet = _tcp_packet(source, destination, *ports) if any(ports) else b""
        decision = self._policy.table.decide(source, destination, packet)
        kinds = self._policy.table.kind(source).value, self._policy.table.kind(destination).value
        return {
            "source_kind": kinds[0],
            "destination_kind": kinds[1],
            **decision_to_wire(decision),
        }

    def _explain_ingress(self, message: Mapping[str, Any]) -> Answer:
        source = parse_address(_text(message, "source"))
        peer = PublicKey.from_base64(_text(message, "peer"))
        destination = parse_address(_text(message, "destination"))
        return decision_to_wire(self._policy.table.decide_ingress(source, destination, peer))


def _items(message: Mapping[str, Any], key: str) -> list[Any]:
    value = message.get(key, [])
    if not isinstance(value, list):
        raise ValueError(f"{key} must be a list")
    if len(value) > MAX_ITEMS:
        raise ValueError(f"{len(value)} {key} in one request; at most {MAX_ITEMS}")
    return value


def _text(message: Mapping[str, Any], key: str) -> str:
    value = message.get(key)
    if not isinstance(value, str):
        raise ValueError(f"{key} is missing, or not a text")
    return value


def _parts(key: str, items: Iterable[Any]) -> Iterator[Mapping[str, Any]]:
    iterator = iter(items)
    while part := list(itertools.islice(iterator, PART)):
        yield {key: part}


def _tcp_packet(source: bytes, destination: bytes, source_port: int, port: int) -> bytes:
    """A bare TCP packet, so that ``explain`` takes the same way as a real one."""
    tcp = struct.pack(">HHIIBBHHH", source_port, port, 0, 0, 5 << 4, 2, 0, 0, 0)
    if len(source) == 4:
        header = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(tcp), 0, 0, 64, 6, 0)
    else:
        header = struct.pack(">IHBB", 6 << 28, len(tcp), 6, 64)
    return header + source + destination + tcp


