"""What the data plane gives up: it reads packets of anybody, and began as root.

Before anything is opened (`harden`): no core file, no program that is started gains rights,
and the limit of open files is as high as it may be.  Once TUN device and sockets are open
(`give_up_rights`) all capabilities go, for good, but those of `KEPT`, and neither core files
nor debuggers of other processes see the keys that come then.  Both act on the calling thread
and on what it starts.

Each kept one, with what would fail without it:

* CAP_NET_ADMIN: SO_MARK and large buffers of the sockets that a new port brings,
* CAP_NET_BIND_SERVICE: a port below 1024,
* CAP_SYS_ADMIN: following the device into another network namespace (setns),
* CAP_DAC_OVERRIDE: a capture into a folder that is not root's.

The user stays root, who owns the folder of the sockets: a defect could still write what
root's files allow.  What keeps it from that is the unit (docs/linux.md, "Rights").
"""

from __future__ import annotations

import ctypes
import os
import resource
import struct
from collections.abc import Iterable
from typing import Final

PR_CAPBSET_READ: Final = 23
PR_CAPBSET_DROP: Final = 24
PR_SET_DUMPABLE: Final = 4
PR_SET_NO_NEW_PRIVS: Final = 38
PR_CAP_AMBIENT: Final = 47
PR_CAP_AMBIENT_CLEAR_ALL: Final = 4
CAPABILITY_VERSION_3: Final = 0x20080522

KEPT: Final = {
    "CAP_DAC_OVERRIDE": 1,
    "CAP_NET_BIND_SERVICE": 10,
    "CAP_NET_ADMIN": 12,
    "CAP_SYS_ADMIN": 21,
}
"""Name and number, capabilities(7)."""

FILES_NEEDED: Final = 64
"""Descriptors of an interface that some programs talk to."""

_HEADER: Final = struct.Struct("=Ii")
_SETS: Final = struct.Struct("=6I")
"""Effective, permitted, inheritable: their lower, then their upper 32 bits."""

_libc: Final = ctypes.CDLL(None, use_errno=True)


class TooFewFiles(Exception):
    """The limit of open files is too low to work with; the text says which, and the fix."""


def harden() -> None:
    """See the module; raises `TooFewFiles`."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    _prctl(PR_SET_NO_NEW_PRIVS, 1)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard != resource.RLIM_INFINITY and hard < FILES_NEEDED:
        raise TooFewFiles(
            f"this process may have {hard} files open (RLIMIT_NOFILE), and needs {FILES_NEEDED}:"
            f" try `ulimit -n 1024`, or LimitNOFILE=1024 in a unit"
        )


def give_up_rights(kept: Iterable[int] = tuple(KEPT.values())) -> None:
    """Keep these of the capabilities that there are, and be seen by nobody; raises OSError.

    What is not had is not gained.  The bounding set goes too, where this may be done.
    """
    wanted = sum(1 << number for number in kept)
    header = ctypes.create_string_buffer(_HEADER.pack(CAPABILITY_VERSION_3, 0))
    data = ctypes.create_string_buffer(_SETS.size)
    if _libc.capget(header, data) != 0:
        raise _error()
    number = 0
    while (found := _libc.prctl(PR_CAPBSET_READ, number, 0, 0, 0)) >= 0:
        if found and not wanted >> number & 1:
            _libc.prctl(PR_CAPBSET_DROP, number, 0, 0, 0)  # Needs CAP_SETPCAP.
        number += 1
    _libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    low, high = wanted & 0xFFFFFFFF, wanted >> 32
    sets = _SETS.unpack(data.raw[: _SETS.size])
    masks = (low, low, 0, high, high, 0)
    left = _SETS.pack(*(had & mask for had, mask in zip(sets, masks, strict=True)))
    if _libc.capset(header, ctypes.create_string_buffer(left, _SETS.size)) != 0:
        raise _error()
    _prctl(PR_SET_DUMPABLE, 0)  # Last: it takes much of /proc from us, too.


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, value, 0, 0, 0) != 0:
        raise _error()


def _error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))
