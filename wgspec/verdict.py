"""Verdicts, and the expected-results files that explain a build's known differences.

A file in `wgspec/expected/` says of which builds it speaks, and holds one table per difference:

    builds = ["wireguard-go v0.0.20220316"]

    [R-60]
    verdict = "FAIL"          # or "UNSUPPORTED"
    match = "not a multiple"  # words that the observation must contain (optional)
    reason = "does not pad"   # why, in our words
    source = "where this is known from"

It is chosen by what the target says of itself (`Target.version`), never by the name of a
program: a fork or another release is a build that nothing is known of.  A target with
expected results must behave exactly as they say: a difference that is not in them, and one
in them that is gone, both fail the run.
"""

from __future__ import annotations

import enum
import json
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

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


MEANING: Final = {
    Verdict.PASS: "as required",
    Verdict.FAIL: "a failure that is not among the expected results",
    Verdict.XFAIL: "a known difference, recorded with its source",
    Verdict.XPASS: "passes, although the expected results list a failure",
    Verdict.UNSUPPORTED: "cannot be judged on this target",
    Verdict.SKIPPED: "left out by the profile",
}


class BadExpectations(ValueError):
    """An expected-results file that cannot be used; the text names file, table and fix."""


@dataclass(frozen=True, slots=True)
class Expectation:
    """A known difference of one build in one requirement."""

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


@dataclass(frozen=True, slots=True)
class Expected:
    """A whole file: the builds it speaks of (`*` stands for anything), and the differences."""

    path: Path
    builds: tuple[str, ...]
    differences: Mapping[str, Expectation] = field(default_factory=dict)

    def speaks_of(self, version: str) -> bool:
        """Whether a target that says this of itself is one of the builds."""
        return any(fnmatchcase(version, build) for build in self.builds)


def load(path: Path, known: Iterable[str]) -> Expected:
    """A file's expectations; `known` are the ids that exist.  Raises `BadExpectations`."""
    try:
        tables = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        text = error.strerror if isinstance(error, OSError) else error
        raise BadExpectations(f"{path}: {text}") from error
    builds = tables.pop("builds", [])
    if not isinstance(builds, list) or not all(isinstance(build, str) for build in builds):
        raise BadExpectations(
            f'{path}: builds must be a list of strings, for instance ["wireguard-go v0.0.20220316"]'
        )
    ids = frozenset(known)
    for name in tables:
        if name not in ids:
            raise BadExpectations(f"{path}: [{name}] is not a requirement (see `wgpy spec list`)")
    differences = {name: _expectation(path, name, table) for name, table in tables.items()}
    return Expected(path, tuple(builds), differences)


def of_build(version: str, known: Iterable[str]) -> Expected | None:
    """The file that speaks of this build, or None.  Raises `BadExpectations`."""
    if not version:
        return None
    ids = frozenset(known)
    files = (load(path, ids) for path in sorted(DIRECTORY.glob("*.toml")))
    return next((expected for expected in files if expected.speaks_of(version)), None)


_HEAD: Final = """\
# Written by `wgpy spec run --write-expected`.  Say in `reason` why each difference is right or
# known, and in `match` which words its observation must contain.
"""


def write(path: Path, version: str, differences: Mapping[str, Expectation]) -> None:
    """A file that `load` reads: what a run has shown of this build."""
    lines = [_HEAD, f"builds = {json.dumps([_literally(version)] if version else [])}\n"]
    for name, difference in differences.items():
        lines.append(f"\n[{name}]\nverdict = {json.dumps(difference.verdict.value)}\n")
        for key in ("match", "reason", "source"):
            if value := getattr(difference, key):
                lines.append(f"{key} = {json.dumps(value, ensure_ascii=False)}\n")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(lines))


def _literally(version: str) -> str:
    """A version as a pattern that means just this version."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in version)


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
