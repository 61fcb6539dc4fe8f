"""The same results as Markdown and CSV."""

from __future__ import annotations

import csv as csv_writer
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from mixmerge import Results, reporter

from . import content, figures, merges, origin, overlap, weights
from .html import ANSWERS, legend
from .shapes import Figure

# ---- Markdown -------------------------------------------------------------------------------------------------------


@reporter(name="markdown", version="1")
def markdown(results: Results, out: Path, /, *, images: bool = True) -> Sequence[Path]:
    """`report.md`: answer, table, figures, diagnostics and settings, for a repository or a pull request.

    images   write the figures into `figures/` and show them
    """
    out.mkdir(parents=True, exist_ok=True)
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
    return [report, *written]


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
    parts = ["## What happened to the weights"]
    for one in table.blocks:
        lines = [[_md(name), *values] for name, values in one.lines]
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
    if text := origin.recipe_text(results):
        fence = "`" * (3 + max((len(run) for run in re.findall(r"`{3,}", text)), default=0))
        parts.append(f"<details><summary>Recipe</summary>\n\n{fence}yaml\n{text}{fence}\n\n</details>")
    return parts


# ---- CSV ------------------------------------------------------------------------------------------------------------

ROW_COLUMNS = ("model", "kind", "task", "metric", "value", "stderr", "n", "k", "settings", "record")
OVERLAP_COLUMNS = ("data", "task", "rule", "rows", "documents", "of_rows", "of_documents", "record")
MEASUREMENT_COLUMNS = ("diagnostic", "metric", "group", "models", "value")


@reporter(name="csv", version="1")
def csv(results: Results, out: Path, /) -> Sequence[Path]:
    """`rows.csv`, a line per score, and `measurements.csv`, a line per figure about the weights; values unrounded.

    Where training data was compared with evaluation sets, `contamination.csv` has a line per dataset, set and rule.
    `settings` is JSON, `models` joins the names with " × "; a missing number is empty.
    """
    out.mkdir(parents=True, exist_ok=True)
    rows = (
        (
            row.model,
            row.kind,
            row.task,
            row.metric,
            row.value,
            row.stderr,
            row.n,
            row.k,
            json.dumps(dict(row.settings), sort_keys=True, ensure_ascii=False) if row.settings else "",
            row.record,
        )
        for row in results.rows
    )
    measured = (
        (one.diagnostic, one.metric, one.group, weights.pair(one.models), one.value) for one in results.measurements
    )
    shared = [
        (one.data, one.task, rule, *found, one.rows, one.documents, one.record)
        for one in results.overlaps
        for rule, found in one.found.items()
    ]
    return [
        _write_csv(out / "rows.csv", ROW_COLUMNS, rows),
        _write_csv(out / "measurements.csv", MEASUREMENT_COLUMNS, measured),
        *([_write_csv(out / "contamination.csv", OVERLAP_COLUMNS, shared)] if shared else []),
    ]


def _write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv_writer.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)
    return path
