"""How often nothing looks like something: the null of a scan's maximum, by theory or measured, and the best power."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr, ndtri, owens_t

from core.metrics.matched_filter import Scan, profile
from core.metrics.misfit import Misfit
from core.spectrum import Array, Kernel


class Null(Protocol):
    """What says how often nothing gives a maximum this large: `Nominal` of one star, or a `Calibration`."""

    def p_value(self, maximum: npt.ArrayLike) -> Array:
        """Probability, of the shape of `maximum`, that a star with nothing removed reaches it."""


def limit(strength: npt.ArrayLike, trials: float, false_alarm: float = 0.01) -> Array:
    """Power of the matched filter on one known line at the threshold that so many trials need.

    With threshold u, 2 (1 - Phi(u)) = 1 - (1 - false_alarm)^(1 / trials) (Sidak), power is Phi(s - u) + Phi(-s - u).
    About 60 % at 5 and 95 % at 6.5 standard deviations among 4000 trials. A scan that counts a flag beside the line as
    well finds a few per cent more near the threshold (noise lifts a neighbour), and loses a few where the line lies
    between the places and widths searched.

    Args:
        strength: amplitude over its standard deviation, any shape; trials: independent places and widths searched.
        false_alarm: chance of at least one flag on a star with nothing, in (0, 1).

    Raises:
        ValueError: fewer than one trial, or a false-alarm rate outside (0, 1).
    """
    if not trials >= 1 or not 0 < false_alarm < 1:
        raise ValueError(f"{trials} trials at false-alarm rate {false_alarm}; give at least 1 and a rate in (0, 1).")
    u = -ndtri(-np.expm1(np.log1p(-false_alarm) / trials) / 2)
    s = np.abs(np.asarray(strength, dtype=np.float64))
    return np.asarray(ndtr(s - u) + ndtr(-s - u))


def _likeness(noise_rho: float, wave: float, width: Array, offset: Array) -> Array:
    """(M,) correlation of each channel's statistic with its nearest neighbour: a step back, or a width below."""
    size = 512  # pixels; ten times the widest line
    centre, side = Kernel(rho=(noise_rho, noise_rho)).taps(np.array([wave]))
    omega = 2 * np.pi * np.arange(size // 2 + 1) / size
    power = np.maximum((centre[0] + 2 * side[0] * np.cos(omega)) ** 2, 1e-3)

    def spectrum(w: float, o: float) -> npt.NDArray[np.complex128]:
        g = profile(w, o - np.floor(o))
        out = np.zeros(size)
        out[: len(g)] = g
        return np.fft.rfft(np.roll(out, int(np.floor(o)) - len(g) // 2))

    def inner(a: npt.NDArray[np.complex128], b: npt.NDArray[np.complex128]) -> float:
        weight = np.where((np.arange(len(omega)) % (size // 2)) == 0, 1.0, 2.0)
        return float((weight * (a * np.conj(b)).real / power).sum())

    out = []
    for w, o in zip(width, offset, strict=True):
        step = 0.5 if np.isclose(width, w).sum() == 2 else 1.0
        below = width[width < 0.999 * w]
        near = [spectrum(w, o - step)] + ([spectrum(below.max(), o)] if len(below) else [])
        here = spectrum(w, o)
        out.append(max(inner(here, g) / np.sqrt(inner(here, here) * inner(g, g)) for g in near))
    return np.clip(out, 0.0, 1.0)


@dataclass(frozen=True)
class Nominal:
    """The null of one star's maximum under its noise alone: an upper bound that knows its neighbours.

    P(max |T| > u) <= sum_i [P(|T_i| > u) - P(|T_i| > u, |T_parent(i)| > u)] over any tree of places and widths
    (Hunter 1976, J. Appl. Prob. 13, 597; Worsley 1982, Biometrika 69, 297), each term at most
    4 OwensT(u, sqrt((1 - c) / (1 + c))) for a correlation c with the parent. It counts what Gross & Vitells 2010
    (EPJC 70, 525) count, upcrossings, without a simulation, and it stays a bound where lines are narrower than pixels
    and their continuous field is none. c is that of evenly measured pixels; measured, the bound is 1 to 2 times the
    rate (tests/test_flags.py).

    Args:
        places: how many statistics of each kind were looked at; slope: sqrt((1 - c) / (1 + c)) of each kind.
    """

    places: tuple[float, ...]
    slope: tuple[float, ...]

    @classmethod
    def of(cls, scan: Scan) -> list[Nominal]:
        """One for each star of a scan."""
        spectra = scan.spectra
        red = spectra.wave >= spectra.noise.join
        slopes = []
        for rho in spectra.noise.rho:
            c = _likeness(rho, float(spectra.wave[0]), scan.width, scan.offset)
            slopes.append(np.sqrt((1 - c) / (1 + c)))
        slope = tuple(float(s) for s in np.concatenate(slopes))
        return [cls(tuple(float(n) for n in np.concatenate([(seen & ~red).sum(-1), (seen & red).sum(-1)])), slope)
                for seen in scan.seen]

    def p_value(self, maximum: npt.ArrayLike) -> Array:
        u = np.asarray(maximum, dtype=np.float64)
        terms = 4 * owens_t(u[..., None], np.array(self.slope)) @ np.array(self.places)
        return np.asarray(np.clip(2 * ndtr(-u) + terms, 0.0, 1.0))

    def trials(self, false_alarm: float = 0.01) -> float:
        """How many independent tests would have this star's false-alarm rate: what `limit` wants."""
        low, high = 0.0, 40.0
        for _ in range(60):  # bisection: the p-value falls with u
            middle = (low + high) / 2
            low, high = (middle, high) if self.p_value(middle) > false_alarm else (low, middle)
        return max(1.0, float(np.log1p(-false_alarm) / np.log1p(-2 * ndtr(-high))))


@dataclass(frozen=True)
class Calibration:
    """The null of a method's maximum, measured: what it gives on stars of which it removed nothing that matters.

    Down to p = 0.1 the p-value is the fraction of measured maxima at least as large, (1 + k) / (1 + n). Beyond u_0, the
    maximum there, it falls as p_0 exp(-(u^2 - u_0^2) / (2 tau)), the tail of upcrossings of a Gaussian field (Gross &
    Vitells 2010, EPJC 70, 525, eq. 3), with tau of maximum likelihood plus one standard error, to be on the safe side.

    With a `misfit`, maxima are those of T over the spread that it says; T is divided by it before a p-value is asked.

    Args:
        maxima: largest |T| of each null star (`maxima`), any order; misfit: of the same null stars, or None.

    Raises:
        ValueError: fewer than 100 of them, or values not finite or negative.
    """

    maxima: tuple[float, ...]
    misfit: Misfit | None = None

    def __post_init__(self) -> None:
        values = np.sort(np.asarray(self.maxima, dtype=np.float64))
        if values.ndim != 1 or len(values) < 100:
            raise ValueError(f"{values.size} null maxima; a tail of 1 % needs at least 100, better 400.")
        if not np.isfinite(values).all() or (values < 0).any():
            raise ValueError("null maxima must be finite and not negative; give what `maxima` returns.")
        object.__setattr__(self, "maxima", tuple(float(v) for v in values))

    @classmethod
    def fit(cls, maxima: npt.ArrayLike, misfit: Misfit | None = None) -> Calibration:
        """From an array of any shape."""
        return cls(tuple(np.asarray(maxima, dtype=np.float64).ravel().tolist()), misfit)

    @classmethod
    def of(cls, t: Array, norm: Array, folds: int = 5) -> Calibration:
        """The misfit of null stars, and the maxima of each under the misfit of the others.

        Under a misfit that it helped to measure, a star's own oddities would look smaller than a new star's will.

        Args:
            t: (B, M, L) `core.metrics.flags.significance` of null stars, 0 where unseen; norm: (B, M, L) `Scan.norm`.
            folds: parts that the stars are dealt into.

        Raises:
            ValueError: fewer than 100 stars, fewer than two folds, shapes that disagree, nothing seen.
        """
        if not 2 <= folds <= len(t):
            raise ValueError(f"{folds} folds of {len(t)} stars; give at least 2, and no more than stars.")
        whole, top, fold = Misfit.fit(t, norm), np.zeros(len(t)), np.arange(len(t)) % folds
        for j in range(folds):
            mine = fold == j
            sigma = Misfit.fit(t[~mine], norm[~mine]).sigma(norm[mine], t[mine] != 0)
            top[mine] = np.abs(t[mine] / sigma).max(axis=(1, 2))
        return cls.fit(top, whole)

    def standardized(self, scan: Scan, t: Array) -> Array:
        """(B, M, L) T of some stars over the spread that nothing gives it there; T itself without a misfit."""
        return t if self.misfit is None else t / self.misfit.sigma(scan.norm, scan.seen)

    @classmethod
    def from_arrays(cls, stored: Mapping[str, Array]) -> Calibration:
        """From what `to_arrays` gave."""
        return cls.fit(stored["maxima"], Misfit.from_arrays(stored) if "place" in stored else None)

    def to_arrays(self) -> dict[str, Array]:
        """Arrays to be stored, single precision: np.savez needs no pickle for them."""
        return {"maxima": np.array(self.maxima, dtype=np.float32),
                **(self.misfit.to_arrays() if self.misfit is not None else {})}

    def p_value(self, maximum: npt.ArrayLike) -> Array:
        u, values = np.asarray(maximum, dtype=np.float64), np.array(self.maxima)
        n = len(values)
        k = int(np.ceil(0.1 * n))
        start, p0 = values[n - k], (1 + k) / (1 + n)
        tau = max(float((values[n - k:] ** 2 - start**2).mean() / 2), 1e-12) * (1 + 1 / np.sqrt(k))
        inside = (1 + n - np.searchsorted(values, u, side="left")) / (1 + n)
        return np.asarray(np.where(u <= start, inside, p0 * np.exp(-np.maximum(u**2 - start**2, 0.0) / (2 * tau))))
