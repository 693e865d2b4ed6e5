"""Commands for whoever lacks rights, as they can be typed.  Of its own: wgspec imports no wgpy."""

from __future__ import annotations

import os
import shlex
import shutil
import sys


def as_root(*words: str) -> str:
    """The words as a line of shell that runs with root's rights."""
    line = shlex.join(words)
    if os.geteuid() == 0:
        return line
    return f"sudo {line}" if shutil.which("sudo") else f"su -c {shlex.quote(line)}"


def again_as_root() -> str:
    """The command line of this process, once more."""
    # `python -m wgspec` has a file as its name that is not a program.
    program = [sys.argv[0]]
    if not os.access(sys.argv[0], os.X_OK):
        program = [sys.executable, "-P", "-m", "wgspec"]
    return as_root(*program, *sys.argv[1:])
