"""What stands between a star and its spectrum: velocity, rotation, line-spread function, dust, flux calibration."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import j1

from core.data.grid import ARM_JOIN_WIDTH, C_KMS, LOGLAM0, N_PIXELS, STEP
from core.spectrum import ARM_JOIN, Array

MAX_VELOCITY = 500.0  #: km/s; beyond it the padded templates end
RESOLUTION = (1400.0, 2200.0)  #: lambda/FWHM of LAMOST's low-resolution mode, by fibre, arm and night
MARGIN = 12  #: pixels kept beyond either end of WAVE in templates: room for +-500 km/s (7.2 pixels) and interpolation
WIDE: Array = np.power(10.0, LOGLAM0 + STEP * np.arange(-MARGIN, N_PIXELS + MARGIN))  #: (3864,) WAVE with its margins
_PIXEL_KMS = C_KMS * STEP * np.log(10)


def lsf_sigma(resolution: npt.ArrayLike) -> Any:
    """Gaussian width [pixels] of a line-spread function of resolution lambda/FWHM."""
    fwhm = 1.0 / (np.asarray(resolution, dtype=np.float64) * np.log(10) * STEP)
    return np.asarray(fwhm / (2.0 * np.sqrt(2.0 * np.log(2.0))), dtype=np.float64)


@lru_cache(maxsize=4)
def _frequencies(length: int) -> Array:
    return np.asarray(2 * np.pi * np.fft.rfftfreq(length), dtype=np.float64)


def observe(templates: Array, velocity: Array, vsini: Array, blue: Array, red: Array, native: float) -> Array:
    """Templates as the instrument sees them: shifted, rotated and blurred, all in Fourier space.

    The shift is exact for a band-limited spectrum. Rotation is a rigid sphere without limb darkening, whose transform
    is 2 J1(w) / w (Gray 2005, eq. 18.14 with epsilon = 0). The LSF is Gaussian; its resolution runs from `blue` to
    `red` along log lambda, by mixing the two blurred spectra, so that each pixel's second moment is right.

    Args:
        templates: (n, L) on a log grid of 1e-4 dex, at resolution `native`.
        velocity: (n,) [km/s], |v| <= 500.
        vsini: (n,) [km/s], >= 0.
        blue, red: (n,) resolution lambda/FWHM at the two ends.
        native: resolution of the templates.

    Returns:
        (n, L); within 8 pixels of the ends a shifted spectrum repeats its last value.

    Raises:
        ValueError: velocity beyond +-500 km/s, or a resolution above the templates'.
    """
    if not (np.abs(velocity) <= MAX_VELOCITY).all():  # NaN too
        worst = float(np.abs(velocity).max())
        raise ValueError(f"velocity {worst:.0f} km/s is beyond +-{MAX_VELOCITY:.0f} km/s; give one inside.")
    sharpest = max(np.max(blue), np.max(red))
    if sharpest > native:
        raise ValueError(f"resolution {sharpest:.0f} is above the templates' {native:.0f}; give less.")
    length = templates.shape[1]
    full = 1 << (length + 63).bit_length()
    left = (full - length) // 2
    # continue both ends flat, so that the transform sees no edge but the one in the far padding
    wide = np.pad(templates, ((0, 0), (left, full - length - left)), mode="edge")
    w = _frequencies(full)
    shift = np.log10((1 + velocity / C_KMS) / (1 - velocity / C_KMS)) / 2 / STEP
    x = np.maximum(vsini / _PIXEL_KMS, 1e-6)[:, None] * w + 1e-12
    spectrum = np.fft.rfft(wide, axis=1) * np.exp(-1j * w * shift[:, None]) * 2 * j1(x) / x
    widths2 = [np.maximum(lsf_sigma(r) ** 2 - lsf_sigma(native) ** 2, 0.0)[:, None] for r in (blue, red)]
    inside = slice(left, left + length)
    ends = [np.fft.irfft(spectrum * np.exp(-0.5 * s2 * w**2), n=full, axis=1)[:, inside] for s2 in widths2]
    ramp = np.linspace(0.0, 1.0, length)
    return (1 - ramp) * ends[0] + ramp * ends[1]


def extinction(e_bv: Array, r_v: float = 3.1) -> Array:
    """(n, 3864) transmission, on WIDE, of interstellar dust, Cardelli, Clayton & Mathis (1989, ApJ 345, 245),
    eqs. 3a and 3b.

    Args:
        e_bv: (n,) colour excess E(B - V) [mag].
    """
    y = 1e4 / WIDE - 1.82
    a = np.polyval([0.32999, -0.77530, 0.01979, 0.72085, -0.02427, -0.50447, 0.17699, 1.0], y)
    b = np.polyval([-2.09002, 5.30260, -0.62251, -5.38434, 1.07233, 2.28305, 1.41338, 0.0], y)
    return 10 ** (-0.4 * r_v * np.asarray(e_bv)[:, None] * (a + b / r_v))


def calibration(n: int, rng: np.random.Generator, smooth: float = 0.05, step: float = 0.02) -> Array:
    """(n, 3864) flux-calibration residual on WIDE: a smooth factor (eight cosines) and a step at the arm join."""
    position = np.linspace(0, 1, len(WIDE))
    order = np.arange(1, 9)
    waves = np.cos(np.pi * order[:, None] * position)
    log = smooth * (rng.standard_normal((n, len(order))) / order) @ waves
    jump = 1 / (1 + np.exp(-(WIDE - ARM_JOIN) / ARM_JOIN_WIDTH))
    return np.exp(log + step * rng.standard_normal((n, 1)) * jump)
