"""The vector files: they verify, they are reproducible, and no bit of them is free."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from vectors import standalone
from vectors.cli import vectors
from vectors.generators import file
from vectors.generators.catalogue import FILES
from vectors.model import DATA, VectorFileError, digest, load
from vectors.verify import verify_file
from wgpy.protocol.crypto import BACKENDS

NAMES = sorted(FILES)


def document(name: str) -> dict[str, Any]:
    return json.loads((DATA / f"{name}.json").read_text(encoding="utf-8"))


def test_every_file_is_there() -> None:
    assert sorted(path.stem for path in DATA.glob("*.json")) == NAMES


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("crypto", BACKENDS)
def test_verifies_on_every_backend(name: str, crypto: str) -> None:
    assert verify_file(load(DATA / f"{name}.json"), crypto) == []


@pytest.mark.parametrize("name", NAMES)
def test_standalone_verifier_agrees(name: str) -> None:
    assert list(standalone.verify(document(name))) == []


@pytest.mark.parametrize("name", NAMES)
def test_is_reproducible_to_the_byte(name: str) -> None:
    assert file(name, 1).dump() == (DATA / f"{name}.json").read_text(encoding="utf-8")


def test_another_seed_gives_other_vectors() -> None:
    assert file("handshake", 2).dump() != file("handshake", 1).dump()


def test_standalone_imports_nothing_but_hashlib_and_cryptography() -> None:
    source = Path(standalone.__file__).read_text(encoding="utf-8")
    imported = {line.split()[1].split(".")[0] for line in source.splitlines()
                if line.startswith(("import ", "from "))}
    assert imported == {
        "hashlib", "hmac", "ipaddress", "json", "pathlib", "struct", "sys", "cryptography",
    }  # fmt: skip


# --- flipping bits ---------------------------------------------------------------------


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths of every string and number below `value`."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, (*path, key))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from leaves(inner, (*path, number))
    elif isinstance(value, (str, int)) and not isinstance(value, bool):
        yield path


def flipped(value: Any, dice: random.Random) -> Any:
    """`value` with one bit changed: of the bytes for hex, of the text or number otherwise."""
    if isinstance(value, int):
        return value ^ (1 << dice.randrange(8))
    if not value:
        return "00"
    try:
        data = bytearray(bytes.fromhex(value))
        data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
        return data.hex()
    except ValueError:
        place = dice.randrange(len(value))
        return value[:place] + chr(ord(value[place]) ^ 1) + value[place + 1 :]


def change(tree: Any, path: tuple[Any, ...], dice: random.Random) -> Any:
    """A copy of `tree` with the leaf at `path` flipped."""
    tree = copy.deepcopy(tree)
    parent = tree
    for key in path[:-1]:
        parent = parent[key]
    parent[path[-1]] = flipped(parent[path[-1]], dice)
    return tree


@pytest.mark.parametrize("name", NAMES)
def test_one_flipped_bit_anywhere_is_noticed(name: str, tmp_path: Path) -> None:
    """Every leaf of every group, one bit each: both verifiers refuse the file."""
    original, dice = document(name), random.Random(name)
    paths = [("groups", *path) for path in leaves(original["groups"])]
    for path in dice.sample(paths, min(len(paths), 120)):
        changed = change(original, path, dice)
        if changed == original:
            continue
        target = tmp_path / f"{name}.json"
        target.write_text(json.dumps(changed), encoding="utf-8")
        with pytest.raises(VectorFileError):
            load(target)
        assert digest(changed["groups"]) != original["digest"]
        assert "digest" in next(standalone.verify({**changed, "groups": changed["groups"]}), "")


@pytest.mark.parametrize("name", NAMES)
def test_a_flip_in_what_is_expected_fails_even_with_a_new_digest(name: str) -> None:
    """The digest alone does not protect them: the values themselves are checked."""
    original, dice = document(name), random.Random(name)
    expected = [
        ("groups", *path)
        for path in leaves(original["groups"])
        if {"expected", "intermediates"} & set(path)
    ]
    for path in dice.sample(expected, min(len(expected), 40)):
        changed = change(original, path, dice)
        changed["digest"] = digest(changed["groups"])
        assert list(standalone.verify(changed)), path


def test_command_verifies_and_fails(tmp_path: Path) -> None:
    good = CliRunner().invoke(vectors, ["verify", "--crypto", "openssl", "--json"])
    assert good.exit_code == 0 and json.loads(good.output)["failures"] == []
    broken = tmp_path / "handshake.json"
    text = (DATA / "handshake.json").read_text(encoding="utf-8")
    broken.write_text(text.replace('"result": "valid"', '"result": "perhaps"', 1))
    bad = CliRunner().invoke(vectors, ["verify", str(broken), "--json"])
    assert bad.exit_code == 1
    assert "result" in json.loads(bad.output)["failures"][0]["problem"]
