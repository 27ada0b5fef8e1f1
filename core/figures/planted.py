"""A line put in by hand, a column for each method: its answer with and without the line over what it kept of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from core.figures.sheets import Panel, Points, Rule, Sheet, around, flat, grid
from core.figures.star import Star, drawn, gaps, observed
from core.figures.style import GREY, style
from core.metrics.planted import Planted, Verdict
from core.spectrum import Array

_SIDES = 6.0  # full widths shown on either side
_LEAST = 25.0  # Angstrom at least


def _part(planted: Planted) -> slice:
    """The pixels of the window."""
    wave, half = planted.spectra.wave, max(_SIDES * planted.line.fwhm, _LEAST)
    low, high = np.searchsorted(wave, (planted.line.wavelength - half, planted.line.wavelength + half))
    return slice(int(low), int(high))


def kept_words(verdict: Verdict) -> str:
    """The share of the line that a method kept, with the error of its draws, to a per cent."""
    if np.isnan(verdict.share):
        return "nothing put in"
    error = "" if verdict.share_error is None else f" ± {max(100 * verdict.share_error, 1):.0f}"
    return f"kept {100 * verdict.share:.0f}{error} %"


def flag_words(verdict: Verdict) -> str:
    """Whether the line is flagged, how strongly, and how often noise alone gives as much."""
    if verdict.flag is None:
        return "no flag"
    p = verdict.flag.p_value
    return f"flag {abs(verdict.flag.strength):.1f} sigma, " + (f"p = {p:.1g}" if p >= 0.001 else "p < 0.001")


def planted_sheet(star: Star, planted: Planted, without: Sequence[Array], verdicts: Sequence[Verdict],
                  across: int = 4) -> Sheet:
    """The window of the line, a column for each method.

    Args:
        star: with the line, whose answers are those with it; planted: the line; without: (n, L) draws of the same
            methods without it; verdicts: of the same methods; across: columns beside each other.

    Raises:
        ValueError: answers, draws without the line and verdicts of different numbers; no method.
    """
    if not len(star.answers) == len(without) == len(verdicts) > 0:
        raise ValueError(f"{len(star.answers)} answers, {len(without)} without the line and {len(verdicts)} verdicts; "
                         "give one of each for every method, and at least one method.")
    part = _part(planted)
    x, live = star.shown(planted.spectra.wave[part]), planted.spectra.measured[0, part]
    band, rules = observed(star, x, part)
    put = planted.change[part]
    changes = [a.draws.mean(axis=0)[part] - w.mean(axis=0)[part] for a, w in zip(star.answers, without, strict=True)]
    curves = [a.middle[part] for a in star.answers] + [np.median(w, axis=0)[part] for w in without]
    seen = star.spectra.flux[0, part]
    own = live & (planted.row[part] > 0.1)  # the line itself is to be seen to its bottom, whatever the noise does to it
    flux_range = around([*curves, np.percentile(seen[live], [2, 98]), seen[own]])
    change_range = around([put, *changes], zero=True)
    ends, columns = (float(x[0]), float(x[-1])), []
    for answer, before, verdict, change in zip(star.answers, without, verdicts, changes, strict=True):
        middle, its_band = drawn(answer, x, part)
        old = Rule(x, np.median(before, axis=0)[part], "answer without the line", dash="dot")
        upper = Panel("", "Flux / continuum", style(answer.method).name, points=(replace(middle, legend=False),),
                      rules=(*rules, old), bands=(band, *its_band), spans=(gaps(x, live),), x_range=ends,
                      y_range=flux_range)
        lower = Panel(star.axis, "Change", note=f"{kept_words(verdict)}\n{flag_words(verdict)}",
                      points=(Points(answer.method, x, change, mark=False, legend=False),), x_range=ends,
                      y_range=_roomy(change_range), spans=(gaps(x, live),),
                      rules=(flat(ends, 0.0), Rule(x, put, "line put in", dash="dash", colour=GREY)))
        columns.append((upper, lower))
    return grid(columns, across, (1.6, 1.2), 56)


def _roomy(span: tuple[float, float]) -> tuple[float, float]:
    """With room for two lines of a note above."""
    return span[0], span[1] + 0.8 * (span[1] - span[0])
