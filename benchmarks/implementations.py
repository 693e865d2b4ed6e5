"""What can be measured: by built-in name, or by path to any wireguard-go-compatible binary.

``--impl wgpy``, ``--impl 'wgpy --no-offload'`` (a built-in name and arguments for it), and
``--impl new=/path/to/wireguard-go`` all give an `Implementation`.  Compatible means:
``PROGRAM -f IFACE`` stays in the foreground, opens a TUN device of that name and answers
on ``/var/run/wireguard/IFACE.sock``.
"""

from __future__ import annotations

import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

BASELINE = "wireguard-go"
"""The implementation that ratios and targets refer to."""


TURBO = "wgpy --turbo"
"""The compiled path, measured together with the interpreted one."""


class ImplementationError(ValueError):
    """The name or path does not name a program that can be started."""


class Kind(Enum):
    """How an end is set up."""

    NONE = "none"
    """No tunnel: the bare veth pair, the upper limit of the machine."""
    USERSPACE = "userspace"
    KERNEL = "kernel"


@dataclass(frozen=True, slots=True)
class Implementation:
    """`command` starts a userspace end when followed by the interface's name."""

    name: str
    kind: Kind
    command: tuple[str, ...] = ()

    @property
    def shown(self) -> str:
        """The command; a built-in's without its folder, which differs between machines."""
        if not self.command:
            return ""
        program, *arguments = self.command
        builtin = self.name.split()[0] in ("wgpy", BASELINE)
        return shlex.join([Path(program).name if builtin else program, *arguments])

    def version(self) -> str:
        """The first line of the program's version output; empty if there is none."""
        if self.kind is not Kind.USERSPACE:
            return ""
        try:
            answer = subprocess.run(
                [self.command[0], "--version"], capture_output=True, text=True, timeout=20
            )
        except (OSError, subprocess.TimeoutExpired):
            return ""
        return (answer.stdout or answer.stderr).strip().partition("\n")[0]


def parse(text: str) -> Implementation:
    """From ``NAME``, ``NAME ARGUMENTS`` or ``LABEL=PATH ARGUMENTS``.

    Raises `ImplementationError` saying what is missing.
    """
    label, equals, path = text.partition("=")
    if equals and " " not in label:
        words = shlex.split(path)
        if not words:
            raise ImplementationError(f"--impl {text!r}: no path after '='")
        return Implementation(label, Kind.USERSPACE, (_program(words[0]), *words[1:], "-f"))
    words = shlex.split(text)
    if not words:
        raise ImplementationError("--impl is empty: give a name or NAME=PATH")
    name, arguments = words[0], words[1:]
    if name in ("none", "kernel"):
        if arguments:
            raise ImplementationError(f"--impl {text!r}: {name} takes no arguments")
        return Implementation(name, Kind(name))
    if name == "wgpy":
        return Implementation(text, Kind.USERSPACE, (own_program(), *arguments, "-f"))
    if name == BASELINE:
        return Implementation(text, Kind.USERSPACE, (_program(name), *arguments, "-f"))
    raise ImplementationError(
        f"--impl {text!r}: known are none, kernel, {BASELINE}, wgpy (arguments may follow); "
        f"for another program write NAME=/path/to/it"
    )


def own_program() -> str:
    """`wireguard-py` next to the running interpreter, or on the path."""
    beside = Path(sys.executable).with_name("wireguard-py")
    return str(beside) if beside.exists() else _program("wireguard-py")


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise ImplementationError(f"{name}: no such program; install it or write NAME=PATH")
    return str(Path(found).absolute())


def kernel_available() -> bool:
    """Whether this host's kernel makes WireGuard devices (asked in a throw-away namespace)."""
    probe = "ip link add wg0 type wireguard"
    return (
        os.geteuid() == 0
        and subprocess.run(["unshare", "--net", "sh", "-c", probe], capture_output=True).returncode
        == 0
    )


def turbo_installed() -> bool:
    """Whether ``--turbo`` has the numba that it needs."""
    return importlib.util.find_spec("numba") is not None


def defaults() -> list[Implementation]:
    """Everything available on this host, the bare link first."""
    found = []
    for text in ("none", "kernel", BASELINE, "wgpy", TURBO, "wgpy --no-offload"):
        if text == "kernel" and not kernel_available():
            continue
        if text == TURBO and not turbo_installed():
            continue
        try:
            found.append(parse(text))
        except ImplementationError:
            continue
    return found
