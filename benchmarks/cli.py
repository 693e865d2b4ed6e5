"""Measure wgpy and compare it with other WireGuards.

Each command imports its code when it runs, so that ``wgpy --help`` stays fast.
"""

from __future__ import annotations

import datetime
import functools
import importlib.util
import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from wgpy import typed
from wgpy.cli.common import require_root

if TYPE_CHECKING:
    from benchmarks.implementations import Implementation
    from benchmarks.model import Recording


INTERRUPTED = "interrupted: the recording is incomplete"


@click.group()
def bench() -> None:
    """Measure wgpy and compare it with other WireGuards."""
    # A benchmark that gets SIGTERM removes its namespaces first, as on Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def output_options(command: Any) -> Any:
    """``-o DIR`` and ``--json``, the same for every kind; first reports missing extras."""
    out = click.option(
        "-o", "--output", "out", type=click.Path(file_okay=False, path_type=Path), metavar="DIR",
        help="Folder for result.json, report.html and plots [out/bench/KIND-TIME].",
    )  # fmt: skip
    text = click.option("--json", "as_json", is_flag=True, help="Print the recording as JSON.")

    @functools.wraps(command)
    def checked(**arguments: Any) -> Any:
        if absent := missing("matplotlib"):
            click.echo(f"no plots will be drawn: {absent}", err=True)
        return command(**arguments)

    return out(text(checked))


def missing(*modules: str) -> str:
    """Which of these are not installed, and the command that installs them; empty: all are."""
    absent = " ".join(name for name in modules if importlib.util.find_spec(name) is None)
    install = typed.pip_install(*absent.split())
    return f"{absent} not installed (try `{install}`)" if absent else ""


def finish(recording: Recording, out: Path | None, as_json: bool) -> None:
    """Write the folder and show the result."""
    if not as_json:
        from benchmarks.terminal import show_recording

        show_recording(recording)
    folder = out or default_folder(recording.kind)
    recording.save(folder / "result.json")
    write_report([recording], folder)
    if as_json:
        click.echo(recording.to_json(), nl=False)
    written = "result.json and report.html" if missing("matplotlib") else (
        "result.json, report.html and plots")  # fmt: skip
    click.echo(f"written: {folder}/{written}", err=True)
    if INTERRUPTED in recording.notes:
        raise SystemExit(128 + signal.SIGINT)


def default_folder(kind: str) -> Path:
    """``out/bench/KIND-TIME`` below the working directory."""
    now = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    return Path("out") / "bench" / f"{kind}-{now}"


def write_report(recordings: list[Recording], folder: Path) -> None:
    """``report.html`` and one SVG per plot."""
    from benchmarks.plots import draw_all, save
    from benchmarks.report import render

    plots = [] if missing("matplotlib") else draw_all(recordings)
    save(plots, folder)
    (folder / "report.html").write_text(render(recordings, plots))


@bench.command()
@click.option("--frames", type=click.IntRange(1), default=122_000, show_default=True)
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def decrypt(frames: int, rounds: int, as_json: bool) -> None:
    """Compare `wgpy decrypt` with tshark on one capture, interleaved."""
    import shutil
    import subprocess
    import tempfile

    from benchmarks import captures

    if shutil.which("tshark") is None:
        install = typed.as_root("apt-get", "install", "tshark")
        raise click.ClickException(f"tshark is not installed (try `{install}`)")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tunnel.pcapng"
        click.echo(f"making a capture of {frames} frames", err=True)
        made = captures.write_capture(path, frames)
        try:
            taken = captures.compare(path, rounds, lambda text: click.echo(text, err=True))
        except subprocess.CalledProcessError as error:
            raise click.ClickException(f"{error.cmd[0]} ended with {error.returncode}") from error
    ratio = taken["wgpy"] / taken["tshark"]
    if as_json:
        click.echo(json.dumps({"frames": made, "rounds": rounds, "seconds": taken, "ratio": ratio}))
    else:
        click.echo(
            f"{made} frames, median of {rounds}: tshark {taken['tshark']:.1f} s,"
            f" wgpy {taken['wgpy']:.1f} s: {ratio:.1f} times as long"
        )


@bench.command()
@click.option("--impl", "implementations", multiple=True, metavar="NAME|NAME=PATH",
              help="What to measure, repeatable: none, kernel, wireguard-go, wgpy, "
              "'wgpy --turbo', 'wgpy --no-offload', or LABEL=PATH of any compatible program "
              "[all available on this host].")  # fmt: skip
@click.option("--quick", is_flag=True, help="Seconds instead of an hour; rough figures.")
@click.option("--repetitions", type=click.IntRange(1), help="[5; quick 1]")
@click.option("--seconds", type=click.FloatRange(1), help="Length of each load [5; quick 1].")
@click.option("--pinning", type=click.Choice(["free", "pinned", "both"]),
              help="Let the scheduler choose, one core per end, or both in turn "
              "[both; quick free].")  # fmt: skip
@click.option("--cores", default="0,1", show_default=True, metavar="LEFT,RIGHT",
              help="The cores of the two ends when pinned.")  # fmt: skip
@click.option("--load", "loads", multiple=True, metavar="NAME",
              help="Only these loads, repeatable [all].")  # fmt: skip
@click.option("--tries", type=click.IntRange(1), help="Attempts when disturbed [3; quick 1].")
@click.option("--congestion", help="TCP congestion control [bbr where the kernel has it].")
@click.option("--mtu", default=1420, show_default=True, help="MTU inside the tunnel.")
@output_options
def system(out: Path | None, as_json: bool, **chosen: Any) -> None:
    """Whole tunnels between namespaces, interleaved (root)."""
    from benchmarks import system as whole
    from benchmarks.progress import Progress

    options = system_options(**chosen)
    require_root("a benchmark of whole tunnels")
    recording = whole.new_recording(options)
    try:
        with Progress(options.steps, quiet=as_json) as progress:
            whole.measure(options, recording, progress)
    except KeyboardInterrupt:
        recording.notes.append(INTERRUPTED)
    if not recording.samples:
        raise click.ClickException("; ".join(recording.notes) or "nothing was measured")
    finish(recording, out, as_json)


def system_options(
    implementations: tuple[str, ...], quick: bool, repetitions: int | None,
    seconds: float | None, pinning: str | None, cores: str, loads: tuple[str, ...],
    tries: int | None, congestion: str | None, mtu: int,
) -> Any:  # fmt: skip
    """`system.Options` from the command line; raises click's errors."""
    from benchmarks import system as whole
    from benchmarks.lab import allowed_congestion, preferred_congestion
    from benchmarks.loads import LOADS, Effort

    possible = (*LOADS, whole.START)
    if unknown := [load for load in loads if load not in possible]:
        raise click.BadParameter(f"{unknown[0]!r} is none of {', '.join(possible)}",
                                 param_hint="--load")  # fmt: skip
    if congestion is not None and congestion not in allowed_congestion():
        raise click.BadParameter(
            f"{congestion!r} is none of {', '.join(allowed_congestion())} "
            "(sysctl net.ipv4.tcp_allowed_congestion_control allows more)",
            param_hint="--congestion",
        )
    pinning = pinning or ("free" if quick else "both")
    length = seconds or (1.0 if quick else 5.0)
    return whole.Options(
        implementations=parse_implementations(implementations),
        effort=Effort(
            seconds=length,
            trials=7 if quick else 12,
            trial_seconds=max(1.0, length * 0.4),
            pings=2_000 if quick else 20_000,
        ),
        repetitions=repetitions or (1 if quick else 5),
        settings=(whole.FREE, whole.PINNED) if pinning == "both" else (pinning,),
        loads=loads or possible,
        tries=tries or (1 if quick else 3),
        starts=3 if quick else 20,
        congestion=congestion or preferred_congestion(),
        mtu=mtu,
        cores=_two_cores(cores, needed=pinning != "free"),
    )


def parse_implementations(texts: tuple[str, ...]) -> tuple[Implementation, ...]:
    """What ``--impl`` names (default: all that the host offers); raises click's errors."""
    from benchmarks import implementations as known

    try:
        chosen = [known.parse(text) for text in texts] or known.defaults()
    except known.ImplementationError as error:
        raise click.ClickException(str(error)) from error
    names = [implementation.name for implementation in chosen]
    if repeated := {name for name in names if names.count(name) > 1}:
        raise click.ClickException(f"--impl given twice: {', '.join(sorted(repeated))}")
    return tuple(chosen)


def _two_cores(text: str, needed: bool) -> tuple[int, int]:
    words = text.split(",")
    if len(words) != 2 or not all(word.strip().isdigit() for word in words):
        raise click.BadParameter(f"{text!r} is not LEFT,RIGHT", param_hint="--cores")
    left, right = (int(word) for word in words)
    missing = {left, right} - os.sched_getaffinity(0)
    if needed and missing:
        raise click.BadParameter(f"no such core here: {min(missing)}", param_hint="--cores")
    return left, right


@bench.command()
@click.option("--quick", is_flag=True, help="A minute instead of ten; rough figures.")
@click.option("--only", default="", metavar="TEXT", help="Only cases whose name contains this.")
@output_options
def micro(quick: bool, only: str, out: Path | None, as_json: bool) -> None:
    """Single operations, per crypto backend, timed by pyperf."""
    from benchmarks import micro as single

    def said(line: str) -> None:
        if not as_json:
            click.echo(line, err=True)

    if absent := missing("pyperf"):
        raise click.ClickException(absent)
    try:
        recording = single.measure(quick=quick, only=only, said=said)
    except single.MicroError as error:
        raise click.ClickException(str(error)) from error
    if not recording.samples:
        raise click.ClickException(f"no case has {only!r} in its name")
    finish(recording, out, as_json)


@bench.command()
@click.option("--quick", is_flag=True, help="Seconds instead of minutes; rough figures.")
@output_options
def pipeline(quick: bool, out: Path | None, as_json: bool) -> None:
    """The packet path in memory: packets and bytes per CPU second."""
    from benchmarks import pipeline as path
    from benchmarks.progress import lines

    said = lines(quiet=as_json)
    seconds, repetitions = (0.2, 3) if quick else (1.0, 10)
    finish(path.measure(seconds=seconds, repetitions=repetitions, said=said), out, as_json)


@bench.command()
@click.option("--quick", is_flag=True, help="Less time; rough figures.")
@output_options
def profile(quick: bool, out: Path | None, as_json: bool) -> None:
    """Where the packet path spends its time, by function, in memory."""
    from benchmarks import profiling
    from benchmarks.progress import lines

    recording = profiling.measure(seconds=0.2 if quick else 2.0, said=lines(quiet=as_json))
    finish(recording, out, as_json)


@bench.command()
@click.option("--quick", is_flag=True, help="Short curves and seconds; rough figures.")
@click.option("--impl", "implementations", multiple=True, metavar="NAME|NAME=PATH",
              help="For the floods, as with `system` [wireguard-go and wgpy].")  # fmt: skip
@click.option("--floods/--no-floods", default=True,
              help="Whole tunnels under floods of initiations (root).")  # fmt: skip
@click.option("--repetitions", type=click.IntRange(1), help="Of the curves [20; quick 2].")
@click.option("--flood-repetitions", type=click.IntRange(1), help="[5; quick 1]")
@output_options
def scale(
    quick: bool, implementations: tuple[str, ...], floods: bool, repetitions: int | None,
    flood_repetitions: int | None, out: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Growth with peers, allowed IPs and handshakes; tunnels under floods."""
    from benchmarks import flood
    from benchmarks import scale as growth
    from benchmarks.progress import Progress, lines

    if floods:
        require_root("a flood of a whole tunnel (without it: --no-floods)")
    plan = growth.Plan(0.1, 2, 1_000, 10_000, 200) if quick else growth.Plan()
    plan = replace(plan, repetitions=repetitions or plan.repetitions)
    chosen = parse_implementations(implementations or ("wireguard-go", "wgpy"))
    recording = growth.measure(plan, lines(quiet=as_json))
    if floods:
        floods_plan = flood.Plan(chosen, 1, 1.0, 1) if quick else flood.Plan(chosen)
        count = flood_repetitions or floods_plan.repetitions
        floods_plan = replace(floods_plan, repetitions=count)
        try:
            with Progress(floods_plan.steps, quiet=as_json) as progress:
                flood.measure(floods_plan, recording, progress)
        except KeyboardInterrupt:
            recording.notes.append(INTERRUPTED)
    finish(recording, out, as_json)


@bench.command()
@click.option("--quick", is_flag=True, help="One short pass; rough figures.")
@click.option("--impl", "implementations", multiple=True, metavar="NAME|NAME=PATH",
              help="As with `system` [wireguard-go and wgpy].")  # fmt: skip
@click.option("--kind", "kinds", multiple=True, metavar="NAME", help="Only these floods [all].")
@click.option("--rate", type=click.IntRange(1), default=20_000, show_default=True,
              help="Packets a second at most.")  # fmt: skip
@click.option("--offered", type=click.FloatRange(1), default=200.0, show_default=True,
              help="Mbit/s of the stream that is to go on.")  # fmt: skip
@click.option("--seconds", type=click.FloatRange(1), help="Length of each [5; quick 2].")
@click.option("--repetitions", type=click.IntRange(1), help="New tunnels [5; quick 1].")
@click.option("--tries", type=click.IntRange(1), help="Attempts at a disturbed one [2; quick 1].")
@output_options
def flood(
    quick: bool, implementations: tuple[str, ...], kinds: tuple[str, ...], rate: int,
    offered: float, seconds: float | None, repetitions: int | None, tries: int | None,
    out: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Established traffic while an attacker floods, kind by kind (root)."""
    from benchmarks import floods
    from benchmarks.environment import environment
    from benchmarks.model import Recording
    from benchmarks.progress import Progress

    if os.geteuid() != 0:
        raise click.ClickException("namespaces and tunnels need root: run with sudo")
    if unknown := set(kinds) - set(floods.KINDS):
        known = ", ".join(floods.KINDS)
        raise click.ClickException(f"--kind {min(unknown)}: known are {known}")
    chosen = parse_implementations(implementations or ("wireguard-go", "wgpy"))
    plan = floods.Plan(chosen, kinds or tuple(floods.KINDS), rate=rate, offered=offered * 1e6)
    if quick:
        plan = replace(plan, repetitions=1, seconds=2.0, tries=1)
    plan = replace(
        plan, seconds=seconds or plan.seconds, repetitions=repetitions or plan.repetitions,
        tries=tries or plan.tries,
    )  # fmt: skip
    options = {"rate": rate, "offered": plan.offered, "seconds": plan.seconds, "quick": quick}
    recording = Recording("flood", environment(), options)
    try:
        with Progress(plan.steps, quiet=as_json) as progress:
            floods.measure(plan, recording, progress)
    except KeyboardInterrupt:
        recording.notes.append(INTERRUPTED)
    finish(recording, out, as_json)


@bench.command()
@click.option("--quick", is_flag=True, help="Short curves and seconds; rough figures.")
@click.option("--tunnels/--no-tunnels", default=True,
              help="Whole tunnels with and without the table (root).")  # fmt: skip
@click.option("--repetitions", type=click.IntRange(1), help="Number of new tunnels [5; quick 1].")
@click.option("--passes", type=click.IntRange(1),
              help="Pairs of each load on the same tunnels [6; quick 1].")  # fmt: skip
@click.option("--seconds", type=click.FloatRange(1), default=1.0, show_default=True,
              help="Length of each load.")  # fmt: skip
@click.option("--load", "loads", multiple=True, metavar="NAME",
              help="Only these loads, repeatable [those with a target, and ping].")  # fmt: skip
@click.option("--tries", type=click.IntRange(1), help="Attempts when disturbed [2; quick 1].")
@output_options
def strict(quick: bool, tunnels: bool, out: Path | None, as_json: bool, **chosen: Any) -> None:
    """Cost of the strict table: lookups, loading, memory, throughput."""
    from benchmarks import strict as table
    from benchmarks.progress import Progress, lines

    if tunnels:
        require_root("a whole tunnel (without it: --no-tunnels)")
    options = strict_options(quick, **chosen)
    plan = table.Plan(0.1, 2, 10_000) if quick else table.Plan()
    recording = table.new_recording(plan)
    table.measure_in_memory(plan, recording, lines(quiet=as_json))
    if tunnels:
        recording.options |= options.as_json()
        recording.environment["devices"] = {}
        try:
            with Progress(options.steps, quiet=as_json) as progress:
                table.measure_tunnels(options, recording, progress)
        except KeyboardInterrupt:
            recording.notes.append(INTERRUPTED)
    finish(recording, out, as_json)


def strict_options(
    quick: bool, repetitions: int | None, passes: int | None, seconds: float,
    loads: tuple[str, ...], tries: int | None,
) -> Any:  # fmt: skip
    """`system.Options` with and without the table; raises click's errors."""
    from benchmarks import strict as table

    options = system_options(
        (table.WITHOUT, table.WITH), quick, repetitions, seconds, "free", "0,1",
        loads or table.LOADS, tries or (1 if quick else 2), None, 1420,
    )  # fmt: skip
    return replace(
        options,
        passes=passes or (1 if quick else table.PASSES),
        effort=replace(options.effort, pings=table.PINGS),
    )


FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@bench.command()
@click.argument("before", type=FILE)
@click.argument("after", type=FILE)
@click.option("--details", is_flag=True, help="Also show each end's user and system time.")
@click.option("--json", "as_json", is_flag=True, help="Print the rows as JSON.")
def compare(before: Path, after: Path, details: bool, as_json: bool) -> None:
    """Ratios between two recordings, with their spread."""
    from benchmarks.compare import NothingInCommon
    from benchmarks.compare import compare as rows_of

    try:
        table = rows_of(read(before), read(after), details=details)
    except NothingInCommon as error:
        raise click.ClickException(f"{before}, {after}: {error}") from error
    if as_json:
        rows = [dict(zip(table.header, row, strict=True)) for row in table.rows]
        click.echo(json.dumps(rows, indent=1, ensure_ascii=False))
        return
    from benchmarks.terminal import show_tables

    show_tables([table])


def not_a_recording(_context: Any, _option: Any, value: Path | None) -> Path | None:
    """``-o RESULT.json`` would overwrite what was meant to be read."""
    if value is not None and value.suffix == ".json":
        raise click.BadParameter(f"{value} is a recording: name a page (.html) or a folder")
    return value


@bench.command()
@click.argument("files", type=FILE, nargs=-1, required=True)
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="PAGE.html|FOLDER",
              callback=not_a_recording,
              help="Write one page, or the plots as SVG files into a folder, instead of printing "
              "tables.")  # fmt: skip
@click.option("--details", is_flag=True, help="Also show each end's user and system time.")
@click.option("--json", "as_json", is_flag=True, help="Print the recordings as JSON.")
def report(files: tuple[Path, ...], output: Path | None, details: bool, as_json: bool) -> None:
    """Show recordings as tables, as one HTML page or as plots."""
    is_page = output is not None and output.suffix == ".html"
    absent = missing("matplotlib")
    if absent and output is not None:
        if not is_page:
            raise click.ClickException(absent)
        click.echo(f"the page will have no plots: {absent}", err=True)
    recordings = [read(file) for file in files]
    if as_json:
        click.echo(json.dumps([json.loads(each.to_json()) for each in recordings], indent=1))
    if output is None:
        from benchmarks.terminal import show_recording

        for recording in recordings if not as_json else ():
            show_recording(recording, details=details)
        return
    from benchmarks.plots import draw_all, save
    from benchmarks.report import render

    drawn = [] if absent else draw_all(recordings)
    if is_page:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(render(recordings, drawn))
        click.echo(f"written: {output}", err=True)
    else:
        save(drawn, output)
        click.echo(f"written: {len(drawn)} plots in {output}", err=True)


@bench.command()
@click.argument("files", type=FILE, nargs=-1, required=True)
@click.option("--page", type=FILE, default=Path("docs/performance.md"), show_default=True,
              help="The page to fill.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print what was left unchanged as JSON.")
def docs(files: tuple[Path, ...], page: Path, as_json: bool) -> None:
    """Write the figures of recordings into a page, between its markers."""
    from benchmarks.docs import PageError, fill

    recordings = [read(file) for file in files]
    try:
        text, left = fill(page.read_text(), recordings)
    except PageError as error:
        raise click.ClickException(f"{page}: {error}") from error
    page.write_text(text)
    if as_json:
        click.echo(json.dumps({"page": str(page), "left": list(left)}, ensure_ascii=False))
    rest = f"; left as they were: {', '.join(left)}" if left else ""
    click.echo(f"written: {page}{rest}", err=True)
    for file, recording in zip(files, recordings, strict=True):
        if disturbed := len(recording.disturbed()):
            click.echo(f"{file}: {disturbed} values were disturbed by other load", err=True)


def read(file: Path) -> Recording:
    """A recording, or click's error."""
    from benchmarks.model import RecordingError, load

    try:
        return load(file)
    except RecordingError as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    bench()
