"""The line windows of page Star, with what each method measures in them: Plotly, made from a Look."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from app.charts import (
    MARGIN,
    Trace,
    _axis,
    _cover,
    _figure,
    _flux_traces,
    _hatch,
    _limits,
    _line,
    _moved,
    _rgba,
    kept,
)
from app.shown import Look
from app.styles import GREY, WINDOWS, shifted, style
from app.told import MEASURED
from core.data.grid import doppler
from core.spectrum import Array

CLICK = "click: page Lines"  #: name of the traces that a click finds
MOST = 4  #: methods whose numbers have room above the panels
_ROW = 13  # pixels of height of one method's numbers
_HEAD = "  EW [Å]  depth"
_NUMBERS = 10  # their type's size


def _number(row: pd.Series) -> str:
    """A value and the larger of its two errors, in as many digits as the error wants."""
    error = float(max(row["minus"], row["plus"]))
    if not np.isfinite(error):
        return f"{row['value']:.2f} ± ?"
    digits = int(np.clip(1 - np.floor(np.log10(max(error, 1e-3))), 1, 2))
    return f"{row['value']:.{digits}f}±{error:.{digits}f}"


def words(table: pd.DataFrame, method: str, line: str) -> str:
    """EW, depth and the residual of the EW in sigma, of one method in one line; coloured by nothing but itself.

    Args:
        table: `app.told.lines`.
    """
    rows = table[(table["method"] == method) & (table["line"] == line)].set_index("quantity")
    if "EW" not in rows.index:
        return "too little measured"
    far = rows.loc["EW", "residual"]
    said = f"{_number(rows.loc['EW'])}  {_number(rows.loc['depth'])}"
    gap = f"  {far:+.1f}σ" if np.isfinite(far) else ""
    return said + (f"<b>{gap}</b>" if np.isfinite(far) and abs(far) > 2 else gap)


def height(look: Look, panel: int = 178) -> int:
    """Pixels that `windows` takes: a panel, and a row for each method's numbers."""
    return panel + _ROW * min(len(look.answers), MOST)


def _clickable(line: str, x: Array, y: Array, **place: Any) -> Trace:
    """Unseen markers all along a panel, so that a click anywhere in it names its line.

    Plotly selects no point of a bare line, and only of that trace which the pointer finds first: of those of one reach
    (a line's is 3 pixels, a larger marker's is its own) the last one drawn.
    """
    unseen = {"marker": {"opacity": 0}}
    return _line(x, y, name=CLICK, customdata=[line] * len(x), selected=unseen, unselected=unseen, **place) | {
        "mode": "markers", "marker": {"size": 2, "opacity": 0}, "hoverinfo": "none", "hovertemplate": None}


@kept
def windows(look: Look, air: bool = False, dark: bool = False, rest: bool = False,
            table: pd.DataFrame | None = None) -> go.Figure:
    """The lines of WINDOWS, a panel each, with dotted marks where the star's velocity puts them.

    Args:
        air: wavelengths in air; rest: in the star's own frame; dark: ink for a dark page.
        table: what each method measures (`app.told.lines`), to stand above the panels; None: without.
    """
    ink, tall = "#FAFAFA" if dark else "#000000", height(look)
    shown = [] if table is None else look.answers[:MOST]
    x, title, velocity = _axis(look, air, rest)
    known = "truth" if look.star.truth is not None else "own" if look.own is not None else ""
    count, gap = len(WINDOWS), 0.038
    width = (1 - gap * (count - 1)) / count
    traces, names, marks = [], [], []
    axes: dict[str, Any] = {}
    small: dict[str, Any] = {"showarrow": False, "yanchor": "bottom", "font": {"size": _NUMBERS, "color": ink}}
    for number, (window, ends) in enumerate(zip(WINDOWS, shifted(velocity), strict=True)):
        first, last = np.searchsorted(look.spectra.wave, ends)
        part, inside = slice(int(first), int(last)), np.zeros(len(x), dtype=bool)
        inside[part] = True
        n, left = "" if number == 0 else str(number + 1), number * (width + gap)
        place = {"xaxis": f"x{n}", "showlegend": False}
        traces += [*_flux_traces(look, x, part, ink, yaxis=f"y{n}", **place),
                   _hatch(look, x, part, ink, yaxis=f"y{count + number + 1}", **place),
                   _clickable(MEASURED[window.name], x[part], look.spectra.flux[0][part], yaxis=f"y{n}", **place)]
        axes |= {
            f"xaxis{n}": {"title": title if number == count // 2 else "", "domain": [left, left + width],
                          "anchor": f"y{n}", "range": [float(x[part][0]), float(x[part][-1])], "nticks": 4,
                          "tickformat": "d"},
            f"yaxis{n}": {"title": "Flux / continuum" if number == 0 else "", "anchor": f"x{n}", "nticks": 6,
                          "range": list(_limits(look, inside, 1.0))},
            f"yaxis{count + number + 1}": _cover(f"y{n}") | {"anchor": f"x{n}"},
        }
        where = {"xref": f"x{n} domain", "yref": f"y{n} domain", "x": 0.5, "y": 1}
        line = MEASURED[window.name]
        head = f"<b>{line if shown and line.startswith('Ca II') else window.name}</b>"  # the one that is measured
        names.append({**small, **where, "yshift": _ROW * len(shown), "font": {"size": 11, "color": ink},
                      "text": head + (_HEAD + (f"  −{known}" if known else "") if shown else "")})
        names += [{**small, **where, "yshift": _ROW * (len(shown) - 1 - row),
                   "text": f"<span style='color:{style(answer.method).colour}'>■</span> "
                           f"{words(table, answer.method, line)}"}
                  for row, answer in enumerate(shown) if table is not None]
        centres = _moved(look, x, doppler(window.centres, velocity))
        marks += [{"type": "line", "xref": f"x{n}", "yref": f"y{n} domain", "x0": float(at), "x1": float(at),
                   "y0": 0, "y1": 1, "line": {"color": _rgba(GREY, 0.9), "width": 1, "dash": "dot"}, "layer": "below"}
                  for at in centres]
    names += [{**small, "xref": "paper", "yref": "paper", "x": 0, "y": 1, "xanchor": "right", "xshift": -2,
               "yshift": _ROW * (len(shown) - 1 - row), "text": style(answer.method).name.split("-")[0]}
              for row, answer in enumerate(shown)]
    return _figure(traces, axes, look, tall, ink, annotations=names, shapes=marks,
                   margin=MARGIN | {"t": 18 + _ROW * len(shown)})
