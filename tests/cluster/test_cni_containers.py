"""Real containers on two nodes: podman calls `wgpy-cni`, the tunnel carries their traffic.

The sentinel watches all of it: not one packet between pods in plaintext.
"""

from __future__ import annotations

import json

import pytest

from testbed import control
from testbed.cluster import AGENT, DATA_PLANE
from testbed.namespaces import NamespaceError, wait_until
from tests.cluster.craft import Flow, Injector, build, mac_of
from tests.cluster.harness import shooting_range
from tests.support.podman import Podman, confined, make_root, why_impossible

pytestmark = [pytest.mark.root, pytest.mark.xdist_group("cluster cni")]

CLUSTER = """
name: cni
mode: strict
nodes:
  alpha: {}
  beta: {}
"""


@pytest.fixture(scope="module")
def firing_range():
    if confined():
        pytest.skip("containers need real root: a user namespace has no cgroups to give away")
    if missing := why_impossible():
        pytest.fail(missing, pytrace=False)
    with shooting_range(CLUSTER) as made:
        yield made


@pytest.fixture(scope="module")
def podmen(firing_range, tmp_path_factory):
    """podman on each node."""
    r, folder = firing_range, tmp_path_factory.mktemp("podman")
    root = make_root(folder / "root")
    found = {
        name: Podman(r.cluster.namespaces[name], folder / name, root,
                     r.cluster.node_folder(name) / "agent.toml")
        for name in ("alpha", "beta")
    }  # fmt: skip
    yield found
    for podman in found.values():
        podman.remove_all()


@pytest.fixture(scope="module")
def client(podmen):
    """A container on alpha to ask from."""
    podmen["alpha"].start("client", "sleep", "100000")
    return lambda ip: podmen["alpha"].fetch("client", ip)


@pytest.fixture
def server(podmen):
    """A web server on beta; its addresses.  A test may end it."""
    beta = podmen["beta"]
    if "server" not in beta("ps", "--format", "{{.Names}}").stdout.split():
        beta.remove_all()
        serve(beta, "server")
    return beta.ips("server")


def serve(podman, name: str) -> list[str]:
    podman.start(name, "httpd", "-f", "-p", "80", "-h", "/www")
    return podman.ips(name)


def known(r, node: str) -> set[str]:
    """The pods of its own in a node's table."""
    with control.connection(r.cluster, node) as client:
        entries = list(client.stream("entries", "entries"))
    return {prefix.partition("/")[0] for prefix, _, _, _, source in entries if source == "local"}


def devices(r, node: str) -> list[str]:
    listed = json.loads(r.cluster.namespaces[node].run("ip", "-j", "link").stdout)
    return [row["ifname"] for row in listed if row["ifname"].startswith("wgp")]


def leases(r, node: str) -> set[str]:
    listed = r.cluster.namespaces[node].run("ls", "/run/cni/leases/wgpy", check=False).stdout
    return {name for name in listed.split() if name[0].isdigit() or ":" in name}


def test_containers_reach_each_other_through_the_tunnel(firing_range, podmen, client, server):
    r = firing_range
    sealed = r._sealed("alpha")
    for ip in server:
        assert client(ip) == "a page\n"
        assert "0% packet loss" in podmen["alpha"](
            "exec", "client", "ping", "-c2", "-W5", ip).stdout  # fmt: skip
    assert r._sealed("alpha") - sealed >= 4
    assert known(r, "beta") == set(server)
    assert known(r, "alpha") == set(podmen["alpha"].ips("client"))


def test_containers_of_one_node(firing_range, podmen, client):
    r, alpha = firing_range, podmen["alpha"]
    sealed = r._sealed("alpha")
    for ip in serve(alpha, "neighbour"):
        assert client(ip) == "a page\n"
    assert r._sealed("alpha") == sealed
    alpha("rm", "-f", "-t", "0", "neighbour")


def test_a_container_that_ends_leaves_nothing(firing_range, podmen, client):
    r, alpha = firing_range, podmen["alpha"]
    shown = alpha.run("sh", "-c", "ip address show eth0; ip route").stdout
    assert "10.244.1." in shown and "/32" in shown and "/128" in shown and "mtu 1500" in shown
    assert "default via 169.254.1.1 dev eth0" in shown
    assert wait_until(lambda: len(devices(r, "alpha")) == 1, 30)
    assert known(r, "alpha") == leases(r, "alpha") == set(alpha.ips("client"))
    assert client


@pytest.mark.parametrize("version", [4, 6])
def test_a_container_sends_from_its_own_address_only(firing_range, podmen, client, version):
    r, alpha = firing_range, podmen["alpha"]
    own = alpha.ips("client")[version == 6]
    target = r.node("beta", version)
    (device,) = devices(r, "alpha")
    shoot = Injector(alpha.inside("client"), "eth0", mac_of(r.cluster.namespaces["alpha"], device))
    others = {4: ("10.244.1.200", "10.244.2.7", "192.0.2.9"),
              6: ("fd10:244:0:1::200", "fd10:244:0:2::7", "2001:db8::9")}  # fmt: skip
    before = control.backstop(r.cluster, "alpha")["pod_source"]
    for source in others[version]:
        shoot(build("udp", Flow(source, target), b"not me"))
    shoot(build("udp", Flow(own, target), b"it is me"))

    def counted() -> int:
        return control.backstop(r.cluster, "alpha")["pod_source"] - before

    assert wait_until(lambda: counted() == 3, 5)
    shoot.close()
    assert client
    assert counted() == 3


def test_restart(firing_range, podmen, client, server):
    r = firing_range
    podmen["beta"]("restart", "-t", "0", "server")
    now = podmen["beta"].ips("server")
    assert now != server
    assert known(r, "beta") == set(now) == leases(r, "beta")
    for ip in now:
        assert client(ip) == "a page\n"


def test_kill_and_the_address_again(firing_range, podmen, client, server):
    """host-local goes round; set back, it gives the same address to the next container."""
    r, beta = firing_range, podmen["beta"]
    beta("kill", "--signal", "KILL", "server")
    assert wait_until(lambda: not devices(r, "beta"), 30)
    assert wait_until(lambda: not leases(r, "beta"), 30)
    assert known(r, "beta") == set()
    assert podmen["alpha"].fetch("client", server[0], check=False) == ""
    beta("rm", "server")
    r.cluster.namespaces["beta"].run("rm", "-r", "/run/cni/leases/wgpy")
    again = serve(beta, "server")
    assert again == ["10.244.2.2", "fd10:244:0:2::2"]
    assert known(r, "beta") == set(again)
    for ip in again:
        assert client(ip) == "a page\n"


def test_without_the_agent_no_container_starts_and_the_others_go_on(
    firing_range, podmen, client, server
):
    r, alpha = firing_range, podmen["alpha"]
    r.cluster.kill("alpha", AGENT)
    try:
        failed = alpha.run("echo", "started", check=False)
        assert failed.returncode and "started" not in failed.stdout
        assert "the agent does not run" in failed.stderr
        for ip in server:
            assert client(ip) == "a page\n"
    finally:
        r.cluster.start_agent("alpha")
        r.cluster.wait_ready("alpha")
    assert known(r, "alpha") == set(alpha.ips("client"))
    assert alpha.run("echo", "started").stdout == "started\n"
    assert client(server[0]) == "a page\n"


def test_reboot_of_a_node(firing_range, podmen, client, server):
    """Processes, /run and devices are gone; the first start after it finds a clean node."""
    r, beta = firing_range, podmen["beta"]
    r.cluster.kill("beta", AGENT)
    r.cluster.kill("beta", DATA_PLANE)
    beta("kill", "server")
    assert wait_until(lambda: not devices(r, "beta"), 30)
    assert server
    r.cluster.namespaces["beta"].run(
        "sh", "-c", "rm -rf /run/wireguard/* /run/cni /run/podman /run/libpod; "
                    "ip route flush proto 171; ip -6 route flush proto 171")  # fmt: skip
    r.cluster.start_agent("beta")
    r.cluster.wait_ready("beta")
    assert known(r, "beta") == set() == leases(r, "beta")
    beta.remove_all()
    now = serve(beta, "after")
    assert known(r, "beta") == set(now)
    # The other node may hold a session that went with the reboot.  It begins a new handshake
    # when nothing has come back for 15 s (§6.5), which is longer than one request waits.
    for ip in now:
        assert wait_until(lambda ip=ip: answered(client, ip), 40)


def answered(client, ip) -> bool:
    try:
        return client(ip) == "a page\n"
    except NamespaceError:
        return False
