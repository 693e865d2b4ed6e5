"""The values of a topology file, each with its line: read strictly, refused with a fix.

`strict.document` parses the file.  A `Value` is one place in it; its `expect_*` methods give
the plain value or raise `TopologyError` with the place, the offending text and what to
write instead.  `topology` interprets the values.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from strict.document import Document, DocumentRefused, Key, Problem, spell
from strict.document import load as load_document
from strict.document import parse as parse_document


class TopologyError(ValueError):
    """A topology file cannot be used.  The text is `FILE:LINE: what` and the fix below it."""

    def __init__(self, where: str, problem: str, fix: str) -> None:
        super().__init__(f"{where}: {problem}\n  fix: {fix}")
        self.where = where
        self.problem = problem
        self.fix = fix


@dataclass(frozen=True, slots=True)
class Value:
    """The value at `key`: a scalar, a list or a mapping."""

    document: Document
    key: Key
    data: Any

    @property
    def text(self) -> str:
        """The value as written, for messages."""
        if isinstance(self.data, dict):
            return "a mapping"
        if isinstance(self.data, list):
            return "a list"
        return self.document.written.get(self.key, "" if self.data is None else str(self.data))

    def is_mapping(self) -> bool:
        """Whether it is a mapping."""
        return isinstance(self.data, dict)

    def error(self, problem: str, fix: str) -> TopologyError:
        """The error to raise about this value."""
        path, line = self.document.path, max(self.document.line(self.key), 1)
        what = f"{spell(self.key) or 'the file'}: {problem}"
        return TopologyError(Problem(path, line, "", "").place, what, fix)

    def expect_text(self) -> str:
        """A string or number, as written."""
        if isinstance(self.data, (dict, list)):
            raise self.error(f"expected one value, found {self.text}", "write a single value")
        return self.text

    def expect_bool(self) -> bool:
        """`true` or `false`."""
        text = self.expect_text().lower()
        if text not in ("true", "false"):
            raise self.error(f"{self.text!r} is neither true nor false", "write true or false")
        return text == "true"

    def expect_int(self, low: int, high: int) -> int:
        """A whole number from `low` to `high`."""
        text = self.expect_text()
        if not re.fullmatch(r"[0-9]{1,12}", text) or not low <= int(text) <= high:
            raise self.error(f"{text!r} is out of range", f"write a number from {low} to {high}")
        return int(text)

    def expect_measure(self, units: dict[str, float], low: float, high: float) -> float:
        """A number followed by one of these units, such as ``1.5 %``; in the base unit.

        `low` and `high` (base units) bound it.
        """
        text = self.expect_text().strip()
        number = text.rstrip("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ%µ/")
        unit = text[len(number) :]
        examples = " or ".join(f"{n}{u}" for n, u in zip((20, 5), units, strict=False))
        try:
            found = float(number) * units[unit]
        except (ValueError, KeyError):
            raise self.error(f"{text!r} is not a number with a unit", f"write {examples}") from None
        if not math.isfinite(found) or not low <= found <= high:
            first = next(iter(units))
            bounds = f"from {low / units[first]:g}{first} to {high / units[first]:g}{first}"
            raise self.error(f"{text!r} is out of range", f"write a value {bounds}")
        return found

    def expect_choice(self, choices: Iterable[str]) -> str:
        """One of `choices`."""
        text, options = self.expect_text(), list(choices)
        if text not in options:
            raise self.error(f"unknown value {text!r}", _advice(text, options))
        return text

    def items(self) -> Iterator[Value]:
        """The elements of a list; a single value counts as a list of one."""
        if isinstance(self.data, list):
            for index, item in enumerate(self.data):
                yield Value(self.document, (*self.key, index), item)
        elif isinstance(self.data, dict):
            raise self.error("expected a list", "write [one, two]")
        elif self.text != "":
            yield self

    def fields(self, known: Iterable[str] | None = None) -> dict[str, Value]:
        """A mapping's entries by key; a key outside `known` is an error."""
        if self.data is None:
            return {}
        if not isinstance(self.data, dict):
            raise self.error(f"expected a mapping, found {self.text!r}", "write key: value lines")
        found = {
            name: Value(self.document, (*self.key, name), value)
            for name, value in self.data.items()
        }
        options = None if known is None else list(known)
        for name, value in found.items():
            if options is not None and name not in options:
                raise value.error("unknown key", _advice(name, options))
        return found


def _advice(text: str, options: list[str]) -> str:
    close = difflib.get_close_matches(text, options, n=1)
    listed = "one of " + ", ".join(options)
    return f"did you mean {close[0]!r}? ({listed})" if close else listed


def load(path: Path) -> Value:
    """The file's root.  Raises `TopologyError` when it cannot be read or is not YAML."""
    if path.suffix not in (".yaml", ".yml"):
        raise TopologyError(str(path), "not the name of a YAML file", "name it .yaml or .yml")
    try:
        return _root(load_document(path))
    except DocumentRefused as refused:
        raise _topology_error(refused) from refused


def parse(text: str, file: str) -> Value:
    """Like `load`, for a given text."""
    try:
        return _root(parse_document(text, Path(file)))
    except DocumentRefused as refused:
        raise _topology_error(refused) from refused


def _root(document: Document) -> Value:
    if not document.data:
        raise TopologyError(
            f"{document.path}:1", "the file is empty", "start from one of the labs"
        )
    return Value(document, (), document.data)


def _topology_error(refused: DocumentRefused) -> TopologyError:
    problem = refused.problems[0]
    return TopologyError(problem.place, problem.text, problem.fix or "see docs/testbed.md")
