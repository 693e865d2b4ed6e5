"""up, down and show on real interfaces: what is set, and that all of it goes again."""

from __future__ import annotations

import json
import re
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.tunnel import PORT, WGPY, End, make_ends
from tests.support.netns import Lab, wait_until
from wgpy.sockets import socket_path

pytestmark = pytest.mark.root


@pytest.fixture
def ends(lab: Lab, tmp_path: Path) -> Iterator[tuple[End, End]]:
    yield make_ends(lab, tmp_path)


@pytest.fixture
def client(ends: tuple[End, End]) -> End:
    return ends[0]


def ping(end: End, address: str) -> bool:
    return end.namespace.run("ping", "-c1", "-W5", address, check=False).returncode == 0


def test_up_sets_everything_and_down_leaves_nothing(ends: tuple[End, End], tmp_path: Path) -> None:
    client, server = ends
    trace = tmp_path / "trace"
    hooks = "".join(
        f"{hook} = echo {hook} %i >> {trace}\n"
        for hook in ("PreUp", "PostUp", "PreDown", "PostDown")
    )
    client.edit("[Interface]\n", f"[Interface]\n{hooks}")
    before = client.network()
    server.wgpy("up", str(server.file))
    shown = client.wgpy("up", str(client.file)).stderr
    assert f"ip address add 10.5.0.1/24 dev {client.interface}" in shown
    assert ping(client, "10.5.0.2")
    assert ping(client, "fd05::2")
    assert ping(client, "172.20.0.1")
    link = client.namespace.ip(f"-o link show {client.interface}")
    assert "mtu 1420" in link
    assert client.wgpy("up", str(client.file), check=False).returncode == 1
    client.wgpy("down", client.interface)
    assert client.network() == before
    assert client.leftovers() == []
    words = [f"{hook} {client.interface}" for hook in ("PreUp", "PostUp", "PreDown", "PostDown")]
    assert trace.read_text().splitlines() == words
    server.wgpy("down", str(server.file))
    assert server.leftovers() == []


def test_everything_through_the_tunnel(ends: tuple[End, End]) -> None:
    """0.0.0.0/0 and ::/0: the inner network is the default route, the outer one still works."""
    client, server = ends
    client.edit("172.20.0.0/16", "0.0.0.0/0, ::/0")
    client.namespace.ip("route add default via 192.168.9.2")
    server.namespace.ip("address add 203.0.113.1/32 dev lo")
    before = client.network()
    server.wgpy("up", str(server.file))
    summary = json.loads(client.wgpy("up", str(client.file), "--json").stdout)
    assert summary["fwmark"] == 51820
    assert set(summary["routes"]) >= {"0.0.0.0/0", "::/0"}
    route = client.namespace.ip("route get 203.0.113.1")
    assert client.interface in route
    assert client.interface in client.namespace.ip("-6 route get 2001:db8::1")
    assert client.interface not in client.namespace.ip("route get 192.168.9.2")
    assert client.interface not in client.namespace.ip("route get 203.0.113.1 mark 51820")
    assert ping(client, "203.0.113.1")
    assert "fwmark: 0xca6c" in client.wgpy("show", client.interface).stdout
    client.wgpy("down", client.interface)
    assert client.network() == before


@pytest.mark.parametrize(
    ("table", "route"),
    [("off", ""), ("4711", "172.20.0.0/16"), ("auto", "172.20.0.0/16")],
)
def test_table(client: End, table: str, route: str) -> None:
    client.edit("[Interface]\n", f"[Interface]\nTable = {table}\n")
    client.wgpy("up", str(client.file))
    where = "4711" if table == "4711" else "main"
    routes = client.namespace.run(
        "ip", "route", "show", "table", where, "dev", client.interface, check=False
    ).stdout
    assert ("172.20.0.0/16" in routes) == bool(route)
    client.wgpy("down", client.interface)


def test_mtu_follows_the_way_to_the_endpoint(client: End) -> None:
    client.namespace.ip("route add 192.168.9.2/32 dev lo")
    client.namespace.ip("route change 192.168.9.2/32 dev lo mtu 1400")
    assert json.loads(client.wgpy("up", str(client.file), "--json").stdout)["mtu"] == 1320
    client.wgpy("down", client.interface)
    client.edit("[Interface]\n", "[Interface]\nMTU = 1300\n")
    assert json.loads(client.wgpy("up", str(client.file), "--json").stdout)["mtu"] == 1300
    client.wgpy("down", client.interface)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("[Interface]\n", "[Interface]\nPreUp = exit 3\n", "PreUp ended with exit code 3"),
        ("[Interface]\n", "[Interface]\nPostUp = exit 4\n", "PostUp ended with exit code 4"),
        ("192.168.9.2", "[fe80::1%nowhere]", "endpoint"),
        ("fd05::1/64", "10.5.0.1/24", "cannot add address 10.5.0.1/24"),
        ("[Interface]\n", f"[Interface]\nListenPort = {PORT}\n", "ListenPort: UDP port 5555 is in"),
        ("Address", "Adress", "did you mean Address?"),
    ],
)
def test_a_failure_at_any_step_undoes_all(client: End, old: str, new: str, words: str) -> None:
    # The last routes of a full tunnel are the most to undo; the port is taken on purpose.
    client.edit("172.20.0.0/16", "0.0.0.0/0")
    client.edit(old, new)
    before = client.network()
    with client.namespace.entered():
        import socket

        taken = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        taken.bind(("", PORT))
    with taken:
        failed = client.wgpy("up", str(client.file), check=False)
    assert failed.returncode == 1
    assert words in failed.stderr
    assert "Traceback" not in failed.stderr
    assert client.network() == before
    assert client.leftovers() == []


def test_a_data_plane_that_does_not_start(client: End) -> None:
    client.implementation = "false"
    failed = client.wgpy("up", str(client.file), check=False)
    assert "ended with exit code 1" in failed.stderr
    assert client.leftovers() == []
    client.implementation = "no-such-wireguard"
    assert "not found" in client.wgpy("up", str(client.file), check=False).stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_undoes_all(client: End, tmp_path: Path, number: int) -> None:
    reached = tmp_path / "reached"
    client.edit("[Interface]\n", f"[Interface]\nPostUp = touch {reached}; exec sleep 60\n")
    before = client.network()
    env = {"WG_QUICK_USERSPACE_IMPLEMENTATION": client.implementation}
    process = client.namespace.start(str(WGPY), "up", str(client.file), env=env)
    assert wait_until(reached.exists, 20)
    # nsenter replaced itself, so this is the program.
    process.send_signal(number)
    assert wait_until(lambda: process.poll() is not None, 20)
    assert process.returncode == 130
    assert client.network() == before
    assert client.leftovers() == []


def test_down_of_an_up_that_was_killed(client: End, tmp_path: Path) -> None:
    reached = tmp_path / "reached"
    client.edit("172.20.0.0/16", "0.0.0.0/0")
    client.edit("[Interface]\n", f"[Interface]\nPostUp = touch {reached}; exec sleep 2\n")
    before = client.network()
    env = {"WG_QUICK_USERSPACE_IMPLEMENTATION": client.implementation}
    process = client.namespace.start(str(WGPY), "up", str(client.file), env=env)
    assert wait_until(reached.exists, 20)
    process.kill()
    process.wait()
    client.wgpy("down", client.interface)
    assert client.network() == before
    assert client.leftovers() == []


def test_up_after_the_device_was_deleted_undoes_what_was_left(client: End) -> None:
    client.edit("172.20.0.0/16", "0.0.0.0/0")
    before = client.network()
    client.wgpy("up", str(client.file))
    client.namespace.ip(f"link delete {client.interface}")
    assert wait_until(lambda: not socket_path(client.interface).exists())
    again = client.wgpy("up", str(client.file))
    assert "undoing its remaining steps" in again.stderr
    client.wgpy("down", client.interface)
    assert client.network() == before


def test_down_after_the_device_was_deleted(client: End) -> None:
    client.edit("172.20.0.0/16", "0.0.0.0/0")
    before = client.network()
    client.wgpy("up", str(client.file))
    client.namespace.ip(f"link delete {client.interface}")
    client.wgpy("down", client.interface)
    assert client.network() == before
    assert client.leftovers() == []


def test_down_in_another_namespace_is_refused(ends: tuple[End, End]) -> None:
    client, server = ends
    client.wgpy("up", str(client.file))
    refused = server.wgpy("down", client.interface, check=False)
    assert refused.returncode == 1
    assert "another network namespace" in refused.stderr
    client.wgpy("down", client.interface)
    unknown = server.wgpy("down", client.interface, check=False)
    assert "no such WireGuard interface" in unknown.stderr


def test_down_of_what_wg_quick_set_up(client: End) -> None:
    client.edit("172.20.0.0/16", "0.0.0.0/0, ::/0")
    client.namespace.run("sysctl", "-qw", "net.ipv4.conf.all.src_valid_mark=1")
    before = client.network()
    env = {"WG_QUICK_USERSPACE_IMPLEMENTATION": client.implementation}
    client.namespace.run("wg-quick", "up", str(client.file), env=env)
    client.wgpy("down", str(client.file))
    assert client.network() == before
    assert client.leftovers() == []


@pytest.mark.parametrize("implementation", ["wireguard-py", "wireguard-go"])
def test_show_says_what_wg_says(ends: tuple[End, End], implementation: str) -> None:
    client, server = ends
    if implementation == "wireguard-go":
        found = shutil.which("wireguard-go")
        assert found, "compares with wireguard-go: apt-get install wireguard-go"
        client.implementation = server.implementation = found
    server.wgpy("up", str(server.file))
    client.edit("[Peer]\n", "[Peer]\nPersistentKeepalive = 25\n")
    client.wgpy("up", str(client.file))
    assert ping(client, "10.5.0.2")
    for end in (client, server):
        for field in ("dump", "allowed-ips", "latest-handshakes", "fwmark"):
            assert _wg(end, field) == _show(end, field), field
        changing = r"(latest handshake|transfer): .*"
        ours = re.sub(r"\n  (next deadline|dropped): .*", "", _show(end))
        assert re.sub(changing, r"\1", ours) == re.sub(changing, r"\1", _wg(end))
        extended = "next deadline: " in _show(end)
        assert extended == (implementation == "wireguard-py")


def _wg(end: End, *words: str) -> str:
    output = end.namespace.run("wg", "show", end.interface, *words).stdout
    return _without_counters(output) if words == ("dump",) else output


def _show(end: End, *words: str) -> str:
    output = end.wgpy("show", end.interface, *words).stdout
    return _without_counters(output) if words == ("dump",) else output


def _without_counters(dump: str) -> str:
    """The dump without columns 6 and 7 of peers: bytes may still flow."""
    rows = [line.split("\t") for line in dump.splitlines()]
    return "\n".join("\t".join(row[:5] + row[7:]) for row in rows)
