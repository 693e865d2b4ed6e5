"""Label selectors, as Kubernetes writes them, for opting nodes out of node encryption.

Requirements joined by commas, all of which must hold: ``key``, ``!key``, ``key=value``
(or ``==``), ``key!=value``, ``key in (a, b)``, ``key notin (a, b)``.
The empty selector selects nothing: opting out has to be asked for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

_KEY: Final = r"[A-Za-z0-9][A-Za-z0-9_./-]*"
_VALUE: Final = r"[A-Za-z0-9_.-]*"
_REQUIREMENT: Final = re.compile(
    rf"\s*(?:(?P<absent>!)\s*(?P<absent_key>{_KEY})"
    rf"|(?P<key>{_KEY})\s*(?:(?P<op>==|=|!=)\s*(?P<value>{_VALUE})"
    rf"|\s(?P<set>in|notin)\s*\((?P<values>[^()]*)\))?)\s*(?:,(?=\s*\S)|$)"
)


class SelectorError(ValueError):
    """The text is not a label selector."""


@dataclass(frozen=True, slots=True)
class _Requirement:
    key: str
    values: frozenset[str] | None
    """None: any value will do."""
    negated: bool

    def holds(self, labels: Mapping[str, str]) -> bool:
        present = self.key in labels and (self.values is None or labels[self.key] in self.values)
        return present != self.negated


@dataclass(frozen=True, slots=True)
class Selector:
    """A parsed selector; `text` is what was written."""

    text: str = ""
    requirements: tuple[_Requirement, ...] = field(default=(), repr=False)

    @classmethod
    def parse(cls, text: str) -> Selector:
        """Raises `SelectorError` with the rest that could not be read."""
        requirements = []
        position = 0
        while position < len(text.rstrip()):
            match = _REQUIREMENT.match(text, position)
            if match is None:
                raise SelectorError(
                    f"not a label selector at {text[position:]!r}: write key, !key, key=value, "
                    "key!=value, key in (a, b) or key notin (a, b), joined by commas"
                )
            requirements.append(_requirement(match))
            position = match.end()
        return cls(text, tuple(requirements))

    def selects(self, labels: Mapping[str, str]) -> bool:
        """Whether every requirement holds; never for the empty selector."""
        return bool(self.requirements) and all(r.holds(labels) for r in self.requirements)


def _requirement(match: re.Match[str]) -> _Requirement:
    if match["absent"]:
        return _Requirement(match["absent_key"], None, negated=True)
    if match["set"]:
        values = frozenset(value.strip() for value in match["values"].split(","))
        return _Requirement(match["key"], values, negated=match["set"] == "notin")
    if match["op"]:
        return _Requirement(match["key"], frozenset([match["value"]]), negated=match["op"] == "!=")
    return _Requirement(match["key"], None, negated=False)
