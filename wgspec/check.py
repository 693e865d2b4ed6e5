"""How a case says that the target did not meet the requirement."""

from __future__ import annotations


class Mismatch(Exception):
    """The target did not do what the requirement says."""

    def __init__(self, expected: str, actual: str) -> None:
        super().__init__(f"expected {expected}; got {actual}")
        self.expected = expected
        self.actual = actual


def check(condition: bool, expected: str, actual: str) -> None:
    """Raise `Mismatch` unless the condition holds."""
    if not condition:
        raise Mismatch(expected, actual)
