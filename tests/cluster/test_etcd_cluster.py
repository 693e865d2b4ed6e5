"""Agents as real processes that learn of each other through a real etcd with TLS, and faults
of it under traffic.  Each node's own file has this node and its pods, and nothing else."""

from __future__ import annotations

import json
import signal
from contextlib import contextmanager

import pytest

from strict.discovery.etcd.layout import encode, entry_fields, node_fields, spelled
from strict.discovery.etcd.store import Store
from strict.ipcache import Entry, Source
from strict.nodes import Node
from testbed import control, dataplane
from testbed.cluster import AGENT, Cluster
from testbed.load import finish_ping, start_ping
from testbed.namespaces import wait_until
from testbed.topology import parse_topology
from tests.cluster.craft import KINDS, Flow
from tests.cluster.harness import Range, every
from tests.strict.helpers import a, key, p
from tests.support.etcd import Authority, Etcd

pytestmark = [pytest.mark.root, pytest.mark.xdist_group("cluster etcd")]

CLUSTER = """
name: etcd
mode: strict
masquerade: false
nodes:
  alpha: {pods: [client]}
  beta: {pods: [server]}
  gamma: {pods: [other]}
"""
TTL = 5
NODES, PODS = "cilium/state/nodes/v1/default/", "cilium/state/ip/v1/default/"


class EtcdRange(Range):
    """The cluster, and the store that runs on gamma."""

    server: Etcd

    @contextmanager
    def store(self):
        """As somebody with a certificate, on gamma."""
        with self.cluster.namespaces["gamma"].entered():
            store = Store(self.server.settings())
            yield store
            store.close()

    def start_store(self):
        self.server.start(wait=False)
        space = self.cluster.namespaces["gamma"]
        assert wait_until(lambda: space.call(self.server.listens), 20)

    def learned(self, node="alpha"):
        """Until this node would encrypt to all pods of the others."""
        ends = {"alpha": "alpha/client", "beta": "beta/server", "gamma": "gamma/other"}
        for other in ends:
            if other != node:
                for version in (4, 6):
                    self.until(node, self.pod(ends[node], version), self.pod(ends[other], version),
                               "encrypted")  # fmt: skip

    def problems(self, node="alpha"):
        return " ".join(self.cluster.agent_status(node).get("problems", {}).values())

    def settled(self):
        """All know all, and nobody has anything to complain of."""
        for node in ("alpha", "beta", "gamma"):
            self.learned(node)
            assert wait_until(lambda n=node: not self.problems(n), 20), self.problems(node)
        assert self.ping("alpha/client", self.pod("beta/server", 4), count=1, patience=10)

    def traffic(self, count=30):
        """Pings from alpha's pod to beta's, at ten a second."""
        space = self.cluster.namespaces["alpha/client"]
        target = self.pod("beta/server", 4)
        return start_ping(space, target, count=count, interval=0.1, patience=2)


@pytest.fixture(scope="module")
def firing_range(tmp_path_factory):
    folder = tmp_path_factory.mktemp("etcd")
    with Cluster.up(parse_topology(CLUSTER), start=False) as cluster:
        made = None
        address = str(cluster.topology.node("gamma").address(4))
        authority = Authority(folder)
        authority.issue("server", hosts=[address])
        authority.issue("client")
        space = cluster.namespaces["gamma"]
        server = Etcd(folder, tls=folder, address=address, port=2379, peer=2380,
                      wrap=lambda command: [*space.prefix(), *command])  # fmt: skip
        public = {name: dataplane.public_key(made) for name, made in cluster.keys.items()}
        with cluster.sniffer() as sniffer:
            sniffer.start(interval=0.1)
            made = EtcdRange(cluster, sniffer)
            made.server = server
            made.start_store()
            for node in cluster.topology.nodes:
                write_files(cluster, node.name, public, server)
                cluster.start_agent(node.name)
            for node in cluster.topology.nodes:
                cluster.wait_ready(node.name)
            yield made


def write_files(cluster, name, public, server):
    """The node's own file, with the table that leads to the store."""
    from testbed import discovery

    view = discovery.view_of(cluster.topology, name, public)
    view.hide(*(node.name for node in cluster.topology.nodes if node.name != name))
    cluster.views[name] = view
    cluster.publish(name)
    path = cluster.write_config(name)
    lines = ["[discovery.etcd]", f'endpoints = ["{server.url}"]', f"ttl = {TTL}"]
    lines += [f'{word} = "{server.tls}/{file}"' for word, file in
              (("ca", "ca.crt"), ("cert", "client.crt"), ("key", "client.key"))]  # fmt: skip
    path.write_text(path.read_text() + "\n".join(["", *lines, ""]))


@pytest.fixture(autouse=True)
def settled(firing_range):
    firing_range.settled()


@pytest.mark.parametrize("version", [4, 6])
def test_pods_talk(firing_range, version):
    r = firing_range
    flow = Flow(r.pod("alpha/client", version), r.pod("beta/server", version))
    seen = r.volley("alpha", "client", flow, receiver=("beta/server", "eth0"), expect="arrived")
    assert seen.arrived == every(KINDS, 3) and seen.readable == every(KINDS, 0)
    with r.store() as store:
        pods = {pair.key.removeprefix(PODS) for _, page in store.pages(PODS) for pair in page}
        assert r.pod("beta/server", version) in pods, "published with its node"


def test_the_store_is_killed_and_started_again(firing_range):
    """Flows between healthy nodes lose nothing; what is published meanwhile comes later."""
    r = firing_range
    flow = r.traffic(60)
    r.server.kill()
    assert wait_until(lambda: "refused" in r.problems(), 20), r.problems()
    client, server = r.pod("alpha/client", 4), r.pod("beta/server", 4)
    r.until("alpha", client, server, "encrypted")
    r.start_store()
    assert wait_until(lambda: not r.problems(), 20), r.problems()
    assert finish_ping(flow, 60).received == 60


def test_an_agent_that_starts_without_the_store_changes_nothing(firing_range):
    """It adopts what runs, waits, and joins when the store is back."""
    r = firing_range
    flow = r.traffic(60)
    r.server.kill()
    r.cluster.kill("alpha", AGENT)
    r.cluster.start_agent("alpha")
    assert wait_until(lambda: r.cluster.agent_status("alpha").get("pid")
                      == r.cluster.daemons["alpha", AGENT].pid, 20)  # fmt: skip
    assert r.cluster.agent_status("alpha")["joined"] is False
    r.until("alpha", r.pod("alpha/client", 4), r.pod("beta/server", 4), "encrypted")
    r.start_store()
    r.cluster.wait_ready("alpha")
    assert finish_ping(flow, 60).received == 60


def test_one_node_is_cut_off_from_the_store(firing_range):
    r = firing_range
    space = r.cluster.namespaces["alpha"]
    flow = r.traffic()
    space.nft("add table inet cut { chain out { type filter hook output priority 0; "
              "tcp dport 2379 reject with tcp reset; }; }")  # fmt: skip
    try:
        assert wait_until(lambda: r.problems(), 30)
        assert not r.problems("beta")
        assert finish_ping(flow, 30).received == 30
    finally:
        space.nft("delete table inet cut")


def test_an_own_key_is_deleted_by_hand(firing_range):
    r = firing_range
    with r.store() as store:
        before = store.get(NODES + "beta")
        store.delete(NODES + "beta")
        assert wait_until(lambda: store.get(NODES + "beta"), 10)
        assert (store.get(NODES + "beta") or before).value == before.value
    r.learned()


def test_a_dead_nodes_lease_runs_out(firing_range):
    """Its pods' packets are dropped under a name then, and never leave in plaintext."""
    r = firing_range
    client, server = r.pod("alpha/client", 4), r.pod("beta/server", 4)
    r.cluster.kill("beta", AGENT)
    assert r.ping("alpha/client", server) == 3, "traffic needs no agent"
    control.wait_known(r.cluster, "alpha", client, server, "dropped", 60)
    with r.store() as store:
        assert store.get(NODES + "beta") is None
    seen = r.volley("alpha", "client", Flow(client, server))
    assert seen.readable == every(KINDS, 0)
    assert seen.dropped["UNENCRYPTED_TRAFFIC"] == seen.sent
    r.cluster.start_agent("beta")
    r.cluster.wait_ready("beta")


def test_malicious_entries_take_nobodys_traffic(firing_range):
    """Under traffic: another's pod, key, address and range, the world, our address."""
    r = firing_range
    server, client = r.pod("beta/server", 4), r.pod("alpha/client", 4)
    beta, alpha, gamma = (a(r.node(name, 4)) for name in ("beta", "alpha", "gamma"))
    nobody = a("192.0.2.9")
    cidr = p(str(r.topology.node("beta").pod_cidrs[0]))
    keys = {name: dataplane.public_key(made) for name, made in r.cluster.keys.items()}
    thieves = [
        Node("t-key", (a("192.0.2.1"),), keys["beta"]),
        Node("t-address", (beta,), key(51)),
        Node("t-ours", (alpha,), key(52)),
        Node("t-range", (a("192.0.2.4"),), key(53), (cidr,)),
        Node("t-world", (a("192.0.2.5"),), key(54), (p("0.0.0.0/0"), p("::/0"))),
    ]
    said = [p(server), p(client), p("0.0.0.0/0"), p("::/0")]
    flow = r.traffic()
    with r.store() as store:
        for thief in thieves:
            store.put(NODES + thief.name, encode(node_fields(thief, "default")), 0)
        for prefix in said:
            entry = Entry(prefix, source=Source.KVSTORE)
            host = gamma if prefix.length == 32 else nobody
            store.put(PODS + spelled(prefix), encode(entry_fields(entry, host)), 0)
        # gamma itself takes out what others say of its address.
        store.put(PODS + "10.0.0.0/8", encode(entry_fields(
            Entry(p("10.0.0.0/8"), source=Source.KVSTORE), gamma)), 0)  # fmt: skip
        store.put(NODES + "t-huge", b'{"Name":"' + b"x" * (1 << 20) + b'"}', 0)
        try:
            names = {thief.name for thief in thieves} | {NODES + "t-huge", "0.0.0.0/0", "::/0"}
            assert wait_until(
                lambda: names <= set(r.cluster.agent_status("alpha")["refused"]), 20
            ), names - set(r.cluster.agent_status("alpha")["refused"])
            assert r.cluster.agent_status("alpha")["refusals"]["node"] >= 5
            assert finish_ping(flow, 30).received == 30
            assert wait_until(lambda: store.get(PODS + "10.0.0.0/8") is None, 10)
            assert wait_until(lambda: json.loads(store.get(PODS + server).value)["HostIP"]
                              == r.node("beta", 4), 10), "its node has put it right"  # fmt: skip
        finally:
            for thief in ["t-huge", *(thief.name for thief in thieves)]:
                store.delete(NODES + thief)
            for prefix in said[2:]:
                store.delete(PODS + str(prefix))


def test_a_node_leaves_and_comes_back(firing_range):
    """`drain`: the others confirm, then it is taken down; nothing is left, nothing leaks."""
    r = firing_range
    config = str(r.cluster.node_folder("beta") / "agent.toml")
    wgpy = dataplane.program("wgpy")
    space = r.cluster.namespaces["beta"]
    busy = space.run(wgpy, "strict", "drain", "--config", config, check=False)
    assert busy.returncode == 1 and "another agent keeps wg0" in busy.stderr
    r.cluster.kill("beta", AGENT, signal.SIGTERM)
    assert wait_until(lambda: r.cluster.pid("beta", AGENT) is None, 10)
    done = space.run(wgpy, "strict", "drain", "--config", config, "--json")
    assert json.loads(done.stdout) == {
        "node": "beta", "withdrawn": True, "unconfirmed": [], "down": True}  # fmt: skip
    with r.store() as store:
        left = [pair.key for _, page in store.pages("cilium/") for pair in page]
        assert not any("beta" in name or "wgpy" in name for name in left), left
    client, server = r.pod("alpha/client", 4), r.pod("beta/server", 4)
    seen = r.volley("alpha", "client", Flow(client, server))
    assert seen.readable == every(KINDS, 0)
    r.cluster.start_agent("beta")
    r.cluster.wait_ready("beta")
