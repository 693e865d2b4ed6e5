"""What the link watch sees of a TUN device."""

from __future__ import annotations

from contextlib import closing

import pytest

from tests.linux.edges import ready
from wgpy.dataplane.ports import DeviceGone
from wgpy.linux.link import LinkState, LinkWatch
from wgpy.linux.tun import LinuxTun

pytestmark = pytest.mark.root


@pytest.fixture
def home(lab):
    return lab.namespace("home")


@pytest.fixture
def watched(lab, home):
    with home.entered():
        tun = LinuxTun(lab.interface(), mtu=1420)
        watch = LinkWatch(tun)
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
