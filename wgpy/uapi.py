"""The userspace configuration protocol ("UAPI") that `wg` speaks, as text and values.

Specified on https://www.wireguard.com/xplatform/; what that page leaves open follows
what `wg` and wireguard-go do.  Server side: `RequestReader` cuts a byte stream into
requests, `respond` answers one.  Client side: `format_set`, `parse_get`.

Invariants: a request is parsed whole before anything of it is applied; every refusal is
a `UapiError` (or, for a client, the `UapiError` of the server's errno);
no secret appears in an explanation.  Sockets are left to `wgpy.linux`.

Sign of errno, so that `wg` prints the right words: negative in replies to ``set``,
positive in replies to ``get``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from errno import EINVAL, EIO, EPROTO
from typing import Any, Final, NamedTuple, NoReturn, TypeVar

from wgpy.protocol.constants import NS
from wgpy.protocol.drops import DropReason
from wgpy.protocol.endpoint import Endpoint, Prefix, ZoneIndex, no_zone_names
from wgpy.protocol.keys import NO_PRESHARED_KEY, Key, PresharedKey, PrivateKey, PublicKey
from wgpy.protocol.settings import (
    AllowedIp,
    DeviceChange,
    DeviceSnapshot,
    PeerChange,
    PeerSnapshot,
)
from wgpy.protocol.timers import Deadline

GET: Final = "get=1\n\n"
"""The standard request, answered with standard keys only."""
GET_EXTENDED: Final = "get=1\nwgpy=1\n\n"
"""The request whose answer also has the keys that begin with ``wgpy_``."""

MAX_REQUEST_SIZE: Final = 64 << 20
"""Bytes; 130,560 allowed IPs take 6 MB."""

_K = TypeVar("_K", bound=Key)


class UapiError(Exception):
    """A request or reply that is refused.

    `errno` is positive; `line` counts from 1 (0: no line in particular); `key` is empty
    where there is none.
    """

    def __init__(self, errno: int, line: int, key: str, explanation: str) -> None:
        super().__init__(errno, line, key, explanation)
        self.errno = errno
        self.line = line
        self.key = key
        self.explanation = explanation

    def __str__(self) -> str:
        where = f"line {self.line}: " if self.line else ""
        what = f"{self.key}: " if self.key else ""
        return f"{where}{what}{self.explanation}"


class _BadValue(ValueError):
    """A value is refused; the parse loop adds line and key."""


# --- values ---------------------------------------------------------------------------


def _number(value: str, maximum: int) -> int:
    if value.isascii() and value.isdigit() and len(value) <= 20:
        number = int(value)
        if number <= maximum:
            return number
    raise _BadValue(f"not a number from 0 to {maximum}: {value[:40]!r}")


def _flag(value: str) -> bool:
    if value != "true":
        raise _BadValue(f"the only value is 'true', not {value[:40]!r}")
    return True


def _key(kind: type[_K], value: str) -> _K:
    try:
        return kind.from_hex(value)
    except ValueError:
        raise _BadValue(f"not a key: 64 hex digits wanted ({len(value)} characters)") from None


def _prefix(value: str) -> Prefix:
    if "/" not in value:
        raise _BadValue(f"a prefix is written IP/LENGTH: {value[:60]!r}")
    return Prefix.parse(value)


def _allowed_ip(value: str) -> AllowedIp:
    if value[:1] == "-":
        return AllowedIp(_prefix(value[1:]), True)
    return AllowedIp(_prefix(value))


def _protocol_version(value: str) -> None:
    if value != "1":
        raise _BadValue(f"the only protocol version is 1, not {value[:40]!r}")


# --- parsing a set --------------------------------------------------------------------

_DEVICE_KEYS: Final[dict[str, tuple[str, Callable[[str], Any]]]] = {
    "private_key": ("private_key", lambda value: _key(PrivateKey, value)),
    "listen_port": ("listen_port", lambda value: _number(value, 65535)),
    "fwmark": ("fwmark", lambda value: _number(value, 2**32 - 1)),
    "replace_peers": ("replace_peers", _flag),
}
_PEER_KEYS: Final[dict[str, tuple[str, Callable[[str], Any]]]] = {
    "remove": ("remove", _flag),
    "update_only": ("update_only", _flag),
    "preshared_key": ("preshared_key", lambda value: _key(PresharedKey, value)),
    "persistent_keepalive_interval": (
        "persistent_keepalive",
        lambda value: _number(value, 65535),
    ),
    "replace_allowed_ips": ("replace_allowed_ips", _flag),
}


class _SetParser:
    """Collects one message; nothing leaves it before `finish`."""

    def __init__(self, zone: ZoneIndex) -> None:
        self._zone = zone
        self.device: dict[str, Any] = {}
        self.peer: dict[str, Any] | None = None
        self.allowed_ips: list[AllowedIp] = []
        self.peers: list[PeerChange] = []

    def take(self, key: str, value: str) -> None:
        if key == "allowed_ip" and self.peer is not None:
            self.allowed_ips.append(_allowed_ip(value))
        elif key == "public_key":
            self._open_peer(_key(PublicKey, value))
        elif key == "protocol_version" and self.peer is not None:
            _protocol_version(value)
        elif key == "endpoint" and self.peer is not None:
            self.peer["endpoint"] = Endpoint.parse(value, self._zone)
        elif self.peer is not None and key in _PEER_KEYS:
            name, parse = _PEER_KEYS[key]
            self.peer[name] = parse(value)
        elif self.peer is None and key in _DEVICE_KEYS:
            name, parse = _DEVICE_KEYS[key]
            self.device[name] = parse(value)
        else:
            self._refuse(key)

    def _refuse(self, key: str) -> NoReturn:
        if key in _DEVICE_KEYS:
            raise _BadValue("a key of the device, but a public_key line came before it")
        if key in _PEER_KEYS or key in ("allowed_ip", "endpoint", "protocol_version"):
            raise _BadValue("a key of a peer, but no public_key line came before it")
        raise _BadValue("no such key")

    def _open_peer(self, public_key: PublicKey) -> None:
        self._close_peer()
        self.peer = {"public_key": public_key}

    def _close_peer(self) -> None:
        if self.peer is not None:
            self.peers.append(PeerChange(**self.peer, allowed_ips=tuple(self.allowed_ips)))
            self.peer = None
            self.allowed_ips = []

    def finish(self) -> DeviceChange:
        self._close_peer()
        return DeviceChange(**self.device, peers=tuple(self.peers))


def parse_set(message: str | Iterable[str], *, zone: ZoneIndex = no_zone_names) -> DeviceChange:
    """The change that a ``set`` asks for, up to the first blank line after its start.

    `message` is text or lines, with or without the leading ``set=1``; `zone` finds the
    interface that an endpoint's zone names.  Raises `UapiError`: EPROTO for a line without
    ``=``, EINVAL for an unknown key or bad value.
    """
    parser = _SetParser(zone)
    take = parser.take
    for number, key, value in _pairs(message):
        if number == 1 and key == "set":
            if value != "1":
                raise UapiError(EPROTO, 1, key, "the operation is written set=1")
            continue
        try:
            take(key, value)
        except ValueError as error:
            raise UapiError(EINVAL, number, key, str(error)[:200]) from None
    return parser.finish()


def _pairs(message: str | Iterable[str]) -> Iterator[tuple[int, str, str]]:
    lines = message.split("\n") if isinstance(message, str) else message
    for number, line in enumerate(lines, 1):
        line = line.removesuffix("\n")
        if not line:
            return
        key, equals, value = line.partition("=")
        if not (equals and key):
            raise UapiError(EPROTO, number, "", "a line is written key=value")
        yield number, key, value


# --- serving --------------------------------------------------------------------------


class RequestReader:
    """Cuts the bytes of one connection into requests, each ended by a blank line.

    A connection without a byte, which `wg` makes to probe a socket, has no request; one
    that ends inside a request never yields it, so that a half message changes nothing.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._searched = 0

    def feed(self, data: bytes) -> list[str]:
        """Requests that `data` completes, each without its blank line.

        Raises `UapiError` when a request outgrows `MAX_REQUEST_SIZE`: answer and close.
        """
        self._buffer += data
        requests = []
        while True:
            if not self._searched:
                self._skip_blank_lines()
            end = self._buffer.find(b"\n\n", self._searched)
            if end < 0:
                break
            requests.append(self._buffer[: end + 1].decode(errors="replace"))
            del self._buffer[: end + 2]
            self._searched = 0
        self._searched = max(0, len(self._buffer) - 1)
        if len(self._buffer) > MAX_REQUEST_SIZE:
            self._buffer.clear()
            raise UapiError(EPROTO, 0, "", f"a request has at most {MAX_REQUEST_SIZE} bytes")
        return requests

    def _skip_blank_lines(self) -> None:
        blank = len(self._buffer) - len(self._buffer.lstrip(b"\n"))
        del self._buffer[:blank]

    @property
    def pending(self) -> bool:
        """Whether the connection would end inside a request if it ended now."""
        return bool(self._buffer)


class Reply(NamedTuple):
    """`text` to send; `error` is why a request was refused, for the log."""

    text: str
    error: UapiError | None = None


def respond(
    request: str,
    *,
    snapshot: Callable[[], DeviceSnapshot],
    apply: Callable[[DeviceChange], None],
    now: Callable[[], int],
    zone: ZoneIndex = no_zone_names,
) -> Reply:
    """Answer one request of `RequestReader`.

    `apply` may refuse with an OSError (a port in use), whose errno goes to the client;
    `now` is the engine's time in ns, asked only for the extended ``get``; `zone` as in
    `parse_set`.
    """
    lines = request.rstrip("\n").split("\n")
    if lines[0] == "get=1":
        if lines[1:] not in ([], ["wgpy=1"]):
            error = UapiError(EPROTO, 2, "", "nothing follows get=1 but the extension wgpy=1")
            return Reply(f"errno={EPROTO}\n\n", error)
        return Reply(format_get(snapshot(), now=now() if len(lines) > 1 else None))
    if lines[0] != "set=1":
        error = UapiError(EPROTO, 1, "", "an operation is get=1 or set=1")
        return Reply(format_set_reply(EPROTO), error)
    try:
        apply(parse_set(lines, zone=zone))
    except UapiError as error:
        return Reply(format_set_reply(error.errno), error)
    except OSError as error:
        number = error.errno or EIO
        return Reply(format_set_reply(number), UapiError(number, 0, "", str(error)))
    return Reply(format_set_reply(0))


def format_set_reply(errno: int) -> str:
    """The answer to a ``set``: 0 is success, the sign of any other number is made negative."""
    return f"errno={-abs(errno)}\n\n"


def format_get(device: DeviceSnapshot, *, now: int | None = None) -> str:
    """The answer to a ``get``.  `now` (engine's ns) adds the keys of the extension."""
    lines = []
    if device.private_key is not None:
        lines.append(f"private_key={device.private_key.hex()}")
    lines.append(f"listen_port={device.listen_port}")
    if device.fwmark:
        lines.append(f"fwmark={device.fwmark}")
    if now is not None:
        lines += _extension(device, now)
    for peer in device.peers:
        lines += _peer_lines(peer)
        if now is not None:
            lines += _extension(peer, now)
            if peer.handshake_at is not None:
                lines.append(f"wgpy_handshake_age={max(0, now - peer.handshake_at)}")
    lines.append("errno=0\n\n")
    return "\n".join(lines)


def _peer_lines(peer: PeerSnapshot) -> Iterator[str]:
    seconds, nanoseconds = divmod(peer.latest_handshake, NS)
    yield f"public_key={peer.public_key.hex()}"
    yield f"preshared_key={peer.preshared_key.hex()}"
    yield "protocol_version=1"
    if peer.endpoint is not None:
        yield f"endpoint={peer.endpoint}"
    yield f"last_handshake_time_sec={seconds}"
    yield f"last_handshake_time_nsec={nanoseconds}"
    yield f"tx_bytes={peer.tx_bytes}"
    yield f"rx_bytes={peer.rx_bytes}"
    yield f"persistent_keepalive_interval={peer.persistent_keepalive}"
    for prefix in peer.allowed_ips:
        yield f"allowed_ip={prefix}"


def _extension(of: DeviceSnapshot | PeerSnapshot, now: int) -> Iterator[str]:
    if of.deadline is not None:
        reason = " ".join(of.deadline.reason.split())
        yield f"wgpy_deadline={max(0, of.deadline.at - now)} {reason}"
    for drop, count in of.drops.items():
        if count:
            yield f"wgpy_drops={count} {drop.name}"


# --- asking ---------------------------------------------------------------------------


def format_set(change: DeviceChange) -> str:
    """The request that asks for `change`, with its ``set=1`` and blank line."""
    lines = ["set=1"]
    if change.private_key is not None:
        lines.append(f"private_key={change.private_key.hex()}")
    if change.listen_port is not None:
        lines.append(f"listen_port={change.listen_port}")
    if change.fwmark is not None:
        lines.append(f"fwmark={change.fwmark}")
    if change.replace_peers:
        lines.append("replace_peers=true")
    for peer in change.peers:
        lines += _peer_change_lines(peer)
    return "\n".join(lines) + "\n\n"


def _peer_change_lines(peer: PeerChange) -> Iterator[str]:
    yield f"public_key={peer.public_key.hex()}"
    if peer.remove:
        yield "remove=true"
    if peer.update_only:
        yield "update_only=true"
    if peer.preshared_key is not None:
        yield f"preshared_key={peer.preshared_key.hex()}"
    if peer.endpoint is not None:
        yield f"endpoint={peer.endpoint}"
    if peer.persistent_keepalive is not None:
        yield f"persistent_keepalive_interval={peer.persistent_keepalive}"
    if peer.replace_allowed_ips:
        yield "replace_allowed_ips=true"
    for allowed in peer.allowed_ips:
        yield f"allowed_ip={'-' if allowed.remove else ''}{allowed.prefix}"


def parse_set_reply(text: str) -> None:
    """Raises `UapiError` with the errno that the answer to a ``set`` carries, if not 0."""
    for number, key, value in _pairs(text):
        if key == "errno":
            return _check_errno(number, value)
    raise UapiError(EPROTO, 0, "errno", "the reply has no errno line")


def _check_errno(line: int, value: str) -> None:
    digits = value.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) < 10):
        raise UapiError(EPROTO, line, "errno", f"not a number: {value[:40]!r}")
    if int(digits):
        raise UapiError(int(digits), line, "", os.strerror(int(digits)))


class _GetParser:
    """Collects one reply; keys of other implementations that it does not know are ignored."""

    def __init__(self, zone: ZoneIndex) -> None:
        self._zone = zone
        self.device: dict[str, Any] = {"listen_port": 0, "fwmark": 0}
        self.device_drops: dict[DropReason, int] = {}
        self.peers: list[PeerSnapshot] = []
        self.peer: dict[str, Any] | None = None

    def take(self, key: str, value: str) -> None:
        if key == "allowed_ip" and self.peer is not None:
            self.peer["allowed_ips"].append(_prefix(value))
        elif key == "public_key":
            self._close_peer()
            self.peer = {
                "public_key": _key(PublicKey, value),
                "allowed_ips": [],
                "seconds": 0,
                "nanoseconds": 0,
                "drops": {},
            }
        elif key in ("wgpy_deadline", "wgpy_drops"):
            self._take_extension(key, value)
        elif self.peer is None:
            self._take_device(key, value)
        else:
            self._take_peer(self.peer, key, value)

    def _take_device(self, key: str, value: str) -> None:
        if key in ("private_key", "listen_port", "fwmark"):
            name, parse = _DEVICE_KEYS[key]
            self.device[name] = parse(value)
        elif key == "own_public_key":
            self.device["public_key"] = _key(PublicKey, value)

    def _take_peer(self, peer: dict[str, Any], key: str, value: str) -> None:
        if key == "endpoint":
            peer[key] = Endpoint.parse(value, self._zone)
        elif key in ("preshared_key", "persistent_keepalive_interval"):
            name, parse = _PEER_KEYS[key]
            peer[name] = parse(value)
        elif key in ("rx_bytes", "tx_bytes"):
            peer[key] = _number(value, 2**64 - 1)
        elif key == "last_handshake_time_sec":
            peer["seconds"] = _number(value, 2**63 - 1)
        elif key == "last_handshake_time_nsec":
            peer["nanoseconds"] = _number(value, NS - 1)
        elif key == "wgpy_handshake_age":
            peer["handshake_at"] = -_number(value, 2**63 - 1)

    def _take_extension(self, key: str, value: str) -> None:
        number, _, word = value.partition(" ")
        amount = _number(number, 2**64 - 1)
        of = self.device if self.peer is None else self.peer
        if key == "wgpy_deadline":
            of["deadline"] = Deadline(amount, word)
        elif word in DropReason.__members__:
            drops = self.device_drops if self.peer is None else self.peer["drops"]
            drops[DropReason[word]] = amount

    def _close_peer(self) -> None:
        if self.peer is None:
            return
        seconds, nanoseconds = self.peer.pop("seconds"), self.peer.pop("nanoseconds")
        defaults = {
            "preshared_key": NO_PRESHARED_KEY,
            "endpoint": None,
            "persistent_keepalive": 0,
            "rx_bytes": 0,
            "tx_bytes": 0,
        }
        fields = defaults | self.peer
        fields["allowed_ips"] = tuple(fields["allowed_ips"])
        self.peers.append(PeerSnapshot(**fields, latest_handshake=seconds * NS + nanoseconds))
        self.peer = None

    def finish(self) -> DeviceSnapshot:
        self._close_peer()
        fields = {"private_key": None, "public_key": None} | self.device
        if fields["private_key"] is not None and fields["private_key"].is_zero:
            fields["private_key"] = None
        return DeviceSnapshot(**fields, peers=tuple(self.peers), drops=self.device_drops)


def parse_get(text: str, *, zone: ZoneIndex = no_zone_names) -> DeviceSnapshot:
    """The device that the answer to a ``get`` describes, of any implementation.

    `DeviceSnapshot.public_key` is None unless the answer carries it (derive it from the
    private key); `Deadline.at` and `handshake_at` count from the moment of the answer.  `zone`
    is as in `parse_set`.  Raises `UapiError` for a malformed answer (EPROTO) and for the errno
    of a refusal.
    """
    parser = _GetParser(zone)
    for number, key, value in _pairs(text):
        if key == "errno":
            _check_errno(number, value)
            return parser.finish()
        try:
            parser.take(key, value)
        except ValueError as error:
            raise UapiError(EPROTO, number, key, str(error)[:200]) from None
    raise UapiError(EPROTO, 0, "errno", "the reply ends without an errno line")
