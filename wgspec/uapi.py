"""A client for the cross-platform configuration protocol (https://www.wireguard.com/xplatform/)."""

from __future__ import annotations

import asyncio
import ipaddress
from pathlib import Path

from wgspec.target import Address, DeviceConfig, DeviceState, PeerConfig, PeerState, Rejected

DIRECTORY = Path("/var/run/wireguard")
Lines = list[tuple[str, str]]


def _peer_lines(peer: PeerConfig) -> list[str]:
    out = [f"public_key={peer.public_key.hex()}"]
    if peer.remove:
        out.append("remove=true")
    if peer.update_only:
        out.append("update_only=true")
    if peer.preshared_key is not None:
        out.append(f"preshared_key={peer.preshared_key.hex()}")
    if peer.endpoint is not None:
        out.append(f"endpoint={peer.endpoint}")
    if peer.keepalive is not None:
        out.append(f"persistent_keepalive_interval={peer.keepalive}")
    if peer.allowed_ips is not None:
        if not peer.add_allowed_ips:
            out.append("replace_allowed_ips=true")
        out += [f"allowed_ip={entry}" for entry in peer.allowed_ips]
    return out


def encode(change: DeviceConfig) -> str:
    """The text of a `set` operation."""
    out = ["set=1"]
    if change.private_key is not None:
        out.append(f"private_key={change.private_key.hex()}")
    if change.listen_port is not None:
        out.append(f"listen_port={change.listen_port}")
    if change.fwmark is not None:
        out.append(f"fwmark={change.fwmark}")
    if change.replace_peers:
        out.append("replace_peers=true")
    for peer in change.peers:
        out += _peer_lines(peer)
    return "\n".join(out) + "\n\n"


def parse_address(text: str) -> Address:
    """`1.2.3.4:5` or `[::1]:5`."""
    host, _, port = text.rpartition(":")
    return Address(str(ipaddress.ip_address(host.strip("[]").partition("%")[0])), int(port))


def _peer_state(lines: Lines) -> PeerState:
    values = dict(lines)
    endpoint = values.get("endpoint")
    return PeerState(
        public_key=bytes.fromhex(values["public_key"]),
        endpoint=parse_address(endpoint) if endpoint else None,
        allowed_ips=tuple(value for key, value in lines if key == "allowed_ip"),
        latest_handshake=int(values.get("last_handshake_time_sec", 0)),
        rx_bytes=int(values.get("rx_bytes", 0)),
        tx_bytes=int(values.get("tx_bytes", 0)),
        keepalive=int(values.get("persistent_keepalive_interval", 0)),
    )


def decode(lines: Lines) -> DeviceState:
    """What a `get` operation answered."""
    starts = [i for i, (key, _) in enumerate(lines) if key == "public_key"]
    device = dict(lines[: starts[0]] if starts else lines)
    ends = [*starts[1:], len(lines)] if starts else []
    private = device.get("private_key")
    return DeviceState(
        listen_port=int(device.get("listen_port", 0)),
        private_key=bytes.fromhex(private) if private else None,
        peers=tuple(_peer_state(lines[a:b]) for a, b in zip(starts, ends, strict=True)),
    )


class Client:
    """Speaks to one interface's socket; one connection per operation."""

    def __init__(self, interface: str) -> None:
        self.path = DIRECTORY / f"{interface}.sock"

    async def exchange(self, text: str) -> Lines:
        """Send one operation and read its answer; raises `Rejected` on an errno."""
        async with asyncio.timeout(60):
            reader, writer = await asyncio.open_unix_connection(str(self.path), limit=1 << 26)
            try:
                writer.write(text.encode())
                await writer.drain()
                return await self._answer(reader)
            finally:
                writer.close()

    @staticmethod
    async def _answer(reader: asyncio.StreamReader) -> Lines:
        lines: Lines = []
        while (raw := await reader.readline()) not in (b"", b"\n"):
            key, _, value = raw.decode().rstrip("\n").partition("=")
            lines.append((key, value))
        errno = next((int(value) for key, value in reversed(lines) if key == "errno"), None)
        if errno is None:
            raise Rejected(0, "the UAPI connection ended without an errno line")
        if errno:
            raise Rejected(abs(errno))
        return [line for line in lines if line[0] != "errno"]

    async def listening(self) -> bool:
        """Whether somebody accepts connections there (the path appears a moment before)."""
        try:
            _, writer = await asyncio.open_unix_connection(str(self.path))
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        writer.close()
        return True

    async def apply(self, change: DeviceConfig) -> None:
        await self.exchange(encode(change))

    async def state(self) -> DeviceState:
        return decode(await self.exchange("get=1\n\n"))
