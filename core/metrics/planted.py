"""A line put into an observation: its shape and size, what an answer keeps of it, and which flag is its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.ndimage import correlate1d

from core.metrics.flags import Flag
from core.metrics.matched_filter import pixel, profile, strength
from core.spectrum import Array, Spectra

LN10 = float(np.log(10))
FWHM = float(np.sqrt(8 * np.log(2)))  #: full width at half maximum of a Gaussian of sigma 1
LIVE = 0.9  #: share of a line (of its squared profile) that must fall on live pixels
#: how a line's strength can be given, and its unit
UNITS = {"sigma": "standard deviations of the matched filter", "ew": "Angstrom of equivalent width",
         "depth": "units of the continuum, at the line's centre"}
MOST = {"sigma": 100.0, "ew": 50.0, "depth": 5.0}  #: largest strength, either sign
WIDTHS = (0.5, 60.0)  #: narrowest and widest full width at half maximum [Angstrom]


def angstrom(wave: Array) -> Array:
    """(L,) width of each pixel [Angstrom] of a grid uniform in log wavelength."""
    return np.asarray(wave * LN10 * pixel(wave))


def placed(pixels: int, place: int, offset: float, width: float) -> Array:
    """(L,) a Gaussian line of peak 1 on a spectrum of `pixels`: Gaussian sigma `width`, at place + offset [pixels]."""
    g, out = profile(width, offset), np.zeros(pixels)
    here = np.arange(len(g)) - len(g) // 2 + place
    ok = (here >= 0) & (here < pixels)
    out[here[ok]] = g[ok]
    return out


def live_enough(live: Array, width: float, offset: float) -> Array:
    """(L,) True in the places where at least LIVE of a line of this width [pixels] falls on live pixels."""
    g = profile(width, offset)
    return np.asarray(correlate1d(live.astype(float), g**2, mode="constant") > LIVE * (g**2).sum())


def width_in(wave: Array, row: Array, change: Array) -> Array:
    """(...) equivalent width [Angstrom] of a change of flux (..., L) in a line's own pixels (row > 0), + absorption."""
    return np.asarray(-(np.where(row > 0, change, 0.0) @ angstrom(wave)))


def own_flag(flags: Sequence[Flag], signed: float, at: float, width: float, wave: Array) -> Flag | None:
    """The strongest flag of a line's sign within three widths of it, or None.

    Args:
        flags: of one star; signed: strength, + absorption; at: centre [pixels]; width: Gaussian sigma [pixels].
    """
    dex = pixel(wave)
    near = [f for f in flags if f.strength * signed > 0 and abs(np.log10(f.wavelength / wave[0]) / dex - at)
            <= 3 * np.hypot(width, f.width / (f.wavelength * LN10 * dex)) + 1]
    return max(near, key=lambda f: abs(f.strength), default=None)


@dataclass(frozen=True)
class ByHand:
    """A line as somebody asks for it.

    Args:
        wavelength: of its centre in the observed frame, vacuum [Angstrom].
        strength: positive absorption, negative emission, 0 nothing at all; unit: one of UNITS.
        fwhm: full width at half maximum [Angstrom].

    Raises:
        ValueError: a unit that is none of UNITS, a number that is not finite or beyond MOST or WIDTHS.
    """

    wavelength: float
    strength: float
    unit: str
    fwhm: float

    def __post_init__(self) -> None:
        if self.unit not in UNITS:
            raise ValueError(f"a line's strength is given in {', '.join(UNITS)}, not in {self.unit!r}; choose one.")
        if not np.isfinite([self.wavelength, self.strength, self.fwhm]).all():
            raise ValueError("a line's wavelength, strength and width must be numbers; give three.")
        if abs(self.strength) > MOST[self.unit]:
            raise ValueError(f"a line of {abs(self.strength):g} {UNITS[self.unit]} is none that a star has; give at "
                             f"most {MOST[self.unit]:g}.")
        if not WIDTHS[0] <= self.fwhm <= WIDTHS[1]:
            raise ValueError(f"a width of {self.fwhm:g} Angstrom (full, at half maximum) cannot be put in; give "
                             f"{WIDTHS[0]:g} to {WIDTHS[1]:g}.")


    @property
    def text(self) -> str:
        """WAVELENGTH,STRENGTH,UNIT,FWHM, as a link and a command have it."""
        return f"{self.wavelength:.7g},{self.strength:.5g},{self.unit},{self.fwhm:.5g}"

    @classmethod
    def parse(cls, text: str) -> ByHand:
        """From `text`.

        Raises:
            ValueError: another form, and what the class refuses.
        """
        parts = text.split(",")
        try:
            wavelength, strength, fwhm = (float(parts[i]) for i in (0, 1, 3))
        except (ValueError, IndexError):
            parts = []
        if len(parts) != 4:
            raise ValueError("a line is written WAVELENGTH,STRENGTH,UNIT,WIDTH, as 6300,8,sigma,4; give it like that.")
        return cls(wavelength, strength, parts[2], fwhm)


@dataclass(frozen=True, eq=False)
class Planted:
    """A line as it was put into one star's observation.

    Args:
        line: as asked for; row: (L,) its shape, peak 1; spectra: the star (one row) with the line.
        at, width: centre and Gaussian sigma [pixels].
        sigma: strength [standard deviations of the matched filter under the star's own noise]; ew: equivalent width
            [Angstrom]; depth: at the centre [continuum]; all signed, + absorption.
    """

    line: ByHand
    row: Array
    spectra: Spectra
    at: float
    width: float
    sigma: float
    ew: float
    depth: float

    @property
    def change(self) -> Array:
        """(L,) what was added to the flux."""
        return -self.depth * self.row

    def kept(self, change: Array) -> Array:
        """(...) `width_in` of a change of the answer (..., L)."""
        return width_in(self.spectra.wave, self.row, change)

    def own(self, flags: Sequence[Flag]) -> Flag | None:
        """`own_flag` of this line; None of no line."""
        return own_flag(flags, self.sigma, self.at, self.width, self.spectra.wave)


def plant(spectra: Spectra, line: ByHand) -> Planted:
    """Puts a line into one star's observation; its noise stays as it is.

    Raises:
        ValueError: more than one star, a line outside the spectrum, or one on pixels that were not measured.
    """
    if len(spectra) != 1:
        raise ValueError(f"a line by hand goes into one star; {len(spectra)} were given.")
    wave, dex = spectra.wave, pixel(spectra.wave)
    if not wave[0] <= line.wavelength <= wave[-1]:
        raise ValueError(f"{line.wavelength:g} Angstrom lies outside the spectrum; give {wave[0]:.0f} to "
                         f"{wave[-1]:.0f}.")
    at = float(np.log10(line.wavelength / wave[0]) / dex)
    place, width = round(at), line.fwhm / FWHM / (line.wavelength * LN10 * dex)
    usable = live_enough(spectra.measured[0], width, at - place)
    if not usable[place]:
        near = np.flatnonzero(usable)
        remedy = (f"the nearest place that can have it is {wave[near[np.abs(near - place).argmin()]]:.1f} Angstrom"
                  if near.size else "make it narrower")
        raise ValueError(f"the pixels at {line.wavelength:g} Angstrom were not measured, or too few of them for a line "
                         f"of {line.fwhm:g}; {remedy}.")
    row = placed(len(wave), place, at - place, width)
    one = {"sigma": float(strength(spectra, row[None])[0]), "ew": float(row @ angstrom(wave)), "depth": 1.0}
    depth = line.strength / one[line.unit]
    seen = replace(spectra, flux=spectra.flux + -depth * row)
    return Planted(line, row, seen, at, width, depth * one["sigma"], depth * one["ew"], depth)


@dataclass(frozen=True)
class Verdict:
    """What one method does with a line that was put in by hand.

    Args:
        method: its name; kept: equivalent width in its answer, less that of its answer without the line [Angstrom];
        error: of `kept`, from how far its draws differ about that; None for a point estimate.
        width: 68 % half-width of the line's equivalent width by the method's own draws [Angstrom], None likewise.
        share: kept over what was put in, NaN of nothing; share_error: its error, None likewise.
        flag: of the line; before: one in its place without it.
        off: (put in - kept) / width, None of a point estimate or of draws that all agree.
    """

    method: str
    kept: float
    error: float | None
    width: float | None
    share: float
    share_error: float | None
    flag: Flag | None
    before: Flag | None
    off: float | None


def verdict(planted: Planted, method: str, draws: Array, without: Array, flags: Sequence[Flag],
            flags_without: Sequence[Flag]) -> Verdict:
    """One method's answers with and without the line, draw by draw from the same random numbers.

    Args:
        draws, without: (n, L) with the line and without it; one row each of a point estimate.

    Raises:
        ValueError: answers of different shapes.
    """
    if draws.shape != without.shape or draws.shape[1:] != planted.row.shape:
        raise ValueError(f"answers with the line {draws.shape} and without it {without.shape} do not belong together; "
                         "ask both for the same number of draws.")
    differences = planted.kept(draws - without)
    kept, n = float(differences.mean()), len(draws)
    error = float(differences.std(ddof=1) / np.sqrt(n)) if n > 1 else None
    low, high = np.quantile(planted.kept(draws), (0.16, 0.84))
    share = kept / planted.ew if planted.ew else float("nan")
    share_error = abs(error / planted.ew) if error is not None and planted.ew else None
    width = float(high - low) / 2 if n > 1 else None
    off = (planted.ew - kept) / width if width else None
    return Verdict(method, kept, error, width, share, share_error, planted.own(flags), planted.own(flags_without), off)
