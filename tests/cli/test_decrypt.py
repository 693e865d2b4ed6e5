"""`wgpy decrypt … | head`: a reader that has seen enough is no error."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from benchmarks.captures import write_capture
from tests.cli.tunnel import WGPY


@pytest.fixture(scope="module")
def capture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Enough to fill a pipe more than once."""
    path = tmp_path_factory.mktemp("capture") / "tunnel.pcapng"
    write_capture(path, 4000)
    return path


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_a_reader_that_leaves_ends_it_without_a_word(capture: Path, form: list[str]) -> None:
    words = [WGPY, "decrypt", str(capture), *form]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline()
        process.stdout.close()
        said = process.stderr.read()
    assert said == b""
    assert process.returncode == 1
