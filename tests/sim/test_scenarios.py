"""Every named scenario holds, for several seeds; two thousand engines shake hands."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from click.testing import CliRunner

from wgpy.cli.sim import sim
from wgpy.protocol.constants import DEFAULT_PARAMETERS, MS, NS
from wgpy.sim.link import Link
from wgpy.sim.scenario import Setting, play
from wgpy.sim.scenarios import SCENARIOS

QUICK = [name for name in SCENARIOS if name != "swarm"]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("name", QUICK)
def test_scenario(name: str, seed: int) -> None:
    outcome = play(SCENARIOS[name], Setting(seed=seed))
    assert outcome.checks
    assert [check for check in outcome.checks if not check.passed] == []


def test_two_thousand_engines() -> None:
    outcome = play(SCENARIOS["swarm"])
    assert len(outcome.run.world.nodes) == 2000
    assert outcome.passed, outcome.checks


@pytest.mark.parametrize("name", ["handshake", "cookie", "rekey"])
def test_all_backends_tell_the_same_story(name: str) -> None:
    """Same seed, same bytes: only the implementation of the primitives differs."""
    if name == "rekey":  # long: two fast backends
        backends = ["openssl", "sodium"]
    else:
        backends = ["openssl", "sodium", "reference"]
    outcomes = [play(SCENARIOS[name], Setting(crypto=b)) for b in backends]
    lines = [list(outcome.run.world.trace.lines()) for outcome in outcomes]
    assert all(other == lines[0] for other in lines[1:])


@pytest.mark.parametrize("name", ["rekey", "reject", "zeroing", "late-rekey", "blackhole", "idle"])
def test_checks_follow_the_parameters(name: str) -> None:
    parameters = replace(
        DEFAULT_PARAMETERS, rekey_after_time=30 * NS, reject_after_time=60 * NS,
        rekey_attempt_time=20 * NS,
    )  # fmt: skip
    outcome = play(SCENARIOS[name], Setting(parameters=parameters, link=Link(delay=50 * MS)))
    assert outcome.passed, outcome.checks


def test_a_check_can_fail() -> None:
    """With a window of one packet, reordering loses packets, and the scenario says so."""
    parameters = replace(DEFAULT_PARAMETERS, replay_window=1)
    outcome = play(SCENARIOS["reorder"], Setting(parameters=parameters))
    assert not outcome.passed


class TestCommand:
    def run(self, *arguments: str) -> tuple[int, str]:
        result = CliRunner().invoke(sim, list(arguments))
        return result.exit_code, result.output

    def test_lists_the_scenarios(self) -> None:
        code, text = self.run()
        assert code == 0 and all(name in text for name in SCENARIOS)
        code, text = self.run("--json")
        assert [entry["name"] for entry in json.loads(text)] == list(SCENARIOS)

    def test_shows_the_time_line_and_the_checks(self) -> None:
        code, text = self.run("handshake")
        assert code == 0
        for part in ("initiation, sender", "response, sender", "session established", "✓ both"):
            assert part in text
        code, quiet = self.run("handshake", "--quiet")
        assert "initiation, sender" not in quiet and "✓ both" in quiet

    def test_json_is_complete(self) -> None:
        code, text = self.run("cookie", "clock", "--json", "--seed", "7")
        cookie, clock = json.loads(text)
        assert code == 0
        assert (cookie["scenario"], clock["scenario"], cookie["seed"]) == ("cookie", "clock", 7)
        assert cookie["passed"] and all(check["passed"] for check in cookie["checks"])
        (reply,) = [e for e in cookie["timeline"] if e["name"] == "cookie-reply"]
        assert (reply["node"], reply["kind"], reply["size"]) == ("bob", "sent", 64)
        required = {"at_ns", "node", "kind", "name", "text"}
        assert all(required <= entry.keys() for entry in cookie["timeline"])

    def test_settings_and_links(self) -> None:
        code, text = self.run(
            "rekey", "--quiet", "--set", "rekey_after_time=20s", "--link", "delay=2ms"
        )
        assert code == 0 and "21.00 s" in text

    def test_a_failing_check_is_exit_code_one(self) -> None:
        code, text = self.run("reorder", "--quiet", "--set", "replay_window=1")
        assert code == 1 and "✗" in text

    @pytest.mark.parametrize(
        ("arguments", "complaint"),
        [
            (["no-such-story"], "handshake, idle"),
            (["idle", "--set", "rekey=1"], "rekey_after_time"),
            (["idle", "--set", "rekey_after_time=soon"], "is not a number for rekey_after_time"),
            (["idle", "--link", "loss=2"], "probability"),
            (["idle", "--link", "loss"], "NAME=VALUE"),
        ],
    )
    def test_wrong_arguments_say_what_would_be_right(
        self, arguments: list[str], complaint: str
    ) -> None:
        code, text = self.run(*arguments)
        assert code == 2 and complaint in text
