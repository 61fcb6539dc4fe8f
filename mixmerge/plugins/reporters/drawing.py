"""Figures as SVG, drawn by matplotlib: the same bytes every time, legible on light, dark, paper and a phone."""

from __future__ import annotations

import io
import re
import textwrap
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from .shapes import FAINT, INK, Curve, Figure, Level

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# matplotlib knows no `currentColor`, so it draws text and grid in colours that nothing else uses; they are replaced.
_INK, _FAINT, _GRID = "#010203", "#040506", "#070809"
_WIDTH_INCHES = 5.2  # 374 points: text of 10.5 points is 14 px on a desktop's card and over 9 px on a phone
_FONT_POINTS = 10.5
_POINTS_PER_INCH = 72
_STYLE = {
    "svg.hashsalt": "mixmerge",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": _FONT_POINTS,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _FAINT,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.unicode_minus": True,
    "xtick.color": _FAINT,
    "ytick.color": _FAINT,
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
    "axes.grid": True,
    "grid.color": _GRID,
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.handlelength": 1.7,
    "legend.columnspacing": 1.0,
    "legend.borderaxespad": 0.0,
}
_HIGH = 32  # letters of a label that stands upright beside the axis
_NAME_LENGTH = 20


def standalone(figure: Figure) -> str:
    """A file of its own: the colour of its text follows the reader's light or dark setting."""
    style = (
        "<style>svg{color:#1c1c1a;--faint:#6b6b66;--grid:#d9d7d0}"
        "@media(prefers-color-scheme:dark){svg{color:#ecebe6;--faint:#a3a29b;--grid:#3a3c40}}</style>"
    )
    text = _svg(figure)
    return text[: (start := text.index(">", text.index("<svg")) + 1)] + style + text[start:]


def inline(figure: Figure) -> str:
    """To stand inside a page, whose style gives `--faint`, `--grid` and the text's colour; ids are the figure's own."""
    text = _svg(figure)
    text = text[text.index("<svg") :]
    text = re.sub(r'(\bid="|href="#|url\(#)', lambda found: f"{found.group(1)}{figure.name}-", text)
    text = re.sub(r"#([0-9A-Fa-f]{6})\b", lambda found: f"var(--c-{found.group(1).lower()}, #{found.group(1)})", text)
    label = f"{figure.number} {figure.title}".strip().replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    text = re.sub(r'<svg ([^>]*?)width="[^"]*"', r"<svg \1", text, count=1)
    text = re.sub(r'<svg ([^>]*?)height="[^"]*"', r"<svg \1", text, count=1)
    return text.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1)


@lru_cache(maxsize=64)  # a page and a file show the same figure
def _svg(figure: Figure) -> str:
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure as Canvas

    with matplotlib.rc_context(_STYLE):
        height = _height(figure)
        canvas = Canvas(figsize=(_WIDTH_INCHES, height))
        FigureCanvasSVG(canvas)
        axes = canvas.add_subplot()
        rows = _legend(axes, figure)
        (_spots if figure.style == "spots" else _lines)(axes, figure)
        left, right = _margins(axes, figure)
        points = height * _POINTS_PER_INCH
        canvas.subplots_adjust(left, 38 / points, right, 1 - (8 + 17 * rows) / points)
        if figure.style != "spots":
            _level_labels(axes, figure)
        out = io.StringIO()
        canvas.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return _recolour(out.getvalue())


def _recolour(text: str) -> str:
    for sentinel, colour in ((_INK, "currentColor"), (_FAINT, "var(--faint, #777)"), (_GRID, "var(--grid, #ccc)")):
        text = text.replace(sentinel, colour)
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    return re.sub(
        r"font: ([\d.]+px) [^;\"]*", r"font: \1 system-ui, 'Segoe UI', 'Liberation Sans', Arial, sans-serif", text
    )


def _height(figure: Figure) -> float:
    if figure.style == "spots":
        return 1.0 + 0.25 * _legend_rows(figure) + 0.42 * len(figure.names)
    return 3.5 + 0.25 * _legend_rows(figure)


def _margins(axes: Axes, figure: Figure) -> tuple[float, float]:
    """Room for names or numbers left of the axes, and right of them for the labels of levels, in fractions of the
    width."""
    width = _WIDTH_INCHES * _POINTS_PER_INCH
    if figure.style == "spots":
        longest = max(len(_short(name)) for name in figure.names)
        return (14 + 5.6 * longest) / width, 1 - 14 / width
    labels = [_short(level.label) for level in figure.levels if level.label]
    ticks = axes.yaxis.get_major_formatter().format_ticks(list(axes.get_yticks()))
    left = 14 + 14 * (1 + axes.get_ylabel().count("\n")) + 6.4 * max(map(len, ticks), default=0)
    return left / width, 1 - (12 + max((5.6 * len(label) for label in labels), default=0)) / width


def _colour(name: str) -> str:
    return {INK: _INK, FAINT: _FAINT}.get(name, name)


def _short(name: str) -> str:
    half = _NAME_LENGTH // 2 - 1
    return name if len(name) <= _NAME_LENGTH else f"{name[:half]}…{name[-half:]}"


def _lines(axes: Axes, figure: Figure) -> None:
    from matplotlib.ticker import MaxNLocator

    for level in figure.levels:
        axes.axhline(level.at, color=_colour(level.colour), linestyle=level.dashes, linewidth=1.2, zorder=1.5)
        if figure.style == "points":
            axes.axvline(level.at, color=_colour(level.colour), linestyle=level.dashes, linewidth=1.2, zorder=1.5)
    step = _dodge(figure.curves) if figure.style == "lines" else 0.0
    for index, curve in enumerate(figure.curves):
        shift = (index - (len(figure.curves) - 1) / 2) * step
        _curve(axes, curve, [x + shift for x in curve.x])
    axes.set_xlabel(figure.x_label)
    axes.set_ylabel(textwrap.fill(figure.y_label, _HIGH))
    places = sorted({x for curve in figure.curves for x in curve.x})
    if figure.style == "lines" and len(places) <= 9:
        axes.set_xticks(places, [f"{x:g}" for x in places])
    axes.tick_params(length=3)
    axes.grid(visible=figure.style == "points", axis="x")
    axes.margins(y=0.08)
    axes.yaxis.set_major_locator(MaxNLocator(6))
    axes.ticklabel_format(axis="y", useOffset=False)


def _dodge(curves: Sequence[Curve]) -> float:
    """How far neighbouring curves stand apart, so that error bars at one x do not cover each other."""
    places = sorted({x for curve in curves if any(curve.errors) for x in curve.x})
    gaps = [after - before for before, after in pairwise(places)]
    return min(gaps) * 0.08 if gaps else 0.0


def _curve(axes: Axes, curve: Curve, x: Sequence[float]) -> None:
    colour = _colour(curve.colour)
    if any(curve.errors):
        bars = [error or 0.0 for error in curve.errors]
        axes.errorbar(x, curve.y, bars, fmt="none", ecolor=colour, elinewidth=1.1, alpha=0.55, zorder=2)
    if any(curve.x_errors):
        bars = [error or 0.0 for error in curve.x_errors]
        axes.errorbar(x, curve.y, xerr=bars, fmt="none", ecolor=colour, elinewidth=1.1, alpha=0.3, zorder=2)
    style: dict[str, Any] = {"marker": curve.marker or None, "markersize": 5, "linestyle": curve.dashes}
    axes.plot(x, curve.y, color=colour, linewidth=curve.width, zorder=3, **style)
    if curve.star is not None:
        axes.plot(
            x[curve.star], curve.y[curve.star], marker="*", markersize=17, color=colour, markeredgecolor=_INK, zorder=5
        )


def _spots(axes: Axes, figure: Figure) -> None:
    for level in figure.levels:
        axes.axvline(level.at, color=_colour(level.colour), linestyle=level.dashes, linewidth=1.2, zorder=1.5)
    for curve in figure.curves:
        colour = _colour(curve.colour)
        bars: Any = [error or 0.0 for error in curve.errors] if any(curve.errors) else None
        if curve.spans:
            ends = list(zip(curve.x, curve.spans, strict=True))
            bars = [[x - low for x, (low, _) in ends], [high - x for x, (_, high) in ends]]
        if bars:
            axes.errorbar(curve.x, curve.y, xerr=bars, fmt="none", ecolor=colour, elinewidth=1.3, alpha=0.6, zorder=2)
        axes.plot(curve.x, curve.y, linestyle="", marker=curve.marker, markersize=7, color=colour, zorder=3)
    axes.set_yticks(range(len(figure.names)), [_short(name) for name in figure.names])
    axes.set_ylim(len(figure.names) - 0.5, -0.5)
    axes.set_xlabel(figure.x_label)
    axes.tick_params(length=0, axis="y")
    axes.grid(visible=True, axis="x")
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)
    low, high = axes.get_xlim()
    marks = [level.at for level in figure.levels]
    room = 0.06 * (max(marks) - min(marks)) if marks else 0.0
    axes.set_xlim(min([low, *(at - room for at in marks)]), max([high, *(at + room for at in marks)]))


def _level_labels(axes: Axes, figure: Figure) -> None:
    """Names of levels right of the axes, pushed apart where two levels are close."""
    levels = [level for level in figure.levels if level.label]
    low, high = axes.get_ylim()
    spot = axes.get_position().height * _height(figure) * _POINTS_PER_INCH
    gap = (high - low) * (_FONT_POINTS + 1.5) / spot
    for level, place in zip(*_apart(levels, gap, low, high), strict=True):
        axes.annotate(_short(level.label), (1.015, place), xycoords=("axes fraction", "data"), va="center")


def _apart(levels: Sequence[Level], gap: float, low: float, high: float) -> tuple[list[Level], list[float]]:
    """Levels by height with places at least `gap` apart and inside the axes where they fit."""
    ordered = sorted(levels, key=lambda level: level.at)
    places: list[float] = []
    for level in ordered:
        places.append(max(level.at, places[-1] + gap) if places else max(level.at, low))
    for index in reversed(range(len(places))):
        ceiling = high if index == len(places) - 1 else places[index + 1] - gap
        places[index] = min(places[index], ceiling)
    return ordered, places


def _legend_rows(figure: Figure) -> int:
    return -(-len(_entries(figure)) // _legend_columns(figure)) if _entries(figure) else 0


def _legend_columns(figure: Figure) -> int:
    longest = max((len(curve.label) for curve in _entries(figure)), default=1)
    fitting = max(1, min(4, int(_WIDTH_INCHES * _POINTS_PER_INCH / (5.2 * longest + 32))))
    rows = -(-len(_entries(figure)) // fitting) or 1
    return -(-len(_entries(figure)) // rows) or 1


def _entries(figure: Figure) -> list[Curve]:
    return list(figure.curves) if len(figure.curves) > 1 else []


def _legend(axes: Axes, figure: Figure) -> int:
    """Put the legend above the axes; returns its rows."""
    from matplotlib.lines import Line2D

    handles = [
        Line2D(
            [],
            [],
            color=_colour(curve.colour),
            linestyle="" if figure.style == "spots" else curve.dashes,
            marker=curve.marker or None,
            markersize=6,
            linewidth=curve.width,
            label=curve.label,
        )
        for curve in _entries(figure)
    ]
    if handles:
        canvas = axes.get_figure()
        assert canvas is not None
        canvas.legend(handles=handles, loc="upper left", bbox_to_anchor=(0.01, 0.995), ncols=_legend_columns(figure))
    return _legend_rows(figure)
