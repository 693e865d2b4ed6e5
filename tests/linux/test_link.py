"""What the link watch sees of a TUN device."""

from __future__ import annotations

from contextlib import closing

import pytest

from tests.linux.edges import only_holder, ready
from tests.support.netns import wait_until
from wgpy.dataplane.ports import DeviceGone
from wgpy.linux import link
from wgpy.linux.link import LinkState, LinkWatch
from wgpy.linux.tun import LinuxTun
from wgpy.memory.ports import ManualClock

pytestmark = pytest.mark.root


@pytest.fixture
def home(lab):
    return lab.namespace("home")


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def watched(lab, home, clock):
    with home.entered():
        tun = LinuxTun(lab.interface(), mtu=1420)
        watch = LinkWatch(tun, clock)
        with closing(tun), closing(watch):
            watch.state()  # Silences what the making of the device rang.
            yield tun, watch


def test_it_rings_for_each_change_and_tells_what_is(home, watched):
    tun, watch = watched
    assert not ready(watch.fileno(), 0)
    for change, state in [
        ("up", LinkState(True, 1420)),
        ("mtu 1280", LinkState(True, 1280)),
        ("down", LinkState(False, 1280)),
    ]:
        home.ip(f"link set {tun.name} {change}")
        assert ready(watch.fileno())
        assert watch.state() == state


def test_it_follows_into_another_namespace(lab, home, watched):
    tun, watch = watched
    other = lab.namespace("other")
    home.ip(f"link set {tun.name} netns {other.pid}")
    assert ready(watch.fileno())
    assert watch.state() == LinkState(False, 1420)
    other.ip(f"link set {tun.name} up")
    assert ready(watch.fileno())
    assert watch.state() == LinkState(True, 1420)


def test_a_deleted_device_is_gone(home, watched):
    tun, watch = watched
    home.ip(f"link delete {tun.name}")
    assert ready(watch.fileno())
    with pytest.raises(DeviceGone):
        watch.state()


@pytest.mark.parametrize(
    "change",
    [
        "address add 192.0.2.7/24 dev lo",
        "address add 2001:db8::7/64 dev lo",
        "route add 192.0.2.9/32 dev lo",
        "-6 route add 2001:db8::9/128 dev lo",
        "rule add priority 77 table 77",
        "-6 rule add priority 77 table 77",
        "nexthop add id 7 dev lo",
    ],
)
def test_it_rings_for_what_decides_how_datagrams_leave(home, watched, change):
    _, watch = watched
    assert not ready(watch.fileno(), 0)
    home.ip(change)
    assert ready(watch.fileno())
    watch.state()
    assert not ready(watch.fileno(), 0)


def test_a_thousand_rings_are_silenced_at_once(home, watched):
    tun, watch = watched
    lines = "".join(f"route add 10.{n >> 8}.{n & 255}.0/24 dev lo\n" for n in range(1000))
    home.run("ip", "-batch", "-", stdin=lines)
    assert watch.state() == LinkState(False, 1420)
    assert not ready(watch.fileno(), 0)
    home.ip(f"link set {tun.name} up")
    assert ready(watch.fileno())


def test_it_follows_from_one_namespace_to_the_next_and_home(lab, home, watched):
    """Its descriptor stays the same: whoever watches it need not know."""
    tun, watch = watched
    number, here = watch.fileno(), home
    for there in (lab.namespace("first"), lab.namespace("second"), home):
        here.ip(f"link set {tun.name} netns {there.pid}")
        assert ready(watch.fileno())
        assert watch.state() == LinkState(False, 1420)
        there.ip(f"link set {tun.name} up")
        assert ready(watch.fileno())
        assert watch.state() == LinkState(True, 1420)
        here = there
    assert watch.fileno() == number


def test_away_it_is_looked_at_now_and_then_for_the_bell_may_be_deaf(lab, home, watched, clock):
    tun, watch = watched
    assert watch.next_deadline() is None
    other = lab.namespace("other")
    home.ip(f"link set {tun.name} netns {other.pid}")
    watch.state()
    assert watch.next_deadline() == clock.monotonic() + link.LOOK_INTERVAL
    other.ip(f"link set {tun.name} netns {home.pid}")
    watch.state()
    assert watch.next_deadline() is None


def test_another_device_of_that_name_is_not_ours(lab, home, watched):
    tun, watch = watched
    other = lab.namespace("other")
    home.ip(f"link set {tun.name} netns {other.pid}")
    home.ip(f"link add {tun.name} type veth peer name {lab.interface()}")
    home.ip(f"link set {tun.name} mtu 1300 up")
    assert watch.state() == LinkState(False, 1420)


@pytest.mark.parametrize("forbidden", ["to_ask_where", "to_enter"])
def test_where_it_may_not_look_the_link_counts_as_up(lab, home, watched, monkeypatch, forbidden):
    tun, watch = watched
    other = lab.namespace("other")
    home.ip(f"link set {tun.name} netns {other.pid}")

    def refuse(*_):
        raise PermissionError(1, "Operation not permitted")

    if forbidden == "to_enter":
        monkeypatch.setattr(link, "inside", refuse)
    else:
        real = link.fcntl.ioctl
        monkeypatch.setattr(
            link.fcntl,
            "ioctl",
            lambda fd, request, *rest: (
                refuse() if request == link.TUNGETDEVNETNS else real(fd, request, *rest)
            ),
        )
    assert watch.state() == LinkState(True, 1420)
    assert watch.next_deadline() is not None
    other.ip(f"link delete {tun.name}")
    with pytest.raises(DeviceGone):
        watch.state()


def test_it_keeps_no_namespace_alive(home, watched):
    """The last process of that namespace ends, and with the namespace goes the device."""
    tun, watch = watched
    with only_holder(home) as holder:
        home.ip(f"link set {tun.name} netns {holder.pid}")
        watch.state()
    assert wait_until(lambda: ready(tun.fileno(), 0))
    with pytest.raises(DeviceGone):
        watch.state()


def test_no_address_of_its_own_wherever_it_comes_up(lab, home, watched):
    """As with WireGuard's own device; an address that a person gave it stays."""
    tun, watch = watched
    other = lab.namespace("other")
    home.ip(f"link set {tun.name} netns {other.pid}")
    other.ip(f"link set {tun.name} up")
    other.ip(f"address add fe80::77/64 dev {tun.name}")
    addresses = f"-6 -brief address show dev {tun.name}"
    assert wait_until(lambda: other.ip(addresses).count("fe80::") == 2), "the kernel's came first"
    watch.state()
    assert other.ip(addresses).split()[2:] == ["fe80::77/64"]


def test_no_address_of_its_own_when_ipv6_comes_back(home, watched):
    tun, watch = watched
    home.ip(f"link set {tun.name} up")
    with home.entered():
        for mtu in (1000, 1400):
            home.ip(f"link set {tun.name} mtu {mtu}")
            assert watch.state() == LinkState(True, mtu)
    assert "fe80" not in home.ip(f"address show dev {tun.name}")
