"""What a container runtime reads: the network's configuration, and the plugin's program.

`install` writes one conflist and one link, `uninstall` removes exactly these.  Neither
touches what somebody else has put there.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from strict.cni.request import VERSIONS
from strict.cni.server import CNI
from strict.config import AgentConfig
from strict.discovery.static import read_cluster
from strict.document import load
from wgpy.protocol.endpoint import Prefix
from wgpy.sockets import SOCKET_FOLDER, socket_path

PLUGIN: Final = "wgpy-cni"
NETWORK: Final = "wgpy"
CONFIG_FOLDER: Final = Path("/etc/cni/net.d")
PROGRAM_FOLDER: Final = Path("/opt/cni/bin")
LEASES: Final = Path("/run/cni/leases")
"""Below /run: after a reboot no container has an address."""


class InstallRefused(Exception):
    """Something else is in the way, or something is missing: one line for people."""


def conflist(network: str, interface: str, ranges: Iterable[Prefix]) -> dict[str, Any]:
    """The configuration of a network of this node's pods, with `host-local` addresses."""
    ipam = {
        "type": "host-local",
        "dataDir": str(LEASES),
        "ranges": [[{"subnet": str(prefix)}] for prefix in ranges],
    }
    agent = str(socket_path(interface, CNI, SOCKET_FOLDER))
    return {
        "cniVersion": VERSIONS[0],
        "cniVersions": list(VERSIONS),
        "name": network,
        "plugins": [{"type": PLUGIN, "agent": agent, "ipam": ipam}],
    }


def own_ranges(config: AgentConfig) -> tuple[Prefix, ...]:
    """The node's pod CIDRs, as the cluster's file has them.

    Raises `DocumentRefused`; ValueError when it has none.
    """
    document = load(config.cluster)
    cluster = read_cluster(document)
    document.check()
    node = cluster.nodes.get(config.node.name)
    if node is None or not node.pod_cidrs:
        raise ValueError(
            f"{config.cluster}: node {config.node.name!r} has no pod_cidrs: write them there, or "
            "give --pod-cidr"
        )
    return node.pod_cidrs


def config_path(network: str, folder: Path) -> Path:
    """First among its neighbours: a runtime takes the first file that it finds."""
    return folder / f"10-{network}.conflist"


def program() -> Path:
    """The plugin of this installation; raises `InstallRefused`."""
    beside = Path(sys.executable).with_name(PLUGIN)
    found = str(beside) if beside.exists() else shutil.which(PLUGIN)
    if not found:
        raise InstallRefused(f"{PLUGIN} is not installed beside {sys.executable}: install wgpy "
                             "with its console scripts")  # fmt: skip
    return Path(found)


def install(config: dict[str, Any], config_folder: Path, program_folder: Path) -> list[Path]:
    """Write both, the program first; returns their paths.

    Raises `InstallRefused`, OSError; then neither is new.
    """
    path, link = config_path(config["name"], config_folder), program_folder / PLUGIN
    target = program()
    _check_link(link)
    _check_config(path)
    for folder in (config_folder, program_folder):
        folder.mkdir(parents=True, exist_ok=True)
    before = os.readlink(link) if link.is_symlink() else None  # noqa: PTH115
    _link(link, str(target))
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        partial.write_text(json.dumps(config, indent=2) + "\n")
        partial.replace(path)
    except OSError:
        partial.unlink(missing_ok=True)
        if before is None:
            link.unlink()
        else:
            _link(link, before)
        raise
    return [path, link]


def uninstall(network: str, config_folder: Path, program_folder: Path) -> list[Path]:
    """Remove both, the configuration first; returns what was there.

    Raises `InstallRefused`, OSError.
    """
    path, link = config_path(network, config_folder), program_folder / PLUGIN
    _check_config(path)
    _check_link(link)
    found = [item for item in (path, link) if item.is_symlink() or item.exists()]
    for item in found:
        item.unlink()
    return found


def _link(link: Path, target: str) -> None:
    partial = link.with_name(f".{link.name}.{os.getpid()}")
    partial.unlink(missing_ok=True)
    partial.symlink_to(target)
    partial.replace(link)


def _check_link(link: Path) -> None:
    if link.exists() and not link.is_symlink():
        raise InstallRefused(f"{link} is not a link, so it is somebody else's: move it away")


def _check_config(path: Path) -> None:
    """Ours is one whose first plugin is ours."""
    try:
        plugins = json.loads(path.read_text())["plugins"]
        ours = plugins[0]["type"] == PLUGIN
    except FileNotFoundError:
        return
    except (ValueError, KeyError, IndexError, TypeError):
        ours = False
    if not ours:
        raise InstallRefused(f"{path} is not a network of {PLUGIN}: move it away, or choose "
                             "another --network")  # fmt: skip
