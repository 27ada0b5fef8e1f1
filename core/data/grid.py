"""The working grid: log-spaced vacuum wavelengths, air and vacuum, resampling with variance, units of the continuum."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from core.spectrum import Array, Spectra

LOGLAM0 = 3.57  #: log10 of the first vacuum wavelength [Angstrom]
STEP = 1e-4  #: log10 step of a pixel, 69 km/s
N_PIXELS = 3840
LOGLAM: Array = LOGLAM0 + STEP * np.arange(N_PIXELS, dtype=np.float64)
WAVE: Array = 10.0**LOGLAM  #: (3840,) vacuum wavelength [Angstrom], 3715-8993; a slice of LAMOST's own grid
C_KMS = 299792.458  #: speed of light [km/s]
ARM_JOIN_WIDTH = 30.0  #: Angstrom over which the pipeline blends the arms

# A pixel may sit this far [pixels] from the grid and still be taken as on it: LAMOST writes wavelengths as
# float32, which alone moves them by up to 0.002 pixels; 0.02 pixels are 1.4 km/s.
_ALIGNED = 0.02

_BIN = 32  # pixels a bin: wide enough that one bin has S/N 8 where a pixel has 1.5
_KNOTS = 12  # B-splines over the range: spacing of 10 % in wavelength, wider than any Balmer line
_SMOOTH = 20.0  # weight of squared second differences of log-curve coefficients: carries the curve over gaps
_BLANKETING = 0.05  # lines scatter a bin about the curve by this fraction of it, so no bin counts as more exact
_STEPS = 16  # Gauss-Newton steps; sixty move the curve by less than 0.5 % from here


def refractive_index(vacuum: npt.ArrayLike) -> Array:
    """Index of standard dry air at a vacuum wavelength [Angstrom] (Birch & Downs 1994; Morton 2000, ApJS 130, 403)."""
    s2 = (1e4 / np.asarray(vacuum, dtype=np.float64)) ** 2
    return 1.0 + 8.34254e-5 + 2.406147e-2 / (130.0 - s2) + 1.5998e-4 / (38.9 - s2)


def vacuum_to_air(vacuum: npt.ArrayLike) -> Array:
    """Air wavelength [Angstrom] of a vacuum wavelength [Angstrom]; same shape."""
    vacuum = np.asarray(vacuum, dtype=np.float64)
    return vacuum / refractive_index(vacuum)


def air_to_vacuum(air: npt.ArrayLike) -> Array:
    """Vacuum wavelength [Angstrom] of an air wavelength [Angstrom]: the exact inverse of `vacuum_to_air`."""
    air = np.asarray(air, dtype=np.float64)
    vacuum = air
    for _ in range(4):  # contracts by 1e-5 a step, so four reach machine precision
        vacuum = air * refractive_index(vacuum)
    return vacuum


def doppler(wave: npt.ArrayLike, velocity: float) -> Array:
    """Wavelength observed from a source receding at `velocity` [km/s], relativistic; same shape as `wave`."""
    beta = velocity / C_KMS
    return np.asarray(wave, dtype=np.float64) * np.sqrt((1 + beta) / (1 - beta))


def _edges(wave: Array) -> Array:
    """Pixel edges (l + 1,) half-way in log wavelength between pixel centres."""
    log = np.log(wave)
    middle = (log[1:] + log[:-1]) / 2
    return np.concatenate([[2 * log[0] - middle[0]], middle, [2 * log[-1] - middle[-1]]])


def resample(wave: npt.ArrayLike, flux: npt.ArrayLike, ivar: npt.ArrayLike,
             onto: npt.ArrayLike = WAVE) -> tuple[Array, Array]:
    """Mean flux and inverse variance in the pixels of another grid (overlap-weighted: Carnall 2017, arXiv:1705.05165).

    A new pixel that no old pixel covers, or that one with ivar = 0 covers by more than 1 %, gets ivar = 0. Neighbouring
    new pixels share old ones, so their noise is correlated; `ivar` is right pixel by pixel.

    Args:
        wave: (l,) vacuum wavelength [Angstrom], rising.
        flux: (..., l) flux density.
        ivar: (..., l) inverse variance.
        onto: (L,) vacuum wavelength [Angstrom], rising.

    Returns:
        flux (..., L) and ivar (..., L).
    """
    wave, onto = np.asarray(wave, dtype=np.float64), np.asarray(onto, dtype=np.float64)
    flux, ivar = np.asarray(flux, dtype=np.float64), np.asarray(ivar, dtype=np.float64)
    old, new = _edges(wave), _edges(onto)
    first = np.clip(np.searchsorted(old, new[:-1], side="right") - 1, 0, len(wave) - 1)
    last = np.clip(np.searchsorted(old, new[1:], side="left"), 1, len(wave))
    count = np.maximum(last - first, 1)  # old pixels each new one touches
    rows = np.repeat(np.arange(len(onto)), count)
    within = np.arange(len(rows)) - np.repeat(np.cumsum(count) - count, count)
    cols = np.minimum(np.repeat(first, count) + within, len(wave) - 1)
    overlap = np.minimum(old[cols + 1], new[rows + 1]) - np.maximum(old[cols], new[rows])
    weight = np.maximum(overlap, 0.0) / (new[rows + 1] - new[rows])
    from scipy.sparse import csr_array  # here: LAMOST's own pixels are the grid's, and the page starts sooner without

    matrix = csr_array((weight, (rows, cols)), shape=(len(onto), len(wave)))

    dead = ivar <= 0
    variance = np.where(dead, 0.0, 1.0 / np.where(dead, 1.0, ivar))
    flat = (-1, len(wave))
    covered = (matrix @ (~dead).reshape(flat).T.astype(float)).T
    alive = covered > 0.99  # a pixel must be covered, and by live pixels
    covered = np.where(alive, covered, 1.0)  # the last per cent that may be missing must not dim what is there
    out = (matrix @ np.where(dead, 0.0, flux).reshape(flat).T).T / covered
    var = (matrix.power(2) @ variance.reshape(flat).T).T / covered**2
    shape = (*flux.shape[:-1], len(onto))
    safe = alive & (var > 0)
    return np.where(alive, out, 0.0).reshape(shape), np.where(safe, 1.0 / np.where(safe, var, 1.0), 0.0).reshape(shape)


def _aligned_start(wave: Array) -> int | None:
    """Index on the grid of the first pixel of `wave`, or None when `wave` is not on the grid's pixels."""
    with np.errstate(divide="ignore", invalid="ignore"):
        position = (np.log10(wave) - LOGLAM0) / STEP
    start = int(np.rint(position[0]))
    return start if np.abs(position - start - np.arange(len(wave))).max() < _ALIGNED else None


def onto_grid(wave: npt.ArrayLike, flux: npt.ArrayLike, ivar: npt.ArrayLike) -> tuple[Array, Array]:
    """Any spectra on WAVE: a slice where pixels agree (noise stays independent), else resampled with their variance.

    Args:
        wave: (l,) vacuum wavelength [Angstrom], rising.
        flux: (B, l), any unit.
        ivar: (B, l) in the inverse square of that unit.

    Returns:
        flux (B, 3840) and ivar (B, 3840); ivar = 0 where the input does not reach.
    """
    wave, flux, ivar = (np.asarray(a, dtype=np.float64) for a in (wave, flux, ivar))
    start = _aligned_start(wave)
    if start is None:
        return resample(wave, flux, ivar)
    out = np.zeros((2, len(flux), N_PIXELS))
    low, high = max(start, 0), min(start + len(wave), N_PIXELS)
    if low < high:
        out[0, :, low:high] = flux[:, low - start : high - start]
        out[1, :, low:high] = ivar[:, low - start : high - start]
    return out[0], out[1]


def _curve_basis(position: Array) -> Array:
    """(len(position), 12) cubic B-splines over the grid, position in pixels.

    The recursion of de Boor, bit by bit scipy.interpolate.BSpline.design_matrix, whose import takes half a second.
    """
    inner = np.linspace(0, N_PIXELS - 1, _KNOTS - 2)
    knots = np.concatenate([[inner[0]] * 3, inner, [inner[-1]] * 3])
    x = np.clip(position, 0, N_PIXELS - 1)
    last = np.minimum(np.searchsorted(inner, x, side="right") + 2, _KNOTS - 1)  # of the four that are not 0 at x
    four = np.zeros((len(x), 4))
    four[:, 0] = 1.0
    for degree in (1, 2, 3):
        before, four = four, np.zeros_like(four)
        for n in range(1, degree + 1):
            low, high = knots[last + n - degree], knots[last + n]
            share = before[:, n - 1] / (high - low)
            four[:, n - 1] += share * (high - x)
            four[:, n] = share * (x - low)
    out = np.zeros((len(x), _KNOTS))
    np.put_along_axis(out, last[:, None] + np.arange(-3, 1), four, axis=1)
    return out


def check_grid(wave: npt.ArrayLike) -> None:
    """Refuse spectra that are not on WAVE to a tenth of a km/s or so.

    Raises:
        ValueError: another number of pixels, or other wavelengths.
    """
    given = np.asarray(wave, dtype=np.float64)
    if given.shape != WAVE.shape or not np.allclose(given, WAVE, rtol=5e-7, atol=0):
        told = f"{given.size} pixels" + (f" from {given[0]:.2f} to {given[-1]:.2f} Angstrom" if given.size else "")
        raise ValueError(f"spectra of {told}; the prior knows {N_PIXELS} from {WAVE[0]:.2f} to {WAVE[-1]:.2f} "
                         "(core.data.grid.WAVE): bring them onto it with core.data.grid.prepare.")


CURVE_BASIS: Array = _curve_basis(np.arange(N_PIXELS, dtype=float))
_BASIS_BINS = _curve_basis(np.arange(_BIN / 2 - 0.5, N_PIXELS, _BIN))
_D2 = np.diff(np.eye(_KNOTS), 2, axis=0)
_PENALTY = _SMOOTH * _D2.T @ _D2 + 1e-6 * np.eye(_KNOTS)


def continuum_curve(flux: npt.ArrayLike, ivar: npt.ArrayLike) -> Array:
    """One smooth, positive curve through each observation: the unit its flux is given in, not a claim about the star.

    log(curve) is a cubic B-spline of 12 coefficients, fitted to inverse-variance means of 32 pixels by Gauss-Newton
    steps with Cauchy weights (so Balmer and emission lines do not drag it) and a penalty on second differences (Eilers
    & Marx 1996), which carries it over gaps. It scales with the flux: curve(k f, ivar / k^2) = k curve(f, ivar).

    Args:
        flux: (B, 3840) on WAVE, any unit.
        ivar: (B, 3840) inverse variance, 0 = not measured.

    Returns:
        (B, 3840) in the unit of flux, > 0 everywhere, also where nothing was measured.

    Raises:
        ValueError: nothing measured, or a weighted mean flux that is not positive.
    """
    flux, ivar = np.asarray(flux, dtype=np.float64), np.asarray(ivar, dtype=np.float64)
    shape = (len(flux), N_PIXELS // _BIN, _BIN)
    weight = ivar.reshape(shape).sum(-1)
    live = weight > 0
    mean = np.where(live, (ivar * flux).reshape(shape).sum(-1) / np.where(live, weight, 1.0), 0.0)
    if not live.any(-1).all():
        raise ValueError("a spectrum has ivar = 0 in every pixel of 3715-8993 Angstrom; leave it out.")
    # the scale: mean over bins, each limited to the same say, so that one bright or well-measured bin does not set it
    scale = np.array([np.mean(m[ok]) for m, ok in zip(mean, live, strict=True)])
    if (scale <= 0).any():
        raise ValueError("a spectrum's mean flux is not positive; it holds no star (a sky fibre?), leave it out.")
    mean, variance = mean / scale[:, None], np.where(live, 1.0 / np.where(live, weight, 1.0), 0.0) / scale[:, None] ** 2

    coefficient = np.zeros((len(flux), _KNOTS))
    for _ in range(_STEPS):
        curve = np.exp(coefficient @ _BASIS_BINS.T)
        spread = np.sqrt(variance + (_BLANKETING * curve) ** 2)
        residual = (mean - curve) / spread
        jacobian = curve / spread
        # Cauchy weights; below the curve they fall sooner, for absorption is common and emission rare
        robust = live / (1.0 + (residual / np.where(residual < 0, 1.5, 2.5)) ** 2)
        normal = np.einsum("bi,ik,il->bkl", robust * jacobian**2, _BASIS_BINS, _BASIS_BINS) + _PENALTY
        gradient = (robust * jacobian * residual) @ _BASIS_BINS - coefficient @ _PENALTY
        step = np.linalg.solve(normal, gradient[..., None])[..., 0]
        coefficient = np.clip(coefficient + np.clip(step, -1.0, 1.0), -7.0, 7.0)
    return scale[:, None] * np.exp(coefficient @ CURVE_BASIS.T)


def prepare(wave: npt.ArrayLike, flux: npt.ArrayLike, ivar: npt.ArrayLike,
            meta: pd.DataFrame | dict[str, Any] | None = None) -> Spectra:
    """Any spectra as `Spectra` on WAVE, in units of their own continuum curve.

    Args:
        wave: (l,) vacuum wavelength [Angstrom], rising; use `air_to_vacuum` first where it is in air.
        flux: (l,) or (B, l), any flux-density unit.
        ivar: like flux, in the inverse square of that unit; 0 or not finite = not measured.
        meta: B rows about the stars.

    Raises:
        ValueError: shapes that disagree, wavelengths not rising or not optical Angstrom, negative ivar, nothing
            measured between 3715 and 8993 Angstrom, or no positive mean flux.
    """
    wave = np.asarray(wave, dtype=np.float64)
    flux, ivar = np.atleast_2d(np.asarray(flux, dtype=np.float64)), np.atleast_2d(np.asarray(ivar, dtype=np.float64))
    if wave.ndim != 1 or flux.ndim != 2 or flux.shape[-1] != wave.size or ivar.shape != flux.shape:
        raise ValueError(f"wave {wave.shape}, flux {flux.shape} and ivar {ivar.shape} disagree; "
                         "give (l,), (B, l), (B, l).")
    if wave.size < 2 or not np.isfinite(wave).all() or (np.diff(wave) <= 0).any():
        raise ValueError("wavelengths do not rise from pixel to pixel; sort them and drop duplicates.")
    if wave[0] <= 0 or wave[-1] < WAVE[0] or wave[0] > WAVE[-1]:
        raise ValueError(f"wavelengths run {wave[0]:.6g}-{wave[-1]:.6g}; none lies in 3715-8993 Angstrom (vacuum). "
                         "Are they in nm, in micron or log10? Convert to Angstrom.")
    if (ivar < 0).any():
        raise ValueError(f"ivar is negative in {int((ivar < 0).sum())} pixels; 0 marks what was not measured.")
    good = np.isfinite(flux) & np.isfinite(ivar) & (ivar > 0)
    flux, ivar = onto_grid(wave, np.where(good, flux, 0.0), np.where(good, ivar, 0.0))
    curve = continuum_curve(flux, ivar)
    table = meta if isinstance(meta, pd.DataFrame) else pd.DataFrame(meta, index=range(len(flux)))
    # what was not measured sits on the curve: a finite, neutral value that no method may use (ivar = 0 says so)
    return Spectra(WAVE, np.where(ivar > 0, flux / curve, 1.0), ivar * curve**2, curve, table)
