"""Write a man page for each command of `wgpy`, from what `--help` says.

    python install/man_pages.py FOLDER
"""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path

import click
from click_man.core import write_man_pages

from wgpy.cli.main import main


def eager(command: click.Command, name: str) -> click.Command:
    """The command with all that is below it imported: click-man looks at `commands` alone."""
    if not isinstance(command, click.Group):
        return command
    context = click.Context(command, info_name=name)
    below: dict[str, click.Command] = {}
    for word in command.list_commands(context):
        found = command.get_command(context, word)
        if found is not None:
            below[word] = eager(found, word)
    return click.Group(name, commands=below, help=command.help, params=command.params)


def write(folder: Path) -> list[Path]:
    """Write the pages; returns them."""
    folder.mkdir(parents=True, exist_ok=True)
    tree = eager(main, "wgpy")
    write_man_pages("wgpy", tree, version=version("wgpy"), target_dir=str(folder), date="")
    return sorted(folder.glob("*.1"))


if __name__ == "__main__":
    print(f"{len(write(Path(sys.argv[1])))} pages in {sys.argv[1]}")
