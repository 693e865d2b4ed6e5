"""Compiling with numba, and keeping the result on disk.

numba keeps compiled functions beside the source and looks only at the one file of each:
after a change in a module that it calls, it would go on with the old code.  Here they are
kept in the user's cache folder, under a digest of all sources of this package.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
from numba import config, njit

settings: Any = config


def _folder() -> Path:
    """Where compiled code of exactly these sources is kept."""
    digest = hashlib.sha256(f"{numba.__version__} {os.uname().machine}".encode())
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "wgpy" / f"turbo-{digest.hexdigest()[:16]}"


FOLDER = _folder()


def compiled(function: Callable[..., Any]) -> Any:
    """`function`, compiled for the types of its arguments when it is first called."""
    before = settings.CACHE_DIR
    settings.CACHE_DIR = str(FOLDER)
    try:
        return njit(cache=True, nogil=True, error_model="numpy")(function)
    finally:
        settings.CACHE_DIR = before
