"""Corner plot and Kiel diagram of a star's labels: Plotly; no Streamlit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import plotly.graph_objects as go

from app.charts import _rgba
from app.labels_shown import NAMES, Labels, called
from app.styles import GREY, style
from core import report
from core.spectrum import Array

HEIGHT = 520  #: of both figures
_BINS, _MOST = 24, 400  # of a histogram; points of a cloud
_REACH = 0.01  # of draws at either end that the axes leave out


def _look_of(method: str) -> tuple[str, str, str]:
    """Colour, dash and marker; closed form is the mixture's own colour, dotted and open."""
    if method == report.CLOSED:
        return style("mixture").colour, "dot", "diamond-open"
    its = style(method)
    return its.colour, its.dash, its.marker


def _axis(ink: str, title: str = "", numbers: bool = True, **more: Any) -> dict[str, Any]:
    return {"title": {"text": title, "font": {"size": 11, "color": ink}, "standoff": 3}, "showticklabels": numbers,
            "gridcolor": _rgba(GREY, 0.18), "zeroline": False, "showline": True, "mirror": True, "nticks": 4,
            "linecolor": _rgba(GREY, 0.7), "ticks": "outside", "ticklen": 3, "tickcolor": _rgba(GREY, 0.7),
            "tickfont": {"size": 10, "color": ink}, **more}


def _layout(ink: str, axes: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"height": HEIGHT, "margin": {"l": 58, "r": 10, "t": 30, "b": 44, "pad": 0}, "hovermode": "closest",
            "font": {"size": 12, "color": ink}, "paper_bgcolor": "rgba(0,0,0,0)", "plot_bgcolor": "rgba(0,0,0,0)",
            "showlegend": True, "legend": {"font": {"size": 12, "color": ink}, "bgcolor": "rgba(0,0,0,0)",
                                           "itemsizing": "constant"}, **axes, **more}


def _span(draws: Mapping[str, Array], known: Array, label: int) -> tuple[float, float]:
    """An axis that holds all but a per cent of every method's draws, and the truth."""
    ends = [np.nanquantile(d[:, label], [_REACH, 1 - _REACH]) for d in draws.values()
            if np.isfinite(d[:, label]).any()]
    ends += [np.array([known[label]])] if np.isfinite(known[label]) else []
    low, high = (float(np.min(np.concatenate(ends))), float(np.max(np.concatenate(ends)))) if ends else (0.0, 1.0)
    free = 0.06 * max(high - low, 1e-3)
    return low - free, high + free


def _truth(known: Array, i: int, j: int, ink: str, place: Mapping[str, str]) -> list[dict[str, Any]]:
    """Dashed lines at what the file says of labels j (across) and i (up); none up on the diagonal."""
    x, y = place["xaxis"].replace("xaxis", "x"), place["yaxis"]
    line = {"color": ink, "width": 1, "dash": "dash"}
    out = []
    if np.isfinite(known[j]):
        out.append({"type": "line", "xref": x, "yref": f"{y} domain", "x0": known[j], "x1": known[j], "y0": 0, "y1": 1,
                    "line": line})
    if i != j and np.isfinite(known[i]):
        out.append({"type": "line", "xref": f"{x} domain", "yref": y, "x0": 0, "x1": 1, "y0": known[i], "y1": known[i],
                    "line": line})
    return out


def corner(found: Labels, known: Array, dark: bool = False) -> go.Figure:
    """Every pair of labels, a cloud for each method, and each label's own distribution on the diagonal.

    Args:
        known: (5,) what the star's file says, NaN where nothing: dashed; dark: ink for a dark page.
    """
    ink, names = "#FAFAFA" if dark else "#000000", list(NAMES.values())
    count, gap = len(names), 0.018
    size = (1 - gap * (count - 1)) / count
    spans = [_span(found.draws, known, k) for k in range(count)]
    traces: list[dict[str, Any]] = []
    axes: dict[str, Any] = {}
    marks: list[dict[str, Any]] = []
    number = 0
    for i in range(count):
        for j in range(i + 1):
            number += 1
            n = "" if number == 1 else str(number)
            place = {"xaxis": f"x{n}", "yaxis": f"y{n}"}
            left, low = j * (size + gap), (count - 1 - i) * (size + gap)
            axes[f"xaxis{n}"] = _axis(ink, names[j] if i == count - 1 else "", i == count - 1, range=list(spans[j]),
                                      domain=[left, left + size], anchor=f"y{n}")
            side = {"range": list(spans[i])} if i != j else {"rangemode": "tozero"}
            axes[f"yaxis{n}"] = _axis(ink, names[i] if j == 0 and i > 0 else "", j == 0 and i > 0, anchor=f"x{n}",
                                      domain=[low, low + size], **side)
            # the many of the closed form below the few of a sampler
            for method, drawn in sorted(found.draws.items(), key=lambda item: -len(item[1])):
                traces.append(_panel(method, drawn, i, j, spans[j], number == 1) | place)
            marks += _truth(known, i, j, ink, place)
    legend = {"x": 1, "y": 1, "xanchor": "right", "yanchor": "top"}
    layout = _layout(ink, axes, shapes=marks)
    layout["legend"] |= legend
    return go.Figure({"data": traces, "layout": layout})


def _panel(method: str, drawn: Array, i: int, j: int, span: tuple[float, float], first: bool) -> dict[str, Any]:
    """A method's cloud of labels j and i, or where they are one its histogram, of area 1."""
    colour, dash, marker = _look_of(method)
    same = {"type": "scatter", "name": called(method), "legendgroup": method, "showlegend": first}
    if i == j:
        height, edges = np.histogram(drawn[np.isfinite(drawn[:, j]), j], _BINS, span, density=True)
        return same | {"mode": "lines", "x": np.repeat(edges, 2)[1:-1], "y": np.repeat(height, 2), "hoverinfo": "skip",
                       "line": {"color": colour, "width": 1.4, "dash": dash}}
    some = drawn[:_MOST]
    return same | {"mode": "markers", "x": some[:, j], "y": some[:, i], "hovertemplate": "%{x:.4g}, %{y:.3g}",
                   "marker": {"color": colour, "symbol": marker, "size": 3 if len(drawn) > 100 else 6,
                              "opacity": 0.25 if len(drawn) > 100 else 0.9}}


def kiel(found: Labels, training: Array, known: Array, dark: bool = False) -> go.Figure:
    """The star among the training stars: effective temperature against surface gravity, coloured by [Fe/H].

    Args:
        training: (N, 3) Teff, log g, [Fe/H]; known: (5,) what the star's file says; dark: ink for a dark page.
    """
    ink = "#FAFAFA" if dark else "#000000"
    traces: list[dict[str, Any]] = [{
        "type": "scatter", "mode": "markers", "name": "training stars", "x": training[:, 0], "y": training[:, 1],
        "hovertemplate": "%{x:.0f} K, %{y:.2f}, [Fe/H] %{marker.color:.2f}",
        "marker": {"size": 3, "color": training[:, 2], "colorscale": "Greys", "cmin": -2.5, "cmax": 1.2,
                   "reversescale": dark, "opacity": 0.55,
                   "colorbar": {"title": {"text": "[Fe/H] [dex]", "side": "right", "font": {"size": 11, "color": ink}},
                                "thickness": 10, "len": 0.6, "tickfont": {"size": 10, "color": ink}}}}]
    table = found.table.set_index(["method", "quantity"])
    for method in found.draws:
        colour, _, marker = _look_of(method)
        x, y = (table.loc[(method, name)] for name in ("Teff", "logg"))
        bar = {"type": "data", "symmetric": False, "thickness": 1.6, "width": 0, "color": colour}
        traces.append({"type": "scatter", "mode": "markers", "name": called(method), "x": [x["value"]],
                       "y": [y["value"]], "hovertemplate": "%{x:.0f} K, %{y:.2f}",
                       "error_x": bar | {"array": [x["plus"]], "arrayminus": [x["minus"]]},
                       "error_y": bar | {"array": [y["plus"]], "arrayminus": [y["minus"]]},
                       "marker": {"color": colour, "symbol": marker, "size": 11,
                                  "line": {"width": 1.5, "color": colour}}})
    if np.isfinite(known[:2]).all():
        traces.append({"type": "scatter", "mode": "markers", "name": "truth", "x": [known[0]], "y": [known[1]],
                       "marker": {"symbol": "x-thin", "size": 14, "line": {"width": 2.5, "color": ink}},
                       "hovertemplate": "%{x:.0f} K, %{y:.2f}"})
    axes = {"xaxis": _axis(ink, "Effective temperature [K]", autorange="reversed", tickformat="d"),
            "yaxis": _axis(ink, "Surface gravity log g [dex]", autorange="reversed")}
    layout = _layout(ink, axes)
    layout["legend"] |= {"orientation": "h", "x": 0, "y": 1.01, "yanchor": "bottom"}
    return go.Figure({"data": traces, "layout": layout})
