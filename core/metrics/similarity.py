"""Structural similarity of two spectra (SSIM in one dimension): printed because it is asked for, not as a judge."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.ndimage import correlate1d

from core.metrics.fidelity import mean_where
from core.spectrum import Array

#: Wang et al. 2004: Gaussian window of sigma 1.5 in 11 taps, and the two constants that keep quotients finite.
SIGMA, TAPS, K1, K2 = 1.5, 11, 0.01, 0.03


def ssim(model: npt.ArrayLike, truth: npt.ArrayLike, measured: npt.ArrayLike, where: npt.ArrayLike = True,
         data_range: float = 1.0) -> Array:
    """Mean structural similarity over live pixels: 1 for the truth itself.

    SSIM = (2 mu_x mu_y + c1) (2 s_xy + c2) / ((mu_x^2 + mu_y^2 + c1) (s_x^2 + s_y^2 + c2)), c_i = (K_i data_range)^2
    (Wang et al. 2004, IEEE TIP 13, 600, eq. 13), local moments under a Gaussian window along the spectrum. At a dead
    pixel and beyond an end the window has no weight and what remains is scaled to a sum of 1.

    Args:
        model: (..., L); truth: (..., L) clean flux in the same unit.
        measured: (..., L) True where a pixel counts; where: (..., L) True inside the windows asked about.
        data_range: span of possible values; 1 is zero to continuum, for flux in units of the continuum. SSIM depends
            on it strongly: quote it.

    Returns:
        (...), NaN where no pixel counts.

    Raises:
        ValueError: data_range not positive, or a truth that is not finite in a pixel that counts (the moments beside a
            window look beyond it, so `where` does not help: leave it out of measured).
    """
    if not (np.isfinite(data_range) and data_range > 0):
        raise ValueError(f"data_range is {data_range}; give the positive span of flux, 1 for units of the continuum.")
    live = np.asarray(measured, dtype=bool)
    if bad := int((live & ~np.isfinite(np.asarray(truth, dtype=np.float64))).sum()):
        raise ValueError(f"the truth is not finite in {bad} pixels that count; leave them out of measured.")
    x, y, on = np.broadcast_arrays(np.asarray(model, dtype=np.float64), np.asarray(truth, dtype=np.float64), live)
    x, y = np.where(on, x, 0.0), np.where(on, y, 0.0)  # a dead pixel may hold anything, also NaN
    window = np.exp(-0.5 * ((np.arange(TAPS) - TAPS // 2) / SIGMA) ** 2)

    def local(values: Array) -> Array:
        return np.asarray(correlate1d(values, window, axis=-1, mode="constant"))

    weight = np.maximum(local(on.astype(np.float64)), 1e-300)
    mx, my = local(x) / weight, local(y) / weight
    # rounding may leave a variance of -1e-17, which c2 swallows
    sxx, syy, sxy = local(x * x) / weight - mx**2, local(y * y) / weight - my**2, local(x * y) / weight - mx * my
    c1, c2 = (K1 * data_range) ** 2, (K2 * data_range) ** 2
    score = (2 * mx * my + c1) * (2 * sxy + c2) / ((mx**2 + my**2 + c1) * (sxx + syy + c2))
    return mean_where(score, on & np.asarray(where, dtype=bool))
