"""`wgpy show`: the output of `wg show`, plus timers and drops, for any UAPI socket.

Secrets are hidden; as with `wg`, ``WG_HIDE_KEYS=never`` in the environment shows them,
and the fields ``private-key``, ``preshared-keys`` and ``dump`` are there for scripts.
"""

from __future__ import annotations

import json
import os
import sys
import time

import click

from wgpy import typed
from wgpy.cli.common import complete_interface, json_option, link_is_down, note
from wgpy.cli.loops import loop_warnings
from wgpy.cli.show_fields import FIELDS, as_dict, drops, handshake_age, human_bytes, human_time
from wgpy.linux.uapi_client import DeviceUnreachable, get, interfaces
from wgpy.protocol.constants import NS
from wgpy.protocol.keys import SecretKey
from wgpy.protocol.settings import DeviceSnapshot, PeerSnapshot
from wgpy.protocol.timers import Deadline

_HOME, _REST, _BELOW, _NEWLINE = "\033[H", "\033[K", "\033[J", "\n"
"""Cursor to the corner; clear the rest of a line, and all below: no flicker of a cleared screen."""


@click.command()
@click.argument("interface", default="all", shell_complete=complete_interface)
@click.argument("field", required=False, metavar="[FIELD]", type=click.Choice(list(FIELDS)))
@click.option("-w", "--watch", is_flag=True, help="Repeat until Ctrl-C.")
@click.option(
    "-n",
    "--seconds",
    default=1.0,
    show_default=True,
    type=click.FloatRange(min=0.1),
    help="Interval of --watch.",
)
@json_option
def show(
    interface: str, field: str | None, watch: bool, seconds: float, as_json: bool
) -> None:
    """Show interfaces, peers, timers and drops.

    INTERFACE is a name, `all` (the default), or `interfaces` for just the names.  For
    interfaces of wgpy it also shows the next deadline and the drop counters; other
    implementations do not report them.

    FIELD prints one field in the format of `wg show INTERFACE FIELD`, for scripts:
    public-key, private-key, listen-port, fwmark, peers, preshared-keys, endpoints,
    allowed-ips, latest-handshakes, transfer, persistent-keepalive, dump.
    """
    def text() -> str:
        return _text(interface, field, as_json, compact=watch)

    if not watch:
        shown = text()
        click.echo(shown, nl=bool(shown))
        if not shown and interface == "all" and field is None:
            note(f"no interface is running (`{typed.wgpy('up', 'FILE')}` starts one)")
        return
    while True:
        _page(text(), as_json)
        time.sleep(seconds)


def _page(text: str, as_json: bool) -> None:
    """One output of --watch: in place on a terminal, the next line or paragraph in a pipe."""
    if as_json or not sys.stdout.isatty():
        click.echo(text)
    else:
        click.echo(f"{_HOME}{text.replace(_NEWLINE, _REST + _NEWLINE)}{_REST}{_BELOW}")
    sys.stdout.flush()


def _text(interface: str, field: str | None, as_json: bool, *, compact: bool) -> str:
    """The current output; JSON on one line if more will follow."""
    indent = None if compact else 2
    if interface == "interfaces":
        names = interfaces()
        return json.dumps(names, indent=indent) if as_json else " ".join(names)
    snapshots = _snapshots(interface)
    now = time.time_ns()
    if as_json:
        devices = {
            name: as_dict(device, now) | {"link_down": bool(link_is_down(name))}
            for name, device in snapshots.items()
        }
        return json.dumps(devices, indent=indent)
    if field:
        return "\n".join(
            "\t".join((name, *row) if interface == "all" else row)
            for name, snapshot in snapshots.items()
            for row in FIELDS[field](snapshot)
        )
    if not compact:
        for name, snapshot in snapshots.items():
            for warning in loop_warnings(name, snapshot):
                note(f"{name}: {warning}")
    return "\n\n".join(
        render(name, snapshot, now, link_is_down(name)) for name, snapshot in snapshots.items()
    )


def _snapshots(interface: str) -> dict[str, DeviceSnapshot]:
    if interface != "all":
        return {interface: get(interface)}
    found = {}
    names = interfaces()
    for name in names:
        try:
            found[name] = get(name)
        except DeviceUnreachable as error:
            # Show the others anyway; one may have disappeared just now.
            click.echo(error, err=True)
    if names and not found:
        raise click.ClickException("no interface answered")
    return found


def _hidden(key: SecretKey) -> str:
    return key.base64 if os.environ.get("WG_HIDE_KEYS") == "never" else "(hidden)"


def _line(name: str, value: str) -> str:
    return f"  {click.style(name, bold=True)}: {value}"


def _deadline(deadline: Deadline | None) -> list[str]:
    if deadline is None:
        return []
    return [_line("next deadline", f"{deadline.reason} in {deadline.at / NS:.1f} s")]


def _drops(of: DeviceSnapshot | PeerSnapshot) -> list[str]:
    rows = []
    for reason, count in drops(of):
        name = click.style(f"{count} {reason.name}", fg="red")
        rows.append(_line("dropped", f"{name} ({reason.sentence})"))
    return rows


def render(name: str, device: DeviceSnapshot, now: int, down: str = "") -> str:
    """One interface for people; `now`: wall clock in ns; `down`: the link, if it is down."""
    lines = [f"{click.style('interface', fg='green', bold=True)}: {click.style(name, fg='green')}"]
    if device.public_key is not None:
        lines.append(_line("public key", device.public_key.base64))
    if device.private_key is not None:
        lines.append(_line("private key", _hidden(device.private_key)))
    if device.listen_port:
        lines.append(_line("listening port", str(device.listen_port)))
    if device.fwmark:
        lines.append(_line("fwmark", f"{device.fwmark:#x}"))
    if down:
        lines.append(_line("link", click.style(down, fg="red")))
    lines += _deadline(device.deadline) + _drops(device)
    latest_first = sorted(device.peers, key=lambda peer: -peer.latest_handshake)
    return "\n\n".join(["\n".join(lines), *(_peer(peer, now) for peer in latest_first)])


def _peer(peer: PeerSnapshot, now: int) -> str:
    key = click.style(peer.public_key.base64, fg="yellow")
    lines = [f"{click.style('peer', fg='yellow', bold=True)}: {key}"]
    if not peer.preshared_key.is_zero:
        lines.append(_line("preshared key", _hidden(peer.preshared_key)))
    if peer.endpoint is not None:
        lines.append(_line("endpoint", str(peer.endpoint)))
    lines.append(_line("allowed ips", ", ".join(map(str, peer.allowed_ips)) or "(none)"))
    if (age := handshake_age(peer, now)) is not None:
        lines.append(_line("latest handshake", human_time(age)))
    if peer.rx_bytes or peer.tx_bytes:
        transfer = f"{human_bytes(peer.rx_bytes)} received, {human_bytes(peer.tx_bytes)} sent"
        lines.append(_line("transfer", transfer))
    if peer.persistent_keepalive:
        unit = "second" if peer.persistent_keepalive == 1 else "seconds"
        lines.append(_line("persistent keepalive", f"every {peer.persistent_keepalive} {unit}"))
    return "\n".join(lines + _deadline(peer.deadline) + _drops(peer))
