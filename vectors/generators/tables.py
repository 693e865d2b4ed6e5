"""Inputs of the files `replay` and `allowedips`."""

from __future__ import annotations

from vectors.entropy import SeededEntropy
from vectors.generators.builder import Builder, Wish

_WINDOW = 8192


def replay(seed: int, builder: Builder) -> None:
    """Hand-written scripts around the edges, then random ones."""
    w = _WINDOW
    scripts: dict[str, list[int]] = {
        "in order": list(range(20)),
        "each twice": [0, 0, 1, 1, 2, 2],
        "first is not zero": [5, 4, 3, 5, 0],
        "reversed": list(range(64, -1, -1)),
        "evens, then odds": [*range(0, 40, 2), *range(1, 40, 2)],
        "oldest inside the window": [w - 1, 0, 0],
        "just behind the window": [w, 0, 1],
        "one step moves the edge": [w - 1, w, 0, 1, 1],
        "jump by exactly the window": [0, w, 0, 1, w],
        "jump far": [3, 2**32, 3, 2**32 - 1, 2**32 - w, 2**32 - w + 1],
        "largest counters": [2**64 - 2**13 - 2, 2**64 - 2**13 - 3, 2**64 - 2**13 - 2],
        "word edges": [63, 64, 65, 127, 128, 63, 64, 65, 62, 126],
        "repeat after a jump": [7, 7 + w // 2, 7, 8, 8, 7 + w // 2],
        "jump over a whole window, then back inside": [10, 10 + 3 * w, 10 + 3 * w - 1, 10],
    }
    draw = SeededEntropy(seed, "replay")
    for number in range(6):
        front = 0
        script = []
        for _ in range(120):
            front += draw.integer(3) * draw.integer(200)
            script.append(max(0, front - draw.integer(2 if number % 2 else w + 200)))
        scripts[f"random {number + 1}"] = script
    wishes = [
        Wish(comment, {"window": _WINDOW, "counters": [str(c) for c in counters]})
        for comment, counters in scripts.items()
    ]
    builder.group(
        "replay",
        "§5.4.6",
        "the paper fixes no window size: these scripts hold for one of exactly `window` counters",
        [Wish(w.comment, w.inputs, "acceptable", ("WindowSize",)) for w in wishes],
    )


def allowed_ips(seed: int, builder: Builder) -> None:
    """Longest prefix, moves, removals, both families, random tables."""
    v4 = ["10.0.0.1", "10.1.2.3", "10.1.3.1", "192.168.4.4", "11.0.0.0", "0.0.0.0"]
    nested = [
        ["insert", "10.0.0.0/8", "A"],
        ["insert", "10.1.0.0/16", "B"],
        ["insert", "10.1.2.0/24", "C"],
        ["insert", "10.1.2.3/32", "D"],
    ]
    mixed = [["insert", "10.0.0.0/8", "A"], ["insert", "a00::/8", "B"]]
    cases = {
        "empty table": ([], v4),
        "longest prefix wins": (nested, v4),
        "default route": ([*nested, ["insert", "0.0.0.0/0", "E"]], v4),
        "the same prefix moves to its new owner": (
            [*nested, ["insert", "10.1.0.0/16", "A"]],
            ["10.1.9.9", "10.1.2.9"],
        ),
        "removal by the owner": ([*nested, ["remove", "10.1.2.3/32", "D"]], ["10.1.2.3"]),
        "removal by another is ignored": ([*nested, ["remove", "10.1.2.3/32", "A"]], ["10.1.2.3"]),
        "host bits are cleared": ([["insert", "10.1.2.3/16", "A"]], ["10.1.0.0", "10.2.0.0"]),
        "families never meet": (mixed, ["10.0.0.1", "a00::1", "b00::1"]),
        "IPv6": (
            [
                ["insert", "2001:db8::/32", "A"],
                ["insert", "2001:db8:1::/48", "B"],
                ["insert", "2001:db8:1::1/128", "C"],
                ["insert", "::/0", "D"],
            ],
            ["2001:db8::1", "2001:db8:1::2", "2001:db8:1::1", "fe80::1"],
        ),
    }
    wishes = [
        Wish(comment, {"routes": routes, "lookups": lookups})
        for comment, (routes, lookups) in cases.items()
    ]
    draw = SeededEntropy(seed, "allowedips")
    wishes += [_random_table(draw, number) for number in range(4)]
    builder.group("allowed-ips", "§2", "owner of each looked-up address, null for none", wishes)


def _random_table(draw: SeededEntropy, number: int) -> Wish:
    def address() -> str:
        return ".".join(str(b) for b in (10, *(b & 3 for b in draw(2)), draw.integer(8)))

    routes = []
    for _ in range(60):
        action = "remove" if draw.integer(4) == 0 else "insert"
        prefix = f"{address()}/{8 + draw.integer(25)}"
        routes.append([action, prefix, "ABCDE"[draw.integer(5)]])
    lookups = [address() for _ in range(60)]
    return Wish(f"random table {number + 1}", {"routes": routes, "lookups": lookups})
