"""Results for people and machines: the terminal, JSON, JUnit, and a folder of pages.

A failing result's folder holds its transcript and a capture that opens decrypted.
"""

from __future__ import annotations

import base64
import html
import json
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from wgspec.case import LEVELS, SECTIONS
from wgspec.pcapng import capture
from wgspec.runner import Result
from wgspec.verdict import Verdict

STYLES = {
    Verdict.PASS: "green",
    Verdict.FAIL: "bold red",
    Verdict.XFAIL: "yellow",
    Verdict.XPASS: "bold magenta",
    Verdict.UNSUPPORTED: "dim",
    Verdict.SKIPPED: "dim",
}
SHOWN_LINES = 60
CAPTURE_LIMIT = 256 << 10
"""Bytes of a capture that JSON carries; larger ones (huge datagrams) are in --html only."""


def summary(results: Sequence[Result]) -> str:
    """`12 PASS, 1 FAIL`."""
    counts = Counter(r.verdict for r in results)
    return ", ".join(f"{counts[v]} {v.value}" for v in Verdict if counts[v]) or "nothing ran"


def print_line(console: Console, result: Result) -> None:
    """One line per finished case."""
    reason = f"  {escape(result.reason)}" if result.reason else ""
    console.print(
        f"{result.case.id:6} [{STYLES[result.verdict]}]{result.verdict.value:11}[/]"
        f" {result.seconds:6.1f} s{reason}",
        highlight=False,
        soft_wrap=True,
    )
    for text in result.reports:
        console.print(f"{'':27}{text}", style="dim", highlight=False, markup=False, soft_wrap=True)


def print_failure(console: Console, result: Result, where: Path | None) -> None:
    """Everything a person needs to understand and repeat a failure."""
    case = result.case

    def show(text: str, style: str = "") -> None:
        console.print(text, style=style, highlight=False, markup=False, soft_wrap=True)

    show(f"\n{case.id}  {SECTIONS[case.section]}  (paper §{case.paper}; {LEVELS[case.level]})",
         STYLES[result.verdict])  # fmt: skip
    show(f"  requirement: {case.text}")
    if result.reason:
        show(f"  why:         {result.reason}")
    if result.actual:
        show(f"  expected:    {result.expected}\n  actual:      {result.actual}")
    for name, text in case.known.items():
        show(f"  known of {name}:  {text}")
    lines = result.transcript.lines(fields=True)
    if len(lines) > SHOWN_LINES:
        show(f"  ({len(lines) - SHOWN_LINES} earlier lines are in the transcript)")
    for line in lines[-SHOWN_LINES:]:
        show(f"    {line}")
    if result.diagnostics:
        show(f"  the target printed:\n    {result.diagnostics[-1500:]}")
    if where is not None:
        show(f"  capture:     {where} (opens decrypted in Wireshark)")
    show(f"  repeat:      {result.repeat}")


def as_json(
    results: Sequence[Result], target: str, seed: int, about: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """The whole run for machines; `about` says more of it (sut, version, profile)."""
    return {
        "target": target,
        **(about or {}),
        "seed": seed,
        "summary": {v.value: sum(r.verdict is v for r in results) for v in Verdict},
        "results": [result_json(r) for r in results],
    }


def result_json(result: Result) -> dict[str, Any]:
    """One result for machines."""
    return {
        "id": result.case.id,
        "section": result.case.section,
        "level": result.case.level,
        "verdict": result.verdict.value,
        "reason": result.reason,
        "expected": result.expected,
        "actual": result.actual,
        "reports": result.reports,
        "seconds": round(result.seconds, 3),
        "repeat": result.repeat,
        "transcript": result.transcript.lines(),
        "capture": _capture_base64(result, limit=CAPTURE_LIMIT),
    }


def _capture_base64(result: Result, limit: int) -> str:
    """The case's capture, or nothing when it has none or a larger one."""
    if not any(entry.data for entry in result.transcript.entries):
        return ""
    data = capture(result.transcript, f"{result.case.id}: {result.verdict.value}")
    return base64.b64encode(data).decode() if len(data) <= limit else ""


def write_json(
    path: Path,
    results: Sequence[Result],
    target: str,
    seed: int,
    about: Mapping[str, str] | None = None,
) -> None:
    path.write_text(json.dumps(as_json(results, target, seed, about), indent=1) + "\n")


def write_junit(path: Path, results: Sequence[Result], target: str) -> None:
    """JUnit XML as CI systems read it; XFAIL, UNSUPPORTED and SKIPPED are `skipped`."""
    suite = ET.Element("testsuite", name=f"wgspec {target}", tests=str(len(results)))
    suite.set("failures", str(sum(r.verdict.fails_run for r in results)))
    skipped = [r for r in results if not r.verdict.fails_run and r.verdict is not Verdict.PASS]
    suite.set("skipped", str(len(skipped)))
    for result in results:
        node = ET.SubElement(suite, "testcase", classname=f"wgspec.{result.case.section}")
        node.set("name", f"{result.case.id} {result.case.text}")
        node.set("time", f"{result.seconds:.3f}")
        if result.verdict.fails_run:
            text = f"expected {result.expected}; got {result.actual}. {result.reason}"
            failure = ET.SubElement(node, "failure", message=_xml(text))
            lines = [*result.transcript.lines(fields=True), result.repeat]
            failure.text = _xml("\n".join(lines))
        elif result.verdict is not Verdict.PASS:
            text = f"{result.verdict.value}: {result.reason}"
            ET.SubElement(node, "skipped", message=_xml(text))
    ET.ElementTree(suite).write(path, encoding="utf-8", xml_declaration=True)


def _xml(text: str) -> str:
    """Without the control characters that XML forbids."""
    return "".join(c for c in text if c in "\n\t" or ord(c) >= 32)


def write_capture(folder: Path, result: Result, target: str) -> Path:
    """The case's capture with its keys inside."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{result.case.id}.pcapng"
    comment = f"{result.case.id} on {target}: {result.verdict.value}. {result.case.text}"
    path.write_bytes(capture(result.transcript, comment))
    return path


def write_html(folder: Path, results: Sequence[Result], target: str) -> None:
    """A page with one row per case that opens to its transcript, and all captures."""
    folder.mkdir(parents=True, exist_ok=True)
    rows: list[str] = []
    for letter, title in SECTIONS.items():
        members = [r for r in results if r.case.section == letter]
        if members:
            rows.append(f"<h2>{letter}. {html.escape(title)}</h2>")
        for result in members:
            write_capture(folder, result, target)
            rows.append(_row(result))
    page = _PAGE.format(target=html.escape(target), summary=summary(results), rows="\n".join(rows))
    (folder / "index.html").write_text(page)


def _row(result: Result) -> str:
    case = result.case
    facts = [("reason", result.reason), ("expected", result.expected), ("actual", result.actual)]
    facts += [("observed", text) for text in result.reports] + [("repeat", result.repeat)]
    shown = "".join(f"<dt>{k}</dt><dd>{html.escape(v)}</dd>" for k, v in facts if v)
    lines = html.escape("\n".join(result.transcript.lines(fields=True)))
    return (
        f'<details class="{result.verdict.value}"><summary><b>{case.id}</b> '
        f"<i>{result.verdict.value}</i> {html.escape(case.text)} "
        f"<small>§{case.paper}, {case.level}</small></summary>"
        f"<dl>{shown}</dl><a href='{case.id}.pcapng'>capture (keys inside)</a>"
        f"<pre>{lines}</pre></details>"
    )


_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>wgspec: {target}</title>
<style>body{{font:18px/1.45 system-ui,sans-serif;max-width:72em;margin:2em auto;padding:0 1em}}
summary{{cursor:pointer;padding:.15em 0}}i{{font-style:normal;font-weight:700}}
.PASS i{{color:#15803d}}.FAIL i,.XPASS i{{color:#b91c1c}}.XFAIL i{{color:#a16207}}
.UNSUPPORTED i,.SKIPPED i{{color:#6b7280}}pre{{font-size:14px;overflow-x:auto;background:#f3f4f6;
padding:.6em}}dt{{font-weight:600}}small{{color:#6b7280}}</style>
<h1>wgspec: {target}</h1><p>{summary}</p>
{rows}
</html>
"""
