"""There is something here that this method has removed: flags on a reconstruction."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import chdtri

from core.metrics.false_alarms import Calibration, Nominal, Null
from core.metrics.matched_filter import RESOLUTION, WIDTHS, Scan, pixel
from core.spectrum import Array, Spectra

#: A prior may explain at most this part of a line's variance away before the test is capped: beyond, no draws can
#: tell how little is left, and the cap errs on the side of silence.
_LEAST = 0.05


@dataclass(frozen=True)
class Flag:
    """A line that the observation holds and the reconstruction does not, or the other way round.

    Args:
        wavelength: vacuum [Angstrom]; width: Gaussian sigma [Angstrom] of the best of the widths searched.
        strength: in standard deviations of the matched filter, or of what nothing gives there where that was measured:
            positive where absorption was removed (or emission painted), negative where emission was removed (or
            absorption painted).
        p_value: that noise gives one as strong anywhere in this star, at any width searched.
        equivalent_width: of what was removed [Angstrom], against the Spectra's own continuum; signed like strength.
    """

    wavelength: float
    width: float
    strength: float
    p_value: float
    equivalent_width: float


def sharpened(norm: Array, spread: Array, n: int) -> Array:
    """t' (N + P)^-1 t as n draws prove it: t' N^-1 t (`norm`) less the lower limit of what they explain, and a floor.

    Args:
        norm, spread: of one shape; spread is the sum over draws of their squared filtered distance from their mean.
    """
    # sum of squares / chi2: the lower limit of the variance; and the mean of n draws carries 1 / n of it itself
    return np.maximum(norm - (1 - 1 / n) * spread / chdtri(n - 1, 0.001), _LEAST * norm)


def significance(scan: Scan, model_mean: npt.ArrayLike, draws: npt.ArrayLike | None = None,
                 calibration: Calibration | None = None) -> Array:
    """(B, M, L) the statistic T of every width, place and star; positive where absorption was removed, 0 where unseen.

    T = -t' N^-1 (y - x_hat) / sqrt(v). For a Gaussian prior of covariance P, N^-1 (y - x_hat) = (N + P)^-1 (y - mu):
    the filtered residual of the posterior mean *is* the best test for a line outside the prior, and only its variance
    is smaller than the noise's: v = t' (N + P)^-1 t = t' N^-1 t - t' N^-1 Sigma N^-1 t, Sigma the posterior covariance
    (Woodbury). So:

    * without draws, v = t' N^-1 t. Right for a method that fits nothing, too large for one that fits: fewer false
      alarms than stated and less power, the more of a line's shape the prior can imitate.
    * with draws, t' N^-1 Sigma N^-1 t is the variance of the filtered draws, less what few draws leave uncertain
      (its 99.9 % lower limit). Right for any method whose draws are honest; for one whose draws are too wide it alarms
      too often, which `Calibration` mends.
    * with a calibration that knows the method's `Misfit`, T is divided by the spread it really has, place by place:
      what the prior explains and what it misfits are in it, and draws, which say the first with the error of few of
      them, are better left out (docs/judge.md has the powers).

    Args:
        scan: of the spectra; model_mean: (B, L) the reconstruction; draws: (n, B, L) its draws, n >= 2, or None.
        calibration: the method's null, or None for T under the noise.

    Raises:
        ValueError: shapes that disagree with the spectra or the calibration, values not finite, or a single draw.
    """
    shape = scan.spectra.flux.shape
    mean = np.asarray(model_mean, dtype=np.float64)
    if mean.shape != shape or not np.isfinite(mean).all():
        raise ValueError(f"model_mean has shape {mean.shape}; it must be {shape} and finite, as the spectra's flux.")
    variance = scan.norm
    if draws is not None:
        stack = np.asarray(draws, dtype=np.float64)
        n = len(stack)
        if stack.shape[1:] != shape or n < 2 or not np.isfinite(stack).all():
            raise ValueError(f"draws have shape {stack.shape}; give at least two, finite, of shape {shape}, or None.")
        centre = stack.mean(axis=0)
        spread = np.zeros_like(scan.norm)
        if not (stack == stack[0]).all():  # a point estimate repeats itself, and its spread is none
            for draw in stack:
                spread += scan.score(draw - centre) ** 2
        variance = sharpened(scan.norm, spread, n)
    with np.errstate(invalid="ignore", divide="ignore"):
        t = -scan.score(scan.spectra.flux - mean) / np.sqrt(variance)
    t = np.where(scan.seen, t, 0.0)
    return t if calibration is None else calibration.standardized(scan, t)


def maxima(spectra: Spectra, model_mean: npt.ArrayLike, draws: npt.ArrayLike | None = None,
           resolution: float = RESOLUTION, widths: tuple[float, ...] = WIDTHS) -> Array:
    """(B,) largest |T| of each star; on null stars what `Calibration.fit` wants. Arguments as in `flags`."""
    t = significance(Scan(spectra, resolution, widths), model_mean, draws)
    return np.asarray(np.abs(t).max(axis=(1, 2)))


def flags(spectra: Spectra, model_mean: npt.ArrayLike, draws: npt.ArrayLike | None = None, level: float = 0.01,
          calibration: Calibration | None = None, resolution: float = RESOLUTION,
          widths: tuple[float, ...] = WIDTHS) -> list[list[Flag]]:
    """What each reconstruction has removed or painted, strongest first; nothing is flagged in at most `level` of stars.

    The strongest place and width of a star is a flag where its p-value, corrected for all of them, is at most `level`;
    then the next outside its reach, so two lines closer than four of their widths are one flag.

    Args:
        spectra: B observed spectra; model_mean: (B, L) reconstruction in the same unit.
        draws: (n, B, L) of the same answer, for the sharper test of `significance`; None for the nominal one.
        level: false alarms per star, in (0, 1).
        calibration: the null measured for this method, made with the same choice about draws; by default the bound of
            `Nominal` under the noise alone.
        resolution: Gaussian sigma of the instrument [dex]; widths: searched, in units of it.

    Raises:
        ValueError: shapes that disagree, a level outside (0, 1), a grid not uniform in log wavelength.
    """
    return flags_of(Scan(spectra, resolution, widths), model_mean, draws, level, calibration)


def flags_of(scan: Scan, model_mean: npt.ArrayLike, draws: npt.ArrayLike | None = None, level: float = 0.01,
             calibration: Calibration | None = None) -> list[list[Flag]]:
    """`flags` of spectra that were scanned before: their noise costs most and does not change with the method."""
    if not 0 < level < 1:
        raise ValueError(f"level {level} is not a false-alarm rate; give one in (0, 1), such as 0.01.")
    t = significance(scan, model_mean, draws, calibration)
    flux = scan.spectra.flux
    nulls: list[Null] = [calibration] * len(flux) if calibration is not None else list(Nominal.of(scan))
    amplitude = -scan.score(flux - np.asarray(model_mean)) / np.where(scan.seen, scan.norm, 1.0)
    return [_peaks(scan, t[b].copy(), amplitude[b], nulls[b], level) for b in range(len(flux))]


def _peaks(scan: Scan, t: Array, amplitude: Array, null: Null, level: float) -> list[Flag]:
    """Flags of one star from its statistic (M, L) and the amplitude (M, L) that fits best in each place."""
    wave, dex = scan.spectra.wave, pixel(scan.spectra.wave)
    place = np.arange(len(wave)) + scan.offset[:, None]
    found: list[Flag] = []
    while True:
        m, i = np.unravel_index(int(np.abs(t).argmax()), t.shape)
        p = float(null.p_value(abs(t[m, i])))
        if p > level or t[m, i] == 0:
            return found
        width = float(scan.width[m])
        centre = float(wave[0] * 10 ** (place[m, i] * dex))
        angstrom = centre * np.log(10) * dex  # of one pixel there
        area = float(np.sqrt(2 * np.pi) * width * angstrom * amplitude[m, i])
        found.append(Flag(centre, width * angstrom, float(t[m, i]), p, area))
        t[np.abs(place - place[m, i]) <= 4 * np.hypot(width, scan.width)[:, None] + 1] = 0.0
