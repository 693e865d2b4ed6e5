"""`wgpy doctor`: what works on this machine for this user, and how to fix the rest.

Each check tries the feature instead of reading a version: it opens the TUN device, requests
the offload, creates a namespace.  It leaves nothing behind.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from enum import StrEnum
from importlib.metadata import version
from pathlib import Path
from typing import Final

import click

from wgpy import typed
from wgpy.cli.common import echo_json, json_option
from wgpy.linux.gso import UDP_GRO, UDP_SEGMENT
from wgpy.linux.tun import CLONE_DEVICE, TunError, why_not_openable
from wgpy.linux.vnet import VnetTun
from wgpy.sockets import SOCKET_FOLDER

NET_ADMIN: Final = 12
"""Bit of CAP_NET_ADMIN, capabilities(7)."""
SBIN: Final = ("/usr/local/sbin", "/usr/sbin", "/sbin")

TOOLS: Final = {
    "ip": ("iproute2", "the testbed"),
    "nft": ("nftables", "strict mode and full tunnels"),
    "ping": ("iputils-ping", "the testbed"),
    "iperf3": ("iperf3", "benchmarks of whole tunnels"),
    "tshark": ("tshark", "reading captures, as an alternative to `wgpy decrypt`"),
    "unshare": ("util-linux", "the testbed without root"),
    "wg": ("wireguard-tools", "setting up interfaces as with other WireGuards"),
    "wireguard-go": ("wireguard-go", "comparisons"),
}
"""Programs that parts of wgpy run: the Debian package, and what for."""
EXTRAS: Final = {
    "numba": ("turbo", "--turbo"),
    "matplotlib": ("bench", "plots of `wgpy bench`"),
    "scapy": ("scapy", "the Scapy layer"),
}
"""Optional Python packages: the extra that brings it, and what for."""


class State(StrEnum):
    """Result of a check."""

    OK = "ok"
    LIMITED = "limited"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: `name`, what was seen, and what to do when it is not `ok`."""

    name: str
    state: State
    seen: str
    fix: str = ""


@click.command()
@json_option
def doctor(as_json: bool) -> None:
    """Check what works on this machine and suggest fixes.

    `limited` means that a part is slower or missing; `failed` means that this user cannot
    create a tunnel.  Simulator, captures, vectors and `wgpy ping FILE` work in any case.

    Exit code 0: this user can create a tunnel; 1: not.
    """
    findings = [finding for check in CHECKS for finding in check()]
    if as_json:
        echo_json({"wgpy": version("wgpy"), "checks": [asdict(found) for found in findings]})
    else:
        for found in findings:
            _show(found)
    sys.exit(1 if any(found.state is State.FAILED for found in findings) else 0)


_COLOURS = {State.OK: "green", State.LIMITED: "yellow", State.FAILED: "red"}


def _show(found: Finding) -> None:
    state = click.style(f"{found.state:<8}", fg=_COLOURS[found.state])
    click.echo(f"{found.name:<14} {state} {found.seen}")
    if found.fix:
        click.echo(f"{'':<23} - {found.fix}")


# --- the checks -----------------------------------------------------------------------


def _system() -> list[Finding]:
    seen = f"{platform.system()} {platform.release()}, Python {platform.python_version()}"
    if sys.platform != "linux":
        return [Finding("system", State.FAILED, seen, "tunnels need Linux and its TUN device")]
    return [Finding("system", State.OK, f"{seen}, wgpy {version('wgpy')}")]


def _rights() -> list[Finding]:
    if _may_administer():
        return [Finding("rights", State.OK, "may set up network interfaces (CAP_NET_ADMIN)")]
    fix = f"`{typed.again_as_root()}` tells what works with root's rights"
    seen = "may not set up network interfaces (no CAP_NET_ADMIN)"
    return [Finding("rights", State.FAILED, seen, fix)]


def _may_administer() -> bool:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> NET_ADMIN & 1)
    return False


def _tun() -> list[Finding]:
    if reason := why_not_openable():
        seen, _, fix = reason.partition(": ")
        return [Finding("TUN device", State.FAILED, seen, fix)]
    if not _may_administer():
        return [Finding("TUN device", State.OK, f"{CLONE_DEVICE} can be opened")]
    try:
        tun = VnetTun("doctor%d")
    except TunError as error:
        return [Finding("TUN device", State.FAILED, str(error))]
    missing = tun.missing
    tun.close()
    made = Finding("TUN device", State.OK, "a device can be created")
    if missing:
        return [made, Finding("TUN offloads", State.LIMITED, missing, "a newer kernel has it")]
    return [made, Finding("TUN offloads", State.OK, "TSO and USO: up to 64 KiB at a time")]


def _udp_offloads() -> list[Finding]:
    found = []
    for name, option in (("UDP GSO", UDP_SEGMENT), ("UDP GRO", UDP_GRO)):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as tried:
            try:
                tried.setsockopt(socket.IPPROTO_UDP, option, 1)
            except OSError as error:
                fix = "datagrams are sent one by one, which is slower; Linux 5.0 and later have it"
                found.append(Finding(name, State.LIMITED, str(error.strerror), fix))
            else:
                found.append(Finding(name, State.OK, "the kernel has it"))
    return found


def _ipv6() -> list[Finding]:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as tried:
            tried.bind(("::1", 0))
    except OSError as error:
        fix = typed.as_root("sysctl", "-w", "net.ipv6.conf.all.disable_ipv6=0")
        return [Finding("IPv6", State.LIMITED, f"off ({error.strerror})", f"`{fix}`")]
    return [Finding("IPv6", State.OK, "on")]


def _kernel_wireguard() -> list[Finding]:
    """For information only: wgpy does not need it."""
    built_in = Path("/sys/module/wireguard").exists()
    seen = "loaded" if built_in else "not loaded; wgpy does not need it"
    return [Finding("kernel module", State.OK, f"wireguard is {seen}")]


def _sockets() -> list[Finding]:
    if not SOCKET_FOLDER.exists():
        return [Finding("sockets", State.OK, f"no interface has run yet ({SOCKET_FOLDER})")]
    if os.access(SOCKET_FOLDER, os.R_OK | os.X_OK):
        return [Finding("sockets", State.OK, f"{SOCKET_FOLDER} can be read")]
    seen = f"running interfaces cannot be seen ({SOCKET_FOLDER}: permission denied)"
    return [Finding("sockets", State.LIMITED, seen, f"`{typed.again_as_root()}`")]


def _namespaces() -> list[Finding]:
    """What the testbed, the demo and the benchmarks need."""
    unshare = _find("unshare")
    if unshare is None:
        return [Finding("namespaces", State.LIMITED, "not tested: unshare is missing")]
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    done = subprocess.run(
        [unshare, *user, "--net", "--mount", "true"], capture_output=True, text=True, check=False
    )
    how = "as root" if not user else "without root, in user namespaces"
    if done.returncode == 0:
        return [Finding("namespaces", State.OK, f"testbed and demo work {how}")]
    fix = f"`{typed.again_as_root()}`" if user else "in a container: --cap-add SYS_ADMIN"
    seen = "no network namespaces: testbed and demo only simulate"
    return [Finding("namespaces", State.LIMITED, seen, fix)]


def _tools() -> list[Finding]:
    missing = [name for name in TOOLS if _find(name) is None]
    found = [
        Finding("tools", State.OK, f"{' '.join(name for name in TOOLS if name not in missing)}")
    ]
    for name in missing:
        package, use = TOOLS[name]
        fix = f"`{typed.as_root('apt-get', 'install', package)}`"
        found.append(Finding(name, State.LIMITED, f"not installed; for {use}", fix))
    return found


def _find(name: str) -> str | None:
    """The folders of root's programs count even when a user's PATH leaves them out."""
    return shutil.which(name, path=os.pathsep.join((os.environ.get("PATH", ""), *SBIN)))


def _extras() -> list[Finding]:
    found = []
    for module, (extra, use) in EXTRAS.items():
        if importlib.util.find_spec(module) is not None:
            found.append(Finding(module, State.OK, f"installed; for {use}"))
        else:
            fix = typed.pip_install(f"wgpy[{extra}]")
            found.append(Finding(module, State.LIMITED, f"not installed; for {use}", f"`{fix}`"))
    return found


CHECKS: Final[tuple[Callable[[], list[Finding]], ...]] = (
    _system,
    _rights,
    _tun,
    _udp_offloads,
    _ipv6,
    _kernel_wireguard,
    _sockets,
    _namespaces,
    _tools,
    _extras,
)
