"""From a captured frame to the UDP datagram in it, through all layers between.

`headers` takes the same way for every IP header on it, those that ICMP errors quote included.

Frames that are not read are counted with their reason, so that they do not go unnoticed.
Memory is bounded whatever the file says.
"""

from __future__ import annotations

import struct
from collections import Counter
from typing import Final, NamedTuple

from wgpy.capture.fragments import Fragments, Part
from wgpy.capture.frames import Frame
from wgpy.capture.layers import (
    ETHERNET_FRAME,
    GRE,
    IPV4,
    IPV6,
    LAYERS,
    MPLS,
    NOTHING,
    UDP_TUNNELS,
    Unread,
    unknown,
)
from wgpy.capture.link import Udp, network_layer
from wgpy.protocol.endpoint import Endpoint

MAX_LAYERS: Final = 16
_UDP, _FRAGMENT, _AH, _ETHER_IP = 17, 44, 51, 97
_EXTENSIONS: Final = (0, 43, 60, 135)
_INNER: Final = {4: IPV4, 41: IPV6, 47: GRE, _ETHER_IP: ETHERNET_FRAME, 137: MPLS}
"""IP protocols that hold another packet: IPIP, 6in4, GRE, EtherIP, MPLS in IP."""
_CARRIERS: Final = {50: "ESP (IPsec)", 108: "IPComp", 115: "L2TPv3"}
_MAX_ENDPOINTS: Final = 1 << 16
_IPV4_HEAD = struct.Struct("!BxHHHxB2x4s4s")
_UDP_HEAD = struct.Struct("!HHH")
CUT: Final = "cut by the capture before the UDP payload"
BROKEN: Final = "broken headers"


_QUOTED: Final = {
    1: (IPV4, frozenset((3, 4, 5, 11, 12))),
    58: (IPV6, frozenset((*range(128), 137))),
}
"""ICMP protocol: what its errors (RFC 792; RFC 4443 §2.1, and redirects) quote, their types."""
_ICMP_HEADER, _REDIRECT6, _REDIRECT6_HEADER = 8, 137, 40


class Header(NamedTuple):
    """An IP header: packed addresses, the protocol behind all extension headers, and how it
    was met: `quoted` by an ICMP error, at `depth` 0 for the outermost.
    """

    source: bytes
    destination: bytes
    protocol: int
    depth: int
    quoted: bool


_Walk = tuple[int, int, bytes]
"""The next layer, its place, and the bytes that hold it."""
_END: Final[_Walk] = (NOTHING, 0, b"")


class Dissector:
    """Takes frames in order, gives UDP datagrams; `unread` counts the other frames that matter."""

    def __init__(self) -> None:
        self._unread: Counter[str] = Counter()
        self._fragments = Fragments()
        self._endpoints: dict[tuple[bytes, int], Endpoint] = {}
        self._headers: list[Header] | None = None
        self._quoted = False
        self._reason = ""

    @property
    def unread(self) -> dict[str, int]:
        """Reasons why frames were not read, with their counts; most frequent first."""
        counts = dict(self._unread.most_common())
        if waiting := self._fragments.waiting:
            counts["IP fragments whose other parts are missing"] = waiting
        return counts

    def headers(self, frame: Frame) -> tuple[list[Header], str]:
        """Every IP header in this frame, or in the packet that it completes, outermost first;
        and why the walk ended before the end (empty when it did not).
        """
        found: list[Header] = []
        self._headers, self._quoted, self._reason = found, False, ""
        try:
            self.datagram(frame)
        finally:
            self._headers = None
        return found, self._reason

    def datagram(self, frame: Frame) -> Udp | None:
        """The UDP datagram in this frame, or completed by it; None when there is none."""
        data = frame.data
        try:
            layer, place = network_layer(frame.link_type, data)
            for _ in range(MAX_LAYERS):
                if layer in (IPV4, IPV6):
                    found = (self._ipv4 if layer == IPV4 else self._ipv6)(data, place)
                    if isinstance(found, Udp):
                        return found
                    layer, place, data = found
                elif layer == NOTHING:
                    return None
                elif step := LAYERS.get(layer):
                    layer, place = step(data, place)
                else:
                    unknown(layer)
                    return None
            raise Unread(f"more than {MAX_LAYERS} layers")
        except Unread as reason:
            self._reason = str(reason)
            self._unread[self._reason] += 1
        except (struct.error, IndexError):
            self._reason = CUT if len(frame.data) < frame.original_size else BROKEN
            self._unread[self._reason] += 1
        return None

    def _ipv4(self, data: bytes, place: int) -> Udp | _Walk:
        first, total, identity, fragment, protocol, source, destination = _IPV4_HEAD.unpack_from(
            data, place
        )
        header = (first & 15) * 4
        if first >> 4 != 4 or header < 20 or 0 < total < header:
            raise IndexError
        self._note(source, destination, protocol)
        # A capture on the sending host may see length 0 where the card was to segment.
        end = place + total if total else len(data)
        place += header
        if fragment & 0x3FFF:
            part = Part(
                (fragment & 0x1FFF) * 8, end - place, bool(fragment & 0x2000), data[place:end]
            )
            whole = self._fragments.join((source, destination, identity), part)
            if whole is None:
                return _END
            (data, end), place = whole, 0
        return self._transport(data, place, end, protocol, source, destination)

    def _ipv6(self, data: bytes, place: int) -> Udp | _Walk:
        if data[place] >> 4 != 6:
            raise IndexError
        size, following = struct.unpack_from("!HB", data, place + 4)
        source, destination = data[place + 8 : place + 24], data[place + 24 : place + 40]
        place += 40
        end = place + size if size else len(data)
        self._note(source, destination, following)
        while following in _EXTENSIONS or following == _FRAGMENT:
            if following == _FRAGMENT:
                following, fragment, identity = struct.unpack_from("!BxHI", data, place)
                place += 8
                if fragment & 0xFFF9:
                    part = Part(fragment & 0xFFF8, end - place, bool(fragment & 1), data[place:end])
                    whole = self._fragments.join((source, destination, identity), part)
                    if whole is None:
                        return _END
                    (data, end), place = whole, 0
            else:
                following, words = data[place], data[place + 1]
                place += 8 + words * 8
            self._note(source, destination, following, again=True)
        return self._transport(data, place, end, following, source, destination)

    def _transport(
        self, data: bytes, place: int, end: int, protocol: int, source: bytes, destination: bytes
    ) -> Udp | _Walk:
        """UDP, or the packet inside this one; `end` is where the packet ends by its header."""
        if protocol == _AH:
            protocol, words = data[place], data[place + 1]
            place += 4 * (words + 2)
        if protocol != _UDP:
            if self._headers is not None and protocol in _QUOTED:
                return self._quote(data, place, protocol)
            if protocol in _CARRIERS:
                raise Unread(_CARRIERS[protocol])
            inside = place + 2 if protocol == _ETHER_IP else place
            return _INNER.get(protocol, NOTHING), inside, data
        from_port, to_port, size = _UDP_HEAD.unpack_from(data, place)
        stop = place + size if size else end
        if stop > end or stop < place + 8:
            raise IndexError
        place += 8
        tunnel = UDP_TUNNELS.get(to_port)
        if tunnel is not None and stop >= place + 16:
            layer, inside = tunnel(data, place)
            if layer != NOTHING:
                return layer, inside, data
        payload = data[place:stop]
        if not payload and stop > place:
            raise IndexError
        return Udp(
            self._endpoint(source, from_port),
            self._endpoint(destination, to_port),
            payload,
            stop - place - len(payload),
        )

    def _note(self, source: bytes, destination: bytes, protocol: int, again: bool = False) -> None:
        """An IP header on the way; `again`: the same, one extension header further."""
        if self._headers is None:
            return
        if again:
            self._headers[-1] = self._headers[-1]._replace(protocol=protocol)
            return
        depth = len(self._headers)
        self._headers.append(Header(source, destination, protocol, depth, self._quoted))

    def _quote(self, data: bytes, place: int, protocol: int) -> _Walk:
        """What an ICMP error is about; nothing for other messages."""
        layer, errors = _QUOTED[protocol]
        if data[place] not in errors:
            return _END
        self._quoted = True
        if (protocol, data[place]) != (58, _REDIRECT6):
            return layer, place + _ICMP_HEADER, data
        # RFC 4861 §8.3: options behind 40 bytes, one of which holds the packet.
        at = place + _REDIRECT6_HEADER
        while at + 8 <= len(data) and data[at + 1]:
            if data[at] == 4:
                return layer, at + 8, data
            at += 8 * data[at + 1]
        return _END

    def _endpoint(self, ip: bytes, port: int) -> Endpoint:
        """The same object for the same place: made once, compared fast."""
        known = self._endpoints.get((ip, port))
        if known is None:
            if len(self._endpoints) >= _MAX_ENDPOINTS:
                self._endpoints.clear()
            known = self._endpoints[ip, port] = Endpoint(ip, port)
        return known
