"""A vector file as values, its canonical bytes, and reading it with clear errors.

`Test.inputs` and `Test.expected` are JSON objects; byte strings are hex.  The digest
covers all groups, so that no bit of a file can change unnoticed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, cast

import jsonschema

from wgpy.protocol.crypto import backend

FOLDER = Path(__file__).parent
DATA = FOLDER / "data"
VERSION = 1

Json = dict[str, Any]


class VectorFileError(Exception):
    """A file that is not a vector file, or whose digest does not fit its content."""


@dataclass(frozen=True, slots=True)
class Test:
    """One vector.  `result`: valid, invalid (must be refused) or acceptable (may be either)."""

    __test__ = False  # not a pytest class

    tcid: int
    comment: str
    inputs: Json
    expected: Json
    result: str = "valid"
    flags: tuple[str, ...] = ()
    intermediates: tuple[tuple[str, str, bytes], ...] = ()

    def to_json(self) -> Json:
        """As in the file."""
        document: Json = {
            "tcId": self.tcid,
            "comment": self.comment,
            "flags": list(self.flags),
            "result": self.result,
            "inputs": self.inputs,
            "expected": self.expected,
        }
        if self.intermediates:
            document["intermediates"] = [
                {"token": token, "name": name, "value": value.hex()}
                for token, name, value in self.intermediates
            ]
        return document

    @classmethod
    def from_json(cls, document: Json) -> Test:
        """From a test object that fits the schema."""
        return cls(
            tcid=document["tcId"],
            comment=document["comment"],
            inputs=document["inputs"],
            expected=document["expected"],
            result=document["result"],
            flags=tuple(document["flags"]),
            intermediates=tuple(
                (i["token"], i["name"], bytes.fromhex(i["value"]))
                for i in document.get("intermediates", ())
            ),
        )


@dataclass(frozen=True, slots=True)
class Group:
    """Vectors of one kind; `source` names the rule's origin."""

    kind: str
    source: str
    comment: str
    tests: tuple[Test, ...]

    def to_json(self) -> Json:
        """As in the file."""
        return {
            "kind": self.kind,
            "source": self.source,
            "comment": self.comment,
            "tests": [test.to_json() for test in self.tests],
        }


@dataclass(frozen=True, slots=True)
class VectorFile:
    """One file of vectors."""

    name: str
    description: str
    origin: str
    generator: str
    verified_by: tuple[str, ...]
    groups: tuple[Group, ...] = field(default=())

    def tests(self) -> Iterator[tuple[Group, Test]]:
        """Every vector with its group."""
        for group in self.groups:
            for test in group.tests:
                yield group, test

    def to_json(self) -> Json:
        """The whole document, digest included."""
        groups = [group.to_json() for group in self.groups]
        return {
            "version": VERSION,
            "name": self.name,
            "description": self.description,
            "origin": self.origin,
            "generator": self.generator,
            "verified_by": list(self.verified_by),
            "digest": digest(groups),
            "groups": groups,
        }

    def dump(self) -> str:
        """The file's text; the same vectors always give the same text."""
        return json.dumps(self.to_json(), indent=1, ensure_ascii=False) + "\n"


def digest(groups: list[Json]) -> str:
    """BLAKE2s-256 over the canonical JSON of the groups, in hex."""
    canonical = json.dumps(groups, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return backend("openssl").hash(canonical.encode()).hex()


@cache
def _validator() -> jsonschema.Draft202012Validator:
    schema = json.loads((FOLDER / "schema.json").read_text())
    return jsonschema.Draft202012Validator(schema)


def read(
    path: Path, validator: jsonschema.Draft202012Validator, schema: str, content: str, writer: str
) -> Json:
    """A document that fits the schema and whose digest fits its `content`.

    Raises `VectorFileError` naming file, place and fix; `writer` is the command that makes it.
    """
    try:
        document = cast(Json, json.loads(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise VectorFileError(f"{path}: {error}") from error
    problem = next(iter(validator.iter_errors(document)), None)
    if problem is not None:
        place = "/".join(str(part) for part in problem.absolute_path) or "top level"
        raise VectorFileError(f"{path}: {place}: {problem.message} (see vectors/{schema})")
    if digest(document[content]) != document["digest"]:
        raise VectorFileError(
            f"{path}: the digest does not fit the content: the file was changed after"
            f" `{writer}` wrote it"
        )
    return document


def load(path: Path) -> VectorFile:
    """Read and check a file; raises `VectorFileError` naming file, place and fix."""
    document = read(path, _validator(), "schema.json", "groups", "wgpy vectors generate")
    return VectorFile(
        name=document["name"],
        description=document["description"],
        origin=document["origin"],
        generator=document["generator"],
        verified_by=tuple(document["verified_by"]),
        groups=tuple(
            Group(
                kind=group["kind"],
                source=group["source"],
                comment=group["comment"],
                tests=tuple(Test.from_json(test) for test in group["tests"]),
            )
            for group in document["groups"]
        ),
    )
