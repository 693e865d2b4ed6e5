"""The agent against a fake data plane and a fake kernel: what it does, and in which order."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from strict import agent as agent_module
from strict.agent import Agent, AgentError
from strict.config import read_config
from strict.dataplane import DataPlaneError
from strict.desired import PeerPlan
from strict.devices import Devices
from strict.discovery import EntryUpsert, NodeDelete, NodeUpsert, Synced, Update
from strict.discovery.static import StaticDiscovery
from strict.firewall import FirewallChanged, FirewallError
from strict.nodes import Node
from strict.routes import RoutePlan
from strict.ruleset import Backstop
from strict.settings import TableConfig
from strict.single import hold
from strict.state import Changes
from strict.table import StrictTable
from tests.strict.helpers import a, entry, key, node, p
from wgpy.protocol.endpoint import Prefix
from wgpy.protocol.keys import PrivateKey

CONFIG = """\
[agent]
name = "here"
interface = "wgx"
underlay = ["eth0"]
[strict]
mode = "strict"
pod_cidrs = ["10.244.0.0/16"]
node_cidrs = ["192.168.5.0/24"]
"""


PODS = (p("10.244.77.0/24"),)


class World:
    """Everything around the agent, and a journal of what it did to it."""

    def __init__(self) -> None:
        self.journal: list[str] = []
        self.said: list[str] = []
        self.running = False
        self.startable = True
        self.refuses = ""
        self.links = {"eth0": 1500}
        self.tampered = self.tampered_routes = False
        self.devices = Devices(("eth0",))
        self.verdict = ""
        self.refuses_nft: Exception | None = None
        self.obedient = True
        self.pruned = True
        self.tables_before = False
        self.loads: list[tuple[int, int, bool]] = []
        self.updates: list[Changes] = []
        self.backstops: list[Backstop] = []
        self.plans: list[RoutePlan] = []
        self.ends: list[socket.socket] = []
        self.now = 1000.0

    def die(self) -> None:
        """The data plane dies."""
        self.running = False
        for end in self.ends:
            end.close()

    def since(self, mark: int) -> list[str]:
        return self.journal[mark:]


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    made = World()

    class FakeDataPlane:
        def __init__(self, interface: str, folder: Path) -> None:  # noqa: ARG002
            if not made.running:
                raise DataPlaneError("nothing runs")
            made.journal.append("attach")
            self._socket, end = socket.socketpair()
            made.ends.append(end)

        def fileno(self) -> int:
            return self._socket.fileno()

        def alive(self) -> bool:
            return made.running

        def close(self) -> None:
            self._socket.close()

        def set_device(self, private: PrivateKey, port: int, mark: int) -> None:
            assert private and port == 51871 and mark == 0xE00
            made.journal.append("device")

        def obeys(self, config: TableConfig) -> bool:  # noqa: ARG002
            return made.obedient

        def load(self, table: StrictTable, plan: PeerPlan, *, prune: bool) -> None:
            made.obedient = True
            if made.refuses:
                raise DataPlaneError(made.refuses)
            made.journal.append("load")
            made.loads.append((len(table.nodes), len(plan.whole().endpoints), prune))

        def update(self, changes: Changes, plan: PeerPlan) -> None:  # noqa: ARG002
            if made.refuses:
                raise DataPlaneError(made.refuses)
            made.journal.append("update")
            made.updates.append(changes)

    class FakeFirewall:
        def __init__(self, interface: str) -> None:
            assert interface == "wgx"

        def sets(self) -> dict[str, tuple[Prefix, ...]]:
            return {"nodes": (p("172.30.0.9"),), "local": PODS} if made.tables_before else {}

        def foreign_nat(self) -> bool:
            return False

        def encrypts_nodes(self) -> bool:
            return False

        def verdict(self) -> str:
            return made.verdict or ("drop" if made.backstops[-1].drop else "count")

        def apply(self, backstop: Backstop) -> bool:
            if made.refuses_nft:
                raise made.refuses_nft
            if not made.backstops or made.backstops[-1] != backstop:
                made.journal.append("backstop")
                made.backstops.append(backstop)
            return True

        def restore(self) -> bool:
            tampered, made.tampered = made.tampered, False
            return tampered

    class FakeRouting:
        def __init__(self, *_: object) -> None:
            pass

        def apply(self, plan: RoutePlan, *, prune: bool) -> list[str]:
            made.pruned = prune
            if made.plans and made.plans[-1] == plan and not made.tampered_routes:
                return []
            made.tampered_routes = False
            made.journal.append("routes")
            made.plans.append(plan)
            return ["route x"]

    def start(interface: str, arguments: Sequence[str]) -> None:  # noqa: ARG001
        made.journal.append("start")
        if not made.startable:
            raise DataPlaneError("cannot start")
        made.running = True

    monkeypatch.setattr(agent_module, "DataPlane", FakeDataPlane)
    monkeypatch.setattr(agent_module, "Firewall", FakeFirewall)
    monkeypatch.setattr(agent_module, "Routing", FakeRouting)
    monkeypatch.setattr(agent_module, "start", start)
    monkeypatch.setattr(agent_module, "bring_up", lambda *_: made.journal.append("up"))
    class FakeWatch:
        def __init__(self, interface: str, underlay: tuple[str, ...]) -> None:
            assert (interface, underlay) == ("wgx", ("eth0",))

        def look(self, addresses: Any, local: Any) -> Devices:  # noqa: ARG002
            return made.devices

    def prepare(underlay: tuple[str, ...]) -> dict[str, str]:
        made.journal.append("forwarding")
        assert underlay == made.devices.underlay
        return {"ipv4/ip_forward": "0"}

    def hold_here(interface: str) -> socket.socket:
        """By a name of this test's own: another run has the same interface."""
        made.ends.append(hold(f"{interface} {id(made)} {os.getpid()}"))
        return made.ends[-1]

    monkeypatch.setattr(agent_module, "hold", hold_here)
    monkeypatch.setattr(agent_module, "DeviceWatch", FakeWatch)
    monkeypatch.setattr(agent_module, "prepare_host", prepare)
    monkeypatch.setattr(agent_module, "link_mtus", lambda _: made.links)
    monkeypatch.setattr(
        agent_module, "local_addresses", lambda: {a("192.168.5.1"): p("192.168.5.0/24")})
    monkeypatch.setattr(agent_module.time, "monotonic", lambda: made.now)
    yield made
    for end in made.ends:
        end.close()


class Told:
    """A source that says what the test makes it say."""

    problem = ""

    def __init__(self, world: World, name: str, *updates: Update) -> None:
        self.name = name
        self._world = world
        self._next: list[Update] = list(updates)
        self.published: list[Node] = []

    def say(self, *updates: Update) -> None:
        self._next += updates

    def fileno(self) -> int:
        return -1

    def poll(self) -> Sequence[Update]:
        said, self._next = self._next, []
        return said

    def publish(self, node: Node) -> None:
        self._world.journal.append("publish")
        self.published.append(node)

    def close(self) -> None:
        pass


HERE = NodeUpsert(node("here", 1, with_key=False, cidrs=("10.244.1.0/24",)))
THERE = NodeUpsert(node("there", 2, cidrs=("10.244.2.0/24",)))


def make(world: World, folder: Path, *sources: Any, config: str = CONFIG) -> Agent:
    path = folder / "node.toml"
    path.write_text(config)
    return Agent(read_config(path), sources, say=world.said.append, folder=folder)


def status(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "wgx.agent").read_text())
    return found


def test_the_order_of_joining(world: World, tmp_path: Path) -> None:
    source = Told(world, "s", HERE, THERE, Synced())
    agent = make(world, tmp_path, source)
    assert world.journal == ["backstop", "routes", "forwarding"], "before anything else"
    agent.tick()
    done = world.since(3)
    assert done.index("start") < done.index("load") < done.index("publish")
    assert "routes" in done[done.index("load") :], "routes into the tunnel come after the table"
    assert world.loads == [(2, 1, True)]
    assert source.published[0].name == "here" and source.published[0].public_key is not None
    assert status(tmp_path)["joined"] is True


def test_nothing_stale_is_removed_before_every_source_has_synced(
    world: World, tmp_path: Path
) -> None:
    world.running = True
    first, second = Told(world, "1", HERE, Synced()), Told(world, "2", THERE)
    agent = make(world, tmp_path, first, second)
    agent.tick()
    assert world.loads == [(2, 1, False)] and "start" not in world.journal
    assert not first.published and status(tmp_path)["joined"] is False
    second.say(Synced())
    world.now += 2
    agent.tick()
    assert world.loads[-1] == (2, 1, True) and first.published and second.published


def test_a_new_agent_keeps_what_the_old_one_knew_until_it_knows_itself(
    world: World, tmp_path: Path
) -> None:
    """Rules about pods come from the settings at once; nodes, local pods and routes stay."""
    world.running = world.tables_before = True
    source = Told(world, "s", HERE)
    agent = make(world, tmp_path, source)
    agent.tick(nftables=True, routing=True)
    first = world.backstops[-1]
    assert first.drop and p("172.30.0.9") in first.nodes and set(PODS) <= set(first.local)
    assert not world.pruned
    source.say(THERE, Synced())
    world.now += 2
    agent.tick()
    assert p("172.30.0.9") not in world.backstops[-1].nodes and world.pruned
    assert world.backstops[-1].local == (p("10.244.1.0/24"),)


def test_nothing_is_forwarded_where_nft_refuses(world: World, tmp_path: Path) -> None:
    world.refuses_nft = FirewallError("nft refused the backstop")
    with pytest.raises(FirewallError):
        make(world, tmp_path)
    assert not world.journal


def test_rules_that_somebody_keeps_changing_are_a_problem(world: World, tmp_path: Path) -> None:
    """Forwarding waits, too, until the kernel says what was meant."""
    world.refuses_nft = FirewallChanged("changed at once")
    agent = make(world, tmp_path, Told(world, "s", HERE, Synced()))
    agent.tick()
    assert status(tmp_path)["problems"]["backstop"] == "changed at once"
    assert status(tmp_path)["backstop"] == "" and "forwarding" not in world.journal
    assert not any("is in place" in text for text in world.said)
    world.refuses_nft = None
    agent.tick(nftables=True, routing=True)
    assert not status(tmp_path)["problems"] and status(tmp_path)["backstop"] == "drop"
    assert "forwarding" in world.journal


def test_what_is_said_is_what_the_kernel_says(world: World, tmp_path: Path) -> None:
    agent = make(world, tmp_path, Told(world, "s", HERE, Synced()))
    assert "the backstop is in place: pods' plaintext is dropped" in world.said
    world.verdict = "count"
    agent.tick(nftables=True)
    assert "count" in status(tmp_path)["problems"]["backstop"]
    assert status(tmp_path)["backstop"] == "count"


def test_another_mode_in_the_data_plane_is_repaired(world: World, tmp_path: Path) -> None:
    agent = make(world, tmp_path, Told(world, "s", HERE, Synced()))
    agent.tick()
    loads = len(world.loads)
    world.obedient = False
    world.now += 20
    agent.tick()
    assert len(world.loads) == loads + 1 and any("different settings" in t for t in world.said)


def test_a_change_of_devices_is_a_problem_and_followed(world: World, tmp_path: Path) -> None:
    agent = make(world, tmp_path, Told(world, "s", HERE, Synced()))
    agent.tick()
    world.devices = Devices(("eth9",), (), "eth0 is called eth9 now")
    agent.tick(routing=True)
    assert world.backstops[-1].underlay == ("eth9",)
    assert "eth9" in status(tmp_path)["problems"]["underlay"]


def test_single_changes(world: World, tmp_path: Path) -> None:
    source = Told(world, "s", HERE, THERE, Synced())
    agent = make(world, tmp_path, source)
    agent.tick()
    source.say(EntryUpsert(entry("10.244.9.9", "there"), 1), NodeDelete("there"))
    mark = len(world.journal)
    agent.tick()
    (changes,) = world.updates
    assert changes.nodes == {"there": None} and len(changes.entries) == 1
    done = world.since(mark)
    assert done.index("backstop") < done.index("update") < done.index("routes")
    assert agent.lag_count == 1
    mark = len(world.journal)
    agent.tick()
    assert not world.since(mark), "nothing new, nothing done"


def test_the_data_plane_dies_and_is_started_again(world: World, tmp_path: Path) -> None:
    agent = make(world, tmp_path, Told(world, "s", HERE, THERE, Synced()))
    agent.tick()
    world.die()
    world.startable = False
    world.now += 2
    agent.tick()
    assert any("the data plane is gone" in text for text in world.said)
    assert "cannot start" in status(tmp_path)["problems"]["data plane"]
    starts = world.journal.count("start")
    agent.tick()
    assert world.journal.count("start") == starts, "not in every round"
    world.startable = True
    world.now += 2
    mark = len(world.journal)
    agent.tick()
    assert world.since(mark)[:5] == ["start", "attach", "device", "up", "load"]
    assert world.loads[-1] == (2, 1, True) and not status(tmp_path)["problems"]
    assert world.journal.count("publish") == 1


def test_it_never_starts_what_it_shall_only_attach_to(world: World, tmp_path: Path) -> None:
    config = CONFIG + "[dataplane]\nstart = false\n"
    agent = make(world, tmp_path, Told(world, "s", HERE, Synced()), config=config)
    agent.tick()
    assert "start" not in world.journal and "nothing runs" in status(tmp_path)["problems"][
        "data plane"]
    world.running, world.now = True, world.now + 2
    agent.tick()
    assert world.loads and agent.joined


def test_what_the_data_plane_refuses_is_loaded_again_whole(world: World, tmp_path: Path) -> None:
    source = Told(world, "s", HERE, Synced())
    agent = make(world, tmp_path, source)
    agent.tick()
    world.refuses = "full"
    source.say(THERE)
    agent.tick()
    assert status(tmp_path)["problems"]["data plane"] == "full"
    world.refuses, loads = "", len(world.loads)
    agent.tick()
    assert len(world.loads) == loads, "after a moment"
    world.now += 2
    agent.tick()
    assert world.loads[-1] == (2, 1, True)


def test_tampering_is_repaired_and_said(world: World, tmp_path: Path) -> None:
    agent = make(world, tmp_path, Told(world, "s", HERE, Synced()))
    agent.tick()
    world.tampered = True
    agent.tick(nftables=True)
    assert any("nftables were removed or changed: restored" in t for t in world.said)
    world.tampered_routes = True
    agent.tick(routing=True)
    assert any("routes were removed or changed: restored" in t for t in world.said)


def test_refused_nodes_are_shown_and_tried_again(world: World, tmp_path: Path) -> None:
    source = Told(world, "s", HERE, THERE, Synced())
    agent = make(world, tmp_path, source)
    agent.tick()
    source.say(NodeUpsert(Node("thief", (a("192.168.5.9"),), key(2))))
    agent.tick()
    assert "'there' and 'thief' both claim the key" in status(tmp_path)["refused"]["thief"]
    assert any("'there' and 'thief'" in text for text in world.said)
    source.say(NodeDelete("there"))
    agent.tick()
    assert not status(tmp_path)["refused"]
    assert world.updates[-1].nodes["thief"] is not None


def test_a_wrong_key_for_this_node_in_the_cluster(world: World, tmp_path: Path) -> None:
    source = Told(world, "s", NodeUpsert(node("here", 1)), Synced())
    agent = make(world, tmp_path, source)
    agent.tick()
    assert "others cannot talk to it" in status(tmp_path)["refused"]["here"]
    assert agent.state.local().public_key != key(1), "its own key is a fact"


def test_other_settings(world: World, tmp_path: Path) -> None:
    agent = make(world, tmp_path, Told(world, "s", HERE, THERE, Synced()))
    agent.tick()
    path = tmp_path / "node.toml"
    path.write_text(CONFIG.replace('"strict"\n', '"default"\n'))
    mark = len(world.journal)
    world.now += 2
    agent.tick()
    done = world.since(mark)
    assert not world.backstops[-1].drop and done.index("backstop") < done.index("load")
    path.write_text(CONFIG.replace("10.244.0.0/16", "10.244.0.0/99"))
    agent.tick()
    assert f"{path}:7: strict.pod_cidrs[0]" in status(tmp_path)["problems"]["configuration"]
    path.write_text(CONFIG.replace("eth0", "eth1"))
    agent.tick()
    assert "only section `strict` can change" in status(tmp_path)["problems"]["configuration"]
    path.write_text(CONFIG.replace('node_cidrs = ["192.168.5.0/24"]', "node_encryption = true"))
    world.now += 2
    agent.tick()
    assert not status(tmp_path)["problems"] and world.backstops[-1].node_encryption
    assert status(tmp_path)["node_encryption"] == "Enabled"


def test_settings_that_the_known_nodes_do_not_fit(world: World, tmp_path: Path) -> None:
    agent = make(world, tmp_path, Told(world, "s", HERE, THERE, Synced()))
    agent.tick()
    text = CONFIG.replace("10.244.0.0/16", "192.168.0.0/16")
    (tmp_path / "node.toml").write_text(text.replace("192.168.5.0/24", "172.16.0.0/12"))
    agent.tick()
    assert "drop all traffic" in status(tmp_path)["problems"]["configuration"]
    assert agent.config.table.pod_cidrs == (p("10.244.0.0/16"),)


def test_another_private_key(world: World, tmp_path: Path) -> None:
    agent = make(world, tmp_path, Told(world, "s", HERE, Synced()))
    agent.tick()
    before = agent.state.local().public_key
    (tmp_path / "wgx.key").write_text(PrivateKey.clamp(bytes(range(32))).base64)
    mark = len(world.journal)
    world.now += 2
    agent.tick()
    assert "device" in world.since(mark) and agent.state.local().public_key != before


def test_a_key_file_that_vanishes_makes_no_new_key(world: World, tmp_path: Path) -> None:
    agent = make(world, tmp_path, Told(world, "s", HERE, Synced()))
    agent.tick()
    before = agent.state.local().public_key
    (tmp_path / "wgx.key").unlink()
    agent.tick()
    assert "wgx.key" in status(tmp_path)["problems"]["configuration"]
    assert agent.state.local().public_key == before
    assert not (tmp_path / "wgx.key").exists()


def test_opting_out_is_said(world: World, tmp_path: Path) -> None:
    labelled = NodeUpsert(node("here", 1, with_key=False,
                               labels={"node-role.kubernetes.io/control-plane": ""}))
    config = CONFIG + "node_encryption = true\n"
    agent = make(world, tmp_path, Told(world, "s", labelled, Synced()), config=config)
    agent.tick()
    assert status(tmp_path)["node_encryption"] == "OptedOut"
    assert not world.backstops[-1].node_encryption
    assert p("192.168.5.0/24") not in world.plans[-1].tunnel


def test_where_packets_go(world: World, tmp_path: Path) -> None:
    source = Told(world, "s", HERE, THERE, EntryUpsert(entry("10.244.77.1", "here")), Synced())
    agent = make(world, tmp_path, source)
    agent.tick()
    plan = world.plans[-1]
    assert plan.tunnel == (p("10.244.0.0/16"),)
    assert set(plan.local) == {p("10.244.1.0/24"), p("10.244.77.1")}
    assert plan.sources == {4: a("192.168.5.1")} and plan.mtu == 1408
    assert plan.direct == {p("10.244.2.0/24"): a("192.168.5.2")}


def test_a_missing_underlay(world: World, tmp_path: Path) -> None:
    world.links = {}
    with pytest.raises(AgentError, match="no such underlay device: eth0: correct `underlay`"):
        make(world, tmp_path)
    assert not world.journal


def test_only_one_agent(world: World, tmp_path: Path) -> None:
    first = make(world, tmp_path)
    done = len(world.journal)
    for path in tmp_path.iterdir():
        path.unlink()
    with pytest.raises(AgentError, match=f"another agent keeps wgx .*process {os.getpid()} of"):
        make(world, tmp_path)
    assert first and world.backstops
    assert len(world.journal) == done


def test_the_static_source_reports_its_file(world: World, tmp_path: Path) -> None:
    path = tmp_path / "cluster.toml"
    path.write_text('[[node]]\nname = "here"\naddresses = ["192.168.5.1"]\n')
    agent = make(world, tmp_path, StaticDiscovery(path))
    agent.tick()
    path.write_text("[[node]]\nnom = 1\n")
    agent.tick()
    problem = status(tmp_path)["problems"][f"static {path}"]
    assert f"{path}:2: node[0].nom: unknown key" in problem
    path.write_text('[[node]]\nname = "here"\naddresses = ["192.168.5.1", "192.168.5.3"]\n')
    agent.tick()
    assert not status(tmp_path)["problems"]
    assert Prefix(a("192.168.5.3"), 32) in world.backstops[-1].nodes
