"""How figures look on page and screen alike: names, colours, dashes, markers, axis labels, widths of the journals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

GREY, BLUE = "#999999", "#0072B2"


@dataclass(frozen=True)
class Style:
    """A method's name in the legend, its colour (Okabe & Ito), dash (Plotly's word) and marker, by Plotly and by
    Matplotlib. A marker is a shape alone: filled it stands for simulated stars, open for real ones."""

    name: str
    colour: str
    dash: str
    marker: str
    sign: str


# Colours, dashes and names are those of app.styles (tests/test_figures.py compares them). No two shapes are the same,
# for here the filling says which stars; so some shapes differ from the screen's spectrum, which fills by method.
STYLES: dict[str, Style] = {
    "noisy": Style("noisy", GREY, "dot", "hexagon", "h"),
    "savgol": Style("Savitzky-Golay", "#009E73", "5px,2px", "triangle-right", ">"),
    "wavelet": Style("wavelet", "#CC79A7", "solid", "pentagon", "p"),
    "wiener": Style("Wiener", "#009E73", "solid", "triangle-up", "^"),
    "dncnn": Style("DnCNN", "#CC79A7", "longdash", "square", "s"),
    "mixture": Style("mixture", "#56B4E9", "solid", "triangle-down", "v"),
    "pca": Style("PCA", "#56B4E9", "dot", "triangle-left", "<"),
    "supervised": Style("supervised", "#D55E00", "dash", "diamond", "D"),
    "supervised_ivar": Style("supervised + ivar", "#D55E00", "longdashdot", "diamond-tall", "d"),
    "dps": Style("DPS", "#E69F00", "dashdot", "cross", "P"),
    "pigdm": Style("PiGDM", "#E69F00", "longdash", "star", "*"),
    "mmps": Style("MMPS", "#E69F00", "dot", "x", "X"),
    "exact": Style("exact", BLUE, "solid", "circle", "o"),
}

#: Plotly's dashes in Matplotlib's units of the line's width.
DASHES: dict[str, Any] = {
    "solid": "solid", "dot": (0, (1, 1.4)), "dash": (0, (4, 1.6)), "longdash": (0, (7, 1.8)),
    "5px,2px": (0, (5.5, 1.2)), "dashdot": (0, (4, 1.4, 1, 1.4)), "longdashdot": (0, (7, 1.4, 1, 1.4))}

#: Widths of one and of two columns [mm]; two for RAA are its page's type area.
WIDTHS: dict[str, tuple[float, float]] = {
    "AAS": (85.1, 180.3), "MNRAS": (85.8, 178.5), "A&A": (88.0, 180.0), "RAA": (84.0, 175.0)}

#: Matplotlib's settings for a page: Times-like type that comes with Matplotlib (the same on every machine), embedded.
RC: Any = {
    "font.family": "STIXGeneral", "mathtext.fontset": "stix", "font.size": 7.5, "axes.labelsize": 7.5,
    "axes.titlesize": 7.5, "xtick.labelsize": 7, "ytick.labelsize": 7, "legend.fontsize": 7,
    "axes.linewidth": 0.6, "xtick.major.width": 0.6, "ytick.major.width": 0.6, "xtick.minor.width": 0.4,
    "ytick.minor.width": 0.4, "xtick.major.size": 2.5, "ytick.major.size": 2.5, "xtick.minor.size": 1.5,
    "ytick.minor.size": 1.5, "xtick.direction": "in", "ytick.direction": "in", "xtick.top": True, "ytick.right": True,
    "lines.linewidth": 0.9, "hatch.linewidth": 0.4, "axes.titlepad": 3.0, "axes.labelpad": 2.0, "legend.frameon": False,
    "legend.handlelength": 2.9, "legend.columnspacing": 1.1, "legend.handletextpad": 0.5, "legend.labelspacing": 0.25,
    "figure.dpi": 150, "savefig.dpi": 600, "savefig.bbox": None, "pdf.fonttype": 42, "ps.fonttype": 42,
    "svg.fonttype": "path", "svg.hashsalt": "trueline", "axes.unicode_minus": True, "text.usetex": False,
    "figure.constrained_layout.h_pad": 0.02, "figure.constrained_layout.w_pad": 0.02}

#: Largest bias that the seed lets pass, in the quantity's unit; of an EW a share of its mean.
GATES = {"RV": 1.0, "logg": 0.05, "[Fe/H]": 0.05, "[alpha/Fe]": 0.05}
EW_GATE = 0.05
#: Share of truths inside the 68 % interval that the seed lets pass.
INSIDE_GATE = (0.60, 0.75)

_NAMES = {"RV": ("radial velocity", "km/s"), "Teff": ("T_eff", "K"), "logg": ("log g", "dex"),
          "[Fe/H]": ("[Fe/H]", "dex"), "[alpha/Fe]": ("[α/Fe]", "dex")}
_POOLED = {"EW:": ("EW of all lines", "Angstrom"), "flux:": ("flux of all pixels", "continuum")}
_GREEK = {"alpha": "α", "beta": "β", "gamma": "γ", "delta": "δ"}


def style(method: str) -> Style:
    """The method's style, a plain one for a method that has none yet."""
    return STYLES.get(method, Style(method, BLUE, "dot", "octagon", "8"))


def named(quantity: str) -> tuple[str, str]:
    """A quantity's name on an axis and its unit, '' where it has none: 'EW:H alpha' is ('EW of Hα', 'Angstrom')."""
    if quantity in _NAMES or quantity in _POOLED:
        return (_NAMES | _POOLED)[quantity]
    kind, _, what = quantity.partition(":")
    if kind == "EW":
        letter = what.removeprefix("H ")
        return "EW of " + (f"H{_GREEK[letter]}" if what.startswith("H ") and letter in _GREEK else what), "Angstrom"
    return (f"flux at {what} Angstrom", "continuum") if kind == "flux" else (quantity, "")


def label(text: str, unit: str = "") -> str:
    """An axis label in full."""
    return f"{text} [{unit}]" if unit else text


def ordered(methods: list[str]) -> list[str]:
    """Methods in the order of STYLES, unknown ones last by name, so that every legend reads the same."""
    known = list(STYLES)
    return sorted(set(methods), key=lambda m: (known.index(m) if m in STYLES else len(known), m))


def width(journal: str, columns: int = 1) -> float:
    """A figure's width [mm].

    Raises:
        ValueError: a journal or a number of columns that WIDTHS does not have.
    """
    if journal not in WIDTHS or columns not in (1, 2):
        raise ValueError(f"{columns} columns of {journal!r} are unknown; give 1 or 2 of {', '.join(WIDTHS)}.")
    return WIDTHS[journal][columns - 1]
