"""Flood-ping round trips: every single one, not only the mean.

``ping -i 0`` sends as ``ping -f`` does (the next request when the reply is in) and prints
each round trip.  Its output goes to a file: a pipe would wake a reader at every line, and
a second busy process shortens round trips by keeping the core awake.
"""

from __future__ import annotations

import contextlib
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from benchmarks.lab import Lab, stop

_REPLY = re.compile(r"icmp_seq=(\d+) .*time=([0-9.]+) ms")
_SENT = re.compile(r"(\d+) packets transmitted, (\d+) (?:packets )?received")

WARM_UP = 20
"""First replies not counted: neighbour discovery, the handshake, cold caches."""


class PingError(RuntimeError):
    """ping failed or nothing came back."""


@dataclass(frozen=True, slots=True)
class RoundTrips:
    """Sorted round trips in seconds, and how many requests went unanswered."""

    ordered: tuple[float, ...]
    lost: int

    def above(self, share: float, longest: float) -> float:
        """The round trip that `share` of the requests did not exceed; lost took `longest`."""
        rank = min(round(share * (len(self.ordered) + self.lost)), len(self.ordered))
        return self.ordered[rank] if rank < len(self.ordered) else max(longest, self.ordered[-1])

    @property
    def mean(self) -> float:
        return sum(self.ordered) / len(self.ordered)


def parse(output: str) -> RoundTrips:
    """From ping's output; raises `PingError` when no reply is in it."""
    found = _REPLY.findall(output)
    replies = [float(ms) / 1e3 for sequence, ms in found if int(sequence) > WARM_UP]
    totals = _SENT.search(output)
    if not replies or totals is None:
        raise PingError(f"no round trips in ping's output: {output.strip()[-200:]!r}")
    return RoundTrips(tuple(sorted(replies)), int(totals[1]) - int(totals[2]))


def flood(lab: Lab, *, count: int, seconds: float) -> RoundTrips:
    """`count` round trips from left to right, cut short after `seconds`."""
    with tempfile.TemporaryFile("w+") as output:
        ping = subprocess.Popen(
            lab.left.inside(
                "ping", "-n", "-i", "0", "-c", str(count + WARM_UP),
                "-w", str(max(1, round(seconds))), lab.target,
            ),
            stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        try:
            ping.wait(seconds + 15)
        except subprocess.TimeoutExpired:
            raise PingError("ping did not end") from None
        finally:
            stop(ping)
        output.seek(0)
        return parse(output.read())


@contextlib.contextmanager
def steady(lab: Lab, seconds: float) -> Iterator[Callable[[], RoundTrips]]:
    """A hundred pings a second beside what happens in the context.

    Yields what gives the round trips afterwards.
    """
    with tempfile.TemporaryFile("w+") as output:
        ping = subprocess.Popen(
            lab.left.inside("ping", "-n", "-i", "0.01", "-c", str(round(seconds * 100)),
                            "-W", "1", lab.target),
            stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        found: list[RoundTrips] = []
        try:
            yield lambda: found[0]
            ping.wait(seconds + 15)
        except subprocess.TimeoutExpired:
            raise PingError("ping did not end") from None
        finally:
            stop(ping)
        output.seek(0)
        found.append(parse(output.read()))
