"""The values of a configuration file's keys: one function from text per kind.

Each raises `BadValue`, which says what is wrong, from which character on, and the fix.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Final, Literal, TypeVar

from wgpy.config.model import INTERFACE_NAME, HostPort, InterfaceAddress
from wgpy.protocol.endpoint import parse_address
from wgpy.protocol.keys import Key

_KEY_TEXT_SIZE: Final = 44
_K = TypeVar("_K", bound=Key)


class BadValue(ValueError):
    """A value is refused, from `offset` in it on; `text` None shows nothing of it."""

    def __init__(self, message: str, fix: str, offset: int = 0, text: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.fix = fix
        self.offset = offset
        self.text = text


def key(kind: type[_K], text: str) -> _K:
    """The message tells position and length only: the text may be a secret."""
    stray = re.search(r"[^A-Za-z0-9+/=]", text)
    if stray:
        message = f"character {stray.start() + 1} of the key is not base64"
        fix = "paste the key again as `wgpy genkey` or `wg` printed it"
        raise BadValue(message, fix, stray.start())
    if len(text) != _KEY_TEXT_SIZE:
        message = f"a key has {_KEY_TEXT_SIZE} characters, this one {len(text)}"
        raise BadValue(message, "paste the whole key, with the '=' at its end")
    try:
        return kind.from_base64(text)
    except ValueError:
        message = "44 characters, but not a key: its end is wrong"
        raise BadValue(message, "paste the whole key, with the '=' at its end", 42) from None


def number(low: int, high: int, word: str = "") -> Callable[[str], int]:
    """Decimal numbers from `low` to `high`; `word` stands for 0."""

    def parse(text: str) -> int:
        if word and text.lower() == word:
            return 0
        if text.isascii() and text.isdigit() and len(text) < 12 and low <= int(text) <= high:
            return int(text)
        fix = f"write a number from {low} to {high}" + (f", or {word}" if word else "")
        raise BadValue("not a number in range", fix, 0, text)

    return parse


def fwmark(text: str) -> int:
    if re.fullmatch(r"0[xX][0-9a-fA-F]{1,8}", text):
        return int(text, 16)
    try:
        return number(0, 2**32 - 1, "off")(text)
    except BadValue:
        fix = "write off, a number below 2^32, or 0x and up to 8 hex digits"
        raise BadValue("not a mark", fix, 0, text) from None


def table(text: str) -> Literal["auto", "off"] | int:
    match text.lower():
        case "auto":
            return "auto"
        case "off":
            return "off"
        case "main":
            return 254
    try:
        return number(1, 2**32 - 1)(text)
    except BadValue:
        fix = "write auto, off, or the number of a routing table"
        raise BadValue("not a routing table", fix, 0, text) from None


def boolean(text: str) -> bool:
    if text not in ("true", "false"):
        raise BadValue("neither true nor false", "write true or false", 0, text)
    return text == "true"


def endpoint(text: str) -> HostPort:
    bracketed = re.fullmatch(r"\[([^\[\]]*)\]:([^:]*)", text)
    host, _, port = bracketed.group(1, 0, 2) if bracketed else text.rpartition(":")
    if not host:
        fix = "write HOST:PORT, such as 192.0.2.1:51820 or [2001:db8::1]:51820"
        raise BadValue("an endpoint without a port" if text else "no endpoint", fix, 0, text)
    if not bracketed and ":" in host:
        fix = f"write the address in brackets, such as [{host}]:{port}"
        raise BadValue("an IPv6 address without brackets", fix, 0, text)
    if not (port.isascii() and port.isdigit() and len(port) < 6 and 0 < int(port) < 65536):
        raise BadValue("not a port", "write a number from 1 to 65535", len(text) - len(port), port)
    address, _, zone = host.partition("%")
    if bracketed or re.fullmatch(r"[0-9.]+", host):
        _address(address, 0, text)
    elif not re.fullmatch(r"[\w.-]{1,253}", host):
        raise BadValue("not a host name or address", "write HOST:PORT", 0, text)
    if zone and not INTERFACE_NAME.fullmatch(zone):
        raise BadValue("not an interface name behind the %", "write [fe80::1%eth0]:PORT", 0, text)
    return HostPort(host, int(port))


def _address(text: str, offset: int, shown: str) -> bytes:
    try:
        return parse_address(text)
    except ValueError:
        fix = "write an IPv4 or IPv6 address, such as 192.0.2.1 or 2001:db8::1"
        raise BadValue("not an IP address", fix, offset, shown) from None


def items(text: str) -> Iterator[tuple[int, str]]:
    """The comma-separated parts of a value, without spaces, with their offsets."""
    for part in re.finditer(r"[^,\s][^,]*", text):
        yield part.start(), part.group().rstrip()


def interface_address(offset: int, text: str) -> InterfaceAddress:
    host, slash, bits = text.partition("/")
    ip = _address(host, offset, text)
    width = len(ip) * 8
    if not slash:
        return InterfaceAddress(ip, width)
    if not (bits.isascii() and bits.isdigit() and len(bits) < 4 and int(bits) <= width):
        raise _bad_length(offset + len(host) + 1, text, width)
    return InterfaceAddress(ip, int(bits))


def _bad_length(offset: int, text: str, width: int) -> BadValue:
    fix = f"write a number from 0 to {width} after the /"
    return BadValue("not a prefix length", fix, offset, text)


def addresses(text: str) -> tuple[InterfaceAddress, ...]:
    parsed = tuple(interface_address(offset, item) for offset, item in items(text))
    if not parsed:
        raise BadValue("no address", "write ADDRESS/LENGTH, such as 10.0.0.1/24")
    return parsed


def allowed_ips(text: str) -> tuple[InterfaceAddress, ...]:
    """With their host bits, which deserve a remark; masked when the peer is built."""
    return tuple(interface_address(offset, item) for offset, item in items(text))


def words(text: str) -> tuple[str, ...]:
    return tuple(item for _, item in items(text))


def command(text: str) -> tuple[str, ...]:
    if not text:
        raise BadValue("no command", "write a shell command, or remove the line")
    return (text,)
