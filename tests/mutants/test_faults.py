"""The planted faults: each fits the source, and the suite catches them."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mutants.faults import FAULTS, Fault, FaultDoesNotFit, altered
from tests.mutants.run import failures, sut_with


def fault_with(module: str, find: str) -> Fault:
    """A fault that no file lists."""
    return Fault("mine", "what is wrong", module, find, "instead")


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_every_fault_is_found_once_in_the_source(fault: Fault) -> None:
    spec = importlib.util.find_spec(fault.module)
    assert spec is not None and spec.origin is not None, f"{fault.name}: no module {fault.module}"
    compile(altered(fault, Path(spec.origin).read_text()), fault.name, "exec")


@pytest.mark.parametrize(("source", "times"), [("other", 0), ("find find", 2)])
def test_a_fault_that_no_longer_fits_is_an_error_that_names_it(source: str, times: int) -> None:
    with pytest.raises(FaultDoesNotFit, match=f"fault mine: .*{times} times in m, not once"):
        altered(fault_with("m", "find"), source)


@pytest.mark.parametrize(
    ("module", "find", "complaint"),
    [
        ("wgpy.protocol.nowhere", "x", "fault mine: there is no module wgpy.protocol.nowhere"),
        ("wgpy.protocol.cookie", "no such text", "fault mine: its text occurs 0 times"),
    ],
)
@pytest.mark.parametrize("program", ["engine", "daemon"])
def test_a_program_refuses_a_fault_that_does_not_fit(
    program: str, module: str, find: str, complaint: str
) -> None:
    code = (
        "import sys; from tests.mutants import faults;"
        f"faults.FAULTS['mine'] = faults.Fault('mine', '', {module!r}, {find!r}, '');"
        f"sys.argv = ['', 'mine', '-f', 'wg9'];"
        f"import runpy; runpy.run_module('tests.mutants.{program}', run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], input="", capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert complaint in done.stderr and "Traceback" not in done.stderr


def test_faults_that_do_not_exist_are_named() -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "tests.mutants", "windmill"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (1, "Error: no such fault: windmill (see --list)\n")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "case"),
    [
        ("window-before-tag", "R-65"),
        ("mac1-unchecked", "R-09"),
        ("cookie-bound-to-ip", "R-47"),
        ("roams-unauthenticated", "R-94"),
        ("source-per-peer", "R-89"),
    ],
)
def test_a_planted_fault_is_caught_by_its_case(name: str, case: str) -> None:
    caught, trouble = failures(sut_with(FAULTS[name]), [case, "R-01"], seed=1)
    assert not trouble
    assert case in caught


@pytest.mark.slow
@pytest.mark.root
def test_a_fault_of_the_packet_path_is_caught_in_the_daemon() -> None:
    fault = FAULTS["path-train-forged"]
    assert fault.in_daemon
    caught, trouble = failures(sut_with(fault), ["R-65", "R-63"], seed=1)
    assert not trouble
    assert caught == ("R-65",)
