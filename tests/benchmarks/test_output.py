"""From recordings to files, tables, verdicts, plots, the page and the comparison."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest

from benchmarks.compare import NothingInCommon, compare
from benchmarks.docs import PageError, fill
from benchmarks.model import Recording, RecordingError, load
from benchmarks.plots import draw_all, standalone, tail_ranks
from benchmarks.report import render
from benchmarks.tables import result_tables, target_table
from benchmarks.targets import TARGETS, Verdict, findings
from benchmarks.units import show
from tests.benchmarks import recordings

ROOT = Path(__file__).parents[2]


def test_a_file_comes_back_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "new" / "result.json"
    before = recordings.system()
    before.notes.append("a note")
    before.save(path)
    assert load(path) == before
    assert [p.name for p in path.parent.iterdir()] == ["result.json"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "not a readable JSON"),
        ("[]", "format"),
        ('{"format": "wgpy-bench/0"}', "wgpy-bench/0"),
        ('{"format": "wgpy-bench/1", "kind": "x"}', "environment"),
        (
            '{"format": "wgpy-bench/1", "kind": "x", "environment": {}, "options": {}, '
            '"samples": [{"bad": 1}], "distributions": [], "notes": []}',
            "bad",
        ),
    ],
)
def test_other_files_are_refused_by_name(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "other.json"
    path.write_text(text)
    with pytest.raises(RecordingError, match=said) as caught:
        load(path)
    assert str(path) in str(caught.value)


def cell(recording: Recording, title: str, row: str, column: str) -> str:
    (table,) = [t for t in result_tables(recording, details=True) if t.title == title]
    (found,) = [r for r in table.rows if r[0] == row]
    return found[table.header.index(column)]


def test_a_table_shows_median_spread_and_paired_ratio() -> None:
    """9 ×, although the machine drifted fourfold within the run."""
    text = cell(recordings.system(), "system, free", "tcp1-up.goodput", "wgpy")
    assert text == "9 Gbit/s ± 38% (9 ×)"
    assert cell(recordings.system(), "system, free", "tcp1-up.peak_rss", "none") == ""


def test_details_only_on_request() -> None:
    figures = {row[0] for table in result_tables(recordings.system()) for row in table.rows}
    assert "tcp1-up.cpu_per_gb" in figures
    assert "tcp1-up.cpu_per_gb_left_user" not in figures


def test_a_curve_is_a_table_of_its_own() -> None:
    tables = {table.title: table for table in result_tables(recordings.scale())}
    assert tables["peers.per_packet"].rows == (
        ("1", "10.0 µs"), ("100", "11.0 µs"), ("10,000", "12.0 µs"),
    )  # fmt: skip
    assert "handshakes.answered" in {row[0] for row in tables["scale"].rows}


def verdicts(*given: Recording) -> dict[str, Verdict]:
    return {f"{f.figure} {f.setting}".strip(): f.verdict for f in findings(given)}


def test_verdicts_of_every_kind() -> None:
    found = verdicts(recordings.system(), recordings.scale())
    assert found["tcp1-up.goodput free"] is Verdict.HIT
    assert found["tcp1-up.cpu_per_gb free"] is Verdict.MILESTONE
    assert found["ping.mean pinned"] is Verdict.MISSED
    assert found["start.usable"] is Verdict.UNMEASURED
    assert found["handshakes.answered"] is Verdict.HIT
    assert found["peers.per_packet"] is Verdict.MISSED
    assert found["entries.per_packet"] is Verdict.HIT


def test_ratios_are_of_the_repetitions_that_both_have() -> None:
    """A measurement that failed must not pair others that lie minutes apart."""
    given = recordings.system()
    given.samples = [
        s for s in given.samples
        if (s.figure, s.implementation, s.repetition) not in (
            ("tcp1-up.goodput", "wgpy", 0), ("tcp1-up.goodput", "wireguard-go", 2),
        )
    ]  # fmt: skip
    free, pinned = (f for f in findings([given]) if f.figure == "tcp1-up.goodput" and f.value)
    assert free.value == pinned.value == 9
    assert cell(given, "system, free", "tcp1-up.goodput", "wgpy").endswith("(9 ×)")


def test_the_interval_of_a_ratio_is_shown_where_there_is_one() -> None:
    measured = {(row[1], row[3]) for row in target_table([recordings.system()]).rows}
    assert ("tcp1-up.goodput (free)", "9 ×") in measured
    assert ("ping.mean (free)", "0.8 × (0.7 – 0.9)") in measured
    assert ("tcp1-up.peak_rss (free)", "85.0 MB") in measured


def test_the_compiled_path_stands_beside_where_it_was_measured() -> None:
    given = recordings.system()
    assert "with --turbo" not in target_table([given]).header
    given.samples += [
        replace(s, implementation="wgpy --turbo", value=2 * s.value)
        for s in given.samples
        if s.implementation == "wgpy" and s.figure in ("tcp1-up.goodput", "tcp1-up.peak_rss")
    ]
    table = target_table([given])
    assert table.header[3:] == ("measured", "verdict", "with --turbo", "verdict")
    rows = {row[1]: row[3:] for row in table.rows}
    assert rows["tcp1-up.goodput (free)"] == ("9 ×", "hit", "18.0 ×", "hit")
    assert rows["tcp1-up.peak_rss (pinned)"] == ("85.0 MB", "hit", "170 MB", "missed")
    assert rows["ping.mean (free)"][2:] == ("", "")
    strict = {row[0]: row[5] for row in table.rows if row[0].startswith("strict table")}
    assert set(strict.values()) == {""}, "it says nothing about the table in front"


def test_without_the_baseline_there_is_no_ratio_to_it() -> None:
    alone = recordings.system()
    alone.samples = [s for s in alone.samples if s.implementation != "wireguard-go"]
    found = verdicts(alone)
    assert found["tcp1-up.goodput"] is Verdict.UNMEASURED
    assert found["tcp1-up.peak_rss free"] is Verdict.HIT


def test_every_target_is_in_the_table_measured_or_not() -> None:
    titles = {row[0] for row in target_table([recordings.system()]).rows}
    assert titles == {target.title for target in TARGETS}


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (2.911e9, "bit/s", "2.91 Gbit/s"), (278_000, "1/s", "278 k/s"), (12, "1/s", "12.0/s"),
        (1.09e-4, "s", "109 µs"), (8.5e7, "B", "85.0 MB"), (17, "s/GB", "17.0 s/GB"),
        (0, "s", "0 s"), (0.0107, "1", "0.0107"), (5e-8, "s", "50.0 ns"),
    ],
)  # fmt: skip
def test_units(value: float, unit: str, text: str) -> None:
    assert show(value, unit) == text


def test_plots_take_the_pages_ink_and_are_whole_files() -> None:
    plots = draw_all([recordings.system(), recordings.scale()])
    names = {plot.name for plot in plots}
    assert {"system-throughput-free", "system-latency-pinned", "scale-peers-per-packet"} <= names
    assert len(names) == len(plots)
    for plot in plots:
        assert "currentColor" in plot.svg and "#102030" not in plot.svg
        root = ElementTree.fromstring(standalone(plot.svg))
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
    text = next(plot.svg for plot in plots if plot.name == "system-throughput-free")
    assert "wireguard-go" in text and "Gbit/s" in text


@pytest.mark.parametrize("count", [1, 2, 7, 1001])
def test_the_tail_is_drawn_whole(count: int) -> None:
    ranks = tail_ranks(count)
    assert ranks == sorted(set(ranks))
    assert (ranks[0], ranks[-1]) == (0, count - 1)
    assert len(ranks) <= 150 and set(range(max(0, count - 5), count)) <= set(ranks)


def test_plots_are_the_same_every_time() -> None:
    first, second = (draw_all([recordings.system()]) for _ in range(2))
    assert first == second


class Page(HTMLParser):
    """Tags that fetch, headings, and whether all is closed."""

    VOID = frozenset({"meta", "link", "br", "img", "use", "path", "rect"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.ids: list[str] = []
        self.count: dict[str, int] = {}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.count[tag] = self.count.get(tag, 0) + 1
        for name, value in attrs:
            if name in ("src", "href") and tag in ("script", "link", "img", "iframe", "a"):
                self.fetched.append(f"{tag} {value}")
            if name == "id" and tag == "h2":
                self.ids.append(value or "")


def test_the_page_is_whole_and_fetches_nothing() -> None:
    given = recordings.system()
    given.notes.append("<script>alert(1)</script>")
    given.samples[0] = replace(given.samples[0], disturbed=True, foreign=0.5)
    plots = draw_all([given])
    text = render([given], plots)
    page = Page(text)
    assert page.ids == ["targets", "plots", "figures", "notes", "environment"]
    assert page.fetched == []
    assert page.count["svg"] == len(plots)
    assert "alert(1)&lt;/script&gt;" in text and page.count["script"] == 1
    assert "1 of 54 values stay disturbed" in text
    assert not re.search(r"@import|url\(http", text)
    assert "prefers-color-scheme: dark" in text
    assert '<td class="red">missed</td>' in text


def test_comparing_a_recording_with_a_faster_one() -> None:
    table = compare(recordings.system(), recordings.system(scale=8.0))
    rows = {(row[0], row[1]): row for row in table.rows}
    goodput = rows["tcp1-up.goodput free", "wgpy"]
    assert goodput[4].startswith("8 ×")
    assert goodput[5] == "better"
    assert goodput[6].startswith("8 ×")
    assert rows["tcp1-up.cpu_per_gb free", "wgpy"][5] == "worse"
    same = rows["tcp1-up.goodput free", "wireguard-go"]
    assert same[5] == "same" and same[6] == ""


def test_nothing_in_common_is_said() -> None:
    with pytest.raises(NothingInCommon):
        compare(recordings.system(), recordings.scale())


PAGE = """# Performance

<!-- figures: targets -->
old
<!-- end of figures -->
words
<!-- figures: system-pinned -->
<!-- end of figures -->
<!-- figures: strict -->
kept
<!-- end of figures -->
"""


def test_a_page_gets_its_figures_and_keeps_the_rest() -> None:
    text, left = fill(PAGE, [recordings.system()])
    assert left == ["strict"]
    assert "old" not in text and "words" in text and "kept" in text
    assert "| tcp1-up.goodput | 20.0 Gbit/s" in text
    assert fill(text, [recordings.system()])[0] == text


def test_a_page_without_markers_is_refused() -> None:
    with pytest.raises(PageError):
        fill("# nothing here\n", [recordings.system()])


def test_what_no_setting_applies_to_has_a_name_too() -> None:
    page = "<!-- figures: scale-plain -->\n<!-- end of figures -->"
    text, left = fill(page, [recordings.scale()])
    assert left == [] and "| handshakes.answered | 5 k/s |" in text


def test_the_front_page_has_the_targets_in_a_few_lines() -> None:
    given = recordings.system()
    given.samples += [
        replace(s, implementation=name, figure=figure, value=s.value * factor)
        for s in given.samples
        if s.figure == "tcp1-up.goodput" and s.implementation in ("wgpy", "wireguard-go")
        for name, figure, factor in (
            (s.implementation, "tcp4-up.goodput", 0.5 if s.implementation == "wgpy" else 1),
            ("wgpy --turbo", "tcp1-up.goodput", 2),
        )
        if s.implementation == "wgpy" or name != "wgpy --turbo"
    ]
    page = "<!-- figures: headline -->\n<!-- end of figures -->"
    rows = fill(page, [given])[0].splitlines()
    assert rows[1].split(" | ")[1:] == ["wgpy", "wgpy --turbo", "wireguard-go", "goal |"]
    cells = ["TCP throughput, ÷ wireguard-go", "4.5 × – 9 × (1 of 2 reached)", "18.0 × (reached)"]
    assert f"| {' | '.join(cells)} | 1 × | ≥ 8 × |" in rows
    assert "| flood ping, mean, ÷ wireguard-go | 0.8 × (not reached) |  | 1 × | ≤ 0.6 × |" in rows


def test_a_second_recording_of_a_kind_stands_below_the_first() -> None:
    page = "<!-- figures: scale -->\n<!-- end of figures -->"
    once = fill(page, [recordings.scale()])[0]
    twice = fill(page, [recordings.scale(), recordings.scale()])[0]
    assert twice.count("**scale**") == 2 * once.count("**scale**") == 2


@pytest.mark.parametrize("page", ["docs/performance.md", "README.md"])
def test_the_projects_own_pages_can_be_filled(page: str) -> None:
    text, _ = fill(Path(page).read_text(), [recordings.system(), recordings.scale()])
    assert "9 ×" in text


def test_the_projects_own_page_can_be_filled() -> None:
    page = Path(__file__).parents[2] / "docs" / "performance.md"
    text, left = fill(page.read_text(), [recordings.system(), recordings.scale()])
    assert "| TCP throughput | tcp1-up.goodput (free) | ≥ 8 × | 9 × | hit |" in text
    assert set(left) == {"pipeline", "micro", "strict", "system-plain", "profile"}


def test_cells_do_not_break_the_markdown_table() -> None:
    text, _ = fill("<!-- figures: environment -->\n<!-- end of figures -->", [recordings.system()])
    assert "| cpu | A \\| B |" in text


def test_json_holds_no_derived_value() -> None:
    document = json.loads(recordings.system().to_json())
    assert set(document) == {
        "format", "kind", "environment", "options", "samples", "distributions", "notes",
    }  # fmt: skip


def test_a_rival_stands_in_tables_with_its_version() -> None:
    given = recordings.system()
    given.environment["implementations"] = {
        "wireguard-go": "wireguard-go v0.0.20220316", "wgpy": "wireguard-py 0.1.0",
    }  # fmt: skip
    text, _ = fill(
        "<!-- figures: headline -->\n<!-- end of figures -->\n"
        "<!-- figures: targets -->\n<!-- end of figures -->\n"
        "<!-- figures: system -->\n<!-- end of figures -->",
        [given],
    )
    headers = [line for line in text.splitlines() if line.startswith("|") and "wgpy |" in line]
    assert headers and all("wireguard-go 0.0.20220316 |" in line for line in headers)
    assert "÷ wireguard-go 0.0.20220316 |" in text
    assert text.count("the ratio to wireguard-go 0.0.20220316") == text.count("the ratio to wire")
    assert "wgpy 0.1.0" not in text


def test_pages_name_no_rival_without_its_version() -> None:
    for page in ("README.md", "docs/performance.md"):
        blocks = (ROOT / page).read_text().split("<!-- figures: ")[1:]
        for block in blocks:
            rows = block.partition("<!-- end of figures -->")[0].splitlines()
            headers = [row for row, below in pairwise(rows) if below.startswith("|---")]
            assert not [h for h in headers if re.search(r"wireguard-go(?! \d)", h)], page
