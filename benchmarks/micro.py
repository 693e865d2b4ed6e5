"""Single operations, timed by pyperf in separate processes.

``python -m benchmarks.micro`` is a pyperf program (all of its options work, ``--only``
selects cases by a part of their name); ``wgpy bench micro`` runs it and turns its file
into a recording.  A case sets itself up only in the worker that times it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.environment import environment
from benchmarks.meter import watched
from benchmarks.micro_cases import Case, cases
from benchmarks.model import Recording, Sample
from wgpy.programs import python_module

QUICK = ("--processes=2", "--values=2", "--warmups=1", "--min-time=0.002")
FULL = ("--processes=10", "--values=3", "--warmups=1", "--min-time=0.05")


class MicroError(RuntimeError):
    """pyperf ended without a result."""


def measure(*, quick: bool, only: str, said: Callable[[str], None]) -> Recording:
    """Run all cases whose name contains `only`; `said` gets pyperf's lines as they come."""
    recording = Recording("micro", environment(), {"quick": quick, "only": only})
    with watched(recording, "operations"), tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "pyperf.json"
        command = python_module("benchmarks.micro", "--output", str(output))
        command += [*(QUICK if quick else FULL), *(["--only", only] if only else [])]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        try:
            assert process.stdout is not None
            lines = []
            for line in map(str.rstrip, process.stdout):
                lines.append(line)
                if ": Mean" in line:
                    said(line)
        finally:
            process.terminate()
            process.wait()
        if not output.exists():
            raise MicroError("\n".join(lines[-5:]) or "pyperf wrote nothing")
        recording.samples = samples(json.loads(output.read_text()))
    return recording


def samples(document: dict[str, Any]) -> list[Sample]:
    """The values of a pyperf file; a run (one process) is a repetition, its mean the value."""
    common = document.get("metadata", {}).get("name")
    found = []
    for benchmark in document["benchmarks"]:
        name = benchmark.get("metadata", {}).get("name", common)
        figure, _, implementation = name.partition("/")
        runs = [run["values"] for run in benchmark["runs"] if run.get("values")]
        for repetition, values in enumerate(runs):
            mean = sum(values) / len(values)
            found.append(Sample(f"{figure}.time", "s", implementation, mean, "", repetition))
    return found


def main() -> None:
    """The pyperf program."""
    import pyperf

    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="", help="only cases whose name contains this")

    def pass_on(command: list[str], arguments: argparse.Namespace) -> None:
        command.extend(("--only", arguments.only) if arguments.only else ())

    runner = pyperf.Runner(add_cmdline_args=pass_on, _argparser=parser)
    arguments = runner.parse_args()
    chosen: list[Case] = [case for case in cases() if arguments.only in case.name]
    for index, case in enumerate(chosen):
        mine = arguments.worker and arguments.worker_task == index
        runner.timeit(case.name, case.statement, globals=case.make() if mine else {})


if __name__ == "__main__":
    main()
