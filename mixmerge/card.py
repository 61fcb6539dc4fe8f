"""The model cards of what was trained and of merges that are kept, with a merge's extra files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from . import licences
from .types import Checkpoint, Dataset, Derivation

NO_ADVICE = "This is what the sources state, for whoever uses the model to judge; it is no legal advice."


_BASES = "Config, tokenizer and chat template are the base's, byte for byte."


def write_card(model: Checkpoint, out: Path, digest: str, how: Sequence[str] = (), kept: str = _BASES) -> None:
    """Write README.md beside a written merge: how it came to be, under which licences, and its digest.

    `digest` is the sha256 that a rebuild must match. Files that the merger gives (such as a mergekit YAML) go with it.
    `how` are lines that say how it was made, where one table of weights and parameters does not; `kept` says what was
    taken over from the base.
    """
    derivation = model.derivation
    files = dict(derivation.files(derivation)) if derivation and derivation.files else {}
    for name, text in files.items():
        (out / name).write_text(text, encoding="utf-8")
    lines = list(how) or (_merged(derivation) if derivation else [f"Written by mixmerge from `{model.path.name}`."])
    base = derivation.base if derivation else model
    data = _together([derivation.base, *derivation.experts]) if derivation else model.data
    lines += ["", *_licences(base.name if derivation else "model", base.licence, data, derivation)]
    licence = licences.together([base.licence, *(one.licence for one in (derivation.experts if derivation else ()))])
    lines += ["", f"{kept} Weights: `{digest}`."]
    if files:
        lines += ["", f"Beside this card: {', '.join(f'`{name}`' for name in sorted(files))}."]
    _write(out, model.name, ["merge", *([derivation.method] if derivation else [])], lines, licence, data)


def write_training_card(
    name: str, start: Checkpoint, data: Sequence[Dataset], how: tuple[str, Mapping[str, Any], int], out: Path
) -> None:
    """Write README.md beside what was trained from `start`. `how` is the trainer, its parameters, and the seed."""
    trainer, parameters, seed = how
    lines = [
        f"Trained by mixmerge with `{trainer}` from {start.name}.",
        "",
        f"Parameters: `{dict(parameters)}`; seed {seed}.",
        "",
        *_licences(start.name, start.licence, data),
    ]
    _write(out, name, [trainer], lines, start.licence, data)


def _merged(derivation: Derivation) -> list[str]:
    return [
        f"Merged by mixmerge with `{derivation.method}` from {derivation.base.name}.",
        "",
        "| expert | weight | trained on | licence of what it started from |",
        "|---|---|---|---|",
        *(
            f"| {_cell(expert.name)} | {weight:g} | {_cell(_names(expert.data))} | {_cell(_stated(expert.licence))} |"
            for expert, weight in zip(derivation.experts, derivation.weights, strict=True)
        ),
        "",
        f"Parameters: `{dict(derivation.parameters)}`; seed {derivation.seed}.",
    ]


def _licences(base: str, licence: str, data: Sequence[Dataset], merge: Derivation | None = None) -> list[str]:
    """The section on licences: of the base and of every dataset, and what stands out in plain words."""
    experts = merge.experts if merge else ()
    given = [expert for expert in experts if not expert.data]
    others = [one for one in experts if one.name != base and (one.licence != licence or one in given)]
    whose = base if base in [expert.name for expert in experts] else "the base"
    stated = [
        f"Licence of {whose}: {_stated(licence)}.",
        *(f"Of {one.name}: {_stated(one.licence)}." for one in others),
    ]
    lines = ["## Licences", "", " ".join(stated)]
    if data:
        lines += ["", "| data | source | rows used | licence |", "|---|---|---|---|"]
        lines += [
            f"| {_cell(one.name)} | `{_cell(one.source)}` | {one.rows:,} | {_cell(_stated(one.licence))} |"
            for one in data
        ]
    found = licences.remarks(base, licence, data)
    if merge:
        found += [text for expert in others if (text := licences.remark(f"the expert {expert.name}", expert.licence))]
        found += [f"what {expert.name} was trained on is not known here" for expert in given]
    if found:
        inherited = " A merge inherits this from its base and its experts." if merge else ""
        lines += ["", f"Mind: {'; '.join(dict.fromkeys(found))}.{inherited} {NO_ADVICE}"]
    return lines


def _together(experts: Iterable[Checkpoint]) -> list[Dataset]:
    """The data of all experts, each dataset once, with the rows that the experts used of it at most."""
    found: dict[tuple[str, str], Dataset] = {}
    for one in (one for expert in experts for one in expert.data):
        known = found.get((one.name, one.source))
        found[one.name, one.source] = known if known and known.rows >= one.rows else one
    return list(found.values())


def _names(data: Iterable[Dataset]) -> str:
    return ", ".join(f"{one.name} ({one.rows:,} rows, {_stated(one.licence)})" for one in data) or "not known here"


def _stated(licence: str) -> str:
    return licence or "not stated"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _write(out: Path, name: str, tags: list[str], lines: list[str], licence: str, data: Sequence[Dataset]) -> None:
    """What stands under `mixmerge` is read again when the model is an expert or a base of another recipe."""
    known = {"licence": licence, "data": [asdict(one) for one in data]}
    front = {"library_name": "transformers", "tags": ["mixmerge", *tags], "mixmerge": known}
    head = yaml.safe_dump(front, sort_keys=False, allow_unicode=True)
    text = "\n".join([f"# {name}", "", *lines])
    (out / "README.md").write_text(f"---\n{head}---\n\n{text}\n", encoding="utf-8")
