"""Compiling with numba, and keeping the result on disk.

numba caches compiled functions beside the source and checks only that one file: after a
change in a module that it calls, it would continue to use the old code.  Here the cache is
in the user's cache folder, under a digest of all sources of this package.

The cached code will be executed, perhaps by root.  So a folder that another user can write
to is not used: then everything is compiled at each start.
"""

from __future__ import annotations

import contextlib
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

MAX_LINKS = 40
"""Symbolic links in one path, as in the kernel."""


def folder() -> Path:
    """The cache folder for code compiled from exactly these sources."""
    digest = hashlib.sha256(f"{numba.__version__} {os.uname().machine}".encode())
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    # Not $HOME: under sudo it may be that of another user.
    home = pwd.getpwuid(os.geteuid()).pw_dir
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path(home) / ".cache")
    return cache / "wgpy" / f"turbo-{digest.hexdigest()[:16]}"


def usable(place: Path) -> bool:
    """Make the folder; False if that cannot be, or if others may change what is in it.

    The path is looked at from its root on, each part before it is entered: nobody else may
    have made it, a symbolic link included, or be able to put another in its place.
    """
    try:
        missing = _missing(place.absolute())
        for part in missing:
            with contextlib.suppress(FileExistsError):  # Another of ours starts beside us.
                part.mkdir(mode=0o700)
        if missing and _missing(place.absolute()):
            return False
        return os.access(place, os.W_OK) and all(_is_ours(p.lstat()) for p in place.rglob("*"))
    except OSError:
        return False


def _missing(place: Path) -> list[Path]:
    """The parts of `place` that do not exist, outermost first; PermissionError for others' work."""
    left, here, links = list(place.parts[1:]), Path(place.anchor), 0
    while left:
        part = here / left.pop(0)
        try:
            found = part.lstat()
        except FileNotFoundError:
            return [part, *(part.joinpath(*left[: n + 1]) for n in range(len(left)))]
        if not _is_ours(found):
            raise PermissionError(f"{part} belongs to another user, or others may write to it")
        if not stat.S_ISLNK(found.st_mode):
            here = part
            continue
        links += 1
        if links > MAX_LINKS:
            raise PermissionError(f"{place} has too many symbolic links")
        target = Path(os.path.normpath(here / part.readlink()))
        left, here = [*target.parts[1:], *left], Path(target.anchor)
    return []


def _is_ours(found: os.stat_result) -> bool:
    """Made by root or by us, and by nobody else to be changed: a link never, a folder by mode."""
    if found.st_uid not in (0, os.geteuid()):
        return False
    open_to_all = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return stat.S_ISLNK(found.st_mode) or not open_to_all or bool(found.st_mode & stat.S_ISVTX)


FOLDER = folder()
IS_KEPT = usable(FOLDER)
IS_NEW = not any(FOLDER.rglob("*.nbi"))
"""Nothing was compiled from these sources yet."""


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
