"""Every Markdown page: its links lead somewhere, and its commands and options exist.

Commands are read from code blocks and from inline code, wherever `wgpy` or `wireguard-py`
begins a command, also behind a prompt, a pipe, `sudo` or `wgpy testbed exec NODE`.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import click
import pytest

from wgpy.cli.main import main

ROOT = Path(__file__).parents[2]
PACKAGES = ("docs", "strict", "testbed", "benchmarks", "vectors", "wgspec", "wgpy", "tests")
PAGES = sorted(
    str(page.relative_to(ROOT))
    for page in [*ROOT.glob("*.md"), *(p for name in PACKAGES for p in (ROOT / name).rglob("*.md"))]
)
_FENCE = re.compile(r"^```.*?^```\n?", re.M | re.S)
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
_PROMPT = re.compile(r"^(\s*[$#]\s+)?((sudo|[A-Z_]+=\S+)\s+)*")
NAMES = {"wgpy --turbo"}
"""Names of benchmark subjects, not command lines."""
_END_OF_COMMAND = re.compile(r"\s+#\s|\s{2,}|\s+(?:\|\||&&|[|;>])(?:\s|$)|\s*\)?\"?`|…")


# --- links ---------------------------------------------------------------------------


def anchors(page: str) -> set[str]:
    """The anchors that a page's headings get, with numbers for repeated ones."""
    seen: dict[str, int] = {}
    found = set()
    for heading in re.findall(r"^#+\s+(.+?)\s*$", _FENCE.sub("", page), re.M):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        slug = re.sub(r"[^\w\- ]", "", text).replace(" ", "-")
        again = seen.get(slug, 0)
        seen[slug] = again + 1
        found.add(f"{slug}-{again}" if again else slug)
    return found


def broken_links(page: Path, text: str) -> list[str]:
    """Relative links of `text`, a page at `page`, without their file or anchor."""
    broken = []
    for link in _LINK.findall(_FENCE.sub("", text)):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        found = target.exists() and (
            not anchor or anchor in anchors(target.read_text() if path else text)
        )
        if not found:
            broken.append(link)
    return broken


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name: str) -> None:
    page = ROOT / name
    assert not broken_links(page, page.read_text())


def test_broken_links_are_noticed() -> None:
    text = "# One `two`: three\n[a](#one-two-three) [b](#four) [c](no.md) [d](docs/cli.md#no)"
    assert broken_links(ROOT / "README.md", text) == ["#four", "no.md", "docs/cli.md#no"]


# --- commands ------------------------------------------------------------------------


def commands(text: str) -> Iterator[list[str]]:
    """The words of each command of ours; what is typed inside `testbed exec` comes again."""
    lines = [line for block in _FENCE.findall(text) for line in block.splitlines()[1:-1]]
    prose = _FENCE.sub("", text)
    lines += re.findall(r"^ {4,}(\S.*)", prose, re.M)
    lines += re.findall(r"`([^`\n]+)`", prose)
    for line in lines:
        for part in re.split(r"\s(?:\|\||&&|[|;])\s", _PROMPT.sub("", line)):
            words = _END_OF_COMMAND.split(part.strip())[0].split()
            for start, word in enumerate(words):
                program = word.rpartition("/")[2]
                if program not in {"wgpy", "wireguard-py"} or " ".join(words) in NAMES:
                    continue
                if start == 0 or "exec" in words[:start]:
                    yield [program, *words[start + 1 :]]


@cache
def daemon_options() -> set[str]:
    """Options of `wireguard-py`, as its help names them."""
    words = [sys.executable, "-P", "-m", "wgpy.cli.wireguard_py", "--help"]
    text = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    return set(re.findall(r"(?<![\w-])--?[a-z][\w-]*", text))


def unknown(words: list[str]) -> list[str]:
    """The words of a command that are neither commands nor options of it."""
    if words[0] == "wireguard-py":
        return _unknown_options(words[1:], daemon_options())
    found: list[tuple[click.Command, list[str]]] = [(main, words[1:])]
    bad: list[str] = []
    while found:
        command, rest = found.pop()
        if isinstance(command, click.Group) and rest and re.match(r"[a-z]", rest[0]):
            below = rest[0].split("|")  # publish|withdraw: both
            with click.Context(command) as context:
                given = {name: command.get_command(context, name) for name in below}
            bad += [name for name, one in given.items() if one is None]
            found += [(one, rest[1:]) for one in given.values() if one is not None]
            continue
        options = {name for p in command.params for name in (*p.opts, *p.secondary_opts)}
        if not command.context_settings.get("allow_interspersed_args", True):  # exec
            operands = [at for at, word in enumerate(rest) if not word.startswith("-")]
            rest = rest[: operands[0]] if operands else rest
        bad += _unknown_options(rest, options | {"-h", "--help"})
    return bad


def _unknown_options(words: list[str], options: set[str]) -> list[str]:
    names = [name for word in _outside_quotes(words) for name in re.split(r"[][=|]", word)]
    return [name for name in names if re.match(r"--?[a-z]", name) and name not in options]


def _outside_quotes(words: list[str]) -> list[str]:
    """Without the options of another program inside of '…'."""
    return re.sub(r"'[^']*('|$)", "''", " ".join(words)).split()


@pytest.mark.parametrize("name", PAGES)
def test_commands_and_options_exist(name: str) -> None:
    bad = {" ".join(words): unknown(words) for words in commands((ROOT / name).read_text())}
    assert not {line: words for line, words in bad.items() if words}


def test_commands_are_found_and_mistakes_noticed() -> None:
    text = (
        "`wgpy nosuch`\n```console\n# sudo wgpy show --nosuch  # --no\n"
        "$ wgpy testbed exec a ping -c 3\n$ wgpy testbed exec a wgpy strict status --nosuch\n"
        "$ wgpy spec run --sut 'x -f %i' | wgpy pubkey\n# wireguard-py --nosuch wg0\n```\n"
    )
    found = list(commands(text))
    assert len(found) == 8
    assert sorted(" ".join(unknown(words)) for words in found) == [
        "", "", "", "", "--nosuch", "--nosuch", "--nosuch", "nosuch",
    ]  # fmt: skip


def test_the_pages_show_many_commands() -> None:
    pages = [list(commands((ROOT / name).read_text())) for name in PAGES]
    assert sum(len(words) for words in pages) > 250
