"""How to cite a report, and the model cards of what it keeps."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime

import yaml

from mixmerge import Model, Results
from mixmerge.results import best_expert, best_mixture, find_row, primary_metric

from . import content, origin, words

PAPER = """\
@misc{data_mix_or_model_merge,
  title = {Multi-task Code LLMs: Data Mix or Model Merge?},
  eprint = {2601.21115},
  archivePrefix = {arXiv},
  year = {2026}
}"""
"""Whose question this is. Its authors are named where the identifier leads."""

METHODS = {
    "ties": "arXiv:2306.01708",
    "dare_linear": "arXiv:2311.03099",
    "dare_ties": "arXiv:2311.03099",
    "della": "arXiv:2406.11617",
    "della_linear": "arXiv:2406.11617",
    "task_arithmetic": "arXiv:2212.04089",
}

TOOLS = {
    "lm_eval": "The Language Model Evaluation Harness, doi:10.5281/zenodo.12608602",
    "mergekit": "MergeKit, arXiv:2403.13257",
}


def bibtex(results: Results) -> str:
    """This report and the paper that asked the question, as BibTeX."""
    finished = max((record.finished for record in results.records), default=None)
    year = f"  year = {{{datetime.fromtimestamp(finished, UTC).year}}},\n" if finished else ""
    version = _versions(results).get("mixmerge", "")
    numbered = f"  version = {{{version}}},\n" if version else ""
    key = re.sub(r"[^a-z0-9]+", "_", results.name.lower()).strip("_") or "results"
    return (
        f"@software{{mixmerge_{key},\n"
        "  title = {mixmerge: fine-tune once on mixed data, or merge experts?},\n"
        f"{numbered}{year}"
        f"  note = {{recipe {origin.recipe_name(results)}, seed {results.seed}}}\n}}\n\n{PAPER}"
    )


def stands_on(results: Results) -> tuple[str, ...]:
    """What else a reader would cite: tools and methods of this report, as far as they have a name to be found by."""
    known = _versions(results)
    methods = dict.fromkeys(model.method for model in results.models if model.method in METHODS)
    tools = (f"{text} ({name} {known[name]})" for name, text in TOOLS.items() if name in known and results.models)
    return (*tools, *(f"{method}: {METHODS[method]}" for method in methods))


def _versions(results: Results) -> dict[str, str]:
    given = results.provenance.get("versions", {})
    found = dict(given) if isinstance(given, dict) else {}
    for record in results.records:
        found |= record.versions
    return {name.replace("-", "_"): str(version) for name, version in found.items()}


# ---- model cards ----------------------------------------------------------------------------------------------------


def cards(results: Results) -> Iterator[tuple[str, str]]:
    """A model card in Markdown for every merge that is kept, with the Hub's front matter: (name, text)."""
    for model in results.models:
        if model.name in results.kept:
            yield model.name, _card(results, model)


def file_name(name: str) -> str:
    """The name of a card's file, as the folder of the model is called."""
    return name.replace("/", "-").replace(" ", "_").replace(":", "") + ".md"


def _card(results: Results, model: Model) -> str:
    experts = [one for one in results.models if {one.name, one.id} & set(model.experts)]
    trained = {name for one in experts for name in one.data}
    licences = [
        f"{one.name} ({one.source}): {one.licence or 'not stated'}" for one in results.datasets if one.name in trained
    ]
    front = {"library_name": "transformers", "tags": ["mixmerge", "merge", model.method]}
    names = words.listing([one.name for one in experts])
    tried = sum(one.group == model.group for one in results.models)
    chosen = words.listing(results.choose_on) or "nothing"
    notes = (*content.warnings(results), *_limits(results))
    settings, recipe = words.settings(model.settings), origin.recipe_name(results)
    parts = [
        f"---\n{yaml.safe_dump(front, sort_keys=False)}---",
        f"# {model.name}",
        f"A merge by `{model.method}` of {names}, made by mixmerge from the recipe `{recipe}`, seed {results.seed}. "
        "No training went into it beyond that of its experts.",
        "## How it was made",
        _experts(model, experts),
        *([f"Settings: {settings}."] if settings else []),
        f"Licences of the data, as their sources state them: {'; '.join(licences) or 'not stated'}.",
        "## Scores",
        _scores(results, model),
        f"± is one standard error over the test items. This merge was chosen out of {tried} on {chosen}.",
        "## What to keep in mind",
        "\n".join(f"- {content.sentence(results, note)}" for note in notes),
        "## How to cite",
        f"```bibtex\n{bibtex(results)}\n```",
    ]
    return "\n\n".join(parts) + "\n"


def _experts(model: Model, experts: list[Model]) -> str:
    lines = [
        f"| {one.name} | {weight:g} | {origin.setting_facts(one)[0] or '–'} |"
        for one, weight in zip(experts, model.weights, strict=False)
    ]
    return "\n".join(["| expert | weight | trained on |", "| --- | ---: | --- |", *lines])


def _scores(results: Results, model: Model) -> str:
    tasks = content.compared_on(results)
    base = next((one.name for one in results.models if one.kind == "base"), None)
    lines = []
    for task in tasks:
        head = content.primary_head(results, task)
        names = {"this merge": model.name, "base": base, "best expert": best_expert(results, task)}
        names["best mixture"] = best_mixture(results)
        if head is None:
            continue
        cells = [_score(results, name, task, head) if name else "–" for name in names.values()]
        unit = f", {head.unit}" if head.unit else ""
        lines.append(f"| {task}: {head.label}{unit} {head.arrow} | {' | '.join(cells)} |")
    heads = "| task | this merge | base | best expert | best mixture |\n| --- | ---: | ---: | ---: | ---: |"
    return "\n".join([heads, *lines])


def _score(results: Results, name: str, task: str, head: content.Head) -> str:
    row = find_row(results.rows, name, task, primary_metric(results.rows, task))
    if row is None:
        return "–"
    error = f" ± {words.number(row.stderr * head.scale, head.digits)}" if row.stderr is not None else ""
    count = f"{row.k} of {row.n}" if row.k is not None else f"n = {row.n}"
    return f"{words.number(row.value * head.scale, head.digits)}{error} ({count})"


def _limits(results: Results) -> tuple[str, ...]:
    seeds = "one seed each: another training seed would give other experts, and other scores"
    return (*origin.notes(results), seeds)
