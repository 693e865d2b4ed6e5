"""The edges of one Linux interface: TUN device, UDP sockets, and the path between them.

`open_edges` takes the fastest ports that the kernel has and falls back to plain ones.
numpy (and numba) are imported when the data path is made, not here, because they would
delay the start of the program.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from wgpy.linux.gso import GsoUdp
from wgpy.linux.tun import LinuxTun, TunError
from wgpy.linux.udp import LinuxUdp
from wgpy.linux.vnet import VnetTun

if TYPE_CHECKING:
    from wgpy.dataplane.interface import Interface, Path


class Edges(NamedTuple):
    """The ports of one interface, and what makes its data path (None: the plain one)."""

    tun: LinuxTun
    udp: LinuxUdp
    make_path: Callable[[Interface], Path] | None


def open_edges(
    name: str, *, offload: bool, report: Callable[[str], None], turbo: bool = False
) -> Edges:
    """Ports with every offload that the kernel has, or (`offload` False) with none.

    `turbo` takes the compiled tools.  Raises `TunError`; `report` is told which kernel
    features are missing.
    """
    if not offload:
        return Edges(LinuxTun(name), LinuxUdp(), None)
    try:
        tun = VnetTun(name, report=report)
    except TunError:
        # For every other cause the plain device raises the clearer error.
        plain = LinuxTun(name)
        report("the kernel's TUN has no virtio header: packets go one by one")
        return Edges(plain, LinuxUdp(), None)
    if tun.missing:
        report(tun.missing)
    return Edges(tun, GsoUdp(report=report), _batch_path(turbo=turbo))


def _batch_path(*, turbo: bool) -> Callable[[Interface], Path]:
    """What makes the batch path between an interface's own ports.

    A recorder may stand in front of these, so they are looked up when the path is made.
    """

    def make_path(interface: Interface) -> Path:
        from wgpy.dataplane.pipeline import batch_path

        if turbo:
            from wgpy.turbo import TURBO as tools
        else:
            from wgpy.dataplane.interpreted import INTERPRETED as tools
        return batch_path(interface, tools)

    return make_path
