"""The noise of one observation as a linear operator, in NumPy: N^-1/2, white or correlated, dead pixels left out."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy.linalg import cholesky_banded
from scipy.linalg.lapack import dtbtrs

from core.spectrum import WHITE, Array, Kernel

#: rows (n, L) -> N^-1/2 rows (n, L), N the noise covariance; zero where nothing was measured
Whiten = Callable[[Array], Array]


def whitener(sigma: npt.ArrayLike, wave: npt.ArrayLike, kernel: Kernel = WHITE) -> Whiten:
    """N^-1/2 for N = S K K' S, S = scale x sigma, K the kernel's three taps; exact where pixels are dead.

    Args:
        sigma: (L,) quoted deviation in the data's unit, infinite where nothing was measured.
        wave: (L,) vacuum wavelength [Angstrom].

    Raises:
        ValueError: a sigma that is not positive, or no live pixel.
    """
    sigma = np.asarray(sigma, dtype=np.float64)
    live = np.isfinite(sigma)
    if not live.any() or not (sigma[live] > 0).all():
        raise ValueError("sigma must be positive and finite in at least one pixel; infinite marks what is dead.")
    s = np.where(live, sigma * kernel.scales(np.asarray(wave)), 0.0)
    if kernel.white:
        weight = np.where(live, 1.0 / np.where(live, s, 1.0), 0.0)
        return lambda rows: np.where(live, rows, 0.0) * weight
    centre, side = kernel.taps(np.asarray(wave))
    band = np.zeros((3, len(s)))
    band[0] = np.where(live, s**2, 1.0)  # a dead pixel is decoupled, which is the exact marginal over it
    band[1, :-1] = s[:-1] * s[1:] * (centre[:-1] * side[1:] + side[:-1] * centre[1:])
    band[2, :-2] = s[:-2] * s[2:] * side[:-2] * side[2:]
    factor = cholesky_banded(band, lower=True)

    def whiten(rows: Array) -> Array:
        answer, _ = dtbtrs(factor, np.asfortranarray(np.where(live, rows, 0.0).T), uplo="L")
        return np.asarray(answer.T)

    return whiten
