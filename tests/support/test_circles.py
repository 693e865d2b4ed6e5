"""No module imports itself by way of others, type-checking imports included.

The one exception is a pair that is one thing in two files: a session belongs to its peer.
"""

from __future__ import annotations

import grimp

PACKAGES = ("wgpy", "strict", "wgspec", "testbed", "benchmarks", "vectors")
ALLOWED = {frozenset({"wgpy.protocol.peer", "wgpy.protocol.session"})}


def circles(imports: dict[str, set[str]]) -> set[frozenset[str]]:
    """The strongly connected components of more than one module: what reaches each other."""
    reached = {module: reach(module, imports) for module in imports}
    return {
        frozenset({other for other in reached[module] if module in reached[other]})
        for module in imports
        if module in reached[module]
    }


def reach(module: str, imports: dict[str, set[str]]) -> set[str]:
    found: set[str] = set()
    waiting = [module]
    while waiting:
        for other in imports[waiting.pop()] - found:
            found.add(other)
            waiting.append(other)
    return found


def test_a_circle_is_found() -> None:
    imports = {"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}
    assert circles(imports) == {frozenset({"b", "c"})}


def test_there_are_no_circles() -> None:
    graph = grimp.build_graph(*PACKAGES, cache_dir=None)
    imports = {m: graph.find_modules_directly_imported_by(m) for m in graph.modules}
    assert circles(imports) == ALLOWED
