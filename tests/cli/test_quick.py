"""up and down as wg-quick does it: hooks, DNS, MTU, loops, and a device that moved away."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.tunnel import WGPY, End, make_ends
from tests.support.netns import Lab, wait_until

pytestmark = pytest.mark.root


@pytest.fixture
def ends(lab: Lab, tmp_path: Path) -> Iterator[tuple[End, End]]:
    yield make_ends(lab, tmp_path)


@pytest.fixture
def client(ends: tuple[End, End]) -> End:
    return ends[0]


def up(end: End, **environment: str) -> tuple[int, str]:
    """Exit code and what was said."""
    env = {"WG_QUICK_USERSPACE_IMPLEMENTATION": end.implementation, **environment}
    done = end.namespace.run(str(WGPY), "up", str(end.file), check=False, env=env)
    return done.returncode, done.stderr


def program(folder: Path, name: str, log: Path, script: str = "") -> None:
    """A stand-in that writes its arguments and input to `log`."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/bash\n{script}\n(echo {name} \"$@\"; cat) >> {log}\n")
    (folder / name).chmod(0o755)


@pytest.mark.parametrize("hook", ["true; no-such-tool; true", "false | cat; true"])
def test_a_hook_that_fails_anywhere_undoes_everything(client: End, hook: str) -> None:
    client.edit("[Interface]\n", f"[Interface]\nPostUp = {hook}\n")
    before = client.network()
    code, said = up(client)
    assert code == 1
    assert "PostUp ended with exit code" in said
    assert client.network() == before
    assert client.leftovers() == []


def test_hooks_see_what_wg_quick_shows_them(client: End, tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    hook = f'echo "%i $INTERFACE $CONFIG_FILE $LC_ALL <$*>" > {seen}; [[ ab == +([a-z]) ]]'
    client.edit("[Interface]\n", f"[Interface]\nPreUp = {hook}\n")
    code, said = up(client)
    assert code == 0, said
    name = client.interface
    assert seen.read_text() == f"{name} {name} {client.file} C <>\n"
    client.wgpy("down", name)


def test_what_is_printed_can_be_typed(client: End) -> None:
    """The same network comes out, and goes again, when a person types what was shown."""
    client.edit("172.20.0.0/16", "0.0.0.0/0, ::/0")
    before = client.network()
    said = client.wgpy("up", str(client.file)).stderr
    after = client.network()
    undone = client.wgpy("down", client.interface).stderr
    assert client.network() == before

    def typed(text: str) -> None:
        lines = [line[4:] for line in text.splitlines() if line.startswith("[#] ")]
        client.namespace.run("bash", "-ec", "\n".join(lines))

    typed(said)
    assert _without_numbers(client.network()) == _without_numbers(after)
    typed(undone)
    assert wait_until(lambda: client.network() == before)


def _without_numbers(network: str) -> list[str]:
    """Without the number of a new device, and who added a route ("static", or "boot" by hand)."""
    network = network.replace(" proto static", "")
    return [line.partition(":")[2] if line[:1].isdigit() else line for line in network.split("\n")]


@pytest.mark.parametrize("tool", ["resolvconf", "resolvectl", "neither"])
def test_name_servers_are_set_and_taken_back(client: End, tmp_path: Path, tool: str) -> None:
    client.edit("[Interface]\n", "[Interface]\nDNS = 10.5.0.9, example.org\n")
    log = tmp_path / "log"
    tools = tmp_path / "bin"
    tools.mkdir()
    if tool != "neither":
        program(tools, tool, log)
    name = client.interface
    code, said = up(client, PATH=f"{tools}:/usr/sbin:/usr/bin:/sbin:/bin")
    assert code == 0, said
    assert ("NOT set" in said) == (tool == "neither")
    env = {"PATH": f"{tools}:/usr/sbin:/usr/bin:/sbin:/bin"}
    client.namespace.run(str(WGPY), "down", name, env=env)
    expected = {
        "resolvconf": [
            f"resolvconf -a {name} -m 0 -x", "nameserver 10.5.0.9", "search example.org",
            f"resolvconf -d {name} -f",
        ],
        "resolvectl": [
            "resolvectl status", f"resolvectl dns {name} 10.5.0.9",
            f"resolvectl domain {name} ~. example.org", f"resolvectl revert {name}",
        ],
        "neither": [],
    }[tool]  # fmt: skip
    assert (log.read_text().splitlines() if log.exists() else []) == expected


def test_down_takes_back_the_dns_that_wg_quick_set(client: End, tmp_path: Path) -> None:
    client.edit("[Interface]\n", "[Interface]\nDNS = 10.5.0.9\n")
    log, tools = tmp_path / "log", tmp_path / "bin"
    program(tools, "resolvconf", log)
    env = {
        "PATH": f"{tools}:/usr/sbin:/usr/bin:/sbin:/bin",
        "WG_QUICK_USERSPACE_IMPLEMENTATION": client.implementation,
    }
    client.namespace.run("wg-quick", "up", str(client.file), env=env)
    client.namespace.run(str(WGPY), "down", str(client.file), env=env)
    assert log.read_text().splitlines()[-1] == f"resolvconf -d {client.interface} -f"
    client.namespace.run("wg-quick", "up", str(client.file), env=env)
    said = client.namespace.run(str(WGPY), "down", client.interface, env=env).stderr
    assert "name servers" in said, "without its file, what stays is said"


@pytest.mark.parametrize("how", ["netns {other}", "name {new}"])
def test_down_ends_a_device_that_moved_away(ends: tuple[End, End], lab: Lab, how: str) -> None:
    client, server = ends
    what = how.format(other=server.namespace.pid, new=lab.interface())
    hook = f"PostUp = ip link set %i down; ip link set %i {what}"
    client.edit("[Interface]\n", f"[Interface]\n{hook}\n")
    before, there = client.network(), server.network()
    client.wgpy("up", str(client.file))
    client.wgpy("down", client.interface)
    assert client.leftovers() == []
    assert wait_until(lambda: client.network() == before)
    assert wait_until(lambda: server.network() == there)


@pytest.mark.parametrize("mtu", ["", "MTU = 1200\n"])
def test_ipv6_keeps_its_mtu_and_the_summary_is_the_kernels(client: End, mtu: str) -> None:
    client.namespace.ip("route add 192.168.9.2/32 dev lo")
    client.namespace.ip("route change 192.168.9.2/32 dev lo mtu 1280")
    client.edit("[Interface]\n", f"[Interface]\n{mtu}")
    done = client.wgpy("up", str(client.file), "--json")
    assert "MTU 1280 instead of 1200" in done.stderr
    summary = json.loads(done.stdout)
    assert summary["mtu"] == 1280
    assert sorted(summary["addresses"]) == ["10.5.0.1/24", "fd05::1/64"]
    assert "172.20.0.0/16" in summary["routes"]
    assert "fd05::1" in client.namespace.ip(f"address show dev {client.interface}")
    client.wgpy("down", client.interface)


def test_what_the_kernel_says_is_passed_on(client: End) -> None:
    client.namespace.run("sysctl", "-qw", "net.ipv6.conf.default.disable_ipv6=1")
    code, said = up(client)
    assert code == 1
    assert "cannot add address fd05::1/64" in said
    assert "IPv6 is disabled on this device" in said


def test_the_device_has_no_address_of_its_own(client: End) -> None:
    client.wgpy("up", str(client.file))
    assert "fe80" not in client.namespace.ip(f"address show dev {client.interface}")
    client.wgpy("down", client.interface)


def test_an_endpoint_that_is_routed_into_the_tunnel(ends: tuple[End, End]) -> None:
    """One ping stays a handful of datagrams; up and show say what is wrong."""
    client, server = ends
    server.wgpy("up", str(server.file))
    assert "routed into" not in client.wgpy("up", str(client.file)).stderr
    client.namespace.run("ping", "-c1", "-W5", "10.5.0.2")
    public = client.namespace.run("wg", "show", client.interface, "peers").stdout.strip()
    ips = "10.5.0.2/32,192.168.9.2/32"
    client.namespace.run("wg", "set", client.interface, "peer", public, "allowed-ips", ips)
    client.namespace.ip(f"route add 192.168.9.2/32 dev {client.interface}")
    client.namespace.run("ping", "-c3", "-i0.2", "-W1", "10.5.0.2", check=False)
    shown = client.wgpy("show", client.interface)
    assert "OWN_DATAGRAM" in shown.stdout
    assert f"is routed into {client.interface} itself" in shown.stderr
    sent = int(client.wgpy("show", client.interface, "transfer").stdout.split()[-1])
    assert sent < 20_000, "the tunnel's own datagrams went around"
    client.wgpy("down", client.interface)
    client.edit("172.20.0.0/16", "192.168.9.2/32")
    code, said = up(client)
    assert code == 0, said
    assert "is routed into" in said
    assert "is inside AllowedIPs" in said
