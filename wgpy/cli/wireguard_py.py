"""`wireguard-py [-f|--foreground] IFACE`: the data plane as a program, like wireguard-go.

It creates the TUN device and the UAPI socket, goes into the background when they are ready,
and runs until SIGTERM or SIGINT, or until the device or the socket is removed.  It leaves
nothing behind.

Start-up is short on purpose: every start imports what is imported here, so click, rich, numpy
and netlink libraries are not.

Environment: LOG_LEVEL is verbose (or debug), error (the default) or silent;
WG_PROCESS_FOREGROUND=1 is --foreground.
"""

from __future__ import annotations

import argparse
import errno
import os
import re
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

from wgpy import __version__, typed
from wgpy.sockets import SOCKET_FOLDER

if TYPE_CHECKING:
    from collections.abc import Callable

    from wgpy.control.policy import ControlledPolicy
    from wgpy.control.server import Recording
    from wgpy.dataplane.interface import Interface
    from wgpy.linux.service import Service

    Attachment = Callable[[Interface], Callable[[], None]]

NAME_SIZE: Final = 15
LEVELS: Final = {"silent": 0, "error": 1, "verbose": 2, "debug": 2}


class Log:
    """Lines on standard error, as wireguard-go writes them; never a secret."""

    def __init__(self, name: str, level: int) -> None:
        self._name = name
        self.level = level

    def error(self, text: str) -> None:
        """For messages that the user should see."""
        if self.level >= 1:
            self._write("ERROR", text)

    def notice(self, text: str) -> None:
        """For messages that are not errors but explain a delay."""
        if self.level >= 1:
            self._write("NOTE", text)

    def verbose(self, text: str) -> None:
        """For a log of events."""
        if self.level >= 2:
            self._write("DEBUG", text)

    def _write(self, kind: str, text: str) -> None:
        moment = time.strftime("%Y/%m/%d %H:%M:%S")
        try:
            sys.stderr.write(f"{kind}: ({self._name}) {moment} {text}\n")
            sys.stderr.flush()
        except (OSError, ValueError):
            self.level = 0  # Nothing reads the log any more: continue silently.


def main(argv: list[str] | None = None) -> int:
    """The console script; returns the exit status."""
    try:
        return _main(argv)
    except KeyboardInterrupt:  # Before the service listens to signals.
        return 128 + signal.SIGINT


def _main(argv: list[str] | None) -> int:
    arguments = _arguments(argv)
    if sys.platform != "linux":
        _fail(f"this system is {sys.platform}: wireguard-py needs Linux and its TUN device")
    log = Log(arguments.interface, _log_level())
    _harden()
    policy = _load_policy(arguments.policy) if arguments.policy else None
    if arguments.turbo:
        _make_turbo_ready(log)
    service = _open(arguments, log, policy, _attachments(arguments, log))
    if not arguments.foreground:
        _go_to_background(keep_output="LOG_LEVEL" in os.environ and log.level > 0)
    _give_up_rights()
    log.verbose(f"wireguard-py {__version__} ready, process {os.getpid()}")
    try:
        reason = service.run()
    except OSError as error:
        _fail(f"{arguments.interface} has ended: {_refused(error)}")
    log.verbose(f"ended: {reason}")
    return 0


def _log_level() -> int:
    word = os.environ.get("LOG_LEVEL", "error")
    level = LEVELS.get(word.lower())
    if level is None:
        sys.stderr.write(f"wireguard-py: LOG_LEVEL={word!r} is not one of verbose, error and "
                         "silent: error is used\n")  # fmt: skip
    return LEVELS["error"] if level is None else level


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="wireguard-py",
        description="Create a WireGuard interface in userspace; configure it with wg or wgpy.",
        epilog="LOG_LEVEL=verbose|error|silent sets how much is logged.",
    )
    parser.add_argument("interface", metavar="IFACE", type=_interface_name)
    parser.add_argument(
        "-f",
        "--foreground",
        action="store_true",
        default=os.environ.get("WG_PROCESS_FOREGROUND") == "1",
        help="stay in the foreground",
    )
    parser.add_argument(
        "--crypto",
        choices=("openssl", "sodium", "reference"),
        default="openssl",
        help="implementation of the primitives (default: %(default)s; reference is"
        " readable, slow and not constant-time: for teaching only)",
    )
    parser.add_argument(
        "--policy",
        metavar="NAME",
        help="put the policy of this name (or MODULE:FUNCTION) in front, controlled through"
        " its control socket",
    )
    parser.add_argument(
        "--no-offload",
        dest="offload",
        action="store_false",
        help="read and write one packet at a time: no TSO, USO, UDP GSO or GRO",
    )
    parser.add_argument(
        "--turbo",
        action="store_true",
        default=os.environ.get("WGPY_TURBO") == "1",
        help="compile the packet path with numba: faster, but more memory (also: WGPY_TURBO=1)",
    )
    parser.add_argument(
        "--capture",
        metavar="FILE",
        help="record inner and outer packets as pcapng, WITH THE KEYS to decrypt them",
    )
    parser.add_argument(
        "--capture-size",
        metavar="BYTES",
        type=_size,
        default=0,
        help="start a new capture file after this many bytes (default: one file)",
    )
    parser.add_argument(
        "--keylog",
        metavar="FILE",
        default=os.environ.get("WGPY_KEYLOG"),
        help="append the keys of every handshake, in Wireshark's format (also: WGPY_KEYLOG)",
    )
    parser.add_argument("--version", action="version", version=f"wireguard-py {__version__}")
    arguments = parser.parse_args(argv)
    if arguments.turbo:
        _refuse_without_batch_path(parser, arguments)
    return arguments


def _refuse_without_batch_path(
    parser: argparse.ArgumentParser, arguments: argparse.Namespace
) -> None:
    """End with an error if an option selects the plain path, which has nothing to compile."""
    options = (
        (not arguments.offload, "--no-offload"),
        (arguments.crypto != "openssl", f"--crypto {arguments.crypto}"),
    )
    for given, option in options:
        if given:
            parser.error(
                f"--turbo compiles the batch path, which {option} does without: give one of the two"
            )


def _interface_name(text: str) -> str:
    """A name that the kernel takes, or the error that argparse prints."""
    if len(os.fsencode(text)) > NAME_SIZE:
        raise argparse.ArgumentTypeError(f"{text!r} is too long: at most {NAME_SIZE} bytes")
    if text in ("", ".", "..") or re.search(r"[\s/:%\0]", text):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not an interface name: no spaces, slashes, colons or percent signs"
        )
    return text


def _size(text: str) -> int:
    """A number of bytes, or the error that argparse prints."""
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of bytes")
    return int(text)


def _load_policy(name: str) -> ControlledPolicy:
    """Created by an entry point of the group ``wgpy.policies``, or by ``MODULE:FUNCTION``."""
    from importlib.metadata import EntryPoint, entry_points

    offered = entry_points(group="wgpy.policies")
    if re.fullmatch(r"[\w.]+:[\w.]+", name):
        found = [EntryPoint("", name, "")]
    else:
        found = [entry for entry in offered if entry.name == name]
    if not found:
        known = ", ".join(sorted(e.name for e in offered)) or "none"
        _fail(f"no policy is named {name!r} (installed: {known})")
    try:
        make: Callable[[], ControlledPolicy] = found[0].load()
    except (ImportError, AttributeError) as error:
        _fail(f"the policy {name!r} cannot be loaded: {error}")
    policy = make()
    if not callable(getattr(policy, "housekeeping", None)):
        _fail(f"{name!r} did not make a policy (a ControlledPolicy, see wgpy/control/policy.py)")
    return policy


def _make_turbo_ready(log: Log) -> None:
    """Runs while a terminal can still show that it takes a while, or why it fails."""
    try:
        from wgpy.turbo.ready import TurboError, make_ready
    except ImportError as error:
        install = typed.pip_install("wgpy[turbo]")
        _fail(f"--turbo needs numba ({error}): try `{install}`")
    try:
        make_ready(log.notice)
    except TurboError as error:
        _fail(str(error))


def _attachments(arguments: argparse.Namespace, log: Log) -> list[Attachment]:
    """What to record from the start; files are opened now, while errors can still be shown."""
    attach: list[Attachment] = []
    for option, path in (("--keylog", arguments.keylog), ("--capture", arguments.capture)):
        if not path:
            continue
        from wgpy.capture import attach as recording

        try:
            if option == "--keylog":
                attach.append(recording.key_log(path, log.error))
            else:
                attach.append(recording.capture(path, arguments.capture_size, log.error))
        except OSError as error:
            _fail(f"{option} {path}: {_refused(error)}")
        sys.stderr.write(
            f"WARNING: wireguard-py writes SECRET KEYS to {path}: anyone who reads that file"
            " reads this tunnel's traffic\n"
        )
    return attach


def _record(interface: Interface, path: str, rotate: int) -> Recording:
    """Start a capture for a client of the control socket."""
    from wgpy.capture.record import Recording

    return Recording(interface, Path(path), rotate=rotate)


def _open(
    arguments: argparse.Namespace,
    log: Log,
    policy: ControlledPolicy | None,
    attach: list[Attachment],
) -> Service:
    """Everything that can fail, while a terminal can still show the error."""
    from wgpy.linux.service import Service
    from wgpy.linux.tun import TunError
    from wgpy.linux.unix_socket import SocketInUse

    try:
        return Service(
            arguments.interface,
            crypto=arguments.crypto,
            log=log,
            policy=policy,
            offload=arguments.offload,
            turbo=arguments.turbo,
            record=_record,
            attach=attach,
        )
    except (TunError, SocketInUse) as error:
        _fail(str(error))
    except OSError as error:
        _fail(f"cannot make the sockets of {arguments.interface} in {SOCKET_FOLDER}: "
              f"{_refused(error)}")  # fmt: skip


def _refused(error: OSError) -> str:
    """What the system refused, and what helps."""
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return f"{error.strerror} (try `ulimit -n 1024`; in a systemd unit, LimitNOFILE=1024)"
    hint = typed.root_hint() if isinstance(error, PermissionError) else ""
    return f"{error.strerror}{hint}"


def _harden() -> None:
    """Before anything is opened or read: no core file, no new rights, enough descriptors."""
    from wgpy.linux.privilege import TooFewFiles, harden

    try:
        harden()
    except TooFewFiles as error:
        _fail(str(error))


def _give_up_rights() -> None:
    """When all is open, and before there is a second thread."""
    from wgpy.linux.privilege import give_up_rights

    try:
        give_up_rights()
    except OSError as error:
        _fail(f"cannot give up capabilities: {error.strerror}")


def _fail(text: str) -> NoReturn:
    sys.stderr.write(f"wireguard-py: {text}\n")
    sys.exit(1)


def _go_to_background(*, keep_output: bool) -> None:
    """The parent exits, which tells the caller that everything is ready; the child continues."""
    sys.stdout.flush()
    sys.stderr.flush()
    if os.fork():
        os._exit(0)
    os.setsid()
    os.chdir("/")
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0,) if keep_output else (0, 1, 2):
        os.dup2(null, fd)
    os.close(null)
    # Closing the terminal must not end the tunnel.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


if __name__ == "__main__":
    sys.exit(main())
