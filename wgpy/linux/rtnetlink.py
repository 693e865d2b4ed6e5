"""rtnetlink by hand (rtnetlink(7)), for the few things that a running interface asks.

The start of the program must not wait for a netlink library; addresses and routes that
`wgpy up` sets are `wgpy.linux.netlink`'s.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from typing import Final

RTM_NEWLINK: Final = 16
RTM_SETLINK: Final = 19
RTM_NEWADDR: Final = 20
RTM_DELADDR: Final = 21
RTM_GETADDR: Final = 22
RTM_GETROUTE: Final = 26
RTM_NEWNSID: Final = 88
NLM_F_REQUEST: Final = 1
NLM_F_ACK: Final = 4
NLM_F_DUMP: Final = 0x300

NLMSG_ERROR: Final = 2
NLMSG_DONE: Final = 3
_HEADER: Final = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_ATTRIBUTE: Final = struct.Struct("=HH")  # length, type
_ERROR: Final = struct.Struct("=i")
_ALIGN: Final = 4
_LARGEST: Final = 1 << 16

LINK: Final = struct.Struct("=BxHiII")
"""ifinfomsg: family, type, index, flags, change."""


def opened(groups: int = 0) -> socket.socket:
    """A socket of this thread's network namespace, in multicast groups (a mask of RTMGRP)."""
    made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
    made.bind((0, groups))
    return made


def attribute(kind: int, data: bytes) -> bytes:
    """One attribute, padded."""
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(data), kind) + data + bytes(-len(data) % _ALIGN)


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The attributes that follow a fixed header: type and contents."""
    at = 0
    while at + _ATTRIBUTE.size <= len(data):
        size, kind = _ATTRIBUTE.unpack_from(data, at)
        if size < _ATTRIBUTE.size:
            return
        yield kind, data[at + _ATTRIBUTE.size : at + size]
        at += size + _ALIGN - 1 & -_ALIGN


def ask(asked: socket.socket, kind: int, body: bytes, flags: int = NLM_F_ACK) -> list[bytes]:
    """Send one request and return the bodies of its answers; raises OSError if refused.

    `flags` are NLM_F_ACK for a change, NLM_F_DUMP for a list, 0 for one answer.
    """
    size = _HEADER.size + len(body)
    asked.send(_HEADER.pack(size, kind, NLM_F_REQUEST | flags, 1, 0) + body)
    answers: list[bytes] = []
    while True:
        data, at = asked.recv(_LARGEST), 0
        while at + _HEADER.size <= len(data):
            size, kind, *_ = _HEADER.unpack_from(data, at)
            content = data[at + _HEADER.size : at + size]
            at += size + _ALIGN - 1 & -_ALIGN
            if kind == NLMSG_ERROR:
                (error,) = _ERROR.unpack_from(content)
                if error:
                    raise OSError(-error, os.strerror(-error))
                return answers
            if kind == NLMSG_DONE:
                return answers
            answers.append(content)
        if not flags:
            return answers


def change(kind: int, body: bytes) -> None:
    """Ask for one change in this thread's network namespace; raises OSError."""
    with opened() as asked:
        ask(asked, kind, body)
