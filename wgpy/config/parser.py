"""Lines into values: sections, keys, and every mistake found on the way.

In practice two programs read a file: wg-quick takes its own keys out of [Interface] and passes
the rest to `wg`, which removes all blanks first.  So ``Allowed IPs`` is a key and ``Add ress``
is not.  Of two values the last counts, as there; this reader adds a note.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from wgpy.config import checks, values
from wgpy.config.model import Config, ConfigError, HostPort, PeerConfig, Problem
from wgpy.config.values import BLANKS, DEFAULT_TABLES
from wgpy.protocol.crypto import backend
from wgpy.protocol.endpoint import Prefix
from wgpy.protocol.keys import PresharedKey, PrivateKey, PublicKey


class _Field(NamedTuple):
    """How a key is read: the attribute it sets; `many` values add up over lines.

    `quick` keys are wg-quick's own.
    """

    name: str
    parse: Callable[[str], Any]
    many: bool = False
    quick: bool = False


_INTERFACE: Final = {
    "PrivateKey": _Field("private_key", lambda text: values.key(PrivateKey, text)),
    "ListenPort": _Field("listen_port", values.port(0)),
    "FwMark": _Field("fwmark", values.fwmark),
    "Address": _Field("addresses", values.addresses, many=True, quick=True),
    "MTU": _Field("mtu", values.mtu, quick=True),
    "DNS": _Field("dns", values.words, many=True, quick=True),
    "Table": _Field("table", lambda text: values.table(text, DEFAULT_TABLES), quick=True),
    "PreUp": _Field("pre_up", values.command, many=True, quick=True),
    "PostUp": _Field("post_up", values.command, many=True, quick=True),
    "PreDown": _Field("pre_down", values.command, many=True, quick=True),
    "PostDown": _Field("post_down", values.command, many=True, quick=True),
    "SaveConfig": _Field("save_config", values.boolean, quick=True),
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


def _without_blanks(text: str) -> str:
    return "".join(character for character in text if character not in BLANKS)


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

    def __init__(self, tables: Mapping[str, int]) -> None:
        self.problems: list[Problem] = []
        self.sections: list[_Section] = []
        self.known = True
        table = _INTERFACE["Table"]._replace(parse=lambda text: values.table(text, tables))
        self.fields = {"Interface": _INTERFACE | {"Table": table}, "Peer": _PEER}

    def refuse(
        self, line: int, column: int, text: str, message: str, fix: str, replacement: str = ""
    ) -> None:
        problem = Problem(line, column, text, message, fix, replacement=replacement)
        self.problems.append(problem)

    def note(self, line: int, column: int, text: str, message: str, fix: str = "") -> None:
        self.problems.append(Problem(line, column, text, message, fix, note=True))

    def read(self, text: str) -> None:
        for number, raw in enumerate(text.removeprefix("\ufeff").split("\n"), 1):
            line = raw.partition("#")[0].rstrip(BLANKS)
            stripped = line.lstrip(BLANKS)
            if not stripped:
                continue
            column = len(line) - len(stripped) + 1
            if stripped.startswith("["):
                self._open(number, column, stripped)
            else:
                self._assign(number, column, stripped)

    def _open(self, line: int, column: int, text: str) -> None:
        names = {f"[{name}]".lower(): name for name in _SECTIONS}
        kind = names.get(_without_blanks(text).lower())
        self.known = kind is not None
        if kind is None:
            close = _closest(text, [f"[{name}]" for name in _SECTIONS])
            fix = f"did you mean {close}?" if close else "sections are [Interface] and [Peer]"
            self.refuse(line, column, _shown(text), "no such section", fix)
            return
        earlier = [section for section in self.sections if section.kind == kind == "Interface"]
        if earlier:
            message = f"[Interface] was opened before, in line {earlier[0].line}"
            self.note(line, column, "", message, "put all of [Interface] in one section")
            self.sections.remove(earlier[0])
        self.sections += earlier or [_Section(kind, line)]

    def _assign(self, line: int, column: int, text: str) -> None:
        name, equals, value = text.partition("=")
        word = name.rstrip(BLANKS)
        if not equals or not word:
            self._no_assignment(line, column, text)
            return
        if not self.known:
            return  # the section itself was refused, so its keys are ignored
        if not self.sections:
            fix = "put [Interface] or [Peer] before the first key"
            self.refuse(line, column, "", "a key before the first section", fix)
            return
        section = self.sections[-1]
        key = _NAMES.get(_without_blanks(word).lower(), "") if word.isascii() else ""
        if not key and any(blank in word for blank in BLANKS):
            self._no_assignment(line, column, text)
            return
        field = self.fields[section.kind].get(key)
        if field is None or (field.quick and word.lower() != key.lower()):
            self._unknown(line, column, section, key if field is None else "", word)
            return
        value_column = column + len(name) + 1 + len(value) - len(value.lstrip(BLANKS))
        self._value(line, value_column, section, key, value.strip(BLANKS))

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
        field = self.fields[section.kind][key]
        if field.name in section.lines and not field.many:
            message = f"{key} was given before, in line {section.lines[field.name]}"
            self.note(line, column, "", f"{message}: this one counts", "keep one of the two")
        section.lines[field.name] = line
        kept = [at for at, character in enumerate(text) if field.quick or character not in BLANKS]
        compact = "".join(text[at] for at in kept)
        places = [column + at for at in kept]
        try:
            value = field.parse(compact)
        except values.BadValue as bad:
            place = places[bad.offset] if bad.offset < len(places) else column + len(text)
            shown = _shown(bad.text) if bad.text else ""
            better = next((value for value in bad.better if _is_taken(field, value)), "")
            fix = f"write {better}" if better else bad.fix
            self.refuse(line, place, shown, f"{key}: {bad.message}", fix, better)
            return
        if field.name == "allowed_ips":
            self._note_host_bits(line, places, compact)
        if field.name == "endpoint":
            self._note_brackets(line, column, compact, value)
        section.values[field.name] = section.values.get(field.name, ()) + value if (
            field.many
        ) else value

    def _note_host_bits(self, line: int, places: list[int], text: str) -> None:
        for offset, item in values.items(text):
            address = values.allowed_ip(offset, item)
            prefix = Prefix.masked(*address)
            if prefix.ip != address.ip:
                message = f"AllowedIPs: host bits are cleared, this means {prefix}"
                self.note(line, places[offset], _shown(item), message, f"write {prefix}")

    def _note_brackets(self, line: int, column: int, text: str, endpoint: HostPort) -> None:
        if ":" in endpoint.host and not text.startswith("["):
            message = f"Endpoint: an IPv6 address without brackets, this means {endpoint}"
            self.note(line, column, "", message, f"write {endpoint}")


def _is_taken(field: _Field, text: str) -> bool:
    """Whether this reader accepts its own suggestion."""
    try:
        field.parse(text)
    except values.BadValue:
        return False
    return bool(text) and _shown(text) == repr(text)


def parse_config(
    text: str, *, file: str = "<config>", tables: Mapping[str, int] = DEFAULT_TABLES
) -> Config:
    """The configuration that `text` says; raises `ConfigError` with every mistake in it.

    `tables` are the names of routing tables that a Table may have.
    """
    parser = _Parser(tables)
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
    if all(problem.note for problem in parser.problems):
        config = Config(**interface.values, peers=tuple(peers))
        parser.problems += checks.remarks(config, interface.lines, list(peers.values()))
    problems = tuple(sorted(parser.problems, key=lambda p: (p.line, p.column)))
    if not all(problem.note for problem in problems):
        raise ConfigError(file, problems)
    return Config(**interface.values, peers=tuple(peers), notes=problems)


def _peers(parser: _Parser, private_key: PrivateKey | None) -> dict[PeerConfig, dict[str, int]]:
    """The peers with the lines of their keys, after checks that look at more than one line."""
    own = backend().public_key(private_key) if private_key else None
    sections: dict[PublicKey, _Section] = {}
    for section in parser.sections:
        if section.kind != "Peer":
            continue
        if "public_key" not in section.lines:
            fix = "every [Peer] needs a PublicKey"
            parser.refuse(section.line, 1, "", "this peer has no PublicKey", fix)
        key = section.values.get("public_key")
        if key is None:
            continue
        if key == own:
            message = "this PublicKey is the interface's own: the peer will be ignored"
            parser.note(section.lines["public_key"], 1, "", message, "write the other end's")
        if key in sections:
            earlier = sections.pop(key)
            _join(parser, earlier, section)
            _take_back(sections, earlier)
        sections[key] = section
    owners: dict[Prefix, int] = {}
    peers = {}
    for section in sections.values():
        prefixes = tuple(Prefix.masked(*ip) for ip in section.values.get("allowed_ips", ()))
        for prefix in dict.fromkeys(prefixes):
            if prefix in owners:
                message = f"AllowedIPs {prefix} moves here from the peer in line {owners[prefix]}"
                parser.note(section.lines["allowed_ips"], 1, "", message, "give it to one peer")
            owners[prefix] = section.line
        peers[PeerConfig(**section.values | {"allowed_ips": prefixes})] = section.lines
    return peers


def _join(parser: _Parser, earlier: _Section, later: _Section) -> None:
    """Two sections of one peer: the later one counts, as in two requests."""
    message = f"this PublicKey is also that of the peer in line {earlier.line}"
    lost = ", whose AllowedIPs are replaced" if earlier.values.get("allowed_ips") else ""
    parser.note(later.lines["public_key"], 1, "", message + lost, "join the two sections")
    kept = {name: value for name, value in earlier.values.items() if name != "allowed_ips"}
    later.values = kept | later.values
    later.lines = earlier.lines | later.lines


def _take_back(sections: Mapping[PublicKey, _Section], replaced: _Section) -> None:
    """The AllowedIPs of a section that was replaced stay lost to the peers before it."""
    taken = {Prefix.masked(*ip) for ip in replaced.values.get("allowed_ips", ())}
    for section in sections.values():
        if section.line < replaced.line and "allowed_ips" in section.values:
            section.values["allowed_ips"] = tuple(
                ip for ip in section.values["allowed_ips"] if Prefix.masked(*ip) not in taken
            )
