"""One star for a page: what was measured, what each method makes of it, its residual, and how much of it is prior."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from core.data.grid import doppler, vacuum_to_air
from core.figures.sheets import BLACK, Band, Panel, Points, Rule, Sheet, Spans, array, flat, grid
from core.figures.style import GREY, style
from core.figures.windows import WINDOWS, shifted
from core.metrics.fidelity import Mask, chi_square, error, residual
from core.metrics.flags import Flag
from core.spectrum import Array, Spectra

BLOCK = 20  #: pixels of which the share of prior is the mean: one pixel's is known to a third by 16 draws
_THIN = 0.6  # points
_NAMED = 2  # flags that a panel names


@dataclass(frozen=True, eq=False)
class Answer:
    """A method's answer about one star.

    Args:
        method: its name; draws: (n, L), one row of a point estimate; flags: strongest first.
        trust: (L,) posterior over prior variance, None where unknown; note: what it was told, as 'strength 0.03'.
    """

    method: str
    draws: Array
    flags: tuple[Flag, ...] = ()
    trust: Array | None = None
    note: str = ""

    @property
    def middle(self) -> Array:
        """(L,) median of the draws."""
        return np.asarray(np.median(self.draws, axis=0))


@dataclass(frozen=True, eq=False)
class Star:
    """A star as it is shown.

    Args:
        spectra: one row; name: of the star and its S/N, as the figure's title says it; answers: of the methods.
        reference: (L,) truth, or the star's own spectrum before it was degraded (NaN where dead), or None;
            reference_name: which of them it is. velocity: of the star [km/s].
        air: wavelengths in air; rest: wavelengths as the star sees them.
    """

    spectra: Spectra
    name: str
    answers: tuple[Answer, ...]
    reference: Array | None = None
    reference_name: str = "truth"
    velocity: float = 0.0
    air: bool = False
    rest: bool = False

    def shown(self, wave: Array) -> Array:
        """Observed wavelengths in vacuum as the axis has them."""
        out = doppler(wave, -self.velocity) if self.rest else wave
        return np.asarray(vacuum_to_air(out) if self.air else out)

    @property
    def axis(self) -> str:
        """The axis' label."""
        return f"Wavelength ({'air' if self.air else 'vacuum'}{', rest frame' if self.rest else ''}) [Angstrom]"


def gaps(x: Array, live: Mask) -> Spans:
    """The stretches of pixels that were not measured."""
    edge = np.flatnonzero(np.diff(np.concatenate([[False], ~live, [False]]).astype(int)))
    half = np.gradient(x) / 2 if len(x) > 1 else np.zeros(1)
    return Spans(x[edge[::2]] - half[edge[::2]], x[edge[1::2] - 1] + half[edge[1::2] - 1], "not measured")


def observed(star: Star, x: Array, part: slice) -> tuple[Band, tuple[Rule, ...]]:
    """What was measured in some pixels, with its standard deviation, and what is known to be true or better there."""
    live = star.spectra.measured[0, part]
    flux, sigma = star.spectra.flux[0, part], np.where(live, error(star.spectra)[0, part], 0.0)
    low, high = (np.where(live, flux + side * sigma, np.nan) for side in (-1, 1))
    rules = [Rule(x, np.where(live, flux, np.nan), "observed", colour=GREY, weight=0.4)]
    if star.reference is not None:
        rules.append(Rule(x, star.reference[part], star.reference_name, colour=BLACK))
    return Band(x, low, high, "observed ±1 sigma"), tuple(rules)


def drawn(answer: Answer, x: Array, part: slice) -> tuple[Points, tuple[Band, ...]]:
    """A method's median in some pixels, and the band of 68 % of its draws where it has draws."""
    middle = Points(answer.method, x, answer.middle[part], mark=False, weight=_THIN)
    if len(answer.draws) < 2:
        return middle, ()
    low, high = np.quantile(answer.draws[:, part], (0.16, 0.84), axis=0)
    return middle, (Band(x, low, high, method=answer.method),)


def _limits(star: Star, part: slice, tail: float = 1.0) -> tuple[float, float]:
    """A range of flux that outliers and the noisy ends of the spectrum do not set."""
    live, sigma = star.spectra.measured[0, part], error(star.spectra)[0, part]
    good = live & (sigma <= 4 * np.median(sigma[live])) if live.any() else np.ones_like(live)
    curves = [star.spectra.flux[0, part][good]] + [a.middle[part][good] for a in star.answers if a.method != "noisy"]
    shares = [tail] + [tail / 4] * (len(curves) - 1)
    ends = [np.percentile(c, [s, 100 - s]) for c, s in zip(curves, shares, strict=True)]
    low, high = float(np.min(ends)), float(np.max(ends))
    room = 0.06 * max(high - low, 0.05)
    return low - room, high + room


def _flux(star: Star, x: Array, part: slice, tail: float) -> Panel:
    band, rules = observed(star, x, part)
    answers = [drawn(answer, x, part) for answer in star.answers]
    return Panel(star.axis, "Flux / continuum", points=tuple(p for p, _ in answers), rules=rules,
                 bands=(band, *(b for _, some in answers for b in some)),
                 spans=(gaps(x, star.spectra.measured[0, part]),), x_range=(float(x[0]), float(x[-1])),
                 y_range=_limits(star, part, tail))


def _reach(residuals: Sequence[Array]) -> float:
    """Half the height of a residual panel [standard deviations]."""
    worst = [np.nanpercentile(np.abs(r), 99.8) for r in residuals if np.isfinite(r).any()]
    return float(np.clip(np.ceil(2.2 * max(worst, default=0.0)) / 2, 4.0, 8.0))


def _residuals(star: Star, answers: Sequence[Answer], x: Array, part: slice, reach: float) -> Panel:
    """Grey lines, coloured beyond two standard deviations only; what lies outside stands at the edge."""
    ends = (float(x[0]), float(x[-1]))
    bands = tuple(Band(array(ends), np.full(2, -k), np.full(2, float(k))) for k in (3, 1))
    rules, points = [flat(ends, 0.0)], []
    for answer in answers:
        z = residual(answer.middle[None], star.spectra)[0, part]
        rules.append(Rule(x, np.clip(z, -reach, reach), colour=GREY, weight=0.3))
        with np.errstate(invalid="ignore"):
            far = np.abs(z) > 2
        points.append(Points(answer.method, x[far], np.clip(z[far], -reach, reach), line=False, cloud=True))
        inside = [f for f in answer.flags if ends[0] <= star.shown(array([f.wavelength]))[0] <= ends[1]]
        if inside:
            points.append(Points(answer.method, star.shown(array([f.wavelength for f in inside])),
                                 array([-0.8 * np.sign(f.strength) * reach for f in inside]), line=False))
    return Panel(star.axis, "Residual [sigma]", points=tuple(points), bands=bands, rules=tuple(rules), x_range=ends,
                 spans=(gaps(x, star.spectra.measured[0, part]),), y_range=(-reach, reach), y_ticks=(-3, 0, 3))


def said(star: Star, answer: Answer) -> str:
    """A method's name, what it was told, how well it fits, and what it removed, in one line."""
    words = [" ".join([style(answer.method).name, answer.note]).strip()]
    words.append(f"chi2 {float(chi_square(answer.middle[None], star.spectra)[0]):.2f}")
    if len(answer.draws) < 2:
        words.append("no error bar")
    if count := len(answer.flags):
        at = ", ".join(f"{abs(f.strength):.1f} sigma at {star.shown(array([f.wavelength]))[0]:.0f} Angstrom"
                       for f in answer.flags[:_NAMED])
        words.append(f"{count} flag{'s' * (count > 1)}: {at}" + (" ..." if count > _NAMED else ""))
    return "; ".join(words)


def _prior_share(star: Star, x: Array) -> Panel | None:
    """Means over BLOCK pixels of the share of prior, a line a method; None where no method knows it."""
    told = [(a.method, a.trust) for a in star.answers if a.trust is not None and np.isfinite(a.trust).any()]
    if not told:
        return None
    start = np.arange(0, len(x), BLOCK)
    count = np.diff(np.append(start, len(x)))
    middle = np.add.reduceat(x, start) / count
    points = tuple(Points(method, middle, np.add.reduceat(trust, start) / count, mark=False, weight=_THIN)
                   for method, trust in told)
    return Panel(star.axis, "Prior share", note="0: data decide, 1: the prior does", points=points, y_range=(0.0, 1.4),
                 y_ticks=(0.0, 0.5, 1.0), x_range=(float(x[0]), float(x[-1])))


def star_sheet(star: Star) -> Sheet:
    """The whole spectrum, a residual panel for each method with its flags (wedges), and the share of prior."""
    x, whole = star.shown(star.spectra.wave), slice(None)
    reach = _reach([residual(a.middle[None], star.spectra)[0] for a in star.answers])
    panels = [replace(_flux(star, x, whole, 1.0), title=star.name)]
    panels += [replace(_residuals(star, [answer], x, whole, reach), note=said(star, answer),
                       y_range=(-reach, 1.75 * reach)) for answer in star.answers]  # with room for the note
    shares = [3.4] + [1.0] * len(star.answers)
    if (share := _prior_share(star, x)) is not None:
        panels, shares = [*panels, share], [*shares, 1.0]
    return grid([tuple(panels)], 1, tuple(shares), 15.0 * sum(shares) + 8)


def window_sheet(star: Star, columns: int = 2) -> Sheet:
    """The lines of WINDOWS, flux over residuals, dotted where the star's velocity puts them; for so many columns."""
    wave, panels = star.spectra.wave, []
    parts = [slice(*(int(i) for i in np.searchsorted(wave, ends))) for ends in shifted(star.velocity)]
    reach = _reach([residual(a.middle[None], star.spectra)[0, p] for a in star.answers for p in parts])
    ranges = np.array([_limits(star, part, 0.5) for part in parts])
    both = (float(ranges[:, 0].min()), float(ranges[:, 1].max()))  # one scale, for its numbers stand at the left alone
    for window, part in zip(WINDOWS, parts, strict=True):
        x = star.shown(wave[part])
        upper = _flux(star, x, part, 0.5)
        marks = tuple(Rule(np.full(2, c), array(both), dash="dot", colour=GREY)
                      for c in star.shown(array(doppler(array(window.centres), star.velocity))))
        upper = replace(upper, title=window.name, y_range=both, rules=(*marks, *upper.rules))
        panels.append((upper, _residuals(star, star.answers, x, part, reach)))
    return grid(panels, 5 if columns == 2 else 2, (1.8, 1.0), 62 if columns == 2 else 52)
