"""TOML and YAML files whose every mistake is reported with file, line, key and fix.

`load` parses a file and remembers where each key stands; `Section` reads typed values
out of it and collects problems instead of stopping at the first; `Document.check` raises
them all, so a bad file is refused as a whole.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

import yaml

Key = tuple[str | int, ...]
T = TypeVar("T")

_TOML_PLACE: Final = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")
_TOML_HEADER: Final = re.compile(r"^\s*(\[\[?)\s*([^\]]+?)\s*\]")
_TOML_KEY: Final = re.compile(
    r"""^\s*((?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')(?:\s*\.\s*[^=\s]+)*)\s*="""
)


class Problem(NamedTuple):
    """One mistake; `line` counts from 1, 0 where the file as a whole is meant."""

    path: Path
    line: int
    key: str
    message: str

    def __str__(self) -> str:
        place = f"{self.path}:{self.line}" if self.line else str(self.path)
        return f"{place}: {self.key}: {self.message}" if self.key else f"{place}: {self.message}"


class DocumentRefused(ValueError):
    """The file cannot be used; `problems` says why, all of it."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems


class Document:
    """A parsed file and the lines of its keys."""

    def __init__(self, path: Path, data: Mapping[str, Any], lines: Mapping[Key, int]) -> None:
        self.path = path
        self.data = data
        self._lines = lines
        self.problems: list[Problem] = []

    def line(self, key: Key) -> int:
        """The line of a key, or of the nearest thing around it."""
        while key and key not in self._lines:
            key = key[:-1]
        return self._lines.get(key, 0)

    def problem(self, key: Key, message: str) -> None:
        """Note a mistake for `check`."""
        self.problems.append(Problem(self.path, self.line(key), _spell(key), message))

    def check(self) -> None:
        """Raises `DocumentRefused` with all problems noted so far."""
        if self.problems:
            raise DocumentRefused(sorted(self.problems, key=lambda problem: problem.line))

    def section(self, key: str) -> Section:
        """A table at the top level; empty when it is missing."""
        value = self.data.get(key, {})
        if not isinstance(value, dict):
            self.problem((key,), "must be a table of keys and values")
            value = {}
        return Section(self, value, (key,))

    def sections(self, key: str) -> Iterator[Section]:
        """A list of tables at the top level (``[[key]]`` in TOML)."""
        value = self.data.get(key) or []
        if not isinstance(value, list):
            self.problem((key,), f"must be a list of tables: [[{key}]] in TOML, `{key}: -` in YAML")
            return
        for index, item in enumerate(value):
            if isinstance(item, dict):
                yield Section(self, item, (key, index))
            else:
                self.problem((key, index), "must be a table of keys and values")


class Section:
    """One table of a document.  A value that is wrong is noted and read as its default."""

    def __init__(self, document: Document, data: Mapping[str, Any], key: Key) -> None:
        self.document = document
        self.key = key
        self._data = data
        self._read: set[str] = set()

    def __contains__(self, name: str) -> bool:
        return name in self._data

    def problem(self, name: str, message: str) -> None:
        self.document.problem((*self.key, name) if name else self.key, message)

    def flag(self, name: str, default: bool) -> bool:
        return self._typed(name, default, bool, "true or false")

    def number(self, name: str, default: int, low: int, high: int) -> int:
        value = self._typed(name, default, int, "a number")
        if isinstance(value, bool) or not low <= value <= high:
            self.problem(name, f"must be a number from {low} to {high}")
            return default
        return value

    def text(self, name: str, default: str = "", required: bool = False) -> str:
        if required and name not in self._data:
            self._read.add(name)
            self.problem("", f"{name!r} is missing")
        return self._typed(name, default, str, "a text in quotes")

    def parsed(self, name: str, default: T, parse: Callable[[str], T]) -> T:
        """A text that `parse` turns into a value; its ValueError becomes the problem."""
        if name not in self._data:
            self._read.add(name)
            return default
        text = self.text(name)
        try:
            return parse(text) if isinstance(self._data[name], str) else default
        except ValueError as error:
            self.problem(name, str(error))
            return default

    def many(self, name: str, parse: Callable[[str], T]) -> tuple[T, ...]:
        """A list of texts that `parse` turns into values."""
        found = []
        for index, item in enumerate(self._typed(name, [], list, "a list")):
            try:
                if not isinstance(item, str):
                    raise ValueError("must be a text in quotes")
                found.append(parse(item))
            except ValueError as error:
                self.document.problem((*self.key, name, index), str(error))
        return tuple(found)

    def numbers(self, name: str, default: tuple[int, ...], low: int, high: int) -> tuple[int, ...]:
        values = self._typed(name, list(default), list, "a list of numbers")
        if all(type(value) is int and low <= value <= high for value in values):
            return tuple(values)
        self.problem(name, f"must be a list of numbers from {low} to {high}")
        return default

    def texts(self, name: str) -> dict[str, str]:
        """A table of texts, such as labels."""
        value = self._typed(name, {}, dict, "a table of texts")
        for key, item in value.items():
            if not isinstance(item, str):
                self.document.problem((*self.key, name, str(key)), "must be a text in quotes")
        return {str(key): item for key, item in value.items() if isinstance(item, str)}

    def done(self) -> None:
        """Every key that was not asked for is a mistake."""
        for name in self._data:
            if name not in self._read:
                known = ", ".join(sorted(self._read))
                self.problem(str(name), f"unknown key; known here: {known}")

    def _typed(self, name: str, default: T, kind: type[T], wanted: str) -> T:
        self._read.add(name)
        value = self._data.get(name, default)
        if isinstance(value, kind):
            return value
        self.problem(name, f"must be {wanted}")
        return default


def load(path: Path) -> Document:
    """Read a ``.toml``, ``.yaml`` or ``.yml`` file; raises `DocumentRefused`."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise DocumentRefused([Problem(path, 0, "", f"cannot be read: {reason}")]) from error
    if path.suffix in (".yaml", ".yml"):
        return _load_yaml(path, text)
    if path.suffix == ".toml":
        return _load_toml(path, text)
    raise DocumentRefused([Problem(path, 0, "", "name it .toml, .yaml or .yml")])


def _load_toml(path: Path, text: str) -> Document:
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        place = _TOML_PLACE.search(str(error))
        line = int(place[1]) if place and place[1] else text.count("\n") + 1
        message = _TOML_PLACE.sub("", str(error))
        raise DocumentRefused([Problem(path, line, "", f"not TOML: {message}")]) from error
    return Document(path, data, _toml_lines(text))


def _toml_lines(text: str) -> dict[Key, int]:
    """Where headers and keys stand.  Text inside multi-line strings may add a stray place."""
    lines: dict[Key, int] = {}
    counts: dict[str, int] = {}
    table: Key = ()
    for number, line in enumerate(text.splitlines(), start=1):
        if header := _TOML_HEADER.match(line):
            parts = tuple(part.strip().strip("\"'") for part in header[2].split("."))
            if header[1] == "[[":
                lines.setdefault(parts, number)
                counts[header[2]] = counts.get(header[2], -1) + 1
                table = (*parts, counts[header[2]])
            else:
                table = parts
            lines.setdefault(table, number)
        elif key := _TOML_KEY.match(line):
            lines.setdefault((*table, key[1].split(".")[0].strip().strip("\"'")), number)
    return lines


def _load_yaml(path: Path, text: str) -> Document:
    lines: dict[Key, int] = {}
    document = Document(path, {}, lines)
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark is not None else 0
        message = getattr(error, "problem", None) or "it cannot be parsed"
        raise DocumentRefused([Problem(path, line, "", f"not YAML: {message}")]) from error
    if root is not None:
        _yaml_lines(document, root, (), lines)
    if data is not None and not isinstance(data, dict):
        document.problem((), "must be a table of keys and values")
    document.check()
    document.data = data or {}
    return document


def _yaml_lines(document: Document, node: yaml.Node, key: Key, lines: dict[Key, int]) -> None:
    """Note the line of every key and item; a key that comes twice is a problem."""
    if isinstance(node, yaml.MappingNode):
        for name, value in node.value:
            place = (*key, str(name.value))
            twice = place in lines
            lines[place] = name.start_mark.line + 1
            if twice:
                document.problem(place, "this key comes twice")
            _yaml_lines(document, value, place, lines)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            lines[(*key, index)] = item.start_mark.line + 1
            _yaml_lines(document, item, (*key, index), lines)


def _spell(key: Key) -> str:
    """``node[2].addresses[0]``"""
    text = ""
    for part in key:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text
