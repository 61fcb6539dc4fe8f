"""What each figure shows, as plain data: `drawing` turns it into SVG, `rows` into CSV."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from mixmerge import Results, Row
from mixmerge.results import experts_of, find_row, sweep_series, sweeps

from . import content, fronts, merges, weights, words
from .shapes import DASHES, EXPERT_COLOURS, FAINT, INK, MARKERS, METHOD_COLOURS, Curve, Figure, Level

# More lines than this cannot be told apart.
_MERGES_IN_FIGURE = 6
_TASKS_IN_FIGURE = 4


def all_figures(results: Results, page: content.Sheet) -> tuple[Figure, ...]:
    """Every figure that the results have numbers for, in the order of the report."""
    return (
        *fronts.contest_figure(results),
        *_gain_figure(results, page),
        *_sweep_figures(results),
        *fronts.pareto_figures(results),
        *_weight_figures(results),
    )


def write(figures: Iterable[Figure], folder: Path) -> tuple[Path, ...]:
    """Each figure as `NAME.svg`, legible on light and on dark, with its numbers as `NAME.csv`."""
    from . import drawing

    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for one in figures:
        picture, numbers = folder / f"{one.name}.svg", folder / f"{one.name}.csv"
        picture.write_text(drawing.standalone(one), encoding="utf-8")
        with numbers.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows([one.columns, *one.rows])
        written += [picture, numbers]
    return tuple(written)


def layer_curves(name: str, along_y: str, curves: Mapping[str, Sequence[tuple[int, float]]]) -> str:
    """An SVG with a curve of (layer, value) for each label."""
    from . import drawing

    drawn = []
    for index, (label, points) in enumerate(curves.items()):
        again, place = divmod(index, len(EXPERT_COLOURS))
        x, y = (tuple(float(point[axis]) for point in points) for axis in (0, 1))
        dashes = DASHES[again % len(DASHES)]
        drawn.append(Curve(label, x, y, colour=EXPERT_COLOURS[place], marker=MARKERS[place], dashes=dashes))
    about = f", {drawn[0].label}" if len(drawn) == 1 else ""  # one curve has no legend
    return drawing.standalone(Figure(name, along_y, "", "layer", along_y + about, tuple(drawn), (), ()))


# ---- how much of the gains is kept ----------------------------------------------------------------------------------


def _gain_figure(results: Results, page: content.Sheet) -> list[Figure]:
    kept = merges.gains(results, page.lines)
    tasks = tuple(dict.fromkeys(task for one in kept for task, _, _ in one.shares))
    if not 0 < len(tasks) <= _TASKS_IN_FIGURE:
        return []
    curves = []
    for index, task in enumerate(tasks):
        found = [
            (row, share, error) for row, one in enumerate(kept) for name, share, error in one.shares if name == task
        ]
        # Each task stands a little apart from the line of its model, so that marks do not cover each other.
        apart = (index - (len(tasks) - 1) / 2) * 0.16
        curves.append(
            Curve(
                task,
                tuple(100 * share for _, share, _ in found),
                tuple(row + apart for row, _, _ in found),
                tuple(100 * error if error is not None else None for _, _, error in found),
                EXPERT_COLOURS[index % len(EXPERT_COLOURS)],
                MARKERS[index % len(MARKERS)],
            )
        )
    caption = (
        "100 % is the score of the best expert on that task, 0 % the score of the base. "
        "Bars: one standard error of the model's own score."
    )
    rows = tuple((one.name, task, share, error) for one in kept for task, share, error in one.shares)
    return [
        Figure(
            "gain_kept",
            "How much of each expert's gain a single model keeps",
            caption,
            "gain kept, % of the expert's gain over the base",
            "",
            tuple(curves),
            ("model", "task", "share", "stderr"),
            rows,
            (Level("base", 0.0, FAINT, ":"), Level("expert", 100.0, INK, "--")),
            tuple(one.name for one in kept),
            "spots",
        )
    ]


# ---- the sweep ------------------------------------------------------------------------------------------------------


def _sweep_figures(results: Results) -> list[Figure]:
    groups = tuple(dict.fromkeys(group for group, _ in sweeps(results)))
    return [
        found
        for group in groups
        for task in results.choose_on
        if (found := _sweep_figure(results, group, task, alone=len(groups) == 1))
    ]


def _sweep_figure(results: Results, group: str, task: str, *, alone: bool) -> Figure | None:
    head = content.primary_head(results, task)
    methods = [method for of_group, method in sweeps(results) if of_group == group]
    series = [one for method in methods for one in sweep_series(results, group, method, task)]
    if head is None or not series:
        return None
    winner = results.winners.get(group, "")
    curves = []
    for index, one in enumerate(series):
        star = next((place for place, point in enumerate(one.points) if point.model == winner), None)
        errors = tuple(point.stderr * head.scale if point.stderr is not None else None for point in one.points)
        curves.append(
            Curve(
                one.label,
                tuple(point.x for point in one.points),
                tuple(point.value * head.scale for point in one.points),
                errors,
                METHOD_COLOURS[index % len(METHOD_COLOURS)],
                MARKERS[index % len(MARKERS)],
                "-" if index < len(METHOD_COLOURS) else "--",
                star,
            )
        )
    rows = tuple(
        (one.label, point.model, *_weight_pair(point.weights), point.value, point.stderr, point.n)
        for one in series
        for point in one.points
    )
    first = next(
        (model.experts[0] for model in results.models if model.group == group and model.experts), "first expert"
    )
    better = "higher" if head.arrow == "↑" else "lower"
    unit = f", {head.unit}" if head.unit else ""
    return Figure(
        _file_name("sweep", *(() if alone else (group,)), task),
        f"{task}: {head.label}" + ("" if alone else f" ({group})"),
        f"{better.capitalize()} is better. Bars: one standard error of each score. {_winner_words(results, winner)}",
        f"share of {_name_of(results, first)} in the weights",
        f"{head.label}{unit}",
        tuple(curves),
        ("series", "model", "first_weight", "weights", "value", "stderr", "n"),
        rows,
        tuple(_levels(results, task, head)),
    )


def _winner_words(results: Results, winner: str) -> str:
    return f"★ marks the winner, {winner}." if winner in {model.name for model in results.models} else ""


def _weight_pair(weights: Sequence[float]) -> tuple[float, str]:
    return weights[0], "/".join(f"{weight:g}" for weight in weights)


def _name_of(results: Results, expert: str) -> str:
    return next((model.name for model in results.models if expert in (model.id, model.name)), expert)


def _levels(results: Results, task: str, head: content.Head) -> Iterable[Level]:
    experts = experts_of(results.models)
    for model in results.models:
        row: Row | None = find_row(results.rows, model.name, task)
        if row is None or model.kind == "merge":
            continue
        if model.name in experts:
            colour = EXPERT_COLOURS[experts.index(model.name) % len(EXPERT_COLOURS)]
            yield Level(model.name, row.value * head.scale, colour, "--")
        elif model.kind in ("base", "mixture", "model"):
            colour, dashes = (FAINT, ":") if model.kind == "base" else (INK, "-.")
            yield Level(model.name, row.value * head.scale, colour, dashes)


# ---- the weights ----------------------------------------------------------------------------------------------------


def _weight_figures(results: Results) -> list[Figure]:
    experts = experts_of(results.models)
    kinds = {model.name: model.kind for model in results.models}
    l2 = _by_layer(results, "l2_mean")
    single = {names[0]: points for names, points in l2.items() if len(names) == 1}
    merged = _merges_shown(results, [name for name in single if kinds.get(name) == "merge"])
    trained = [name for name in single if kinds.get(name) != "merge" and name not in experts]
    colours = {name: EXPERT_COLOURS[index % len(EXPERT_COLOURS)] for index, name in enumerate(experts)}
    own = [Curve(name, *single[name], colour=colours[name]) for name in experts if name in single]
    others = [Curve(name, *single[name], dashes="-.") for name in trained]
    mixed = [Curve(name, *single[name], colour=_method_colour(results, name)) for name in merged]
    # With merges measured, Fig. 2 is the paper's (experts and mixture) and Fig. 4 sets the merges against them.
    second, fourth = (own + others, mixed + others) if mixed else (own, others)
    context = [
        Curve(name, *single[name], colour=FAINT, width=1.3, dashes=DASHES[index % len(DASHES)])
        for index, name in enumerate(experts)
        if name in single
    ]
    found = []
    if second:
        found.append(
            _layer_figure("fig2_layer_l2", "Fig. 2", "How far training moved each layer", second, _l2_words(second))
        )
    found += _correlation_figure(results, experts)
    if fourth:
        text = "The models that combine tasks, over the experts in grey. " + _l2_words(fourth)
        found.append(
            _layer_figure("fig4_layer_l2", "Fig. 4", "The same for models that combine tasks", context + fourth, text)
        )
    return found


def _method_colour(results: Results, merge: str) -> str:
    """The colour that the method has in the sweep."""
    methods = list(dict.fromkeys(method for _, method in sweeps(results)))
    method = next(model.method for model in results.models if model.name == merge)
    return METHOD_COLOURS[methods.index(method) % len(METHOD_COLOURS)]


def _layer_figure(name: str, number: str, title: str, curves: Sequence[Curve], caption: str) -> Figure:
    return Figure(
        name,
        title,
        caption,
        "layer (0 is next to the input)",
        "mean L2 distance to the base",
        tuple(curves),
        ("model", "layer", "l2_mean"),
        _layer_rows(curves),
        number=number,
    )


def _correlation_figure(results: Results, experts: Sequence[str]) -> list[Figure]:
    pairs = {names: points for names, points in _by_layer(results, "pearson").items() if len(names) == 2}
    between = {names: points for names, points in pairs.items() if set(names) <= set(experts)} or pairs
    if not between:
        return []
    curves = tuple(
        Curve(weights.pair(names), *points, colour=METHOD_COLOURS[index % len(METHOD_COLOURS)])
        for index, (names, points) in enumerate(between.items())
    )
    caption = "Near 0, the experts changed unrelated weights; near 1, they made the same change. "
    return [
        Figure(
            "fig3_correlation",
            "Do the experts change the weights alike?",
            caption + _range_words(curves),
            "layer (0 is next to the input)",
            "Pearson correlation of the changes",
            curves,
            ("pair", "layer", "pearson"),
            _layer_rows(curves),
            (Level("", 0.0, FAINT, ":"),),
            number="Fig. 3",
        )
    ]


def _merges_shown(results: Results, merges: Sequence[str]) -> list[str]:
    """Winners first, then the order of the sweep."""
    won = set(results.winners.values())
    return sorted(merges, key=lambda name: name not in won)[:_MERGES_IN_FIGURE]


def _by_layer(results: Results, metric: str) -> dict[tuple[str, ...], tuple[tuple[float, ...], tuple[float, ...]]]:
    """Models to (layers, values), layers ascending."""
    found: dict[tuple[str, ...], dict[int, float]] = {}
    for one in results.measurements:
        place = weights.layer(one.group)
        if place is not None and one.metric == metric:
            found.setdefault(one.models, {}).setdefault(place, one.value)
    return {
        names: (tuple(float(place) for place in sorted(values)), tuple(values[place] for place in sorted(values)))
        for names, values in found.items()
    }


def _layer_rows(curves: Sequence[Curve]) -> tuple[tuple[str | float | int, ...], ...]:
    return tuple((curve.label, int(x), y) for curve in curves for x, y in zip(curve.x, curve.y, strict=True))


def _l2_words(curves: Sequence[Curve]) -> str:
    means = {curve.label: _mean(curve.y) for curve in curves}
    far = max(means, key=lambda name: means[name])
    if len(means) == 1:
        return f"Mean over the layers: {words.figure(means[far], 3)}."
    near = min(means, key=lambda name: means[name])
    return (
        f"On average over the layers, {far} moved farthest ({words.figure(means[far], 3)}) "
        f"and {near} least ({words.figure(means[near], 3)})."
    )


def _range_words(curves: Sequence[Curve]) -> str:
    parts = []
    for curve in curves[:3]:
        low, high = min(curve.y), max(curve.y)
        span = f"from {words.figure(low, 2)} (layer {int(curve.x[curve.y.index(low)])}) to {words.figure(high, 2)} "
        span += f"(layer {int(curve.x[curve.y.index(high)])})"
        parts.append(f"{curve.label}: mean {words.figure(_mean(curve.y), 2)}, {span}")
    return "; ".join(parts) + "."


def _mean(values: Sequence[float]) -> float:
    finite = [value for value in values if math.isfinite(value)]
    return sum(finite) / len(finite) if finite else math.nan


def _file_name(*parts: str) -> str:
    return "_".join("".join(sign if sign.isalnum() or sign in "-_" else "-" for sign in part) for part in parts)
