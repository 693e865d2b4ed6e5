"""wgpy's daemon with one fault planted: `python -P -m tests.mutants.daemon FAULT -f IFACE`.

It is the program `wireguard-py`; the fault is in its packet path, which the engine alone
does not have.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

from tests.mutants.plant import plant_named


def main(fault: str, arguments: list[str]) -> None:
    """Plant the fault, then be the program, in this process."""
    plant_named(fault)
    program = Path(sys.executable).with_name("wireguard-py")
    sys.argv = [str(program), *arguments]
    runpy.run_path(str(program), run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
