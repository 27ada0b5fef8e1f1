"""What page Audit shows: what each method does with a line put in by hand, and what it did with many others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import streamlit as st

from app import first, study
from app.lines_shown import content, samples
from app.shown import Answer, Look, Star
from app.styles import style
from core import believed
from core.figures import compose
from core.figures import star as figures
from core.figures.planted import planted_sheet
from core.figures.sheets import Sheet
from core.metrics.false_alarms import Nominal, limit
from core.metrics.flags import Flag
from core.metrics.matched_filter import Scan
from core.metrics.planted import ByHand, Planted, Verdict, plant, verdict
from core.spectrum import Spectra

RESULTS = Path(__file__).resolve().parents[1] / "results"
LEVEL = 0.01  #: false alarms per star at which flags are raised
NEAR = 3.0  #: FWHM within which two lines are one to a filter
UNSURE = 2.0  #: of its own standard deviations within which a method knows what it lost
KEPT, GONE = 0.75, 0.25  #: shares of a line from which it is called kept, and below which removed
HELP = (
    "The same draws twice: once of the star, once of the star with the line. **Kept** is the difference of both mean "
    "answers over the line's own pixels; its error is how far the draws differ about that. **Its own 68 %** is how "
    "uncertain the method says the line's equivalent width is; **off by** is what it lost, in units of that. A "
    "**flag** is the matched filter's word that something is in the data which the answer lacks; p is the chance that "
    "noise gives as much anywhere in the star.")


@dataclass(frozen=True, eq=False)
class Audited:
    """A line put in by hand, and what became of it.

    Args:
        planted: the line; limit: power of the matched filter for it, of its trials at LEVEL.
        star: the figure's star, with the line; without: draws of the same methods without it; verdicts: of them.
    """

    planted: Planted
    limit: float
    star: figures.Star
    without: tuple[np.ndarray, ...]
    verdicts: tuple[Verdict, ...]

    @property
    def sheet(self) -> Sheet:
        """The window, a column for each method."""
        return planted_sheet(self.star, self.planted, self.without, self.verdicts)


def put(spectra: Spectra, line: ByHand) -> tuple[Planted | None, str]:
    """The line in the star, or the sentence why it cannot be put in."""
    try:
        return plant(spectra, line), ""
    except ValueError as error:
        return None, str(error)[:1].upper() + str(error)[1:]


@st.cache_resource(show_spinner=False, max_entries=256)
def _flags(name: str, _look: Look, _answer: Answer) -> list[Flag]:
    """Flags of one answer, by what was answered; nobody may write into them."""
    return believed.flagged(samples(_look, _answer), _look.spectra, LEVEL)[0]


@st.cache_resource(show_spinner=False, max_entries=64)
def _trials(name: str, _spectra: Spectra) -> float:
    """How many places and widths the filter looks at in one star."""
    return float(Nominal.of(Scan(_spectra))[0].trials(LEVEL))


def together(plain: Look, seen: Look) -> Look:
    """A look that waits for both questions, each method once, the one without the line first."""
    waiting = {one.method: one for one in (*seen.waiting, *plain.waiting)}
    cancelled = tuple(dict.fromkeys([*plain.cancelled, *seen.cancelled]))
    return replace(seen, waiting=tuple(waiting.values()), cancelled=cancelled)


def audited(plain: Look, seen: Look, planted: Planted, air: bool = False, rest: bool = False) -> Audited:
    """What the methods that have answered both questions do with the line.

    Args:
        plain, seen: the star without and with the line; air, rest: of the figure's wavelengths.
    """
    before = {answer.method: answer for answer in plain.answers}
    answers = [answer for answer in seen.answers if answer.method in before]
    flags = [_flags(content(seen, a), seen, a) for a in answers]
    earlier = [_flags(content(plain, before[a.method]), plain, before[a.method]) for a in answers]
    verdicts = tuple(verdict(planted, a.method, a.drawn, before[a.method].drawn, new, old)
                     for a, new, old in zip(answers, flags, earlier, strict=True))
    truth = plain.star.truth
    star = figures.Star(
        planted.spectra, plain.star.name, tuple(figures.Answer(a.method, a.drawn, tuple(f))
                                                for a, f in zip(answers, flags, strict=True)),
        None if truth is None else truth + planted.change, "truth and line", plain.star.velocity, air, rest)
    trials = _trials(content(plain, None), plain.spectra)
    return Audited(planted, float(limit(planted.sigma, trials, LEVEL)), star,
                   tuple(before[a.method].drawn for a in answers), verdicts)


def headline(found: Audited) -> str:
    """What was put in, in every unit, and what the best possible test could find."""
    planted, line = found.planted, found.planted.line
    if planted.sigma == 0:
        return (f"**Nothing put in** at {line.wavelength:.1f} Å: the control. Both answers must be the same, and a "
                "flag here is one that the star has without a line.")
    kind, size = ("Absorption", "depth") if planted.sigma > 0 else ("Emission", "height")
    deep = " (deeper than the star's own light: no real line is)" if planted.depth > 1 else ""
    power = "over 99" if found.limit > 0.995 else f"{100 * found.limit:.0f}"
    return (f"**{kind}** at {line.wavelength:.1f} Å (vacuum, observed), FWHM {line.fwhm:g} Å: EW {abs(planted.ew):.2f} "
            f"Å, {size} {abs(planted.depth):.2f} of the continuum{deep}. In this noise that is "
            f"**{abs(planted.sigma):.1f} σ** to a matched filter, which finds such a line anywhere in a star in "
            f"**{power} %** of cases at one false alarm in {1 / LEVEL:.0f} stars; no test does better.")


def blend(star: Star, line: ByHand) -> str:
    """A sentence where the line lies on one that was put into this star when it was simulated, else nothing."""
    at = first.planted(star)
    if not abs(at - line.wavelength) <= NEAR * line.fwhm:  # NaN: no such line
        return ""
    return (f"This star already has a line at {at:.0f} Å, put in when it was simulated: what is said here is of both. "
            "Move yours away, or take another star.")


def _did(v: Verdict) -> str:
    """Keeps, removes or flags, in words."""
    if np.isnan(v.share):
        return "nothing to keep"
    what = "keeps it" if v.share >= KEPT else "removes it" if v.share < GONE else "keeps part of it"
    if v.flag is not None:
        return f"{what}, and is flagged"
    if v.share >= KEPT:
        return what
    return f"{what}, unsure of it" if v.off is not None and abs(v.off) <= UNSURE else f"{what}, without a flag"


def _flag_words(v: Verdict) -> str:
    if v.flag is None:
        return "none here before either" if v.before is None else "none now; there was one without the line"
    what = "absorption" if v.flag.strength > 0 else "emission"
    said = f"{what} missing, {abs(v.flag.strength):.1f} σ, p = {v.flag.p_value:.1g}"
    return said if v.before is None else f"{said} (without the line too: {abs(v.before.strength):.1f} σ)"


def unknown(found: Audited) -> str:
    """Which methods' flags rest on the noise alone, because their own errors were never measured."""
    names = [style(v.method).name for v in found.verdicts if not believed.has_null(v.method)]
    if not names:
        return "Flags are tested against each method's own errors, as measured on simulated stars."
    return (f"Of {', '.join(names)} nothing is known about errors of its own: its flags are tested against the noise "
            "alone, and a flag may be the method's own fault.")


def table(found: Audited) -> pd.DataFrame:
    """A row for each method, for the eye."""
    rows = []
    for v in found.verdicts:
        error = "" if v.error is None else f" ± {v.error:.2f}"
        share_error = "" if v.share_error is None else f" ± {100 * v.share_error:.0f}"
        rows.append({
            "Method": style(v.method).name, "What it does": _did(v), "EW kept [Å]": f"{v.kept:+.2f}{error}",
            "Share kept [%]": "" if np.isnan(v.share) else f"{100 * v.share:.0f}{share_error}",
            "Its own 68 % [Å]": "no error bar" if v.width is None else f"± {v.width:.2f}",
            "Off by [its own σ]": "" if v.off is None else f"{v.off:.1f}", "Flag": _flag_words(v)})
    return pd.DataFrame(rows).set_index("Method") if rows else pd.DataFrame()


# --------------------------------------------------------------------------------------------- the committed audit


@st.cache_resource(show_spinner=False)
def _lines() -> pd.DataFrame | None:
    """The lines of the committed audit, None where it is not there; nobody may write into it."""
    file = RESULTS / "audit.parquet"
    if not file.exists():
        return None
    rows = pd.read_parquet(file)
    return rows[rows["experiment"].str.replace(" ", "_").isin(["put_in", "take_out"])]


@dataclass(frozen=True, eq=False)
class Curves:
    """The committed audit's curves, or the words why there are none."""

    sheet: Sheet | None
    said: str


def curves(look: Look, experiment: str, methods: Sequence[str]) -> Curves:
    """The audit of many lines at the S/N nearest to the star's, of the chosen methods that were audited there."""
    rows = _lines()
    if rows is None:
        return Curves(None, "The audit's table is not in this checkout; make it: `python -m scripts.evaluate audit`.")
    rows = rows[rows["experiment"].str.replace(" ", "_") == experiment]
    mine = rows[rows["method"].isin(methods)]
    if mine.empty:
        return Curves(None, "None of the chosen methods was audited; choose mixture or exact in the bar.")
    at = sorted(mine["snr"].unique())
    snr = float(min(at, key=lambda s: abs(np.log(s / look.measured))) if look.measured > 0 else at[0])
    there = [m for m in methods if ((mine["method"] == m) & (mine["snr"] == snr)).any()]
    unknown = [style(m).name for m in methods if m not in there and m != "noisy"]
    said = (f"Simulated stars, S/N {snr:g}, {len(mine[(mine['snr'] == snr) & (mine['method'] == there[0])])} lines a "
            "method.") + (f" Nothing is known at this S/N of {', '.join(unknown)}." if unknown else "")
    said += f" {study.audit_of(rows)}" if "exact" in methods else ""
    return Curves(compose.audit_curves(mine, experiment, there, snr), said)


