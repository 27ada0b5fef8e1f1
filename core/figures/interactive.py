"""Figures for a screen: Plotly, the same sheets as on paper, with what lies under the pointer."""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go

from core.figures.sheets import BLACK, Band, Bars, Panel, Points, Rule, Sheet, log_ticks
from core.figures.style import GREY, style
from core.spectrum import Array

PIXELS = 4.6  #: of a screen for a millimetre of paper
_TITLE, _LABEL, _NUMBERS = 24, 40, 24  # pixels over and under a panel

Trace = dict[str, Any]


def _text(text: str) -> str:
    return (text.replace("T_eff", "T<sub>eff</sub>").replace("log g", "log <i>g</i>").replace("sigma", "σ")
            .replace("chi2", "χ²").replace("p = ", "<i>p</i> = ").replace("p < ", "<i>p</i> &lt; ")
            .replace("\n", "<br>"))


def _rgba(colour: str, alpha: float) -> str:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{alpha})"


def _error(error: Array) -> Trace:
    down, up = np.nan_to_num(error)
    return {"type": "data", "symmetric": False, "array": up, "arrayminus": down, "thickness": 1, "width": 0}


def _points(points: Points, **place: Any) -> Trace:
    its = style(points.method)
    size = 8 if points.every == 1 else [8 * (i % points.every == 0) for i in range(len(points.x))]
    mode = "+".join(["lines"] * points.line + ["markers"] * points.mark)
    trace: Trace = {
        "type": "scatter", "mode": mode, "x": points.x, "y": points.y, "name": its.name, "legendgroup": points.method,
        "line": {"color": its.colour, "dash": its.dash, "width": 1.4 if points.real else 1.6 * points.weight / 0.9},
        "marker": {"symbol": its.marker + ("-open" if points.real else ""), "color": its.colour,
                   "size": 4 if points.cloud else size, "opacity": 0.7 if points.cloud else 1,
                   "line": {"width": 1 if points.real else 0, "color": its.colour}},
        "hovertemplate": f"{its.name}{' (real)' if points.real else ''}: %{{y:.4g}}"
                         f"{'<br>%{text}' if points.hover else ''}<extra></extra>", **place}
    if points.hover:
        trace["text"] = list(points.hover)
    if points.keys:  # what is clicked grows; the others stay as they are, for they are still to be read
        larger = {"size": 15} if points.every == 1 else {}  # sizes of their own beside it Plotly makes NaN of
        trace |= {"customdata": list(points.keys), "unselected": {"marker": {"opacity": 1}},
                  "selected": {"marker": {"opacity": 1, **larger}}}
    if points.error is not None:
        trace["error_y"] = _error(points.error) | {"color": its.colour}
    return trace


def _outline(band: Band) -> tuple[Array, Array]:
    """A band as closed polygons, one for each stretch without NaN: nothing is drawn across a gap."""
    there = np.isfinite(band.low) & np.isfinite(band.high)
    if there.all():
        return np.concatenate([band.x, band.x[::-1]]), np.concatenate([band.high, band.low[::-1]])
    edge, cut = np.flatnonzero(np.diff(np.concatenate([[False], there, [False]]).astype(int))), np.array([np.nan])
    parts = [slice(a, b) for a, b in zip(edge[::2], edge[1::2], strict=True)]
    x = [part for s in parts for part in (band.x[s], band.x[s][::-1], cut)]
    y = [part for s in parts for part in (band.high[s], band.low[s][::-1], cut)]
    return np.concatenate([cut, *x]), np.concatenate([cut, *y])


def _band(band: Band, **place: Any) -> Trace:
    colour = style(band.method).colour if band.method else GREY
    x, y = _outline(band)
    return {"type": "scatter", "mode": "lines", "x": x, "y": y, "fill": "toself", "fillcolor": _rgba(colour, 0.3),
            "line": {"width": 0}, "hoverinfo": "skip", "name": band.label, "legendgroup": band.label, **place}


def _rule(rule: Rule, ink: str, **place: Any) -> Trace:
    width = rule.weight / 0.6 if rule.dash == "solid" else 1.8
    colour = ink if rule.colour == BLACK else rule.colour
    return {"type": "scatter", "mode": "lines", "x": rule.x, "y": rule.y, "name": _text(rule.label),
            "hoverinfo": "skip", "legendgroup": rule.label,
            "line": {"color": colour, "width": width, "dash": rule.dash}, **place}


def _spans(panel: Panel, x: str, y: str) -> list[Trace]:
    """What was not measured as boxes: shapes of Plotly have no hatch, so a grey that is none of the bands'."""
    return [{"type": "rect", "xref": x, "yref": y, "x0": float(low), "x1": float(high), "y0": 0, "y1": 1,
             "fillcolor": GREY, "opacity": 0.18, "line": {"width": 0}, "layer": "below"}
            for spans in panel.spans for low, high in zip(spans.low, spans.high, strict=True)]


def _bars(bars: Bars, **place: Any) -> Trace:
    its = style(bars.method)
    keys: Trace = {"customdata": list(bars.keys), "unselected": {"marker": {"opacity": 0.6}}} if bars.keys else {}
    return {"type": "bar", "x": (bars.edges[1:] + bars.edges[:-1]) / 2, "y": bars.height, "width": np.diff(bars.edges),
            "name": its.name, **keys, "hovertemplate": "%{x:.2f}: %{y:.3g}<extra></extra>",
            "marker": {"color": _rgba(its.colour, 0.4), "line": {"color": its.colour, "width": 1}}, **place}


def _axis(text: str, span: tuple[float, float] | None, log: bool, numbers: bool, ink: str) -> Trace:
    axis: Trace = {"title": {"text": _text(text), "font": {"size": 12, "color": ink}, "standoff": 4},
                   "gridcolor": _rgba(GREY, 0.18), "zeroline": False, "showline": True, "mirror": True,
                   "linecolor": _rgba(GREY, 0.7), "ticks": "outside", "ticklen": 4, "tickcolor": _rgba(GREY, 0.7),
                   "tickfont": {"size": 11, "color": ink}, "showticklabels": numbers}
    if log:
        axis["type"] = "log"
    if span is not None:
        axis["range"] = [float(np.log10(v)) if log else float(v) for v in span]
    return axis


def _traces(panel: Panel, seen: set[str], legend: bool, ink: str, **place: Any) -> list[Trace]:
    """A panel's traces from the lowest to the highest; of what stands in several, the first one is in the legend."""
    out = [_band(band, **place) for band in panel.bands] + [_bars(bars, **place) for bars in panel.bars]
    out += [_rule(rule, ink, **place) for rule in panel.rules]
    keys = [band.label for band in panel.bands] + ["" for _ in panel.bars] + [rule.label for rule in panel.rules]
    for points in panel.points:
        out.append(_points(points, **place))
        keys.append("" if points.cloud or not points.line or not points.legend else points.method)
    for trace, key in zip(out, keys, strict=True):
        trace["showlegend"] = bool(legend and key and key not in seen)
        seen.add(key)
    return out


def _domains(sheet: Sheet, height: float, top: float) -> list[tuple[float, float]]:
    """Bottom and top of each row as shares of the plotting area, with room for titles and labels between them."""
    above = [_TITLE * any(p is not None and bool(p.title) for p in row) for row in sheet.rows]
    under = [(_LABEL if any(p is not None and p.x_label for p in row) else
              _NUMBERS if any(p is not None and p.x_text for p in row) else 10) for row in sheet.rows]
    free = height - top - sum(above) - sum(under)
    out, at = [], height - top
    for share, over, below in zip(sheet.heights, above, under, strict=True):
        tall = free * share / sum(sheet.heights)
        at -= over
        out.append(((at - tall) / (height - top), at / (height - top)))
        at -= tall + below
    return out


def draw(sheet: Sheet, dark: bool = False) -> go.Figure:
    """A sheet as a Plotly figure, as wide as the page gives it; the same numbers as `core.figures.paper.draw` draws.

    Args:
        sheet: of `core.figures.compose`; dark: ink for a dark page.
    """
    ink = "#FAFAFA" if dark else BLACK
    across, seen = len(sheet.rows[0]), set[str]()
    keyed = {q.method for panel in sheet.panels for q in panel.points if q.legend}
    gap, top = 0.04 if across > 1 else 0.0, 10.0 + 20.0 * sheet.legend * (1 + (len(keyed) + 3) // 6)
    height = sheet.height * PIXELS + top
    traces: list[Trace] = []
    axes: Trace = {}
    notes: list[Trace] = []
    spans: list[Trace] = []
    width = (1 - gap * (across - 1)) / across
    number = 0
    for row, (low, high) in zip(sheet.rows, _domains(sheet, height, top), strict=True):
        for j, panel in enumerate(row):
            if panel is None:
                continue
            number += 1
            n, left = "" if number == 1 else str(number), j * (width + gap)
            traces += _traces(panel, seen, sheet.legend, ink, xaxis=f"x{n}", yaxis=f"y{n}")
            x = _axis(panel.x_label, panel.x_range, panel.log_x, panel.x_text, ink)
            if panel.ticks:
                x |= {"tickmode": "array", "tickvals": list(panel.ticks), "ticktext": [f"{t:g}" for t in panel.ticks]}
            y = _axis(panel.y_label, panel.y_range, panel.log_y, panel.y_text, ink)
            if panel.log_y and panel.y_range:
                y |= {"tickmode": "array", "tickvals": log_ticks(panel.y_range)}
            if panel.y_ticks:
                y |= {"tickmode": "array", "tickvals": list(panel.y_ticks)}
            axes[f"xaxis{n}"] = x | {"domain": [left, left + width], "anchor": f"y{n}"}
            axes[f"yaxis{n}"] = y | {"domain": [max(low, 0.0), min(high, 1.0)], "anchor": f"x{n}"}
            spans += _spans(panel, f"x{n}", f"y{n} domain")
            for text, place in ((panel.title, {"x": 0.5, "y": 1.0, "xanchor": "center", "yanchor": "bottom"}),
                                (panel.note, {"x": 0.02, "y": 0.98, "xanchor": "left", "yanchor": "top",
                                              "align": "left"})):
                if text:
                    notes.append({"text": _text(text), "showarrow": False, "xref": f"x{n} domain",
                                  "yref": f"y{n} domain", "font": {"size": 12, "color": ink}, **place})
    if len(sheet.samples) > 1 or sheet.samples[0] == "real":
        for name in sheet.samples:
            symbol = "circle-open" if name == "real" else "circle"
            traces.append({"type": "scatter", "mode": "markers", "x": [None], "y": [None], "name": name,
                           "marker": {"symbol": symbol, "color": ink, "size": 8}, "showlegend": True})
    layout = {
        "height": height, "modebar": {"orientation": "v", "bgcolor": "rgba(0,0,0,0)"},
        "margin": {"l": 64, "r": 10, "t": top, "b": 0, "pad": 0}, "bargap": 0,
        "hovermode": "closest", "font": {"size": 12, "color": ink}, "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)", "annotations": notes, "shapes": spans, "showlegend": sheet.legend,
        "legend": {"orientation": "h", "x": 0, "y": 1.0, "yref": "container", "yanchor": "top",
                   "font": {"size": 12, "color": ink}, "itemsizing": "trace", "bgcolor": "rgba(0,0,0,0)"}}
    return go.Figure({"data": traces, "layout": layout | axes})
