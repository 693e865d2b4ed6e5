"""Cryptokey routing beside a naive oracle: a list of prefixes, longest match by search."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from wgpy.protocol.allowedips import PrefixTable
from wgpy.protocol.endpoint import Prefix, parse_address

OWNERS = ["a", "b", "c"]


class Oracle:
    """Prefix → owner in one dictionary, searched from end to end."""

    def __init__(self) -> None:
        self.table: dict[Prefix, str] = {}

    def lookup(self, ip: bytes) -> str | None:
        matching = [p for p in self.table if len(p.ip) == len(ip) and ip in p]
        return self.table[max(matching, key=lambda p: p.length)] if matching else None


def prefixes(size: int) -> st.SearchStrategy[Prefix]:
    # Few different bits, so that prefixes nest and collide.
    address = st.integers(0, 15).map(
        lambda n: (n << size * 8 - 4 | n * 0x11).to_bytes(size)
    ) | st.binary(min_size=size, max_size=size)
    return st.builds(Prefix.masked, address, st.integers(0, size * 8))


PREFIX = prefixes(4) | prefixes(16)
STEP = st.tuples(
    st.sampled_from(["insert", "insert", "insert", "remove", "drop owner"]),
    PREFIX,
    st.sampled_from(OWNERS),
)


@settings(max_examples=300)
@given(st.lists(STEP, max_size=40), st.lists(PREFIX, min_size=1, max_size=20))
def test_as_the_oracle(steps: list[tuple[str, Prefix, str]], probes: list[Prefix]) -> None:
    table: PrefixTable[str] = PrefixTable()
    oracle = Oracle()
    for action, prefix, owner in steps:
        generation = table.generation
        if action == "insert":
            table.insert(prefix, owner)
            oracle.table[prefix] = owner
        elif action == "remove":
            removed = table.remove(prefix, owner)
            assert removed == (oracle.table.get(prefix) == owner)
            if removed:
                del oracle.table[prefix]
        else:
            table.remove_owner(owner)
            oracle.table = {p: o for p, o in oracle.table.items() if o != owner}
        assert dict(table) == oracle.table
        assert len(table) == len(oracle.table)
        assert table.generation > generation or action == "remove"
    known = [prefix.ip for _, prefix, _ in steps]
    for ip in [prefix.ip for prefix in probes] + known:
        assert table.lookup(ip) == oracle.lookup(ip)
    for owner in OWNERS:
        owned = table.owned_by(owner)
        assert set(owned) == {p for p, o in oracle.table.items() if o == owner}


def test_a_prefix_moves_to_its_new_owner() -> None:
    table: PrefixTable[str] = PrefixTable()
    ten = Prefix.parse("10.0.0.0/8")
    table.insert(ten, "a")
    table.insert(ten, "b")
    assert table.lookup(parse_address("10.1.2.3")) == "b"
    assert table.owned_by("a") == ()


def test_families_never_meet() -> None:
    """10.0.0.0/8 and a00::/8 begin with the same bits."""
    table: PrefixTable[str] = PrefixTable()
    table.insert(Prefix.parse("10.0.0.0/8"), "four")
    table.insert(Prefix.parse("a00::/8"), "six")
    assert table.lookup(parse_address("10.0.0.1")) == "four"
    assert table.lookup(parse_address("a00::1")) == "six"
    assert table.lookup(parse_address("::ffff:10.0.0.1")) is None


def test_everything_and_single_hosts() -> None:
    table: PrefixTable[str] = PrefixTable()
    for text, owner in (
        ("0.0.0.0/0", "a"),
        ("::/0", "b"),
        ("10.0.0.1/32", "c"),
        ("fd::1/128", "c"),
    ):
        table.insert(Prefix.parse(text), owner)
    found = [table.lookup(parse_address(t)) for t in ("10.0.0.1", "10.0.0.2", "fd::1", "fd::2")]
    assert found == ["c", "a", "c", "b"]


def test_host_bits_of_a_prefix_are_cleared() -> None:
    assert Prefix.parse("10.1.2.3/8") == Prefix.parse("10.0.0.0/8")
    assert str(Prefix.parse("fd00::1/16")) == "fd00::/16"
