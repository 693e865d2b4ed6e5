"""What the targets behind a pair of namespaces share.

The target has two addresses per family, the tester eight; each instance has a UDP port of
its own, and the tester's ports are sockets in its namespace.
"""

from __future__ import annotations

import os
from typing import ClassVar

from wgspec.netns import Pair
from wgspec.rights import again_as_root
from wgspec.target import Address, Instance, Port, RealTimeInstance, Target, Unavailable
from wgspec.targets.udp import UdpPort

FIRST_PORT = 20000


class PairInstance(RealTimeInstance):
    """One instance of a target that lives in (or behind) the pair's target namespace."""

    def __init__(self, target: PairTarget, private_key: bytes, number: int) -> None:
        super().__init__(target, private_key)
        self.pair = target.pair
        self.port = FIRST_PORT + number

    async def start(self) -> None:
        """Start it; raises `Unavailable`.  `stop` frees what a failed start left."""
        raise NotImplementedError

    def address(self, family: int = 4) -> Address:
        return Address(self.pair.target4 if family == 4 else self.pair.target6, self.port)

    def alias(self, family: int = 4) -> Address:
        return Address(self.pair.alias4 if family == 4 else self.pair.alias6, self.port)

    async def open_port(self, *, host: int = 0, family: int = 4, port: int = 0) -> Port:
        return UdpPort(self, self.pair.udp_socket(self.pair.host(host, family), port, family))

    @property
    def hosts(self) -> int:
        return self.pair.hosts


class PairTarget(Target):
    """Makes the pair, and numbers the instances."""

    needs_root: ClassVar = "network namespaces need root"

    def __init__(self, pair: Pair | None = None) -> None:
        self.pair = pair or Pair()
        self._count = 0

    def make_instance(self, private_key: bytes, number: int) -> PairInstance:
        """An instance that is not started yet."""
        raise NotImplementedError

    async def prepare(self) -> None:
        """Look for what the target needs, before namespaces are made; raises `Unavailable`."""

    async def begin(self) -> None:
        """Start what all instances share, inside the namespaces; raises `Unavailable`."""

    async def open(self) -> None:
        if os.geteuid() != 0:
            raise Unavailable(f"{self.needs_root} (try `{again_as_root()}`)")
        await self.prepare()
        self.pair.open()
        try:
            await self.begin()
        except BaseException:
            await self.close()
            raise

    async def create(self, private_key: bytes) -> Instance:
        self._count += 1
        instance = self.make_instance(private_key, self._count)
        try:
            await instance.start()
        except BaseException:
            await instance.stop()
            raise
        return instance

    async def close(self) -> None:
        self.pair.close()
