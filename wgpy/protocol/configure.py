"""Apply a `DeviceChange`, and describe the device as a `DeviceSnapshot`.

A change was validated when it was built, so applying it cannot fail half-way.
"""

from __future__ import annotations

from wgpy.protocol import outbound
from wgpy.protocol.cookie import MacChecker
from wgpy.protocol.device import Device
from wgpy.protocol.drops import DropReason
from wgpy.protocol.keys import PrivateKey, PublicKey
from wgpy.protocol.peer import Peer
from wgpy.protocol.settings import DeviceChange, DeviceSnapshot, PeerChange, PeerSnapshot


def apply(device: Device, change: DeviceChange, now: int) -> None:
    """Change the device as the UAPI's `set` does; order as the kernel's."""
    if change.listen_port is not None:
        device.listen_port = change.listen_port
    if change.fwmark is not None:
        device.fwmark = change.fwmark
    if change.private_key is not None:
        _set_private_key(device, change.private_key, now)
    if change.replace_peers:
        for peer in list(device.peers.values()):
            remove_peer(device, peer, now)
    for peer_change in change.peers:
        _change_peer(device, peer_change, now)


def _set_private_key(device: Device, key: PrivateKey, now: int) -> None:
    """A new identity: all sessions die, and handshakes may start at once.

    Clamped here, as in the kernel, so that the clamped key is what reads back.
    """
    new = None if key.is_zero else PrivateKey.clamp(key)
    if new == device.private_key:
        return
    device.private_key = new
    device.public_key = None if new is None else PublicKey(device.crypto.public_key(new))
    device.checker = None
    if device.public_key is not None:
        device.checker = MacChecker(
            device.crypto, device.public_key, device.entropy, device.parameters.cookie_lifetime
        )
    for peer in list(device.peers.values()):
        if peer.public_key == device.public_key:
            remove_peer(device, peer, now)  # a device cannot be its own peer
            continue
        device.erase_keys(peer)
        peer.forget_identity()
        peer.timers.clear()
        peer.timers.set_persistent(peer.timers.persistent_interval, now)
        device.reschedule(peer)
        outbound.flush(device, peer, now)


def _change_peer(device: Device, change: PeerChange, now: int) -> None:
    peer = device.peers.get(change.public_key)
    if change.remove:
        if peer is not None:
            remove_peer(device, peer, now)
        return
    if peer is None:
        if change.update_only or change.public_key == device.public_key:
            return
        peer = Peer(change.public_key, device.crypto, device.parameters)
        device.peers[change.public_key] = peer
    if change.preshared_key is not None:
        peer.preshared_key = change.preshared_key
    if change.endpoint is not None:
        peer.endpoint = change.endpoint
        device.endpoint_moved()
    _change_allowed_ips(device, peer, change)
    if change.persistent_keepalive is not None:
        _set_keepalive(device, peer, change.persistent_keepalive, now)
    if device.up:
        outbound.flush(device, peer, now)


def _change_allowed_ips(device: Device, peer: Peer, change: PeerChange) -> None:
    if change.replace_allowed_ips:
        device.allowed_ips.remove_owner(peer)
    for prefix, remove in change.allowed_ips:
        if remove:
            device.allowed_ips.remove(prefix, peer)
        else:
            device.allowed_ips.insert(prefix, peer)


def _set_keepalive(device: Device, peer: Peer, interval: int, now: int) -> None:
    """Switching it on sends the first at once."""
    switched_on = interval > 0 and peer.timers.persistent_interval == 0
    peer.timers.set_persistent(interval, now)
    device.reschedule(peer)
    if switched_on and device.up:
        outbound.send_keepalive(device, peer, now)


def remove_peer(device: Device, peer: Peer, now: int) -> None:
    """Forget a peer; its indices are invalid at once."""
    device.allowed_ips.remove_owner(peer)
    device.erase_keys(peer)
    device.drop_staged(peer, DropReason.PEER_REMOVED, now)
    peer.timers.clear()
    del device.peers[peer.public_key]


def set_up(device: Device, up: bool, now: int) -> None:
    """Bring the device up or down; down forgets sessions and waiting packets."""
    if up == device.up:
        return
    device.up = up
    for peer in device.peers.values():
        if up:
            if peer.timers.persistent_interval:
                outbound.send_keepalive(device, peer, now)
            continue
        device.erase_keys(peer)
        device.drop_staged(peer, DropReason.DEVICE_DOWN, now)
        peer.timers.clear()
        peer.initiation_sent_at = None


def snapshot(device: Device) -> DeviceSnapshot:
    """Everything that `wg show` and `wgpy show` display."""
    first = device.next_scheduled()
    return DeviceSnapshot(
        private_key=device.private_key,
        public_key=device.public_key,
        listen_port=device.listen_port,
        fwmark=device.fwmark,
        peers=tuple(_peer_snapshot(device, peer) for peer in device.peers.values()),
        deadline=None if first is None else first.timers.earliest(),
        drops=dict(device.drops),
    )


def _peer_snapshot(device: Device, peer: Peer) -> PeerSnapshot:
    return PeerSnapshot(
        public_key=peer.public_key,
        preshared_key=peer.preshared_key,
        endpoint=peer.endpoint,
        persistent_keepalive=peer.timers.persistent_interval,
        latest_handshake=peer.latest_handshake,
        rx_bytes=peer.rx_bytes,
        tx_bytes=peer.tx_bytes,
        allowed_ips=device.allowed_ips.owned_by(peer),
        deadline=peer.timers.earliest(),
        handshake_at=peer.handshake_at,
        drops=dict(peer.drops),
    )
