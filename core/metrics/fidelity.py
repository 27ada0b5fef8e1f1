"""How well an answer fits what was measured, and how near it comes to the truth: residuals, chi-square, rms error."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from core.spectrum import Array, Spectra

Mask = npt.NDArray[np.bool_]


def error(spectra: Spectra) -> Array:
    """(B, L) true standard deviation s sigma of each pixel (scale s of `spectra.noise`), infinite where dead."""
    return np.asarray(spectra.noise.scales(spectra.wave) * spectra.sigma)


def residual(model: npt.ArrayLike, spectra: Spectra) -> Array:
    """(y - model) / (s sigma), NaN where nothing was measured.

    Args:
        model: (..., B, L) flux in units of the spectra's continuum; leading axes are draws.
        spectra: B observed spectra.

    Returns:
        Like model, in standard deviations.

    Raises:
        ValueError: model does not end in the shape of the spectra's flux.
    """
    model = np.asarray(model, dtype=np.float64)
    if model.shape[-2:] != spectra.flux.shape:
        raise ValueError(f"model has shape {model.shape}; it must end in {spectra.flux.shape}, that of the spectra.")
    return np.where(spectra.measured, (spectra.flux - model) / error(spectra), np.nan)


def in_windows(wave: npt.ArrayLike, windows: Iterable[tuple[float, float]]) -> Mask:
    """(L,) True for the pixels inside any of some (low, high) wavelength windows, in the unit of `wave`."""
    wave = np.asarray(wave, dtype=np.float64)
    out = np.zeros(wave.shape, dtype=bool)
    for low, high in windows:
        out |= (wave >= low) & (wave <= high)
    return out


def chi_square(model: npt.ArrayLike, spectra: Spectra, where: npt.ArrayLike = True) -> Array:
    """Chi-square per live pixel, mean of ((y - model) / (s sigma))^2: 1 for the truth, below 1 where noise was copied.

    Over a whole spectrum it hardly sees a line that was erased, for most pixels hold none: ask inside lines as well
    (`where`), where it does. From N independent pixels the truth's own scatters about 1 by sqrt(2 / N).

    Args:
        model: (..., B, L) flux in units of the spectra's continuum.
        spectra: B observed spectra.
        where: (L,) or (B, L) True where a pixel counts, as from `in_windows`; every pixel by default.

    Returns:
        (..., B), NaN for a spectrum without a live pixel there.

    Raises:
        ValueError: model does not end in the shape of the spectra's flux.
    """
    counts = spectra.measured & np.asarray(where, dtype=bool)
    squares = np.where(counts, residual(model, spectra) ** 2, 0.0).sum(-1)
    live = counts.sum(-1)
    return np.where(live > 0, squares / np.maximum(live, 1), np.nan)


def rms_error(model: npt.ArrayLike, truth: npt.ArrayLike, measured: npt.ArrayLike) -> Array:
    """Root mean square of model - truth over live pixels, in units of the continuum.

    Args:
        model: (..., L).
        truth: (..., L) clean flux in the same unit.
        measured: (..., L) True where a pixel counts.

    Returns:
        (...), NaN where no pixel counts.
    """
    live = np.asarray(measured, dtype=bool)
    squares = np.where(live, (np.asarray(model) - np.asarray(truth)) ** 2, 0.0).sum(-1)
    count = live.sum(-1)
    return np.where(count > 0, np.sqrt(squares / np.maximum(count, 1)), np.nan)


def mean_where(values: npt.ArrayLike, counts: npt.ArrayLike) -> Array:
    """Mean of values (..., L) over the pixels that count (..., L): (...), NaN where none does."""
    values, counts = np.broadcast_arrays(np.asarray(values, dtype=np.float64), np.asarray(counts, dtype=bool))
    n = counts.sum(-1)
    total = np.where(counts, values, 0.0).sum(-1)  # a pixel that does not count may hold NaN
    return np.where(n > 0, total / np.maximum(n, 1), np.nan)


def _difference(
    model: npt.ArrayLike, truth: npt.ArrayLike, measured: npt.ArrayLike, where: npt.ArrayLike
) -> tuple[Array, Mask]:
    """model - truth (..., L) and which of its pixels count.

    Raises:
        ValueError: the truth is not finite in a pixel that counts.
    """
    truth = np.asarray(truth, dtype=np.float64)
    counts = np.asarray(measured, dtype=bool) & np.asarray(where, dtype=bool)
    bad = int((counts & ~np.isfinite(truth)).sum())
    if bad:
        raise ValueError(f"the truth is not finite in {bad} pixels that count; leave them out of measured or where.")
    return np.asarray(model, dtype=np.float64) - truth, counts


def bias(
    model: npt.ArrayLike, truth: npt.ArrayLike, measured: npt.ArrayLike, where: npt.ArrayLike = True
) -> Array:
    """Mean of model - truth over live pixels, signed, in units of the continuum: a line erased is positive.

    Args:
        model: (..., L); truth: (..., L) clean flux in the same unit.
        measured: (..., L) True where a pixel holds data.
        where: (..., L) True where a pixel counts, as from `in_windows`; every pixel by default.

    Returns:
        (...), NaN where no pixel counts.

    Raises:
        ValueError: the truth is not finite in a pixel that counts.
    """
    return mean_where(*_difference(model, truth, measured, where))


def mse(
    model: npt.ArrayLike, truth: npt.ArrayLike, measured: npt.ArrayLike, where: npt.ArrayLike = True
) -> Array:
    """Mean squared error over live pixels, in units of the continuum squared; arguments and errors as in `bias`."""
    difference, counts = _difference(model, truth, measured, where)
    return mean_where(difference**2, counts)


def mae(
    model: npt.ArrayLike, truth: npt.ArrayLike, measured: npt.ArrayLike, where: npt.ArrayLike = True
) -> Array:
    """Mean absolute error over live pixels, in units of the continuum; arguments and errors as in `bias`."""
    difference, counts = _difference(model, truth, measured, where)
    return mean_where(np.abs(difference), counts)
