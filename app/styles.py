"""What every figure of the screen shares: how each method looks, and which lines are worth a panel of their own."""

from __future__ import annotations

from dataclasses import dataclass

from core.figures.windows import WINDOWS, Window, shifted

__all__ = ["BLUE", "GREY", "STYLES", "WINDOWS", "Style", "Window", "shifted", "style"]

GREY, BLUE = "#999999", "#0072B2"


@dataclass(frozen=True)
class Style:
    """How a method looks, here and everywhere: what it is called, its colour (Okabe & Ito), its dash and its marker."""

    name: str
    colour: str
    dash: str
    marker: str


# Fixed for good: a reader learns them once. Filters share a learned relative's colour, with another dash and marker.
STYLES: dict[str, Style] = {
    "noisy": Style("noisy", GREY, "dot", "circle-open"),
    "savgol": Style("Savitzky-Golay", "#009E73", "5px,2px", "triangle-up-open"),
    "wavelet": Style("wavelet", "#CC79A7", "solid", "square-open"),
    "wiener": Style("Wiener", "#009E73", "solid", "triangle-up"),
    "dncnn": Style("DnCNN", "#CC79A7", "longdash", "square"),
    "mixture": Style("mixture", "#56B4E9", "solid", "star-triangle-down"),
    "pca": Style("PCA", "#56B4E9", "dot", "star-triangle-down-open"),
    "supervised": Style("supervised", "#D55E00", "dash", "diamond"),
    "supervised_ivar": Style("supervised + ivar", "#D55E00", "longdashdot", "diamond-open"),
    "dps": Style("DPS", "#E69F00", "dashdot", "cross"),
    "pigdm": Style("PiGDM", "#E69F00", "longdash", "cross-open"),
    "mmps": Style("MMPS", "#E69F00", "dot", "x-open"),
    "exact": Style("exact", BLUE, "solid", "circle"),
}


def style(method: str) -> Style:
    """The method's style, a plain one for a method that has none yet."""
    return STYLES.get(method, Style(method, BLUE, "dot", "hexagon-open"))
