"""The reader of files: whatever is in a file ends as a refusal that names its place."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from strict.document import DEPTH_LIMIT, SIZE_LIMIT, DocumentRefused, load, parse

DIGITS = "1" * 5000
BOMB = "a: &a [x, x]\n" + "".join(
    f"{chr(98 + n)}: &{chr(98 + n)} [*{chr(97 + n)}, *{chr(97 + n)}]\n" for n in range(24)
)

REFUSED_YAML = [
    (f"a: 1\nport: {DIGITS}\n", 2, "cannot be read as int"),
    ("a: 1\nday: 2001-99-99\n", 2, "a date is not used here"),
    ("a: 1\nday: 2001-01-01\n", 2, "a date is not used here"),
    ("a: 1\nb: &b [*b]\n", 2, "aliases"),
    ("a: 1\nb: &b {c: *b}\n", 2, "aliases"),
    ("a: {<<: {b: 1}}\n", 1, "a key must be a text"),
    (BOMB, 1, "aliases"),
    ("a: 1\nb: !!bool x\n", 2, "cannot be read as bool"),
    ("a: 1\nb: !!int x\n", 2, "cannot be read as int"),
    ("a: 1\nb: !!int ''\n", 2, "cannot be read as int"),
    ("a: 1\nb: !!float x\n", 2, "cannot be read as float"),
    ("a: 1\nb: !!set {x}\n", 2, "the type 'set'"),
    ("a: 1\nb: !!binary x\n", 2, "the type 'binary'"),
    ("a: 1\nb: !!map [x]\n", 2, "the type 'map'"),
    ("a: 1\nb: !!python/object/apply:os.system [id]\n", 2, "the type"),
    ("a: 1\n~: 2\n", 2, "a key must be a text"),
    ("a: 1\n? [x, y]\n: 2\n", 2, "a key must be a text"),
    ("a:\n  b: 1\n  b: 2\n", 3, "a.b: duplicate key; keep one of them"),
    ("a: " + "[" * 100_000, 1, f"more than {DEPTH_LIMIT} levels"),
    ("a: " + "{b: " * 100_000, 1, f"more than {DEPTH_LIMIT} levels"),
    ("\n".join(" " * n + "- a:" for n in range(0, 200, 2)), 17, f"more than {DEPTH_LIMIT} levels"),
    ("a: 1\n--- \nb: 2\n", 2, "not YAML"),
    ("a: [\n", 2, "not YAML"),
    ("a: \x00\n", 0, "not YAML"),
    ("- a\n", 1, "must be a table of keys and values"),
]  # fmt: skip
REFUSED_TOML = [
    (f"a = 1\nport = {DIGITS}\n", 2, "not TOML"),
    ("a = 1\nday = 2001-99-99\n", 2, "not TOML"),
    ("a = " + "[" * 100_000, 0, "too deep"),
    ("a = " + "{b = " * 100_000, 0, "too deep"),
    ("a = " + "[" * 40 + "]" * 40 + "\n", 0, f"more than {DEPTH_LIMIT} levels"),
    ("b = 1\n" + ".".join("a" * 100_000) + " = 1\n", 2, "more than 200 parts"),
    ("b = 1\n[" + " . ".join("a" * 100_000) + "]\n", 2, "more than 200 parts"),
    ("b = 1\nb = 2\n", 2, "not TOML"),
]


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    ("suffix", "text", "line", "message"),
    [(".yaml", *row) for row in REFUSED_YAML] + [(".toml", *row) for row in REFUSED_TOML],
)
def test_refused_with_its_place(tmp_path, suffix, text, line, message):
    path = tmp_path / f"x{suffix}"
    path.write_text(text)
    with pytest.raises(DocumentRefused) as caught:
        load(path)
    problem = caught.value.problems[0]
    assert (problem.line, problem.path) == (line, path)
    assert message in str(problem) and "\n" not in str(problem)


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "line", ["a" + "." * 40_000, "[" + " " * 200_000, "a" + " ." * 40_000, '"' * 40_000]
)
def test_a_long_line_in_a_long_text_takes_no_time(line):
    document = parse(f"a = 1\nb = '''\n{line}\n'''\n", Path("x.toml"))
    assert document.data["b"] == line + "\n"


def test_what_is_not_a_file_is_refused_at_once(tmp_path):
    pipe = tmp_path / "pipe.toml"
    os.mkfifo(pipe)
    device = tmp_path / "zero.toml"
    device.symlink_to("/dev/zero")
    folder = tmp_path / "folder.yaml"
    folder.mkdir()
    for path in (pipe, device, folder, tmp_path / "nul\0.toml", tmp_path / ("x" * 300 + ".toml")):
        with pytest.raises(DocumentRefused, match="cannot be read"):
            load(path)
    with pytest.raises(DocumentRefused, match=r"name it \.toml"):
        load(tmp_path / "x.txt")


@pytest.mark.parametrize("suffix", SIZE_LIMIT)
def test_size_is_bounded(tmp_path, suffix):
    path = tmp_path / f"x{suffix}"
    with path.open("wb") as file:
        file.truncate(SIZE_LIMIT[suffix] + 1)
    with pytest.raises(DocumentRefused, match="longer than"):
        load(path)


def test_all_values_that_cannot_be_read_are_named():
    with pytest.raises(DocumentRefused) as caught:
        parse("a: 2001-01-01\nb: [1, !!bool x]\n", Path("x.yaml"))
    assert [(p.line, p.key) for p in caught.value.problems] == [(1, "a"), (2, "b[1]")]


def test_lines_and_spelling():
    document = parse("a:\n- b: 0x10\n  c: [yes, fd00::1]\n", Path("x.yaml"))
    assert document.data == {"a": [{"b": 16, "c": [True, "fd00::1"]}]}
    assert document.written["a", 0, "b"] == "0x10"
    assert document.line(("a", 0, "c", 1)) == 3
