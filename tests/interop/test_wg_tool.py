"""The real `wg` and `wg-quick` cannot tell wireguard-py from wireguard-go."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.interop.tunnel import connect, make_end, make_ends, start_program, wg
from tests.support.netns import wait_until

pytestmark = pytest.mark.root

QUICK = {
    "WG_QUICK_USERSPACE_IMPLEMENTATION": "wireguard-py",
    "PATH": f"{Path(sys.executable).parent}:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin",
}
KEYS = [wg("genkey") for _ in range(4)]
PUBLIC = [wg("pubkey", stdin=key) for key in KEYS]
PSK = wg("genpsk")

FULL = f"""
[Interface]
PrivateKey = {KEYS[0]}
ListenPort = 51999
FwMark = 0x1234

[Peer]
PublicKey = {PUBLIC[1]}
PresharedKey = {PSK}
Endpoint = 192.0.2.7:1111
AllowedIPs = 10.1.0.0/16, fd01::/32, 0.0.0.0/0
PersistentKeepalive = 25

[Peer]
PublicKey = {PUBLIC[2]}
Endpoint = [2001:db8::9]:2222
AllowedIPs = 10.1.2.0/24
"""
SMALLER = f"""
[Interface]
PrivateKey = {KEYS[0]}
ListenPort = 51998

[Peer]
PublicKey = {PUBLIC[2]}
AllowedIPs = 10.1.2.0/24, fd01::/32

[Peer]
PublicKey = {PUBLIC[3]}
"""


class Twins:
    """wireguard-py and wireguard-go, told the same and asked the same."""

    def __init__(self, lab) -> None:
        self.homes = [lab.namespace("py"), lab.namespace("go")]
        self.names = [lab.interface(), lab.interface()]
        for home, program, name in zip(self.homes, ("py", "go"), self.names, strict=True):
            start_program(home, program, name)
        # Else wireguard-go takes a random port at once, we (as the kernel) when the link is up.
        self.tell("set", "IFACE", "listen-port", "51900")

    def tell(self, *words: str, stdin: str = "") -> None:
        """`wg` with IFACE standing for the name."""
        results = [
            home.run("wg", *[name if w == "IFACE" else w for w in words], stdin=stdin, check=False)
            for home, name in zip(self.homes, self.names, strict=True)
        ]
        assert results[0].returncode == results[1].returncode == 0, results

    def dumps(self) -> list[list[str]]:
        """`wg show all dump`, the lines of each twin sorted and without the name."""
        lines = self.homes[0].run("wg", "show", "all", "dump").stdout.splitlines()
        return [
            sorted(line.partition("\t")[2] for line in lines if line.startswith(name))
            for name in self.names
        ]

    def same(self) -> list[str]:
        """The state they agree on."""
        ours, theirs = self.dumps()
        assert ours == theirs
        return ours


@pytest.fixture
def twins(lab):
    return Twins(lab)


def test_fresh(twins):
    assert twins.same() == ["(none)\t(none)\t51900\toff"]


def test_setconf_syncconf_addconf(twins, tmp_path):
    full, smaller = tmp_path / "full", tmp_path / "smaller"
    full.write_text(FULL)
    smaller.write_text(SMALLER)
    twins.tell("setconf", "IFACE", str(full))
    assert len(twins.same()) == 3
    twins.tell("syncconf", "IFACE", str(smaller))
    assert len(twins.same()) == 3
    twins.tell("addconf", "IFACE", str(full))
    assert len(twins.same()) == 4
    twins.tell("setconf", "IFACE", str(smaller))
    assert len(twins.same()) == 3


def test_showconf_restores(twins, tmp_path):
    saved = tmp_path / "saved"
    saved.write_text(FULL)
    twins.tell("setconf", "IFACE", str(saved))
    before = twins.same()
    saved.write_text(twins.homes[0].run("wg", "showconf", twins.names[0]).stdout)
    twins.tell("set", "IFACE", "peer", PUBLIC[1], "remove", "peer", PUBLIC[2], "remove")
    assert len(twins.same()) == 1
    twins.tell("setconf", "IFACE", str(saved))
    assert twins.same() == before


def test_set_one_thing_after_the_other(twins):
    twins.tell("set", "IFACE", "private-key", "/dev/stdin", stdin=KEYS[0])
    twins.tell("set", "IFACE", "peer", PUBLIC[1], "allowed-ips", "10.0.0.0/8,fd00::/8")
    twins.tell("set", "IFACE", "peer", PUBLIC[2], "allowed-ips", "10.0.0.0/8")  # It moves.
    assert [line.split("\t")[3] for line in twins.same()[1:]] != ["", ""]
    twins.tell("set", "IFACE", "peer", PUBLIC[1], "preshared-key", "/dev/stdin", stdin=PSK)
    twins.tell("set", "IFACE", "peer", PUBLIC[1], "persistent-keepalive", "33")
    twins.same()
    twins.tell(
        "set",
        "IFACE",
        "peer",
        PUBLIC[1],
        "preshared-key",
        "/dev/null",
        "persistent-keepalive",
        "off",
        "allowed-ips",
        "",
    )
    twins.tell("set", "IFACE", "peer", PUBLIC[0], "allowed-ips", "10.9.0.0/16")  # Itself.
    twins.tell("set", "IFACE", "fwmark", "7", "listen-port", "52001")
    assert len(twins.same()) == 3
    twins.tell("set", "IFACE", "fwmark", "off", "peer", PUBLIC[2], "remove")
    twins.tell("set", "IFACE", "private-key", "/dev/null")
    assert len(twins.same()) == 2


def test_one_peer_twice_in_one_message(twins):
    """Applied in order, as separate messages would be."""
    twins.tell(
        "set",
        "IFACE",
        "peer",
        PUBLIC[1],
        "allowed-ips",
        "10.0.0.0/8",
        "persistent-keepalive",
        "5",
        "peer",
        PUBLIC[1],
        "allowed-ips",
        "10.1.0.0/16",
    )
    assert len(twins.same()) == 2
    twins.tell("set", "IFACE", "peer", PUBLIC[1], "remove", "peer", PUBLIC[1])
    assert len(twins.same()) == 2


def test_syncconf_leaves_a_running_session_alone(lab, tmp_path):
    left, right = make_ends(lab, "py", "go")
    connect(left, right)
    left.ping(right, "-c1")
    before = left.handshake_time(), left.transfer()
    config = tmp_path / "config"
    config.write_text(left.wg("showconf", left.name) + f"\n[Peer]\nPublicKey = {PUBLIC[3]}\n")
    left.wg("syncconf", left.name, str(config))
    assert PUBLIC[3] in left.wg("show", left.name, "peers")
    config.write_text(
        left.wg("showconf", left.name).partition(f"[Peer]\nPublicKey = {PUBLIC[3]}")[0]
    )
    left.wg("syncconf", left.name, str(config))
    assert PUBLIC[3] not in left.wg("show", left.name, "peers")
    assert (left.handshake_time(), left.transfer()) == before
    right.ping(left, "-c1")


def test_many_allowed_ips_in_one_message(lab, tmp_path):
    """100,000 and more, while the data plane goes on."""
    left, right = make_ends(lab, "py", "go")
    connect(left, right)
    left.ping(right, "-c1")
    prefixes = [f"10.{a}.{b}.{c}/32" for a in (1, 2) for b in range(200) for c in range(255)]
    config = tmp_path / "config"
    config.write_text(f"[Peer]\nPublicKey = {PUBLIC[3]}\nAllowedIPs = {', '.join(prefixes)}\n")
    traffic = left.namespace.start("ping", "-nq", "-i0.05", "-c60", "-W5", right.inner[4])
    left.wg("addconf", left.name, str(config))
    shown = left.wg("show", left.name, "allowed-ips")
    assert len(prefixes) > 100_000
    assert sum(len(line.split()) - 1 for line in shown.splitlines()) == len(prefixes) + 2
    output, _ = traffic.communicate(timeout=30)
    assert " 0% packet loss" in output


def quick_config(path: Path, end, peer, *, allowed: str, lines: str = "") -> None:
    path.write_text(
        f"[Interface]\nPrivateKey = {end.private_key}\nListenPort = 51820\n"
        f"Address = {end.inner[4]}/24, {end.inner[6]}/64\nMTU = 1400\n{lines}"
        f"[Peer]\nPublicKey = {peer.public_key}\nAllowedIPs = {allowed}\n"
        f"Endpoint = {peer.endpoint(4)}\n"
    )


@pytest.mark.parametrize(
    "allowed",
    ["10.77.0.0/24, fd77::/64, 10.88.0.0/16", "0.0.0.0/0, ::/0"],
    ids=["split", "everything"],
)
def test_wg_quick(lab, tmp_path, allowed):
    """Up, traffic, save-free down; with a default route too (its own table, mark and rules)."""
    homes = lab.namespace("left"), lab.namespace("right")
    lab.veth(*homes, "192.0.2.1/24 2001:db8::1/64", "192.0.2.2/24 2001:db8::2/64")
    left, right = (
        make_end(lab, home, n, f"192.0.2.{n}", f"2001:db8::{n}") for n, home in enumerate(homes, 1)
    )
    start_program(right.namespace, "go", right.name)
    right.configure(left)
    right.up()
    for address in ("10.88.0.9/32", "203.0.113.5/32"):
        right.namespace.ip(f"address add {address} dev lo")
    conf = tmp_path / f"{left.name}.conf"
    hooks = f"PostUp = echo %i > {tmp_path}/up\nPostDown = rm {tmp_path}/up\n"
    quick_config(conf, left, right, allowed=allowed, lines=hooks)
    done = homes[0].run("wg-quick", "up", str(conf), env=QUICK)
    assert "wireguard-py" in done.stderr
    assert (tmp_path / "up").read_text().strip() == left.name
    assert "mtu 1400" in homes[0].ip(f"link show {left.name}")
    left.ping(right, "-c2", "-i0.2")
    left.ping(right, "-c2", "-i0.2", family=6)
    beyond = "203.0.113.5" if "0.0.0.0/0" in allowed else "10.88.0.9"
    homes[0].run("ping", "-c1", "-W3", beyond)
    homes[0].run("wg-quick", "down", str(conf), env=QUICK)
    assert wait_until(lambda: not homes[0].pids())
    assert not (tmp_path / "up").exists()
    assert "lookup 51820" not in homes[0].ip("rule show")


def test_wg_quick_saves_what_it_was_given(lab, tmp_path):
    """SaveConfig, three times up and down: the file does not grow (no address of the device's
    own is saved), and what was changed by `wg` in between stays."""
    homes = lab.namespace("left"), lab.namespace("right")
    left, right = (make_end(lab, home, n, f"192.0.2.{n}", "") for n, home in enumerate(homes, 1))
    conf = tmp_path / f"{left.name}.conf"
    quick_config(conf, left, right, allowed="10.77.0.0/24", lines="SaveConfig = true\n")
    saved = []
    for keepalive in (0, 15, 15):
        homes[0].run("wg-quick", "up", str(conf), env=QUICK)
        assert "fe80" not in homes[0].ip(f"address show dev {left.name}")
        peer = ("peer", right.public_key, "persistent-keepalive", str(keepalive))
        homes[0].run("wg", "set", left.name, *peer)
        homes[0].run("wg-quick", "down", str(conf), env=QUICK)
        assert wait_until(lambda: not homes[0].pids())
        saved.append(conf.read_text())
    assert saved[0].count("Address =") == 2
    assert saved[1] == saved[2]
    assert saved[1].replace("PersistentKeepalive = 15\n", "") == saved[0]


def test_wg_quick_reports_a_port_in_use_and_cleans_up(lab, tmp_path):
    home = lab.namespace("home")
    end, peer = (make_end(lab, home, n, f"192.0.2.{n}", "") for n in (1, 2))
    start_program(home, "py", peer.name)
    home.run("wg", "set", peer.name, "listen-port", "51820")
    home.ip(f"link set {peer.name} up")
    assert wait_until(lambda: ":51820" in home.run("ss", "-Hlun").stdout)
    conf = tmp_path / f"{end.name}.conf"
    quick_config(conf, end, peer, allowed="10.77.0.2/32")
    refused = home.run("wg-quick", "up", str(conf), env=QUICK, check=False)
    assert refused.returncode != 0
    assert "Address already in use" in refused.stderr
    assert wait_until(lambda: len(home.pids()) == 1)
