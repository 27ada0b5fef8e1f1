"""Small multiples of all line windows: Plotly, made from a Look; no Streamlit."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import plotly.graph_objects as go

from app.charts import _axis, _cover, _figure, _flux_traces, _hatch, _moved, _rgba
from app.lines_shown import source
from app.shown import Look
from app.styles import GREY, style
from core.metrics.lines import Line
from core.report import at_velocity

ACROSS = 6  #: panels in a row
ROW = 176  #: pixels of height for a row
_MEASURING = ("", float("nan"), False)
_UNASKED = ("", float("nan"), True)
_ROOM = 0.25  # of the windows' width, left free on either side


def _title(line: Line, said: tuple[str, float, bool] | None) -> str:
    """Name, and beneath it who says that the line is data or prior, and whether something in it is flagged."""
    if said is None:
        return f"<b>{line.name}</b><br><span style='font-size:10px'>too little of it measured</span>"
    method, share, flagged = said
    if said is _UNASKED:
        return f"<b>{line.name}</b><br><span style='font-size:10px'>no answer yet</span>"
    if said is _MEASURING:
        return f"<b>{line.name}</b><br><span style='font-size:10px'>being measured ...</span>"
    words = source(share) if method else "data or prior: not known"
    flag = " <b>⚑ flag</b>" if flagged else ""
    return f"<b>{line.name}</b>{flag}<br><span style='font-size:10px'>{words}</span>"


def _span(look: Look, part: slice) -> tuple[float, float]:
    """A y range that holds every answer and the truth whole, and what was measured but for its outliers."""
    live = look.spectra.measured[0][part]
    shown = [answer.flux[part] for answer in look.answers if style(answer.method).colour != GREY]
    shown += [] if look.star.truth is None else [look.star.truth[part]]
    shown += [np.percentile(look.spectra.flux[0][part][live], [3, 97])] if live.any() else []
    low, high = np.min(np.concatenate(shown)), np.max(np.concatenate(shown))
    return float(low - 0.06 * (high - low)), float(high + 0.06 * (high - low))


def _windows(line: Line, move: Any, n: str) -> list[dict[str, Any]]:
    """The band, shaded; the side bands as bars at the foot; the centre dotted."""
    place = {"xref": f"x{n}", "yref": f"y{n} domain", "layer": "below"}
    band, blue, red = (move(w).tolist() for w in (line.band, line.blue, line.red))
    out = [{"type": "rect", "x0": band[0], "x1": band[1], "y0": 0, "y1": 1, "fillcolor": _rgba(GREY, 0.13),
            "line": {"width": 0}, **place}]
    out += [{"type": "rect", "x0": low, "x1": high, "y0": 0, "y1": 0.035, "fillcolor": _rgba(GREY, 0.85),
             "line": {"width": 0}, **place} for low, high in (blue, red)]
    centre = float(move([line.centre])[0])
    return [*out, {"type": "line", "x0": centre, "x1": centre, "y0": 0, "y1": 1,
                   "line": {"color": _rgba(GREY, 0.9), "width": 1, "dash": "dot"}, **place}]


def multiples(look: Look, lines: Sequence[Line], said: Mapping[str, tuple[str, float, bool]] | None,
              air: bool = False, dark: bool = False, rest: bool = False, wanted: str = "") -> go.Figure:
    """A panel for each line: what was measured, the truth, each method, the band that is integrated over.

    Args:
        lines: at rest; said: by line, the method that speaks for it, its share of the prior, and whether it is flagged;
            None while that is being measured.
        air, rest: wavelengths in air, in the star's own frame; dark: ink for a dark page.
        wanted: name of the line one came for, whose panel has a frame.
    """
    ink = "#FAFAFA" if dark else "#000000"
    x, title, velocity = _axis(look, air, rest)
    wave, rows = look.spectra.wave, math.ceil(len(lines) / ACROSS)
    height = rows * ROW + 70
    gap, over = 0.028, 62 / (height - 70)  # room beside a panel, and above it for its title
    width, tall = (1 - gap * (ACROSS - 1)) / ACROSS, 1 / rows - over

    move = partial(_moved, look, x)  # observed vacuum wavelengths as the axis has them
    traces: list[dict[str, Any]] = []
    axes: dict[str, Any] = {}
    notes, marks = [], []
    unsaid = _MEASURING if said is None else None
    if not look.answers:
        said, unsaid = None, _UNASKED
    for number, still in enumerate(lines):
        line = at_velocity(still, velocity)
        ends = min(line.blue[0], line.band[0]), max(line.red[1], line.band[1])
        free = _ROOM * (ends[1] - ends[0]) / 2
        first, last = np.searchsorted(wave, (ends[0] - free, ends[1] + free))
        part = slice(int(first), int(last))
        n, row, column = "" if number == 0 else str(number + 1), number // ACROSS, number % ACROSS
        left, top = column * (width + gap), 1 - row * (tall + over) - over
        if last - first < 3:  # moved out of the spectrum by the star's velocity
            continue
        mine = _flux_traces(look, x, part, ink, xaxis=f"x{n}", yaxis=f"y{n}")
        for trace in mine:
            trace["showlegend"] = bool(trace["showlegend"] and number == 0)
        cover = len(lines) + number + 1
        hatch = _hatch(look, x, part, ink, xaxis=f"x{n}", yaxis=f"y{cover}", showlegend=False)
        traces += [*mine, hatch]
        axes |= {
            f"xaxis{n}": {"domain": [left, left + width], "anchor": f"y{n}", "nticks": 4, "tickformat": "d",
                          "range": [float(x[part][0]), float(x[part][-1])]},
            f"yaxis{n}": {"domain": [top - tall, top], "anchor": f"x{n}", "nticks": 4,
                          "range": list(_span(look, part))},
            f"yaxis{cover}": _cover(f"y{n}") | {"anchor": f"x{n}"}}
        notes.append({"x": 0, "y": 1, "xref": f"x{n} domain", "yref": f"y{n} domain", "showarrow": False,
                      "text": _title(line, unsaid if said is None else said.get(line.name)), "align": "left",
                      "xanchor": "left", "yanchor": "bottom", "font": {"size": 12, "color": ink}})
        marks += _windows(line, move, n)
        if line.name == wanted:
            notes[-1]["text"] = f"▸ {notes[-1]['text']}"
            marks.append({"type": "rect", "xref": f"x{n} domain", "yref": f"y{n} domain", "x0": 0, "x1": 1, "y0": 0,
                          "y1": 1, "line": {"color": ink, "width": 2}})
    below = {"xref": "paper", "yref": "paper", "showarrow": False, "font": {"size": 12, "color": ink}}
    notes += [{"x": 0.5, "y": 0, "text": title, "yanchor": "top", "yshift": -20, **below},
              {"x": 0, "y": 0.5, "text": "Flux / continuum", "textangle": -90, "xanchor": "right", "xshift": -34,
               **below}]
    return _figure(traces, axes, look, height, ink, annotations=notes, shapes=marks)

