"""Files that hold secrets: made for their owner alone, and told of when everybody can read them."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

from wgpy import typed

OWNER_ONLY: Final = 0o600


def create(path: Path, *, append: bool = False) -> int:
    """A descriptor to write `path` by, empty unless `append`; raises OSError.

    The file has mode 0600 from the first byte on, also one that was there before.  A device
    or a pipe keeps its mode: it belongs to others.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | (os.O_APPEND if append else 0)
    descriptor = os.open(path, flags, OWNER_ONLY)
    try:
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.fchmod(descriptor, OWNER_ONLY)
            if not append:
                os.ftruncate(descriptor, 0)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def exposure(path: Path) -> str:
    """What to warn of, with the fix, when everybody may read a file; empty when not."""
    if not path.is_file() or not path.stat().st_mode & stat.S_IRWXO:
        return ""
    return f"{path} is accessible to everybody (`{typed.line('chmod', '600', path)}`)"
