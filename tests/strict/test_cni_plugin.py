"""`wgpy-cni` as a runtime sees it: every verb, in namespaces, with Debian's `host-local`."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from strict.cni import client, ipam, netlink, pod
from strict.cni.plugin import answer
from tests.strict.cni import OWN4, OWN6, network, running
from tests.support.cni import DEBIAN, OURS, Failed, Runner, host_local, leases

pytestmark = pytest.mark.root


@pytest.fixture
def node(lab):
    made = lab.namespace("node")
    made.run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
    made.ip("address add 192.0.2.1/32 dev lo")
    made.ip("address add 2001:db8::1/128 dev lo")
    return made


@pytest.fixture
def agent(tmp_path, node):
    with node.entered(), running(tmp_path) as made:
        yield made


@pytest.fixture
def runner(agent, node):
    return Runner(node, network(agent.folder))


def devices(space) -> list[str]:
    return [row["ifname"] for row in json.loads(space.ip("-j link"))]


def assert_nothing_left(agent, node, *pods) -> None:
    """Not a device, not a route, not a neighbour, not a lease, not an entry."""
    assert devices(node) == ["lo"]
    for space in pods:
        assert devices(space) == ["lo"]
    assert node.ip("route") == ""
    assert leases(agent.folder / "leases", "pods") == {}
    assert agent.known == set()


def test_add_makes_an_interface_with_host_routes_mtu_and_mss(runner, agent, node, lab):
    space = lab.namespace("pod")
    result = runner.add("one", space)
    host, inside = result["interfaces"]
    assert host["mtu"] == inside["mtu"] == 1500
    assert inside["name"] == "eth0" and inside["sandbox"] == f"/proc/{space.pid}/ns/net"
    assert [ip["address"] for ip in result["ips"]] == ["10.55.1.2/32", "fd55:0:0:1::2/128"]
    assert all(ip["interface"] == 1 for ip in result["ips"])
    assert result["routes"] == [
        {"dst": "0.0.0.0/0", "gw": "169.254.1.1", "mtu": 1408, "advmss": 1368},
        {"dst": "::/0", "gw": "fe80::1", "mtu": 1408, "advmss": 1348},
    ]
    default = space.ip("-4 route show default")
    assert "via 169.254.1.1 dev eth0" in default and "mtu 1408 advmss 1368" in default
    assert "mtu 1408 advmss 1348" in space.ip("-6 route show default")
    assert "10.55.1.2/32" in space.ip("-4 address show dev eth0")
    route = node.ip("-4 route show 10.55.1.2")
    assert f"dev {host['name']}" in route
    assert "pods one eth0" in node.ip(f"link show {host['name']}")
    for end, device, other in ((node, host["name"], inside), (space, "eth0", host)):
        known = end.ip(f"neighbour show dev {device} nud permanent")
        assert known.count(other["mac"]) == 2, known
    assert agent.known == {"10.55.1.2", "fd55:0:0:1::2"}


def test_pods_of_one_node_reach_each_other_and_the_node(runner, node, lab):
    spaces = [lab.namespace("pod") for _ in range(2)]
    for name, space in zip(("one", "two"), spaces, strict=True):
        runner.add(name, space)
    for target in ("10.55.1.3", "fd55:0:0:1::3", "192.0.2.1", "2001:db8::1"):
        spaces[0].run("ping", "-c1", "-W5", target)
    node.run("ping", "-c1", "-W5", "10.55.1.2")
    node.run("ping", "-c1", "-W5", "fd55:0:0:1::2")


def test_del_leaves_nothing_and_may_be_repeated(runner, agent, node, lab):
    space = lab.namespace("pod")
    runner.add("one", space)
    runner.delete("one", space)
    assert_nothing_left(agent, node, space)
    runner.delete("one", space)
    runner.delete("one")
    runner.delete("never-added")


def test_del_without_the_namespace_and_without_prev_result(runner, agent, node, lab):
    space = lab.namespace("pod")
    runner.add("one", space)
    runner.cache.clear()
    runner.delete("one", "/run/netns/gone")
    assert_nothing_left(agent, node, space)


def test_an_address_is_used_again_by_another_container(runner, agent, node, lab):
    spaces = [lab.namespace("pod") for _ in range(2)]
    runner.network["plugins"][0]["ipam"]["ranges"] = [[
        {"subnet": OWN4, "rangeStart": "10.55.1.7", "rangeEnd": "10.55.1.7"}
    ]]  # fmt: skip
    runner.add("one", spaces[0])
    with pytest.raises(Failed, match="no IP addresses"):
        runner.add("two", spaces[1])
    assert devices(spaces[1]) == ["lo"] and agent.known == {"10.55.1.7"}
    runner.delete("one", spaces[0])
    runner.add("two", spaces[1])
    node.run("ping", "-c1", "-W5", "10.55.1.7")
    assert agent.known == {"10.55.1.7"}


def test_add_is_refused_where_the_interface_exists(runner, agent, node, lab):
    space = lab.namespace("pod")
    space.ip("link add eth0 type bridge")
    with pytest.raises(Failed, match="already") as failed:
        runner.add("one", space)
    assert failed.value.code == 100
    assert leases(agent.folder / "leases", "pods") == {} and devices(node) == ["lo"]


def test_a_second_add_is_refused_and_the_first_stays(runner, node, lab):
    space = lab.namespace("pod")
    runner.add("one", space)
    with pytest.raises(Failed) as failed:
        runner.add("one", space)
    assert failed.value.code in (7, 100)
    runner.check("one", space)
    node.run("ping", "-c1", "-W5", "10.55.1.2")


def test_one_container_may_have_two_interfaces(runner, agent, node, lab):
    space = lab.namespace("pod")
    runner.network["plugins"][0]["ipam"]["routes"] = [{"dst": "10.55.0.0/16"}]
    runner.add("one", space, "eth0")
    with pytest.raises(Failed, match="another route to 10"):
        runner.add("one", space, "eth1")
    runner.network["plugins"][0]["ipam"]["routes"] = [{"dst": "10.99.0.0/16"}]
    runner.add("one", space, "eth1")
    assert sorted(devices(space)) == ["eth0", "eth1", "lo"]
    runner.delete("one", space, "eth0")
    assert devices(space) == ["lo", "eth1"] and len(agent.known) == 2
    runner.delete("one", space, "eth1")
    assert_nothing_left(agent, node, space)


def test_concurrent_adds_and_dels(runner, agent, node, lab):
    spaces = {f"c{number}": lab.namespace("pod") for number in range(6)}
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda item: runner.add(*item), spaces.items()))
        addresses = {ip["address"] for result in found for ip in result["ips"]}
        assert len(addresses) == 12
        assert agent.known == {address.partition("/")[0] for address in addresses}
        list(pool.map(lambda item: runner.delete(*item), spaces.items()))
    assert_nothing_left(agent, node, *spaces.values())


class TestCheck:
    """CHECK finds what was broken by hand."""

    @pytest.fixture
    def attached(self, runner, lab):
        space = lab.namespace("pod")
        result = runner.add("one", space)
        runner.check("one", space)
        return space, result["interfaces"][0]["name"]

    @pytest.mark.parametrize(
        ("where", "line", "said"),
        [
            ("pod", "address del 10.55.1.2/32 dev eth0", "lost addresses: 10.55.1.2"),
            ("pod", "-6 route del default", "lost routes"),
            ("pod", "link set eth0 down", "is down"),
            ("pod", "link set eth0 address 02:00:00:00:00:01", "another MAC"),
            ("pod", "link del eth0", "is missing"),
            ("node", "route del 10.55.1.2", "no route to 10.55.1.2"),
            ("node", "link set DEVICE down", "is down"),
        ],
    )
    def test_broken(self, runner, node, attached, where, line, said):
        space, device = attached
        (space if where == "pod" else node).ip(line.replace("DEVICE", device))
        with pytest.raises(Failed, match=said) as failed:
            runner.check("one", space)
        assert failed.value.code == 101

    def test_the_agent_does_not_know_the_pod(self, runner, attached):
        arguments = {"network": "pods", "container": "one", "ifname": "eth0"}
        client.ask(runner.network["plugins"][0]["agent"], "del", **arguments)
        with pytest.raises(Failed, match="does not know") as failed:
            runner.check("one", attached[0])
        assert failed.value.code == 101

    def test_the_lease_is_gone(self, runner, agent, attached):
        for path in (agent.folder / "leases/pods").glob("*:*"):
            path.unlink()
        for path in (agent.folder / "leases/pods").glob("10.*"):
            path.unlink()
        with pytest.raises(Failed, match="host-local"):
            runner.check("one", attached[0])


class TestAgentAway:
    """Without the agent no pod starts, and no pod is stuck."""

    def test_add(self, tmp_path, node, lab):
        space = lab.namespace("pod")
        runner = Runner(node, network(tmp_path))
        with pytest.raises(Failed, match="wgpy strict run") as failed:
            runner.add("one", space)
        assert failed.value.code == 11
        assert devices(space) == ["lo"] and devices(node) == ["lo"]
        assert leases(tmp_path / "leases", "pods") == {}

    def test_del(self, tmp_path, node, lab):
        space = lab.namespace("pod")
        with node.entered(), running(tmp_path) as agent:
            runner = Runner(node, network(tmp_path))
            runner.add("one", space)
            runner.add("two", lab.namespace("pod"))
        runner.delete("one", space)
        assert leases(tmp_path / "leases", "pods").keys() == {"10.55.1.3", "fd55:0:0:1::3"}
        with node.entered(), running(tmp_path) as agent:
            agent.source.poll()
            assert Runner(node, network(tmp_path)).add("three", space)
            assert "10.55.1.2" not in agent.known

    def test_the_pods_that_are_there_are_known_again(self, tmp_path, node, lab):
        space = lab.namespace("pod")
        runner = Runner(node, network(tmp_path))
        with node.entered(), running(tmp_path):
            runner.add("one", space)
        with node.entered(), running(tmp_path) as agent:
            runner.check("one", space)
            assert agent.known == {"10.55.1.2", "fd55:0:0:1::2"}

    def test_after_a_reboot_nothing_is_known(self, tmp_path, node, lab):
        runner = Runner(node, network(tmp_path))
        with node.entered(), running(tmp_path):
            result = runner.add("one", lab.namespace("pod"))
        for path in tmp_path.iterdir():
            if path.is_file():
                path.unlink()
        node.ip(f"link del {result['interfaces'][0]['name']}")
        for path in (tmp_path / "leases" / "pods").iterdir():
            path.unlink()
        with node.entered(), running(tmp_path) as agent:
            assert agent.known == set()
            runner.add("one", lab.namespace("pod"))
            assert agent.known == {"10.55.1.2", "fd55:0:0:1::2"}

    def test_status(self, tmp_path, node):
        runner = Runner(node, network(tmp_path))
        with pytest.raises(Failed, match="data plane") as failed:
            runner.status()
        assert failed.value.code == 51
        with socket.socket(socket.AF_UNIX) as control:
            control.bind(str(tmp_path / "wgcni.control"))
            control.listen()
            with pytest.raises(Failed) as failed:
                runner.status()
        assert failed.value.code == 50


def test_status_of_an_agent_that_cannot(runner, agent):
    runner.status()
    agent.in_force = False
    with pytest.raises(Failed) as failed:
        runner.status()
    assert failed.value.code == 50
    agent.carries = False
    with pytest.raises(Failed, match="data plane is down") as failed:
        runner.status()
    assert failed.value.code == 51


def test_add_waits_for_an_agent_that_has_joined(runner, agent, node, lab):
    agent.in_force = False
    space = lab.namespace("pod")
    with pytest.raises(Failed) as failed:
        runner.add("one", space)
    assert failed.value.code == 11
    assert_nothing_left(agent, node, space)


def test_gc_forgets_what_the_runtime_does_not_name(runner, agent, lab):
    spaces = [lab.namespace("pod") for _ in range(3)]
    for name, space in zip(("one", "two", "three"), spaces, strict=True):
        runner.add(name, space)
    del runner.cache["one", "eth0"], runner.cache["three", "eth0"]
    runner.collect()
    assert leases(agent.folder / "leases", "pods").keys() == {"10.55.1.3", "fd55:0:0:1::3"}
    assert agent.known == {"10.55.1.3", "fd55:0:0:1::3"}
    assert devices(spaces[0]) == ["lo"]
    runner.check("two", spaces[1])
    runner.collect()


def test_gc_of_one_network_leaves_the_others(runner, agent, node, lab):
    space = lab.namespace("pod")
    other = Runner(node, {**network(agent.folder), "name": "other"})
    other.add("one", space)
    runner.collect()
    assert len(agent.known) == 2
    other.check("one", space)


def test_addresses_that_would_leak_or_be_cut_off_are_refused(runner, agent, node, lab):
    space = lab.namespace("pod")
    for subnet, said in (("192.0.2.0/24", "none of the pod CIDRs"),
                         ("10.55.2.0/24", "of node beta")):  # fmt: skip
        runner.network["plugins"][0]["ipam"] = host_local(agent.folder / "leases", subnet)
        with pytest.raises(Failed, match=said) as failed:
            runner.add("one", space)
        assert failed.value.code == 7
        assert_nothing_left(agent, node, space)


class TestChain:
    """Before other plugins, and behind them."""

    def test_a_plugin_behind_ours(self, runner, agent, node, lab):
        space = lab.namespace("pod")
        runner.network["plugins"].append({"type": "tuning", "sysctl": {
            "net.ipv4.conf.eth0.log_martians": "1"}})  # fmt: skip
        runner.network = {**runner.network, "cniVersion": "1.0.0"}
        result = runner.add("one", space)
        assert [i["name"] for i in result["interfaces"]][1] == "eth0"
        assert "mtu" not in result["interfaces"][1]
        runner.check("one", space)
        runner.delete("one", space)
        assert_nothing_left(agent, node, space)

    @pytest.mark.parametrize("before", ["ptp", "bridge"])
    def test_ours_behind_another(self, agent, node, lab, before):
        space = lab.namespace("pod")
        first = {"type": before, "isGateway": True, "bridge": "br0",
                 "ipam": host_local(agent.folder / "leases", OWN4, OWN6)}  # fmt: skip
        ours = {"type": "wgpy-cni", "agent": str(agent.folder / "wgcni.cni")}
        runner = Runner(node, {"cniVersion": "1.0.0", "name": "pods", "plugins": [first, ours]})
        result = runner.add("one", space)
        assert {ip["address"].partition("/")[0] for ip in result["ips"]} == agent.known
        assert "mtu 1408" in space.ip("link show eth0")
        runner.check("one", space)
        node.run("ping", "-c1", "-W5", "10.55.1.2")
        runner.delete("one", space)
        assert agent.known == set() and devices(space) == ["lo"]

    def test_neither_ipam_nor_a_plugin_before(self, agent, node, lab):
        runner = Runner(node, network(agent.folder, ipam={}))
        with pytest.raises(Failed, match="prevResult") as failed:
            runner.add("one", lab.namespace("pod"))
        assert failed.value.code == 7

    def test_the_result_before_is_kept(self, agent, node, lab):
        space = lab.namespace("pod")
        chain = [{"type": "ptp", "ipam": host_local(agent.folder / "p", "10.77.0.0/24")}]
        first = Runner(node, {"cniVersion": "1.0.0", "name": "first", "plugins": chain})
        before = first.add("one", space, "net0")
        ours = network(agent.folder, version="1.0.0", prevResult=before)
        result = Runner(node, ours).add("one", space)
        assert result["interfaces"][:2] == before["interfaces"]
        assert result["ips"][0] == before["ips"][0]
        assert [ip["interface"] for ip in result["ips"]] == [1, 3, 3]


# Faults: each step of ADD fails in its turn, or ends the program.


class _Steps:
    """Everything that ADD does to the world, counted; the one numbered `fail` does `what`."""

    PLACES = (
        (netlink.Netlink, "_ask"),
        (ipam.Ipam, "_run"),
        (client, "ask"),
    )

    def __init__(self, patch, fail: int, what) -> None:
        self.count = 0
        for place, name in self.PLACES:
            patch.setattr(place, name, self._counted(getattr(place, name), fail, what))
        patch.setattr("strict.cni.verbs.ask", client.ask)

    def _counted(self, function, fail, what):
        def step(*arguments, **more):
            self.count += 1
            if self.count == fail:
                what()
            return function(*arguments, **more)

        return step


def _environment(verb: str, space) -> dict[str, str]:
    return {**os.environ, "CNI_COMMAND": verb, "CNI_CONTAINERID": "one", "CNI_IFNAME": "eth0",
            "CNI_NETNS": f"/proc/{space.pid}/ns/net", "CNI_PATH": str(DEBIAN)}  # fmt: skip


def _config(agent) -> bytes:
    whole = network(agent.folder)
    return json.dumps({**whole["plugins"][0], "cniVersion": "1.1.0", "name": "pods"}).encode()


def test_whatever_step_of_add_fails_nothing_is_left(agent, node, lab, monkeypatch):
    space = lab.namespace("pod")
    out = io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)

    def refuse():
        raise OSError(5, "injected")

    for fail in range(1, 100):
        with monkeypatch.context() as patch:
            steps = _Steps(patch, fail, refuse)
            code = answer(_environment("ADD", space), _config(agent))
        if steps.count < fail:
            break
        assert code == 1, f"step {fail}"
        assert "injected" in out.getvalue()
        out.truncate(0)
        assert_nothing_left(agent, node, space)
    assert code == 0 and fail > 20
    assert answer(_environment("DEL", space), _config(agent)) == 0
    assert_nothing_left(agent, node, space)


def test_a_result_that_nobody_reads_is_undone(agent, node, lab, monkeypatch):
    space = lab.namespace("pod")

    class Broken(io.StringIO):
        def flush(self):
            raise BrokenPipeError(32, "nobody reads")

    monkeypatch.setattr(sys, "stdout", Broken())
    with contextlib.suppress(BrokenPipeError):
        answer(_environment("ADD", space), _config(agent))
    assert_nothing_left(agent, node, space)


@pytest.mark.parametrize(("number", "stride"), [(signal.SIGKILL, 1), (signal.SIGTERM, 4)])
def test_ended_at_any_step_of_add(agent, node, lab, number, stride):
    """After SIGTERM nothing is left; after SIGKILL the runtime's DEL removes it."""
    space = lab.namespace("pod")
    fail = 0
    while True:
        fail += stride
        child = subprocess.run(
            node.command(sys.executable, "-P", "-m", "tests.strict.cni_ended", str(fail),
                         str(int(number))),
            env=_environment("ADD", space) | {"PYTHONPATH": str(Path(__file__).parents[2])},
            input=_config(agent), capture_output=True, check=False,
        )  # fmt: skip
        if child.returncode == 0:
            break
        assert child.returncode in (-number, 128 + number), child.stderr.decode()
        if number == signal.SIGTERM:
            assert_nothing_left(agent, node, space)
        delete = {**_environment("DEL", space)}
        subprocess.run(node.command(str(OURS / "wgpy-cni")), env=delete, input=_config(agent),
                       capture_output=True, check=True)  # fmt: skip
        assert_nothing_left(agent, node, space)
    assert fail > 20


def test_ipv6_that_is_switched_off_in_the_container(runner, node, lab):
    space = lab.namespace("pod")
    space.run("sysctl", "-qw", "net.ipv6.conf.default.disable_ipv6=1")
    runner.add("one", space)
    node.run("ping", "-c1", "-W5", "fd55:0:0:1::2")


def test_the_same_pod_name_for_each_call():
    name = pod.device_name("pods", "one", "eth0")
    assert name == pod.device_name("pods", "one", "eth0") and len(name) <= 15
    others = [("pod", "sone", "eth0"), ("pods", "one", "eth1"), ("pods", "two", "eth0")]
    assert name not in {pod.device_name(*other) for other in others}
