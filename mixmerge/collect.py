"""From the store to Results, and from Results to what the plan does next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from . import checkpoint, gate, results
from .errors import MixmergeError
from .plan import Decision, Plan
from .store import Store, read_json, versions
from .types import Advice, Measurement, Model, Point, Record, Results, Row, Score, Step, Trial


def collect(manifest: Mapping[str, Any], store: Store) -> Results:
    """Everything that the store holds of a plan; steps that are not done yet are left out."""
    models = tuple(_model(entry, manifest, store) for entry in manifest["models"])
    by_name = {model.name: model for model in models}
    rows: list[Row] = []
    asked: dict[str, dict[str, Mapping[str, str]]] = {}
    for name, _, step_id in manifest["evaluations"]:
        scores = _scores(step_id, store)
        for score in scores:
            asked.setdefault(score.task, {})[name] = score.asked
        rows += [row for score in scores if (row := _row(by_name[name], score, step_id)) not in rows]
    _require_asked_alike(asked)
    return Results(
        name=manifest["name"],
        rows=rows,
        models=models,
        measurements=_measurements(manifest, store),
        choose_on=tuple(manifest["choose_on"]),
        report_on=tuple(manifest["report_on"]),
        also_on=tuple(manifest["also_on"]),
        winners=manifest["winners"],
        records=_records(manifest, store),
        provenance={
            "recipe": manifest["text"],
            "recipe_file": manifest["file"],
            "versions": versions(),
            "notes": _notes(manifest, store),
            "contamination": manifest["contamination"]["policy"],
        },
        seed=manifest["seed"],
        overlaps=gate.overlaps(manifest, store),
    )


def decide(plan: Plan, store: Store) -> dict[str, Decision]:
    """What the scores on `choose_on` say so far: a Decision for every merge group that has any."""
    found = collect(plan.manifest, store)
    if not found.choose_on:
        return {}
    winners = results.choose(found.rows, found.models, found.choose_on)
    best = results.best_by_method(found.rows, found.models, found.choose_on)
    experts = results.experts_of(found.models)
    scored = {name for name, on, step in plan.evaluations if on == "choose_on" and store.record(step)}
    decisions = {}
    for group in plan.recipe.merge:
        trials = tuple(
            Trial(Point(model.settings), results.objective(found.rows, model.name, found.choose_on, experts=experts))
            for model in found.models
            if model.group == group and model.name in scored and model.settings
        )
        by_method = {method: name for (of, method), name in best.items() if of == group}
        decisions[group] = Decision(trials, winners.get(group, ""), by_method)
    return decisions


def _model(entry: Mapping[str, Any], manifest: Mapping[str, Any], store: Store) -> Model:
    record = store.record(entry["train"]) if entry["train"] else None
    names = {step: name for name, step in manifest["datasets"].items()}
    outcome = record.outcome if record else {}
    licences = outcome.get("licences", {})
    if not record and (source := store.record(entry["step"])):
        licences = {entry["name"]: source.outcome.get("licence", "")}
    return Model(
        name=entry["name"],
        kind=entry["kind"],
        id=entry["step"],
        group=entry["group"],
        method=entry["method"],
        weights=tuple(entry["weights"]),
        experts=tuple(entry["experts"]),
        settings=entry["settings"],
        data={names.get(step, step): count for step, count in outcome.get("counts", {}).items()},
        training={
            **outcome.get("figures", {}),
            **({"seconds": record.finished - record.started} if record and "seconds" not in outcome["figures"] else {}),
        },
        licences={names.get(key, key): value for key, value in licences.items()},
    )


def _scores(step_id: str, store: Store) -> list[Score]:
    if store.record(step_id) is None:
        return []
    found = read_json(store.path(step_id) / "scores.json")
    return [Score(**{**data, "samples": tuple(data["samples"])}) for data in found]


def _row(model: Model, score: Score, step_id: str) -> Row:
    return Row(
        model=score.reference or model.name,
        kind="reference" if score.reference else model.kind,
        task=score.task,
        metric=score.metric,
        value=score.value,
        stderr=score.stderr,
        n=score.n,
        k=score.k,
        higher_is_better=score.higher_is_better,
        primary=score.primary,
        samples=score.samples,
        settings={} if score.reference else model.settings,
        record="" if score.reference else step_id,
    )


def _require_asked_alike(asked: Mapping[str, Mapping[str, Mapping[str, str]]]) -> None:
    """Raise MixmergeError where a task asked two models differently: then their scores say nothing of the models."""
    for task, models in asked.items():
        (first, expected), *others = models.items()
        for name, how in others:
            if wrong := [key for key in sorted({*expected, *how}) if expected.get(key) != how.get(key)]:
                said = "; ".join(
                    f"{key}: {expected.get(key, 'not set')} and {how.get(key, 'not set')}" for key in wrong
                )
                raise MixmergeError(
                    f"{task} asked {first} and {name} differently, so they cannot be compared ({said})",
                    hint="give both models the same chat template and generation_config.json, or let the task say what"
                    " they leave open, with gen_kwargs of the evaluator",
                )


def _measurements(manifest: Mapping[str, Any], store: Store) -> list[Measurement]:
    """With the models' names in place of their ids."""
    names = {entry["step"]: entry["name"] for entry in manifest["models"]}
    return [
        Measurement(**{**data, "models": tuple(names.get(model, model) for model in data["models"])})
        for step_id in manifest["diagnoses"]
        if store.record(step_id)
        for data in read_json(store.path(step_id) / "measurements.json")
    ]


def _records(manifest: Mapping[str, Any], store: Store) -> Sequence[Record]:
    ids = [
        *manifest["datasets"].values(),
        *manifest["contamination"]["checks"].values(),
        *(entry["train"] or entry["step"] for entry in manifest["models"]),
        *(step for _, _, step in manifest["evaluations"]),
        *manifest["diagnoses"],
    ]
    return [record for step_id in dict.fromkeys(ids) if (record := store.record(step_id))]


def _notes(manifest: Mapping[str, Any], store: Store) -> list[str]:
    """Facts that a table must carry, in the order of the recipe."""
    notes = []
    base = store.record(manifest["models"][0]["step"])
    if base:
        notes.append(f"base model: {base.outcome['label']} ({base.outcome['licence'] or 'licence not stated'})")
    for name, step_id in manifest["datasets"].items():
        if record := store.record(step_id):
            notes += [f"{name}: {note}" for note in record.outcome["notes"]]
    return notes + gate.notes(manifest, store) + checkpoint.notes(_measurements(manifest, store))


def read_advice(step: Step, store: Store) -> Advice:
    """What an advisor said."""
    data = read_json(store.path(step.id) / "advice.json")
    return Advice(data["answer"], data["headline"], tuple(data["evidence"]), tuple(data["against"]))
