"""boringtun behind pipes: the server of package mitmproxy-wireguard, one JSON object a line.

Started as a program by `wgspec.targets.boringtun` with its configuration in the first line:
`{"port", "private", "peers": [base64, …]}`.  Answers `{"ready": true}` once it listens; then
`{"packet": hex, "source": [host, port], "destination": [host, port]}` for each UDP datagram
that came out of a tunnel, and sends the same the other way.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import mitmproxy_wireguard


def say(message: dict[str, Any]) -> None:
    """One line to the tester."""
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def datagram(payload: bytes, source: tuple[str, int], destination: tuple[str, int]) -> None:
    """A UDP datagram came out of a tunnel."""
    say({"packet": payload.hex(), "source": source, "destination": destination})


async def connection(stream: Any) -> None:
    """TCP is not used by the tests."""
    stream.close()


async def main() -> None:
    """Serve until the tester closes the pipe."""
    reader = asyncio.StreamReader(limit=1 << 20)
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    config = json.loads(await reader.readline())
    server = await mitmproxy_wireguard.start_server(
        config["host"], config["port"], config["private"], config["peers"], connection, datagram
    )
    say({"ready": True})
    while line := await reader.readline():
        message = json.loads(line)
        server.send_datagram(
            bytes.fromhex(message["packet"]),
            tuple(message["source"]),
            tuple(message["destination"]),
        )
    server.close()


if __name__ == "__main__":
    asyncio.run(main())
