"""Leaving a cluster: the own keys go, and the others say that they have seen it.

With the keys, in one revision, a key appears that asks for an answer.  An agent answers
when its data plane no longer sends anything to this node; from then on the node can be
taken down and no packet of a healthy one is lost on it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from strict.discovery.etcd.layout import Layout, read_entry
from strict.discovery.etcd.settings import EtcdSettings
from strict.discovery.etcd.store import Store, wait_for
from strict.nodes import Node

_BATCH: Final = 100
_TTL: Final = 600
"""Of the question, if this process dies before it has taken it back."""


def withdraw(
    settings: EtcdSettings, node: Node, seconds: float, say: Callable[[str], None]
) -> list[str]:
    """Take the node out of the store; returns who has not answered within `seconds`.

    Raises `StoreError`.
    """
    layout, store = Layout(settings), Store(settings)
    try:
        others = {
            pair.key.removeprefix(layout.nodes)
            for _, page in store.pages(layout.nodes) for pair in page
        } - {node.name}  # fmt: skip
        keys = _own_entries(store, layout, node)
        while len(keys) > _BATCH:
            store.delete_and_put(keys[:_BATCH], {}, 0)
            del keys[:_BATCH]
        lease = store.grant(_TTL)
        question = layout.drains + node.name
        answers = f"{layout.seen}{node.name}/"
        store.delete(answers, prefix=True)
        store.delete_and_put([layout.nodes + node.name, *keys], {question: b"{}"}, lease)
        say(f"{node.name} is withdrawn: {len(others)} others are to answer")
        missing = set(others)

        def answered() -> bool:
            for _, page in store.pages(answers):
                missing.difference_update(pair.key.removeprefix(answers) for pair in page)
            return not missing

        wait_for(answered, seconds)
        store.revoke(lease)
        store.delete(answers, prefix=True)
        return sorted(missing)
    finally:
        store.close()


def _own_entries(store: Store, layout: Layout, node: Node) -> list[str]:
    found = []
    for _, page in store.pages(layout.addresses):
        for pair in page:
            try:
                _, host = read_entry(pair.key.removeprefix(layout.addresses), pair.value or b"")
            except ValueError:
                continue
            if host in node.addresses:
                found.append(pair.key)
    return found
