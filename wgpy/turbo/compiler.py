"""Compiling with numba, and keeping the result on disk.

numba keeps compiled functions beside the source and looks only at the one file of each:
after a change in a module that it calls, it would go on with the old code.  Here they are
kept in the user's cache folder, under a digest of all sources of this package.

What is kept there will be run, perhaps by root.  So a folder that somebody else could
write to is not used: then everything is compiled anew at each start.
"""

from __future__ import annotations

import hashlib
import os
import pwd
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
from numba import config, njit

settings: Any = config


def folder() -> Path:
    """Where compiled code of exactly these sources belongs."""
    digest = hashlib.sha256(f"{numba.__version__} {os.uname().machine}".encode())
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    # Not $HOME: under sudo it may be that of another user.
    home = pwd.getpwuid(os.geteuid()).pw_dir
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path(home) / ".cache")
    return cache / "wgpy" / f"turbo-{digest.hexdigest()[:16]}"


def usable(place: Path) -> bool:
    """Make the folder; False if that cannot be, or if others may change what is in it."""
    try:
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        return os.access(place, os.W_OK) and all(_ours(p) for p in (place, *place.parents))
    except OSError:
        return False


def _ours(place: Path) -> bool:
    found = place.stat()
    open_to_all = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return found.st_uid in (0, os.geteuid()) and (
        not open_to_all or bool(found.st_mode & stat.S_ISVTX)
    )


FOLDER = folder()
IS_NEW = not any(FOLDER.rglob("*.nbi"))
"""Nothing was compiled from these sources yet."""
IS_KEPT = usable(FOLDER)


def compiled(function: Callable[..., Any]) -> Any:
    """`function`, compiled for the types of its arguments when it is first called."""
    if not IS_KEPT:
        return njit(nogil=True, error_model="numpy")(function)
    before = settings.CACHE_DIR
    settings.CACHE_DIR = str(FOLDER)
    try:
        return njit(cache=True, nogil=True, error_model="numpy")(function)
    finally:
        settings.CACHE_DIR = before
