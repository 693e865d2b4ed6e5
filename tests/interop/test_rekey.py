"""Rekey-After-Time (§6.2) in real time: the one test of this suite that waits 120 seconds.

Four tunnels at once, so that the wait is had once.
"""

from __future__ import annotations

import time

import pytest

from tests.interop.tunnel import connect, make_ends
from tests.support.netns import wait_until

REKEY_AFTER = 120
KEEPALIVE = 25


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_new_session_after_120_seconds(lab):
    """Traffic goes through the rekey without a loss; a keepalive alone brings it about too."""
    busy = [make_ends(lab, *pair) for pair in (("py", "go"), ("go", "py"))]
    idle = [make_ends(lab, *pair) for pair in (("py", "go"), ("go", "py"))]
    for left, right in busy + idle:
        connect(left, right)
    for left, right in idle:
        left.wg("set", left.name, "peer", right.public_key, "persistent-keepalive", str(KEEPALIVE))
    for left, right in busy + idle:
        left.ping(right, "-c1")
    first = [left.handshake_time() for left, _ in busy + idle]
    started = time.time()
    count = str(2 * (REKEY_AFTER + 8))
    pings = [
        here.namespace.start("ping", "-nq", "-i0.5", "-W5", "-c", count, there.inner[4])
        for left, right in busy
        for here, there in ((left, right), (right, left))
    ]
    for ping in pings:
        assert " 0% packet loss" in ping.communicate(timeout=200)[0]
    assert wait_until(
        lambda: all(left.handshake_time() > first[2 + n] for n, (left, _) in enumerate(idle)), 40
    )
    for before, (left, right) in zip(first, busy + idle, strict=True):
        after = left.handshake_time()
        assert after - before >= REKEY_AFTER - 1
        assert abs(right.handshake_time() - after) <= 1
        assert after <= started + REKEY_AFTER + KEEPALIVE + 6
        right.ping(left, "-c1")
