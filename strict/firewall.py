"""The kernel backstop: nftables rules that apply also while the data plane is down or replaced.

`strict.ruleset` says what the rules are.  This applies them and compares what the kernel has
with what was *written*: with the kernel's own echo of that transaction, not with a later read,
before which another program may have changed the rules.

Invariants: each change is one nft transaction; no other table is read or written; the
counters survive a change.  Works in the network namespace of the calling process.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from strict.ruleset import Backstop, Count, forget, render, table_name
from wgpy import typed
from wgpy.protocol.endpoint import Prefix

_FAMILIES: Final = ("netdev", "inet")
_LEGACY: Final = (Path("/proc/net/ip_tables_names"), Path("/proc/net/ip6_tables_names"))
"""The tables of iptables before nftables."""

_Tables = dict[str, Any]
"""Two tables in a comparable form: rules by chain in order, everything else sorted."""


class FirewallError(Exception):
    """nft refused; the ruleset is unchanged."""


class FirewallChanged(FirewallError):
    """Written, and immediately changed by another program."""


class Firewall:
    """Keeps the tables of one interface as a `Backstop` says."""

    def __init__(self, interface: str) -> None:
        self._name = table_name(interface)
        self._wanted: Backstop | None = None
        self._meant: _Tables = {}

    def apply(self, backstop: Backstop) -> bool:
        """Make the tables match; True if something had to change.

        Raises `FirewallError`, and `FirewallChanged` if the kernel's rules differ immediately.
        """
        if backstop == self._wanted and self.intact():
            return False
        self._write(backstop)
        return True

    def restore(self) -> bool:
        """Restore what was removed or changed; True if anything was.

        Raises `FirewallError`.
        """
        if self._wanted is None or self.intact():
            return False
        self._write(self._wanted)
        return True

    def intact(self) -> bool:
        """Whether the kernel's tables are as written."""
        return bool(self._meant) and _canonical(_objects(self._name)) == self._meant

    def counts(self) -> dict[str, Count]:
        """The counters; empty if the tables do not exist."""
        counts: dict[str, Count] = {}
        for item in _objects(self._name):
            if counter := item.get("counter"):
                counts[counter["name"]] = Count(counter["packets"], counter["bytes"])
        return counts

    def verdict(self) -> str:
        """What the kernel's rules do with pods' plaintext: ``drop``, ``count`` or ``absent``."""
        for rule in self._rules():
            if {"counter": "before_nat"} in rule:
                return "drop" if {"drop": None} in rule else "count"
        return "absent"

    def encrypts_nodes(self) -> bool:
        """Whether the kernel's rules were written with node encryption on."""
        return any({"counter": "egress_nodes"} in rule for rule in self._rules())

    def _rules(self) -> Iterator[list[Any]]:
        return (item["rule"]["expr"] for item in _objects(self._name) if "rule" in item)

    def sets(self) -> dict[str, tuple[Prefix, ...]]:
        """The sets of addresses that the kernel has, both families together, by name."""
        found: dict[str, set[Prefix]] = {}
        for item in _objects(self._name):
            if content := item.get("set"):
                prefixes = map(_prefix, content.get("elem", []))
                found.setdefault(content["name"][:-1], set()).update(prefixes)
        return {name: tuple(sorted(prefixes)) for name, prefixes in found.items()}

    def foreign_nat(self) -> bool:
        """Whether there are other NAT rules in this network namespace."""
        for names in _LEGACY:
            with contextlib.suppress(OSError):
                if "nat" in names.read_text().split():
                    return True
        listed = subprocess.run(
            ["nft", "-j", "list", "chains"], capture_output=True, text=True, check=False
        )
        chains = json.loads(listed.stdout)["nftables"] if listed.returncode == 0 else ()
        found = (item.get("chain", {}) for item in chains)
        return any(c.get("type") == "nat" and c["table"] != self._name for c in found)

    def remove(self) -> None:
        """Remove the tables, if they are there: the last step of taking a node down."""
        _nft("".join(forget(family, self._name) for family in _FAMILIES))
        self._wanted, self._meant = None, {}

    def _write(self, backstop: Backstop) -> None:
        self._meant = _canonical(_nft(render(backstop, self.counts())))
        self._wanted = backstop
        if not self.intact():
            raise FirewallChanged(
                "another program changed the backstop as soon as it was written: "
                "`nft monitor` shows the changes, `nft list ruleset` the rules"
            )


def counts(interface: str) -> dict[str, Count]:
    """The counters of an interface's backstop, for readers."""
    return Firewall(interface).counts()


def _canonical(items: Iterable[Mapping[str, Any]]) -> _Tables:
    """Without parts that change by themselves; an element belongs to its set."""
    rules: dict[str, list[str]] = {}
    others: set[str] = set()
    for item in items:
        for kind, content in item.items():
            content = {k: v for k, v in content.items() if k != "handle"}
            where = [content.get("family"), content.get("table"), content.get("chain")]
            if kind == "rule":
                expression = json.dumps(_sorted(content["expr"]), sort_keys=True)
                rules.setdefault(json.dumps(where), []).append(expression)
                continue
            if kind == "counter":
                del content["packets"], content["bytes"]
            elements = content.pop("elem", ())
            if isinstance(elements, dict):
                elements = elements["set"]
            for element in elements:
                others.add(json.dumps([*where, content["name"], element], sort_keys=True))
            if kind != "element":
                others.add(json.dumps([kind, content], sort_keys=True))
    return {"rules": rules, "others": others} if others else {}


def _sorted(value: Any) -> Any:
    """The same with the elements of anonymous sets sorted: nft prints them in any order."""
    if isinstance(value, list):
        return [_sorted(item) for item in value]
    if isinstance(value, dict):
        value = {key: _sorted(item) for key, item in value.items()}
        if isinstance(value.get("set"), list):
            value["set"].sort(key=json.dumps)
    return value


def _prefix(element: Any) -> Prefix:
    if isinstance(element, dict):
        found = element["prefix"]
        return Prefix.parse(f"{found['addr']}/{found['len']}")
    return Prefix.parse(element)


def _objects(name: str) -> Iterator[dict[str, Any]]:
    """Everything in both tables, as nft's JSON."""
    for family in _FAMILIES:
        command = ["nft", "-j", "list", "table", family, name]
        listed = subprocess.run(command, capture_output=True, text=True, check=False)
        if listed.returncode == 0:
            for item in json.loads(listed.stdout)["nftables"]:
                if "metainfo" not in item:
                    yield item


def _nft(text: str) -> list[dict[str, Any]]:
    """One transaction; returns what the kernel reports as added.

    From a file in memory: with `-j` nft tries JSON first and then reads the text again.
    """
    try:
        with os.fdopen(os.memfd_create("nft"), "w") as file:
            file.write(text)
            file.flush()
            command = ["nft", "-j", "-e", "-f", f"/proc/self/fd/{file.fileno()}"]
            done = subprocess.run(
                command, capture_output=True, text=True, check=False, pass_fds=[file.fileno()]
            )
    except FileNotFoundError as error:
        install = typed.as_root("apt-get", "install", "nftables")
        raise FirewallError(f"nft is not installed (try `{install}`)") from error
    if done.returncode:
        raise FirewallError(f"nft refused the backstop: {done.stderr.strip()}")
    said = json.loads(done.stdout)["nftables"] if done.stdout.strip() else []
    return [item["add"] for item in said if "add" in item]
