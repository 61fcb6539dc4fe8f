"""What a figure is made of, without a word about how it is drawn."""

from __future__ import annotations

from dataclasses import dataclass

# Okabe and Ito's colours, which most colour-blind readers can tell apart; yellow is left out, it vanishes on white.
BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"
INK, FAINT = "ink", "faint"
METHOD_COLOURS = (BLUE, VERMILION, GREEN, PURPLE, SKY, ORANGE)
EXPERT_COLOURS = (ORANGE, SKY, PURPLE, GREEN, VERMILION, BLUE)
MARKERS = ("o", "s", "^", "D", "v", "P")
DASHES = ("-", "--", ":")


@dataclass(frozen=True)
class Curve:
    """One line or set of points. `errors` are standard errors in the unit of `y` (of x in `spots` figures); `star` is
    the index of the winner; `spans` are intervals (low, high) along x, in place of errors."""

    label: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    errors: tuple[float | None, ...] = ()
    colour: str = INK
    marker: str = ""
    dashes: str = "-"
    star: int | None = None
    width: float = 1.8
    x_errors: tuple[float | None, ...] = ()
    spans: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True)
class Level:
    """A horizontal line (in `spots` figures a vertical one) with its label at the end."""

    label: str
    at: float
    colour: str = INK
    dashes: str = "-"


@dataclass(frozen=True)
class Figure:
    """One picture. `style` is "lines", "points" (x is no weight or layer), or "spots": one row per name of `names`,
    values along x.

    name            the file's stem
    number          "Fig. 2" where the paper has that figure
    columns, rows   the numbers behind it
    """

    name: str
    title: str
    caption: str
    x_label: str
    y_label: str
    curves: tuple[Curve, ...]
    columns: tuple[str, ...]
    rows: tuple[tuple[str | float | int | None, ...], ...]
    levels: tuple[Level, ...] = ()
    names: tuple[str, ...] = ()
    style: str = "lines"
    number: str = ""
