"""Verdicts, and the expected-results files that explain a target's known differences.

`wgspec/expected/NAME.toml` holds one table per difference:

    [R-60]
    verdict = "FAIL"          # or "UNSUPPORTED"
    match = "not a multiple"  # words that the observation must contain (optional)
    reason = "does not pad"   # why, in our words
    source = "where this is known from"

A target that has a file must behave exactly as it says: a difference that is not in it, and
one in it that is gone, both fail the run.
"""

from __future__ import annotations

import enum
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

DIRECTORY = Path(__file__).parent / "expected"


class Verdict(enum.Enum):
    """How a case ended.  XPASS and FAIL fail the run."""

    PASS = "PASS"
    FAIL = "FAIL"
    XFAIL = "XFAIL"
    XPASS = "XPASS"
    UNSUPPORTED = "UNSUPPORTED"
    SKIPPED = "SKIPPED"

    @property
    def fails_run(self) -> bool:
        return self in (Verdict.FAIL, Verdict.XPASS)


class BadExpectations(ValueError):
    """An expected-results file that cannot be used; the text names file, table and fix."""


@dataclass(frozen=True, slots=True)
class Expectation:
    """A known difference of one target in one requirement."""

    verdict: Verdict
    reason: str
    source: str
    match: str = ""


def _expectation(path: Path, name: str, table: object) -> Expectation:
    if not isinstance(table, dict):
        raise BadExpectations(f"{path}: {name} must be a table with verdict, reason and source")
    unknown = set(table) - {"verdict", "reason", "source", "match"}
    if unknown:
        raise BadExpectations(f"{path}: [{name}] has unknown keys: {', '.join(sorted(unknown))}")
    for key in ("verdict", "reason", "source"):
        if not isinstance(table.get(key), str) or not table[key]:
            raise BadExpectations(f"{path}: [{name}] needs the text `{key}`")
    if table["verdict"] not in ("FAIL", "UNSUPPORTED"):
        raise BadExpectations(f'{path}: [{name}] verdict must be "FAIL" or "UNSUPPORTED"')
    return Expectation(
        Verdict(table["verdict"]), table["reason"], table["source"], str(table.get("match", ""))
    )


def load(path: Path, known: frozenset[str]) -> dict[str, Expectation]:
    """The expectations of a file; `known` are the ids that exist."""
    try:
        tables = tomllib.loads(path.read_text())
    except tomllib.TOMLDecodeError as error:
        raise BadExpectations(f"{path}: {error}") from error
    for name in tables:
        if name not in known:
            raise BadExpectations(f"{path}: [{name}] is no requirement (see `wgpy spec list`)")
    return {name: _expectation(path, name, table) for name, table in tables.items()}


def of_target(name: str, known: frozenset[str]) -> dict[str, Expectation] | None:
    """What is expected of this target, or None when there is no file."""
    path = DIRECTORY / f"{name}.toml"
    return load(path, known) if path.exists() else None


def judge(
    id: str,
    raw: Verdict,
    observed: str,
    expectations: Mapping[str, Expectation] | None,
    *,
    strict: bool = False,
) -> tuple[Verdict, str]:
    """The final verdict and why it differs from `raw` (empty when it does not)."""
    if strict:
        if raw is Verdict.UNSUPPORTED:
            return Verdict.FAIL, f"strict: {observed}"
        return raw, ""
    if expectations is None or raw is Verdict.SKIPPED:
        return raw, ""
    expected = expectations.get(id)
    if expected is None:
        if raw is Verdict.UNSUPPORTED:
            return Verdict.FAIL, f"new difference, not in the expected results: {observed}"
        return raw, "new difference, not in the expected results" if raw is Verdict.FAIL else ""
    if raw is Verdict.PASS:
        return Verdict.XPASS, f"now passes; expected {expected.verdict.value}: {expected.reason}"
    if raw is not expected.verdict:
        return Verdict.FAIL, f"another difference than the expected {expected.verdict.value}"
    if expected.match not in observed:
        return Verdict.FAIL, f"fails otherwise than expected ({expected.match!r})"
    final = Verdict.XFAIL if raw is Verdict.FAIL else Verdict.UNSUPPORTED
    return final, expected.reason
