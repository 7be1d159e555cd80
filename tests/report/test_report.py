"""The report: everything that the run folder holds, nothing that it does not, and nothing from the network."""

from __future__ import annotations

import json
import math
import os
import re
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from hil.errors import DataError, RunError
from hil.report import render
from hil.report.contents import by_epoch, feedback, timeline, wilson
from hil.report.headline import duration, quantity
from hil.report.levels import budget, drawn, programmed
from hil.report.run_files import read
from hil.run.lock import owned

CONFIG = 'seed = 3\n\n[data]\nuse = "digits"\n\n[learner]\nuse = "adfa"\nfeedback = "sine"\n'


def summary(**changes: Any) -> dict[str, Any]:
    facts = {
        "status": "done",
        "provenance": "twin",
        "test_accuracy": 0.95,
        "validation_accuracy": 0.9611,
        "best_epoch": 2,
        "seed": 3,
        "wall_s": 41.2,
        "device_s": 20.6,
        "device_passes": 2156700,
        "faults_recovered": 1,
        "node": {"use": "mach_zehnder", "v_pi_v": 3.52},
        "resources": {"awg": "Keysight Technologies,33622A,SIM-33622-0007,A.02.03"},
        "versions": {"hil": "0.1.0", "torch": "2.13.0"},
    }
    return {**facts, **changes}


def metrics() -> list[dict[str, Any]]:
    lines = []
    for epoch in (1, 2, 3):
        part = {"epoch": epoch, "step": 10 * epoch}
        lines.append({**part, "split": "train", "loss": 1 / epoch, "accuracy": 0.8 + epoch / 20, "overflow": 0.0123})
        lines.append({**part, "split": "validation", "loss": 1.1 / epoch, "accuracy": 0.7 + epoch / 20})
    return lines


def journal() -> list[dict[str, Any]]:
    return [
        {"t": "2026-11-22T01:45:12.000+00:00", "kind": "start"},
        {"t": "2026-11-22T01:45:22.000+00:00", "kind": "step", "step": 10},
        {
            "t": "2026-11-22T01:45:25.000+00:00",
            "kind": "fault",
            "step": 12,
            "error": "LinkTimeout",
            "message": "scope: no answer",
        },
        {"t": "2026-11-22T01:45:27.000+00:00", "kind": "recovery", "what": "device clear, shot repeated"},
        {"t": "2026-11-22T01:45:42.000+00:00", "kind": "step", "step": 30},
    ]


def diagnostics() -> dict[str, Any]:
    drive = [-4 + 8 * k / 40 for k in range(41)]
    curve = [0.2 + 0.2 * math.sin(v) for v in drive]
    table = [[18 * (row == column) for column in range(10)] for row in range(10)]
    for true, predicted in ((8, 1), (8, 1), (9, 5), (3, 5), (1, 8), (4, 9), (7, 9), (2, 3), (9, 3)):
        table[true][true] -= 1
        table[true][predicted] += 1
    transfer = {"drive": drive, "measured": curve, "spread": [0.01] * 41, "twin": curve, "drive_unit": "V", "reading_unit": "V"}
    layer = {"pre": drive, "g": curve, "slope": [math.cos(v) for v in drive], "correlation": 0.931}
    return {
        "confusion": table,
        "transfer": transfer,
        "pre": [{"edges": [-4, -2, 0, 2, 4], "counts": [1, 5, 6, 2]}] * 2,
        "feedback": [layer, {**layer, "correlation": -0.5}],
        "time": {"device_s": 20.6, "host_s": 10.3, "data_s": 0.0, "other_s": 10.3},
    }


def write(run: Path, **parts: Any) -> Path:
    """A whole run folder, with the named parts replaced; None leaves a file out, text is written as it stands."""
    run.mkdir(exist_ok=True)
    whole = {"config": CONFIG, "summary": summary(), "metrics": metrics(), "journal": journal(), "diagnostics": diagnostics()}
    ends = {"config": ".toml", "summary": ".json", "metrics": ".jsonl", "journal": ".jsonl", "diagnostics": ".json"}
    for name, value in {**whole, **parts}.items():
        if value is None:
            continue
        if isinstance(value, list):
            value = "".join(json.dumps(line) + "\n" for line in value)
        (run / (name + ends[name])).write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return run


class Page(HTMLParser):
    """What a reader of the page sees and what a browser would load."""

    VOID = frozenset({"meta", "br", "hr", "img", "input", "link", "base"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.words: list[str] = []
        self.loads: list[str] = []
        self.figures: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)
        for key, value in attrs:
            if key in {"src", "href", "xlink:href", "srcset", "data", "poster", "action"}:
                self.loads.append(value or "")
            if key == "aria-label":
                self.figures.append(value or "")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"style", "title"} & set(self.open[-1:]):
            self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))


def opened(run: Path, files: bool = True) -> Page:
    """files: with its figures as files, which takes most of the time that drawing takes."""
    page = Page(render(run, files).read_text(encoding="utf-8"))
    assert page.open == []  # every element is closed
    return page


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, drawing: object) -> tuple[Page, str]:
    run = write(tmp_path_factory.mktemp("runs") / "night-3")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("matplotlib.figure.Figure.savefig", drawing)
        return opened(run), (run / "report.html").read_text(encoding="utf-8")


def test_the_verdict_says_how_well_who_answered_and_at_what_cost(whole: tuple[Page, str]) -> None:
    text = whole[0].text
    assert "95.0 % test accuracy on digits twin" in text
    assert "physics of the node was simulated; no hardware took part" in text
    assert "171 of 180" in text
    assert "90.8 to 97.3 % with 95 % confidence" in text
    assert "2,156,700" in text
    assert "the spread between seeds is unknown" in text
    assert "Not in this report" not in text


def test_the_sections_stand_in_the_order_a_reader_needs(whole: tuple[Page, str]) -> None:
    heads = re.findall(r"<h2>(.*?)</h2>", whole[1])
    assert heads == [
        "Learning", "The node", "Feedback", "Where the time went", "Faults and events", "Confusion", "Settings", "Origin",
    ]  # fmt: skip


def test_nothing_is_loaded_from_anywhere(whole: tuple[Page, str]) -> None:
    page, html = whole
    assert page.loads
    assert all(target.startswith(("#", "figures/")) for target in page.loads)  # inside a figure, or a link to its files
    assert "http:" not in html
    assert "https:" not in html
    assert "@import" not in html
    assert "<script" not in html
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", html))


def test_references_inside_figures_lead_somewhere_and_names_are_unique(whole: tuple[Page, str]) -> None:
    names = re.findall(r'\bid="([^"]*)"', whole[1])
    wanted = set(re.findall(r"url\(#([^)]*)\)", whole[1])) | {to[1:] for to in whole[0].loads if to.startswith("#")}
    assert len(names) == len(set(names))
    assert wanted <= set(names)


def test_every_figure_has_words_for_who_cannot_see_it(whole: tuple[Page, str]) -> None:
    page, html = whole
    described = [text for text in page.figures if not re.search(r" as (SVG|PDF|CSV)$", text)]  # those of links aside
    assert len(described) == html.count("<svg") + 1  # and the bar of times
    assert "validation ends at 85.0 %" in page.figures[0]
    assert "correlation -0.500" in " ".join(page.figures)
    assert "1 faults" not in page.text


def test_figures_take_their_colours_from_the_page(whole: tuple[Page, str]) -> None:
    drawn = "".join(re.findall(r"<svg.*?</svg>", whole[1], flags=re.S))
    used = set(re.findall(r"var\((--[\w-]+)\)", drawn))
    defined = set(re.findall(r"(--[\w-]+):", whole[1]))
    assert {"--ink", "--muted", "--series-1"} <= used <= defined
    assert re.findall(r"#[0-9a-fA-F]{6}\b", drawn) == []
    assert "font-family" not in drawn  # that of the page
    assert "prefers-color-scheme: dark" in whole[1]


def test_the_numbers_of_the_folder_are_on_the_page(whole: tuple[Page, str]) -> None:
    text = whole[0].text
    for told in (
        "1.23 %",  # clipped
        "r = +0.931",
        "waiting for the node 20.6 s 50.0 %",
        "1 fault in the journal",
        "13 s fault scope: no answer step 12, error LinkTimeout",
        "8 taken for 1: 2",
        "feedback sine",
        "SIM-33622-0007",
        "measured minus twin 0 V rms",
        "spread of a reading 10 mV",
    ):
        assert told in text, told


@pytest.mark.parametrize(
    ("provenance", "badge", "sentence"),
    [
        ("real", "hardware", "Hardware answered"),
        ("replay", "replay", "no hardware took part"),
        ("something", "origin unknown", "do not take this for a result of hardware"),
        (None, "origin unknown", "do not take this for a result of hardware"),
    ],
)
def test_only_hardware_is_called_hardware(tmp_path: Path, provenance: str | None, badge: str, sentence: str) -> None:
    text = opened(write(tmp_path / "run", summary=summary(provenance=provenance))).text
    assert f"test accuracy on digits {badge}" in text
    assert sentence in text
    assert ("Hardware answered" in text) == (provenance == "real")


@pytest.mark.parametrize("missing", ["config", "summary", "metrics", "journal", "diagnostics"])
def test_a_missing_file_is_named_and_the_rest_is_shown(tmp_path: Path, missing: str) -> None:
    page = opened(write(tmp_path / "run", **{missing: None}))
    assert f"{missing}." in page.text
    assert "is missing." in page.text
    assert page.figures or missing == "diagnostics"


def test_a_lone_config_still_makes_a_page(tmp_path: Path) -> None:
    text = opened(write(tmp_path / "run", summary=None, metrics=None, journal=None, diagnostics=None)).text
    assert "No result yet on digits" in text
    assert "No epoch has been finished" in text
    assert "no summary and no process is at work in it: it was killed" in text
    assert "origin unknown" in text


def test_a_killed_run_shows_the_best_so_far_and_what_its_journal_says_of_its_origin(tmp_path: Path) -> None:
    begun = [{**journal()[0], "provenance": "twin"}, *journal()[1:]]
    text = opened(write(tmp_path / "run", summary=None, journal=begun)).text
    assert "85.0 % validation accuracy on digits so far; the test split has not been read twin" in text
    assert "no hardware took part" in text


def test_an_interrupted_run_says_so_and_how_to_go_on(tmp_path: Path) -> None:
    facts = summary(status="interrupted")
    del facts["test_accuracy"]
    run = write(tmp_path / "run", summary=facts, diagnostics={"transfer": None})
    text = opened(run).text
    assert "96.1 % validation accuracy on digits so far; the test split has not been read" in text
    assert f"hil resume {run}" in text
    assert "171 of 180" not in text


def test_a_run_that_goes_on_is_told_from_one_that_was_killed(tmp_path: Path) -> None:
    run = write(tmp_path / "run", summary=summary(status="interrupted"))
    with owned(run):  # resumed: the summary is that of the interruption
        text = opened(run).text
    assert f"This run is still going on (process {os.getpid()}" in text
    assert "The page shows it until 2026-11-22 01:45:42 UTC" in text
    assert "interrupted" not in text.split("Learning")[0]
    text = opened(run).text
    assert "This run was interrupted before its end" in text
    assert "still going on" not in text


def test_warnings_stand_beneath_the_headline_and_tables_of_facts_not_among_the_events(tmp_path: Path) -> None:
    lines = [{**journal()[0], "node": {"use": "mach_zehnder"}, "epochs": 3}, *journal()[1:]]
    text = opened(write(tmp_path / "run", summary=summary(warnings=["no better than chance: 9 %"]), journal=lines)).text
    assert "Warning: no better than chance: 9 %." in text.split("Learning")[0]
    assert "Not in this report" not in text
    assert "start epochs 3" in text
    assert "start node" not in text


def test_a_damaged_line_is_reported_with_its_number_and_the_rest_used(tmp_path: Path) -> None:
    lines = [json.dumps(line) for line in metrics()]
    lines[2] = '{"epoch": 2, "split": "tr'
    lines[3] = "[1, 2]"
    page = opened(write(tmp_path / "run", metrics="\n".join(lines)))
    assert "metrics.jsonl line 3 is damaged" in page.text
    assert "metrics.jsonl line 4 is left out: it holds a list" in page.text
    assert "train ends at 95.0 %" in page.figures[0]


def test_a_thousand_damaged_lines_do_not_bury_the_page(tmp_path: Path) -> None:
    text = opened(write(tmp_path / "run", journal="{torn\n" * 1000)).text
    assert text.count("journal.jsonl line") == 5
    assert "995 more damaged lines" in text


def test_a_damaged_json_file_and_a_damaged_config_are_reported(tmp_path: Path) -> None:
    text = opened(write(tmp_path / "run", diagnostics='{"confusion": [[1', config="seed = = 3\n")).text
    assert "diagnostics.json is damaged" in text
    assert "config.toml is not TOML" in text
    assert "seed = = 3" in text  # as it stands


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("transfer", {"drive": [1, 2], "measured": [1]}, "2 and 1 points"),
        ("transfer", [1, 2], "transfer does not make sense"),
        ("pre", [{"edges": [0, 1], "counts": [1, 2]}], "2 edges and 2 counts"),
        ("pre", [{"edges": [1, 0, 2], "counts": [1, 2]}], "rising edges"),
        ("pre", ["no"], "pre[1].edges does not make sense"),
        ("feedback", [{"pre": [0, 1], "g": "sine"}], "feedback[1].g does not make sense"),
        ("feedback_over", "$\\frac{", "feedback_over does not make sense"),
        ("feedback_slope", ["the twin"], "feedback_slope does not make sense"),
        ("time", 7, "time does not make sense"),
        ("confusion", [[1, 2], [3]], "a square table of whole numbers"),
        ("confusion", [["a"]], "a square table of whole numbers"),
        ("programmed", [{"layer": 1, "low": [0], "high": [1, 2], "shown": [0]}], "lists of other lengths"),
    ],
)
def test_diagnostics_that_make_no_sense_are_left_out_and_named(tmp_path: Path, key: str, value: Any, told: str) -> None:
    text = opened(write(tmp_path / "run", diagnostics={**diagnostics(), key: value})).text
    assert "diagnostics.json" in text
    assert told in text
    assert "95.0 % test accuracy" in text


def test_what_was_programmed_is_shown_over_the_epochs_with_its_writes_and_the_twin() -> None:
    lines = [{"epoch": n, "split": "train", "levels": {"layers.0": [0.5 * n, 4 - n]}} for n in (1, 2, 3)]
    told = {
        "layer": 1, "unit": "V", "low": [0.0] * 3, "high": [8.0, 8.0, 5.0], "levels": [1.5, 2.0, 1.0], "shown": [0, 2],
        "writes": [3, 0, 6], "reading_unit": "W", "read": [1e-6, 2e-6], "twin": [1.1e-6, 2e-6],
        "off_rms": 7e-8, "off_mean": -5e-8, "swing": 1e-6,
    }  # fmt: skip
    (seen,) = programmed(lines, {"programmed": [told]})
    assert (seen.channels, seen.epochs, seen.levels) == ((1, 3), (1.0, 2.0, 3.0), ((0.5, 1.0, 1.5), (3.0, 2.0, 1.0)))
    assert dict(seen.facts)["writes"] == "9 of 3 channels, 3 each in the mean"
    assert dict(seen.facts)["device minus twin"] == "70 nW rms, 7.00% of the swing"
    assert [figure.name for figure in drawn(seen)] == ["levels-1", "writes-1", "device-twin-1"]
    assert list(list(drawn(seen))[2].columns) == ["twin (µW)", "device (µW)"]
    with pytest.raises(DataError, match="another number of channels"):
        programmed(lines, {"programmed": [{**told, "shown": [0]}]})
    assert budget({"device_writes": 90, "device_programs": 9, "budget_writes": 200}).endswith("45% of a budget of 200 writes.")
    assert budget({}) == ""


@pytest.mark.drawn
def test_nan_is_shown_as_it_is_and_leaves_a_gap(tmp_path: Path) -> None:
    lines = metrics()
    lines[-2]["loss"] = math.nan
    for line in lines:
        line["accuracy"] = math.nan
    unknown = summary(test_accuracy=math.nan, validation_accuracy=math.nan)
    page = opened(write(tmp_path / "run", metrics=lines, summary=unknown), files=False)
    assert "nan" in page.text
    assert "No result" in page.text


@pytest.mark.drawn
def test_text_from_the_folder_cannot_become_part_of_the_page(tmp_path: Path) -> None:
    evil = '<img src="//evil"><script>alert(1)</script>'
    transfer = {**diagnostics()["transfer"], "drive_unit": evil, "reading_unit": "$\\frac{"}
    run = write(
        tmp_path / "run",
        config=f"name = {json.dumps(evil)}\n",
        summary=summary(node={evil: evil}),
        journal=[{"t": "2026-11-22T01:45:12+00:00", "kind": evil, "message": evil}],
        diagnostics={**diagnostics(), "transfer": transfer},
    )
    page = opened(run, files=False)
    assert page.loads
    assert all(target.startswith("#") for target in page.loads)
    assert "<script" not in (run / "report.html").read_text(encoding="utf-8")
    assert "<script>alert(1)</script>" in page.text  # shown, not run


@pytest.mark.drawn
def test_feedback_without_a_twin_or_without_g_is_still_drawn(tmp_path: Path) -> None:
    layer = diagnostics()["feedback"][0]
    made = {**diagnostics(), "feedback": [{**layer, "slope": None, "correlation": None}, {**layer, "g": None}]}
    text = opened(write(tmp_path / "run", diagnostics=made), files=False).text
    assert "no twin, so no true derivative" in text
    assert "this learner uses no g" in text
    layers = feedback({"feedback": [{"pre": [0, 1], "g": None, "slope": None}, {"pre": [1, 0], "g": [5, 6]}]})
    assert [(part.layer, part.pre, part.g) for part in layers] == [(2, (0.0, 1.0), (6.0, 5.0))]


@pytest.mark.drawn
def test_feedback_of_spiking_neurons_names_its_axis_and_its_slope(tmp_path: Path, whole: tuple[Page, str]) -> None:
    spiking = {"feedback_over": "membrane above threshold", "feedback_slope": "a relaxed spike"}
    text = opened(write(tmp_path / "run", diagnostics={**diagnostics(), **spiking}), files=False).text
    assert "slope of a relaxed spike" in text
    assert "membrane above threshold" in text
    assert "true derivative" not in text
    before = whole[0].text  # diagnostics that do not say it
    assert "g, over the true derivative (twin), at the pre-activations really visited" in before
    assert "relaxed spike" not in before


def test_a_resumed_epoch_counts_once_with_its_last_line() -> None:
    lines = [{"epoch": 1, "split": "train", "loss": 9}, {"epoch": 1, "split": "train", "loss": 1}, {"split": "train"}]
    assert by_epoch(lines) == {(1, "train"): lines[1]}


def test_events_without_a_time_are_listed_and_not_placed() -> None:
    line = timeline([{"kind": "fault"}, {"t": "yesterday", "kind": "fault"}, *journal()])
    assert [(e.kind, e.since_s) for e in line.events] == [
        ("fault", None), ("fault", None), ("start", 0.0), ("fault", 13.0), ("recovery", 15.0),
    ]  # fmt: skip
    assert (line.since_s, line.steps, line.length_s) == ((10.0, 13.0, 30.0), (10.0, 12.0, 30.0), 30.0)


def test_what_is_no_run_folder_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(RunError, match="not a run folder"):
            render(path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.drawn
@pytest.mark.drawn
def test_a_long_night_is_rendered_in_time_and_stays_small(tmp_path: Path) -> None:
    steps = [
        {"t": f"2026-11-22T{k // 3600:02d}:{k // 60 % 60:02d}:{k % 60:02d}+00:00", "kind": "step", "step": k}
        for k in range(36000)
    ]
    steps += [{"t": "2026-11-22T09:59:59+00:00", "kind": "fault", "message": f"number {k}"} for k in range(500)]
    run = write(tmp_path / "run", journal=steps)
    begin = time.process_time()
    text = opened(run).text
    assert time.process_time() - begin < 10  # 1 to 2 s on an idle machine
    assert "The first 100 of 500 events are listed" in text
    assert (run / "report.html").stat().st_size < 1_000_000


def test_numbers_are_written_as_people_write_them() -> None:
    assert [quantity(v, "V") for v in (0.000148, -3.5, 0.02, 0.0, 1500.0)] == ["148 µV", "-3.5 V", "20 mV", "0 V", "1.5 kV"]
    assert [duration(s) for s in (0.045, 41.2, 100.4, 179.7, 3661, 8000)] == [
        "45 ms", "41.2 s", "100 s", "3 min", "61 min 01 s", "2.2 h",
    ]  # fmt: skip
    low, high = wilson(1.0, 100)
    assert (round(low, 3), round(high, 9)) == (0.963, 1.0)


def test_a_record_tells_what_it_could_not_read(tmp_path: Path) -> None:
    record = read(write(tmp_path / "run", summary="[]", journal=None))
    assert [note.split(" ")[0] for note in record.notes] == ["summary.json", "journal.jsonl"]
    assert record.summary == {}
