"""Configuration files as people and generators write them: right, odd and wrong, from a seed."""

from __future__ import annotations

from random import Random
from typing import Final

KEYS: Final = (
    "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=",
    "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=",
    "TrMvSoP4jYQlY6RIzBgbssQqY3vxI2Pi+y71lOWWXX0=",
)
BAD_KEYS: Final = (KEYS[0][:-1], KEYS[0][:42] + "9=", KEYS[0] + "=", "off", "")

ADDRESSES: Final = (
    "10.0.0.1/24", "10.0.0.1", "fd00::1/64", "FD00::1", "10.0.0.1/255.255.255.0",
    "10.0.0.300", "10.0.0.1/33", "10.0.0.1/", "fd00::1/129", "fd00::1/64x", "10.0.0.1/255.0.255.0",
)  # fmt: skip
MTUS: Final = ("1420", "0x58c", "02614", "", "x", "14 20", "1420 bytes", "0x", "089")
TABLES: Final = (
    "", "auto", "off", "0x64", "0144", "100", "local", "main", "default", "0",
    "nowhere", "-1", "4294967296", "0xg",
)  # fmt: skip
INTERFACE: Final[dict[str, tuple[str, ...]]] = {
    "PrivateKey": KEYS + BAD_KEYS[:4],
    "ListenPort": ("51820", "0", "+80", "00443", "domain", "nosuch", "-1", "0x50", "99999", ""),
    "FwMark": ("off", "OFF", "0x10", "0X10", "00010", "4294967295", "4294967296", "0x", "-1", ""),
    "Address": (*ADDRESSES, "", "10.0.0.1/24 fd00::1/64", "10.0.0.1/24,fd00::1/64", " , "),
    "MTU": MTUS,
    "DNS": ("1.1.1.1", "1.1.1.1, example.org 9.9.9.9", "fd00::53", "", "9.9.9"),
    "Table": TABLES,
    "PreUp": ("echo a, b", "", "echo %i", "a = b", "echo [x]"),
    "PostUp": ("echo one; echo two", 'iptables -A FORWARD -i %i -j "ACCEPT"'),
    "PreDown": ("true",),
    "PostDown": ("",),
    "SaveConfig": ("true", "false", "True", "yes", ""),
}
PEER: Final[dict[str, tuple[str, ...]]] = {
    "PublicKey": KEYS + BAD_KEYS[:4],
    "PresharedKey": KEYS[1:] + BAD_KEYS,
    "AllowedIPs": (
        "10.0.0.2/32", "10.0.0.0/8, fd00::/8", "10.1.2.3/16", "0.0.0.0/0,::/0", "10.0.0.2",
        "10.0.0.1/032", "", "10.0.0.1,", "10.0.0.1 10.0.0.2", "10.0.0/8", "10.0.0.1/33", "::/129",
        "10.0.0.0/255.0.0.0",
    ),
    "Endpoint": (
        "192.0.2.1:51820", "[2001:db8::1]:51820", "2001:db8::1:51820", "[192.0.2.1]:1",
        "localhost:5", "[localhost]:domain", "192.0.2.1 : 5", "10.1:5", "192.0.2.1:0",
        "192.0.2.1:99999", "http://192.0.2.1:5", ":5", "[]:5", "[::1]", "192.0.2.1", "192.0.2.1:",
        "192.0.2.1:5x", "", "[::1]5", "::ffff:192.0.2.1:5", "0x7f.1:80",
    ),
    "PersistentKeepalive": ("25", "off", "OFF", "00025", "0", "65535", "65536", "25s", "", "-1"),
}  # fmt: skip
SECTIONS: Final = {"Interface": INTERFACE, "Peer": PEER}
_REMARKS: Final = (b"", b"", b"", b" # remark", b"#caf\xe9", b"\t", b"\r", b" # a = b")


def file(random: Random) -> bytes:
    """One file; about half of them are fine."""
    lines = _section("Interface", random)
    for _ in range(random.choice((0, 1, 1, 2, 3))):
        lines += _section("Peer", random)
    for _ in range(random.choice((0, 0, 1, 2))):
        _disturb(lines, random)
    end = random.choice((b"\n", b"\n", b"\n", b"\r\n"))
    text = end.join(line.encode() + random.choice(_REMARKS) for line in lines)
    text += random.choice((b"", end))
    return b"\xef\xbb\xbf" + text if random.random() < 0.01 else text


def _section(kind: str, random: Random) -> list[str]:
    fields = SECTIONS[kind]
    keys = random.sample(list(fields), random.randint(0, len(fields)))
    if kind == "Peer" and "PublicKey" not in keys and random.random() < 0.9:
        keys.append("PublicKey")
    name = f"[{kind}]"
    if random.random() < 0.1:
        name = random.choice((f"[ {kind} ]", name.lower(), name.upper(), f"[{kind[:-1]}]"))
    return [name, *(_line(key, fields[key], random) for key in keys)]


def _line(key: str, pool: tuple[str, ...], random: Random) -> str:
    # The first of a pool are right: odd ones are chosen now and then.
    value = pool[0] if random.random() < 0.7 else random.choice(pool)
    if key == "PublicKey" and random.random() < 0.9:
        value = random.choice(KEYS)
    key = random.choice((key, key, key.lower(), key.upper()))
    return key + random.choice(("=", " = ", "= ", " =", "\t=  ")) + value


def _disturb(lines: list[str], random: Random) -> None:
    """Change the file as editors, copying and habits do."""
    at = random.randrange(len(lines))
    line = lines[at]
    place = random.randint(0, len(line))
    match random.randrange(8):
        case 0:
            lines[at] = line[:place] + random.choice((" ", "\t")) + line[place:]
        case 1:
            lines[at] = line[:place] + line[place + 1 :]
        case 2:
            lines[at] = line[:place] + random.choice("x0[]:=,/.%-#;'\"é\u00a0") + line[place:]
        case 3:
            lines.insert(random.randint(0, len(lines)), line)
        case 4:
            lines.insert(random.randint(0, len(lines)), lines.pop(at))
        case 5:
            lines[at] = line.replace("=", random.choice((":", " ", "")), 1)
        case 6:
            lines.insert(at, random.choice(("", "  ", "# remark", "; remark", "DNS", "=", "PreUp")))
        case 7:
            lines[at] = line.swapcase() if not line.endswith("=") else line
