"""Configurations and files that say them, in any of the ways in which that can be said."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from tests.text.strategies import addresses, ports, prefixes, raw_keys
from wgpy.config import Config, HostPort, InterfaceAddress, PeerConfig
from wgpy.protocol.endpoint import format_address
from wgpy.protocol.keys import PresharedKey, PrivateKey, PublicKey

hosts = st.builds(HostPort, addresses.map(format_address), st.integers(1, 65535))
commands = st.lists(
    st.text(alphabet=st.characters(codec="ascii", categories=["L", "N", "P"]), min_size=1)
    .map(lambda text: text.replace("#", "="))
    .map(str.strip),
    max_size=2,
).map(tuple)
peers = st.builds(
    PeerConfig,
    public_key=raw_keys.map(PublicKey),
    preshared_key=raw_keys.map(PresharedKey),
    endpoint=st.none() | hosts,
    persistent_keepalive=ports,
    allowed_ips=st.lists(prefixes(), max_size=4, unique=True).map(tuple),
)


@st.composite
def interface_addresses(draw: st.DrawFn) -> InterfaceAddress:
    ip = draw(addresses)
    return InterfaceAddress(ip, draw(st.integers(0, len(ip) * 8)))


configs = st.builds(
    Config,
    private_key=raw_keys.filter(any).map(PrivateKey),
    listen_port=ports,
    fwmark=st.integers(0, 2**32 - 1),
    addresses=st.lists(interface_addresses(), max_size=3).map(tuple),
    mtu=st.none() | st.integers(68, 65521),
    table=st.sampled_from(["auto", "off"]) | st.integers(1, 2**32 - 1),
    pre_up=commands,
    post_up=commands,
    pre_down=commands,
    post_down=commands,
    save_config=st.booleans(),
    peers=st.lists(peers, max_size=3, unique_by=lambda peer: peer.public_key).map(tuple),
)

Draw = Callable[[st.SearchStrategy[Any]], Any]


def write(config: Config, draw: Draw, *, only_wg: bool = False) -> str:
    """A file for `config`; `only_wg` leaves out what `wg setconf` does not know."""
    lines = ["[Interface]"]
    lines += [f"PrivateKey={config.private_key.base64}" if config.private_key else ""]
    lines += [f"ListenPort = {config.listen_port}"] if config.listen_port else []
    if config.fwmark:
        lines += [f"FwMark = {draw(st.sampled_from([hex(config.fwmark), config.fwmark]))}"]
    if not only_wg:
        lines += _quick_lines(config)
    for peer in config.peers:
        lines += _peer_lines(peer, draw)
    if only_wg:
        # `wg` of 2021 has no empty list of allowed IPs yet; its manual of today has.
        lines = [line for line in lines if line != "AllowedIPs = "]
    noise = st.sampled_from(["{}", "  {}", "{}\t", "{} # remark", "\n{}", "# remark\n{}\n\n"])
    return "\n".join(draw(noise).format(_cased(line, draw)) for line in lines)


def _quick_lines(config: Config) -> list[str]:
    lines = [f"Address = {', '.join(map(str, config.addresses))}"] if config.addresses else []
    lines += [f"MTU={config.mtu}"] if config.mtu else []
    lines += [f"Table = {config.table}", f"SaveConfig = {str(config.save_config).lower()}"]
    for key in ("PreUp", "PostUp", "PreDown", "PostDown"):
        name = key.replace("P", "p", 1).replace("U", "_u").replace("D", "_d")
        lines += [f"{key} = {command}" for command in getattr(config, name)]
    return lines


def _peer_lines(peer: PeerConfig, draw: Draw) -> list[str]:
    lines = ["[Peer]", f"PublicKey = {peer.public_key.base64}"]
    lines += [f"PresharedKey = {peer.preshared_key.base64}"]
    lines += [f"Endpoint = {peer.endpoint}"] if peer.endpoint else []
    lines += [f"PersistentKeepalive = {peer.persistent_keepalive or 'off'}"]
    if draw(st.booleans()):
        return [*lines, f"AllowedIPs = {','.join(map(str, peer.allowed_ips))}"]
    return lines + [f"AllowedIPs={prefix}" for prefix in peer.allowed_ips]


def _cased(line: str, draw: Draw) -> str:
    """Keys and sections may be written in any case."""
    key, equals, value = line.partition("=")
    return draw(st.sampled_from([key, key.lower(), key.upper()])) + equals + value
