"""The values of a configuration file's keys: one function from text per kind.

Each raises `BadValue` with the problem, the position of its first character, and the fix.
Values for `wg` come here without blanks, because `wg` removes them all; values for wg-quick
keep them.  Numbers are accepted as the program that reads them accepts them: `wg` in
decimal, `ip` (MTU, Table) also as 0x58c and 02614.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterator, Mapping
from typing import Final, Literal, TypeVar

from wgpy.config.model import INTERFACE_NAME, HostPort, InterfaceAddress
from wgpy.protocol.endpoint import Prefix, parse_address
from wgpy.protocol.keys import Key

BLANKS: Final = " \t\n\v\f\r"
"""Whitespace as in C; a no-break space is not included."""
DEFAULT_TABLES: Final = {"unspec": 0, "default": 253, "main": 254, "local": 255}
_KEY_TEXT_SIZE: Final = 44
_MAX_DIGITS: Final = 20
_K = TypeVar("_K", bound=Key)


class BadValue(ValueError):
    """A value is refused, from `offset` in it on; `text` None shows nothing of it.

    `better` are values to write instead.  The parser shows the first that it takes itself,
    and `fix` when it takes none.
    """

    def __init__(
        self,
        message: str,
        fix: str,
        offset: int = 0,
        text: str | None = None,
        better: tuple[str, ...] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.fix = fix
        self.offset = offset
        self.text = text
        self.better = better


def key(kind: type[_K], text: str) -> _K:
    """The message shows only position and length: the text may be a secret."""
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
    """Decimal numbers from `low` to `high`; `word` means 0."""

    def parse(text: str) -> int:
        if word and text.lower() == word:
            return 0
        if re.fullmatch(r"[0-9]+", text) and low <= _decimal(text) <= high:
            return _decimal(text)
        fix = f"write a number from {low} to {high}" + (f", or {word}" if word else "")
        raise BadValue("not a number in range", fix, 0, text, tuple(re.findall("[0-9]+", text)))

    return parse


def _decimal(text: str) -> int:
    """Zeros in front do not count; what is longer than any number is too large."""
    digits = text.lstrip("0") or "0"
    return int(digits) if len(digits) <= _MAX_DIGITS else 10**_MAX_DIGITS


def c_number(text: str) -> int | None:
    """A number as C's strtoul reads it in base 0 (decimal, 0x58c, 02614); None if it is not."""
    if re.fullmatch(r"0[xX][0-9a-fA-F]{1,16}", text):
        return int(text, 16)
    if re.fullmatch(r"0[0-7]*", text):
        return int(text, 8) if len(text) <= _MAX_DIGITS else None
    return _decimal(text) if re.fullmatch(r"[1-9][0-9]*", text) else None


def port(low: int) -> Callable[[str], int]:
    """A UDP port from `low` on, or the name of a service from /etc/services."""

    def parse(text: str) -> int:
        if re.fullmatch(r"\+?[0-9]+", text):
            value = _decimal(text.lstrip("+"))
            if low <= value < 65536:
                return value
        elif re.fullmatch(r"[A-Za-z][\w-]*", text, re.ASCII):
            try:
                return socket.getservbyname(text, "udp")
            except OSError:
                pass
        fix = f"write a number from {low} to 65535"
        raise BadValue("not a port", fix, 0, text, tuple(re.findall("[0-9]+", text)))

    return parse


def mtu(text: str) -> int | None:
    """Empty means that `wgpy up` chooses."""
    value = c_number(text)
    if not text:
        return None
    if value is None or not 68 <= value <= 65521:
        numbers = tuple(re.findall("[1-9][0-9]+", text))
        raise BadValue("not a number in range", "write a number from 68 to 65521", 0, text, numbers)
    return value


def fwmark(text: str) -> int:
    if re.fullmatch(r"0[xX]0*[0-9a-fA-F]{1,8}", text):
        return int(text, 16)
    try:
        return number(0, 2**32 - 1, "off")(text)
    except BadValue:
        fix = "write off, a number below 2^32, or 0x and up to 8 hex digits"
        raise BadValue("not a mark", fix, 0, text, (f"0x{text}",)) from None


def table(text: str, tables: Mapping[str, int]) -> Literal["auto", "off"] | int:
    """A number, or a name out of `tables`; 0 is the main table, as for the kernel."""
    match text.lower():
        case "auto" | "":
            return "auto"
        case "off":
            return "off"
    named = tables.get(text, tables.get(text.lower()))
    value = c_number(text) if named is None else named
    if value is None or value >= 2**32:
        fix = "write auto, off, or the number or name of a routing table"
        raise BadValue("not a routing table", fix, 0, text)
    return value or DEFAULT_TABLES["main"]


def boolean(text: str) -> bool:
    folded = text.lower()
    if folded not in ("true", "false"):
        meant = {"yes": "true", "1": "true", "on": "true", "no": "false", "0": "false"}
        meant["off"] = "false"
        better = (meant[folded],) if folded in meant else ()
        raise BadValue("neither true nor false", "write true or false", 0, text, better)
    return folded == "true"


_ENDPOINT_FIX: Final = "write HOST:PORT, such as 192.0.2.1:51820 or [2001:db8::1]:51820"


def endpoint(text: str) -> HostPort:
    """A name is left to the resolver; what looks like an address must be one."""
    bracketed = re.fullmatch(r"\[([^\[\]]*)\]:([^:]*)", text)
    host, _, service = bracketed.group(1, 0, 2) if bracketed else text.rpartition(":")
    if not host or re.fullmatch(r"\[[^\]]*\]", text):
        message = "an endpoint without a port" if text else "no endpoint"
        raise BadValue(message, _ENDPOINT_FIX, 0, text, _better_endpoints(text))
    if ":" in host or re.fullmatch(r"[0-9.]+", host):
        _check_host_address(host, text)
    elif not re.fullmatch(r"[\w.-]{1,253}", host):
        message = "not a host name or address"
        raise BadValue(message, _ENDPOINT_FIX, 0, text, _better_endpoints(text))
    try:
        return HostPort(host, port(1)(service))
    except BadValue as bad:
        bad.offset = len(text) - len(service)
        raise bad from None


def _check_host_address(host: str, text: str) -> None:
    address, percent, zone = host.partition("%")
    better = _better_endpoints(text)
    try:
        parse_address(address)
    except ValueError:
        whole = re.fullmatch(r"[0-9a-fA-F:]*::?[0-9a-fA-F:.]*", text)
        message = "an endpoint without a port" if whole else "not an IP address"
        raise BadValue(message, _ENDPOINT_FIX, 0, text, better) from None
    if percent and not INTERFACE_NAME.fullmatch(zone):
        raise BadValue("not an interface name behind the %", "write [fe80::1%eth0]:51820", 0, text)


def _better_endpoints(text: str) -> tuple[str, ...]:
    """What may have been meant: a URL's host and port, or an address whose port is missing."""
    bare = re.sub(r"^[a-z][a-z0-9+.-]*://|^//|[/?].*$", "", text, flags=re.IGNORECASE)
    host = bare.strip("[]:,; ")
    full = f"[{host}]:51820" if ":" in host else f"{host}:51820"
    return (bare, full, *((f"[{m[1]}]:{m[2]}",) if (m := _LAST_COLON.fullmatch(bare)) else ()))


_LAST_COLON: Final = re.compile(r"\[?([^\[\]]*)\]?:([0-9]+)")


def _address(text: str, offset: int, shown: str) -> bytes:
    try:
        return parse_address(text)
    except ValueError:
        fix = "write an IPv4 or IPv6 address, such as 192.0.2.1 or 2001:db8::1"
        raise BadValue("not an IP address", fix, offset, shown) from None


def items(text: str) -> Iterator[tuple[int, str]]:
    """The parts of a value between commas and blanks, with their offsets."""
    for part in re.finditer(rf"[^,{BLANKS}]+", text):
        yield part.start(), part.group()


def interface_address(offset: int, text: str) -> InterfaceAddress:
    """ADDRESS, ADDRESS/LENGTH or, as `ip` takes it, IPv4 ADDRESS/NETMASK."""
    host, slash, bits = text.partition("/")
    ip = _address(host, offset, text)
    width = len(ip) * 8
    if not slash:
        return InterfaceAddress(ip, width)
    length = _netmask(bits) if width == 32 and "." in bits else _length(bits, width)
    if length is None:
        fix = f"write a number from 0 to {width} after the /"
        raise BadValue("not a prefix length", fix, offset + len(host) + 1, text)
    return InterfaceAddress(ip, length)


def _length(bits: str, width: int) -> int | None:
    """Decimal: `ip` would read a zero in front as octal, so there is none."""
    if not re.fullmatch(r"0|[1-9][0-9]{0,2}", bits) or int(bits) > width:
        return None
    return int(bits)


def _netmask(bits: str) -> int | None:
    try:
        mask = int.from_bytes(parse_address(bits))
    except ValueError:
        return None
    length = mask.bit_count()
    return length if mask == (2**32 - 1) << (32 - length) & (2**32 - 1) else None


def addresses(text: str) -> tuple[InterfaceAddress, ...]:
    """Those of one line; an empty line adds none."""
    return tuple(interface_address(offset, item) for offset, item in items(text))


def allowed_ips(text: str) -> tuple[InterfaceAddress, ...]:
    """With their host bits, which get a note; masked when the peer is built."""
    return tuple(allowed_ip(offset, item) for offset, item in items(text))


def allowed_ip(offset: int, text: str) -> InterfaceAddress:
    """ADDRESS or ADDRESS/LENGTH, the length in decimal digits."""
    host, slash, bits = text.partition("/")
    ip = _address(host, offset, text)
    width = len(ip) * 8
    if not slash:
        return InterfaceAddress(ip, width)
    if not re.fullmatch(r"[0-9]+", bits) or _decimal(bits) > width:
        mask = _netmask(bits) if width == 32 else None
        better = () if mask is None else (str(Prefix.masked(ip, mask)),)
        fix = f"write a number from 0 to {width} after the /"
        raise BadValue("not a prefix length", fix, offset + len(host) + 1, text, better)
    return InterfaceAddress(ip, _decimal(bits))


def words(text: str) -> tuple[str, ...]:
    return tuple(item for _, item in items(text))


def command(text: str) -> tuple[str, ...]:
    """A shell command; an empty one does nothing."""
    return (text,) if text else ()
