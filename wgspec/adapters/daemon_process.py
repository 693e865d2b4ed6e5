"""wgpy's daemon with one fault planted: `python -m wgspec.adapters.daemon_process FAULT -f IFACE`.

As a program it is the same as `wireguard-py`; the fault is in its packet path, which
the engine alone does not have.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

from wgspec.adapters.plant import plant
from wgspec.mutants import FAULTS


def main(fault: str, arguments: list[str]) -> None:
    """Plant the fault, then be the program, in this process."""
    program = Path(sys.executable).with_name("wireguard-py")
    plant(FAULTS[fault])
    sys.argv = [str(program), *arguments]
    runpy.run_path(str(program), run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
