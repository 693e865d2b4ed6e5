"""The life of `wireguard-py IFACE`: every way to begin, every way to end, nothing left."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.linux.edges import only_holder
from tests.support.netns import SOCKET_FOLDER, wait_until

pytestmark = pytest.mark.root

PROGRAM = str(Path(sys.executable).with_name("wireguard-py"))
PORT_IN_USE = "Address already in use"


@pytest.fixture
def home(lab):
    return lab.namespace("home")


@pytest.fixture
def name(lab):
    return lab.interface()


def path_of(name: str) -> Path:
    return SOCKET_FOLDER / f"{name}.sock"


def start(home, name: str) -> int:
    """Start in the background; returns the daemon's process id."""
    home.run(PROGRAM, name)
    [pid] = home.pids()
    return pid


def link_exists(home, name: str) -> bool:
    return home.run("ip", "link", "show", name, check=False).returncode == 0


def gone(home, name: str) -> bool:
    files = list(SOCKET_FOLDER.glob(f"{name}.*"))
    return not home.pids() and not files and not link_exists(home, name)


def test_ready_when_the_caller_goes_on(home, name):
    start(home, name)
    assert stat.S_IMODE(path_of(name).stat().st_mode) == 0o600
    assert f"interface: {name}" in home.run("wg", "show", name).stdout
    assert "mtu 1420" in home.ip(f"link show {name}")


def test_the_background_process_holds_on_to_nothing_of_its_caller(home, name):
    pid = start(home, name)
    assert os.getsid(pid) == pid
    process = Path(f"/proc/{pid}")
    assert (process / "cwd").readlink() == Path("/")
    assert {str((process / f"fd/{fd}").readlink()) for fd in (0, 1, 2)} == {os.devnull}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it(home, name, number):
    pid = start(home, name)
    os.kill(pid, number)
    assert wait_until(lambda: gone(home, name))


def test_deleting_the_device_ends_it(home, name):
    start(home, name)
    home.ip(f"link delete {name}")
    assert wait_until(lambda: gone(home, name))


def test_removing_the_socket_ends_it(home, name):
    start(home, name)
    path_of(name).unlink()
    assert wait_until(lambda: gone(home, name))


def test_a_replaced_socket_ends_it_and_is_left_alone(home, name):
    start(home, name)
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path_of(name)) + ".new")
        Path(str(path_of(name)) + ".new").rename(path_of(name))
        assert wait_until(lambda: not home.pids() and not link_exists(home, name))
        assert path_of(name).exists()


def test_foreground_tells_why_it_ended_and_ends_with_0(home, name, tmp_path):
    log = tmp_path / "log"
    process = home.start(PROGRAM, "-f", name, env={"LOG_LEVEL": "verbose"}, log=log)
    assert wait_until(lambda: path_of(name).exists())
    home.ip(f"link delete {name}")
    assert process.wait(10) == 0
    assert "the TUN device was deleted" in log.read_text()


def test_verbose_tells_events_and_drops_by_name_and_no_contents(home, name, tmp_path):
    log = tmp_path / "log"
    home.start(PROGRAM, "-f", name, env={"LOG_LEVEL": "verbose"}, log=log)
    assert wait_until(lambda: path_of(name).exists())
    key = subprocess.run(["wg", "genkey"], capture_output=True, text=True).stdout
    home.run("wg", "set", name, "private-key", "/dev/stdin", stdin=key)
    home.ip(f"link set {name} up")
    home.ip(f"address add 10.5.0.1/24 dev {name}")
    assert wait_until(
        lambda: (
            home.run("ping", "-c1", "-W1", "-p", "5e", "10.5.0.2", check=False)
            and "NO_PEER (no allowed IPs cover the destination" in log.read_text()
        )
    )
    told = log.read_text()
    assert "source 10.5.0.1, destination 10.5.0.2" in told
    assert "^^^^" not in told and key.strip() not in told


def test_silent_means_silent(home, name, tmp_path):
    log = tmp_path / "log"
    process = home.start(PROGRAM, "-f", name, env={"LOG_LEVEL": "silent"}, log=log)
    assert wait_until(lambda: path_of(name).exists())
    home.run("wg", "set", name, "fwmark", "1")
    process.terminate()
    assert process.wait(10) == 0
    assert log.read_text() == ""


def test_two_starts_on_one_name_are_refused(home, name):
    pid = start(home, name)
    second = home.run(PROGRAM, name, check=False)
    assert second.returncode == 1
    assert "in use" in second.stderr
    assert home.pids() == [pid]
    assert home.run("wg", "show", name).returncode == 0


def test_two_starts_in_two_namespaces_are_refused_by_the_socket(lab, home, name):
    start(home, name)
    elsewhere = lab.namespace("elsewhere")
    second = elsewhere.run(PROGRAM, name, check=False)
    assert second.returncode == 1
    assert f"{path_of(name)} is in use" in second.stderr
    assert not link_exists(elsewhere, name)
    assert home.run("wg", "show", name).returncode == 0


def test_of_many_starts_at_once_one_wins(lab, name):
    homes = [lab.namespace(f"home{n}") for n in range(3)] * 2
    starts = [home.start(PROGRAM, name) for home in homes]
    statuses = [start.wait(60) for start in starts]
    assert sorted(statuses) == [0] + [1] * 5
    winner = homes[statuses.index(0)]
    assert winner.run("wg", "show", name).returncode == 0
    assert sum(len(home.pids()) for home in homes[:3]) == 1


def test_a_stale_socket_is_replaced(home, name):
    pid = start(home, name)
    os.kill(pid, signal.SIGKILL)
    assert wait_until(lambda: not link_exists(home, name))
    assert path_of(name).exists()
    start(home, name)
    assert home.run("wg", "show", name).returncode == 0


@pytest.mark.parametrize("bad", ["a" * 16, "a/b", "..", "a b", "wg%d", ""])
def test_names_that_no_interface_can_have(home, bad):
    refused = home.run(PROGRAM, bad, check=False)
    assert refused.returncode == 2
    assert "at most 15" in refused.stderr or "not an interface name" in refused.stderr


def test_a_name_that_is_another_kind_of_device(home):
    refused = home.run(PROGRAM, "lo", check=False)
    assert refused.returncode == 1
    assert "not a TUN device" in refused.stderr
    assert not path_of("lo").exists()


def test_without_permission_the_fix_is_named(home, name):
    drop = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--"]
    refused = home.run(*drop, PROGRAM, name, check=False)
    assert refused.returncode == 1
    assert "it needs CAP_NET_ADMIN there" in refused.stderr


def test_no_tun_driver_is_named(home, name, tmp_path):
    hidden = 'mount --bind "$1" /dev/net && shift && exec "$@"'
    command = ["unshare", "--mount", "sh", "-c", hidden, "sh", str(tmp_path), PROGRAM, name]
    refused = home.run(*command, check=False)
    assert refused.returncode == 1
    assert "/dev/net/tun does not exist: `modprobe tun`" in refused.stderr


def test_a_renamed_and_moved_device_goes_on(lab, home, name):
    start(home, name)
    elsewhere, new_name = lab.namespace("elsewhere"), lab.interface()
    home.ip(f"link set {name} name {new_name}")
    home.ip(f"link set {new_name} netns {elsewhere.pid}")
    elsewhere.ip(f"link set {new_name} up")
    assert wait_until(lambda: udp_ports(home))
    elsewhere.ip(f"link delete {new_name}")
    assert wait_until(lambda: gone(home, name))


def test_a_device_that_is_moved_and_set_up_at_once_is_followed_each_time(lab, home, name):
    """There and back, twenty moves, each seen only when it is over."""
    pid = start(home, name)
    here, there = home, lab.namespace("other")
    for _ in range(20):
        os.kill(pid, signal.SIGSTOP)
        here.ip(f"link set {name} netns {there.pid}")
        there.ip(f"link set {name} up")
        os.kill(pid, signal.SIGCONT)
        assert wait_until(lambda: udp_ports(home)), "it did not follow"
        there.ip(f"link set {name} down")
        assert wait_until(lambda: not udp_ports(home))
        here, there = there, here
    assert home.run("wg", "show", name).returncode == 0


def test_a_namespace_that_ends_takes_the_device_with_it(home, name):
    start(home, name)
    with only_holder(home) as holder:
        up = 'ip link set "$1" netns "$2" && nsenter --net --target "$2" ip link set "$1" up'
        home.run("sh", "-c", up, "sh", name, str(holder.pid))
        assert wait_until(lambda: udp_ports(home))
        assert "fe80" not in subprocess.run(
            ["nsenter", "--net", "--target", str(holder.pid), "ip", "address"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    assert wait_until(lambda: gone(home, name))


def udp_ports(home) -> str:
    """One line for each family: data and handshakes have a socket each on the same port."""
    lines = home.run("ss", "-Hlun").stdout.splitlines(keepends=True)
    assert {lines.count(line) for line in lines} <= {2}
    return "".join(sorted(set(lines)))


def test_the_port_is_open_while_the_link_is_up(home, name):
    start(home, name)
    home.run("wg", "set", name, "listen-port", "7001")
    assert "7001" not in udp_ports(home)
    home.ip(f"link set {name} up")
    assert wait_until(lambda: udp_ports(home).count(":7001") == 2)
    home.run("wg", "set", name, "listen-port", "7002")
    assert udp_ports(home).count(":7002") == 2 and "7001" not in udp_ports(home)
    home.ip(f"link set {name} down")
    assert wait_until(lambda: not udp_ports(home))
    assert home.run("wg", "show", name, "listen-port").stdout == "7002\n"


def test_port_and_link_changes_leave_no_socket_behind(home, name):
    pid = start(home, name)

    def descriptors() -> int:
        return len(list(Path(f"/proc/{pid}/fd").iterdir()))

    home.ip(f"link set {name} up")
    for port in (7011, 7012, 7011, 7012):
        home.run("wg", "set", name, "listen-port", str(port))
        assert wait_until(lambda p=port: udp_ports(home).count(f":{p}") == 2)
        assert udp_ports(home).count(":701") == 2
    before = descriptors()
    for port in (7011, 7012) * 3:
        home.run("wg", "set", name, "listen-port", str(port))
        home.ip(f"link set {name} down")
        assert wait_until(lambda: not udp_ports(home))
        home.ip(f"link set {name} up")
        assert wait_until(lambda p=port: udp_ports(home).count(f":{p}") == 2)
    assert wait_until(lambda: descriptors() == before)


def test_an_unconfigured_port_is_chosen_when_the_link_comes_up(home, name):
    start(home, name)
    home.ip(f"link set {name} up")
    assert wait_until(lambda: home.run("wg", "show", name, "listen-port").stdout != "0\n")
    port = home.run("wg", "show", name, "listen-port").stdout.strip()
    assert udp_ports(home).count(f":{port}") == 2


@pytest.mark.parametrize("state", ["up", "down"])
def test_a_port_in_use_is_refused_and_nothing_applied(home, name, state):
    start(home, name)
    home.ip(f"link set {name} {state}")
    home.run("wg", "set", name, "listen-port", "7003")
    with home.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("", 7004))
        refused = home.run(
            "wg",
            "set",
            name,
            "listen-port",
            "7004",
            "fwmark",
            "5",
            "private-key",
            "/dev/stdin",
            stdin=subprocess.run(["wg", "genkey"], capture_output=True, text=True).stdout,
            check=False,
        )
    assert refused.returncode == 1
    assert PORT_IN_USE in refused.stderr
    assert home.run("wg", "show", name, "dump").stdout.split() == [
        "(none)",
        "(none)",
        "7003",
        "off",
    ]


def test_a_host_without_ipv6(home, name):
    home.run("sysctl", "-qw", *(f"net.ipv6.conf.{w}.disable_ipv6=1" for w in ("all", "default")))
    start(home, name)
    home.run("wg", "set", name, "listen-port", "7005")
    home.ip(f"link set {name} up")
    assert wait_until(lambda: "0.0.0.0:7005" in udp_ports(home))


def test_the_mark_is_on_what_is_sent(home, name):
    """Only marked packets have a route to the peer: they get there."""
    start(home, name)
    other = home.lab.namespace("other")
    home.lab.veth(home, other, "192.0.2.1/24", "192.0.2.2/24")
    home.ip("rule add priority 10 not fwmark 0x77 to 192.0.2.2 unreachable")
    public_key = subprocess.run(["wg", "genkey"], capture_output=True, text=True).stdout.strip()
    with other.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.bind(("", 7006))
        peer.settimeout(10)
        home.run(
            "wg",
            "set",
            name,
            "fwmark",
            "0x77",
            "private-key",
            "/dev/stdin",
            "peer",
            public_key,
            "endpoint",
            "192.0.2.2:7006",
            "persistent-keepalive",
            "1",
            stdin=public_key.replace(public_key[0], "A"),
        )
        home.ip(f"link set {name} up")
        assert len(peer.recv(1000)) == 148
