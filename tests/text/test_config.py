"""Configuration files: what they mean, what is refused, and that secrets stay secret."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.text.strategies import raw_keys
from wgpy.config import (
    Config,
    ConfigError,
    HostPort,
    InterfaceAddress,
    PeerConfig,
    parse_config,
)
from wgpy.config.checks import without
from wgpy.protocol.endpoint import Endpoint, Prefix, parse_address
from wgpy.protocol.keys import NO_PRESHARED_KEY, PresharedKey, PrivateKey, PublicKey
from wgpy.protocol.settings import AllowedIp

PRIVATE = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk="
PUBLIC = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg="
OTHER = "TrMvSoP4jYQlY6RIzBgbssQqY3vxI2Pi+y71lOWWXX0="

WHOLE = f"""
# A whole file, with everything in it.
[interface]
PrivateKey = {PRIVATE}
ListenPort=51820
FwMark = 0xCAFE
Address = 10.0.0.1/24, fd00::1/64
address = 10.9.9.9
MTU = 1380
DNS = 1.1.1.1, example.org
Table = 1234
PreUp = echo one, two
PreUp = echo %i # a comment
PostUp = ip route add x
PreDown = true
PostDown = false
SaveConfig = true

[Peer]
PublicKey = {PUBLIC}
PresharedKey = {OTHER}
AllowedIPs = 10.0.0.2/32, fd00::2
AllowedIPs =
AllowedIPs = 192.168.0.0/16
Endpoint = [2001:db8::1]:51820
PersistentKeepalive = 25
[PEER]
PUBLICKEY = {OTHER}
Endpoint = vpn.example.org:443
PersistentKeepalive = off
"""


def problems_of(text: str) -> list[str]:
    """``LINE:COLUMN message`` of every mistake, without remarks."""
    with pytest.raises(ConfigError) as caught:
        parse_config(text)
    return [f"{p.line}:{p.column} {p.message}" for p in caught.value.problems if not p.note]


def peer_with(line: str) -> str:
    return f"[Interface]\nPrivateKey = {PRIVATE}\n[Peer]\nPublicKey = {PUBLIC}\n{line}\n"


def test_every_key_of_a_file_arrives() -> None:
    first = PeerConfig(
        PublicKey.from_base64(PUBLIC),
        PresharedKey.from_base64(OTHER),
        HostPort("2001:db8::1", 51820),
        25,
        tuple(map(Prefix.parse, ("10.0.0.2/32", "fd00::2/128", "192.168.0.0/16"))),
    )
    second = PeerConfig(PublicKey.from_base64(OTHER), endpoint=HostPort("vpn.example.org", 443))
    assert parse_config(WHOLE) == Config(
        private_key=PrivateKey.from_base64(PRIVATE),
        listen_port=51820,
        fwmark=0xCAFE,
        addresses=(
            InterfaceAddress(parse_address("10.0.0.1"), 24),
            InterfaceAddress(parse_address("fd00::1"), 64),
            InterfaceAddress(parse_address("10.9.9.9"), 32),
        ),
        mtu=1380,
        dns=("1.1.1.1", "example.org"),
        table=1234,
        pre_up=("echo one, two", "echo %i"),
        post_up=("ip route add x",),
        pre_down=("true",),
        post_down=("false",),
        save_config=True,
        peers=(first, second),
    )


def test_what_is_ignored_is_said() -> None:
    notes = [note.message for note in parse_config(WHOLE).notes]
    assert not any("DNS" in note for note in notes)
    assert any("SaveConfig is ignored" in note for note in notes)


def test_the_change_makes_the_device_exactly_so() -> None:
    there = Endpoint.parse("192.0.2.7:443")
    change = parse_config(WHOLE).change(lambda _: there)
    assert change.replace_peers
    assert (change.listen_port, change.fwmark) == (51820, 0xCAFE)
    assert [peer.endpoint for peer in change.peers] == [there, there]
    assert all(peer.replace_allowed_ips for peer in change.peers)
    assert change.peers[0].allowed_ips[0] == AllowedIp(Prefix.parse("10.0.0.2/32"))
    assert change.peers[1].preshared_key == NO_PRESHARED_KEY
    empty = parse_config("[Interface]\n").change(lambda _: there)
    assert empty.private_key is not None
    assert empty.private_key.is_zero


@pytest.mark.parametrize(
    ("value", "table"), [("off", "off"), ("Auto", "auto"), ("main", 254), ("7", 7)]
)
def test_table(value: str, table: object) -> None:
    assert parse_config(f"[Interface]\nTable = {value}\n").table == table


def test_all_mistakes_are_told_at_once_in_order() -> None:
    text = f"""[Interface]
PrivatKey = {PRIVATE}
  ListenPort = 70000
Address = 10.0.0.1/24, 10.0.0.2/33
AllowedIPs = 10.0.0.0/8
[Pear]
Whatever = 1
[Peer]
Endpoint = 10.0.0.1
"""
    assert problems_of(text) == [
        "2:1 no such key",
        "3:16 ListenPort: not a port",
        "4:33 Address: not a prefix length",
        "5:1 AllowedIPs does not belong to [Interface]",
        "6:1 no such section",
        "8:1 this peer has no PublicKey",
        "9:12 Endpoint: an endpoint without a port",
    ]


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        ("PrivatKey = x", "did you mean PrivateKey?"),
        ("Adress = x", "did you mean Address?"),
        ("PostUP2 = x", "did you mean PostUp?"),
        ("Zzz = x", "keys of [Interface] are PrivateKey"),
        ("[Peeer]", "did you mean [Peer]?"),
        ("MTU: 1420", "write MTU = VALUE"),
        ("Endpoint = x:1", "move it to [Peer]"),
        ("Table = of", "write auto, off"),
    ],
)
def test_the_fix_is_told(wrong: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(f"[Interface]\n{wrong}\n")
    assert any(hint in problem.fix for problem in caught.value.problems)
    assert hint in str(caught.value)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("Endpoint = 2001:db8::1", "5:12 Endpoint: an endpoint without a port"),
        ("Endpoint = [::1]", "5:12 Endpoint: an endpoint without a port"),
        ("Endpoint = [z:z]:1", "5:12 Endpoint: not an IP address"),
        ("Endpoint = 999.1.1.1:1", "5:12 Endpoint: not an IP address"),
        ("Endpoint = host:0", "5:17 Endpoint: not a port"),
        ("Endpoint = host:99999", "5:17 Endpoint: not a port"),
        ("Endpoint = ho/st:1", "5:12 Endpoint: not a host name or address"),
        ("Endpoint =", "5:11 Endpoint: no endpoint"),
        ("AllowedIPs = 10.0.0.0/8, 10.0.0/8", "5:26 AllowedIPs: not an IP address"),
        ("AllowedIPs = 10.0.0.0/", "5:23 AllowedIPs: not a prefix length"),
        ("PersistentKeepalive = 25s", "5:23 PersistentKeepalive: not a number in range"),
    ],
)
def test_a_mistake_has_its_place(line: str, problem: str) -> None:
    assert problem in problems_of(peer_with(line))


@pytest.mark.parametrize(
    ("line", "remark"),
    [
        ("PublicKey = " + OTHER, "5:13 PublicKey was given before, in line 4: this one counts"),
        (
            "Endpoint = a:1\nEndpoint = b:1",
            "6:12 Endpoint was given before, in line 5: this one counts",
        ),
        ("[Interface]", "5:1 [Interface] was opened before, in line 1"),
        (f"[Peer]\nPublicKey = {PUBLIC}", "6:1 this PublicKey is also that of the peer in line 3"),
        (
            "Endpoint = 2001:db8::1:51820",
            "5:12 Endpoint: an IPv6 address without brackets, this means [2001:db8::1]:51820",
        ),
    ],
)
def test_what_wg_takes_and_was_hardly_meant_is_remarked(line: str, remark: str) -> None:
    notes = parse_config(peer_with(line)).notes
    assert remark in [f"{note.line}:{note.column} {note.message}" for note in notes]


def test_a_file_without_interface_or_with_a_key_too_early() -> None:
    assert problems_of("") == ["1:1 no [Interface] section"]
    assert "1:1 a key before the first section" in problems_of("MTU = 1\n[Interface]\n")


def test_remarks_do_not_refuse() -> None:
    text = (
        peer_with("AllowedIPs = 10.0.0.1/24") + f"[Peer]\nPublicKey={OTHER}\nAllowedIPs=10.0.0.0/24"
    )
    notes = [f"{note.line}:{note.column} {note.message}" for note in parse_config(text).notes]
    assert notes == [
        "5:14 AllowedIPs: host bits are cleared, this means 10.0.0.0/24",
        "8:1 AllowedIPs 10.0.0.0/24 moves here from the peer in line 3",
    ]


def test_a_peer_with_the_own_key_is_remarked() -> None:
    own = "HIgo9xNzJMWLKASShiTqIybxZ0U3wGLiUeJ1PKf8ykw="
    config = parse_config(f"[Interface]\nPrivateKey={PRIVATE}\n[Peer]\nPublicKey={own}\n")
    assert "the interface's own" in config.notes[0].message


# --- secrets --------------------------------------------------------------------------


def damaged(key: str) -> list[str]:
    """Ways in which a key ends up wrong in a file."""
    return [
        f"PrivateKey = {key[:-1]}",
        f"PrivateKey = {key[:20]}*{key[21:]}",
        f"PrivateKey = {key[:20]} {key[20:]}",
        f"PrivateKey = {key[:42]}9=",
        f"PrivateKey {key}",
        f"PrivateKey: {key}",
        f"PrivatKey = {key}",
        f"PrivateKey = {key[:22]}\n{key[22:]}",
        f"PrivateKey =\n{key}",
        f"PrivateKey = \n = {key}",
        f"{key} = PrivateKey",
        f"ListenPort = {key}",
        f"Address = {key}",
        f"Table = {key}",
        f"FwMark = {key}",
        f"[{key}]",
    ]


@given(raw_keys)
def test_no_message_holds_a_piece_of_a_key(raw: bytes) -> None:
    key = base64.b64encode(raw).decode()
    pieces = {key[at : at + 12] for at in range(len(key) - 12)}
    for line in damaged(key):
        try:
            shown = str(parse_config(f"[Interface]\n{line}\n").notes)
        except ConfigError as error:
            shown = str(error) + repr(error.problems)
        assert not [piece for piece in pieces if piece in shown], line


def test_a_key_error_tells_position_and_length() -> None:
    assert problems_of(f"[Interface]\nPrivateKey = {PRIVATE[:7]}!{PRIVATE[8:]}\n") == [
        "2:21 PrivateKey: character 8 of the key is not base64"
    ]
    assert problems_of(f"[Interface]\nPrivateKey = {PRIVATE[:-1]}\n") == [
        "2:14 PrivateKey: a key has 44 characters, this one 43"
    ]


# --- garbage --------------------------------------------------------------------------

NAMES = """PrivateKey ListenPort FwMark Address MTU DNS Table PreUp SaveConfig PublicKey
    PresharedKey AllowedIPs Endpoint PersistentKeepalive Nonsense"""
WORDS = st.sampled_from(NAMES.split())
VALUES = st.text(max_size=50) | st.sampled_from(
    [PRIVATE, PUBLIC, "off", "1", "0x1", "10.0.0.1/8", "::/0,", "[::1%lo]:1", "a:1", "true", ",,"]
)
LINES = (
    st.sampled_from(["[Interface]", "[Peer]", "#", "["])
    | st.builds("{} = {}".format, WORDS, VALUES)
    | st.text(max_size=60)
)


@given(st.lists(LINES, max_size=12).map("\n".join))
def test_any_text_is_a_config_or_named_problems(text: str) -> None:
    try:
        config = parse_config(text, file="x.conf")
    except ConfigError as error:
        assert any(not problem.note for problem in error.problems)
        lines = text.split("\n")
        for problem in error.problems:
            assert 1 <= problem.line <= len(lines)
            assert 1 <= problem.column <= len(lines[problem.line - 1]) + 2
    else:
        assert all(note.note for note in config.notes)


# --- fixes ----------------------------------------------------------------------------

KEYS_OF = {"Interface": list(NAMES.split()[:9]), "Peer": list(NAMES.split()[9:-1])}
SLIPS = """http://vpn.example.com:51820 https://[2001:db8::1]:51820/ 2001:db8::1 vpn.example 25s
    1420bytes yes 0 off ff 10.0.0.0/255.0.0.0 a,b:1 udp://a:7 :// [::1 ::1] host:0 host:70000
    10.0.0.1/255.0.255.0"""
NEARLY = st.sampled_from([*SLIPS.split(), "port 51820"]) | st.text(
    alphabet="htp:/.[]%01fF,;- ", max_size=20
)


@given(st.sampled_from(["Interface", "Peer"]), st.data())
def test_every_fix_that_is_written_out_is_taken(section: str, data: st.DataObject) -> None:
    """Put in the place of what was wrong, the suggested value is read without a mistake."""
    key = data.draw(st.sampled_from(KEYS_OF[section]))
    start = f"[Interface]\n[Peer]\nPublicKey={PUBLIC}\n" if section == "Peer" else "[Interface]\n"
    try:
        parse_config(f"{start}{key} = {data.draw(NEARLY)}\n")
    except ConfigError as error:
        for problem in error.problems:
            assert bool(problem.replacement) == (problem.fix == f"write {problem.replacement}")
            if problem.replacement:
                parse_config(f"{start}{key} = {problem.replacement}\n")


@pytest.mark.parametrize(
    ("line", "fix"),
    [
        ("Endpoint = http://vpn.example.com:51820", "write vpn.example.com:51820"),
        ("Endpoint = https://[2001:db8::1]:51820/x", "write [2001:db8::1]:51820"),
        ("Endpoint = 2001:db8::1", "write [2001:db8::1]:51820"),
        ("Endpoint = vpn.example.com", "write vpn.example.com:51820"),
        ("Endpoint = ///", "write HOST:PORT, such as 192.0.2.1:51820 or [2001:db8::1]:51820"),
        ("PersistentKeepalive = 25s", "write 25"),
        ("PersistentKeepalive = 99999s", "write a number from 0 to 65535, or off"),
        ("AllowedIPs = 10.1.0.0/255.255.0.0", "write 10.1.0.0/16"),
    ],
)
def test_a_fix_is_what_was_meant(line: str, fix: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(peer_with(line))
    assert [problem.fix for problem in caught.value.problems] == [fix]


# --- endpoints that are routed into their own tunnel -------------------------------------


@pytest.mark.parametrize(
    ("interface", "allowed", "fix"),
    [
        ("", "192.0.2.0/30", "write 192.0.2.0/31, 192.0.2.3/32 instead of 192.0.2.0/30"),
        ("", "192.0.2.2/32", "take 192.0.2.2/32 out of AllowedIPs"),
        ("", "192.0.0.0/16", "PreUp = ip route add 192.0.2.2/32 via GATEWAY"),
        ("", "128.0.0.0/1, 0.0.0.0/1", "write 0.0.0.0/0"),
        ("Table = main", "0.0.0.0/0", "write 0.0.0.0/0"),
        ("", "0.0.0.0/0", None),
        ("", "10.0.0.0/8", None),
        ("Table = off", "192.0.2.0/24", None),
        ("Table = 7", "192.0.2.0/24", None),
    ],
)
def test_an_endpoint_inside_the_allowed_ips(interface: str, allowed: str, fix: str | None) -> None:
    text = f"[Interface]\nPrivateKey={PRIVATE}\n{interface}\n[Peer]\nPublicKey={PUBLIC}\n"
    config = parse_config(f"{text}Endpoint = 192.0.2.2:5\nAllowedIPs = {allowed}\n")
    notes = [note for note in config.notes if "is inside AllowedIPs" in note.message]
    assert [note.line for note in notes] == [6] * (fix is not None)
    assert all(fix in note.fix for note in notes if fix)


def test_an_mtu_that_is_too_small_for_ipv6_is_remarked() -> None:
    text = f"[Interface]\nPrivateKey={PRIVATE}\nMTU=1200\nAddress="
    notes = parse_config(f"{text}fd00::1\n").notes
    assert [(note.line, note.message) for note in notes] == [
        (3, "MTU 1200 is too small for IPv6: 1280 will be set")
    ]
    assert not parse_config(f"{text}10.0.0.1\n").notes


@pytest.mark.parametrize(
    ("text", "prefix"),
    [("10.0.0.0/30", "10.0.0.2"), ("fd00::/125", "fd00::7"), ("0.0.0.0/0", "9.9.9.9")],
)
def test_a_prefix_without_an_address_holds_all_others(text: str, prefix: str) -> None:
    whole, address = Prefix.parse(text), parse_address(prefix)
    parts = without(whole, address)
    assert not any(address in part for part in parts)
    width = len(address) * 8
    assert sum(1 << (width - part.length) for part in parts) + 1 == 1 << (width - whole.length)
    assert all(not part.overlaps([other]) for part in parts for other in parts if part != other)
