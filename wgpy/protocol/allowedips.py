"""Cryptokey routing (§2): longest-prefix match from inner address to owner.

One hash table per prefix length that occurs: a lookup asks the lengths in use from long
to short.  Real tables use a handful of lengths, an insert is one dictionary write, and
half a million prefixes stay small.  IPv4 and IPv6 never meet: in one 128-bit trie
10.0.0.0/8 and a00::/8 would be the same prefix.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

from wgpy.protocol.endpoint import Prefix

Owner = TypeVar("Owner", bound=Hashable)


class PrefixTable(Generic[Owner]):
    """Each prefix has one owner; giving it to another owner moves it (§2).

    `generation` grows with every change, so that caches of lookups know when to forget.
    """

    __slots__ = ("_levels", "_owned", "_tables", "generation")

    def __init__(self) -> None:
        # Keyed by packed address size (4, 16), then prefix length, then network number.
        self._tables: dict[int, dict[int, dict[int, Owner]]] = {4: {}, 16: {}}
        # The same inner tables, longest first, with the shift that yields the number.
        self._levels: dict[int, list[tuple[int, dict[int, Owner]]]] = {4: [], 16: []}
        self._owned: dict[Owner, dict[Prefix, None]] = {}
        self.generation = 0

    def insert(self, prefix: Prefix, owner: Owner) -> None:
        """Give `prefix` to `owner`, taking it from whoever had it."""
        size, host_bits = len(prefix.ip), len(prefix.ip) * 8 - prefix.length
        table = self._tables[size].get(prefix.length)
        if table is None:
            table = self._tables[size][prefix.length] = {}
            self._rebuild_levels(size)
        number = int.from_bytes(prefix.ip) >> host_bits
        previous = table.get(number)
        if previous is not None and previous is not owner:
            del self._owned[previous][prefix]
        table[number] = owner
        self._owned.setdefault(owner, {})[prefix] = None
        self.generation += 1

    def remove(self, prefix: Prefix, owner: Owner) -> bool:
        """Take `prefix` from `owner`; False when it is not the owner's."""
        owned = self._owned.get(owner)
        if owned is None or prefix not in owned:
            return False
        del owned[prefix]
        self._delete(prefix)
        self.generation += 1
        return True

    def remove_owner(self, owner: Owner) -> None:
        """Take all prefixes from `owner`."""
        for prefix in self._owned.pop(owner, ()):
            self._delete(prefix)
        self.generation += 1

    def lookup(self, ip: bytes) -> Owner | None:
        """Owner of the longest prefix that holds the packed address, or None."""
        number = int.from_bytes(ip)
        for shift, table in self._levels[len(ip)]:
            owner = table.get(number >> shift)
            if owner is not None:
                return owner
        return None

    def owned_by(self, owner: Owner) -> tuple[Prefix, ...]:
        """All prefixes of `owner`, in the order they were given."""
        return tuple(self._owned.get(owner, ()))

    def __len__(self) -> int:
        return sum(len(table) for family in self._tables.values() for table in family.values())

    def __iter__(self) -> Iterator[tuple[Prefix, Owner]]:
        for owner, prefixes in self._owned.items():
            for prefix in prefixes:
                yield prefix, owner

    def _delete(self, prefix: Prefix) -> None:
        size = len(prefix.ip)
        table = self._tables[size][prefix.length]
        del table[int.from_bytes(prefix.ip) >> size * 8 - prefix.length]
        if not table:
            del self._tables[size][prefix.length]
            self._rebuild_levels(size)

    def _rebuild_levels(self, size: int) -> None:
        tables = self._tables[size]
        self._levels[size] = [
            (size * 8 - length, tables[length]) for length in sorted(tables, reverse=True)
        ]
