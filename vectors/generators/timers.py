"""Inputs of the file `timers`: one script per rule of §6."""

from __future__ import annotations

from vectors.generators.builder import Builder, Wish

_SCRIPTS: dict[str, tuple[str, list[list[float | str]], float, int]] = {
    "first packet: handshake, then the packet": ("§6.4", [[1, "send"]], 5, 0),
    "no answer: repeat every 5 s, give up after 90 s": (
        "§6.4",
        [[0, "mute"], [1, "send"]],
        300,
        0,
    ),
    "a packet while retrying restarts the 90 s": (
        "§6.4",
        [[0, "mute"], [1, "send"], [61, "send"]],
        400,
        0,
    ),
    "answer arrives after some retries": (
        "§6.4",
        [[0, "mute"], [1, "send"], [12.5, "unmute"]],
        20,
        0,
    ),
    "received data is answered by a keepalive after 10 s": (
        "§6.5",
        [[1, "receive"]],
        30,
        0,
    ),
    "an answer of our own cancels the keepalive": (
        "§6.5",
        [[1, "receive"], [6, "send"]],
        18,
        0,
    ),
    "a keepalive is not answered": (
        "§6.5",
        [[1, "initiate"], [2, "receive-keepalive"]],
        60,
        0,
    ),
    "our data without any answer: new handshake after 15 s": (
        "§6.5",
        [[1, "send"]],
        30,
        0,
    ),
    "an idle tunnel is silent": ("§6.5", [[1, "send"], [2, "receive-keepalive"]], 100, 0),
    "initiator rekeys when it sends after 120 s": (
        "§6.2",
        [
            [1, "send"],
            [2, "receive-keepalive"],
            [120.5, "send"],
            [121.5, "send"],
            [122, "receive-keepalive"],
        ],
        130,
        0,
    ),
    "responder does not rekey at 120 s": (
        "§6.2",
        [
            [1, "initiate"],
            [2, "send"],
            [3, "receive-keepalive"],
            [125, "send"],
            [126, "receive-keepalive"],
        ],
        140,
        0,
    ),
    "initiator that only receives rekeys at 165 s": (
        "§6.2",
        [[1, "send"], [2, "receive"], [165, "receive"], [166.5, "receive"]],
        185,
        0,
    ),
    "keys are rejected after 180 s": (
        "§6.2",
        [[1, "initiate"], [2, "send"], [3, "receive-keepalive"], [181.5, "mute"], [182, "send"]],
        200,
        0,
    ),
    "persistent keepalive every 25 s, at once when switched on": ("§6.5", [], 160, 25),
    "traffic restarts the persistent keepalive": (
        "§6.5",
        [[10, "send"], [10, "receive-keepalive"]],
        70,
        25,
    ),
}


def timers(_seed: int, builder: Builder) -> None:
    """Scripts grouped by section."""
    sections = dict.fromkeys(section for section, *_ in _SCRIPTS.values())
    for section in sections:
        wishes = []
        for comment, (where, script, until, keepalive) in _SCRIPTS.items():
            if where == section:
                inputs = {"script": script, "until": until, "persistent_keepalive": keepalive}
                wishes.append(Wish(comment, inputs))
        builder.group(
            "timers",
            section,
            "one peer at zero distance, no jitter; `sent` is [nanoseconds, message]",
            wishes,
        )
