"""What a wheel brings besides the packages: links, man pages, the systemd unit."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

from tests.cli.every_command import every_command

ROOT = Path(__file__).parents[2]
LINK = re.compile(r"\]\(([^)\s]+)\)")


def test_links_of_the_long_description_are_absolute_and_their_files_exist() -> None:
    text = (ROOT / "README.md").read_text()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    (rule,) = project["tool"]["hatch"]["metadata"]["hooks"]["fancy-pypi-readme"]["substitutions"]
    base = project["project"]["urls"]["Source"]
    absolute = re.sub(rule["pattern"], rule["replacement"], text)
    links = LINK.findall(absolute)
    assert len(links) == len(LINK.findall(text)) > 20
    assert not [link for link in links if not re.match(r"https?://|#", link)]
    for link in LINK.findall(text):
        if not link.startswith(("http", "#")):
            assert (ROOT / link.partition("#")[0]).exists(), link
            assert f"{base}/blob/main/{link}" in links


def test_every_command_has_a_man_page(tmp_path: Path) -> None:
    program = ROOT / "install" / "man_pages.py"
    subprocess.run([sys.executable, "-P", program, tmp_path], check=True, capture_output=True)
    wanted = {"-".join(("wgpy", *path)) for path, _ in every_command()}
    assert wanted <= {page.stem for page in tmp_path.iterdir()}
    page = (tmp_path / "wgpy-show.1").read_text()
    assert "watch" in page
    assert ".SH SYNOPSIS" in page


def test_the_systemd_unit_starts_and_ends_what_the_program_has() -> None:
    unit = (ROOT / "install" / "wgpy@.service").read_text()
    started = re.findall(r"^Exec(?:Start|Stop)=wgpy (\w+) %i$", unit, re.MULTILINE)
    assert started == ["up", "down"]
    assert {(word,) for word in started} <= {path for path, _ in every_command()}
