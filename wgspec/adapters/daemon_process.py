"""wgpy's daemon with one fault planted: `python -m wgspec.adapters.daemon_process FAULT -f IFACE`.

As a program it is the same as `wireguard-py`; the fault is in its packet path, which
the engine alone does not have.
"""

from __future__ import annotations

import sys

from wgspec.adapters.plant import plant
from wgspec.mutants import FAULTS


def main(arguments: list[str]) -> int:
    """Plant the fault, then be the daemon."""
    plant(FAULTS[arguments[0]])
    from wgpy.cli.wireguard_py import main as daemon

    return daemon(arguments[1:])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
