"""Options that several commands share."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

_F = TypeVar("_F", bound=Callable[..., Any])


def json_option(function: _F) -> _F:
    """The --json flag, as parameter ``as_json``: the answer as JSON on standard output."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")(
        function
    )


def _cannot_be_written(path: Path, *, folder: bool = False) -> bool:
    """Whether a file (or folder) certainly cannot be created there."""
    nearest = next(p for p in (path.absolute(), *path.absolute().parents) if p.exists())
    if nearest == path.absolute():
        return nearest.is_dir() != folder or not os.access(nearest, os.W_OK)
    return not nearest.is_dir() or not os.access(nearest, os.W_OK)


def _checked_file(_context: object, _parameter: object, path: Path | None) -> Path | None:
    if path is not None and _cannot_be_written(path):
        raise click.BadParameter(f"{path}: cannot be written")
    return path


def _checked_folder(_context: object, _parameter: object, path: Path | None) -> Path | None:
    if path is not None and _cannot_be_written(path, folder=True):
        raise click.BadParameter(f"{path}: cannot be a folder to write to")
    return path


def file_option(*names: str, **more: Any) -> Callable[[_F], _F]:
    """An option for a file to write; one that cannot be written is refused before any work."""
    kind = click.Path(path_type=Path)
    return click.option(*names, type=kind, callback=_checked_file, metavar="FILE", **more)


def folder_option(*names: str, **more: Any) -> Callable[[_F], _F]:
    """The same for a folder to write to."""
    kind = click.Path(path_type=Path)
    return click.option(*names, type=kind, callback=_checked_folder, metavar="FOLDER", **more)


def report_option(*formats: str) -> Callable[[_F], _F]:
    """`--report FILE`, which may be repeated, as parameter ``reports``: a tuple of paths.

    The file's suffix, one of `formats`, says what is written.  A file that cannot be
    written is refused before any work is done.
    """
    known = [f".{name}" for name in formats]

    def check(
        _context: click.Context, _parameter: click.Parameter, paths: tuple[Path, ...]
    ) -> tuple[Path, ...]:
        for path in paths:
            if path.suffix not in known:
                raise click.BadParameter(f"{path}: the name must end in {' or '.join(known)}")
            if _cannot_be_written(path):
                raise click.BadParameter(f"{path}: cannot be written")
        return paths

    return click.option(
        "--report", "reports", multiple=True, callback=check,
        metavar=f"FILE{'|'.join(known)}" if len(known) > 1 else f"FILE{known[0]}",
        type=click.Path(path_type=Path), help="Write a file; may be repeated.",
    )  # fmt: skip


def write_file(path: Path, text: str) -> None:
    """Write a report, creating its folders; raises click's error for the user."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    except OSError as error:
        raise click.ClickException(f"{path}: {error.strerror}") from error
