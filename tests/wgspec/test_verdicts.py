"""Verdict logic, expected-results files, and the choice of cases."""

from __future__ import annotations

from pathlib import Path

import pytest

from wgspec import verdict
from wgspec.case import SECTIONS, case
from wgspec.cases import all_cases
from wgspec.runner import Options, left_out, repeat_command, select
from wgspec.verdict import BadExpectations, Expectation, Verdict, judge

KNOWN = frozenset({"R-01", "R-02"})
PASS, FAIL, UNSUPPORTED = Verdict.PASS, Verdict.FAIL, Verdict.UNSUPPORTED


def expecting(what: Verdict, match: str = "") -> dict[str, Expectation]:
    return {"R-01": Expectation(what, "the reason", "the source", match)}


@pytest.mark.parametrize(
    ("raw", "expected", "final"),
    [
        (PASS, None, PASS),
        (FAIL, None, FAIL),
        (UNSUPPORTED, None, UNSUPPORTED),
        (PASS, {}, PASS),
        (FAIL, {}, FAIL),
        (UNSUPPORTED, {}, FAIL),
        (FAIL, expecting(FAIL), Verdict.XFAIL),
        (PASS, expecting(FAIL), Verdict.XPASS),
        (UNSUPPORTED, expecting(FAIL), FAIL),
        (UNSUPPORTED, expecting(UNSUPPORTED), UNSUPPORTED),
        (PASS, expecting(UNSUPPORTED), Verdict.XPASS),
        (FAIL, expecting(UNSUPPORTED), FAIL),
        (FAIL, expecting(FAIL, "seen"), Verdict.XFAIL),
        (FAIL, expecting(FAIL, "something else"), FAIL),
        (Verdict.SKIPPED, expecting(FAIL), Verdict.SKIPPED),
    ],
)
def test_the_table_of_verdicts(
    raw: Verdict, expected: dict[str, Expectation] | None, final: Verdict
) -> None:
    got, why = judge("R-01", raw, "what was seen", expected)
    assert got is final
    if got.fails_run and expected is not None:
        assert why, "a failing verdict names what is new"


def test_strict_excuses_nothing() -> None:
    assert judge("R-01", FAIL, "", expecting(FAIL), strict=True)[0] is FAIL
    assert judge("R-01", UNSUPPORTED, "", expecting(UNSUPPORTED), strict=True)[0] is FAIL
    assert judge("R-01", PASS, "", expecting(FAIL), strict=True)[0] is PASS


def test_a_new_difference_better_or_worse_fails_the_run() -> None:
    for raw in (PASS, UNSUPPORTED):
        assert judge("R-01", raw, "", expecting(FAIL))[0].fails_run
    assert judge("R-02", FAIL, "", expecting(FAIL))[0].fails_run


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[R-99]\n", "R-99. is not a requirement"),
        ('[R-01]\nverdict = "FAIL"\nreason = "x"\n', "needs the text `source`"),
        ('[R-01]\nverdict = "PASS"\nreason = "x"\nsource = "y"\n', "verdict must be"),
        ('[R-01]\nverdict = "FAIL"\nreason = "x"\nsource = "y"\nwhy = "z"\n', "unknown keys: why"),
        ("R-01 = 3\n", "must be a table"),
        ("builds = 3\n", "builds must be a list of strings"),
        ("[R-01\n", "line 1"),
    ],
)
def test_a_bad_expectation_is_refused_with_its_name(
    tmp_path: Path, text: str, complaint: str
) -> None:
    path = tmp_path / "x.toml"
    path.write_text(text)
    with pytest.raises(BadExpectations, match=complaint) as error:
        verdict.load(path, KNOWN)
    assert str(path) in str(error.value)


def test_the_expectations_in_the_repository_load() -> None:
    known = frozenset(c.id for c in all_cases())
    for path in verdict.DIRECTORY.glob("*.toml"):
        expected = verdict.load(path, known)
        assert expected.builds, f"{path} says of no build that it speaks of it"
        for expectation in expected.differences.values():
            assert expectation.verdict in (FAIL, UNSUPPORTED)


def test_every_requirement_is_there_once_and_in_its_section() -> None:
    cases = all_cases()
    assert [c.id for c in cases] == [f"R-{n:02}" for n in range(1, 106)]
    assert {c.section for c in cases} == set(SECTIONS)
    letters = [c.section for c in cases]
    assert letters == sorted(letters), "sections follow each other"


def test_a_case_is_declared_once() -> None:
    with pytest.raises(ValueError, match="R-01"):
        case("R-01", level="M", cost="q", paper="5", text="again")(lambda lab: lab)  # type: ignore


def test_no_secret_key_of_an_endpoint_is_shown() -> None:
    key = "aGVsbG8gaGVsbG8gaGVsbG8gaGVsbG8gaGVsbG8gaGU="
    sut = f"endpoint 192.0.2.1:1 --public-key {key} --private-key {key} --preshared-key={key}"
    options = Options(sut)
    for text in (options.shown_sut, repeat_command(options, all_cases()[0])):
        assert text.count(key) == 1 and f"--public-key {key}" in text
    assert Options("endpoint 1 --private-key k.txt").shown_sut == "endpoint 1 --private-key k.txt"


def chosen(*ids: str, profile: str = "quick", virtual: bool = False) -> set[str]:
    options = Options("x", profile, ids)
    return {c.id for c in select(all_cases(), options, virtual=virtual)}


def test_profiles_grow_and_virtual_time_runs_all() -> None:
    quick, full, long = (chosen(profile=p) for p in ("quick", "full", "long"))
    assert quick < full < long
    assert long == chosen(virtual=True)
    assert len(long) == 105


def test_what_a_profile_leaves_out_is_skipped_with_the_reason() -> None:
    options = Options("x", "quick")
    skipped = {r.case.id: r for r in left_out(all_cases(), options, virtual=False)}
    assert set(skipped) == chosen(profile="long") - chosen()
    assert skipped["R-84"].verdict is Verdict.SKIPPED
    assert "profile long" in skipped["R-84"].reason
    assert "profile full" in skipped["R-74"].reason
    assert not left_out(all_cases(), Options("x", "quick", ("R-01",)), virtual=False)
    assert not left_out(all_cases(), options, virtual=True)


def test_ids_run_whatever_they_cost_and_letters_keep_to_the_profile() -> None:
    assert chosen("R-84", "r-01") == {"R-84", "R-01"}
    assert chosen("C") < chosen("C", profile="full")
    assert chosen("nothing") == set()
