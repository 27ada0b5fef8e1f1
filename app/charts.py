"""What the figures of a star share: Plotly traces and dress, made from a Look; no Streamlit, no files."""

from __future__ import annotations

from base64 import b64encode
from collections import OrderedDict
from collections.abc import Callable
from functools import lru_cache, wraps
from threading import RLock
from typing import Any, ParamSpec

import numpy as np
import numpy.typing as npt
import pandas as pd
import plotly.graph_objects as go
from plotly import io

from app.shown import Answer, Look
from app.styles import GREY, style
from core.data.grid import doppler, vacuum_to_air
from core.spectrum import Array

Values = npt.NDArray[np.float32]
Trace = dict[str, Any]
P = ParamSpec("P")

MARGIN = {"l": 58, "r": 8, "t": 24, "b": 36, "pad": 0}  #: pixels
DRAWN = 3  #: single draws shown of each method, thin
KEPT = 16  #: figures in memory, of a megabyte each
BANDS = (0.0228, 0.9772)  #: quantiles of the wide band: two standard deviations, 95 %


class Drawn(go.Figure):
    """A figure as it is sent; Plotly's check of it, which takes most of the time, is made when somebody looks inside.

    Args:
        spec: data and layout, as go.Figure takes them.
    """

    def __init__(self, spec: dict[str, Any]) -> None:
        self.__dict__["_spec"] = spec

    def __getattr__(self, name: str) -> Any:
        spec = self.__dict__.pop("_spec", None)
        if spec is None:
            raise AttributeError(name)
        super().__init__(spec)
        return getattr(self, name)

    def to_dict(self) -> dict[str, Any]:
        """What is sent; nobody may write into it."""
        if "_sent" not in self.__dict__:
            spec = self.__dict__.get("_spec")
            if spec is None:
                return dict(super().to_dict())
            self.__dict__["_sent"] = _plain({"data": spec["data"],
                                             "layout": spec["layout"] | {"template": _template(io.templates.default)}})
        return dict(self.__dict__["_sent"])


@lru_cache(maxsize=4)
def _template(name: str) -> dict[str, Any]:
    return dict(io.templates[name].to_plotly_json())


def _plain(value: Any) -> Any:
    """Numbers, words, lists and dictionaries; an array of numbers as Plotly has it, in base64."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items() if item is not None}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, np.ndarray) and value.dtype.kind == "f" and value.ndim == 1 and value.size:
        return {"dtype": f"f{value.dtype.itemsize}", "bdata": b64encode(value.tobytes()).decode()}
    return value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value


_figures: OrderedDict[object, go.Figure] = OrderedDict()
_taking = RLock()


def kept(make: Callable[P, go.Figure]) -> Callable[P, go.Figure]:
    """Figures by all that they show: back at a view that was there before nothing is drawn. Nobody may change them."""

    def name(value: object) -> object:
        if isinstance(value, pd.DataFrame):
            return tuple(map(tuple, value.astype(str).to_numpy()))
        return value.content if isinstance(value, Look) else value

    @wraps(make)
    def of(*args: P.args, **named: P.kwargs) -> go.Figure:
        key = (make.__qualname__, *map(name, args), *((word, name(value)) for word, value in sorted(named.items())))
        with _taking:
            found = _figures.get(key)
        figure = make(*args, **named) if found is None else found
        with _taking:
            _figures[key] = figure
            _figures.move_to_end(key)
            while len(_figures) > KEPT:
                _figures.popitem(last=False)
        return figure

    return of


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
    for answer in look.stale:
        over.append(_line(x, answer.flux[part], name=f"{style(answer.method).name}: before, being made anew",
                          legendgroup=f"{answer.method} before", legendrank=90,
                          line={"color": _rgba(GREY, 0.9), "width": 1.2, "dash": style(answer.method).dash}, **place))
        if answer.low is not None and answer.high is not None:
            outline = _band(x, answer.low[part], answer.high[part], np.ones_like(live))
            under.append(_fill(*outline, _rgba(GREY, 0.2), legendgroup=f"{answer.method} before", **place))
    for rank, answer in enumerate(look.answers, start=3):
        its = style(answer.method)
        if answer.low is not None and answer.high is not None:
            wide = np.quantile(answer.drawn[:, part], BANDS, axis=0) if len(answer.drawn) > 1 else ()
            for low, high, alpha in ((*wide, 0.13), (answer.low[part], answer.high[part], 0.25)) if len(wide) else (
                    (answer.low[part], answer.high[part], 0.25),):
                outline = _band(x, low, high, np.ones_like(live))
                under.append(_fill(*outline, _rgba(its.colour, alpha), legendgroup=answer.method, **place))
            under += [_line(x, draw[part], legendgroup=answer.method, name=f"{its.name}, a draw",
                            line={"color": _rgba(its.colour, 0.55), "width": 0.5}, **place)
                      | {"hoverinfo": "skip", "hovertemplate": None, "showlegend": False}
                      for draw in answer.drawn[:DRAWN]]
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


def _axis(look: Look, air: bool, rest: bool = False) -> tuple[Array, str, float]:
    """Wavelengths as shown, their axis title, and the star's velocity [km/s]."""
    wave = doppler(look.spectra.wave, -look.star.velocity) if rest else look.spectra.wave
    title = f"Wavelength ({'air' if air else 'vacuum'}{', rest frame' if rest else ''}) [Angstrom]"
    return vacuum_to_air(wave) if air else wave, title, look.star.velocity


def _moved(look: Look, x: Array, at: npt.ArrayLike) -> Array:
    """Observed vacuum wavelengths [Angstrom] as an axis x has them."""
    return np.asarray(np.interp(np.asarray(at, dtype=np.float64), look.spectra.wave, x))


def _cover(below: str) -> dict[str, Any]:
    """An invisible y axis from 0 to 1 over another one, for what fills a panel's height whatever the zoom."""
    return {"overlaying": below, "range": [0, 1], "fixedrange": True, "visible": False}


def _figure(traces: list[Trace], axes: dict[str, Any], look: Look, height: int, ink: str, **more: Any) -> go.Figure:
    """A figure in the house's dress: quiet grid, room for the labels, zoom kept while the star stays.

    Made from one dictionary: Plotly's own methods that add and update one thing at a time take ten times as long.
    `more` goes into the layout.
    """
    dress = {"gridcolor": _rgba(GREY, 0.18), "zeroline": False, "showline": True, "linecolor": _rgba(GREY, 0.7),
             "ticks": "outside", "tickcolor": _rgba(GREY, 0.7), "ticklen": 4, "tickfont": {"size": 11, "color": ink}}
    for axis in axes.values():
        if "overlaying" not in axis:
            title = {"text": axis.pop("title", ""), "font": {"size": 12, "color": ink}, "standoff": 4}
            axis.update(dress | {"title": title})
    layout = {
        "height": height, "margin": MARGIN, "hovermode": "x", "dragmode": "zoom",
        "uirevision": look.star.key, "font": {"size": 12, "color": ink}, "hoverlabel": {"font": {"size": 11}},
        "paper_bgcolor": "rgba(0,0,0,0)", "plot_bgcolor": "rgba(0,0,0,0)",
        "legend": {"orientation": "h", "x": 0, "y": 1.01, "yanchor": "bottom", "font": {"size": 12, "color": ink},
                   "itemsizing": "trace", "bgcolor": "rgba(0,0,0,0)"}}
    return Drawn({"data": traces, "layout": layout | axes | more})


