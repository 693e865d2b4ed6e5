"""Who knows what, and when: replies, convergence, keys that change, nodes that come back."""

from __future__ import annotations

import pytest

from testbed import control, dataplane, discovery
from testbed.namespaces import wait_until
from testbed.talk import Client, Server
from testbed.topology import ip_address
from tests.cluster.craft import KINDS, Flow
from tests.cluster.harness import EACH, every, shooting_range

pytestmark = [pytest.mark.root, pytest.mark.xdist_group("cluster discovery")]

CLUSTER = """
name: discovery
mode: strict
masquerade: false
slices: false
nodes:
  alpha: {pods: [client]}
  beta: {pods: [server]}
  gamma: {pods: [other]}
unknown: {alpha: [gamma], beta: [gamma]}
"""
both = pytest.mark.parametrize("version", [4, 6])


@pytest.fixture(scope="module")
def firing_range():
    with shooting_range(CLUSTER) as made:
        yield made


def pair(r, version):
    return r.pod("alpha/client", version), r.pod("beta/server", version)


@both
def test_replies_are_dropped_only_where_their_entry_is_missing(firing_range, version):
    r = firing_range
    client, server = pair(r, version)
    r.hide("beta", "alpha/client")
    r.until("beta", server, client, "dropped")
    before = {node: dict(control.drops(r.cluster, node)) for node in ("alpha", "beta")}
    try:
        seen = r.volley("alpha", "client", Flow(client, server),
                        receiver=("beta/server", "eth0"), expect="arrived")  # fmt: skip
        assert seen.arrived == every(KINDS, EACH)
        assert r.ping("alpha/client", server, patience=0.3) == 0
        after = {node: control.drops(r.cluster, node) for node in ("alpha", "beta")}
        name = "UNENCRYPTED_TRAFFIC"
        assert after["beta"][name] - before["beta"].get(name, 0) >= 3
        assert after["alpha"].get(name, 0) == before["alpha"].get(name, 0)
    finally:
        r.show("beta", "alpha/client")
        r.until("beta", server, client, "encrypted")
    assert r.ping("alpha/client", server) == 3


@both
def test_the_same_connection_converges_after_publication(firing_range, version, record_property):
    r = firing_range
    client, server = pair(r, version)
    for node, name in (("alpha", "beta/server"), ("beta", "alpha/client")):
        r.hide(node, name)
    r.until("alpha", client, server, "dropped")
    r.until("beta", server, client, "dropped")
    address = ip_address(server)
    with (
        Server(r.cluster.namespaces["beta/server"], address) as listener,
        Client(r.cluster.namespaces["alpha/client"], address) as connection,
    ):
        port = connection.source()
        assert not connection.connected(1.2)
        for node, name in (("alpha", "beta/server"), ("beta", "alpha/client")):
            r.cluster.views[node].show(name)
        published = r.cluster.publish("alpha", "beta")
        assert connection.connected(20)
        assert connection.source() == port
        peer = listener.accept()
        connection.socket.sendall(b"still the same connection")
        assert peer.recv(100) == b"still the same connection"
    r.cluster.settle(r.sniffer)
    first = next(rec.at for rec in r.sniffer.latest
                 if rec.at > published and rec.packet.detail == "data")  # fmt: skip
    seconds = (first - published) / 1e9
    record_property("seconds from publication to the first encrypted packet", seconds)
    print(f"IPv{version}: {seconds:.3f} s from publication to the first encrypted packet")


@both
def test_known_entry_whose_node_has_no_key_yet(firing_range, version):
    r = firing_range
    client, server = pair(r, version)
    r.cluster.views["alpha"].keyless.add("beta")
    r.cluster.publish("alpha")
    r.until("alpha", client, server, "dropped")
    seen = r.volley("alpha", "client", Flow(client, server))
    assert seen.readable == every(KINDS, 0)
    assert seen.dropped["UNENCRYPTED_TRAFFIC"] == seen.sent
    r.cluster.views["alpha"].keyless.clear()
    r.cluster.publish("alpha")
    r.until("alpha", client, server, "encrypted")
    assert wait_until(lambda: r.ping("alpha/client", server, count=1) == 1, 10)


def new_key(r, node):
    """A node gets a new key; nobody else is told yet."""
    key = dataplane.new_key()
    path = r.cluster.node_folder(node) / f"{node}.key"
    discovery.write(path, key.base64 + "\n", mode=0o600)
    return dataplane.public_key(key).base64


def test_a_node_changes_its_key(firing_range):
    r = firing_range
    server = r.pod("beta/server", 4)
    old = r.cluster.views["alpha"].nodes["beta"]["public_key"]
    public = new_key(r, "beta")
    for viewer in ("alpha", "beta", "gamma"):
        r.cluster.views[viewer].nodes["beta"]["public_key"] = public
    r.cluster.publish()
    peers = dataplane.snapshot

    def keys():
        return {peer.public_key.base64 for peer in peers(r.cluster.namespaces["alpha"]).peers}

    assert wait_until(lambda: public in keys() and old not in keys(), 10)
    assert wait_until(lambda: r.ping("alpha/client", server, count=1) == 1, 15)
    device = peers(r.cluster.namespaces["alpha"])
    assert len(device.peers) == 1 and len(device.peers[0].allowed_ips) >= 2


def test_two_nodes_with_one_key(firing_range):
    """The second claim is refused, naming both; the first one's traffic goes on."""
    r = firing_range
    client, server = pair(r, 4)
    view = r.cluster.views["alpha"]
    own = view.nodes["gamma"]["public_key"]
    view.nodes["gamma"]["public_key"] = view.nodes["beta"]["public_key"]
    view.show("gamma")
    r.cluster.publish("alpha")

    def complaint():
        status = r.cluster.agent_status("alpha")
        words = " ".join([*status["problems"].values(), *status["refused"].values()])
        return "beta" in words and "gamma" in words

    try:
        assert wait_until(complaint, 10)
        assert r.ping("alpha/client", server) == 3
        r.until("alpha", client, r.pod("gamma/other", 4), "dropped")
    finally:
        view.nodes["gamma"]["public_key"] = own
        view.hide("gamma")
        r.cluster.publish("alpha")
    assert wait_until(lambda: not complaint(), 10)


def test_a_new_node_reuses_a_dead_ones_address(firing_range):
    """delta gets beta's address while beta's entry is still there: the later claim holds."""
    r = firing_range
    client, server = pair(r, 4)
    views = r.cluster.views
    old = views["alpha"].nodes["beta"]
    public = new_key(r, "beta")
    delta = {**old, "name": "delta", "public_key": public}
    # The machine itself: beta's agent learns that it is called delta by nobody; its key is new.
    views["beta"].nodes["beta"]["public_key"] = public
    views["alpha"].nodes["delta"] = delta
    views["alpha"].endpoints["delta/server"] = [
        {**entry, "node": "delta", "source": "kvstore"}
        for entry in views["alpha"].endpoints["beta/server"]
    ]
    r.cluster.publish("alpha", "beta")
    try:
        assert wait_until(lambda: control.explain(r.cluster, "alpha", client, server)["node"]
                          == "delta", 10)  # fmt: skip
        assert wait_until(lambda: r.ping("alpha/client", server, count=1) == 1, 20)
    finally:
        del views["alpha"].nodes["delta"], views["alpha"].endpoints["delta/server"]
        views["alpha"].nodes["beta"] = {**old, "public_key": public}
        r.cluster.publish("alpha")
    # The stale name goes, the address stays with whoever holds it.
    assert wait_until(lambda: r.ping("alpha/client", server, count=1) == 1, 20)


def test_a_bad_discovery_file_is_refused_as_a_whole(firing_range):
    r = firing_range
    server = r.pod("beta/server", 4)
    path = r.cluster.node_folder("alpha") / "cluster.toml"
    good = path.read_text()
    try:
        discovery.write(path, good.replace('name = "beta"', 'nam = "beta"'))
        assert wait_until(lambda: "cluster.toml:" in str(r.cluster.agent_status("alpha")["problems"]
                                                        ), 10)  # fmt: skip
        assert r.ping("alpha/client", server) == 3
    finally:
        discovery.write(path, good)
    assert wait_until(lambda: not r.cluster.agent_status("alpha")["problems"], 10)
