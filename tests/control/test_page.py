"""The reference page against the code, and the place of the sockets against the whole tree."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from strict.policy import StrictPolicy
from tests.control.plane import Plane
from wgpy.control.server import EVENTS
from wgpy.metrics import PREFIX

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "control-socket.md").read_text()


def operations(section: str) -> set[str]:
    """First cells of the operations' table in one section of the page."""
    text = PAGE.split(f"## {section}", 1)[1].split("\n## ", 1)[0]
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    return {name for row in rows for name in re.findall(r"`(\w+)`", row.split("|")[1])}


def test_every_operation_of_the_server_is_on_the_page(tmp_path: Path) -> None:
    plane = Plane(tmp_path)
    try:
        assert operations("Operations for any policy") == set(plane.server.operations)
    finally:
        plane.close()


def test_every_operation_of_the_strict_policy_is_on_the_page() -> None:
    known = StrictPolicy().session().operations
    assert operations("The policy `strict`, schema 1") == set(known)


def test_every_event_is_on_the_page() -> None:
    for event in (*EVENTS, "drop", "verdict", "lost"):
        assert f"`{event}`" in PAGE


def test_the_sockets_folder_stands_in_one_place() -> None:
    """In code that runs, tests included; wgspec stays apart and has its own."""
    packages = ("wgpy", "strict", "testbed", "benchmarks", "vectors", "tests")
    found = [
        str(path.relative_to(ROOT))
        for package in packages
        for path in (ROOT / package).rglob("*.py")
        if re.search(r"""["']/?(var/)?run/wireguard["'/]""", path.read_text())
        and path != Path(__file__)
    ]
    assert found == ["wgpy/sockets.py"]


@pytest.mark.parametrize("module", ["strict/dataplane.py", "strict/metrics.py", "strict/agent.py"])
def test_a_daemon_imports_no_command_line(module: str) -> None:
    imports = re.findall(r"^\s*(?:from|import) (\S+)", (ROOT / module).read_text(), re.M)
    assert not [name for name in imports if {"click", "cli"} & set(name.split("."))]


def test_every_metric_is_on_the_page(metric_names: set[str]) -> None:
    page = (ROOT / "docs" / "metrics.md").read_text()
    assert metric_names == set(re.findall(rf"`({PREFIX}_\w+)`", page.split("```promql")[0])) - {
        "wgpy_strict_"
    }
