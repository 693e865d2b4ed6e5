"""The demo's second part on real packets: the leak, strict mode, discovery, a dead data plane.

One cluster of two nodes that have not discovered each other, and a second one without any
table in front, for the throughput.
"""

from __future__ import annotations

import time

from testbed import catalogue, control
from testbed.classify import LEAKS
from testbed.cluster import AGENT, DATA_PLANE, Cluster
from testbed.demo_view import Story, describe_message
from testbed.load import finish_ping, ping, rate, start_ping, throughput
from testbed.namespaces import wait_until
from testbed.sniffer import Record, Sniffer
from testbed.talk import Client, Server
from testbed.topology import Address, parse_topology

SECRET = b"the password is swordfish"
WITHOUT_TABLE = """\
name: notable
mode: plain
nodes: {alpha: {pods: [client]}, beta: {pods: [server]}}
"""


class Scene:
    """The cluster, its eavesdropper, and the two pods that talk."""

    def __init__(self, story: Story, cluster: Cluster, sniffer: Sniffer) -> None:
        self.story = story
        self.cluster = cluster
        self.sniffer = sniffer
        self.client = cluster.namespaces["alpha/client"]
        self.server = cluster.namespaces["beta/server"]
        self.target: Address = cluster.topology.pod("beta/server").addresses[0]

    def plaintext(self) -> int:
        """Pod packets in plaintext so far."""
        self.cluster.settle(self.sniffer)
        return self.sniffer.count(*LEAKS)


def strict_story(story: Story, *, seconds: int = 2) -> None:
    """Run the scenario and store its results in `story`."""
    topology = catalogue.topology_of("leak")
    story.step("Default mode: a pod talks to a pod that its node has not discovered")
    with Cluster.up(topology) as cluster, cluster.sniffer(slots=1 << 15) as sniffer:
        sniffer.start(interval=0.1)
        scene = Scene(story, cluster, sniffer)
        with Server(scene.server, scene.target) as server:
            _leak(scene, server)
            _strict_until_discovered(scene, server)
        _dead_data_plane(scene)
        _throughput(scene, seconds)


def _leak(scene: Scene, server: Server) -> None:
    story = scene.story
    with Client(scene.client, scene.target) as client:
        through = client.connected(5)
        if through:
            server.accept()
            client.socket.sendall(SECRET)
            wait_until(lambda: _find(scene.sniffer, SECRET) is not None, 3)
    leaked = scene.plaintext()
    story.say(f"the connection {'works, and the pods do not notice' if through else 'fails'}; "
              f"on the underlay: [bold red]{leaked} packets in plaintext[/]")  # fmt: skip
    record = _find(scene.sniffer, SECRET)
    if record is not None:
        story.dump(f"one of them ({record.packet}):", record.head[14:], SECRET, limit=112)
    story.result("default mode, pod undiscovered", f"{leaked} packets in PLAINTEXT", leaked > 0,
                 colour="red")  # fmt: skip
    story.note(default_plaintext=leaked)


def _find(sniffer: Sniffer, secret: bytes) -> Record | None:
    return next((r for r in sniffer.plaintext() if secret in r.head), None)


def _strict_until_discovered(scene: Scene, server: Server) -> None:
    """The same connection attempt before and after discovery."""
    story, cluster = scene.story, scene.cluster
    story.step("Strict mode: the same again")
    for node in ("alpha", "beta"):
        cluster.write_config(node, mode="strict")
    for node in ("alpha", "beta"):
        control.wait_mode(cluster, node, "strict")
    before = scene.plaintext()
    with Client(scene.client, scene.target) as client:
        through = client.connected(1.3)
        port = client.source()[1]
        leaked = scene.plaintext() - before
        dropped = control.drops(cluster, "alpha").get("UNENCRYPTED_TRAFFIC", 0)
        story.say(f"TCP from port {port}: {'connected' if through else 'no answer'}; on the "
                  f"underlay [bold green]{leaked} packets[/], dropped on alpha: "
                  f"{dropped} UNENCRYPTED_TRAFFIC")  # fmt: skip
        why = control.explain(cluster, "alpha", client.source()[0], str(scene.target))
        story.say(f"[dim]wgpy strict explain: row {why['rule']}, {why['missing']}[/]")
        story.result("strict mode, pod undiscovered",
                     f"{leaked} on the wire, {dropped} dropped UNENCRYPTED_TRAFFIC",
                     leaked == 0 and dropped > 0 and not through)  # fmt: skip
        story.note(strict_plaintext=leaked, strict_dropped=dropped)
        _discover(scene, server, client)


def _discover(scene: Scene, server: Server, client: Client) -> None:
    story, cluster, sniffer = scene.story, scene.cluster, scene.sniffer
    story.step("The nodes discover each other; the same connection is still trying")
    before, port = scene.plaintext(), client.source()[1]
    cluster.views["alpha"].show("beta")
    cluster.views["beta"].show("alpha")
    published = cluster.publish()
    through = client.connected(10)
    if through:
        server.accept()
        client.socket.sendall(SECRET)
        time.sleep(0.2)
    leaked = scene.plaintext() - before
    sealed = [r for r in list(sniffer.records) if r.packet.detail == "data" and r.at > published]
    if not sealed or not through or client.source()[1] != port:
        story.result("the same connection, discovered", "did not get through", False)
        return
    lag = (sealed[0].at - published) / 1e9
    story.say(f"TCP from port {port}: connected; {len(sealed)} packets, all encrypted, the first "
              f"{lag:.2f} s after publication")  # fmt: skip
    story.dump("one of them: " + describe_message(sealed[-1].head[42:]), sealed[-1].head[42:],
               SECRET, limit=64)  # fmt: skip
    story.result("the same connection, discovered",
                 f"{len(sealed)} encrypted, {leaked} in plaintext", leaked == 0)  # fmt: skip
    story.note(discovered_plaintext=leaked, seconds_to_first_encrypted=round(lag, 3))


def _dead_data_plane(scene: Scene) -> None:
    story, cluster = scene.story, scene.cluster
    story.step("The agent is killed, then the data plane, under traffic")
    before = scene.plaintext()
    cluster.kill("alpha", AGENT)
    alive = ping(scene.client, str(scene.target), count=10, interval=0.05)
    story.say(f"agent killed: {alive.received} of {alive.sent} pings answered, without it")
    process = start_ping(scene.client, str(scene.target), count=30, interval=0.05, patience=0.3)
    time.sleep(0.5)
    cluster.kill("alpha", DATA_PLANE)
    dying = finish_ping(process, 30)
    leaked = scene.plaintext() - before
    story.say(f"data plane killed midway: {dying.received} of {dying.sent} pings answered, then "
              f"silence; on the underlay [bold green]{leaked} packets in plaintext[/]")  # fmt: skip
    story.result("agent killed", f"{alive.received} of {alive.sent} pings answered",
                 alive.received == alive.sent)  # fmt: skip
    story.result("data plane killed", f"silence, {leaked} packets in plaintext",
                 leaked == 0 and dying.received < dying.sent)  # fmt: skip
    cluster.start_agent("alpha")
    cluster.wait_ready("alpha")
    back = ping(scene.client, str(scene.target), count=3)
    story.say(f"agent started, which starts the data plane: {back.received} of {back.sent} pings")
    story.result("started again", f"{back.received} of {back.sent} pings answered",
                 back.received > 0)  # fmt: skip
    story.note(killed_plaintext=leaked, agent_dead_pings=alive.received, back_pings=back.received)


def _throughput(scene: Scene, seconds: int) -> None:
    """In turns, so that other load on this machine affects both equally."""
    story, turns = scene.story, 3
    story.step(f"iperf3 from pod to pod, without and with the table, {turns} × {seconds} s each")
    without, with_table = [], []
    with (
        Cluster.up(parse_topology(WITHOUT_TABLE)) as other,
        other.sniffer(slots=1 << 15) as beside,
    ):
        beside.start(interval=0.1)
        before = scene.plaintext()
        for _ in range(turns):
            without.append(_pod_to_pod(other, seconds))
            with_table.append(_pod_to_pod(scene.cluster, seconds))
        leaked = scene.plaintext() - before
    bare, covered = sorted(without)[turns // 2], sorted(with_table)[turns // 2]
    ratio = covered / bare
    story.say(f"medians: without {rate(bare)}, with {rate(covered)} ({ratio:.0%})")
    story.result("throughput without the table", rate(bare))
    story.result("throughput with the table", f"{rate(covered)} ({ratio:.0%}), "
                 f"{leaked} packets in plaintext", leaked == 0)  # fmt: skip
    story.note(without_table_bits_per_second=without, with_table_bits_per_second=with_table)


def _pod_to_pod(cluster: Cluster, seconds: int) -> float:
    target = str(cluster.topology.pod("beta/server").addresses[0])
    spaces = cluster.namespaces
    return throughput(spaces["beta/server"], spaces["alpha/client"], target, seconds=seconds)
