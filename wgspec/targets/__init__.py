"""The targets by name, each in a module of its own that is imported when asked for.

A module offers `make(arguments: list[str]) -> Target`; `arguments` are the words after the
name in `--sut 'NAME …'`.  Anything with `%i` in it is a program with a UAPI socket.
"""

from __future__ import annotations

import importlib
import shlex
import sys
from pathlib import Path

from wgspec.target import Target, Unavailable
from wgspec.targets.program import ProgramTarget

NAMED = {
    "kernel": "wgspec.targets.kernel",
    "microvm": "wgspec.targets.microvm",
    "boringtun": "wgspec.targets.boringtun",
    "engine": "wgspec.targets.engine",
    "endpoint": "wgspec.targets.endpoint",
}
HELP = {
    "wireguard-go": "Debian's wireguard-go, or the one in PATH",
    "wgpy": "this project's wireguard-py daemon",
    "engine": "this project's engine in virtual time: the long timers in milliseconds",
    "kernel": "the running host's WireGuard module, else a micro-VM with a Debian kernel",
    "microvm": "a Debian kernel in a micro-VM; takes the kernel's series, e.g. 6.1 or 6.12",
    "boringtun": "boringtun as built into mitmproxy-wireguard",
    "endpoint": "a live device: endpoint HOST:PORT --public-key … --private-key …",
    "'PROGRAM -f %i'": "any program with a UAPI socket; %i is the interface's name",
}


def complete(_ctx: object, _parameter: object, incomplete: str) -> list[str]:
    """Shell completion: names of targets."""
    return [name for name in HELP if "%" not in name and name.startswith(incomplete)]


def make(sut: str) -> Target:
    """The target that `--sut` names; raises `Unavailable` with what is possible."""
    try:
        words = shlex.split(sut)
    except ValueError as error:
        raise Unavailable(f"--sut {sut!r}: {error}") from error
    if not words:
        raise Unavailable("--sut is empty")
    if "%i" in sut:
        return ProgramTarget(sut)
    if sut == "wireguard-go":
        return ProgramTarget("wireguard-go -f %i")
    if sut == "wgpy":
        program = Path(sys.executable).with_name("wireguard-py")
        return ProgramTarget(f"{shlex.quote(str(program))} -f %i", name="wgpy")
    if words[0] not in NAMED:
        raise Unavailable(f"no target is called {words[0]!r}; there are: {', '.join(HELP)}")
    module = importlib.import_module(NAMED[words[0]])
    made = module.make(words[1:])
    assert isinstance(made, Target)
    return made
