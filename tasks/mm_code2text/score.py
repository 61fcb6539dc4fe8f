"""`mixmerge score` for code summarisation: every metric of summaries that any system wrote, beside trivial baselines.

A summary is taken as it was given, whole; a line break in it counts as white space. What a system does to make one (to
stop, to keep a first line) is its own affair, as it is for CodeXGLUE's evaluator. Only what lm-eval logged is put
through the task's extraction first, as it was when the task was run; `--sanitize` does that to other summaries too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mixmerge import SourceError
from mixmerge.paths import beside
from mixmerge.scoring import Request, Sample, Scored, attempts, text_lines
from mixmerge.sources import code2text
from mixmerge.sources.files import read_file

baselines = beside(__file__, "baselines")
metrics = beside(__file__, "metrics")
rows = beside(__file__, "rows")

COMPARED = ("bleu4_codexglue", "chrfpp", "rouge_l", "meteor")
"""By which metrics a system is said to be below a baseline."""
_FORMS = (
    "--data takes rows of CodeXGLUE with docstring_tokens and func_name (.jsonl, .jsonl.gz, .json, .parquet), "
    "or ID<TAB>REFERENCE a line, or a reference a line"
)


@dataclass(frozen=True)
class Row:
    """What a summary is compared with. `name` is "" where the data does not say how the function is called."""

    id: str
    reference: str
    name: str


def score(request: Request, samples: Sequence[Sample], extract: Callable[[str], str]) -> Scored:
    """Score one summary for each row, or for some of the rows.

    Raises SourceError, by file and line, for an id that no row has, or that two summaries have.
    """
    language, set = (request.config["dataset_kwargs"][name] for name in ("language", "set"))
    known, names = _rows(request.data, language, set)
    given: dict[str, Sample] = {}
    for id, sample in attempts(samples, known, lambda id: names.get(id, id)):
        if id in given:
            hint = f"the first is {given[id].place}; give one summary for each row"
            raise SourceError(f"{sample.place}: a second summary for the id {id}", hint=hint)
        given[id] = sample
    scored = [known[id] for id in given]
    summaries = [extract(s.text) if s.logged or request.sanitize else s.text for s in given.values()]
    missing = _without_meteor()
    items = _measure(scored, summaries, request, not missing)
    others = {
        name: _measure(scored, said, request, not missing)
        for name, said in baselines.said([row.name for row in scored]).items()
        if name != "function name" or all(row.name for row in scored)
    }
    summary = {
        "task": request.task,
        "n": len(items),
        "rows": len(known),
        "empty": sum(not text.strip() for text in summaries),
        "metrics": _values(items),
        "intervals": metrics.intervals(items, list(items[0])),
        "references": {name: _values(each) for name, each in others.items()},
        "missing": {name: missing for name in metrics.METRICS if missing and name not in items[0]},
    }
    summary["below"] = {
        name: [m for m in COMPARED if m in values and summary["metrics"][m] < values[m]]
        for name, values in summary["references"].items()
    }
    file = {**summary, "eval": {id: [_result(*each)] for id, *each in zip(given, summaries, items, strict=True)}}
    return Scored(summary, _lines(summary), file)


def _without_meteor() -> str:
    """Why METEOR cannot be computed; "" when it can."""
    try:
        metrics.check_meteor()
    except SourceError as error:
        return str(error)
    return ""


def _measure(scored: Sequence[Row], summaries: Sequence[str], request: Request, meteor: bool) -> Any:
    return metrics.measure([row.reference for row in scored], summaries, request.workers, meteor=meteor)


def _values(items: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    return {name: metrics.aggregate(name, [item[name] for item in items]) for name in items[0]}


def _result(summary: str, item: Mapping[str, Any]) -> dict[str, Any]:
    """A row of the results file: what was scored, and each metric that is a value of one summary."""
    return {"output": summary, **{name: value for name, value in item.items() if isinstance(value, float)}}


# -- rows -------------------------------------------------------------------------------------------------------


def _rows(data: Path | None, language: str, set: str) -> tuple[dict[str, Row], dict[str, str]]:
    """The rows of a file, or of the one that the task's set is drawn from, by id; and other names of theirs.

    An id is a row's number, from 0, or what stands before the tab. A row's own `id` or `url` is another name of
    it, unless that is the number of some row.
    """
    if data is not None and (lines := text_lines(data)):
        return _columns(lines), {}
    found: dict[str, Row] = {}
    names: dict[str, str] = {}
    for number, row in enumerate(rows.all_rows(language, set) if data is None else read_file(data)):
        found[str(number)] = _row(number, row, language, "the task's rows" if data is None else str(data))
        for own in (row.get("id"), row.get("url")):
            names.setdefault(str(number) if own in (None, "") else str(own), str(number))
    if not found:
        raise SourceError(f"{data or 'the task'} holds no rows", hint=_FORMS)
    return found, {name: id for name, id in names.items() if name not in found}


def _columns(lines: Sequence[tuple[str, str, str]]) -> dict[str, Row]:
    places: dict[str, str] = {}
    for place, id, _ in lines:
        if id in places:
            raise SourceError(f"{place}: a second reference for the id {id}", hint=f"the first is {places[id]}")
        places[id] = place
    return {id: Row(id, text, "") for _, id, text in lines}


def _row(number: int, row: Mapping[str, Any], language: str, where: str) -> Row:
    if isinstance(row.get("docstring_tokens"), list):
        reference = rows.reference(row)
    elif isinstance(row.get("docstring"), str):
        reference = code2text.summary(row["docstring"], language)
    else:
        raise SourceError(f"{where}: row {number} has no docstring_tokens; it has {', '.join(row)}", hint=_FORMS)
    return Row(str(number), reference, str(row.get("func_name") or ""))


# -- in words ---------------------------------------------------------------------------------------------------


def _lines(summary: Mapping[str, Any]) -> list[str]:
    n, others = summary["n"], summary["references"]
    few = "" if n == summary["rows"] else f"; {summary['rows'] - n} rows have no summary and are not counted"
    lines = [f"{summary['task']}  {n} of {summary['rows']} rows{few}"]
    width = max(map(len, summary["metrics"]))
    lines.append(f"{'':{width}}  value    95 % interval" + "".join(f"   {name}" for name in others))
    for name, value in summary["metrics"].items():
        places = 4 if name.endswith("_fraction") else 2
        low, high = (f"{bound:.{places}f}" for bound in summary["intervals"][name])
        beside = "".join(f"  {values[name]:<{len(o) + 1}.{places}f}" for o, values in others.items())
        lines.append(f"{name:{width}}  {value:<7.{places}f}  {f'{low} to {high}':<16}{beside}".rstrip())
    for name, lost in summary["below"].items():
        if lost:
            lines.append(f"below the {name} by {', '.join(lost)}")
    if summary["empty"]:
        lines.append(f"{summary['empty']} summaries are empty, and count")
    if summary["missing"]:
        lines.append(f"not computed: {', '.join(summary['missing'])}: {next(iter(summary['missing'].values()))}")
    return lines
