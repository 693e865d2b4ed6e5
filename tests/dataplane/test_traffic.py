"""Real traffic between kernels, through wgpy and wireguard-go: what arrives is what was sent."""

from __future__ import annotations

import pytest

from tests.dataplane.soak import ENVIRONMENT, PYTHON, TRANSFER, UDP_PORT, losses, transfer
from tests.interop.tunnel import End, connect, make_ends
from tests.support.netns import wait_until

pytestmark = pytest.mark.root

MEGABYTE = 1 << 20


PAIRS = [("py", "go"), ("go", "py"), ("py", "py"), ("turbo", "go"), ("turbo", "py")]


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_bulk_both_ways(lab, pair):
    """Retransmissions depend on the machine's other work; what we lose does not."""
    left, right = make_ends(lab, *pair)
    connect(left, right)
    for source, target in ((left, right), (right, left)):
        assert transfer(source, target, 100 * MEGABYTE).intact
    for end, program in zip((left, right), pair, strict=True):
        if program != "go":
            lost = losses(end)
            assert lost["udp"] == 0
            assert lost["from tun"] == 0


@pytest.mark.parametrize("inner", [4, 6], ids=["inner4", "inner6"])
@pytest.mark.parametrize("outer", [4, 6], ids=["outer4", "outer6"])
@pytest.mark.parametrize("program", ["py", "turbo"])
def test_families(lab, inner, outer, program):
    left, right = make_ends(lab, program, "go")
    connect(left, right, family=outer)
    for source, target in ((left, right), (right, left)):
        assert transfer(source, target, 5 * MEGABYTE, family=inner).intact


@pytest.mark.parametrize("mtu", [576, 1281, 1419, 8900])
@pytest.mark.parametrize("program", ["py", "turbo"])
def test_mtus(lab, mtu, program):
    """Odd segment sizes, segments that must be padded, and jumbo frames that the veth cuts."""
    left, right = make_ends(lab, "py", program)
    connect(left, right)
    for end in (left, right):
        end.namespace.ip(f"link set {end.name} mtu {mtu}")
    for source, target in ((left, right), (right, left)):
        assert transfer(source, target, 3 * MEGABYTE).intact


@pytest.mark.parametrize(
    ("source", "target", "inner"),
    [
        ("py", "py", 4), ("py", "py", 6), ("py", "go", 4), ("go", "py", 6),
        ("turbo", "py", 4), ("py", "turbo", 6),
    ],
)
@pytest.mark.parametrize(("size", "segments"), [(64, 60), (1001, 1), (1372, 40)])
def test_udp_segments(lab, source, target, inner, size, segments):
    """Datagrams that the application has the kernel cut come out one by one and in order."""
    left, right = make_ends(lab, source, target)
    connect(left, right)
    left.ping(right, "-c1")
    count = segments * 5 - segments // 2
    assert udp(left, right, count, size, segments, inner) == f"ready\n{count}\n"


def udp(left: End, right: End, count: int, size: int, segments: int, inner: int) -> str:
    """What the receiver says."""
    receiver = right.namespace.start(
        PYTHON, *TRANSFER, "udp-receive", str(UDP_PORT), str(count), env=ENVIRONMENT
    )
    assert wait_until(lambda: f":{UDP_PORT}" in right.namespace.run("ss", "-Hlun").stdout)
    words = ("udp-send", right.inner[inner], *map(str, (UDP_PORT, count, size, segments)))
    left.namespace.run(PYTHON, *TRANSFER, *words, env=ENVIRONMENT)
    out, _ = receiver.communicate(timeout=30)
    return out


def test_the_kernel_may_refuse_to_cut(lab):
    """The path's MTU is smaller than the messages: no GSO, fragments instead, all arrives."""
    left, right = make_ends(lab, "py", "go")
    for end in (left, right):
        for line in end.namespace.ip("-o link show type veth").splitlines():
            name = line.split(": ")[1].partition("@")[0]
            end.namespace.ip(f"link set {name} mtu 1300")
    connect(left, right)
    for source, target in ((left, right), (right, left)):
        assert transfer(source, target, 2 * MEGABYTE).intact


def test_no_offload_works_too(lab):
    left, right = make_ends(lab, "go", "go")
    plain = lab.interface()
    left.namespace.run(str(PYTHON), "-P", "-m", "wgpy.cli.wireguard_py", "--no-offload", plain)
    left.namespace.ip(f"link delete {left.name}")
    left.name = plain
    connect(left, right)
    for source, target in ((left, right), (right, left)):
        assert transfer(source, target, 5 * MEGABYTE).intact
