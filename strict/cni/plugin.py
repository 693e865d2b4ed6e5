"""The program `wgpy-cni`: one request from a container runtime, one answer.

Environment and standard input in, JSON and an exit code out (CNI specification, section 2).
SIGTERM in the middle of ADD undoes what was done.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Mapping
from typing import Any, NoReturn

from strict.cni import errors
from strict.cni.errors import CniError
from strict.cni.request import Request, parse, version_of
from strict.cni.verbs import run

ABOUT = (
    "wgpy-cni is a CNI plugin: a container runtime runs it, with CNI_COMMAND and other "
    "variables set and the network configuration on standard input. "
    "`wgpy strict cni install` tells runtimes about it."
)


def main() -> None:
    """The console script; ends the process."""
    if "CNI_COMMAND" not in os.environ:
        print(ABOUT, file=sys.stderr)
        sys.exit(0 if {"-h", "--help"} & set(sys.argv) else 1)
    signal.signal(signal.SIGTERM, _end)
    sys.exit(answer(os.environ, sys.stdin.buffer.read()))


def answer(environment: Mapping[str, str], text: bytes) -> int:
    """Carry out one request; prints its result or its error, returns the exit code."""
    request: Request | None = None
    try:
        request = parse(environment, text)
        run(request, _tell)
    except CniError as error:
        failure = error
    except OSError as error:
        failure = _of_system(error)
    else:
        return 0
    _tell(failure.to_json(request.version if request else version_of(text)))
    return 1


def _of_system(error: OSError) -> CniError:
    """What the kernel refused, in its words."""
    where = f"{error.filename}: " if error.filename else ""
    text = f"{where}{error.strerror or error}"
    code = errors.IO_FAILURE if where else errors.KERNEL_REFUSED
    return CniError(code, text)


def _tell(result: Mapping[str, Any]) -> None:
    """All of it or an error: a result that nobody has read is not one."""
    sys.stdout.write(json.dumps(result, indent=2) + "\n")
    sys.stdout.flush()


def _end(*_: object) -> NoReturn:
    raise SystemExit(128 + signal.SIGTERM)


if __name__ == "__main__":
    main()
