"""One line for every error that reaches the top of `wgpy`, worded in this one place.

Commands raise `click.ClickException` where they know more than the operating system does;
everything else ends here.  The rest are faults of wgpy: also one line, and the
traceback on request (``WGPY_TRACEBACK=1``).
"""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, NoReturn

import click

from wgpy import typed
from wgpy.sockets import InterfaceError

TRACEBACK_VARIABLE: Final = "WGPY_TRACEBACK"
INTERRUPTED: Final = 128 + 2
"""Exit code after Ctrl-C, as shells count it."""


@contextmanager
def in_one_line() -> Iterator[None]:
    """Exceptions of the block become one line printed by click, with exit code 1.

    Ctrl-C ends it silently with 130.  A broken pipe passes through: click ends then.
    """
    try:
        yield
    except (click.ClickException, click.Abort, click.exceptions.Exit, BrokenPipeError):
        raise
    except KeyboardInterrupt:
        raise SystemExit(INTERRUPTED) from None
    except InterfaceError as error:
        raise click.ClickException(str(error)) from error
    except OSError as error:
        raise click.ClickException(sentence(error)) from error
    except Exception as error:
        raise click.ClickException(_fault(error)) from error


def sentence(error: OSError) -> str:
    """What the operating system refused, for which file, and the fix."""
    reason = error.strerror or str(error) or type(error).__name__
    text = f"{os.fsdecode(error.filename)}: {reason}" if error.filename else reason
    if error.errno in (errno.EPERM, errno.EACCES):
        text += typed.root_hint()
    return text


def _fault(error: Exception) -> str:
    """A fault of wgpy, not of the user."""
    if os.environ.get(TRACEBACK_VARIABLE) == "1":
        traceback.print_exc()
    what = " ".join(f"{type(error).__name__}: {error}".split())
    return f"internal error: {what} ({TRACEBACK_VARIABLE}=1 shows where)"


def end_output() -> None:
    """Write out what is buffered; if the reader has gone, end the program silently."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _discard_output()
        sys.exit(1)
    except (OSError, ValueError) as error:
        _discard_output()
        _fail(f"standard output: {getattr(error, 'strerror', None) or error}")


def _discard_output() -> None:
    """Nothing reads the output: the interpreter must not flush it again at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _fail(text: str) -> NoReturn:
    click.echo(f"Error: {text}", err=True)
    sys.exit(1)
