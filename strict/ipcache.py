"""The ipcache: which identity and node stand behind an address, by longest prefix.

One dict per family and prefix length, from the prefix's number to the entry packed into
one integer: a lookup tries the lengths in use from the longest down, and 512,000 entries
fit into some 60 MB.  IPv4 and IPv6 never share a dict: in one 128-bit trie `10.0.0.0/8`
and `a00::/8` are the same prefix.

Several sources may speak about one prefix; the one of highest precedence is in force and
the others wait behind it, so that deleting it brings back what was true before.

Pure, no I/O.  Leaves nodes (`strict.nodes`) and verdicts (`strict.table`) to others.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum
from typing import Final, NamedTuple

from wgpy.protocol.endpoint import AddressBytes, Prefix

MAX_ENTRIES: Final = 512_000
"""Cilium's map size: more prefixes than this are refused."""
MAX_IDENTITY: Final = (1 << 24) - 1
"""Cilium's identities have 24 bits."""


class Source(IntEnum):
    """Who said it; a greater value wins (Cilium's precedence)."""

    RESTORED = 0
    GENERATED = 1
    API = 2
    K8S = 3
    CUSTOM_RESOURCE = 4
    KVSTORE = 5
    LOCAL = 6
    KUBE_APISERVER = 7

    @classmethod
    def parse(cls, text: str) -> Source:
        """From ``custom-resource``; raises ValueError naming the choices."""
        try:
            return _SOURCES[text]
        except KeyError:
            raise ValueError(f"unknown source {text!r}: one of {', '.join(_SOURCES)}") from None

    @property
    def text(self) -> str:
        """``custom-resource``, the form of files and of the control socket."""
        return self.name.lower().replace("_", "-")


_SOURCES: Final = {source.text: source for source in reversed(Source)}


class Entry(NamedTuple):
    """One ipcache entry; `node` is a node's name or one of its addresses, "" for none."""

    prefix: Prefix
    node: str = ""
    identity: int = 0
    encrypt: bool = True
    source: Source = Source.CUSTOM_RESOURCE


class IpcacheFull(Exception):
    """The ipcache holds `MAX_ENTRIES` prefixes."""


# An entry as one integer: | node number | identity 24 | source 3 | encrypt 1 |
_SOURCE_SHIFT: Final = 1
_IDENTITY_SHIFT: Final = 4
_NODE_SHIFT: Final = 28


class _Names:
    """Numbers for node names, reference-counted, so that an unused name is forgotten."""

    __slots__ = ("_count", "_free", "_names", "_numbers")

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._names: list[str] = []
        self._count: list[int] = []
        self._free: list[int] = []

    def take(self, name: str) -> int:
        number = self._numbers.get(name)
        if number is None:
            if self._free:
                number = self._free.pop()
                self._names[number] = name
            else:
                number = len(self._names)
                self._names.append(name)
                self._count.append(0)
            self._numbers[name] = number
        self._count[number] += 1
        return number

    def give_back(self, number: int) -> None:
        self._count[number] -= 1
        if not self._count[number]:
            del self._numbers[self._names[number]]
            self._names[number] = ""
            self._free.append(number)

    def __getitem__(self, number: int) -> str:
        return self._names[number]


class _Family:
    """The prefixes of one family: `lengths` descending, each with its shift and its dict."""

    __slots__ = ("by_length", "ordered", "width")

    def __init__(self, width: int) -> None:
        self.width = width
        self.by_length: dict[int, dict[int, int]] = {}
        self.ordered: tuple[tuple[int, int, dict[int, int]], ...] = ()

    def slot(self, length: int) -> dict[int, int]:
        """The dict of a prefix length, made when new."""
        slot = self.by_length.get(length)
        if slot is None:
            slot = self.by_length[length] = {}
            self._order()
        return slot

    def forget(self, length: int) -> None:
        """Drop the dict of a length that has become empty."""
        del self.by_length[length]
        self._order()

    def _order(self) -> None:
        self.ordered = tuple(
            (length, self.width - length, self.by_length[length])
            for length in sorted(self.by_length, reverse=True)
        )


class Ipcache:
    """Longest-prefix map from addresses to entries.  Not thread-safe."""

    __slots__ = ("_behind", "_families", "_names", "_size")

    def __init__(self) -> None:
        self._families = {4: _Family(32), 16: _Family(128)}
        self._names = _Names()
        self._behind: dict[Prefix, dict[Source, int]] = {}
        self._size = 0

    def __len__(self) -> int:
        """Prefixes, each counted once however many sources name it."""
        return self._size

    def upsert(self, entry: Entry) -> bool:
        """Add or change what `entry.source` says; True when the entry in force changed.

        Raises `IpcacheFull`; ValueError for an identity out of range.
        """
        if not 0 <= entry.identity <= MAX_IDENTITY:
            raise ValueError(f"identity {entry.identity} is not in 0-{MAX_IDENTITY}")
        prefix = entry.prefix
        family = self._families[len(prefix.ip)]
        slot = family.slot(prefix.length)
        number = int.from_bytes(prefix.ip) >> (family.width - prefix.length)
        old = slot.get(number)
        if old is None and self._size >= MAX_ENTRIES:
            if not slot:
                family.forget(prefix.length)
            raise IpcacheFull(f"the ipcache has {MAX_ENTRIES} prefixes, its limit")
        packed = self._pack(entry)
        if old is None:
            slot[number] = packed
            self._size += 1
            return True
        if _source(old) == entry.source:
            slot[number] = packed
        else:
            behind = self._behind.setdefault(prefix, {})
            if _source(old) > entry.source:
                self._release(behind.get(entry.source))
                behind[entry.source] = packed
                return False
            self._release(behind.pop(entry.source, None))
            behind[_source(old)] = old
            slot[number] = packed
            return True
        self._names.give_back(old >> _NODE_SHIFT)
        return old != packed

    def delete(self, prefix: Prefix, source: Source) -> bool:
        """Take back what `source` said about `prefix`; True when the entry in force changed."""
        family = self._families[len(prefix.ip)]
        slot = family.by_length.get(prefix.length)
        number = int.from_bytes(prefix.ip) >> (family.width - prefix.length)
        current = None if slot is None else slot.get(number)
        if slot is None or current is None:
            return False
        behind = self._behind.get(prefix, {})
        if _source(current) != source:
            self._release(behind.pop(source, None))
            if not behind:
                self._behind.pop(prefix, None)
            return False
        self._names.give_back(current >> _NODE_SHIFT)
        if behind:
            slot[number] = behind.pop(max(behind))
            if not behind:
                del self._behind[prefix]
            return True
        del slot[number]
        self._size -= 1
        if not slot:
            family.forget(prefix.length)
        return True

    def lookup(self, address: AddressBytes) -> Entry | None:
        """The entry in force with the longest prefix that holds `address` (packed)."""
        value = int.from_bytes(address)
        for length, shift, slot in self._families[len(address)].ordered:
            packed = slot.get(value >> shift)
            if packed is not None:
                return self._entry(Prefix.masked(address, length), packed)
        return None

    def get(self, prefix: Prefix) -> list[Entry]:
        """All entries for exactly this prefix, the active one first."""
        family = self._families[len(prefix.ip)]
        number = int.from_bytes(prefix.ip) >> (family.width - prefix.length)
        current = family.by_length.get(prefix.length, {}).get(number)
        if current is None:
            return []
        behind = self._behind.get(prefix, {})
        waiting = [behind[source] for source in sorted(behind, reverse=True)]
        return [self._entry(prefix, packed) for packed in [current, *waiting]]

    def __iter__(self) -> Iterator[Entry]:
        """Every active entry; one added during the iteration may be missed, none is repeated."""
        for family in self._families.values():
            for length, shift, slot in family.ordered:
                for number in list(slot):
                    packed = slot.get(number)
                    if packed is not None:
                        ip = (number << shift).to_bytes(family.width // 8)
                        yield self._entry(Prefix(ip, length), packed)

    def discard_some(self, count: int) -> bool:
        """Forget up to `count` entries of a cache out of use; False when it is empty.

        Freeing half a million entries at once would hold up the packets.
        """
        for family in self._families.values():
            for _, _, slot in family.ordered:
                while slot and count:
                    slot.popitem()
                    count -= 1
                if not count:
                    return True
        return False

    def _pack(self, entry: Entry) -> int:
        return (
            self._names.take(entry.node) << _NODE_SHIFT
            | entry.identity << _IDENTITY_SHIFT
            | entry.source << _SOURCE_SHIFT
            | entry.encrypt
        )

    def _release(self, packed: int | None) -> None:
        if packed is not None:
            self._names.give_back(packed >> _NODE_SHIFT)

    def _entry(self, prefix: Prefix, packed: int) -> Entry:
        return Entry(
            prefix,
            self._names[packed >> _NODE_SHIFT],
            packed >> _IDENTITY_SHIFT & MAX_IDENTITY,
            bool(packed & 1),
            _source(packed),
        )


def _source(packed: int) -> Source:
    return _BY_VALUE[packed >> _SOURCE_SHIFT & 7]


_BY_VALUE: Final = tuple(Source)
