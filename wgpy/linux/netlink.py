"""Addresses, routes and policy rules through netlink, as `ip` would set them.

One short-lived `Network` per task; it acts in the network namespace of its thread.
Every method raises `NetworkError` with a message for the user.  What to set, and in which
order, is up to the caller.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from wgpy.protocol.endpoint import AddressBytes, Prefix, format_address

MAIN_TABLE: Final = 254
_PROTO_KERNEL: Final = 2
_RULE_TO_TABLE: Final = 1
_RULE_INVERTED: Final = 2
_FIRST_DEFAULT_PRIORITY: Final = 32766


class NetworkError(Exception):
    """The kernel refused; the text says what was tried and why it failed."""


class Rule(NamedTuple):
    """One policy rule.  `family` AF_INET or AF_INET6; `priority` as the kernel keeps it.

    With `mark`: everything *not* so marked looks into `table`.  Without: `table` is asked
    for anything more specific than a default route ("suppress_prefixlength 0").
    """

    family: int
    priority: int
    table: int
    mark: int | None

    def arguments(self) -> dict[str, Any]:
        common = {"family": self.family, "priority": self.priority, "table": self.table}
        common["action"] = _RULE_TO_TABLE
        if self.mark is None:
            return common | {"suppress_prefixlen": 0}
        return common | {"fwmark": self.mark, "flags": _RULE_INVERTED}


def family_of(ip: AddressBytes) -> int:
    """AF_INET or AF_INET6 of a packed address."""
    return socket.AF_INET if len(ip) == 4 else socket.AF_INET6


class Network:
    """A netlink socket and the questions and changes that a tunnel needs."""

    def __init__(self) -> None:
        self._ip = IPRoute(ext_ack=True, strict_check=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ip.close()

    def index(self, name: str) -> int | None:
        """The interface's number, None when there is no such interface."""
        found = self._ip.link_lookup(ifname=name)
        return int(found[0]) if found else None

    def _index(self, name: str) -> int:
        index = self.index(name)
        if index is None:
            raise NetworkError(f"interface {name} does not exist")
        return index

    def delete_link(self, name: str) -> None:
        """Delete the interface; fine when it is gone already."""
        index = self.index(name)
        if index is not None:
            with _saying(f"delete interface {name}"):
                self._ip.link("del", index=index)

    def set_up(self, name: str, mtu: int) -> None:
        """Set the MTU in bytes and bring the interface up."""
        with _saying(f"set {name} up with MTU {mtu}"):
            self._ip.link("set", index=self._index(name), mtu=mtu, state="up")

    def add_address(self, name: str, ip: AddressBytes, length: int) -> None:
        """Give the interface an address with the length of its prefix."""
        text = format_address(ip)
        with _saying(f"add address {text}/{length} to {name}"):
            self._ip.addr(
                "add", index=self._index(name), address=text, prefixlen=length, family=family_of(ip)
            )

    def addresses(self, name: str) -> list[str]:
        """The interface's addresses with their lengths, such as "10.0.0.1/24"."""
        messages = self._ip.get_addr(index=self._index(name))
        return [f"{message.get('address')}/{message['prefixlen']}" for message in messages]

    def mtu(self, name: str) -> int:
        """The interface's MTU in bytes."""
        (link,) = self._ip.get_links(self._index(name))
        return int(link.get("mtu"))

    def routes_into(self, name: str) -> list[str]:
        """Routes of all tables into the interface, but those that come with its addresses."""
        index, found = self._index(name), []
        for family, width in ((socket.AF_INET, 4), (socket.AF_INET6, 16)):
            for message in self._ip.get_routes(family=family):
                if message.get("oif") == index and message["proto"] != _PROTO_KERNEL:
                    destination = message.get("dst") or format_address(bytes(width))
                    found.append(f"{destination}/{message['dst_len']}")
        return found

    def leads_into(self, name: str, ip: AddressBytes, mark: int) -> bool:
        """Whether a datagram to `ip` with `mark` is routed into the interface."""
        index = self.index(name)
        marked = {"mark": mark} if mark else {}
        try:
            answers = self._ip.route(
                "get", dst=format_address(ip), family=family_of(ip), **marked
            )
            return index is not None and any(a.get("oif") == index for a in answers)
        except NetlinkError:
            return False

    def add_route(self, name: str, prefix: Prefix, table: int = MAIN_TABLE) -> None:
        """Route `prefix` into the interface."""
        with _saying(f"add route {prefix} to {name} in table {table}"):
            self._ip.route(
                "add",
                dst=str(prefix),
                oif=self._index(name),
                table=table,
                family=family_of(prefix.ip),
                scope=253 if len(prefix.ip) == 4 else 0,
            )

    def routes(self, family: int, **match: int) -> list[tuple[Prefix, int]]:
        """Routes with their interfaces' numbers; `match` may name a ``table``."""
        found = []
        width = 4 if family == socket.AF_INET else 16
        for message in self._ip.get_routes(family=family, **match):
            destination = message.get("dst") or format_address(bytes(width))
            prefix = Prefix.parse(f"{destination}/{message['dst_len']}")
            found.append((prefix, message.get("oif") or 0))
        return found

    def covered(self, name: str, prefix: Prefix) -> bool:
        """Whether a route of the main table into the interface holds all of `prefix`."""
        index = self._index(name)
        return any(
            oif == index and route.length <= prefix.length and prefix.ip in route
            for route, oif in self.routes(family_of(prefix.ip), table=MAIN_TABLE)
        )

    def free_table(self, first: int) -> int:
        """The first routing table from `first` on that holds no route of either family."""
        table = first
        while any(self.routes(family, table=table) for family in (socket.AF_INET, socket.AF_INET6)):
            table += 1
        return table

    def mtu_towards(self, ip: AddressBytes) -> int | None:
        """MTU of the route to an address, or of its interface; None without a route."""
        try:
            answers = list(self._ip.route("get", dst=format_address(ip), family=family_of(ip)))
        except NetlinkError:
            return None
        return self._mtu(answers[0]) if answers else None

    def default_mtu(self) -> int | None:
        """MTU of the IPv4 default route or of its interface; None without one."""
        for message in self._ip.get_routes(family=socket.AF_INET, table=MAIN_TABLE):
            if message["dst_len"] == 0:
                return self._mtu(message)
        return None

    def _mtu(self, route: Any) -> int | None:
        metrics = route.get("metrics")
        mtu = metrics.get("mtu") if metrics else None
        if not mtu and route.get("oif"):
            links = list(self._ip.get_links(route.get("oif")))
            mtu = links[0].get("mtu") if links else None
        return int(mtu) if mtu else None

    def add_rule(self, family: int, table: int, mark: int | None) -> Rule:
        """Add a rule in front of all that were added before, as the kernel does by itself."""
        used = [message.get("priority") or 0 for message in self._ip.get_rules(family=family)]
        priority = min([number for number in used if number] + [_FIRST_DEFAULT_PRIORITY]) - 1
        rule = Rule(family, priority, table, mark)
        with _saying(f"add the policy rule for table {table}"):
            self._ip.rule("add", **rule.arguments())
        return rule

    def delete_rule(self, rule: Rule) -> None:
        """Take exactly this rule away."""
        with _saying(f"delete the policy rule for table {rule.table}"):
            self._ip.rule("del", **rule.arguments())

    def rules(self, family: int) -> list[Rule]:
        """The rules of the two kinds that `add_rule` makes."""
        found = []
        for message in self._ip.get_rules(family=family):
            mark, table = message.get("fwmark"), message.get("table") or message["table"]
            inverted = bool(message["flags"] & _RULE_INVERTED)
            suppressing = message.get("suppress_prefixlen") == 0
            if (mark and inverted) or suppressing:
                rule_mark = mark if inverted else None
                found.append(Rule(family, message.get("priority") or 0, table, rule_mark))
        return found


@contextmanager
def _saying(what: str) -> Iterator[None]:
    try:
        yield
    except NetlinkError as error:
        raise NetworkError(f"cannot {what}: {_reason(error)}") from error


def _reason(error: NetlinkError) -> str:
    """The error in words, and what the kernel says beyond its number (extended ack)."""
    plain = os.strerror(error.code)
    said = str(error.args[1] or "").rstrip("\0. ")
    return plain if said in ("", plain) else f"{said} ({plain})"
