"""`wgpy metrics`: Prometheus metrics of running interfaces, over HTTP until Ctrl-C."""

from __future__ import annotations

import contextlib
import json
import signal
import threading

import click

from wgpy.cli.common import complete_interface, json_option, note
from wgpy.linux.uapi_client import interfaces


@click.command()
@click.argument("names", nargs=-1, metavar="[INTERFACE]...", shell_complete=complete_interface)
@click.option(
    "--listen",
    default="127.0.0.1:9586",
    show_default=True,
    metavar="ADDRESS:PORT",
    help="Address to serve HTTP on; port 0 chooses a free one.",
)
@json_option
def metrics(names: tuple[str, ...], listen: str, as_json: bool) -> None:
    """Serve Prometheus metrics of INTERFACE, or of all running interfaces.

    Peers, bytes, handshakes, drops by reason; for interfaces of other implementations only
    what `wg show` has.  Interfaces may come and go while this runs.
    """
    address, port = _listen_address(listen)
    # The library takes 50 ms to import: not before the command line is right.
    from wgpy.metrics import InterfaceCollector, serve

    running = interfaces()
    for name in names:
        if name not in running:
            note(f"{name} is not running yet: wgpy_up is 0 until then")
    try:
        port = serve(InterfaceCollector(names), address, port)
    except OSError as error:
        raise click.ClickException(f"--listen {listen}: {error.strerror or error}") from error
    url = f"http://{f'[{address}]' if ':' in address else address}:{port}/metrics"
    click.echo(json.dumps({"url": url}) if as_json else f"metrics at {url}; stop with Ctrl-C")
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    with contextlib.suppress(KeyboardInterrupt):
        ended.wait()


def _listen_address(text: str) -> tuple[str, int]:
    """``ADDRESS:PORT``, with brackets around IPv6; raises BadParameter."""
    address, colon, port = text.rpartition(":")
    if address.startswith("[") and address.endswith("]"):
        address = address[1:-1]
    elif ":" in address:
        colon = ""
    if not colon or not address or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise click.BadParameter(
            f"{text!r} is not ADDRESS:PORT, as in 127.0.0.1:9586 or [::1]:9586",
            param_hint="--listen",
        )
    return address, int(port)
