"""What a figure consists of, whatever draws it: panels of points, bands, bars and lines, which both coats render."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import pandas as pd

from core.spectrum import Array

BLACK = "#000000"  #: the ink: black on paper, light on a dark screen


def array(values: npt.ArrayLike) -> Array:
    """As floats."""
    return np.asarray(values, dtype=np.float64)


@dataclass(frozen=True, eq=False)
class Points:
    """A method's points: x, y (N,), error (2, N) below and above; joined by its dashes, as markers, as a cloud.

    Args:
        every: mark every so manieth point alone; hover: a text for each point, for the screen; weight: of the line
            on paper [points]; legend: is it named there?
        keys: whose stars each point stands for, as `point` writes it, for who clicks it.
    """

    method: str
    x: Array
    y: Array
    error: Array | None = None
    real: bool = False
    line: bool = True
    mark: bool = True
    cloud: bool = False
    every: int = 1
    hover: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    weight: float = 0.9
    legend: bool = True


@dataclass(frozen=True, eq=False)
class Band:
    """The area between low and high (N,) over x (N,): where something perfect lies, or may lie; nothing where NaN.

    Args:
        method: whose colour it has; grey without one.
    """

    x: Array
    low: Array
    high: Array
    label: str = ""
    method: str = ""


@dataclass(frozen=True, eq=False)
class Spans:
    """Stretches of x, from low to high (N,), over a panel's whole height, hatched: where nothing was measured."""

    low: Array
    high: Array
    label: str = ""


@dataclass(frozen=True, eq=False)
class Rule:
    """A line of reference, in ink or in another colour that is no method's; weight: on paper [points]."""

    x: Array
    y: Array
    label: str = ""
    dash: str = "solid"
    colour: str = BLACK
    weight: float = 0.6


@dataclass(frozen=True, eq=False)
class Bars:
    """A histogram in a method's colour: edges (N + 1,), height (N,), keys as of Points."""

    method: str
    edges: Array
    height: Array
    keys: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Panel:
    """One pair of axes. Texts are plain, `T_eff` included: a coat sets them in its own way.

    Args:
        note: in the upper left corner; ticks: of x, all of them, as for S/N, and y_ticks of y; log_y: needs a y_range.
        x_text, y_text: write the numbers.
    """

    x_label: str = ""
    y_label: str = ""
    title: str = ""
    note: str = ""
    points: tuple[Points, ...] = ()
    bands: tuple[Band, ...] = ()
    rules: tuple[Rule, ...] = ()
    bars: tuple[Bars, ...] = ()
    spans: tuple[Spans, ...] = ()
    x_range: tuple[float, float] | None = None
    y_range: tuple[float, float] | None = None
    ticks: tuple[float, ...] = ()
    y_ticks: tuple[float, ...] = ()
    log_x: bool = False
    log_y: bool = False
    x_text: bool = True
    y_text: bool = True


@dataclass(frozen=True, eq=False)
class Sheet:
    """Panels in rows, with the rows' relative heights, and the height of the whole without legend [mm]."""

    rows: tuple[tuple[Panel | None, ...], ...]
    heights: tuple[float, ...]
    height: float
    samples: tuple[str, ...] = field(default=("simulated",))
    legend: bool = True

    @property
    def panels(self) -> list[Panel]:
        """All of them, row by row."""
        return [panel for row in self.rows for panel in row if panel is not None]

    @property
    def methods(self) -> list[str]:
        """Those drawn, each once, in the order of their first appearance."""
        found = [[q.method for q in p.points] + [q.method for q in p.bars] for p in self.panels]
        return list(dict.fromkeys(method for some in found for method in some))


def point(whose: str, method: str, *numbers: float) -> str:
    """What a point or a bar stands for: sample, method, S/N and the ends of a bin; of the audit experiment, method and
    the ends of its bin of strength."""
    return "|".join([str(whose), str(method), *(f"{float(number):g}" for number in numbers)])


def grid(panels: Iterable[tuple[Panel, ...]], across: int, shares: tuple[float, ...], height: float,
         samples: tuple[str, ...] = ("simulated",), legend: bool = True) -> Sheet:
    """Columns of panels one over the other, `across` beside each other, then the next ones below.

    Numbers and labels are written at the left and under the lowest panel of a column only.

    Args:
        panels: one tuple per column, upper panel first; across: at most; shares: heights of a column's panels.
        height: of one row of columns [mm].
    """
    columns = list(panels)
    across = min(across, len(columns))
    rows: list[tuple[Panel | None, ...]] = []
    for start in range(0, len(columns), across):
        part = columns[start : start + across]
        for i in range(len(shares)):
            row: list[Panel | None] = []
            for j, column in enumerate(part):
                panel, lowest = column[i], i == len(shares) - 1
                below = start + across + j < len(columns) or not lowest
                panel = replace(panel, x_label="" if below else panel.x_label, x_text=lowest)
                row.append(replace(panel, y_label="" if j else panel.y_label, y_text=j == 0))
            rows.append((*row, *[None] * (across - len(part))))
    deep = -(-len(columns) // across)
    return Sheet(tuple(rows), shares * deep, height * deep, samples, legend)


def dodged(x: Array, place: int, of: int) -> Array:
    """x moved a few per cent aside by the method's place among all, so that error bars do not hide each other."""
    return x * np.exp(0.028 * min(1.0, 6 / max(of, 1)) * (place - (of - 1) / 2))


def flat(x: tuple[float, float], y: float) -> Rule:
    """A horizontal line."""
    return Rule(array(x), np.full(2, y))


def both(error: npt.ArrayLike) -> Array:
    """One error as that below and that above, (2, N)."""
    return np.tile(array(error), (2, 1))


def log_ticks(span: tuple[float, float]) -> list[float]:
    """1, 2 and 5 of each decade inside a range, 1 alone where there are many."""
    low, high = np.log10(span)
    firsts = (1, 2, 5) if high - low < 2.5 else (1,)
    every = [float(f"{k}e{e}") for e in range(int(np.floor(low)), int(np.ceil(high)) + 1) for k in firsts]
    return [tick for tick in every if span[0] <= tick <= span[1]]


def above(values: npt.ArrayLike) -> tuple[float, float]:
    """A logarithmic range that holds all values, which are positive."""
    every = array(values)
    return float(np.nanmin(every) / 1.25), float(np.nanmax(every) * 1.25)


def snr_axis(table: pd.DataFrame) -> tuple[tuple[float, ...], tuple[float, float]]:
    """Ticks at the S/N of the table, and a range with room for the dodged."""
    at = np.unique(table["snr"].to_numpy(np.float64))
    return tuple(float(s) for s in at), (float(at[0] / 1.18), float(at[-1] * 1.18))


def around(values: Iterable[npt.ArrayLike], zero: bool = False, margin: float = 0.07) -> tuple[float, float]:
    """A range that holds all finite values, and zero if asked."""
    every = np.concatenate([np.ravel(array(v)) for v in values] + ([np.zeros(1)] if zero else []))
    every = every[np.isfinite(every)]
    if not every.size:
        return -1.0, 1.0
    low, high = float(every.min()), float(every.max())
    room = margin * ((high - low) or abs(high) or 1.0)
    return low - room, high + room
