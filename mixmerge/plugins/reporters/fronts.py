"""Two figures about trade-offs: the Pareto front over tasks, and every method's best against the mixture."""

from __future__ import annotations

from collections.abc import Sequence

from mixmerge import Results
from mixmerge.results import best_expert, experts_of, find_row, front, methods, task_changes

from . import words
from .shapes import FAINT, INK, MARKERS, METHOD_COLOURS, Curve, Figure, Level


def pareto_figures(results: Results) -> list[Figure]:
    """One over the tasks that compare and one over those that choose, where they differ and there is a trade-off."""
    sets = {"pareto": results.report_on, "pareto_chosen": results.choose_on}
    if results.choose_on == results.report_on:
        sets.pop("pareto_chosen")
    return [found for name, tasks in sets.items() if (found := _pareto(results, name, tasks))]


def _pareto(results: Results, name: str, tasks: Sequence[str]) -> Figure | None:
    axes = _axes(results, tasks)
    changes = task_changes(results, tasks)
    kinds = {model.name: model for model in results.models}
    if axes is None or sum(kinds[model].kind == "merge" for model in changes) < 2:
        return None
    place = {task: index for index, task in enumerate(tasks)}
    points = {
        model: tuple(sum(values[place[task]] for task in group) / len(group) for _, group in axes)
        for model, values in changes.items()
    }
    errors = _errors(results, axes)
    best = front(points)
    # The base and experts on each other's tasks lie so far off that they would leave no room for what is compared.
    shown = {model: point for model, point in points.items() if kinds[model].kind not in ("base", "expert")}
    shown = {model: point for model, point in shown.items() if model not in experts_of(results.models)}
    drawn = [model for model in best if model in shown]
    curves = [*_curves(results, shown, errors), *([_front_curve(shown, drawn)] if len(drawn) > 1 else [])]
    rows = tuple(
        (model, kinds[model].kind, *point, *errors.get(model, (None, None)), "yes" if model in best else "no")
        for model, point in points.items()
    )
    told = words.listing(sorted(best, key=lambda model: points[model]))
    where = "compare" if name == "pareto" else "choose"
    caption = (
        f"Change against each task's best expert, at 0; up and to the right is better. On the front, where "
        f"no other model is as good on both axes and better on one: {told}. Base and experts are not drawn. "
        f"{'Bars: one standard error. ' if errors else ''}With this noise a model close to the front may be on it."
    )
    labels = [f"{label}, %" for label, _ in axes]
    columns = ("model", "kind", "x", "y", "x_stderr", "y_stderr", "on_front")
    title = f"The trade-off on the tasks that {where}"
    level = (Level("", 0.0, FAINT, ":"),)
    return Figure(name, title, caption, labels[0], labels[1], tuple(curves), columns, rows, level, style="points")


def _axes(results: Results, tasks: Sequence[str]) -> tuple[tuple[str, tuple[str, ...]], ...] | None:
    """Two tasks are two axes; more are, where two experts share them, one axis for the tasks of each."""
    if len(tasks) == 2:
        return tuple((task, (task,)) for task in tasks)
    groups: dict[str, list[str]] = {}
    for task in tasks:
        groups.setdefault(best_expert(results, task) or "", []).append(task)
    if len(groups) != 2:
        return None
    return tuple((f"{len(own)} tasks of {expert}", tuple(own)) for expert, own in groups.items())


def _errors(results: Results, axes: Sequence[tuple[str, tuple[str, ...]]]) -> dict[str, tuple[float | None, ...]]:
    """Standard errors in percent of the reference, where each axis is one task."""
    if any(len(group) > 1 for _, group in axes):
        return {}
    found = {}
    for model in results.models:
        rows = [find_row(results.rows, model.name, group[0]) for _, group in axes]
        scales = [find_row(results.rows, best_expert(results, group[0]) or "base", group[0]) for _, group in axes]
        if all(rows):
            found[model.name] = tuple(
                100 * row.stderr / abs(by.value) if row and by and row.stderr is not None and by.value else None
                for row, by in zip(rows, scales, strict=True)
            )
    return found


def _front_curve(points: dict[str, tuple[float, ...]], best: Sequence[str]) -> Curve:
    """The front as a staircase: what lies below and left of it is beaten."""
    ordered = sorted(points[model] for model in best)
    x, y = [], []
    for index, point in enumerate(ordered):
        if index:
            x.append(ordered[index - 1][0])
            y.append(point[1])
        x.append(point[0])
        y.append(point[1])
    return Curve("front", tuple(x), tuple(y), colour=FAINT, dashes="--", width=1.2)


def _curves(
    results: Results, points: dict[str, tuple[float, ...]], errors: dict[str, tuple[float | None, ...]]
) -> list[Curve]:
    swept = list(dict.fromkeys(model.method for model in results.models if model.kind == "merge"))
    groups: dict[str, list[str]] = {}
    for model in results.models:
        if model.name in points:
            groups.setdefault(model.method if model.kind == "merge" else model.name, []).append(model.name)
    kinds = {model.name: model.kind for model in results.models}
    curves = []
    for label, names in groups.items():
        if label in swept:
            index = swept.index(label)
            look = (METHOD_COLOURS[index % len(METHOD_COLOURS)], MARKERS[index % len(MARKERS)])
        else:
            look = (INK, "X" if kinds[label] == "mixture" else "p")
        won = next((place for place, name in enumerate(names) if name in results.winners.values()), None)
        curves.append(
            Curve(
                label,
                tuple(points[name][0] for name in names),
                tuple(points[name][1] for name in names),
                tuple(errors.get(name, (None, None))[1] for name in names),
                *look,
                "",
                won,
                x_errors=tuple(errors.get(name, (None, None))[0] for name in names),
            )
        )
    return curves


def contest_figure(results: Results) -> list[Figure]:
    """Every method's best merge minus what it is compared with, with its interval."""
    found = [one for one in methods(results) if one.versus]
    if not found:
        return []
    against = found[0].against
    names = tuple(one.best for one in found)
    spans = tuple((one.versus.low, one.versus.high) for one in found if one.versus)
    values = tuple(one.versus.difference for one in found if one.versus)
    rows = tuple(
        (one.method, one.best, one.configurations, one.versus.difference, *span, one.versus.p, one.holm_p)
        for one, span in zip(found, spans, strict=True)
        if one.versus
    )
    curve = Curve("merge", values, tuple(float(i) for i in range(len(found))), (), METHOD_COLOURS[0], "o", spans=spans)
    level = found[0].versus.level if found[0].versus else 0.95
    caption = (
        f"Right of the line the merge is better, left of it {against}. Bars: {100 * level:g} % interval; one that "
        "crosses the line is within noise. Bars are for each method alone; Holm's p, in the table, allows for how "
        "many were compared. Each method shows its best merge, chosen on the tasks to choose on."
    )
    columns = ("method", "model", "configurations", "difference", "low", "high", "p", "holm_p")
    return [
        Figure(
            "contest",
            f"Each method's best merge against {against}",
            caption,
            "difference, points of relative change",
            "",
            (curve,),
            columns,
            rows,
            (Level("", 0.0, INK, "--"),),
            names,
            "spots",
        )
    ]
