"""A run for machines and for the record: JSON, JUnit XML, one HTML page, captures.

The page is one file: each case opens to its transcript and to a capture that Wireshark
opens decrypted.
"""

from __future__ import annotations

import base64
import json
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from wgspec.case import LEVELS, SECTIONS
from wgspec.options import write_file
from wgspec.pcapng import capture
from wgspec.run import Run, suite_version
from wgspec.runner import Result
from wgspec.verdict import MEANING, Verdict

FORMATS = ("json", "html", "xml")
CAPTURE_LIMIT = 256 << 10
"""Bytes of a capture that JSON and HTML carry; larger ones (huge datagrams) need --captures."""


def summary(results: Sequence[Result]) -> str:
    """`12 PASS, 1 FAIL`."""
    counts = Counter(r.verdict for r in results)
    return ", ".join(f"{counts[v]} {v.value}" for v in Verdict if counts[v]) or "nothing ran"


def write(path: Path, run: Run) -> None:
    """The run in the format that the file's suffix says (one of `FORMATS`)."""
    match path.suffix:
        case ".json":
            write_file(path, json.dumps(as_json(run), indent=1) + "\n")
        case ".html":
            write_file(path, as_html(run))
        case ".xml":
            write_file(path, as_junit(run))
        case suffix:
            raise ValueError(f"a report cannot be written as {suffix}")


def as_json(run: Run) -> dict[str, Any]:
    """The whole run for machines."""
    return {
        "target": run.target,
        "sut": run.options.shown_sut,
        "version": run.version,
        "suite": suite_version(),
        "date": run.began.isoformat(timespec="seconds"),
        "seconds": round(run.seconds, 1),
        "profile": run.profile,
        "seed": run.options.seed,
        "strict": run.options.strict,
        "expected": run.expected.path.name if run.expected else "",
        "summary": {v.value: sum(r.verdict is v for r in run.results) for v in Verdict},
        "results": [result_json(r) for r in run.results],
    }


def result_json(result: Result) -> dict[str, Any]:
    """One result for machines."""
    return {
        "id": result.case.id,
        "requirement": result.case.text,
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


def as_junit(run: Run) -> str:
    """JUnit XML as CI systems read it; XFAIL, UNSUPPORTED and SKIPPED are `skipped`.

    A test's name is the requirement's id, which stays when its words change.
    """
    results = run.results
    suite = ET.Element("testsuite", name=f"wgspec {run.target}", tests=str(len(results)))
    suite.set("failures", str(len(run.failed)))
    skipped = [r for r in results if not r.verdict.fails_run and r.verdict is not Verdict.PASS]
    suite.set("skipped", str(len(skipped)))
    suite.set("timestamp", run.began.strftime("%Y-%m-%dT%H:%M:%S"))
    suite.set("time", f"{run.seconds:.3f}")
    _properties(suite, {
        "sut": run.options.shown_sut, "version": run.version, "suite": suite_version(),
        "profile": run.profile, "seed": str(run.options.seed),
    })  # fmt: skip
    for result in results:
        _testcase(suite, result)
    return ET.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def _testcase(suite: ET.Element, result: Result) -> None:
    node = ET.SubElement(suite, "testcase", classname=f"wgspec.{result.case.section}")
    node.set("name", result.case.id)
    node.set("time", f"{result.seconds:.3f}")
    _properties(node, {"requirement": result.case.text, "paper": result.case.paper})
    if result.verdict.fails_run:
        text = f"expected {result.expected}; got {result.actual}. {result.reason}"
        failure = ET.SubElement(node, "failure", message=_xml(text))
        lines = [result.case.text, *result.transcript.lines(fields=True), result.repeat]
        failure.text = _xml("\n".join(lines))
    elif result.verdict is not Verdict.PASS:
        text = f"{result.verdict.value}: {result.reason}"
        ET.SubElement(node, "skipped", message=_xml(text))


def _properties(node: ET.Element, values: dict[str, str]) -> None:
    properties = ET.SubElement(node, "properties")
    for name, value in values.items():
        ET.SubElement(properties, "property", name=name, value=_xml(value))


def _xml(text: str) -> str:
    """Without the control characters that XML forbids."""
    return "".join(c for c in text if c in "\n\t" or ord(c) >= 32)


def as_html(run: Run) -> str:
    """A page with one row per case that opens to its transcript and capture."""
    sections = [
        (letter, title, [_row(r) for r in run.results if r.case.section == letter])
        for letter, title in SECTIONS.items()
    ]
    text: str = page("run.html.j2").render(
        run=run,
        summary=summary(run.results),
        sections=[section for section in sections if section[2]],
        verdicts={v.value: text for v, text in MEANING.items()},
        levels=LEVELS,
        suite=suite_version(),
    )
    return text


def _row(result: Result) -> dict[str, Any]:
    facts = [("reason", result.reason), ("expected", result.expected), ("actual", result.actual)]
    facts += [("observed", text) for text in result.reports] + [("repeat", result.repeat)]
    return {
        "case": result.case,
        "verdict": result.verdict.value,
        "seconds": result.seconds,
        "facts": [(name, value) for name, value in facts if value],
        "transcript": "\n".join(result.transcript.lines(fields=True)),
        "capture": _capture_base64(result, limit=CAPTURE_LIMIT),
    }


def page(template: str) -> Any:
    """A page's template; everything put into it is escaped."""
    environment = Environment(
        loader=PackageLoader("wgspec"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    return environment.get_template(template)


def write_capture(folder: Path, result: Result, target: str) -> Path:
    """The case's capture with its keys inside."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{result.case.id}.pcapng"
    comment = f"{result.case.id} on {target}: {result.verdict.value}. {result.case.text}"
    path.write_bytes(capture(result.transcript, comment))
    return path
