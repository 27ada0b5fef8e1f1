"""The matched filter for a line of any place and width in a residual, under the noise that the spectrum really has."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy.linalg import cho_solve_banded, cholesky_banded
from scipy.ndimage import correlate1d
from scipy.special import ndtr

from core.spectrum import Array, Kernel, Spectra

#: Gaussian sigma of LAMOST's resolution in dex: a full width at half maximum of 2.4 pixels of 1e-4 dex.
RESOLUTION = 2.4e-4 / np.sqrt(8 * np.log(2))

#: Widths that are searched, in units of the resolution. A step of 1.78 loses at most 2 % of a line's strength.
WIDTHS = tuple(float(w) for w in np.geomspace(0.5, 5.0, 5))

#: A line is cut off this many of its widths from its centre; 5e-4 of its area lies beyond.
REACH = 3.5


def pixel(wave: Array) -> float:
    """Size of a pixel [dex] of a grid uniform in the logarithm of wavelength.

    Raises:
        ValueError: the grid is not uniform in log wavelength to 0.02 pixels (LAMOST writes wavelengths as float32).
    """
    log = np.log10(wave)
    step = float((log[-1] - log[0]) / (len(log) - 1))
    if np.abs(log - (log[0] + step * np.arange(len(log)))).max() > 0.02 * step:
        raise ValueError("the matched filter needs a grid uniform in log wavelength; resample with core.data.grid.")
    return step


def profile(width: float, offset: float = 0.0) -> Array:
    """(2 h + 1,) a Gaussian line of peak 1 averaged over each pixel, h = ceil(REACH width) + 1.

    Averaged and not sampled: its area is sqrt(2 pi) width wherever in a pixel its centre lies, also where the line
    is narrower than a pixel.

    Args:
        width: Gaussian sigma [pixels]; offset: of the centre from the middle pixel's centre [pixels].
    """
    half = int(np.ceil(REACH * width)) + 1
    edges = (np.arange(-half, half + 2) - 0.5 - offset) / width
    return np.asarray(np.sqrt(2 * np.pi) * width * np.diff(ndtr(edges)))


def factor(noise: Kernel, wave: Array, live: Array) -> Array:
    """(3, L) banded Cholesky factor of the noise correlation C = K K' over the live pixels of one star.

    Dead pixels are decoupled (a row of the identity): the exact marginal over them.
    """
    centre, side = noise.taps(wave)
    on = live.astype(np.float64)
    band = np.zeros((3, len(wave)))
    band[0] = 1.0
    band[1, :-1] = on[:-1] * on[1:] * (centre[:-1] * side[1:] + side[:-1] * centre[1:])
    band[2, :-2] = on[:-2] * on[2:] * side[:-2] * side[2:]
    return np.asarray(cholesky_banded(band, lower=True))


def factors(spectra: Spectra) -> Array:
    """(B, 3, L) `factor` of each star; none (0, 3, L) where the noise is white and needs none."""
    if spectra.noise.white:
        return np.empty((0, 3, len(spectra.wave)))
    return np.stack([factor(spectra.noise, spectra.wave, live) for live in spectra.measured])


def weighed(spectra: Spectra, rows: Array, known: Array | None = None) -> Array:
    """(B, L) N^-1 applied to one row (L,) for each star, zero in dead pixels; N is the noise covariance of `spectra`.

    Args:
        spectra: B spectra; rows: (B, L), any finite number where dead; known: their `factors`, made if not given.
    """
    inverse_error = np.sqrt(spectra.ivar) / spectra.noise.scales(spectra.wave)
    scaled = np.where(spectra.measured, rows, 0.0) * inverse_error
    if not spectra.noise.white:
        banded = factors(spectra) if known is None else known
        scaled = np.stack([cho_solve_banded((f, True), row) for f, row in zip(banded, scaled, strict=True)])
    return np.asarray(scaled * inverse_error)


def strength(spectra: Spectra, rows: Array) -> Array:
    """(B,) sqrt(t' N^-1 t): how many standard deviations the matched filter for row t (L,) of each star would see."""
    return np.asarray(np.sqrt((np.where(spectra.measured, rows, 0.0) * weighed(spectra, rows)).sum(-1)))


def inverse_bands(factors: Array, lags: int) -> Array:
    """(lags + 1, B, L): element (d, b, i) is that of C^-1 in row i and column i + d of star b.

    From the factor, from the last pixel back (Takahashi, Fagan & Chin 1973), carried on to lags beyond the factor's
    own two: C^-1 has no end, but a line has, and within a line's own length this is exact.

    Args:
        factors: (B, 3, L) from `factor`; lags: how far from the diagonal, at least 2.
    """
    stars, _, pixels = factors.shape
    a, b = factors[:, 1] / factors[:, 0], factors[:, 2] / factors[:, 0]
    inverse = 1.0 / factors[:, 0] ** 2
    out = np.zeros((pixels + 2, stars, lags + 1))
    for i in range(pixels - 1, -1, -1):
        one, two = out[i + 1], out[i + 2]
        here, ai, bi = out[i], a[:, i, None], b[:, i, None]
        here[:, 1:] = -ai * one[:, :-1]
        here[:, 2:] -= bi * two[:, :-2]
        here[:, 1] -= b[:, i] * one[:, 1]
        here[:, 0] = inverse[:, i] - a[:, i] * here[:, 1] - b[:, i] * here[:, 2]
    return np.moveaxis(out[:pixels], -1, 0).swapaxes(1, 2)


@dataclass(frozen=True, eq=False)
class Scan:
    """Matched filters t' N^-1 r for every place and width, N = S C S the covariance of the noise (Turin 1960).

    Places are the pixels, and half-way between them too for lines narrower than a pixel and a half. Channel m is one
    width with one of these two offsets; a line's place in channel m and pixel i is i + offset[m].

    Args:
        spectra: B observed spectra; their ivar, scale and correlation say what N is.
        resolution: Gaussian sigma of the instrument [dex].
        widths: searched, in units of the resolution.

    Attributes:
        width: (M,) Gaussian sigma of each channel [pixels]; offset: (M,) [pixels].
        norm: (B, M, L) t' N^-1 t of a line of peak 1; its root is the strength in standard deviations.
        seen: (B, M, L) True where at least half of the line (of its squared profile) falls on live pixels.

    Raises:
        ValueError: a grid not uniform in log wavelength, a resolution or width that is not positive.
    """

    spectra: Spectra
    resolution: float = RESOLUTION
    widths: tuple[float, ...] = WIDTHS
    width: Array = field(init=False)
    offset: Array = field(init=False)
    norm: Array = field(init=False)
    seen: Array = field(init=False)
    factors: Array = field(init=False)
    _inverse_error: Array = field(init=False)

    def __post_init__(self) -> None:
        if not self.resolution > 0 or not all(w > 0 for w in self.widths):
            raise ValueError(f"resolution {self.resolution} and widths {self.widths} must be positive.")
        spectra, set_ = self.spectra, object.__setattr__
        sizes = np.array(sorted(self.widths)) * self.resolution / pixel(spectra.wave)
        channels = [(w, o) for w in sizes for o in ((0.0, 0.5) if w < 1.5 else (0.0,))]
        set_(self, "width", np.array([w for w, _ in channels]))
        set_(self, "offset", np.array([o for _, o in channels]))
        live = spectra.measured
        set_(self, "_inverse_error", np.sqrt(spectra.ivar) / spectra.noise.scales(spectra.wave))
        set_(self, "factors", factors(spectra))
        lines = [profile(w, o) for w, o in channels]
        energy = [correlate1d(live.astype(float), g**2, mode="constant") / (g**2).sum() for g in lines]
        set_(self, "seen", np.stack(energy, axis=1) > 0.5)
        set_(self, "norm", self._norms(lines))

    def _norms(self, lines: list[Array]) -> Array:
        """t' N^-1 t in all places: for each lag, the diagonal of N^-1 filtered with the line times itself shifted."""
        e = self._inverse_error
        if self.spectra.noise.white:
            return np.stack([correlate1d(e**2, g**2, mode="constant") for g in lines], axis=1)
        longest = max(len(g) for g in lines)
        inverse = inverse_bands(self.factors, longest - 1)
        out = np.zeros((len(e), len(lines), e.shape[1]))
        for lag in range(longest):
            if np.abs(inverse[lag:]).max() < 1e-7:  # for rho <= 0.5 all is over after a dozen pixels
                break
            diagonal = inverse[lag].copy()
            diagonal[:, : e.shape[1] - lag] *= e[:, lag:]
            diagonal *= e
            for m, g in enumerate(lines):
                if lag < len(g):
                    both = np.zeros_like(g)
                    both[: len(g) - lag] = g[: len(g) - lag] * g[lag:]
                    out[:, m] += (2.0 if lag else 1.0) * correlate1d(diagonal, both, mode="constant")
        return out

    def score(self, rows: Array) -> Array:
        """(B, M, L) t' N^-1 r for rows r (B, L)."""
        u = weighed(self.spectra, rows, self.factors)
        return np.stack([correlate1d(u, profile(w, o), mode="constant")
                         for w, o in zip(self.width, self.offset, strict=True)], axis=1)
