"""Two uplinks: the default route moves to the other one under a running tunnel.

    mover ══ two links ══ router ── stayer

Both addresses of the mover stay, the router delivers to either, and lets out of each link
only what comes from that link's address (BCP 38), as providers do.
"""

from __future__ import annotations

import re

import pytest

from tests.interop.tunnel import connect, make_end, start_program
from tests.support.netns import wait_until

pytestmark = pytest.mark.root

UPLINKS = {
    4: (("192.0.2.1", "192.0.2.254", 24), ("198.51.100.1", "198.51.100.254", 24)),
    6: (("2001:db8:1::1", "2001:db8:1::fe", 64), ("2001:db8:2::1", "2001:db8:2::fe", 64)),
}
STAYER = {4: ("203.0.113.1", "203.0.113.254", 24), 6: ("2001:db8:3::1", "2001:db8:3::fe", 64)}
PINGS = 100
MAY_BE_LOST = 40
"""Of pings 50 ms apart: two seconds."""

FILTER = """
    table inet bcp38 {{
        chain forward {{
            type filter hook forward priority 0;
            iifname "{0}" ip saddr != 192.0.2.1 drop
            iifname "{0}" ip6 saddr != 2001:db8:1::1 drop
            iifname "{1}" ip saddr != 198.51.100.1 drop
            iifname "{1}" ip6 saddr != 2001:db8:2::1 drop
        }}
    }}
"""


def addresses(rows) -> str:
    return " ".join(f"{address}/{length}" for address, length in rows)


@pytest.fixture
def networks(lab):
    """The namespaces of mover and stayer, and the mover's two links."""
    mover, router, stayer = (lab.namespace(n) for n in ("mover", "router", "stayer"))
    inside = []
    links = []
    for number in (0, 1):
        ours = addresses((UPLINKS[f][number][0], UPLINKS[f][number][2]) for f in (4, 6))
        theirs = addresses((UPLINKS[f][number][1], UPLINKS[f][number][2]) for f in (4, 6))
        link, far = lab.veth(mover, router, ours, theirs)
        links.append(link)
        inside.append(far)
        mover.run("sysctl", "-qw", f"net.ipv4.conf.{link}.rp_filter=0")
    lab.veth(
        stayer,
        router,
        addresses((STAYER[f][0], STAYER[f][2]) for f in (4, 6)),
        addresses((STAYER[f][1], STAYER[f][2]) for f in (4, 6)),
    )
    router.run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
    router.run("nft", "-f", "-", stdin=FILTER.format(*inside))
    for family in (4, 6):
        stayer.ip(f"-{family} route add default via {STAYER[family][1]}")
        lead_out(mover, links, family, 0)
    return mover, stayer, links


def lead_out(mover, links, family: int, number: int) -> None:
    """The mover's default route goes over this link now."""
    gateway = UPLINKS[family][number][1]
    mover.ip(f"-{family} route replace default via {gateway} dev {links[number]}")


def lost(output: str) -> int:
    sent, received = map(int, re.findall(r"(\d+) (?:packets transmitted|received)", output))
    return sent - received


@pytest.mark.parametrize(
    ("program", "other", "family", "initiator"),
    [
        ("py", "py", 4, "mover"),
        ("py", "go", 4, "mover"),
        ("py", "go", 6, "mover"),
        ("py", "go", 4, "stayer"),
        ("py", "py", 6, "stayer"),
    ],
)
def test_the_default_route_moves(lab, networks, program, other, family, initiator):
    """Whichever end began, and though the peer still writes to the old address."""
    mover_home, stayer_home, links = networks
    old, new = (UPLINKS[family][n][0] for n in (0, 1))
    mover = make_end(lab, mover_home, 1, old, old)
    stayer = make_end(lab, stayer_home, 2, STAYER[family][0], STAYER[family][0])
    start_program(mover_home, program, mover.name)
    start_program(stayer_home, other, stayer.name)
    ends = (mover, stayer) if initiator == "mover" else (stayer, mover)
    connect(*ends, family=family)
    ends[0].ping(ends[1], "-c2", "-i0.2")
    assert stayer.peer_endpoint() == mover.endpoint(family)
    ping = ends[0].namespace.start("ping", "-nq", "-i0.05", f"-c{PINGS}", ends[1].inner[4])
    lead_out(mover_home, links, family, 1)
    output, _ = ping.communicate(timeout=60)
    assert lost(output) <= MAY_BE_LOST, output
    mover.outer[family] = new
    assert wait_until(lambda: stayer.peer_endpoint() == mover.endpoint(family))
