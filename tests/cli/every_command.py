"""Runs every command of both programs under bad conditions and writes down what came out.

A program of its own (`every_command.py FOLDER CONDITION...`), run by `test_every_command` as
root of namespaces that end with it.  It imports the whole click tree once and forks for each
command: hundreds of starts take seconds.  The commands are taken from the tree itself, so a
new one is covered at once.

The repository is mounted read-only, /run is empty, and a command that is still at work after
`PATIENCE` seconds is interrupted as by Ctrl-C: that must be quiet as well.
"""

from __future__ import annotations

import ctypes
import itertools
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import click

from wgpy.cli import wireguard_py
from wgpy.cli.main import main
from wgpy.sockets import SOCKET_FOLDER, socket_path

NOBODY = 65534
PATIENCE = 1.0
HANGS = 12.0
"""Seconds after the interrupt until a command is killed and reported as hanging."""
AT_ONCE = 4
INTERFACE = "wg0"
DATA_PLANE = "wireguard-py"
STARTS = (
    ["-f", "wg7"], ["-f", "lo"], ["a b"], ["-f", "--policy", "nobody", "wg7"],
    ["-f", "--capture", "FILE", "wg7"], ["-f", "--keylog", "FILE", "wg7"],
)
"""Command lines of `wireguard-py`, the other program."""
AS_JSON = "json"
"""The condition in which every command is given --json, beside an interface that runs."""
CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWNET = 0x20000, 0x10000000, 0x40000000
REPOSITORY = Path(__file__).parents[2]

FILES = {"file", "files", "conf", "path", "capture", "before", "after", "target", "keylog"}
"""Names of parameters that mean files, whatever type they have."""
GIVEN = FILES | {"what", "names", "interface", "source", "destination"}
"""Arguments that are given although they may be left out."""


@dataclass(frozen=True)
class Result:
    """What one command did; `code` is negative when a signal ended it, None when it hung."""

    command: str
    words: list[str]
    code: int | None
    out: str
    err: str
    interrupted: bool


def leaves(
    command: click.Command, context: click.Context, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command that is not a group, with the words that lead to it."""
    if not isinstance(command, click.Group):
        yield path, command
        return
    for name in command.list_commands(context):
        below = command.get_command(context, name)
        assert below is not None, name
        inside = click.Context(below, info_name=name, parent=context)
        yield from leaves(below, inside, (*path, name))


def every_command() -> list[tuple[tuple[str, ...], click.Command]]:
    """All of `wgpy`, groups of other packages included."""
    return list(leaves(main, click.Context(main, info_name="wgpy")))


def words_for(command: click.Command, file: str) -> list[str]:
    """Arguments that make the command start on its work, with `file` wherever one is read."""
    words: list[str] = []
    for parameter in command.params:
        value = _value(parameter, file)
        if isinstance(parameter, click.Argument):
            if parameter.required or parameter.name in GIVEN:
                words += [value] * max(1, parameter.nargs)
        elif "--seconds" in parameter.opts and "--watch" not in _options(command):
            words += ["--seconds", "1"]
        elif "--quick" in parameter.opts:
            words.append("--quick")
        elif parameter.required or parameter.name in ("interface", "keylog", "cluster"):
            words += [parameter.opts[-1], value]
    return words


def _options(command: click.Command) -> set[str]:
    return {option for parameter in command.params for option in parameter.opts}


def _value(parameter: click.Parameter, file: str) -> str:
    if isinstance(parameter.type, click.Choice):
        return str(parameter.type.choices[0])
    if isinstance(parameter.type, click.Path) or parameter.name in FILES:
        return file
    if parameter.name in ("source", "destination", "address"):
        return "10.1.2.3"
    return INTERFACE if parameter.name == "interface" else "nobody"


def command_lines(condition: str, file: str) -> list[tuple[tuple[str, ...], list[str]]]:
    """All that is run under the condition: the words of a command, and those that follow."""
    flag = ["--json"] if condition == AS_JSON else []
    lines = [
        (path, flag + words_for(command, file))
        for path, command in every_command()
        if concerned(command, condition)
    ]
    if condition != AS_JSON:
        lines += [
            ((DATA_PLANE,), [file if word == "FILE" else word for word in start])
            for start in STARTS
            if condition not in READERS or "FILE" in start
        ]
    # Last, for it ends the interface that the others ask.
    return sorted(lines, key=lambda line: line[0] == ("down",))


READERS = ("noise", "text", "folder", "no file")
"""Conditions that only make a difference to who is given a file."""


def concerned(command: click.Command, condition: str) -> bool:
    """Whether the condition can make a difference: benchmarks read no file, for instance."""
    if condition in READERS:
        return words_for(command, "a") != words_for(command, "b")
    if condition in ("no socket", "another policy"):
        return bool({p.name for p in command.params} & {"interface", "cluster"})
    return True


# --- the condition --------------------------------------------------------------------


def _mount(*words: str) -> None:
    subprocess.run(["mount", *words], check=True)


def _make_readable(paths: list[Path]) -> None:
    """Nobody may have a way to this Python: folders that bar it are replaced in here."""
    barred = {
        folder
        for path in paths
        for folder in path.parents
        if not folder.stat().st_mode & stat.S_IXOTH
    }
    if not barred:
        return
    kept = {}
    for number, path in enumerate(paths):
        kept[path] = Path(f"/run/kept{number}")
        kept[path].mkdir()
        _mount("--bind", str(path), str(kept[path]))
    for folder in barred:
        _mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", str(folder))
    for path, here in kept.items():
        if not path.exists():
            path.mkdir(parents=True)
            _mount("--bind", str(here), str(path))


def prepare(condition: str, folder: Path, repository: Path) -> str:
    """Make the condition; returns what is given wherever a command wants a file."""
    _mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run")
    for made in (Path("/run/netns"), SOCKET_FOLDER):
        made.mkdir()
    _mount("--bind", str(repository), str(repository))
    _mount("-o", "remount,bind,ro", str(repository))
    subprocess.run(["ip", "link", "set", "up", "dev", "lo"], check=True)
    if Path("/etc/wireguard").is_dir():
        _mount("-t", "tmpfs", "-o", "mode=700", "tmpfs", "/etc/wireguard")
    noise = folder / "noise.conf"
    noise.write_bytes(bytes(range(256)) * 4)
    text = folder / "text.conf"
    text.write_text("This is not what you think.\n[Interface]\nPrivateKey = what\n")
    if condition == "no tun":
        _mount("-t", "tmpfs", "tmpfs", "/dev/net")
    elif condition in ("another policy", AS_JSON):
        subprocess.run([Path(sys.executable).with_name("wireguard-py"), INTERFACE], check=True)
    elif condition == "no socket":
        for suffix in ("sock", "control"):
            left = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            left.bind(str(socket_path(INTERFACE, f".{suffix}")))
            left.close()
    elif condition == "no rights":
        _make_readable([Path(sys.base_prefix), Path(sys.prefix), repository])
        noise.chmod(0o600)
        folder.chmod(0o777)
    given = {"noise": noise, "text": text, "folder": folder, "no rights": noise}
    return str(given.get(condition, folder / "missing.conf"))


def _become_nobody() -> None:
    try:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    except OSError:
        # No such user in this user namespace: one without a mapping has no rights here either.
        if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWUSER):
            raise


# --- running --------------------------------------------------------------------------


_NUMBERS = itertools.count()


class Child:
    """One command in a process of its own."""

    def __init__(self, path: tuple[str, ...], words: list[str], condition: str, folder: Path):
        self.command, self.words = " ".join(path), words
        self._output = [folder / f"{next(_NUMBERS)}.{name}" for name in ("out", "err")]
        self._start = time.monotonic()
        self._interrupted = False
        self._pid = os.fork()
        if self._pid == 0:
            self._run([*path, *words], condition, folder)

    def _run(self, arguments: list[str], condition: str, folder: Path) -> None:
        os.setpgid(0, 0)
        os.chdir(folder)
        for number, path in enumerate(self._output, 1):
            os.dup2(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC), number)
        if condition == "closed pipe":
            reading, writing = os.pipe()
            os.close(reading)
            os.dup2(writing, 1)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        if condition == "no rights":
            _become_nobody()
        name = DATA_PLANE if arguments[0] == DATA_PLANE else "wgpy"
        if name == DATA_PLANE:
            del arguments[0]
        sys.argv = [str(Path(sys.executable).with_name(name)), *arguments]
        sys.stdin = open(0)  # noqa: SIM115
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
        signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            if name == DATA_PLANE:
                sys.exit(wireguard_py.main(arguments))
            main.main(arguments, prog_name="wgpy")
        finally:
            # As the interpreter at its end, so that "Exception ignored" would be seen.
            code = sys.exc_info()[1]
            self._end(code)

    @staticmethod
    def _end(error: BaseException | None) -> None:
        if isinstance(error, SystemExit):
            try:
                sys.stdout.flush()
            except OSError as failed:
                sys.stderr.write(f"Exception ignored: {failed}\n")
                sys.stderr.flush()
                os._exit(120)
            code = error.code if isinstance(error.code, int) else int(error.code is not None)
            if isinstance(error.code, str):
                sys.stderr.write(f"{error.code}\n")
            sys.stderr.flush()
            os._exit(code)
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(99)

    def finished(self) -> Result | None:
        """Look once; interrupts what has been patient for long enough."""
        pid, status = os.waitpid(self._pid, os.WNOHANG)
        if pid:
            return self._result(os.waitstatus_to_exitcode(status))
        waited = time.monotonic() - self._start
        if waited > PATIENCE and not self._interrupted:
            self._interrupted = True
            os.kill(self._pid, signal.SIGINT)
        if waited > PATIENCE + HANGS:
            with suppress(ProcessLookupError):
                os.killpg(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
            return self._result(None)
        return None

    def _result(self, code: int | None) -> Result:
        out, err = (path.read_text(errors="replace") for path in self._output)
        return Result(self.command, self.words, code, out, err, self._interrupted)


def run_all(condition: str, folder: Path, repository: Path) -> Iterator[Result]:
    """Every command under the condition, a few at a time."""
    file = prepare(condition, folder, repository)
    outputs = folder / "outputs"
    outputs.mkdir()
    os.environ |= {"COLUMNS": "80", "PYTHONPATH": str(repository), "HOME": str(folder)}
    waiting = command_lines(condition, file)
    running: list[Child] = []
    while waiting or running:
        while waiting and len(running) < AT_ONCE:
            path, words = waiting.pop(0)
            running.append(Child(path, words, condition, outputs))
        for child in list(running):
            result = child.finished()
            if result is not None:
                running.remove(child)
                yield result
        time.sleep(0.005)


def in_own_namespaces(condition: str, folder: Path) -> None:
    """One condition; the results go to CONDITION.json in the folder."""
    own = folder / condition.replace(" ", "-")
    own.mkdir()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNS | CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "unshare")
    _mount("--make-rprivate", "/")
    found = [asdict(result) for result in run_all(condition, own, REPOSITORY)]
    own.with_suffix(".json").write_text(json.dumps(found))


def run_conditions(folder: Path, conditions: list[str]) -> int:
    """Each in a fork of this process, so that the click tree is imported once."""
    every_command()
    failed = 0
    for condition in conditions:
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                in_own_namespaces(condition, folder)
                status = 0
            finally:
                if status:
                    traceback.print_exc()
                os._exit(status)
        failed |= os.waitpid(pid, 0)[1]
    return int(bool(failed))


if __name__ == "__main__":
    os._exit(run_conditions(Path(sys.argv[1]), sys.argv[2:]))
