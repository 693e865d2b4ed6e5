"""An offload that the kernel accepted at set-up and refuses afterwards, each time.

Some kernels do (6.6.y and vendors' for merged TUN writes).  What was refused is delivered
without the offload; after a few refusals it is given up, and that is said once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

FEW: Final = 8
"""Refusals after which an offload is not tried any more."""


class Refusals:
    """How often one offload was refused."""

    def __init__(self, what: str, instead: str, report: Callable[[str], None]) -> None:
        """`report` is told, once, that `what` is refused and what is done `instead`."""
        self._text = f"{what} refused ({{}}): {instead}"
        self._report = report
        self._count = 0
        self.given_up = False

    def note(self, error: OSError) -> bool:
        """One more refusal; whether it was the last that is waited for."""
        self._count += 1
        if self._count == FEW:
            self.given_up = True
            self._report(self._text.format(error.strerror))
        return self.given_up
