"""Sending everything through the tunnel (allowed IPs 0.0.0.0/0 or ::/0).

The tunnel's own datagrams carry a mark.  Packets without it use a separate routing table,
which has only the default route into the tunnel.  Before that, the main table is used for
anything more specific than a default route, so that local networks stay reachable.  See
wg-quick(8), "Table", and wireguard.com/netns.

A packet filter makes this safe under reverse path filtering: marks are kept per UDP flow,
and packets to the tunnel's addresses must come through the tunnel.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from wgpy.cli.common import note
from wgpy.cli.undo import Ledger
from wgpy.linux.netlink import MAIN_TABLE, Network, NetworkError, family_of
from wgpy.protocol.endpoint import AddressBytes, Prefix, format_address

_SRC_VALID_MARK: Final = Path("/proc/sys/net/ipv4/conf/all/src_valid_mark")


def route_everything(
    ledger: Ledger,
    say: Callable[[str], None],
    network: Network,
    prefix: Prefix,
    mark: int,
    addresses: Iterable[AddressBytes],
) -> None:
    """Policy rules, sysctl and packet filter for one family; the default route is there.

    `prefix` is 0.0.0.0/0 or ::/0, `mark` also the number of the table, `addresses` the
    tunnel's own ones of this family.
    """
    family = family_of(prefix.ip)
    flag = "-4" if len(prefix.ip) == 4 else "-6"
    say(f"ip {flag} rule add not fwmark {mark} table {mark}")
    ledger.record("rule", *network.add_rule(family, mark, mark))
    say(f"ip {flag} rule add table main suppress_prefixlength 0")
    ledger.record("rule", *network.add_rule(family, MAIN_TABLE, None))
    if len(prefix.ip) == 4:
        _allow_marked_sources(ledger, say)
    _filter(ledger, say, "ip" if len(prefix.ip) == 4 else "ip6", mark, addresses)


def _allow_marked_sources(ledger: Ledger, say: Callable[[str], None]) -> None:
    old = _SRC_VALID_MARK.read_text().strip()
    if old != "1":
        say("sysctl -q net.ipv4.conf.all.src_valid_mark=1")
        _SRC_VALID_MARK.write_text("1")
        ledger.record("sysctl", str(_SRC_VALID_MARK), old)


def _filter(
    ledger: Ledger,
    say: Callable[[str], None],
    family: str,
    mark: int,
    addresses: Iterable[AddressBytes],
) -> None:
    if shutil.which("nft") is None:
        note("nft not found: no packet filter; strict reverse path filtering may drop replies")
        return
    interface = ledger.interface
    table = f"wgpy-{interface}"
    guards = " ".join(
        f'iifname != "{interface}" {family} daddr {format_address(ip)}'
        " fib saddr type != local drop;"
        for ip in addresses
    )
    rules = (
        f"table {family} {table} {{"
        f" chain guard {{ type filter hook prerouting priority raw; {guards} }};"
        " chain recall { type filter hook prerouting priority mangle;"
        " meta l4proto udp meta mark set ct mark; };"
        " chain remember { type filter hook postrouting priority mangle;"
        f" meta l4proto udp meta mark {mark} ct mark set meta mark; }}; }}"
    )
    say(f"nft {shlex.quote(rules)}")
    done = subprocess.run(["nft", rules], capture_output=True, text=True, check=False)
    if done.returncode:
        raise NetworkError(f"nft refused the packet filter: {done.stderr.strip()}")
    ledger.record("nft", family, table)
