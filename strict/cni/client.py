"""The plugin's side of the agent's socket: one request, one answer, hang up."""

from __future__ import annotations

import errno
import json
import socket
from typing import Any, Final

from strict.cni import errors
from strict.cni.errors import CniError
from wgpy.control.framing import encode

TIMEOUT: Final = 10.0
"""Seconds.  The agent gives up its own waiting earlier."""
CODES: Final = {
    "later": errors.TRY_AGAIN_LATER,
    "invalid": errors.INVALID_CONFIG,
    "conflict": errors.INVALID_CONFIG,
    "unknown": errors.CHECK_FAILED,
    "unavailable": errors.UNAVAILABLE,
    "limited": errors.LIMITED,
}
"""Our words for refusals, as the specification numbers them."""


class AgentAway(CniError):
    """Nobody listens: there is no agent.  To a runtime: try again later."""


def ask(path: str, op: str, **arguments: Any) -> dict[str, Any]:
    """The result of one operation; raises `AgentAway` or another `CniError`."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(TIMEOUT)
            connection.connect(path)
            connection.sendall(encode({"id": 1, "op": op, **arguments}))
            answer = json.loads(_line(connection))
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ECONNREFUSED):
            raise AgentAway(
                errors.TRY_AGAIN_LATER,
                "the agent does not run: start `wgpy strict run`",
                f"{path}: {error.strerror}",
            ) from None
        why = error.strerror or "it does not answer"
        raise CniError(errors.TRY_AGAIN_LATER, f"the agent at {path}: {why}") from None
    except ValueError:
        raise CniError(errors.TRY_AGAIN_LATER, f"the agent at {path} has hung up") from None
    if not answer["ok"]:
        raise CniError(CODES.get(answer["code"], errors.IO_FAILURE), answer["error"])
    result: dict[str, Any] = answer["result"]
    return result


def _line(connection: socket.socket) -> bytes:
    """Up to the end of the line, or of the connection."""
    found = b""
    while not found.endswith(b"\n") and (more := connection.recv(1 << 16)):
        found += more
    return found


def listens(path: str) -> bool:
    """Whether somebody accepts connections there."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        return probe.connect_ex(path) == 0
