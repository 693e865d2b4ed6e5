"""`wgpy ping`: where the path to a peer is broken: UDP, WireGuard or the inner network.

With a configuration file an engine in this process makes the test, which does not need
root.  With a running interface the tunnel itself is tested, and its counters show why.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import click

from wgpy import typed
from wgpy.cli.common import complete_interface, echo_json, json_option
from wgpy.cli.files import load, locate
from wgpy.cli.ping_layers import ping_config, ping_interface, ping_udp
from wgpy.cli.ping_report import Layer, Status
from wgpy.cli.resolve import resolve
from wgpy.config import Config
from wgpy.linux import uapi_client
from wgpy.protocol.crypto import backend
from wgpy.protocol.endpoint import AddressBytes, Endpoint, Prefix, parse_address
from wgpy.protocol.keys import PublicKey
from wgpy.protocol.settings import DeviceSnapshot


@click.command()
@click.argument("target", shell_complete=complete_interface)
@click.option("-p", "--peer", "wanted", help="Public key of the peer, or its beginning.")
@click.option("-i", "--inner", help="Inner address to ping (default: the peer's one host).")
@click.option("-c", "--count", default=4, show_default=True, type=click.IntRange(1, 1000))
@click.option(
    "-W", "--timeout", default=6.0, show_default=True, help="Seconds to wait for a handshake."
)
@click.option("--force", is_flag=True, help="Test a file whose interface is running.")
@json_option
def ping(
    target: str,
    wanted: str | None,
    inner: str | None,
    count: int,
    timeout: float,
    force: bool,
    as_json: bool,
) -> None:
    """Test a peer at three layers: UDP, WireGuard, inner IP.

    TARGET is a running interface or a configuration file.  A file needs neither an interface
    nor root: this process does the handshake itself.  The peer takes it for the owner of the
    file's key, so this replaces a session that the owner has elsewhere.

    Exit code 0: there is a session with the peer, and no layer failed.
    """
    address = _inner_address(inner)
    running = target in uapi_client.interfaces()
    if running:
        device = uapi_client.get(target)
        chosen = _choose(_peers_of_device(device), wanted, address)
        address = address or chosen.only_host()
        layers = [ping_udp(chosen.endpoint, device.fwmark)]
        layers += ping_interface(target, chosen.public_key, address, count)
    else:
        config = load(_locate(target))
        _refuse_running(config, force)
        chosen = _choose(_peers_of_config(config), wanted, address)
        address = address or chosen.only_host()
        layers = [ping_udp(chosen.endpoint)]
        layers += ping_config(config, chosen.public_key, chosen.endpoint, address, count, timeout)
    _report(target, chosen, layers, as_json)
    failed = any(layer.status is Status.FAILED for layer in layers)
    session = any(layer.name == "WireGuard" and layer.status is Status.OK for layer in layers)
    sys.exit(0 if session and not failed else 1)


def _locate(target: str) -> Path:
    try:
        return locate(target)
    except click.ClickException as error:
        raise click.ClickException(
            f"no interface {target} is running, and {error.message}"
        ) from None


@dataclass(frozen=True, slots=True)
class _Peer:
    public_key: PublicKey
    endpoint: Endpoint | None
    allowed_ips: tuple[Prefix, ...]

    def only_host(self) -> AddressBytes | None:
        """The first allowed IP that is a single address: most likely the peer itself."""
        hosts = (ip.ip for ip in self.allowed_ips if ip.length == len(ip.ip) * 8)
        return next(hosts, None)

    def covers(self, address: AddressBytes) -> int:
        """Length of the longest allowed prefix that holds the address; -1 for none."""
        return max((ip.length for ip in self.allowed_ips if address in ip), default=-1)


def _inner_address(text: str | None) -> AddressBytes | None:
    try:
        return parse_address(text) if text else None
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--inner") from error


def _peers_of_device(device: DeviceSnapshot) -> list[_Peer]:
    return [_Peer(peer.public_key, peer.endpoint, peer.allowed_ips) for peer in device.peers]


def _peers_of_config(config: Config) -> list[_Peer]:
    return [
        _Peer(peer.public_key, resolve(peer.endpoint) if peer.endpoint else None, peer.allowed_ips)
        for peer in config.peers
    ]


def _choose(peers: list[_Peer], wanted: str | None, inner: AddressBytes | None) -> _Peer:
    if wanted:
        peers = [peer for peer in peers if peer.public_key.base64.startswith(wanted)]
    elif inner and len(peers) > 1:
        covering = [peer for peer in peers if peer.covers(inner) >= 0]
        peers = sorted(covering, key=lambda peer: -peer.covers(inner))[:1]
    if len(peers) == 1:
        return peers[0]
    if not peers:
        raise click.ClickException("no peer matches: check --peer and --inner")
    known = "\n".join(f"  {peer.public_key.base64}" for peer in peers)
    raise click.ClickException(f"choose a peer with --peer KEY:\n{known}")


def _refuse_running(config: Config, force: bool) -> None:
    """A test with the key of a running interface would take over that interface's session."""
    if config.private_key is None:
        raise click.ClickException("the file has no PrivateKey, which a handshake needs")
    if force:
        return
    public = backend().public_key(config.private_key)
    for name in uapi_client.interfaces():
        try:
            used = uapi_client.get(name).public_key
        except uapi_client.DeviceUnreachable:
            continue
        if used == public:
            message = f"interface {name} is running with this key: try `{typed.wgpy('ping', name)}`"
            raise click.ClickException(f"{message}, or --force to take its session over")


def _report(target: str, chosen: _Peer, layers: list[Layer], as_json: bool) -> None:
    if as_json:
        document = {
            "target": target,
            "peer": chosen.public_key.base64,
            "endpoint": str(chosen.endpoint) if chosen.endpoint else None,
            "layers": {layer.name: layer.as_dict() for layer in layers},
        }
        echo_json(document)
        return
    click.echo(f"peer {chosen.public_key.base64} at {chosen.endpoint or '(no endpoint)'}")
    for layer in layers:
        click.echo(layer.render())
