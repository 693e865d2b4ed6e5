"""Keys and JSON of Cilium's kvstore, as Cilium's agent writes them.

    PREFIX/state/nodes/v1/CLUSTER/NODE    a node: Go's `nodeTypes.Node`, `node_fields`
    PREFIX/state/ip/v1/SPACE/ADDRESS      an address: Go's `IPIdentityPair`, `entry_fields`
    PREFIX/state/wgpy/drain/v1/CLUSTER/NODE      NODE is leaving (ours; Cilium ignores it)
    PREFIX/state/wgpy/seen/v1/CLUSTER/NODE/BY    BY has removed NODE from its table

Readers raise ValueError with the reason; a name in a key and the name in its value must
be the same.  Fields that are not ours are kept when a key is written again.  Pure.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from strict.discovery.etcd.settings import EtcdSettings
from strict.ipcache import MAX_IDENTITY, Entry, Source
from strict.nodes import Node
from wgpy.protocol.endpoint import AddressBytes, Endpoint, Prefix, format_address, parse_address
from wgpy.protocol.keys import PublicKey

MAX_VALUE: Final = 64 << 10
"""Bytes of a value that is read at all: Cilium's largest are some hundreds."""
MAX_LIST: Final = 256
"""Addresses, CIDRs or labels of one node."""
ENCRYPT: Final = 255
"""Cilium's `StaticEncryptKey`: WireGuard."""
ENDPOINT: Final = "wgpy/endpoint"
"""Annotation of a node that is reached elsewhere than at its first address."""
_NAME: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9])?\Z")
_UNDERLAY: Final = ("InternalIP", "ExternalIP")
"""Types of addresses on the underlay, the preferred first."""


class Layout:
    """The keys of one cluster in one store."""

    def __init__(self, settings: EtcdSettings) -> None:
        self.cluster = settings.cluster
        self.root = f"{settings.prefix}/state/"
        self.nodes = f"{self.root}nodes/v1/{settings.cluster}/"
        self.addresses = f"{self.root}ip/v1/{settings.address_space}/"
        self.drains = f"{self.root}wgpy/drain/v1/{settings.cluster}/"
        self.seen = f"{self.root}wgpy/seen/v1/{settings.cluster}/"

    def address_key(self, prefix: Prefix) -> str:
        return self.addresses + spelled(prefix)


def spelled(prefix: Prefix) -> str:
    """The one spelling of a prefix in a key: a whole address has no length, as in Cilium."""
    whole = prefix.length == len(prefix.ip) * 8
    return format_address(prefix.ip) if whole else str(prefix)


def parse(value: bytes) -> dict[str, Any]:
    """A JSON object of bounded size; raises ValueError."""
    if len(value) > MAX_VALUE:
        raise ValueError(f"the value has {len(value)} bytes, more than {MAX_VALUE}: not read")
    try:
        found = json.loads(value)
    except RecursionError:
        raise ValueError("the value is nested too deep") from None
    except UnicodeDecodeError:
        raise ValueError("the value is not UTF-8 text") from None
    except ValueError as error:
        raise ValueError(f"the value is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise ValueError("the value must be a JSON object")
    return found


def read_node(name: str, cluster: str, value: bytes) -> Node:
    """The node under the key `name`."""
    check_name(name)
    data = parse(value)
    for field, wanted in (("Name", name), ("Cluster", cluster)):
        if data.get(field) != wanted:
            raise ValueError(f"{field} is {_short(data.get(field))}, but the key says {wanted!r}")
    text = data.get("WireguardPubKey") or ""
    if not isinstance(text, str):
        raise ValueError("WireguardPubKey must be a text")
    endpoint = _texts(data, "Annotations").get(ENDPOINT)
    return Node(
        name=name,
        addresses=tuple(_addresses(data)),
        public_key=PublicKey.from_base64(text) if text else None,
        pod_cidrs=tuple(_cidrs(data)),
        labels=_texts(data, "Labels"),
        boot_id=data["BootID"] if isinstance(data.get("BootID"), str) else "",
        endpoint=Endpoint.parse(endpoint) if endpoint else None,
    )


def check_name(name: str) -> None:
    """Raises ValueError.  An address is not a name: entries name their node by address."""
    if not _NAME.match(name):
        raise ValueError("a node's name has 1 to 253 letters, digits and _.- inside")
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return
    raise ValueError("a node's name must not be an address")


def read_entry(address: str, value: bytes) -> tuple[Entry, AddressBytes]:
    """The entry under the key `address`, and the address of its node."""
    data = parse(value)
    ip = parse_address(_text(data, "IP"))
    length = len(ip) * 8 if data.get("Mask") is None else _length(data["Mask"], len(ip))
    prefix = Prefix(ip, length)
    if address != spelled(prefix) or Prefix.masked(ip, length) != prefix:
        raise ValueError(f"IP and Mask say {spelled(prefix)}, but the key says {address[:64]}")
    host = parse_address(_text(data, "HostIP"))
    identity, key = (_number(data, name, top) for name, top in (("ID", 2**32 - 1), ("Key", 255)))
    identity = identity if identity <= MAX_IDENTITY else 0
    return Entry(prefix, format_address(host), identity, key != 0, Source.KVSTORE), host


def node_fields(node: Node, cluster: str) -> dict[str, Any]:
    """What this node says about itself, in the order of Go's struct."""
    by_family: dict[int, list[Any]] = {4: [], 16: []}
    for cidr in node.pod_cidrs:
        by_family[len(cidr.ip)].append(_cidr_json(cidr))
    fields: dict[str, Any] = {
        "Name": node.name,
        "Cluster": cluster,
        "IPAddresses": [
            {"Type": "InternalIP", "IP": format_address(ip)} for ip in node.addresses
        ] or None,
    }
    for family, width in (("IPv4", 4), ("IPv6", 16)):
        first, *more = by_family[width] or [None]
        fields[f"{family}AllocCIDR"] = first
        fields[f"{family}SecondaryAllocCIDRs"] = more or None
    fields |= dict.fromkeys(("IPv4HealthIP", "IPv6HealthIP", "IPv4IngressIP", "IPv6IngressIP"), "")
    return fields | {
        "ClusterID": 0,
        "Source": "local",
        "EncryptionKey": ENCRYPT,
        "Labels": dict(sorted(node.labels.items())),
        "Annotations": {ENDPOINT: str(node.endpoint)} if node.endpoint else None,
        "NodeIdentity": 0,
        "WireguardPubKey": node.public_key.base64 if node.public_key else "",
        "BootID": node.boot_id,
    }


def entry_fields(entry: Entry, host: AddressBytes) -> dict[str, Any]:
    """A pod of this node, in the order of Go's struct."""
    whole = entry.prefix.length == len(entry.prefix.ip) * 8
    return {
        "IP": format_address(entry.prefix.ip),
        "Mask": None if whole else _cidr_json(entry.prefix)["Mask"],
        "HostIP": format_address(host),
        "ID": entry.identity,
        "Key": ENCRYPT if entry.encrypt else 0,
        "Metadata": "",
    }


OURS: Final = frozenset(
    ("Name", "Cluster", "IPAddresses", "IPv4AllocCIDR", "IPv4SecondaryAllocCIDRs",
     "IPv6AllocCIDR", "IPv6SecondaryAllocCIDRs", "EncryptionKey", "Labels", "WireguardPubKey",
     "BootID", "IP", "Mask", "HostIP", "ID", "Key")
)  # fmt: skip
"""Fields that we have the say in; others keep what another writer put there."""


def merged(fields: Mapping[str, Any], found: bytes | None) -> tuple[dict[str, Any], bool]:
    """What shall be written over `found`, and whether that is different."""
    old: dict[str, Any] = {}
    if found is not None:
        try:
            old = parse(found)
        except ValueError:
            return dict(fields), True
    kept = {name: old[name] for name in old if name not in OURS}
    new = {**fields, **kept}
    if fields.get("Annotations") or old.get("Annotations"):
        annotations = dict(_texts(old, "Annotations"))
        annotations.pop(ENDPOINT, None)
        new["Annotations"] = {**annotations, **(fields.get("Annotations") or {})} or None
    return new, new != old


def encode(fields: Mapping[str, Any]) -> bytes:
    """As Go's `json.Marshal`: compact, UTF-8, and safe inside of HTML."""
    text = json.dumps(fields, ensure_ascii=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text.encode()


def _short(value: Any) -> str:
    return repr(value)[:60]


def _text(data: Mapping[str, Any], name: str) -> str:
    value = data.get(name)
    if not isinstance(value, str) or len(value) > 64:
        raise ValueError(f"{name} must be an address")
    return value


def _number(data: Mapping[str, Any], name: str, top: int) -> int:
    value = data.get(name, 0)
    if type(value) is not int or not 0 <= value <= top:
        raise ValueError(f"{name} must be a number from 0 to {top}")
    return value


def _texts(data: Mapping[str, Any], name: str) -> dict[str, str]:
    value = data.get(name) or {}
    if not isinstance(value, dict) or len(value) > MAX_LIST:
        raise ValueError(f"{name} must be an object of at most {MAX_LIST} texts")
    if not all(isinstance(text, str) for text in value.values()):
        raise ValueError(f"{name} must hold texts")
    return value


def _list(data: Mapping[str, Any], name: str) -> list[Any]:
    value = data.get(name) or []
    if not isinstance(value, list) or len(value) > MAX_LIST:
        raise ValueError(f"{name} must be a list of at most {MAX_LIST}")
    return value


def _addresses(data: Mapping[str, Any]) -> Iterable[AddressBytes]:
    found: dict[str, list[AddressBytes]] = {kind: [] for kind in _UNDERLAY}
    for item in _list(data, "IPAddresses"):
        if not isinstance(item, dict):
            raise ValueError("IPAddresses must hold objects with Type and IP")
        if item.get("Type") in _UNDERLAY:
            address = parse_address(_text(item, "IP"))
            kind = ipaddress.ip_address(address)
            if kind.is_multicast or kind.is_unspecified or kind.is_loopback or kind.is_link_local:
                raise ValueError(f"{kind} is not the address of a node")
            found[item["Type"]].append(address)
    return dict.fromkeys([*found["InternalIP"], *found["ExternalIP"]])


def _cidrs(data: Mapping[str, Any]) -> Iterable[Prefix]:
    for family, width in (("IPv4", 4), ("IPv6", 16)):
        items = [data.get(f"{family}AllocCIDR"), *_list(data, f"{family}SecondaryAllocCIDRs")]
        for item in items:
            if item is None:
                continue
            if not isinstance(item, dict):
                raise ValueError(f"{family}AllocCIDR must be an object with IP and Mask")
            ip = parse_address(_text(item, "IP"))
            length = _length(item.get("Mask"), len(ip))
            prefix = Prefix.masked(ip, length)
            if len(ip) != width or prefix.ip != ip:
                raise ValueError(f"{format_address(ip)}/{length} is not an {family} CIDR")
            yield prefix


def _length(mask: Any, width: int) -> int:
    """Go's `net.IPMask`: base64 of the mask's bytes."""
    try:
        raw = base64.b64decode(mask, validate=True)
    except (binascii.Error, TypeError, ValueError):
        raise ValueError(f"not a mask: {_short(mask)}") from None
    value = int.from_bytes(raw)
    bits = width * 8
    length = value.bit_count()
    if len(raw) != width or value != (1 << bits) - (1 << bits - length):
        raise ValueError(f"not a mask of {width} bytes: {_short(mask)}")
    return length


def _cidr_json(cidr: Prefix) -> dict[str, str]:
    bits = len(cidr.ip) * 8
    mask = ((1 << bits) - (1 << bits - cidr.length)).to_bytes(len(cidr.ip))
    return {"IP": format_address(cidr.ip), "Mask": base64.b64encode(mask).decode()}
