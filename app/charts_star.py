"""The spectrum of page Star over its trust and its residuals: Plotly, made from a Look; no Streamlit, no files."""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go

from app import charts_windows, told
from app.charts import Trace, _axis, _cover, _figure, _flux_traces, _hatch, _limits, _line, _moved, _rgba, kept
from app.shown import RED_ARM, Look
from app.styles import GREY, style
from core.data.grid import doppler
from core.metrics.lines import LINES
from core.spectrum import Array

HEIGHT = 575  #: of spectrum and line windows together [pixels], on a screen 720 high
CLIP = 8.0  #: sigma; residuals beyond are marked at the panel's edge and counted
_RESIDUAL = 0.25  # share of the height that the residuals have
_STRIP = 0.945  # of the height, from which the strip of lines reaches up
_STAYS = {"marker": {"opacity": 1}}  # Plotly pales what was not clicked
BIN = 10  #: pixels averaged in the trust panel: a line's core, and few draws tell a variance only together


def _residual_traces(look: Look, x: Array, reach: float) -> list[Trace]:
    """Each method's residual as a thin neutral line; beyond 2 sigma a marker in its colour, beyond `reach` at the edge.

    At the edge the marker is an arrow that points to where the point is.
    """
    out = []
    for answer in look.answers:
        its, residual = style(answer.method), answer.residual
        same: dict[str, Any] = {"name": its.name, "legendgroup": answer.method, "showlegend": False, "yaxis": "y2"}
        out.append(_line(x, residual, "%{y:+.2f} σ", line={"color": _rgba(GREY, 0.6), "width": 0.5}, **same))
        far, beyond = (np.abs(residual) > 2) & (np.abs(residual) <= reach), np.abs(residual) > reach
        marker = {"color": its.colour, "size": 4, "symbol": its.marker, "line": {"width": 1, "color": its.colour}}
        out.append(_line(x[far], residual[far], **same, unselected=_STAYS)
                   | {"mode": "markers", "marker": marker, "hoverinfo": "skip"})
        arrows = np.where(residual[beyond] > 0, "triangle-up", "triangle-down").tolist()
        out.append(_line(x[beyond], np.sign(residual[beyond]) * 0.93 * reach, **same, unselected=_STAYS)
                   | {"mode": "markers", "marker": marker | {"symbol": arrows, "size": 6}, "hoverinfo": "skip"})
    return out


def beyond(look: Look, reach: float) -> str:
    """How many pixels of which method the residual panel cannot hold; empty where it holds all."""
    counts = [(style(a.method).name, int((np.abs(a.residual) > reach).sum())) for a in look.answers]
    counts = [(name, count) for name, count in counts if count]
    if not counts:
        return ""
    total = sum(count for _, count in counts)
    said = f"{total} pixel{'s' * (total > 1)} beyond ±{reach:g}"
    return said + (": " + ", ".join(f"{name} {count}" for name, count in counts) if len(counts) <= 3 else "")


def _trust_traces(look: Look, x: Array) -> list[Trace]:
    """How much of each method that draws is data, in bins: 1 where the data decide, 0 where the prior does."""
    out, bins = [], len(x) // BIN * BIN
    middle = x[:bins].reshape(-1, BIN).mean(axis=1)
    for answer in look.answers:
        if answer.trust is None:
            continue
        its, data = style(answer.method), 1 - answer.trust[:bins].reshape(-1, BIN).mean(axis=1)
        out.append(_line(middle, data, f"{its.name}: %{{y:.0%}} data", name=its.name, legendgroup=answer.method,
                         showlegend=False, yaxis="y4", fill="tozeroy", fillcolor=_rgba(its.colour, 0.3),
                         line={"color": its.colour, "width": 1, "dash": its.dash, "shape": "hvh"}))
    return out


def _flag_traces(look: Look, x: Array, ink: str) -> list[Trace]:
    """A triangle for every flag, a row for each method that has one; its words to the pointer."""
    out = []
    for row, answer in enumerate(answer for answer in look.answers if answer.flags):
        its = style(answer.method)
        at = _moved(look, x, [flag.wavelength for flag in answer.flags])
        words = [f"{told.flag_words(flag, its.name)}<br>p = {flag.p_value:.1g}" for flag in answer.flags]
        out.append(_line(at, np.full(len(at), 0.87 - 0.09 * row), "%{text}", name=f"flag: {its.name}", yaxis="y3",
                         text=words, legendgroup=answer.method, showlegend=False, unselected=_STAYS)
                   | {"mode": "markers", "marker": {"symbol": "triangle-down", "size": 11, "color": its.colour,
                                                    "line": {"width": 1, "color": ink}}})
    return out


def _line_traces(look: Look, x: Array, velocity: float, ink: str) -> list[Trace]:
    """A strip over the spectrum with a tick for every line that is measured; the zoomed ones by name.

    A strip of its own, with nothing else in it: where it lay over the flux, a click would find the flux's points.
    """
    lines = [line for line in LINES.values() if look.spectra.wave[0] < line.centre < look.spectra.wave[-1]]
    at = _moved(look, x, doppler([line.centre for line in lines], velocity))
    zoomed = {line: window for window, line in told.MEASURED.items()}
    marker, font = {"symbol": "line-ns", "size": 7, "line": {"width": 1.5, "color": GREY}}, {"color": ink}
    words = "<b>%{customdata}</b>, click: its window on page Lines<extra></extra>"
    return [_line(at, np.full(len(at), 0.12), words, name="lines", yaxis="y5",
                  customdata=[line.name for line in lines], showlegend=False, textposition="top center",
                  text=[zoomed.get(line.name, "") for line in lines], textfont=font | {"size": 11}, cliponaxis=False)
            | {"mode": "markers+text", "marker": marker, "selected": _STAYS | {"textfont": font},
               "unselected": _STAYS | {"textfont": font}}]


def _notes(look: Look, x: Array, reach: float, ink: str) -> list[dict[str, Any]]:
    """What the strongest flag says, and what the residual panel cannot hold."""
    plain: dict[str, Any] = {"showarrow": False, "font": {"size": 11, "color": ink}}
    out: list[dict[str, Any]] = []
    if found := told.together(look):
        flag, methods = found[0]
        words = told.flag_words(flag, ", ".join(style(method).name for method in methods))
        right = flag.wavelength > float(look.spectra.wave[-1]) - 1500
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        out.append({"x": float(_moved(look, x, flag.wavelength)), "y": 0.87, "xref": "x", "yref": "y domain",
                    "text": f"<b>{words}{more}</b>", "xanchor": "right" if right else "left",
                    "xshift": -9 if right else 9, **plain})
    # between the panels, over the residuals: what these do not hold on the left, what their band does not on the right
    for text, at, side in ((beyond(look, reach), 0, "left"), ("" if look.star.simulated else RED_ARM, 1, "right")):
        if text:
            out.append({"x": at, "y": _RESIDUAL, "xref": "x domain", "yref": "paper", "text": text, "xanchor": side,
                        "yanchor": "bottom", **plain})
    return out


def height(look: Look, taken: int = 0) -> int:
    """Pixels that the spectrum has beside its line windows and `taken` by words above."""
    return HEIGHT - taken - charts_windows.height(look)


@kept
def spectrum(look: Look, air: bool = False, dark: bool = False, height: int = 360, rest: bool = False) -> go.Figure:
    """The whole spectrum over its trust and its residuals in sigma, on one wavelength axis.

    Args:
        look: what is shown; flags and trust as `app.told` puts them.
        air: wavelengths in air; rest: in the star's own frame.
        dark: ink for a dark page.
        height: in pixels.
    """
    ink, every = "#FAFAFA" if dark else "#000000", slice(None)
    x, title, velocity = _axis(look, air, rest)
    worst = [np.nanpercentile(np.abs(a.residual), 99.8) for a in look.answers if np.isfinite(a.residual).any()]
    reach = float(np.clip(np.ceil(2.2 * max(worst, default=0.0)) / 2, 4.0, CLIP))
    trust = _trust_traces(look, x)
    traces = [*_flux_traces(look, x, every, ink), *_residual_traces(look, x, reach), *trust,
              *_line_traces(look, x, velocity, ink), *_flag_traces(look, x, ink)]
    hatch = _hatch(look, x, every, ink, yaxis="y3", showlegend=not look.spectra.measured.all())

    low, high = _limits(look, np.ones(len(x), dtype=bool), 1.0)
    axes = {
        "xaxis": {"title": title, "anchor": "y2", "range": [float(x[0]), float(x[-1])], "dtick": 500},
        "yaxis": {"title": "Flux / continuum", "domain": [0.44 if trust else _RESIDUAL + 0.06, _STRIP], "nticks": 8,
                  "range": [low, high + 0.14 * (high - low)]},  # flags stand in the room above
        "yaxis2": {"title": "Residual / σ", "domain": [0, _RESIDUAL], "range": [-reach, reach],
                   "tickvals": [-6, -3, 0, 3, 6]},
        "yaxis3": _cover("y"),
        "yaxis5": {"domain": [_STRIP + 0.005, 1], "range": [0, 1], "fixedrange": True, "visible": False},
    }
    if trust:
        axes["yaxis4"] = {"title": "", "domain": [0.31, 0.40], "range": [0, 1], "fixedrange": True,
                          "tickvals": [0, 1], "ticktext": ["prior", "data"]}
    bands = [{"type": "rect", "xref": "x domain", "yref": "y2", "x0": 0, "x1": 1, "y0": -bound, "y1": bound,
              "fillcolor": ink, "opacity": opacity, "line": {"width": 0}, "layer": "below"}
             for bound, opacity in ((3, 0.07), (1, 0.13))]
    return _figure([*traces, hatch], axes, look, height, ink, annotations=_notes(look, x, reach, ink),
                   shapes=bands)
