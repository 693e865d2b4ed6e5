"""Programs of this project that start others of it: the one place that says how.

`python -m` puts the current folder first on the import path, so that a `dataclasses.py`
lying there would be run, as root too.  `-P` does not.
"""

from __future__ import annotations

import sys


def python_module(name: str, *arguments: str) -> list[str]:
    """The command line that runs a module with this Python; never one of the current folder."""
    return [sys.executable, "-P", "-m", name, *arguments]
