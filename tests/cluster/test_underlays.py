"""Other underlays: IPv6 alone, IPv4 alone, two at once, jumbo frames.  Pods have both families."""

from __future__ import annotations

import pytest

from testbed.classify import Kind
from testbed.namespaces import wait_until
from tests.cluster.harness import shooting_range

pytestmark = [pytest.mark.root, pytest.mark.xdist_group("cluster underlays")]

UNDERLAYS = {
    "IPv6 alone": '{lan: {networks: ["fd00:20::/64"]}}',
    "IPv4 alone": "{lan: {networks: [172.20.0.0/24]}}",
    "one for each": '{lan: {networks: [172.20.0.0/24]}, wan: {networks: ["fd00:21::/64"]}}',
    "jumbo": '{lan: {networks: [172.20.0.0/24, "fd00:20::/64"], mtu: 9000}}',
}
CLUSTER = """
name: underlays
mode: strict
node_encryption: true
underlays: %s
nodes:
  alpha: {pods: [client]%s}
  beta: {pods: [server]%s}
"""


@pytest.fixture(params=UNDERLAYS)
def firing_range(request):
    both = ", underlays: [lan, wan]" if request.param == "one for each" else ""
    with shooting_range(CLUSTER % (UNDERLAYS[request.param], both, both)) as made:
        yield made


def test_everything_is_encrypted_on_every_underlay(firing_range):
    r = firing_range
    targets = [*r.topology.pod("beta/server").addresses, *r.topology.node("beta").addresses]
    for target in map(str, targets):
        assert wait_until(lambda t=target: r.ping("alpha/client", t, count=1) == 1, 20), target
    for target in map(str, r.topology.node("beta").addresses):
        assert wait_until(lambda t=target: r.ping("alpha", t, count=1) == 1, 20), target
    r.cluster.settle(r.sniffer)
    assert r.sniffer.count(Kind.WIREGUARD) > 2 * len(targets)
    assert r.sniffer.count(Kind.POD_TO_POD, Kind.POD_TO_OTHER, Kind.NODE) == 0
