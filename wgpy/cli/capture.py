"""`wgpy capture`: record a running `wireguard-py` interface until Ctrl-C."""

from __future__ import annotations

import json
import signal
import socket
import time
from pathlib import Path
from types import FrameType
from typing import Any

import click
from rich.console import Console

SOCKETS = Path("/var/run/wireguard")
_INTERVAL = 0.5


class _Control:
    """A conversation with the control socket of an interface."""

    def __init__(self, interface: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(str(SOCKETS / f"{interface}.control"))
        self._answers = self._socket.makefile("r", encoding="utf-8")

    def ask(self, **message: Any) -> dict[str, Any]:
        """The result of one request; raises ClickException when it is refused."""
        self._socket.sendall(json.dumps({"id": 1, **message}).encode() + b"\n")
        line = self._answers.readline()
        if not line:
            raise click.ClickException("the interface has ended")
        answer: dict[str, Any] = json.loads(line)
        if not answer.get("ok"):
            raise click.ClickException(str(answer.get("error")))
        result: dict[str, Any] = answer["result"]
        return result


@click.command()
@click.argument("interface")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--rotate", default=0, metavar="BYTES", help="Start a new file after so many bytes.")
@click.option("--seconds", type=float, help="Stop after this time (default: at Ctrl-C).")
@click.option("--json", "as_json", is_flag=True, help="Print the counts for machines at the end.")
def capture(interface: str, file: Path, rotate: int, seconds: float | None, as_json: bool) -> None:
    """Record INTERFACE to FILE (pcapng) while it runs, with the keys that open it.

    Inner packets and outer datagrams are two interfaces of the file; a dropped packet has the
    reason as its comment.  Keys of handshakes made before the capture began are not known: the
    file opens from the next handshake on.
    """
    console = Console(stderr=True)
    try:
        control = _Control(interface)
    except OSError as error:
        raise click.ClickException(
            f"{interface}: no wireguard-py is running by this name ({error.strerror})"
        ) from error
    stopped = False

    def stop(_number: int, _frame: FrameType | None) -> None:
        nonlocal stopped
        stopped = True

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    counts = control.ask(op="capture", path=str(file.absolute()), rotate=rotate)
    console.print(f"[bold red]{file} holds secret keys of {interface}[/]; Ctrl-C ends the capture")
    end = None if seconds is None else time.monotonic() + seconds
    with console.status("capturing") as status:
        while not stopped and (end is None or time.monotonic() < end):
            time.sleep(_INTERVAL)
            counts = control.ask(op="capture")
            status.update(
                f"{counts['inner']} inner, {counts['outer']} outer, {counts['lost']} lost"
            )
    if as_json:
        click.echo(json.dumps({"file": str(file), **counts}))
    else:
        click.echo(
            f"{file}: {counts['inner']} inner packets, {counts['outer']} outer datagrams,"
            f" {counts['lost']} lost"
        )
