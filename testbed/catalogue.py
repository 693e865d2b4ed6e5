"""The labs: a topology file and a page each, found by name.

A page is Markdown; its fenced blocks marked `console` are commands to type, followed by
the expected output. The tests run them exactly as written (docs/labs.md explains the syntax).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from testbed.topology import Topology, read_topology
from testbed.topology_file import TopologyError

FOLDER = Path(__file__).parent / "labs"


@dataclass(frozen=True, slots=True)
class Lab:
    """One lab of the catalogue."""

    name: str
    topology: Path
    page: Path

    @property
    def title(self) -> str:
        """The page's first heading."""
        return self.page.read_text(encoding="utf-8").splitlines()[0].lstrip("# ")


def labs() -> list[Lab]:
    """All labs, by name."""
    return [
        Lab(path.stem, path, path.with_suffix(".md"))
        for path in sorted(FOLDER.glob("*.yaml"))
        if path.with_suffix(".md").exists()
    ]


def find(name: str) -> Path:
    """The topology file of a lab, or the file of that name.  Raises `TopologyError`."""
    inside = FOLDER / f"{name}.yaml"
    if inside.parent == FOLDER and inside.exists():
        return inside
    path = Path(name)
    if path.exists():
        return path
    known = ", ".join(lab.name for lab in labs())
    raise TopologyError(name, "neither a lab nor a file", f"labs: {known}")


def topology_of(name: str) -> Topology:
    """The topology of a lab or file."""
    return read_topology(find(name))
