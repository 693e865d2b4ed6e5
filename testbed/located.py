"""YAML that remembers where every value stood, so that an error can name file and line.

A `Located` wraps one node of the parsed file.  Its `expect_*` methods give the plain
value or raise `TopologyError` with the place, the offending text and what to write
instead.  Knows nothing about clusters; `topology` does.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml


class TopologyError(ValueError):
    """A topology file cannot be used.  The text is `FILE:LINE: what` and the fix below it."""

    def __init__(self, where: str, problem: str, fix: str) -> None:
        super().__init__(f"{where}: {problem}\n  fix: {fix}")
        self.where = where
        self.problem = problem
        self.fix = fix


@dataclass(frozen=True, slots=True)
class Located:
    """One value of the file: `path` is its dotted name, `node` what the parser saw."""

    file: str
    path: str
    node: yaml.Node

    @property
    def where(self) -> str:
        """`FILE:LINE` of the value."""
        return f"{self.file}:{self.node.start_mark.line + 1}"

    @property
    def text(self) -> str:
        """The value as written, for messages."""
        if isinstance(self.node, yaml.ScalarNode):
            return str(self.node.value)
        return "a mapping" if isinstance(self.node, yaml.MappingNode) else "a list"

    def error(self, problem: str, fix: str) -> TopologyError:
        """The error to raise about this value."""
        return TopologyError(self.where, f"{self.path or 'the file'}: {problem}", fix)

    def expect_text(self) -> str:
        """A string or number, as text."""
        if not isinstance(self.node, yaml.ScalarNode):
            raise self.error(f"expected one value, found {self.text}", "write a single value")
        return str(self.node.value)

    def expect_bool(self) -> bool:
        """`true` or `false`."""
        text = self.expect_text().lower()
        if text not in ("true", "false"):
            raise self.error(f"{self.text!r} is neither true nor false", "write true or false")
        return text == "true"

    def expect_int(self, low: int, high: int) -> int:
        """A whole number from `low` to `high`."""
        text = self.expect_text()
        if not text.isdecimal() or not low <= int(text) <= high:
            raise self.error(f"{text!r} is out of range", f"write a number from {low} to {high}")
        return int(text)

    def expect_choice(self, choices: Iterable[str]) -> str:
        """One of `choices`."""
        text, options = self.expect_text(), list(choices)
        if text not in options:
            raise self.error(f"unknown value {text!r}", _advice(text, options))
        return text

    def items(self) -> Iterator[Located]:
        """The elements of a list; a single value counts as a list of one."""
        if isinstance(self.node, yaml.SequenceNode):
            for index, child in enumerate(self.node.value):
                yield Located(self.file, f"{self.path}[{index}]", child)
        elif isinstance(self.node, yaml.ScalarNode) and self.node.value != "":
            yield self
        elif not isinstance(self.node, yaml.ScalarNode):
            raise self.error("expected a list", "write [one, two]")

    def fields(self, known: Iterable[str] | None = None) -> dict[str, Located]:
        """A mapping's entries by key; a key outside `known`, or a second one, is an error."""
        if isinstance(self.node, yaml.ScalarNode) and self.node.value in ("", "null", "~"):
            return {}
        if not isinstance(self.node, yaml.MappingNode):
            raise self.error(f"expected a mapping, found {self.text!r}", "write key: value lines")
        found: dict[str, Located] = {}
        options = None if known is None else list(known)
        for key, value in self.node.value:
            name = Located(self.file, self.path, key).expect_text()
            here = Located(self.file, f"{self.path}.{name}".lstrip("."), value)
            at = Located(self.file, here.path, key)
            if name in found:
                raise at.error("given twice", "keep one of them")
            if options is not None and name not in options:
                raise at.error("unknown key", _advice(name, options))
            found[name] = here
        return found


def _advice(text: str, options: list[str]) -> str:
    close = difflib.get_close_matches(text, options, n=1)
    listed = "one of " + ", ".join(options)
    return f"did you mean {close[0]!r}? ({listed})" if close else listed


def load(path: Path) -> Located:
    """The file's root.  Raises `TopologyError` when it cannot be read or is not YAML."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TopologyError(str(path), f"cannot be read: {error}", "check the name") from error
    return parse(text, str(path))


def parse(text: str, file: str) -> Located:
    """As `load`, for text in hand."""
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"{file}:{mark.line + 1}" if mark else file
        problem = f"not YAML: {error.problem}"
        raise TopologyError(where, problem, "mind indentation and quotes") from error
    except yaml.YAMLError as error:
        raise TopologyError(file, f"not YAML: {error}", "write a YAML mapping") from error
    if node is None:
        raise TopologyError(f"{file}:1", "the file is empty", "start from one of the labs")
    return Located(file, "", node)
