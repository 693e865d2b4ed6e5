"""Puts the man pages that `make man` wrote into the wheel, where there are any."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class ManPages(BuildHookInterface):  # type: ignore[type-arg]
    """Of build/man each page goes to share/man/man1."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called by hatchling before it builds; an editable install has no pages."""
        if version == "editable":
            return
        for page in sorted((Path(self.root) / "build" / "man").glob("*.1")):
            build_data["shared_data"][str(page)] = f"share/man/man1/{page.name}"
