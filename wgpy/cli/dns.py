"""Name servers and search domains while a tunnel is up, as wg-quick sets them.

With resolvconf (Debian's, openresolv, or the one of systemd) if there is one, else with
resolvectl where systemd-resolved runs.  Without either the file's DNS cannot be set, and a
warning says that names are resolved outside the tunnel.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from wgpy import typed
from wgpy.cli.common import note
from wgpy.cli.undo import Ledger
from wgpy.linux.netlink import NetworkError

INTERFACE_ORDER: Final = Path("/etc/resolvconf/interface-order")


def set_dns(ledger: Ledger, say: Callable[[str], None], words: Iterable[str]) -> bool:
    """Set what a file's DNS lines say; False if this host has no tool for it.

    Raises `NetworkError`.
    """
    servers, domains = split(words)
    if shutil.which("resolvconf"):
        name = record_name(ledger.interface)
        lines = "".join(f"nameserver {server}\n" for server in servers)
        lines += f"search {' '.join(domains)}\n" if domains else ""
        command = ["resolvconf", "-a", name, "-m", "0", "-x"]
        escaped = shlex.quote(lines.replace("\n", "\\n"))
        say(f"printf %b {escaped} | {shlex.join(command)}")
        ledger.record("resolvconf", name)
        _run(command, lines)
        return True
    if shutil.which("resolvectl") and _works("resolvectl", "status"):
        ledger.record("resolvectl", ledger.interface)
        # "~.": for every name, not only those of the domains.
        for command in (
            ["resolvectl", "dns", ledger.interface, *servers],
            ["resolvectl", "domain", ledger.interface, "~.", *domains],
        ):
            say(shlex.join(command))
            _run(command, "")
        return True
    note(
        f"WARNING: DNS = {', '.join([*servers, *domains])} is NOT set: there is neither resolvconf"
        " nor systemd-resolved.  Names are still resolved OUTSIDE the tunnel"
        f" (try `{typed.as_root('apt-get', 'install', 'openresolv')}`)"
    )
    return False


def split(words: Iterable[str]) -> tuple[list[str], list[str]]:
    """Name servers and search domains, distinguished as wg-quick does."""
    servers: list[str] = []
    domains: list[str] = []
    for word in words:
        (servers if re.fullmatch(r"[0-9.]+|.*:.*", word) else domains).append(word)
    return servers, domains


def record_name(interface: str) -> str:
    """The interface as resolvconf knows it: Debian's sorts by prefixes such as ``tun.``."""
    try:
        order = INTERFACE_ORDER.read_text().splitlines()
    except OSError:
        return interface
    prefixes = (match[1] for line in order if (match := re.fullmatch(r"([A-Za-z0-9-]+)\*", line)))
    prefix = next(prefixes, "")
    return f"{prefix}.{interface}" if prefix else interface


def _run(command: list[str], text: str) -> None:
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        said = done.stderr.strip() or f"exit code {done.returncode}"
        raise NetworkError(f"DNS: {shlex.join(command)}: {said}")


def _works(*command: str) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0
