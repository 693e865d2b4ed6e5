"""`wgpy decrypt`: read a capture, open what the keys open, and say what is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import click
from rich.console import Console
from rich.text import Text

from wgpy.capture.decrypt import NAMES, describe_inner, explain, fields, to_json
from wgpy.capture.follow import Seen
from wgpy.capture.frames import CaptureError
from wgpy.capture.keylog import KeyLogError
from wgpy.capture.link import RAW
from wgpy.capture.pcap import write_pcap
from wgpy.protocol.keys import PublicKey

_COLOURS = {1: "cyan", 2: "green", 3: "magenta", 4: "white"}


@click.command()
@click.argument("capture", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--keylog",
    "key_logs",
    multiple=True,
    help="Wireshark key log; may be repeated.",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object per message.")
@click.option(
    "--pcap",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the inner packets to this pcap file.",
)
def decrypt(capture: Path, key_logs: tuple[Path, ...], as_json: bool, pcap: Path | None) -> None:
    """Explain every WireGuard message in CAPTURE (pcap or pcapng, from anybody).

    Keys come from the file's own decryption secrets or from key logs.
    """
    console = Console(highlight=False)
    inner: list[tuple[int, bytes]] = []
    total = problems = opened = 0
    start: int | None = None
    try:
        for seen in explain(capture, list(key_logs)):
            start = seen.at if start is None else start
            total += 1
            problems += bool(seen.problems)
            opened += seen.handshake is not None and seen.sender is not None
            if seen.inner is not None:
                inner.append((seen.at, seen.inner))
            if as_json:
                click.echo(json.dumps(to_json(seen)))
            else:
                console.print(_line(seen, start), soft_wrap=True)
    except (CaptureError, KeyLogError, OSError) as error:
        raise click.ClickException(str(error)) from error
    if pcap is not None:
        write_pcap(pcap, RAW, inner)
    if not as_json:
        console.print(
            f"{total} messages, {opened} authenticated, {len(inner)} inner packets, "
            + (f"[red]{problems} that a receiver drops" if problems else "[green]no problems")
        )


def _line(seen: Seen, start: int) -> Text:
    kind = seen.message.type
    text = Text()
    text.append(f"{seen.frame:6} {(seen.at - start) / 1e9:10.6f} ", "dim")
    text.append(f"{seen.source} → {seen.destination} ")
    text.append(f"{NAMES[kind]:12}", _COLOURS[kind])
    for name, value in fields(seen).items():
        shown = f"{value[:12]}…" if isinstance(value, str) and len(value) > 12 else value
        if name != "mac1":
            text.append(f" {name}={shown}", "dim")
    if seen.sender is not None:
        text.append(f" from {PublicKey(seen.sender).base64[:8]}…")
    if seen.handshake is not None:
        text.append(f" by handshake in {seen.handshake}", "dim")
    if seen.inner is not None:
        text.append(f" | {describe_inner(seen.inner)}", "green")
    elif seen.plaintext == b"":
        text.append(" | keepalive", "green")
    for problem in seen.problems:
        text.append(f" {problem.name}: {problem.sentence}", "bold red")
    for note in seen.notes:
        text.append(f" ({note})", "yellow")
    return text
