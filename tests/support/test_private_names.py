"""A name that begins with an underscore stays inside of its module.

ruff's SLF001 sees `other._name`; this sees `from other import _name`.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("wgpy", "strict", "wgspec", "testbed", "benchmarks", "vectors")


def imported_private_names(source: str) -> list[str]:
    return [
        f"{node.module}.{alias.name}"
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.name.startswith("_") and not alias.name.startswith("__")
    ]


@pytest.mark.parametrize("package", PACKAGES)
def test_no_module_imports_a_private_name(package: str) -> None:
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    found = {str(path): imported_private_names(path.read_text()) for path in files}
    assert not {path: names for path, names in found.items() if names}


def test_a_private_name_is_seen() -> None:
    source = "from wgpy.linux.udp import LinuxUdp, _open\nfrom __future__ import annotations\n"
    assert imported_private_names(source) == ["wgpy.linux.udp._open"]
