"""`wgpy decrypt`: read a capture, decrypt it with the available keys, and report problems."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from rich.console import Console
from rich.progress import Progress

from wgpy.capture.decrypt import Explainer, to_json
from wgpy.capture.explained import Style, line, summary
from wgpy.capture.frames import CaptureError
from wgpy.capture.keylog import KeyLogError
from wgpy.capture.link import RAW
from wgpy.capture.pcap import Capture, PcapWriter
from wgpy.capture.seen import Seen
from wgpy.cli.common import warn_if_exposed
from wgpy.cli.errors import sentence

_PROGRESS_EVERY = 2048


@click.command()
@click.argument(
    "capture", type=click.Path(exists=True, dir_okay=False, path_type=Path, allow_dash=True)
)
@click.option(
    "--keylog",
    "key_logs",
    multiple=True,
    help="Wireshark key log; may be repeated.",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object per message, and a summary.")
@click.option(
    "--pcap",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the inner packets to this pcap file (mode 0600).",
)
def decrypt(capture: Path, key_logs: tuple[Path, ...], as_json: bool, pcap: Path | None) -> None:
    """Explain every WireGuard message in CAPTURE.

    CAPTURE is a pcap or pcapng file from any program, also gzipped; - reads standard input.
    Keys come from the file's own decryption secrets or from key logs.  Without keys it
    still describes the sessions: roles, rekeys, roaming, keepalives, missing counters.
    """
    if pcap is not None and pcap.exists() and capture.exists() and pcap.samefile(capture):
        raise click.UsageError("--pcap would overwrite the capture: give it another name")
    for path in key_logs:
        warn_if_exposed(path)
    try:
        explainer, source = Explainer(key_logs), Capture(capture)
        writer = None if pcap is None else PcapWriter(pcap, RAW)
    except (CaptureError, KeyLogError) as error:
        raise click.ClickException(str(error)) from error
    show = _json_printer() if as_json else _line_printer()
    failed = ""
    with _progress(source) as tick:
        try:
            for seen in explainer.explain(source.records(), str(capture)):
                tick()
                show(seen)
                if writer is not None and seen.inner is not None:
                    writer.write(seen.at, seen.inner)
            if writer is not None:
                writer.close()
        except BrokenPipeError:
            raise
        except (CaptureError, KeyLogError) as error:
            failed = str(error)
        except OSError as error:
            failed = sentence(error)
    if as_json:
        print(json.dumps(explainer.summary()))
    else:
        style = _style()
        for text in summary(explainer, style, whole=not failed):
            print(text)
    sys.stdout.flush()
    if failed:
        raise click.ClickException(failed)


def _style() -> Style:
    """Colours and the width of a terminal; neither for a file or a pipe."""
    console = Console()
    if not console.is_terminal:
        return Style()
    return Style(colour=console.color_system is not None, width=console.width)


def _line_printer() -> Callable[[Seen], None]:
    style, write = _style(), sys.stdout.write
    start: int | None = None

    def show(seen: Seen) -> None:
        nonlocal start
        start = seen.at if start is None else start
        if seen.same_as is None:
            write(line(seen, start, style) + "\n")

    return show


def _json_printer() -> Callable[[Seen], None]:
    write = sys.stdout.write
    return lambda seen: (write(json.dumps(to_json(seen)) + "\n"), None)[1]


@contextmanager
def _progress(source: Capture) -> Iterator[Callable[[], None]]:
    """A bar on the terminal if the lines go elsewhere; otherwise the lines show the progress."""
    if sys.stdout.isatty() or not sys.stderr.isatty():
        yield lambda: None
        return
    count = 0
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("reading", total=None if source.progress is None else 1.0)

        def tick() -> None:
            nonlocal count
            count += 1
            if count % _PROGRESS_EVERY == 0:
                bar.update(task, completed=source.progress or 0.0)

        yield tick
