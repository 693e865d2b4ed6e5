"""TOML and YAML files: every mistake is reported with file, line, key and fix.

`load` parses a file and remembers the line of each key; `Section` reads typed values
out of it and collects problems instead of stopping at the first; `Document.check` raises
them all, so a bad file is refused as a whole.

A file is input: whatever is in it ends as `DocumentRefused`, in bounded time and memory.
So only regular files of bounded size are read, nesting is bounded, and of YAML only what
TOML has, too: no aliases (one line of them can expand to gigabytes), merge keys or tags.
"""

from __future__ import annotations

import os
import re
import stat
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

import yaml

Key = tuple[str | int, ...]
T = TypeVar("T")

_TOML_PLACE: Final = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")
# Written so that matching takes linear time, however long the line.
_TOML_HEADER: Final = re.compile(r"^[ \t]*(\[\[?)([^\]]+)\]")
_TOML_KEY: Final = re.compile(
    r"""^[ \t]*([A-Za-z0-9_-]+|"[^"]*"|'[^']*')(?:[ \t]*\.[^=]*|[ \t]*)="""
)

SIZE_LIMIT: Final = {".toml": 64 << 20, ".yaml": 1 << 20, ".yml": 1 << 20}
"""Bytes; a table of 512,000 prefixes fits into the first."""
DEPTH_LIMIT: Final = 32
"""Nesting of tables and lists."""
_DOTTED: Final = re.compile(r"""(?<![\w"'-])(?:[\w"'-]++[ \t]*+\.[ \t]*+){200}""")
"""A dotted key that tomllib would need minutes for."""
_SCALARS: Final = frozenset(("str", "int", "float", "bool", "null"))


class Problem(NamedTuple):
    """One mistake; `line` counts from 1, 0 where the file as a whole is meant."""

    path: Path
    line: int
    key: str
    message: str
    fix: str = ""

    @property
    def place(self) -> str:
        """`FILE:LINE`, or the file alone."""
        return f"{self.path}:{self.line}" if self.line else str(self.path)

    @property
    def text(self) -> str:
        """What is wrong and with which key."""
        return f"{self.key}: {self.message}" if self.key else self.message

    def __str__(self) -> str:
        return f"{self.place}: {self.text}" + (f"; {self.fix}" if self.fix else "")


class DocumentRefused(ValueError):
    """The file cannot be used; `problems` says why, all of it."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems


class Document:
    """A parsed file, the lines of its keys, and (of YAML) its values as they are written."""

    def __init__(
        self,
        path: Path,
        data: Mapping[str, Any],
        lines: Mapping[Key, int],
        written: Mapping[Key, str] | None = None,
    ) -> None:
        self.path = path
        self.data = data
        self.written = written or {}
        self._lines = lines
        self.problems: list[Problem] = []

    def line(self, key: Key) -> int:
        """The line of a key, or of the nearest thing around it."""
        while key and key not in self._lines:
            key = key[:-1]
        return self._lines.get(key, 0)

    def problem(self, key: Key, message: str) -> None:
        """Note a mistake for `check`."""
        self.problems.append(Problem(self.path, self.line(key), spell(key), message))

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
    """One table of a document.  A wrong value is recorded and read as its default."""

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

    def section(self, name: str) -> Section | None:
        """A table inside of this one; None where there is none."""
        if name not in self._data:
            self._read.add(name)
            return None
        return Section(self.document, self._typed(name, {}, dict, "a table"), (*self.key, name))

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
    if path.suffix not in SIZE_LIMIT:
        raise _refusal(path, "name it .toml, .yaml or .yml")
    return parse(_read(path, SIZE_LIMIT[path.suffix]), path)


def parse(text: str, path: Path) -> Document:
    """Like `load`, for a given text; the suffix of `path` selects the format."""
    return _parse_toml(path, text) if path.suffix == ".toml" else _parse_yaml(path, text)


def _refusal(path: Path, message: str, line: int = 0, fix: str = "") -> DocumentRefused:
    return DocumentRefused([Problem(path, line, "", message, fix)])


def _read(path: Path, limit: int) -> str:
    """The text of a regular file; what could block or never end (a pipe, a device) is refused."""
    try:
        # Opening a pipe otherwise waits for its writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise _refusal(path, "cannot be read: not a regular file")
            data = file.read(limit + 1)
        if len(data) > limit:
            fix = "" if path.suffix == ".toml" else "; long files are better written in TOML"
            raise _refusal(path, f"longer than {limit >> 20} MiB{fix}")
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _refusal(path, "cannot be read: not UTF-8 text") from error
    except (OSError, ValueError) as error:
        if isinstance(error, DocumentRefused):
            raise
        reason = getattr(error, "strerror", None) or str(error)
        raise _refusal(path, f"cannot be read: {reason}") from error


def _parse_toml(path: Path, text: str) -> Document:
    if dotted := _DOTTED.search(text):
        line = text.count("\n", 0, dotted.start()) + 1
        raise _refusal(path, "not TOML: a key of more than 200 parts", line)
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        place = _TOML_PLACE.search(str(error))
        line = int(place[1]) if place and place[1] else text.count("\n") + 1
        message = _TOML_PLACE.sub("", str(error))
        raise _refusal(path, f"not TOML: {message}", line) from error
    except RecursionError as error:
        raise _refusal(path, "lists and tables are nested too deeply") from error
    except (ValueError, OverflowError) as error:  # a number with thousands of digits
        raise _refusal(path, f"not TOML: {error}", _longest_line(text)) from error
    if (key := _too_deep(data)) is not None:
        raise _refusal(path, f"{key}: more than {DEPTH_LIMIT} levels of tables and lists")
    return Document(path, data, _toml_lines(text))


def _longest_line(text: str) -> int:
    lines = text.splitlines()
    return lines.index(max(lines, key=len)) + 1 if lines else 0


def _too_deep(data: Mapping[str, Any]) -> str | None:
    """The top-level key of something nested deeper than `DEPTH_LIMIT`; None if there is none."""
    for key, value in data.items():
        level = [value]
        for _depth in range(DEPTH_LIMIT):
            level = [
                inner
                for outer in level if isinstance(outer, (dict, list))
                for inner in (outer.values() if isinstance(outer, dict) else outer)
                if isinstance(inner, (dict, list))
            ]  # fmt: skip
        if level:
            return key
    return None


def _toml_lines(text: str) -> dict[Key, int]:
    """Lines of headers and keys.  Text inside multi-line strings may add a wrong place."""
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


class _Loader(yaml.SafeLoader):
    """Composes nodes, and refuses aliases and deep nesting on the way."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise yaml.MarkedYAMLError(
                problem="aliases (& and *) are not read: write the value out",
                problem_mark=event.start_mark,
            )
        if self.depth > DEPTH_LIMIT:
            raise yaml.MarkedYAMLError(
                problem=f"more than {DEPTH_LIMIT} levels of tables and lists",
                problem_mark=event.start_mark,
            )
        self.depth += 1
        try:
            node: yaml.Node | None = super().compose_node(parent, index)
        finally:
            self.depth -= 1
        return node


def _parse_yaml(path: Path, text: str) -> Document:
    try:
        loader = _Loader(text)
        try:
            root = loader.get_single_node()
        finally:
            loader.dispose()
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark is not None else 0
        message = getattr(error, "problem", None) or getattr(error, "reason", None)
        words = f"not YAML: {message or 'it cannot be parsed'}"
        raise _refusal(path, words, line, "mind indentation and quotes") from error
    return _YamlReader(path).document(root)


class _YamlReader:
    """From composed nodes to plain data, with the line and the spelling of each value."""

    def __init__(self, path: Path) -> None:
        self._lines: dict[Key, int] = {}
        self._written: dict[Key, str] = {}
        self._problems: list[Problem] = []
        self._path = path
        self._constructor = yaml.constructor.SafeConstructor()

    def document(self, root: yaml.Node | None) -> Document:
        """Raises `DocumentRefused` with every value that cannot be read."""
        data = None if root is None else self._value(root, ())
        if data is not None and not isinstance(data, dict):
            self._problem((), 1, "must be a table of keys and values")
        if self._problems:
            raise DocumentRefused(self._problems)
        return Document(self._path, data or {}, self._lines, self._written)

    def _problem(self, key: Key, line: int, message: str, fix: str = "") -> None:
        self._problems.append(Problem(self._path, line, spell(key), message, fix))

    def _value(self, node: yaml.Node, key: Key) -> Any:
        line = node.start_mark.line + 1
        kind = node.tag.removeprefix("tag:yaml.org,2002:")
        if isinstance(node, yaml.MappingNode) and kind == "map":
            return self._table(node, key)
        if isinstance(node, yaml.SequenceNode) and kind == "seq":
            for index, item in enumerate(node.value):
                self._lines[(*key, index)] = item.start_mark.line + 1
            return [self._value(item, (*key, index)) for index, item in enumerate(node.value)]
        if isinstance(node, yaml.ScalarNode) and kind in _SCALARS:
            self._written[key] = node.value
            try:
                return self._constructor.construct_object(node)
            except (yaml.YAMLError, ValueError, KeyError, IndexError, OverflowError):
                self._problem(key, line, f"{node.value[:40]!r} cannot be read as {kind}",
                              "put it in quotes if it is a text")  # fmt: skip
                return None
        what = "a date" if kind == "timestamp" else f"the type {kind[:40]!r}"
        self._problem(key, line, f"{what} is not used here", "put it in quotes if it is a text")
        return None

    def _table(self, node: yaml.MappingNode, key: Key) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, value in node.value:
            line = name.start_mark.line + 1
            if not isinstance(name, yaml.ScalarNode) or name.tag.endswith((":null", ":merge")):
                self._problem(key, line, "a key must be a text", "put it in quotes")
                continue
            place = (*key, str(name.value))
            self._lines[place] = line
            if name.value in found:
                self._problem(place, line, "duplicate key", "keep one of them")
                continue
            found[str(name.value)] = self._value(value, place)
        return found


def spell(key: Key) -> str:
    """``node[2].addresses[0]``"""
    text = ""
    for part in key:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text
