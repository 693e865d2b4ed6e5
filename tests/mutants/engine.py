"""wgpy's engine behind pipes with one fault planted: `python -P -m tests.mutants.engine FAULT`."""

from __future__ import annotations

import sys

from tests.mutants.plant import plant_named

if __name__ == "__main__":
    plant_named(sys.argv[1])
    # Imported after the fault: the adapter must not see wgpy before it.
    from wgspec.adapters.engine_process import main

    main()
