"""The page's figures: Plotly, made from a Look; no Streamlit, no files."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import plotly.graph_objects as go

from app.shown import RED_ARM, Answer, Look
from app.styles import GREY, WINDOWS, shifted, style
from core.data.grid import doppler, vacuum_to_air
from core.spectrum import Array

Values = npt.NDArray[np.float32]
Trace = dict[str, Any]

HEIGHT = 368  #: of the spectrum [pixels], on a screen 720 high
CLIP = 8.0  #: sigma; residuals beyond are marked at the panel's edge and counted


def _rgba(colour: str, alpha: float) -> str:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{alpha})"


def _runs(mask: npt.NDArray[np.bool_]) -> list[tuple[int, int]]:
    """First and last index of each stretch of True."""
    edge = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(int)))
    return [(int(a), int(b) - 1) for a, b in zip(edge[::2], edge[1::2], strict=True)]


def _band(x: Array, low: Array, high: Array, live: npt.NDArray[np.bool_]) -> tuple[Values, Values]:
    """The outline of a band, one closed polygon per stretch of live pixels, so that nothing is drawn across a gap."""
    cut = np.array([np.nan])
    parts = [(np.concatenate([x[a : b + 1], x[a : b + 1][::-1], cut]),
              np.concatenate([high[a : b + 1], low[a : b + 1][::-1], cut])) for a, b in _runs(live)]
    xs, ys = zip(*parts, strict=True) if parts else ((cut,), (cut,))
    return np.concatenate(xs, dtype=np.float32), np.concatenate(ys, dtype=np.float32)


def _hatched(x: Array, dead: npt.NDArray[np.bool_]) -> tuple[Values, Values]:
    """Boxes from 0 to 1 over the stretches that were not measured."""
    half = np.gradient(x) / 2
    ends = [(x[a] - half[a], x[b] + half[b]) for a, b in _runs(dead)]
    xs = [value for left, right in ends for value in (left, left, right, right, np.nan)]
    return np.array(xs, dtype=np.float32), np.array([0, 1, 1, 0, np.nan] * len(ends), dtype=np.float32)


def _limits(look: Look, inside: npt.NDArray[np.bool_], tail: float) -> tuple[float, float]:
    """A y range for some pixels that outliers and the noisy ends do not set.

    It holds truth and answers but for `tail` / 4 % at each end, and what was measured but for `tail` %. Pixels four
    times as noisy as the median one have no say.
    """
    live = inside & look.spectra.measured[0]
    good = live & (look.error <= 4 * np.median(look.error[live])) if live.any() else inside
    parts = [np.percentile(look.spectra.flux[0][good], [tail, 100 - tail])]
    curves = [answer.flux[good] for answer in look.answers if style(answer.method).colour != GREY]
    curves += [] if look.star.truth is None else [look.star.truth[inside & ~(live & ~good)]]
    parts += [np.percentile(curve, [tail / 4, 100 - tail / 4]) for curve in curves]
    low, high = float(np.min(parts)), float(np.max(parts))
    margin = 0.06 * max(high - low, 0.05)
    return low - margin, high + margin


def _label(answer: Answer) -> str:
    """The method's name in the legend, never without what is known of its uncertainty."""
    strength = f", strength {answer.settings['strength']:g}" if "strength" in answer.settings else ""
    return f"{style(answer.method).name}{strength} ({answer.bar})"


def _line(x: Array, y: Array, form: str = "%{y:.3f}", **more: Any) -> Trace:
    """A line; single precision, which is the screen's and half of what is sent."""
    return {"type": "scatter", "mode": "lines", "x": x.astype(np.float32), "y": y.astype(np.float32),
            "hovertemplate": form, "showlegend": True, **more}


def _fill(xs: Values, ys: Values, colour: str, **more: Any) -> Trace:
    """A filled outline without a line of its own."""
    return {"type": "scatter", "mode": "lines", "x": xs, "y": ys, "fill": "toself", "fillcolor": colour,
            "line": {"width": 0}, "hoverinfo": "skip", "showlegend": False, **more}


def _flux_traces(look: Look, x: Array, part: slice, ink: str, **place: Any) -> list[Trace]:
    """Observed with its band, truth, each method: over a slice of pixels; `place` says on which axes."""
    live, flux, x = look.spectra.measured[0][part], look.spectra.flux[0][part], x[part]
    error = np.where(live, look.error[part], 0.0)
    under = [_fill(*_band(x, flux - error, flux + error, live), _rgba(GREY, 0.28), legendgroup="observed", **place)]
    over = [_line(x, np.where(live, flux, np.nan), name="observed ± 1σ", legendgroup="observed", legendrank=1,
                  line={"color": GREY, "width": 0.8}, **place)]
    if look.star.truth is not None:
        over.append(_line(x, look.star.truth[part], name="truth (simulated)", legendgroup="truth", legendrank=2,
                          line={"color": ink, "width": 1.2}, **place))
    if look.own is not None:
        over.append(_line(x, look.own[part], name=look.own_name, legendgroup="own", legendrank=2,
                          line={"color": _rgba(ink, 0.8), "width": 0.8}, **place))
    for rank, answer in enumerate(look.answers, start=3):
        its = style(answer.method)
        if answer.low is not None and answer.high is not None:
            outline = _band(x, answer.low[part], answer.high[part], np.ones_like(live))
            under.append(_fill(*outline, _rgba(its.colour, 0.25), legendgroup=answer.method, **place))
        # the method `noisy` is the observation again: below it, so that it shows only where it bridges a gap
        (under if its.colour == GREY else over).append(
            _line(x, answer.flux[part], name=_label(answer), legendgroup=answer.method, legendrank=rank,
                  line={"color": its.colour, "width": 1.3, "dash": its.dash}, **place))
    return under + over


def _hatch(look: Look, x: Array, part: slice, ink: str, **place: Any) -> Trace:
    """What was not measured, hatched; its y runs from 0 to 1 on an axis of its own (see `_cover`)."""
    pattern = {"shape": "/", "fgcolor": _rgba(ink, 0.38), "size": 6, "solidity": 0.12, "fillmode": "overlay"}
    xs, ys = _hatched(x[part], ~look.spectra.measured[0][part])
    return _fill(xs, ys, _rgba(ink, 0.05), **{"name": "not measured", "fillpattern": pattern, **place})


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
        out.append(_line(x[far], residual[far], **same) | {"mode": "markers", "marker": marker, "hoverinfo": "skip"})
        arrows = np.where(residual[beyond] > 0, "triangle-up", "triangle-down").tolist()
        out.append(_line(x[beyond], np.sign(residual[beyond]) * 0.93 * reach, **same)
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


def _axis(look: Look, air: bool) -> tuple[Array, str, float]:
    """Wavelengths as shown, their axis title, and the star's velocity [km/s]."""
    wave = look.spectra.wave
    title = f"Wavelength ({'air' if air else 'vacuum'}) [Angstrom]"
    return vacuum_to_air(wave) if air else wave, title, look.star.velocity


def _cover(below: str) -> dict[str, Any]:
    """An invisible y axis from 0 to 1 over another one, for what fills a panel's height whatever the zoom."""
    return {"overlaying": below, "range": [0, 1], "fixedrange": True, "visible": False}


def _figure(traces: list[Trace], axes: dict[str, Any], look: Look, height: int, ink: str, **more: Any) -> go.Figure:
    """A figure in the house's dress: quiet grid, room for the labels, zoom kept while the star stays.

    Made from one dictionary: Plotly's own methods that add and update one thing at a time take ten times as long.
    """
    dress = {"gridcolor": _rgba(GREY, 0.18), "zeroline": False, "showline": True, "linecolor": _rgba(GREY, 0.7),
             "ticks": "outside", "tickcolor": _rgba(GREY, 0.7), "ticklen": 4, "tickfont": {"size": 11, "color": ink}}
    for axis in axes.values():
        if "overlaying" not in axis:
            title = {"text": axis.pop("title", ""), "font": {"size": 12, "color": ink}, "standoff": 4}
            axis.update(dress | {"title": title})
    layout = {
        "height": height, "margin": {"l": 58, "r": 8, "t": 24, "b": 36, "pad": 0}, "hovermode": "x",
        "uirevision": look.star.key, "font": {"size": 12, "color": ink}, "hoverlabel": {"font": {"size": 11}},
        "paper_bgcolor": "rgba(0,0,0,0)", "plot_bgcolor": "rgba(0,0,0,0)",
        "legend": {"orientation": "h", "x": 0, "y": 1.01, "yanchor": "bottom", "font": {"size": 12, "color": ink},
                   "itemsizing": "trace", "bgcolor": "rgba(0,0,0,0)"}}
    return go.Figure({"data": traces, "layout": layout | axes | more})


def spectrum(look: Look, air: bool = False, dark: bool = False, height: int = HEIGHT) -> go.Figure:
    """The whole spectrum over its residuals in sigma, on one wavelength axis.

    Args:
        look: what is shown.
        air: wavelengths in air.
        dark: ink for a dark page.
        height: in pixels.
    """
    ink, every = "#FAFAFA" if dark else "#000000", slice(None)
    x, title, velocity = _axis(look, air)
    worst = [np.nanpercentile(np.abs(a.residual), 99.8) for a in look.answers if np.isfinite(a.residual).any()]
    reach = float(np.clip(np.ceil(2.2 * max(worst, default=0.0)) / 2, 4.0, CLIP))
    traces = _flux_traces(look, x, every, ink) + _residual_traces(look, x, reach)
    hatch = _hatch(look, x, every, ink, yaxis="y3", showlegend=not look.spectra.measured.all())

    low, high = _limits(look, np.ones(len(x), dtype=bool), 1.0)
    axes = {
        "xaxis": {"title": title, "anchor": "y2", "range": [float(x[0]), float(x[-1])], "dtick": 500},
        "yaxis": {"title": "Flux / continuum", "domain": [0.34, 1], "nticks": 8,
                  "range": [low, high + 0.08 * (high - low)]},  # the lines' names stand in the room above
        "yaxis2": {"title": "Residual / σ", "domain": [0, 0.27], "range": [-reach, reach],
                   "tickvals": [-6, -3, 0, 3, 6]},
        "yaxis3": _cover("y"),
    }
    centres = np.array([doppler(float(np.mean(window.centres)), velocity) for window in WINDOWS])
    names = [{"x": float(at), "y": 0.985, "xref": "x", "yref": "y domain", "text": window.name, "showarrow": False,
              "yanchor": "top", "font": {"size": 11, "color": ink}}
             for at, window in zip(vacuum_to_air(centres) if air else centres, WINDOWS, strict=True)]
    # between the panels, over the residuals: what these do not hold on the left, what their band does not on the right
    for text, at, side in ((beyond(look, reach), 0, "left"), ("" if look.star.simulated else RED_ARM, 1, "right")):
        if text:
            names.append({"x": at, "y": 0.275, "xref": "x domain", "yref": "paper", "text": text, "showarrow": False,
                          "xanchor": side, "yanchor": "bottom", "font": {"size": 11, "color": ink}})
    bands = [{"type": "rect", "xref": "x domain", "yref": "y2", "x0": 0, "x1": 1, "y0": -bound, "y1": bound,
              "fillcolor": ink, "opacity": opacity, "line": {"width": 0}, "layer": "below"}
             for bound, opacity in ((3, 0.07), (1, 0.13))]
    return _figure([*traces, hatch], axes, look, height, ink, annotations=names, shapes=bands)


def windows(look: Look, air: bool = False, dark: bool = False, height: int = 205) -> go.Figure:
    """The lines of WINDOWS, a panel each, with dotted marks where the star's velocity puts them."""
    ink = "#FAFAFA" if dark else "#000000"
    x, title, velocity = _axis(look, air)
    count, gap = len(WINDOWS), 0.038
    width = (1 - gap * (count - 1)) / count
    traces, names, marks = [], [], []
    axes: dict[str, Any] = {}
    for number, (window, ends) in enumerate(zip(WINDOWS, shifted(velocity), strict=True)):
        first, last = np.searchsorted(look.spectra.wave, ends)
        part, inside = slice(int(first), int(last)), np.zeros(len(x), dtype=bool)
        inside[part] = True
        n, left = "" if number == 0 else str(number + 1), number * (width + gap)
        place = {"xaxis": f"x{n}", "showlegend": False}
        traces += [*_flux_traces(look, x, part, ink, yaxis=f"y{n}", **place),
                   _hatch(look, x, part, ink, yaxis=f"y{count + number + 1}", **place)]
        axes |= {
            f"xaxis{n}": {"title": title if number == count // 2 else "", "domain": [left, left + width],
                          "anchor": f"y{n}", "range": [float(x[part][0]), float(x[part][-1])], "nticks": 4,
                          "tickformat": "d"},
            f"yaxis{n}": {"title": "Flux / continuum" if number == 0 else "", "anchor": f"x{n}", "nticks": 7,
                          "range": list(_limits(look, inside, 1.0))},
            f"yaxis{count + number + 1}": _cover(f"y{n}") | {"anchor": f"x{n}"},
        }
        names.append({"x": 0.5, "y": 1, "xref": f"x{n} domain", "yref": f"y{n} domain", "text": window.name,
                      "showarrow": False, "yanchor": "bottom", "font": {"size": 12, "color": ink}})
        centres = doppler(window.centres, velocity)
        marks += [{"type": "line", "xref": f"x{n}", "yref": f"y{n} domain", "x0": float(at), "x1": float(at),
                   "y0": 0, "y1": 1, "line": {"color": _rgba(GREY, 0.9), "width": 1, "dash": "dot"}, "layer": "below"}
                  for at in (vacuum_to_air(centres) if air else centres)]
    return _figure(traces, axes, look, height, ink, annotations=names, shapes=marks)
