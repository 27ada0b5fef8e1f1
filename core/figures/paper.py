"""Figures for a page: Matplotlib, vector, at a journal's column width, the same bytes each time."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from threading import RLock
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, NullFormatter, NullLocator

from core.figures.sheets import BLACK, Panel, Points, Sheet, log_ticks
from core.figures.style import DASHES, GREY, RC, WIDTHS, style, width

MM = 1 / 25.4
HATCH = "/////"  #: of what was not measured
DENSE = 1500  #: points of a cloud beyond which it is an image, or the file outgrows a journal's limit
#: What would differ from run to run is left out of each kind of file.
METADATA: dict[str, dict[str, str | None]] = {"pdf": {"CreationDate": None}, "svg": {"Date": None}, "png": {}}
#: Matplotlib's settings are one for all threads: of a server's visitors one at a time may set type.
TYPE = RLock()


def _text(text: str) -> str:
    return (text.replace("T_eff", r"$T_\mathrm{eff}$").replace("log g", r"$\log\,g$").replace("ρ", r"$\rho$")
            .replace("sigma", r"$\sigma$").replace("Angstrom", "Å").replace("chi2", r"$\chi^2$")
            .replace("p = ", r"$p$ = ").replace("p < ", r"$p$ < "))


def _points(ax: Axes, points: Points) -> None:
    its = style(points.method)
    face = "none" if points.real else its.colour
    if points.cloud:
        ax.plot(points.x, points.y, linestyle="none", marker=its.sign, markersize=1.7, markerfacecolor=face,
                markeredgecolor=its.colour, markeredgewidth=0.3, alpha=0.75, zorder=0.9,
                rasterized=len(points.x) > DENSE)
        return
    look: dict[str, Any] = {"color": its.colour, "linestyle": DASHES[its.dash] if points.line else "none",
                            "marker": its.sign if points.mark else "none", "markersize": 3.2, "markevery": points.every,
                            "markerfacecolor": "white" if points.real else its.colour, "markeredgewidth": 0.6,
                            "linewidth": 0.6 if points.real else points.weight}
    if points.error is None:
        ax.plot(points.x, points.y, **look)
    else:
        ax.errorbar(points.x, points.y, yerr=np.nan_to_num(points.error), elinewidth=0.5, capsize=0, **look)


def _panel(ax: Axes, panel: Panel) -> None:
    for spans in panel.spans:
        for low, high in zip(spans.low, spans.high, strict=True):
            ax.axvspan(low, high, facecolor="none", edgecolor=GREY, hatch=HATCH, linewidth=0, zorder=0.4)
    for band in panel.bands:
        ax.fill_between(band.x, band.low, band.high, color=style(band.method).colour if band.method else GREY,
                        alpha=0.3, linewidth=0, zorder=0.5)
    for bars in panel.bars:
        its = style(bars.method)
        ax.stairs(bars.height, bars.edges, fill=True, color=its.colour, alpha=0.35, zorder=0.8)
        ax.stairs(bars.height, bars.edges, color=its.colour, linewidth=0.8)
    for rule in panel.rules:
        ax.plot(rule.x, rule.y, color=rule.colour, linewidth=rule.weight if rule.dash == "solid" else 1.0,
                linestyle=DASHES[rule.dash], zorder=1 if rule.dash == "solid" else 3)
    for points in panel.points:
        _points(ax, points)
    if panel.log_x:
        ax.set_xscale("log")
    if panel.log_y and panel.y_range:
        ax.set_yscale("log")
        ax.yaxis.set_major_locator(FixedLocator(log_ticks(panel.y_range)))
        ax.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        ax.yaxis.set_minor_formatter(NullFormatter())
    if panel.ticks:
        ax.xaxis.set_major_locator(FixedLocator(list(panel.ticks)))
        ax.xaxis.set_minor_locator(NullLocator())
        ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    if panel.y_ticks:
        ax.yaxis.set_major_locator(FixedLocator(list(panel.y_ticks)))
    if panel.x_range:
        ax.set_xlim(*panel.x_range)
    if panel.y_range:
        ax.set_ylim(*panel.y_range)
    ax.tick_params(labelbottom=panel.x_text, labelleft=panel.y_text)
    ax.set(xlabel=_text(panel.x_label), ylabel=_text(panel.y_label), title=_text(panel.title))
    if panel.note:
        ax.text(0.04, 0.95, _text(panel.note), transform=ax.transAxes, va="top", fontsize=6.5, linespacing=1.0)


def _keys(sheet: Sheet) -> list[Line2D | Patch]:
    """Methods with dash and marker, then what filling, grey and black mean."""
    marks = any(points.mark for panel in sheet.panels for points in panel.points)
    keys: list[Line2D | Patch] = []
    if any(points.line for panel in sheet.panels for points in panel.points):
        told = {q.method for panel in sheet.panels for q in panel.points if q.legend}
        for method in (m for m in sheet.methods if m in told):
            its = style(method)
            keys.append(Line2D([], [], color=its.colour, linestyle=DASHES[its.dash], label=its.name, markersize=3.2,
                               marker=its.sign if marks else "none", markeredgewidth=0.6))
    if len(sheet.samples) > 1 or sheet.samples[0] == "real":
        keys += [Line2D([], [], color=BLACK, linestyle="none", marker="o", markersize=3.2, markeredgewidth=0.6,
                        markerfacecolor="white" if name == "real" else BLACK, label=name) for name in sheet.samples]
    named = {rule.label: rule for panel in sheet.panels for rule in panel.rules if rule.label}
    keys += [Line2D([], [], color=rule.colour, linewidth=0.6 if rule.dash == "solid" else 1.0, label=_text(name),
                    linestyle=DASHES[rule.dash]) for name, rule in named.items()]
    keys += [Patch(facecolor=GREY, alpha=0.3, label=_text(name)) for name in
             dict.fromkeys(band.label for panel in sheet.panels for band in panel.bands if band.label)]
    keys += [Patch(facecolor="none", edgecolor=GREY, hatch=HATCH, linewidth=0, label=name) for name in
             dict.fromkeys(spans.label for panel in sheet.panels for spans in panel.spans
                           if spans.label and len(spans.low))]
    return keys


def draw(sheet: Sheet) -> Figure:
    """A sheet at one AAS column's width; `written` fits it to another."""
    with TYPE, matplotlib.rc_context(RC):
        keys = _keys(sheet) if sheet.legend else []
        across = 2 if len(keys) == 4 else 3
        height = sheet.height + 3.2 * -(-len(keys) // across)
        figure = Figure(figsize=(WIDTHS["AAS"][0] * MM, height * MM), layout="constrained")
        axes = figure.subplots(len(sheet.rows), len(sheet.rows[0]), squeeze=False,
                               gridspec_kw={"height_ratios": sheet.heights})
        for line, row in zip(axes, sheet.rows, strict=True):
            for ax, panel in zip(line, row, strict=True):
                if panel is None:
                    ax.remove()
                else:
                    _panel(ax, panel)
        figure.align_ylabels()
        if keys:
            figure.legend(handles=keys, loc="outside upper center", ncols=across)
    return figure


def written(figure: Figure, kind: str, journal: str, columns: int = 1) -> bytes:
    """A figure as a file at a journal's width, its height as it is: PDF, SVG (vector) or PNG (600 dots per inch).

    The same figure gives the same bytes with the same Matplotlib: no date is written and names are not drawn by lot.

    Args:
        figure: of this module; kind: 'pdf', 'svg' or 'png'; journal, columns: as in `style.width`.

    Raises:
        ValueError: another kind of file, an unknown journal or number of columns.
    """
    if kind not in METADATA:
        raise ValueError(f"{kind!r} is no kind that can be written; ask for {', '.join(METADATA)}.")
    out = BytesIO()
    with TYPE, matplotlib.rc_context(RC):
        figure.set_size_inches(width(journal, columns) * MM, figure.get_size_inches()[1])
        figure.savefig(out, format=kind, metadata=METADATA[kind])
    return out.getvalue()


def encoded(sheet: Sheet, kind: str, journal: str, columns: int = 1) -> bytes:
    """A sheet as a file: `written` of `draw`, for callers that want bytes and no figure."""
    return written(draw(sheet), kind, journal, columns)


def save(figure: Figure, path: str | Path, journal: str, columns: int = 1) -> Path:
    """`written` into a file; the end of its name says which kind.

    Returns:
        The path.

    Raises:
        ValueError: another kind of file, an unknown journal or number of columns.
    """
    path = Path(path)
    path.write_bytes(written(figure, path.suffix.removeprefix("."), journal, columns))
    return path
