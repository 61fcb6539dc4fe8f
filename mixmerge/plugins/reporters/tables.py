"""The same results as Markdown and CSV."""

from __future__ import annotations

import csv as csv_writer
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from mixmerge import Results, reporter
from mixmerge.results import methods, tally

from . import cite, content, figures, merges, origin, overlap, overview, standing, weights
from .html import ANSWERS, legend
from .shapes import Figure

# ---- Markdown -------------------------------------------------------------------------------------------------------


@reporter(name="markdown", version="2")
def markdown(results: Results, out: Path, /, *, images: bool = True) -> Sequence[Path]:
    """`report.md`: answer, table, figures, diagnostics and settings, for a repository or a pull request.

    Merges that are kept get a model card with their scores, `cards/NAME.md`. Of recorded results there is an overview,
    and each experiment has a folder with its report.

    images   write the figures into `figures/` and show them
    """
    out.mkdir(parents=True, exist_ok=True)
    if results.parts:
        return _overview(results, out, images)
    page = content.sheet(results)
    shown = figures.all_figures(results, page) if images else ()
    written = figures.write(shown, out / "figures") if images else ()
    parts = [
        f"# {_md(results.name)}: mix or merge?",
        *_advice(results),
        _md(content.summary(results)),
        *(
            f"> **Note:** {_md(content.sentence(results, note))}"
            for note in (*content.warnings(results), *origin.notes(results))
        ),
        "## Scores",
        _main_table(page),
        "\n".join(f"- **{mark}** {_md(text)}" for mark, text in legend(results, page)),
        *_methods(results),
        *_pictures(shown),
        *_sweep(results),
        *_diagnostics(results),
        *_settings(results),
        *_datasets(results),
        *_overlaps(results),
        *_provenance(results),
    ]
    report = out / "report.md"
    report.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    return [report, *written, *_cards(results, out / "cards")]


def _cards(results: Results, folder: Path) -> list[Path]:
    paths = []
    for name, text in cite.cards(results):
        folder.mkdir(exist_ok=True)
        paths.append(folder / cite.file_name(name))
        paths[-1].write_text(text, encoding="utf-8")
    return paths


def _overview(results: Results, out: Path, images: bool) -> list[Path]:
    parts = [f"# {_md(results.name)}: mix or merge?", "## The answers"]
    for one in overview.answers(results):
        link = one.link.replace("index.html", "report.md")
        told = "; ".join(f"**{answer}.** {_md(text)}" for answer, text in one.answers) or "no advisor was asked"
        parts.append(f"- [{_md(one.name)}]({link}): {told}")
    parts.append("## What the figures do not support")
    parts += [f"- {_md(what)}: {count}" for what, count in tally(results)] or ["Nothing was found."]
    for what, found in overview.doubts(results):
        lines = [[_md(one.subject), _md(f"{one.experiment}, {one.table}, {one.place}"), _md(one.text)] for one in found]
        table = _md_table(["row", "where", "what is wrong"], lines, left=3)
        parts.append(
            f"<details><summary>{what[:1].upper()}{what[1:]} ({len(found)})</summary>\n\n{table}\n\n</details>"
        )
    parts += _provenance(results)
    report = out / "report.md"
    report.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    written = [markdown.function(part, out / overview.folder(part), images=images) for part in results.parts]
    return [report, *(path for paths in written for path in paths)]


def _methods(results: Results) -> list[str]:
    table = standing.method_table(results)
    if table is None:
        return []
    against = [f"difference to {_md(table.against)}, points (95 % interval)", "p (Holm)"] if table.against else []
    heads = ["method", "best merge", "configurations", "mean change, choosing", "mean change, comparing", *against]
    lines = []
    for line in table.lines:
        name = f"{_md(line.name)}{' ★' if line.winner else ''}"
        difference = f"{line.difference} ({line.interval})" if line.interval else line.difference
        compared = [difference, line.p] if table.against else []
        lines.append([name, _md(line.best), line.configurations, line.chosen, line.reported, *compared])
    told = [_md(text) for text in standing.flattery(results)]
    return ["## Method by method", _md_table(heads, lines, left=2), *told]


def _md(text: str) -> str:
    """Text that Markdown leaves as it is, also inside a table."""
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", text.replace("\n", " "))


def _md_table(heads: Sequence[str], lines: Iterable[Sequence[str]], *, left: int = 1) -> str:
    rule = ["---"] * left + ["---:"] * (len(heads) - left)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [heads, rule, *lines])


def _advice(results: Results) -> list[str]:
    parts = []
    for advice in results.advice:
        headline = content.sentence(results, advice.headline, advice.answer)
        parts.append(f"**{ANSWERS.get(advice.answer, advice.answer)}.** {_md(headline)}")
        for heading, sentences in (("For it", advice.evidence), ("Against it", advice.against)):
            if sentences:
                parts.append(
                    f"{heading}:\n\n"
                    + "\n".join(f"- {_md(content.sentence(results, sentence))}" for sentence in sentences)
                )
    return parts


def _main_table(page: content.Sheet) -> str:
    heads = ["model", "kind"]
    heads += [
        _md(f"{head.task}: {head.label} {head.arrow}{f' ({head.unit})' if head.unit else ''}") for head in page.heads
    ]
    lines = []
    for entries in page.lines:
        star = " ★" if entries.line.winner else ""
        cells = [_md_cell(cell) for cell in entries.cells]
        average = f"{entries.average} ({entries.interval})" if entries.interval else entries.average or "–"
        average = f"**{average}**" if entries.line.best else average + (" †" if entries.line.near_best else "")
        lines.append([f"{_md(entries.name)}{star}", entries.kind, *cells, average])
    return _md_table([*heads, "average change (95 % interval)"], lines, left=2)


def _md_cell(cell: content.Entry | None) -> str:
    if cell is None:
        return "–"
    score = f"{cell.value} ± {cell.error}" if cell.error else cell.value
    score = f"**{score}**" if cell.best else score + (" †" if cell.near else "")
    return f"{score}<br>{cell.count}, {cell.change}"


def _pictures(shown: Sequence[Figure]) -> list[str]:
    parts = ["## Figures"] if shown else []
    for one in shown:
        title = f"{one.number}: {one.title}" if one.number else one.title
        parts.append(f"### {_md(title)}\n\n![{_md(title)}](figures/{one.name}.svg)\n\n{_md(one.caption)}")
    return parts


def _sweep(results: Results) -> list[str]:
    lines = merges.sweep(results)
    if not lines:
        return []
    heads = ["merge", *(_md(f"{head.task}: {head.label} {head.arrow}") for head in merges.sweep_heads(results))]
    body = [[_md(line.label) + (" ★" if line.winner else ""), *line.scores, line.objective] for line in lines]
    return ["## Every merge of the sweep", _md_table([*heads, "mean change"], body)]


def _diagnostics(results: Results) -> list[str]:
    if not results.measurements:
        return []
    table = weights.diagnostic_table(results)
    notes = [f"> **Note:** {_md(content.sentence(results, text))}" for text in weights.rounding(results)]
    parts = ["## What happened to the weights", *notes]
    for one in table.blocks:
        lines = [[_md(name), *values] for name, values, _ in one.lines]
        heading = f"### {_md(one.label)}\n\n{_md(one.gloss)}".rstrip()
        parts.append(f"{heading}\n\n{_md_table(['model', *map(_md, table.groups)], lines)}")
    return parts


def _settings(results: Results) -> list[str]:
    lines = [
        [_md(model.name), model.kind, *(_md(text) or "–" for text in origin.setting_facts(model))]
        for model in results.models
        if model.kind != "merge"
    ]
    return ["## Settings", _md_table(["model", "kind", "data", "training", "licences"], lines, left=5)] if lines else []


def _datasets(results: Results) -> list[str]:
    lines = [list(map(_md, line)) for line in origin.datasets(results)]
    if not lines:
        return []
    table = _md_table(["data", "source", "rows", "rows used by", "licence"], lines, left=5)
    return ["## Data and licences", f"{table}\n\n{origin.INHERITED}"]


def _overlaps(results: Results) -> list[str]:
    lines = [
        [f"{_md(line.data)}<br>{line.rows}", f"{_md(line.task)}<br>{line.documents}", *line.cells]
        for line in overlap.lines(results)
    ]
    if not lines:
        return []
    table = _md_table(["training data", "evaluation set", *overlap.heads(results)], lines, left=2)
    return ["## Contamination", f"{overlap.policy(results)}\n\n{table}\n\n{_md(overlap.legend(results))}".strip()]


def _provenance(results: Results) -> list[str]:
    parts = ["## Where it comes from", "\n".join(f"- {label}: {_md(text)}" for label, text in origin.facts(results))]
    if pinned := origin.pins(results):
        parts.append("Pinned:\n\n" + "\n".join(f"- {_md(name)}: `{value}`" for name, value in pinned))
    parts.append(f"To cite it:\n\n```bibtex\n{cite.bibtex(results)}\n```")
    if text := origin.recipe_text(results):
        fence = "`" * (3 + max((len(run) for run in re.findall(r"`{3,}", text)), default=0))
        parts.append(f"<details><summary>Recipe</summary>\n\n{fence}yaml\n{text}{fence}\n\n</details>")
    return parts


# ---- CSV ------------------------------------------------------------------------------------------------------------

ROW_COLUMNS = ("model", "kind", "task", "metric", "value", "stderr", "n", "k", "settings", "record")
OVERLAP_COLUMNS = ("data", "task", "rule", "rows", "documents", "of_rows", "of_documents", "record")
MEASUREMENT_COLUMNS = ("diagnostic", "metric", "group", "models", "value")


METHOD_COLUMNS = (
    *("group", "method", "configurations", "best", "chosen", "reported"),
    *("against", "difference", "low", "high", "p", "holm_p", "paired"),
)
DOUBT_COLUMNS = ("kind", "place", "experiment", "table", "subject", "text", "printed", "computed")


@reporter(name="csv", version="2")
def csv(results: Results, out: Path, /) -> Sequence[Path]:
    """`rows.csv`, a line per score, and `measurements.csv`, a line per figure about the weights; values unrounded.

    `methods.csv` has a line for each method of merging, its best merge compared with the best mixture. Where training
    data was compared with evaluation sets, `contamination.csv` has a line per dataset, set and rule. Of recorded
    results `doubts.csv` lists what they do not support, and the others begin with the experiment. `settings` is JSON,
    `models` joins the names with " × "; a missing number is empty.
    """
    out.mkdir(parents=True, exist_ok=True)
    named = [((one.name,) if results.parts else (), one) for one in results.parts or (results,)]
    first = ("experiment",) if results.parts else ()
    shared = [
        (one.data, one.task, rule, *found, one.rows, one.documents, one.record)
        for one in results.overlaps
        for rule, found in one.found.items()
    ]
    compared = [(*name, *line) for name, one in named for line in _method_lines(one)]
    doubts = [tuple(getattr(one, column) for column in DOUBT_COLUMNS) for one in results.doubts]
    measured = [(*name, *line) for name, one in named for line in _measured_lines(one)]
    rows = [(*name, *line) for name, one in named for line in _row_lines(one)]
    return [
        _write_csv(out / "rows.csv", (*first, *ROW_COLUMNS), rows),
        *([] if results.parts else [_write_csv(out / "measurements.csv", MEASUREMENT_COLUMNS, measured)]),
        *([_write_csv(out / "methods.csv", (*first, *METHOD_COLUMNS), compared)] if compared else []),
        *([_write_csv(out / "contamination.csv", OVERLAP_COLUMNS, shared)] if shared else []),
        *([_write_csv(out / "doubts.csv", DOUBT_COLUMNS, doubts)] if results.parts else []),
    ]


def _row_lines(results: Results) -> Iterable[Sequence[object]]:
    for row in results.rows:
        settings = json.dumps(dict(row.settings), sort_keys=True, ensure_ascii=False) if row.settings else ""
        yield row.model, row.kind, row.task, row.metric, row.value, row.stderr, row.n, row.k, settings, row.record


def _measured_lines(results: Results) -> Iterable[Sequence[object]]:
    for one in results.measurements:
        yield one.diagnostic, one.metric, one.group, weights.pair(one.models), one.value


def _method_lines(results: Results) -> Iterable[Sequence[object]]:
    for one in methods(results):
        pair = one.versus
        compared = (pair.difference, pair.low, pair.high, pair.p, one.holm_p, pair.paired) if pair else (None,) * 6
        given = (one.group, one.method, one.configurations, one.best, one.chosen, one.reported)
        yield (*given, one.against, *compared)


def _write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv_writer.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)
    return path
