"""Errors of the CNI specification, section 5: a number for the runtime, a text for people."""

from __future__ import annotations

from typing import Any, Final

INCOMPATIBLE_VERSION: Final = 1
UNKNOWN_CONTAINER: Final = 3
INVALID_ENVIRONMENT: Final = 4
IO_FAILURE: Final = 5
UNDECODABLE: Final = 6
INVALID_CONFIG: Final = 7
TRY_AGAIN_LATER: Final = 11
UNAVAILABLE: Final = 50
"""STATUS: no ADD can be served."""
LIMITED: Final = 51
"""STATUS: and the pods there are may not reach others."""
INTERFACE_EXISTS: Final = 100
"""Our own numbers begin here: CNI_IFNAME is taken in the container."""
CHECK_FAILED: Final = 101
KERNEL_REFUSED: Final = 102


class CniError(Exception):
    """What the runtime is told instead of a result."""

    def __init__(self, code: int, text: str, details: str = "") -> None:
        super().__init__(text)
        self.code = code
        self.details = details

    def to_json(self, version: str) -> dict[str, Any]:
        """The error structure."""
        found = {"cniVersion": version, "code": self.code, "msg": str(self)}
        return {**found, "details": self.details} if self.details else found
