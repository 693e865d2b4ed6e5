"""`wgpy capture`: record a running `wireguard-py` interface until Ctrl-C."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType
from typing import Any, Final

import click
from rich.console import Console

from wgpy.cli.common import complete_interface, json_option
from wgpy.control.client import ControlClient

INTERVAL: Final = 0.5
"""Seconds between two polls of the counts."""


@click.command()
@click.argument("interface", shell_complete=complete_interface)
@click.argument(
    "file", type=click.Path(dir_okay=False, readable=False, writable=True, path_type=Path)
)
@click.option("--rotate", default=0, metavar="BYTES", help="Start a new file after so many bytes.")
@click.option("--seconds", type=float, help="Stop after this time (default: at Ctrl-C).")
@click.option(
    "--rekey", is_flag=True, help="Begin new handshakes at once, so that Wireshark can decrypt."
)
@json_option
def capture(
    interface: str, file: Path, rotate: int, seconds: float | None, rekey: bool, as_json: bool
) -> None:
    """Record INTERFACE to FILE (pcapng) while it runs, with the keys to decrypt it.

    Inner packets and outer datagrams are two interfaces of the file; a dropped packet has the
    reason as its comment.  `wgpy decrypt` also decrypts existing sessions; Wireshark decrypts
    data from the next handshake on, which --rekey begins at once.
    """
    console = Console(stderr=True)
    stopped = _stop_signals()
    with ControlClient(interface) as control:
        counts = control.request("capture", path=str(file.absolute()), rotate=rotate, rekey=rekey)
        console.print(
            f"[bold red]{file} contains secret keys of {interface}[/]; Ctrl-C ends the capture"
        )
        console.print(_what_opens(counts, rekey), highlight=False)
        end = None if seconds is None else time.monotonic() + seconds
        with console.status("capturing") as status:
            while not stopped() and (end is None or time.monotonic() < end):
                time.sleep(INTERVAL)
                counts = control.request("capture")
                status.update(
                    f"{counts['inner']} inner, {counts['outer']} outer, {counts['lost']} lost"
                )
        counts = control.request("capture")
        control.end()
    if as_json:
        click.echo(json.dumps({"file": str(file), **counts}))
    else:
        inner, outer = (
            f"{counts[side]} {side} {what}{'s' * (counts[side] != 1)}"
            for side, what in (("inner", "packet"), ("outer", "datagram"))
        )
        click.echo(f"{file}: {inner}, {outer}, {counts['lost']} lost")


def _stop_signals() -> Callable[[], bool]:
    """Whether SIGINT or SIGTERM has come, from now on."""
    stopped = False

    def stop(_number: int, _frame: FrameType | None) -> None:
        nonlocal stopped
        stopped = True

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    return lambda: stopped


def _what_opens(counts: Mapping[str, Any], rekey: bool) -> str:
    """Which program decrypts the data of earlier sessions, and from when."""
    sessions, handshakes = counts["sessions"], counts["handshakes"]
    if not sessions:
        return "no live session: every program decrypts the data from the first handshake on"
    plural = "" if sessions == 1 else "s"
    text = f"{sessions} live session{plural}: `wgpy decrypt` decrypts from the first packet on; "
    if rekey and handshakes:
        return f"{text}Wireshark from the handshakes on that begin now ({handshakes})"
    if rekey:
        return f"{text}Wireshark from the next handshake on: one began less than 5 s ago"
    return f"{text}Wireshark from the next handshake on (--rekey begins one at once)"
