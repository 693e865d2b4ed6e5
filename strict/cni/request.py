"""What the runtime asks for: environment variables and a JSON document on standard input."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from strict.cni import errors
from strict.cni.errors import CniError

VERSIONS: Final = ("1.0.0", "1.1.0")
NEWEST: Final = VERSIONS[-1]
VERBS: Final = ("ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION")
_NEEDS: Final[Mapping[str, tuple[str, ...]]] = {
    "ADD": ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"),
    "CHECK": ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"),
    "DEL": ("CNI_CONTAINERID", "CNI_IFNAME"),
    "GC": ("CNI_PATH",),
}
_SINCE_1_1: Final = ("GC", "STATUS")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*\Z")
_IFNAME: Final = re.compile(r"(?!\.{1,2}\Z)[^\s/:]{1,15}\Z")


class Request(NamedTuple):
    """One call.  Empty texts where the verb does not need them."""

    verb: str
    version: str
    container: str
    netns: str
    ifname: str
    path: tuple[str, ...]
    """Folders of other plugins."""
    config: Mapping[str, Any]
    environment: Mapping[str, str]

    @property
    def network(self) -> str:
        return str(self.config["name"])

    @property
    def attachment(self) -> dict[str, str]:
        """The key of all state, by the specification."""
        return {"network": self.network, "container": self.container, "ifname": self.ifname}

    @property
    def agent(self) -> str:
        """The agent's socket."""
        return str(self.config["agent"])

    @property
    def ipam(self) -> Mapping[str, Any]:
        """Who gives addresses; empty in a plugin that is chained behind another one."""
        found: Mapping[str, Any] = self.config.get("ipam") or {}
        return found

    @property
    def previous(self) -> Mapping[str, Any]:
        """The result of the plugin before, or of ADD; empty without one."""
        found: Mapping[str, Any] = self.config.get("prevResult") or {}
        return found


def version_of(text: bytes) -> str:
    """The version to answer an error in, whatever else is wrong with the document."""
    try:
        found = json.loads(text)["cniVersion"]
    except (ValueError, KeyError, TypeError):
        return NEWEST
    return found if found in VERSIONS else NEWEST


def parse(environment: Mapping[str, str], text: bytes) -> Request:
    """Raises `CniError`."""
    verb = environment.get("CNI_COMMAND", "")
    if verb not in VERBS:
        shown = f"{verb!r} is none" if verb else "it is missing"
        raise CniError(errors.INVALID_ENVIRONMENT, "CNI_COMMAND must be one of "
                       f"{', '.join(VERBS)}: {shown}")  # fmt: skip
    config = _document(text)
    version = config.get("cniVersion", "0.1.0")
    if verb == "VERSION":
        return Request(verb, str(version), "", "", "", (), config, environment)
    _check_version(verb, version)
    _check_environment(verb, environment)
    _check_config(config)
    return Request(
        verb,
        version,
        environment.get("CNI_CONTAINERID", ""),
        environment.get("CNI_NETNS", ""),
        environment.get("CNI_IFNAME", ""),
        tuple(filter(None, environment.get("CNI_PATH", "").split(os.pathsep))),
        config,
        environment,
    )


def _document(text: bytes) -> dict[str, Any]:
    try:
        config = json.loads(text)
    except (ValueError, RecursionError) as error:
        what = "the network configuration on standard input is not JSON"
        raise CniError(errors.UNDECODABLE, what, str(error)) from None
    if not isinstance(config, dict):
        what = "the network configuration on standard input is not a JSON object"
        raise CniError(errors.UNDECODABLE, what)
    return config


def _check_version(verb: str, version: object) -> None:
    if version not in VERSIONS:
        known = ", ".join(VERSIONS)
        raise CniError(errors.INCOMPATIBLE_VERSION, f"incompatible CNI version {version!r}",
                       f"set cniVersion to one of {known}")  # fmt: skip
    if verb in _SINCE_1_1 and version == "1.0.0":
        raise CniError(errors.INCOMPATIBLE_VERSION, f"{verb} needs CNI version 1.1.0",
                       f"the configuration says {version}")  # fmt: skip


def _check_environment(verb: str, environment: Mapping[str, str]) -> None:
    needed = _NEEDS.get(verb, ())
    wrong = [name for name in needed if not environment.get(name)]
    for name, form in (("CNI_CONTAINERID", _NAME), ("CNI_IFNAME", _IFNAME)):
        if name in needed and name not in wrong and not form.match(environment[name]):
            wrong.append(name)
    if wrong:
        raise CniError(errors.INVALID_ENVIRONMENT, f"missing or invalid: {', '.join(wrong)}")


def _check_config(config: Mapping[str, Any]) -> None:
    """The keys that are ours.  Others belong to the runtime or to the IPAM plugin."""
    name = config.get("name")
    if not isinstance(name, str) or not _NAME.match(name):
        _refuse("name", "the network's name: letters, digits and _.-, a letter or digit first")
    agent = config.get("agent")
    if not isinstance(agent, str) or not agent.startswith("/"):
        _refuse("agent", "the path of the agent's socket: `wgpy strict cni install` writes it")
    mtu = config.get("mtu", 1500)
    if not isinstance(mtu, int) or isinstance(mtu, bool) or not 1280 <= mtu <= 65535:
        _refuse("mtu", "a number of bytes, 1280 to 65535")
    ipam, previous = config.get("ipam"), config.get("prevResult")
    if ipam and (not isinstance(ipam, dict) or not isinstance(ipam.get("type"), str)):
        _refuse("ipam", 'an object with the IPAM plugin\'s name as "type"')
    if previous and not isinstance(previous, dict):
        _refuse("prevResult", "the result of the plugin before")


def _refuse(key: str, meaning: str) -> None:
    raise CniError(errors.INVALID_CONFIG, f"invalid network configuration: {key!r}",
                   f"{key!r} must be {meaning}")  # fmt: skip
