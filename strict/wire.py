"""Entries, nodes, settings and decisions as the JSON of the control socket.

Both sides use these functions: the policy in the data plane and the clients in the agent
and the CLI.  docs/control-socket.md describes the forms.  Readers raise `WireError`
naming the item, and accept no unknown keys: a misspelt setting must not be a default.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from socket import AF_INET, inet_pton
from typing import Any, Final, TypeVar

from strict.ipcache import MAX_IDENTITY, Entry, Source
from strict.labels import Selector
from strict.nodes import Node
from strict.settings import ETCD_PORTS, Mode, TableConfig
from strict.verdicts import Decision
from wgpy.protocol.endpoint import Endpoint, Prefix, format_address, parse_address
from wgpy.protocol.keys import PublicKey

SCHEMA: Final = 1
"""Version of the strict policy's operations and forms."""
MAX_ITEMS: Final = 2000
"""Nodes and entries in one request together: some milliseconds of work."""

T = TypeVar("T")

_SOURCES: Final = {source.text: source for source in Source}
_TEXTS: Final = {source: source.text for source in Source}


class WireError(ValueError):
    """The JSON does not have the documented form."""


def entry_to_wire(entry: Entry) -> list[Any]:
    """``["10.0.0.7/32", "node-1", 20707, true, "kvstore"]``"""
    prefix, node, identity, encrypt, source = entry
    return [str(prefix), node, identity, encrypt, _TEXTS[source]]


def entry_from_wire(item: Any) -> Entry:
    """Used for half a million entries: a single address takes a fast path."""
    try:
        text, node, identity, encrypt, source = item
        if text[-3:] == "/32" and ":" not in text:
            prefix = Prefix(inet_pton(AF_INET, text[:-3]), 32)
        else:
            prefix = Prefix.parse(text)
        if (
            type(node) is str
            and type(encrypt) is bool
            and type(identity) is int
            and 0 <= identity <= MAX_IDENTITY
        ):
            return Entry(prefix, node, identity, encrypt, _SOURCES[source])
    except (ValueError, OSError, TypeError, KeyError, AttributeError):
        pass
    raise WireError(f"not an entry [prefix, node, identity, encrypt, source]: {item!r}"[:200])


def place_from_wire(item: Any) -> tuple[Prefix, Source]:
    """``["10.0.0.7/32", "kvstore"]``, what a deletion names."""
    try:
        prefix, source = item
        return Prefix.parse(prefix), _SOURCES[source]
    except (ValueError, TypeError, KeyError, AttributeError):
        raise WireError(f"not a deletion [prefix, source]: {item!r}"[:200]) from None


def node_to_wire(node: Node) -> dict[str, Any]:
    return {
        "name": node.name,
        "addresses": [format_address(ip) for ip in node.addresses],
        "public_key": node.public_key.base64 if node.public_key else None,
        "pod_cidrs": [str(cidr) for cidr in node.pod_cidrs],
        "allowed_ips": [str(cidr) for cidr in node.allowed_ips],
        "labels": dict(node.labels),
        "boot_id": node.boot_id,
        "endpoint": str(node.endpoint) if node.endpoint else None,
    }


def node_from_wire(item: Any) -> Node:
    read = _Reader(item, "node")
    node = Node(
        name=read.one("name", str, ""),
        addresses=read.many("addresses", parse_address),
        public_key=read.optional("public_key", PublicKey.from_base64),
        pod_cidrs=read.many("pod_cidrs", Prefix.parse),
        allowed_ips=read.many("allowed_ips", Prefix.parse),
        labels=read.texts("labels"),
        boot_id=read.one("boot_id", str, ""),
        endpoint=read.optional("endpoint", Endpoint.parse),
    )
    read.done()
    return node


def config_to_wire(config: TableConfig) -> dict[str, Any]:
    return {
        "node": config.node,
        "mode": config.mode.value,
        "pod_cidrs": [str(cidr) for cidr in config.pod_cidrs],
        "node_cidrs": [str(cidr) for cidr in config.node_cidrs],
        "ingress": config.ingress,
        "node_encryption": config.node_encryption,
        "node_encryption_opt_out": config.node_encryption_opt_out.text,
        "control_plane": [str(cidr) for cidr in config.control_plane],
        "etcd_ports": list(config.etcd_ports),
        "allow_remote_node_identities": config.allow_remote_node_identities,
    }


def config_from_wire(item: Any) -> TableConfig:
    """Raises `WireError`, or the `ValueError` of settings that contradict each other."""
    read = _Reader(item, "config")
    ports: list[Any] = read.one("etcd_ports", list, list(ETCD_PORTS))
    if not all(type(port) is int and 0 < port < 65536 for port in ports):
        raise WireError("config: etcd_ports must be a list of port numbers")
    values: dict[str, Any] = {
        "node": read.one("node", str, ""),
        "mode": read.parsed("mode", Mode.STRICT, Mode),
        "pod_cidrs": read.many("pod_cidrs", Prefix.parse),
        "node_cidrs": read.many("node_cidrs", Prefix.parse),
        "ingress": read.one("ingress", bool, True),
        "node_encryption": read.one("node_encryption", bool, False),
        "node_encryption_opt_out": read.parsed(
            "node_encryption_opt_out", Selector(), Selector.parse
        ),
        "control_plane": read.many("control_plane", Prefix.parse),
        "etcd_ports": tuple(ports),
        "allow_remote_node_identities": read.one("allow_remote_node_identities", bool, False),
    }
    read.done()
    return TableConfig(**values)


def decision_to_wire(decision: Decision) -> dict[str, Any]:
    """The answer of ``explain`` and the core of a verdict event."""
    reason = decision.verdict.reason
    return {
        "rule": int(decision.rule),
        "rule_name": decision.rule.name,
        "sentence": decision.rule.sentence,
        "action": decision.verdict.action.value,
        "outcome": decision.outcome,
        "reason": reason.name if reason else None,
        "per_packet": decision.verdict.per_packet,
        "missing": decision.missing or None,
        "entry": entry_to_wire(decision.entry) if decision.entry else None,
        "pod_cidr": str(decision.cidr) if decision.cidr else None,
        "node": decision.node.name if decision.node else None,
    }


class _Reader:
    """Typed values out of one JSON object."""

    def __init__(self, item: Any, what: str) -> None:
        if not isinstance(item, Mapping):
            raise WireError(f"not a {what}: an object is wanted")
        name = item.get("name")
        self._what = f"{what} {name!r}" if name else what
        self._item = item
        self._read: set[str] = set()

    def one(self, key: str, kind: type[T], default: T) -> T:
        self._read.add(key)
        value = self._item.get(key, default)
        if not isinstance(value, kind):
            raise WireError(f"{self._what}: {key} must be a {kind.__name__}")
        return value

    def parsed(self, key: str, default: T, parse: Callable[[str], T]) -> T:
        self._read.add(key)
        if key not in self._item:
            return default
        return self._parse(key, self._item[key], parse)

    def optional(self, key: str, parse: Callable[[str], T]) -> T | None:
        self._read.add(key)
        value = self._item.get(key)
        return None if value is None else self._parse(key, value, parse)

    def many(self, key: str, parse: Callable[[str], T]) -> tuple[T, ...]:
        values: Sequence[Any] = self.one(key, list, [])
        return tuple(self._parse(key, value, parse) for value in values)

    def texts(self, key: str) -> dict[str, str]:
        value: dict[Any, Any] = self.one(key, dict, {})
        if not all(isinstance(text, str) for text in value.values()):
            raise WireError(f"{self._what}: {key} must contain strings")
        return value

    def done(self) -> None:
        unknown = sorted(set(self._item) - self._read)
        if unknown:
            raise WireError(f"{self._what}: unknown keys {', '.join(map(str, unknown))}")

    def _parse(self, key: str, value: Any, parse: Callable[[str], T]) -> T:
        if not isinstance(value, str):
            raise WireError(f"{self._what}: {key} must be a text")
        try:
            return parse(value)
        except ValueError as error:
            raise WireError(f"{self._what}: {key}: {error}") from error
