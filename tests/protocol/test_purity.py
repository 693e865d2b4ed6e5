"""The protocol has no clock, no randomness, no sockets and no threads of its own."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import wgpy.protocol

ROOT = Path(wgpy.protocol.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
FORBIDDEN = {
    "time", "datetime", "random", "secrets", "os", "socket", "select", "selectors", "asyncio",
    "threading", "multiprocessing", "concurrent", "subprocess", "signal", "ssl", "io", "sys",
    "logging",
}  # fmt: skip
CRYPTO = {"cryptography", "nacl", "hashlib"}
CONVERSIONS = {"inet_pton", "inet_ntop", "AF_INET", "AF_INET6"}
"""The only names of `socket` that endpoint.py may use: pure conversions of addresses."""


def imported(tree: ast.AST) -> Iterator[str]:
    """Every module that is imported anywhere, also inside functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports(path: Path) -> None:
    tree = ast.parse(path.read_text())
    roots = {name.partition(".")[0] for name in imported(tree)}
    if path == ROOT / "endpoint.py":
        used = {
            node.attr
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id == "socket"
        }
        assert used <= CONVERSIONS
        roots.discard("socket")
    assert not roots & FORBIDDEN
    if ROOT / "crypto" not in path.parents:
        assert not roots & CRYPTO
    assert "__import__" not in path.read_text()


def test_the_list_of_files_is_not_empty() -> None:
    names = {path.name for path in FILES}
    assert {"engine.py", "noise.py", "session.py", "timers.py", "cookie.py"} <= names
