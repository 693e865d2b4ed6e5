"""wgpy's engine behind pipes: one JSON object per line, virtual time in nanoseconds.

The only module of wgspec that imports wgpy, and only its public API.  It is started as a
program (`python -P -m wgspec.adapters.engine_process`) by `wgspec.targets.engine`.

Requests: `{"op": …, "id": engine, "now": ns, …}` with op

* `version`, where `id` and `now` do not matter;
* `new` (`wall`: ns since 1970), `drop`;
* `set` (`text`: UAPI), `get`;
* `receive` (`datagrams`: [[hex, source, to], …]), `send` (`packets`: [hex, …]);
* `advance` (to `now`, stopping when something comes out), `up` (`value`), `mtu` (`value`).

Replies: `{"now": ns, "out": [[hex, to, from], …], "in": [hex, …]}` and `errno`, `text` or
`version` where asked; `{"error": …}` when the engine raised.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wgpy.protocol.engine import Engine

Json = dict[str, Any]


class Host:
    """All engines of this process by number."""

    def __init__(self) -> None:
        self._engines: dict[int, Engine] = {}

    def handle(self, request: Json) -> Json:
        """Do what one request says."""
        number, now = request["id"], request["now"]
        if request["op"] == "version":
            return {"now": now, "out": [], "in": [], "version": f"wgpy engine {version('wgpy')}"}
        if request["op"] == "new":
            self._engines[number] = self._new(now, request["wall"])
            return self._outputs(self._engines[number], now)
        if request["op"] == "drop":
            self._engines.pop(number, None)
            return {"now": now, "out": [], "in": []}
        engine = self._engines[number]
        extra: Json = getattr(self, f"_{request['op']}")(engine, request, now) or {}
        return self._outputs(engine, now) | extra

    @staticmethod
    def _new(now: int, wall: int) -> Engine:
        from wgpy.protocol.crypto import backend
        from wgpy.protocol.engine import Engine

        return Engine(crypto=backend(), entropy=os.urandom, now=now, wall=wall)

    @staticmethod
    def _set(engine: Engine, request: Json, now: int) -> Json:
        from wgpy.uapi import UapiError, parse_set

        try:
            change = parse_set(request["text"])
        except UapiError as error:
            return {"errno": error.errno}
        engine.apply(change, now=now)
        return {"errno": 0}

    @staticmethod
    def _get(engine: Engine, _request: Json, _now: int) -> Json:
        from wgpy.uapi import format_get

        return {"text": format_get(engine.snapshot())}

    @staticmethod
    def _receive(engine: Engine, request: Json, now: int) -> None:
        from wgpy.protocol.datagram import Datagram
        from wgpy.protocol.endpoint import Endpoint

        datagrams = []
        for data, source, to in request["datagrams"]:
            local = Endpoint.parse(to).ip
            endpoint = Endpoint.parse(source)._replace(local_ip=local, local_ifindex=1)
            datagrams.append(Datagram(bytes.fromhex(data), endpoint))
        engine.receive(datagrams, now=now)

    @staticmethod
    def _send(engine: Engine, request: Json, now: int) -> None:
        engine.send([bytes.fromhex(packet) for packet in request["packets"]], now=now)

    @staticmethod
    def _up(engine: Engine, request: Json, now: int) -> None:
        engine.set_up(request["value"], now=now)

    @staticmethod
    def _mtu(engine: Engine, request: Json, _now: int) -> None:
        engine.mtu = request["value"]

    @classmethod
    def _advance(cls, engine: Engine, request: Json, now: int) -> Json:
        at = request["from"]
        while (deadline := engine.next_deadline()) is not None and deadline.at <= now:
            # A deadline that does not go away must not stop time.
            at = max(at + 1, deadline.at)
            engine.handle_deadline(now=at)
            came = cls._outputs(engine, at)
            if came["out"] or came["in"]:
                return came
            if at >= now:
                break
        return {"now": now}

    @staticmethod
    def _outputs(engine: Engine, now: int) -> Json:
        from wgpy.protocol.endpoint import format_address

        out = [
            [
                bytes(data).hex(),
                str(endpoint.without_source()),
                format_address(endpoint.local_ip) if endpoint.local_ip else "",
            ]
            for data, endpoint in engine.pull_datagrams()
        ]
        return {"now": now, "out": out, "in": [bytes(p).hex() for p in engine.pull_packets()]}


def main() -> None:
    """Serve requests until the input ends."""
    host = Host()
    for line in sys.stdin:
        try:
            reply = host.handle(json.loads(line))
        except Exception:
            reply = {"error": traceback.format_exc(limit=-4)}
        sys.stdout.write(json.dumps(reply) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
