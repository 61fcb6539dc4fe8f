"""From the store to Results, and from Results to what the plan does next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from . import checkpoint, gate, licences, results
from .errors import MixmergeError
from .plan import Decision, Plan
from .store import Store, read_json, versions
from .types import Advice, Dataset, Doubt, Measurement, Model, Point, Record, Results, Row, Score, Step, Trial


def collect(manifest: Mapping[str, Any], store: Store) -> Results:
    """Everything that the store holds of a plan; steps that are not done yet are left out."""
    if "recorded" in manifest:
        return _collect_recorded(manifest, store)
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
        rows=tuple(rows),
        models=models,
        measurements=_measurements(manifest, store),
        choose_on=tuple(manifest["choose_on"]),
        report_on=tuple(manifest["report_on"]),
        also_on=tuple(manifest["also_on"]),
        winners=manifest["winners"],
        kept=tuple(manifest.get("kept", ())),
        records=_records(manifest, store),
        provenance={
            "recipe": manifest["text"],
            "recipe_file": manifest["file"],
            "versions": versions(),
            "notes": [*_notes(manifest, store), *_below_baselines(rows)],
            "contamination": manifest["contamination"]["policy"],
        },
        seed=manifest["seed"],
        overlaps=gate.overlaps(manifest, store),
        datasets=_datasets(manifest, store),
    )


def _collect_recorded(manifest: Mapping[str, Any], store: Store) -> Results:
    """The experiments of recorded results as parts of one Results, without their advice."""
    record = store.record(manifest["recorded"])
    whole = Results(
        name=manifest["name"],
        rows=(),
        models=(),
        records=(record,) if record else (),
        provenance={"recipe": manifest["text"], "recipe_file": manifest["file"], "versions": versions()},
        seed=manifest["seed"],
    )
    if record is None:
        return whole
    found = read_json(store.path(record.step.id) / "experiments.json")
    parts = tuple(_recorded_part(one, manifest, whole) for one in found["experiments"])
    return replace(whole, parts=parts, doubts=tuple(Doubt(**one) for one in found["doubts"]))


def _recorded_part(one: Mapping[str, Any], manifest: Mapping[str, Any], whole: Results) -> Results:
    models = [
        Model(**{**model, "weights": tuple(model["weights"]), "experts": tuple(model["experts"])})
        for model in one["models"]
    ]
    rows = tuple(Row(**{**row, "samples": tuple(row["samples"])}) for row in one["rows"])
    scored = {row.task for row in rows}
    choose_on, report_on = (
        tuple(task for task in manifest[key] if task in scored) for key in ("choose_on", "report_on")
    )
    return replace(
        whole,
        name=one["name"],
        rows=rows,
        models=models,
        choose_on=choose_on,
        report_on=report_on,
        winners=results.choose(rows, models, choose_on),
    )


def decide(plan: Plan, store: Store) -> dict[str, Decision]:
    """What the scores on `choose_on` say so far: a Decision for every merge group that has any."""
    if plan.recipe.recorded:
        return {}
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


def trained_on(step_id: str, store: Store) -> tuple[Dataset, ...]:
    """The data behind a model with the rows used of each: its own, and that of what it was made from."""
    step, record = store.spec(step_id), store.record(step_id)
    if step.kind == "source":  # where mixmerge made the model before, its card says what is in it
        return tuple(Dataset(**one) for one in record.outcome.get("data", ())) if record else ()
    parents = [parent for role in ("base", "start", "model", "experts") for parent in step.inputs.get(role, ())]
    found = [one for parent in parents for one in trained_on(parent, store)]
    mixture = store.record(step.inputs["mixture"][0]) if "mixture" in step.inputs else None
    counts = mixture.outcome["counts"] if mixture else {}
    found += [_dataset(store.spec(data), store, rows) for data, rows in counts.items()]
    return tuple(dict.fromkeys(found))


def _dataset(step: Step, store: Store, rows: int | None = None) -> Dataset:
    record = store.record(step.id)
    outcome = record.outcome if record else {}
    source = str(outcome.get("source", step.content.get("source", "")))
    name = step.name.removeprefix("load ")
    return Dataset(name, source, str(outcome.get("licence", "")), outcome.get("rows", 0) if rows is None else rows)


def licence_of(step_id: str, store: Store) -> str:
    """The licences of the models from outside that a model is or comes of, by training or merging."""
    step = store.spec(step_id)
    if step.kind != "source":
        parents = [parent for role in ("start", "model", "base", "experts") for parent in step.inputs.get(role, ())]
        return licences.together(licence_of(parent, store) for parent in parents)
    record = store.record(step_id)
    return str(record.outcome.get("licence") or "") if record else ""


def _datasets(manifest: Mapping[str, Any], store: Store) -> list[Dataset]:
    """Every dataset that is loaded, under its name in this recipe."""
    done = [(name, store.spec(step)) for name, step in manifest["datasets"].items() if store.record(step)]
    return [replace(_dataset(step, store), name=name) for name, step in done]


def _model(entry: Mapping[str, Any], manifest: Mapping[str, Any], store: Store) -> Model:
    record = store.record(entry["train"]) if entry["train"] else None
    names = {step: name for name, step in manifest["datasets"].items()}
    outcome = record.outcome if record else {}
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
        licences=_licences(entry, manifest, store),
    )


def _licences(entry: Mapping[str, Any], manifest: Mapping[str, Any], store: Store) -> dict[str, str]:
    """Of a model's base and of all data in it, by name; a merge has its base's and its experts'."""
    of = {model["name"]: model for model in manifest["models"]}
    if entry["experts"]:
        parts = [_licences(of[name], manifest, store) for name in ("base", *entry["experts"])]
        return {name: licence for part in parts for name, licence in part.items()}
    if not entry["train"]:
        if store.record(entry["step"]) is None:
            return {}
        inside = {one.name: one.licence for one in trained_on(entry["step"], store)}
        return {entry["name"]: licence_of(entry["step"], store), **inside}
    record = store.record(entry["train"])
    names = {step: name for name, step in manifest["datasets"].items()}
    data = {names.get(step, step): licence for step, licence in record.outcome["licences"].items()} if record else {}
    return {"base": licence_of(entry["step"], store), **data} if record else {}


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


def _below_baselines(rows: Sequence[Row]) -> list[str]:
    """A sentence for each task on which a model does not reach a trivial baseline by the metric that stands for it."""
    notes = []
    for task in dict.fromkeys(row.task for row in rows):
        metric = results.primary_metric(rows, task)
        scored = [row for row in rows if (row.task, row.metric) == (task, metric)]
        sign = 1 if all(row.higher_is_better for row in scored) else -1
        for baseline in (row for row in scored if row.kind == "reference"):
            below = [row for row in scored if row.kind != "reference" and sign * row.value < sign * baseline.value]
            if below:
                named = ", ".join(f"{row.model} ({row.value:.2f})" for row in below[:5])
                more = f" and {len(below) - 5} more" if len(below) > 5 else ""
                against = f"the trivial baseline {baseline.model!r} ({metric} {baseline.value:.2f})"
                notes.append(f"{task}: worse than {against}: {named}{more}")
    return notes


def _measurements(manifest: Mapping[str, Any], store: Store) -> list[Measurement]:
    """With the models' names in place of their ids."""
    names = {entry["step"]: entry["name"] for entry in manifest["models"]}
    return [
        Measurement(**{**data, "models": tuple(names.get(model, model) for model in data["models"]), "record": step_id})
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
    if limit := manifest["limit"]:
        notes.append(f"only the first {limit} documents of each task were scored (limit: {limit})")
    for name, step_id in manifest["datasets"].items():
        if record := store.record(step_id):
            notes += [f"{name}: {note}" for note in record.outcome["notes"]]
    weights = checkpoint.unplaced(_measurements(manifest, store))  # a report says what is rounding beside its table
    return notes + _remarks(manifest, store) + gate.notes(manifest, store) + weights


def _remarks(manifest: Mapping[str, Any], store: Store) -> list[str]:
    """Licences that are non-commercial or not known, and which models they reach."""
    found = []
    for one in _datasets(manifest, store):
        trained = [model["name"] for model in manifest["models"] if model["train"] and one.name in model["data"]]
        if text := licences.remark(f"{one.name} ({one.source})", one.licence):
            found.append(f"{text}; trained on it: {', '.join(trained)}, and through them every merge of these")
    for model in manifest["models"]:
        if not model["train"] and not model["experts"] and store.record(model["step"]):
            name, inside = model["name"], trained_on(model["step"], store)
            told = [licences.remark(f"the model {name}", licence_of(model["step"], store))]
            told += [licences.remark(f"{one.name} ({one.source}), in the model {name},", one.licence) for one in inside]
            found += [f"{text}; what is made from it inherits that" for text in told if text]
    return found


def read_advice(step: Step, store: Store) -> Advice:
    """What an advisor said."""
    data = read_json(store.path(step.id) / "advice.json")
    return Advice(data["answer"], data["headline"], tuple(data["evidence"]), tuple(data["against"]))
