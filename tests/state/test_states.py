"""The code moves a peer's sessions as the table says (`wgpy.protocol.states`), and no other way.

Pending timers are held to the table by the state machine itself (`Pair._check_timers`).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.state.machine import PARAMETERS, Pair
from tests.state.test_reach import walk
from wgpy.protocol import states
from wgpy.protocol.peer import Peer
from wgpy.protocol.states import MOVES, Keys, Move, keys_of

WALKS = 60
METHODS = {
    "install_as_initiator": Move.RESPONSE,
    "install_as_responder": Move.INITIATION,
    "confirm": Move.CONFIRMED,
    "erase": Move.ERASED,
}
PAGE = Path(__file__).parents[2] / "docs" / "protocol.md"


@pytest.fixture
def moves(monkeypatch: pytest.MonkeyPatch) -> set[tuple[Keys, Move, Keys]]:
    """The moves that peers make from now on."""
    seen: set[tuple[Keys, Move, Keys]] = set()

    def watch(move: Move, method: Callable[..., Any]) -> Callable[..., Any]:
        def watched(peer: Peer, *arguments: Any) -> Any:
            before = keys_of(peer)
            result = method(peer, *arguments)
            if result is not None:  # `confirm`: nothing was waiting for confirmation.
                seen.add((before, move, keys_of(peer)))
            return result

        return watched

    for name, move in METHODS.items():
        monkeypatch.setattr(Peer, name, watch(move, getattr(Peer, name)))
    return seen


def renew_twice(pair: Pair) -> None:
    """The same side renews the session again and again; rare where all events are random."""
    initiator = pair.sides[0]
    for side in pair.sides:
        pair.configure(side)
    for _ in range(3):
        pair.send(initiator)
        for _ in range(4):  # A cookie, or the rate limit, may cost one Rekey-Timeout each.
            pair.settle()
            pair.advance(2 * PARAMETERS.rekey_timeout)
        pair.advance(PARAMETERS.rekey_after_time)


def test_the_walks_make_every_move_of_the_table_and_no_other(
    moves: set[tuple[Keys, Move, Keys]],
) -> None:
    for seed in range(WALKS):
        walk(seed).heal()
    renew_twice(Pair(0))
    table = {(before, move, after) for (before, move), after in MOVES.items()}
    assert moves - table == set(), "a move that the table does not have"
    assert table - moves == set(), "a move that was never met"


def test_three_combinations_of_slots_do_not_exist() -> None:
    assert len({keys.value for keys in Keys}) == 5
    assert all("current" in keys.value for keys in Keys if "previous" in keys.value)
    assert not any({"previous", "next"} <= set(keys.value) for keys in Keys)


def test_the_diagram_of_the_docs_is_drawn_from_the_table() -> None:
    assert f"```mermaid\n{states.mermaid()}\n```" in PAGE.read_text(), (
        "docs/protocol.md: put the output of `python -m wgpy.protocol.states` there"
    )
