"""Command lines that whoever reads a message can type as they stand.

Every command that a message or a log shows is written here, so that names with blanks are
quoted, and the program is named by the path that works for this user: `wgpy` in a virtual
environment is not on the PATH that sudo gives.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import Final

SECURE_PATH: Final = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
"""Where sudo looks for a program, whatever the user's own PATH says (sudoers, secure_path)."""


def line(*words: object) -> str:
    """The words as one line of shell."""
    return shlex.join(map(str, words))


def as_root(*words: object) -> str:
    """The line with what it takes to run it as root."""
    text = line(*words)
    if os.geteuid() == 0:
        return text
    return f"sudo {text}" if shutil.which("sudo") else f"su -c {shlex.quote(text)}"


def program(name: str = "wgpy") -> str:
    """A program of this installation, by a name or a path that works here, also after sudo."""
    own = Path(sys.argv[0])
    path = own if own.name == name and own.exists() else Path(sys.executable).parent / name
    found = shutil.which(name)
    if found is None or not path.exists() or not Path(found).samefile(path):
        return _shortest(path) if path.exists() else name
    on_path_of_root = os.geteuid() == 0 or str(Path(found).parent) in SECURE_PATH
    return name if on_path_of_root else _shortest(Path(found))


def wgpy(*words: object) -> str:
    """A command line of `wgpy`, as it can be typed here."""
    return line(program(), *words)


def pip_install(*packages: str) -> str:
    """What installs packages beside this program; another installation's pip would not."""
    if Path(sys.executable).with_name("pip").exists():
        return line(program("pip"), "install", *packages)
    if shutil.which("uv"):
        return line("uv", "pip", "install", "--python", sys.executable, *packages)
    return line(sys.executable, "-P", "-m", "pip", "install", *packages)


def _shortest(path: Path) -> str:
    """From the current folder where the program is below it; never a bare name."""
    path = Path(os.path.abspath(path))  # noqa: PTH100 (a symbolic link stays what it is)
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def root_hint() -> str:
    """The fix for a refusal, to be put behind it; empty for root, whom it does not help."""
    return "" if os.geteuid() == 0 else f" (try `{again_as_root()}`)"


def again_as_root() -> str:
    """The command line of this process, to be typed once more with root's rights."""
    return as_root(program(Path(sys.argv[0]).name), *sys.argv[1:])
