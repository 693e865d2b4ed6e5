"""Targets that are not a program with a UAPI socket: boringtun, the kernel in a micro-VM, and
a device that one may only talk to; and two instances that talk to each other."""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.interop.tunnel import PORT, make_end, start_program, wg
from wgspec import targets
from wgspec.grid import Grid, Outcome, Relay
from wgspec.target import Unavailable

pytestmark = pytest.mark.root


def run(namespace_run, tmp_path: Path, sut: str, *more: str) -> tuple[int, dict[str, str], str]:
    """(exit status, verdict by id, what was printed)."""
    result = tmp_path / "result.json"
    done = namespace_run(
        sys.executable, "-P", "-m", "wgspec", "run", "--sut", sut, "--report", str(result), *more,
        check=False, timeout=110,
    )  # fmt: skip
    results = json.loads(result.read_text())["results"] if result.exists() else []
    return done.returncode, {r["id"]: r["verdict"] for r in results}, done.stdout + done.stderr


# --- a live device -------------------------------------------------------------------------


def device(lab, tmp_path: Path, family: int):
    """A wireguard-go that knows one peer with a PSK: its `run` from the peer's namespace."""
    home, away = lab.namespace("tester"), lab.namespace("device")
    lab.veth(home, away, "192.0.2.1/24 2001:db8::1/64", "192.0.2.2/24 2001:db8::2/64")
    tester = make_end(lab, home, 1, "192.0.2.1", "2001:db8::1")
    made = make_end(lab, away, 2, "192.0.2.2", "2001:db8::2")
    start_program(away, "go", made.name)
    psk = wg("genpsk")
    made.configure(tester, psk=psk)
    made.up()
    key, shared = tmp_path / "key", tmp_path / "psk"
    key.write_text(tester.private_key)
    shared.write_text(psk)
    sut = (
        f"endpoint {made.endpoint(family)} --public-key {made.public_key}"
        f" --private-key {key} --preshared-key {shared}"
    )

    def judge(*more: str) -> dict[str, str]:
        status, verdicts, printed = run(home.run, tmp_path, sut, *more)
        assert status == 0, printed
        assert tester.private_key not in printed and psk not in printed
        return verdicts

    return judge


@pytest.mark.slow
def test_a_device_that_one_may_only_talk_to(lab, tmp_path: Path) -> None:
    judge = device(lab, tmp_path, 4)
    verdicts = judge("--seed", "1")
    judged = {i for i, v in verdicts.items() if v == "PASS"}
    assert {"R-01", "R-02", "R-05", "R-09", "R-12", "R-13", "R-31", "R-33", "R-34"} <= judged
    assert set(verdicts.values()) == {"PASS", "UNSUPPORTED", "SKIPPED"}
    # Nothing that would lock the peer out, floods the device or looks into it.
    for case in ("R-35", "R-43", "R-60", "R-88"):
        assert verdicts[case] == "UNSUPPORTED"
    # A second run: the timestamps of the first do not matter.
    assert set(judge("R-01", "R-34").values()) == {"PASS"}


def test_a_device_over_ipv6(lab, tmp_path: Path) -> None:
    judge = device(lab, tmp_path, 6)
    verdicts = judge("R-01", "R-02", "R-33", "R-35")
    assert verdicts == {"R-01": "PASS", "R-02": "PASS", "R-33": "PASS", "R-35": "UNSUPPORTED"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("", "required"),
        ("192.0.2.1 --public-key A --private-key B", "not HOST:PORT"),
        ("192.0.2.1:99999 --public-key A --private-key B", "not HOST:PORT"),
        (f"192.0.2.1:{PORT} --public-key A --private-key B", "--public-key"),
        (f"192.0.2.1:{PORT} --public-key {'A' * 43}= --private-key BBBB", "--private-key"),
        (f"192.0.2.1:{PORT} --public-key {'A' * 43}=", "--private-key"),
    ],
)
def test_a_device_described_wrongly(words: str, said: str) -> None:
    with pytest.raises(Unavailable) as raised:
        targets.make(f"endpoint {words}")
    assert said in str(raised.value)
    assert "BBBB" not in str(raised.value)


# --- boringtun, the kernel -----------------------------------------------------------------


def test_boringtun_differs_where_it_is_known_to(lab, tmp_path: Path) -> None:
    home = lab.namespace("tester")
    cases = ("R-01", "R-13", "R-33", "R-40", "R-43", "R-44", "R-47", "R-60", "R-67", "R-93", "R-98")
    status, verdicts, printed = run(home.run, tmp_path, "boringtun", *cases)
    assert status == 0, printed
    assert Counter(verdicts.values()) == {"PASS": 5, "XFAIL": 5, "UNSUPPORTED": 1}
    assert verdicts["R-98"] == "UNSUPPORTED" and verdicts["R-60"] == "XFAIL"


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.xdist_group("kernel-6.1")
def test_the_kernel_in_a_micro_vm(lab, tmp_path: Path) -> None:
    home = lab.namespace("tester")
    cases = ("R-01", "R-03", "R-13", "R-31", "R-60", "R-66", "R-69", "R-87", "R-96", "R-101")
    status, verdicts, printed = run(home.run, tmp_path, "microvm 6.1", *cases)
    assert status == 0, printed
    assert Counter(verdicts.values()) == {"PASS": len(cases) - 1, "XFAIL": 1}
    assert verdicts["R-69"] == "XFAIL"


# --- the grid --------------------------------------------------------------------------------


def grid(*suts: str, steps: tuple[str, ...], packets: int = 60) -> list[Outcome]:
    return asyncio.run(
        Grid([targets.make(sut) for sut in suts], packets=packets, steps=steps).run()
    )


@pytest.mark.slow
def test_grid_of_programs() -> None:
    """Without the rekey step, which waits for 15 s of silence; one cell has it below."""
    found = grid("wireguard-go", "boringtun", steps=("handshake", "data", "roam"))
    by = {(o.cell.initiator, o.cell.variant): o for o in found}
    assert len(by) == 8
    for variant in ("IPv4", "IPv6"):
        assert by["wireguard-go", variant].verdict == "PASS", by["wireguard-go", variant].reason
        assert by["wireguard-go", variant].packets == 141
        assert by["wireguard-go", f"{variant} PSK"].reason.endswith("no setting for a PSK")
        assert by["boringtun", variant].verdict == "UNSUPPORTED"


def test_grid_notices_what_does_not_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """A relay that loses, repeats or goes on to the old address makes the cell fail."""
    real = Relay._pass

    def lossy(self, sender, port, arrival):  # every tenth data message is gone
        self.seen[sender, 99] += 1
        if not (arrival.data[0] == 4 and self.seen[sender, 99] % 10 == 9):
            real(self, sender, port, arrival)

    monkeypatch.setattr(Relay, "_pass", lossy)
    monkeypatch.setattr("wgspec.grid.PATIENCE", 1.0)
    found = grid("wireguard-go", "boringtun", steps=("handshake", "data"))
    tried = [o for o in found if o.verdict != "UNSUPPORTED"]
    assert {(o.verdict, o.failed) for o in tried} == {("FAIL", "data")}
    assert all("lost" in o.reason for o in tried)


@pytest.mark.slow
def test_grid_rekeys_after_silence() -> None:
    one = Grid([targets.make("wireguard-go"), targets.make("wgpy")], packets=20)
    cells = [c for c in one.cells() if c.family == 4 and not c.psk]
    one.cells = lambda: cells  # type: ignore[method-assign]
    found = asyncio.run(one.run())
    assert [(o.verdict, o.done[-1]) for o in found] == [("PASS", "rekey")] * 2
