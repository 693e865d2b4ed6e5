"""The ipcache against a dictionary of everything that was said."""

from __future__ import annotations

import gc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strict import ipcache
from strict.ipcache import Entry, Ipcache, IpcacheFull, Source
from tests.strict.helpers import a, entry, p
from wgpy.protocol.endpoint import Prefix

prefixes = st.one_of(
    st.builds(lambda n, bits: Prefix.masked(bytes([10, 0, 0, n]), bits),
              st.integers(0, 255), st.sampled_from([0, 8, 24, 28, 31, 32])),
    st.builds(lambda n, bits: Prefix.masked(bytes([10] + [0] * 14 + [n]), bits),
              st.integers(0, 255), st.sampled_from([0, 8, 64, 120, 128])),
)
entries = st.builds(
    Entry, prefixes, st.sampled_from(["", "a", "b", "192.0.2.1"]),
    st.integers(0, ipcache.MAX_IDENTITY), st.booleans(), st.sampled_from(list(Source)),
)
steps = st.one_of(entries, st.tuples(prefixes, st.sampled_from(list(Source))))


@settings(max_examples=200, deadline=None)
@given(st.lists(steps, max_size=60), st.integers(0, 255))
def test_like_a_dictionary(history: list[Entry | tuple[Prefix, Source]], last: int) -> None:
    cache, said = Ipcache(), {}
    for step in history:
        def in_force(prefix: Prefix) -> Entry | None:
            found = [e for (where, _), e in said.items() if where == prefix]
            return max(found, key=lambda e: e.source, default=None)

        before = in_force(step[0])
        if isinstance(step, Entry):
            changed = cache.upsert(step)
            said[step.prefix, step.source] = step
        else:
            changed = cache.delete(*step)
            said.pop(step, None)
        assert changed == (before != in_force(step[0]))
    best = {}
    for found in said.values():
        old = best.get(found.prefix)
        if old is None or found.source > old.source:
            best[found.prefix] = found
    assert len(cache) == len(best)
    assert sorted(cache) == sorted(best.values())
    for prefix in best:
        expected = sorted((e for e in said.values() if e.prefix == prefix),
                          key=lambda e: -e.source)
        assert cache.get(prefix) == expected
    for address in (bytes([10, 0, 0, last]), bytes([10] + [0] * 14 + [last])):
        holding = [e for e in best.values() if address in e.prefix]
        assert cache.lookup(address) == max(holding, key=lambda e: e.prefix.length, default=None)


def test_precedence() -> None:
    assert (Source.KUBE_APISERVER > Source.LOCAL > Source.KVSTORE > Source.CUSTOM_RESOURCE
            > Source.K8S > Source.API > Source.GENERATED > Source.RESTORED)
    cache = Ipcache()
    assert cache.upsert(entry("10.0.0.1", "stale", source=Source.RESTORED))
    assert cache.upsert(entry("10.0.0.1", "true", source=Source.KVSTORE))
    assert not cache.upsert(entry("10.0.0.1", "rumour", source=Source.GENERATED))
    assert [e.node for e in cache.get(p("10.0.0.1"))] == ["true", "rumour", "stale"]
    assert cache.delete(p("10.0.0.1"), Source.KVSTORE)
    found = cache.lookup(a("10.0.0.1"))
    assert found is not None and found.node == "rumour"


def test_families_are_separate() -> None:
    cache = Ipcache()
    cache.upsert(entry("10.0.0.0/8", "four"))
    assert cache.lookup(a("a00::1")) is None
    cache.upsert(entry("a00::/8", "six"))
    assert cache.lookup(a("10.1.1.1")) == entry("10.0.0.0/8", "four")


def test_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ipcache, "MAX_ENTRIES", 2)
    cache = Ipcache()
    cache.upsert(entry("10.0.0.1", "a"))
    cache.upsert(entry("10.0.0.2", "a"))
    with pytest.raises(IpcacheFull):
        cache.upsert(entry("10.0.0.0/24", "a"))
    assert not cache.upsert(entry("10.0.0.1", "a")), "what is there may be said again"
    assert cache.lookup(a("10.0.0.3")) is None and len(cache) == 2


def test_a_name_nobody_uses_is_forgotten() -> None:
    cache = Ipcache()
    for number in range(1000):
        cache.upsert(entry("10.0.0.1", f"node-{number}"))
        cache.upsert(entry("10.0.0.1", f"low-{number}", source=Source.RESTORED))
    assert len(cache._names._names) <= 4


def test_identity_out_of_range() -> None:
    with pytest.raises(ValueError, match="identity"):
        Ipcache().upsert(entry("10.0.0.1", "a", identity=1 << 24))


def test_discard_in_slices() -> None:
    cache = Ipcache()
    for number in range(10):
        cache.upsert(entry(f"10.0.0.{number}", "a"))
    assert cache.discard_some(6)
    assert not cache.discard_some(6)
    assert list(cache) == []


def test_entries_are_nothing_to_the_collector() -> None:
    """However full the table, a collection while packets pass has no more to walk."""
    cache = Ipcache()
    cache.upsert(entry("10.0.0.1/32", "there"))
    gc.collect()
    before = len(gc.get_objects())
    for number in range(5_000):
        cache.upsert(Entry(Prefix(number.to_bytes(4), 32), "there", number))
    gc.collect()
    assert len(cache) >= 5_000
    assert len(gc.get_objects()) - before < 500
