"""One page that answers "mix or merge?" first and shows where every number comes from after."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mixmerge import Record, Results, reporter

from . import cite, content, figures, merges, origin, overlap, overview, pages, samples, standing, weights, words
from .shapes import Figure

ANSWERS = {"mix": "Mix", "merge": "Merge", "undecided": "Undecided"}
_PARTS = {"contest": "methods", "gain_kept": "gain", "sweep": "sweep", "pareto": "pareto", "fig": "weights"}


@dataclass(frozen=True)
class Picture:
    """A figure with its SVG as text."""

    figure: Figure
    svg: str


@reporter(name="html", version="2")
def html(results: Results, out: Path, /, *, title: str = "", files: bool = True) -> Sequence[Path]:
    """One self-contained page, `index.html`: no file beside it and no request to the network.

    Of recorded results it is an overview with what they do not support, and each experiment has a folder with its page.

    title   the page's title; by default the name of the experiment
    files   also write each figure as SVG and its numbers as CSV into `figures/`
    """
    out.mkdir(parents=True, exist_ok=True)
    if results.parts:
        index = out / "index.html"
        index.write_text(overview.render(results, title or results.name), encoding="utf-8")
        written = [html.function(part, out / overview.folder(part), files=files) for part in results.parts]
        return [index, *(path for paths in written for path in paths)]
    page = content.sheet(results)
    pictures = figures.all_figures(results, page)
    index = out / "index.html"
    index.write_text(render(results, page, pictures, title or results.name), encoding="utf-8")
    return [index, *(figures.write(pictures, out / "figures") if files else ())]


def render(results: Results, page: content.Sheet, shown: Sequence[Figure], title: str) -> str:
    """The page as text."""
    from . import drawing

    pictures: dict[str, list[Picture]] = {part: [] for part in _PARTS.values()}
    for one in shown:
        part = next(part for prefix, part in _PARTS.items() if one.name.startswith(prefix))
        pictures[part].append(Picture(one, drawing.inline(one)))
    return (
        pages.environment()
        .get_template("report.html.j2")
        .render(
            title=title,
            results=results,
            page=page,
            pictures=pictures,
            answers=ANSWERS,
            summary=content.summary(results),
            warnings=content.warnings(results),
            notes=origin.notes(results),
            legend=legend(results, page),
            glossary=glossary(results, page),
            sweep=merges.sweep(results),
            sweep_heads=merges.sweep_heads(results),
            diagnostics=weights.diagnostic_table(results),
            types=weights.type_table(results),
            rounding=weights.rounding(results),
            other_pairs=weights.diagnostic_table(results, merged_pairs=True),
            gain_tasks=content.compared_on(results),
            gained=merges.gained(results),
            kept=merges.gains(results, page.lines),
            reading=[words.TERMS[key] for key in ("change", "l2_mean", "pearson")],
            models=[(model, *origin.setting_facts(model)) for model in results.models if model.kind != "merge"],
            datasets=origin.datasets(results),
            inherited=origin.INHERITED,
            overlaps=overlap.lines(results),
            overlap=overlap,
            facts=origin.facts(results),
            pins=origin.pins(results),
            recipe_name=origin.recipe_name(results),
            recipe_text=origin.recipe_text(results),
            records=_records(results),
            standings=standing.standings(results),
            methods=standing.method_table(results),
            flattery=standing.flattery(results),
            samples=samples.blocks(results),
            record_of=lambda model, task: standing.record_of(results, model, (task,)),
            bibtex=cite.bibtex(results),
            stands_on=cite.stands_on(results),
            cards=tuple(cite.cards(results)),
            words=words,
            sentence=lambda text, answer="": content.sentence(results, text, answer),
            version=next((text for record in results.records if (text := record.versions.get("mixmerge"))), ""),
            known={record.step.id for record in results.records},
        )
    )


def legend(results: Results, page: content.Sheet) -> tuple[tuple[str, str], ...]:
    """What the marks of the main table mean: (mark, sentence)."""
    entries = [cell for line in page.lines for cell in line.cells if cell]
    paired = any(row.samples for row in results.rows)
    how, drawn = ("item by item", "items resampled") if paired else ("from both standard errors", "standard errors")
    found = [("↑ ↓", "higher or lower is better")]
    if any(entry.error for entry in entries):
        found.append(
            ("±", "one standard error: how far the score would typically move with other test items of the same number")
        )
    if page.counted:
        found.append(("k of n", "solved k of n items, counted, nothing rounded"))
    found.append(
        ("+ − %", "change against the best expert on that task; better is positive, also where lower is better")
    )
    found.append(("bold", "the best single model of the column"))
    if any(entry.near and not entry.best for entry in entries):
        found.append(
            ("†", f"not clearly worse than the best: the 95 % interval of the difference, {how}, includes zero")
        )
    if any(line.line.winner for line in page.lines):
        found.append(("★", f"the merge that won on {words.listing(results.choose_on) or 'the tasks to choose on'}"))
    if any(line.interval for line in page.lines):
        found.append(
            (
                "average",
                f"mean change of the tasks that decide, by their main metrics, with its 95 % interval ({drawn})",
            )
        )
    return tuple(found)


def glossary(results: Results, page: content.Sheet) -> tuple[str, ...]:
    """A sentence for each word that this report uses."""
    kinds = {model.kind for model in results.models}
    measured = {one.metric for one in results.measurements}
    methods = dict.fromkeys(model.method for model in results.models if model.method)
    terms = [words.TERMS[key] for key in ("base", "expert", "mixture", "merge") if key in kinds]
    if methods:
        terms.append(words.TERMS["weight"])
    if results.measurements:
        terms.append(words.TERMS["change"])
    terms += [words.TERMS[key] for key in ("l2_mean", "pearson") if key in measured]
    terms += dict.fromkeys(f"{head.gloss[:1].upper()}{head.gloss[1:]}." for head in page.heads if head.gloss)
    return tuple(terms + [words.METHODS[method] for method in methods if method in words.METHODS])


@dataclass(frozen=True)
class Origin:
    """A record as the page shows it; `cells` are the scores that it stands behind."""

    id: str
    title: str
    took: str
    facts: tuple[tuple[str, str], ...]
    cells: tuple[str, ...]


def _records(results: Results) -> list[tuple[str, str, list[Origin]]]:
    """Records by kind of step: (kind, time spent, records)."""
    found: dict[str, list[Record]] = {}
    for record in results.records:
        found.setdefault(record.step.kind, []).append(record)
    return [
        (
            kind,
            words.duration(sum(record.finished - record.started for record in records)),
            [_origin(results, record) for record in records],
        )
        for kind, records in found.items()
    ]


def _origin(results: Results, record: Record) -> Origin:
    took = words.duration(record.finished - record.started)
    cells = origin.cells_of(results, record.step.id)
    return Origin(record.step.id, record.step.name or record.step.kind, took, origin.record_facts(record), cells)
