"""Sticky sources: answers leave from where the peer wrote to, as long as the route fits.

Two links join `left` and `right`; `right` is reached at addresses of its loopback device, so
that routes alone decide which link is taken.
"""

from __future__ import annotations

import select
from contextlib import closing

import pytest

from tests.linux.edges import Inside
from wgpy.linux import udp as udp_module
from wgpy.linux.gso import GsoUdp
from wgpy.linux.udp import LinuxUdp
from wgpy.protocol.datagram import Datagram
from wgpy.protocol.endpoint import Endpoint, parse_address

pytestmark = pytest.mark.root

PORT = 51820
FIRST = {4: ("192.0.2.1", "192.0.2.2"), 6: ("2001:db8:1::1", "2001:db8:1::2")}
SECOND = {4: ("198.51.100.1", "198.51.100.2"), 6: ("2001:db8:2::1", "2001:db8:2::2")}
REMOTE = {4: "203.0.113.5", 6: "2001:db8:3::5"}
LENGTH = {4: 24, 6: 64}
HOST = {4: 32, 6: 128}


class TwoLinks:
    """`udp` on the left, which has the two ways of sending, and `remote` on the right."""

    def __init__(self, lab, family: int) -> None:
        self.left, self.right = lab.namespace("left"), lab.namespace("right")
        self.family = family
        self.devices = []
        for here, there in (FIRST[family], SECOND[family]):
            length = LENGTH[family]
            device, far = lab.veth(
                self.left, self.right, f"{here}/{length}", f"{there}/{length}"
            )
            self.devices.append(device)
            for namespace, name in ((self.left, device), (self.right, far)):
                namespace.run("sysctl", "-qw", f"net.ipv4.conf.{name}.rp_filter=0")
        self.right.ip(f"address add {REMOTE[family]}/{HOST[family]} dev lo")
        self.route("replace", "default", SECOND, "metric 200")
        self.route("replace", "default", FIRST, "metric 100")
        self.udp, self.remote = Inside(self.left, GsoUdp()), Inside(self.right, LinuxUdp())
        self.udp.rebind(PORT)
        self.remote.rebind(PORT)

    def ip(self, line: str) -> None:
        self.left.ip(f"-{self.family} {line}")

    def route(self, what: str, prefix: str, link: dict, more: str = "") -> None:
        gateway = link[self.family][1]
        device = self.devices[link is SECOND]
        self.ip(f"route {what} {prefix} via {gateway} dev {device} {more}")

    def asked(self, address: str) -> Endpoint:
        """The remote writes to `address`; the endpoint to answer to."""
        source = parse_address(REMOTE[self.family])
        to = Endpoint(parse_address(address), PORT, 0, source)
        assert self.remote.send([Datagram(b"ask", to)]) == 0
        [datagram] = receive(self.udp, 1)
        assert datagram.endpoint.local_ip == parse_address(address)
        return datagram.endpoint

    def answers_from(self, endpoint: Endpoint) -> str:
        """Where an answer comes from, on each way of sending alike."""
        assert self.udp.send([Datagram(b"answer", endpoint)]) == 0
        assert self.udp.send_train(memoryview(b"trains" * 3), 6, endpoint) == 0
        [source] = {d.endpoint.ip for d in receive(self.remote, 4)}
        known = {
            parse_address(link[self.family][0]): name
            for name, link in (("first", FIRST), ("second", SECOND))
        }
        return known.get(source) or source.hex()

    def close(self) -> None:
        self.udp.close()
        self.remote.close()


def receive(port, count: int) -> list[Datagram]:
    received: list[Datagram] = []
    while len(received) < count:
        assert select.select(port.filenos(), [], [], 5)[0], f"only {received} arrived"
        received += port.receive(count)
    return received


@pytest.fixture(params=[4, 6], ids=["ipv4", "ipv6"])
def family(request):
    return request.param


@pytest.fixture
def links(lab, family):
    made = TwoLinks(lab, family)
    with closing(made):
        yield made


def test_a_route_that_moves_to_another_link_takes_the_source_along(links, family):
    """The old address stays, and so do datagrams that still arrive at it."""
    endpoint = links.asked(FIRST[family][0])
    assert links.answers_from(endpoint) == "first"
    links.route("replace", "default", SECOND, "metric 50")
    links.udp.routes_changed()
    assert links.answers_from(endpoint) == "second"
    assert links.answers_from(links.asked(FIRST[family][0])) == "second"
    links.route("delete", "default", SECOND, "metric 50")
    links.udp.routes_changed()
    assert links.answers_from(endpoint) == "first"


def test_a_better_route_with_another_source_is_taken(links, family):
    endpoint = links.asked(FIRST[family][0])
    assert links.answers_from(endpoint) == "first"
    host = f"{REMOTE[family]}/{HOST[family]}"
    links.route("add", host, SECOND, f"src {SECOND[family][0]}")
    links.udp.routes_changed()
    assert links.answers_from(endpoint) == "second"


def test_a_link_that_goes_down_takes_its_source_with_it(links, family):
    endpoint = links.asked(FIRST[family][0])
    assert links.answers_from(endpoint) == "first"
    links.ip(f"link set {links.devices[0]} down")
    links.udp.routes_changed()
    assert links.answers_from(endpoint) == "second"


def test_a_rule_for_the_source_keeps_it(links, family):
    """Policy routing: each source has its own uplink, whatever the main table says."""
    endpoint = links.asked(FIRST[family][0])
    gateway, device = FIRST[family][1], links.devices[0]
    links.ip(f"route add default via {gateway} dev {device} table 77")
    links.ip(f"rule add from {FIRST[family][0]} table 77")
    links.route("replace", "default", SECOND, "metric 50")
    links.udp.routes_changed()
    assert links.answers_from(endpoint) == "first"
    links.ip(f"rule delete from {FIRST[family][0]} table 77")
    links.udp.routes_changed()
    assert links.answers_from(endpoint) == "second"


def test_a_rule_for_the_port_is_seen(links, family):
    links.route("add", "default", SECOND, "table 77")
    endpoint = links.asked(FIRST[family][0])
    assert links.answers_from(endpoint) == "first"
    links.ip(f"rule add ipproto udp sport {PORT} table 77")
    links.udp.routes_changed()
    assert links.answers_from(endpoint) == "second"


def test_another_mark_may_be_another_route(links, family):
    """Whoever sets the mark need not tell: the port knows."""
    endpoint = links.asked(FIRST[family][0])
    assert links.answers_from(endpoint) == "first"
    links.route("add", "default", SECOND, "table 77")
    links.ip("rule add fwmark 7 table 77")
    links.udp.set_mark(7)
    assert links.answers_from(endpoint) == "second"


def test_an_address_of_another_interface_is_kept_while_the_link_is_the_same(links, family):
    """The kernel's test of this has a dummy device; routes to it exist on the other side."""
    other = {4: "10.50.0.1", 6: "fd50::1"}[family]
    links.ip(f"address add {other}/{HOST[family]} dev lo")
    links.right.ip(f"-{family} route add {other}/{HOST[family]} via {FIRST[family][0]}")
    endpoint = links.asked(other)
    assert links.answers_from(endpoint) == parse_address(other).hex()
    links.ip(f"route add blackhole {REMOTE[family][:-1]}99/{HOST[family]}")
    links.udp.routes_changed()
    assert links.answers_from(endpoint) == parse_address(other).hex()


def test_an_address_that_goes_is_dropped_and_is_used_again_when_it_comes_back(links, family):
    second = {4: "192.0.2.11", 6: "2001:db8:1::11"}[family]
    line = f"{second}/{LENGTH[family]} dev {links.devices[0]}"
    nodad = "nodad" if family == 6 else ""
    links.ip(f"address add {line} {nodad}")
    endpoint = links.asked(second)
    assert links.answers_from(endpoint) == parse_address(second).hex()
    links.ip(f"address delete {line}")
    assert links.answers_from(endpoint) == "first", "even before the bell has rung"
    links.udp.routes_changed()
    assert links.answers_from(endpoint) == "first"
    links.ip(f"address add {line} {nodad}")
    links.udp.routes_changed()
    assert links.answers_from(endpoint) == parse_address(second).hex()


def test_the_kernel_is_asked_once_for_each_change_not_for_each_datagram(links, family, monkeypatch):
    endpoint = links.asked(FIRST[family][0])
    questions = []
    real = udp_module.Routes.fits
    monkeypatch.setattr(
        udp_module.Routes, "fits", lambda *a: (questions.append(1), real(*a))[1]
    )
    for _ in range(2):
        links.udp.routes_changed()
        for _ in range(3):
            links.answers_from(endpoint)
    assert len(questions) == 2


def test_without_netlink_a_source_is_dropped_when_it_is_refused(links, family, monkeypatch):
    def refuse(_self):
        raise OSError(93, "Protocol not supported")

    monkeypatch.setattr(udp_module.Routes, "__init__", refuse)
    links.udp.close()
    links.udp.rebind(PORT)
    endpoint = links.asked(FIRST[family][0])
    assert links.answers_from(endpoint) == "first"
    links.ip(f"address delete {FIRST[family][0]}/{LENGTH[family]} dev {links.devices[0]}")
    assert links.answers_from(endpoint) == "second"
