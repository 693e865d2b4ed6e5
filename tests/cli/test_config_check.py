"""`config check` against golden answers: GOLDEN/NAME.conf is answered with NAME.txt."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

GOLDEN = Path(__file__).with_name("golden")
NAMES = sorted(path.stem for path in GOLDEN.glob("*.conf"))


@pytest.mark.parametrize("name", NAMES)
def test_the_answer_is_the_golden_one(run, monkeypatch, name: str) -> None:
    monkeypatch.chdir(GOLDEN)
    result = run("config", "check", f"{name}.conf")
    assert result.stdout == (GOLDEN / f"{name}.txt").read_text()
    assert result.exit_code == ("error" in result.stdout)


def test_json_tells_the_same(run, monkeypatch) -> None:
    monkeypatch.chdir(GOLDEN)
    result = run("config", "check", "mistakes.conf", "--json")
    document = json.loads(result.stdout)
    assert result.exit_code == 1
    assert document["valid"] is False
    text = (GOLDEN / "mistakes.txt").read_text()
    for problem in document["problems"]:
        place = f"mistakes.conf:{problem['line']}:{problem['column']}: {problem['severity']}: "
        assert place + problem["message"] in text


def test_standard_input_and_unreadable_files(run, tmp_path: Path) -> None:
    assert run("config", "check", "-", input="[Interface]\n").exit_code == 0
    missing = run("config", "check", str(tmp_path / "none.conf"))
    assert missing.exit_code == 1
    assert "No such file" in missing.output


def test_bytes_that_are_not_utf8_go_through(run, tmp_path: Path) -> None:
    """wg and bash look at bytes: a comment in Latin-1 is a comment, anything else is shown."""
    latin = tmp_path / "latin.conf"
    latin.write_bytes(b"[Interface]\n# caf\xe9\nPostUp = echo caf\xe9\n")
    assert run("config", "check", str(latin)).exit_code == 0
    latin.write_bytes(b"[Interface]\nMTU = caf\xe9\n")
    refused = run("config", "check", str(latin))
    assert refused.exit_code == 1
    assert "latin.conf:2:7: error: MTU: not a number in range: 'caf\\udce9'" in refused.stdout
