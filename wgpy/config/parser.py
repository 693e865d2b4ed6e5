"""Lines into values: sections, keys, and every mistake found on the way."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from wgpy.config import values
from wgpy.config.model import Config, ConfigError, PeerConfig, Problem
from wgpy.protocol.crypto import backend
from wgpy.protocol.endpoint import Prefix
from wgpy.protocol.keys import PresharedKey, PrivateKey, PublicKey


class _Field(NamedTuple):
    """How a key is read: the attribute it sets; `many` values add up over lines."""

    name: str
    parse: Callable[[str], Any]
    many: bool = False
    note: str = ""


_INTERFACE: Final = {
    "PrivateKey": _Field("private_key", lambda text: values.key(PrivateKey, text)),
    "ListenPort": _Field("listen_port", values.number(0, 65535)),
    "FwMark": _Field("fwmark", values.fwmark),
    "Address": _Field("addresses", values.addresses, many=True),
    "MTU": _Field("mtu", values.number(68, 65521)),
    "DNS": _Field("dns", values.words, many=True, note="is ignored: set name servers in a PostUp"),
    "Table": _Field("table", values.table),
    "PreUp": _Field("pre_up", values.command, many=True),
    "PostUp": _Field("post_up", values.command, many=True),
    "PreDown": _Field("pre_down", values.command, many=True),
    "PostDown": _Field("post_down", values.command, many=True),
    "SaveConfig": _Field("save_config", values.boolean),
}
_PEER: Final = {
    "PublicKey": _Field("public_key", lambda text: values.key(PublicKey, text)),
    "PresharedKey": _Field("preshared_key", lambda text: values.key(PresharedKey, text)),
    "AllowedIPs": _Field("allowed_ips", values.allowed_ips, many=True),
    "Endpoint": _Field("endpoint", values.endpoint),
    "PersistentKeepalive": _Field("persistent_keepalive", values.number(0, 65535, "off")),
}
_SECTIONS: Final = {"Interface": _INTERFACE, "Peer": _PEER}
_NAMES: Final = {key.lower(): key for fields in _SECTIONS.values() for key in fields}


def _closest(word: str, choices: list[str]) -> str:
    folded = {choice.lower(): choice for choice in choices}
    close = difflib.get_close_matches(word.lower(), folded, 1, 0.6)
    return folded[close[0]] if close else ""


def _shown(text: str) -> str:
    """`text` in quotes, unless it is long or looks like a key: then its length only."""
    if len(text) > 80 or re.search(r"[A-Za-z0-9+/]{24,}", text):
        return f"<{len(text)} characters>"
    return repr(text)


def _shown_word(word: str, meant: str) -> str:
    """An unknown key, if it is short or a slip of `meant`; it may be a piece of a secret."""
    if word.isalpha() and word.isascii() and (meant or len(word) < 12):
        return repr(word)
    return f"<{len(word)} characters>"


class _Section:
    """One section while it is read: values, and the lines they came from."""

    def __init__(self, kind: str, line: int) -> None:
        self.kind = kind
        self.line = line
        self.values: dict[str, Any] = {}
        self.lines: dict[str, int] = {}


class _Parser:
    """Reads line by line and collects problems instead of stopping at the first."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.sections: list[_Section] = []
        self.known = True

    def refuse(self, line: int, column: int, text: str, message: str, fix: str) -> None:
        self.problems.append(Problem(line, column, text, message, fix))

    def note(self, line: int, column: int, text: str, message: str, fix: str = "") -> None:
        self.problems.append(Problem(line, column, text, message, fix, note=True))

    def read(self, text: str) -> None:
        for number, raw in enumerate(text.removeprefix("\ufeff").split("\n"), 1):
            line = raw.partition("#")[0].rstrip()
            stripped = line.lstrip()
            if not stripped:
                continue
            column = len(line) - len(stripped) + 1
            if stripped.startswith("["):
                self._open(number, column, stripped)
            else:
                self._assign(number, column, stripped)

    def _open(self, line: int, column: int, text: str) -> None:
        names = {f"[{name}]".lower(): name for name in _SECTIONS}
        kind = names.get(text.lower())
        self.known = kind is not None
        if kind is None:
            close = _closest(text, [f"[{name}]" for name in _SECTIONS])
            fix = f"did you mean {close}?" if close else "sections are [Interface] and [Peer]"
            self.refuse(line, column, _shown(text), "no such section", fix)
            return
        earlier = [section for section in self.sections if section.kind == kind == "Interface"]
        if earlier:
            message = f"[Interface] was opened before, in line {earlier[0].line}"
            self.refuse(line, column, "", message, "put all of [Interface] in one section")
        self.sections.append(_Section(kind, line))

    def _assign(self, line: int, column: int, text: str) -> None:
        name, equals, value = text.partition("=")
        word = name.rstrip()
        if not equals or not word or " " in word:
            self._no_assignment(line, column, text)
            return
        if not self.known:
            return  # the section itself was refused: its keys mean nothing
        if not self.sections:
            fix = "put [Interface] or [Peer] before the first key"
            self.refuse(line, column, "", "a key before the first section", fix)
            return
        section = self.sections[-1]
        key = _NAMES.get(word.lower(), "")
        if key not in _SECTIONS[section.kind]:
            self._unknown(line, column, section, key, word)
            return
        value_column = column + len(name) + 1 + len(value) - len(value.lstrip())
        self._value(line, value_column, section, key, value.strip())

    def _no_assignment(self, line: int, column: int, text: str) -> None:
        word = re.split(r"[\s:=]", text, maxsplit=1)[0]
        close = _closest(word, list(_NAMES.values()))
        fix = f"write {close or 'KEY'} = VALUE"
        self.refuse(line, column, "", f"not KEY = VALUE ({len(text)} characters)", fix)

    def _unknown(self, line: int, column: int, section: _Section, key: str, word: str) -> None:
        if key:
            other = "Peer" if section.kind == "Interface" else "Interface"
            message = f"{key} does not belong to [{section.kind}]"
            self.refuse(line, column, "", message, f"move it to [{other}]")
            return
        close = _closest(word, list(_SECTIONS[section.kind]))
        known = ", ".join(_SECTIONS[section.kind])
        fix = f"did you mean {close}?" if close else f"keys of [{section.kind}] are {known}"
        self.refuse(line, column, _shown_word(word, close), "no such key", fix)

    def _value(self, line: int, column: int, section: _Section, key: str, text: str) -> None:
        field = _SECTIONS[section.kind][key]
        if field.name in section.lines and not field.many:
            message = f"{key} was given before, in line {section.lines[field.name]}"
            self.refuse(line, column, "", message, "keep one of the two")
            return
        section.lines.setdefault(field.name, line)
        try:
            value = field.parse(text)
        except values.BadValue as bad:
            shown = _shown(bad.text) if bad.text else ""
            self.refuse(line, column + bad.offset, shown, f"{key}: {bad.message}", bad.fix)
            return
        if field.note:
            self.note(line, column, "", f"{key} {field.note}")
        if field.name == "allowed_ips":
            self._note_host_bits(line, column, text)
        section.values[field.name] = section.values.get(field.name, ()) + value if (
            field.many
        ) else value

    def _note_host_bits(self, line: int, column: int, text: str) -> None:
        for offset, item in values.items(text):
            address = values.interface_address(offset, item)
            prefix = Prefix.masked(*address)
            if prefix.ip != address.ip:
                message = f"AllowedIPs: host bits are cleared, this means {prefix}"
                self.note(line, column + offset, _shown(item), message, f"write {prefix}")


def parse_config(text: str, *, file: str = "<config>") -> Config:
    """The configuration that `text` says; raises `ConfigError` with every mistake in it."""
    parser = _Parser()
    parser.read(text)
    interface = next((s for s in parser.sections if s.kind == "Interface"), None)
    if interface is None:
        if parser.known:
            parser.refuse(1, 1, "", "no [Interface] section", "begin the file with [Interface]")
        interface = _Section("Interface", 1)
    elif "private_key" not in interface.lines:
        message = "no PrivateKey: the interface cannot make handshakes until one is set"
        parser.note(interface.line, 1, "", message, "`wgpy genkey` prints one")
    if interface.values.get("save_config"):
        message = "SaveConfig is ignored: the file stays as it is"
        parser.note(interface.lines["save_config"], 1, "", message)
    peers = _peers(parser, interface.values.get("private_key"))
    problems = tuple(sorted(parser.problems, key=lambda p: (p.line, p.column)))
    if not all(problem.note for problem in problems):
        raise ConfigError(file, problems)
    return Config(**interface.values, peers=peers, notes=problems)


def _peers(parser: _Parser, private_key: PrivateKey | None) -> tuple[PeerConfig, ...]:
    """The peers, after checks that look at more than one line."""
    peers = []
    own = backend().public_key(private_key) if private_key else None
    keys: dict[PublicKey, int] = {}
    owners: dict[Prefix, int] = {}
    for section in parser.sections:
        if section.kind != "Peer":
            continue
        if "public_key" not in section.lines:
            fix = "every [Peer] needs a PublicKey"
            parser.refuse(section.line, 1, "", "this peer has no PublicKey", fix)
        key = section.values.get("public_key")
        if key is None:
            continue
        if key in keys:
            message = f"this PublicKey is also that of the peer in line {keys[key]}"
            parser.refuse(section.lines["public_key"], 1, "", message, "join the two sections")
        keys.setdefault(key, section.line)
        if key == own:
            message = "this PublicKey is the interface's own: the peer will be ignored"
            parser.note(section.lines["public_key"], 1, "", message, "write the other end's")
        prefixes = tuple(Prefix.masked(*ip) for ip in section.values.get("allowed_ips", ()))
        for prefix in dict.fromkeys(prefixes):
            if prefix in owners:
                message = f"AllowedIPs {prefix} moves here from the peer in line {owners[prefix]}"
                parser.note(section.lines["allowed_ips"], 1, "", message, "give it to one peer")
            owners[prefix] = section.line
        peers.append(PeerConfig(**section.values | {"allowed_ips": prefixes}))
    return tuple(peers)
