"""`wgpy show`: what `wg show` tells, plus timers and drops, for any UAPI socket.

Secrets are hidden; as with `wg`, ``WG_HIDE_KEYS=never`` in the environment shows them,
and the fields ``private-key``, ``preshared-keys`` and ``dump`` are there for scripts.
"""

from __future__ import annotations

import os
import time

import click

from wgpy.cli.common import complete_interface, echo_json, json_option, note
from wgpy.cli.loops import loop_warnings
from wgpy.cli.show_fields import FIELDS, as_dict, drops, human_bytes, human_time
from wgpy.linux.uapi_client import DeviceUnreachable, get, interfaces
from wgpy.protocol.constants import NS
from wgpy.protocol.keys import SecretKey
from wgpy.protocol.settings import Deadline, DeviceSnapshot, PeerSnapshot


@click.command()
@click.argument("interface", default="all", shell_complete=complete_interface)
@click.argument("field", required=False, metavar="[FIELD]", type=click.Choice(list(FIELDS)))
@json_option
def show(interface: str, field: str | None, as_json: bool) -> None:
    """Show interfaces, peers, timers and drops.

    INTERFACE is a name, `all` (the default), or `interfaces` for just the names.  For
    interfaces of wgpy the next deadline and the drop counters are shown as well; other
    implementations do not tell them.

    FIELD prints one thing in the format of `wg show INTERFACE FIELD`, for scripts:
    public-key, private-key, listen-port, fwmark, peers, preshared-keys, endpoints,
    allowed-ips, latest-handshakes, transfer, persistent-keepalive, dump.
    """
    if interface == "interfaces":
        names = interfaces()
        echo_json(names) if as_json else click.echo(" ".join(names))
        return
    snapshots = _snapshots(interface)
    if as_json:
        echo_json({name: as_dict(snapshot) for name, snapshot in snapshots.items()})
    elif field:
        for name, snapshot in snapshots.items():
            for row in FIELDS[field](snapshot):
                click.echo("\t".join((name, *row) if interface == "all" else row))
    else:
        now = time.time_ns()
        shown = [render(name, snapshot, now) for name, snapshot in snapshots.items()]
        click.echo("\n\n".join(shown), nl=bool(shown))
        for name, snapshot in snapshots.items():
            for warning in loop_warnings(name, snapshot):
                note(f"{name}: {warning}")


def _snapshots(interface: str) -> dict[str, DeviceSnapshot]:
    if interface != "all":
        return {interface: get(interface)}
    found = {}
    names = interfaces()
    for name in names:
        try:
            found[name] = get(name)
        except DeviceUnreachable as error:
            # The others shall be shown all the same; one may have gone just now.
            click.echo(error, err=True)
    if names and not found:
        raise click.ClickException("no interface could be asked")
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


def render(name: str, device: DeviceSnapshot, now: int) -> str:
    """One interface for people; `now` is the wall clock in ns."""
    lines = [f"{click.style('interface', fg='green', bold=True)}: {click.style(name, fg='green')}"]
    if device.public_key is not None:
        lines.append(_line("public key", device.public_key.base64))
    if device.private_key is not None:
        lines.append(_line("private key", _hidden(device.private_key)))
    if device.listen_port:
        lines.append(_line("listening port", str(device.listen_port)))
    if device.fwmark:
        lines.append(_line("fwmark", f"{device.fwmark:#x}"))
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
    if peer.latest_handshake:
        lines.append(_line("latest handshake", human_time(now - peer.latest_handshake)))
    if peer.rx_bytes or peer.tx_bytes:
        transfer = f"{human_bytes(peer.rx_bytes)} received, {human_bytes(peer.tx_bytes)} sent"
        lines.append(_line("transfer", transfer))
    if peer.persistent_keepalive:
        unit = "second" if peer.persistent_keepalive == 1 else "seconds"
        lines.append(_line("persistent keepalive", f"every {peer.persistent_keepalive} {unit}"))
    return "\n".join(lines + _deadline(peer.deadline) + _drops(peer))
