"""The schema says the fields of every kind, the page says the same, and another language reads
the files."""

from __future__ import annotations

import copy
import json
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from vectors import fields
from vectors.kinds import KINDS
from vectors.model import DATA, FOLDER, digest

SCHEMA = json.loads((FOLDER / "schema.json").read_text(encoding="utf-8"))
EXAMPLE = FOLDER / "examples" / "check.mjs"
PAGE = Path(__file__).parents[2] / "docs" / "vectors.md"


def one_of(kind: str) -> dict[str, Any]:
    """A file that holds one vector of this kind alone."""
    for path in sorted(DATA.glob("*.json")):
        document = json.loads(path.read_text(encoding="utf-8"))
        for group in document["groups"]:
            if group["kind"] == kind:
                return {**document, "groups": [{**group, "tests": group["tests"][:1]}]}
    raise AssertionError(f"no file has a vector of kind {kind}")


def valid(document: dict[str, Any]) -> bool:
    return bool(jsonschema.Draft202012Validator(SCHEMA).is_valid(document))


def test_the_schema_knows_the_kinds_that_there_are() -> None:
    assert set(SCHEMA["$defs"]["kinds"]) == set(KINDS)
    assert not valid({**one_of("hash"), "groups": [{**one_of("hash")["groups"][0], "kind": "x"}]})


@pytest.mark.parametrize("kind", KINDS)
def test_a_vector_has_the_fields_of_its_kind_and_no_others(kind: str) -> None:
    document = one_of(kind)
    assert valid(document)
    known = SCHEMA["$defs"]["kinds"][kind]["properties"]
    for way in ("inputs", "expected"):
        test = document["groups"][0]["tests"][0]
        assert set(known[way]["required"]) <= set(test[way]) <= set(known[way]["properties"])
        for change in ("added", *known[way]["required"]):
            other = copy.deepcopy(document)
            values = other["groups"][0]["tests"][0][way]
            if change == "added":
                values["more"] = "00"
            else:
                del values[change]
            assert not valid(other), f"{kind}: {way} without (or with) {change}"


def test_the_page_has_the_table_of_the_schema() -> None:
    page = PAGE.read_text(encoding="utf-8")
    shown = page[page.index(fields.BEGIN) : page.index(fields.END) + len(fields.END)]
    assert shown == fields.table(), "run `python -P -m vectors.fields` and put it into the page"


def check(*paths: Path) -> tuple[int, str]:
    done = subprocess.run(
        ["node", str(EXAMPLE), *map(str, paths)], capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout


def test_another_language_reads_the_files(tmp_path: Path) -> None:
    wanted = sum(
        len(group["tests"])
        for path in DATA.glob("*.json")
        for group in json.loads(path.read_text(encoding="utf-8"))["groups"]
        if group["kind"] in ("hash", "hmac", "kdf", "aead")
    )
    assert check(*sorted(DATA.glob("*.json"))) == (0, f"{wanted} checked, 0 wrong\n")
    for kind, field in (("hash", "hash"), ("kdf", "outputs"), ("aead", "sealed")):
        document = one_of(kind)
        expected = document["groups"][0]["tests"][0]["expected"]
        expected[field] = ["00" * 32] if kind == "kdf" else "00" + expected[field][2:]
        document["digest"] = digest(document["groups"])
        path = tmp_path / f"{kind}.json"
        path.write_text(json.dumps(document), encoding="utf-8")
        status, said = check(path)
        assert status == 1 and "1 checked, 1 wrong" in said
    assert check()[0] == 1, "nothing checked is a failure"
