"""One UDP payload and where it came from or goes to."""

from typing import NamedTuple

from wgpy.protocol.endpoint import Endpoint


class Datagram(NamedTuple):
    """`data` is the UDP payload; `endpoint` the remote address (source or destination)."""

    data: bytes | bytearray | memoryview
    endpoint: Endpoint
