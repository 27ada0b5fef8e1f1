"""What travels through the house: spectra, draws of clean spectra, and the noise's correlation (NumPy only)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

Array = npt.NDArray[np.float64]

#: Stellar labels, in the order every label array uses, with their units.
LABELS: dict[str, str] = {"teff": "K", "logg": "dex", "feh": "dex", "alpha_fe": "dex", "rv": "km/s"}

#: Vacuum wavelength [Angstrom] where LAMOST's blue arm hands over to its red arm (Zhao et al. 2012: overlap 5700-5900).
ARM_JOIN = 5900.0


@dataclass(frozen=True)
class Kernel:
    """Correlated noise of an instrument, per arm: n = scale * sigma * (K z), z white, K of unit variance.

    K is the symmetric three-tap moving average (a, 1, a) / sqrt(1 + 2 a^2); its lag-1 correlation is
    rho = 2 a / (1 + 2 a^2), its lag-2 correlation a^2 / (1 + 2 a^2), and nothing beyond. Two taps would stop at
    rho = 0.5; three reach 0.707, which holds the 0.2-0.6 measured on LAMOST (docs/noise.md).

    Args:
        scale: (blue, red) true sigma over quoted sigma; LAMOST's quoted sigma is too large, so below 1.
        rho: (blue, red) lag-1 correlation, in [0, 0.7].
        join: vacuum wavelength [Angstrom] between the arms.

    Raises:
        ValueError: scale not positive, or rho outside [0, 0.7].
    """

    scale: tuple[float, float] = (1.0, 1.0)
    rho: tuple[float, float] = (0.0, 0.0)
    join: float = ARM_JOIN

    def __post_init__(self) -> None:
        if len(self.scale) != 2 or not all(np.isfinite(s) and s > 0 for s in self.scale):
            raise ValueError(f"noise scale is {self.scale}; give two positive numbers (blue arm, red arm).")
        if len(self.rho) != 2 or not all(0.0 <= r <= 0.7 for r in self.rho):
            raise ValueError(f"noise correlation rho is {self.rho}; give two numbers in [0, 0.7] (blue arm, red arm).")

    @property
    def white(self) -> bool:
        """True when neighbouring pixels are independent."""
        return self.rho == (0.0, 0.0)

    def taps(self, wave: Array) -> tuple[Array, Array]:
        """Centre and side weight of K at each pixel, each (L,): centre^2 + 2 side^2 = 1."""
        rho = np.where(np.asarray(wave) < self.join, *self.rho)
        # the smaller root of 2 rho a^2 - 2 a + rho = 0, written so that rho = 0 gives a = 0 without dividing by it
        a = rho / (1.0 + np.sqrt(1.0 - 2.0 * rho**2))
        centre = 1.0 / np.sqrt(1.0 + 2.0 * a**2)
        return centre, a * centre

    def scales(self, wave: Array) -> Array:
        """True over quoted sigma at each pixel, (L,)."""
        return np.where(np.asarray(wave) < self.join, *self.scale)

    def colour(self, wave: Array, z: Array) -> Array:
        """K z: unit-variance correlated noise (..., L) from white z of shape (..., L + 2), one pixel spare each side.

        Raises:
            ValueError: z is not two pixels longer than the grid.
        """
        if z.shape[-1] != len(wave) + 2:
            raise ValueError(f"white noise has {z.shape[-1]} pixels; colouring {len(wave)} needs {len(wave) + 2}.")
        centre, side = self.taps(wave)
        return centre * z[..., 1:-1] + side * (z[..., :-2] + z[..., 2:])


WHITE = Kernel()


_NOT_MEASURED = "where nothing was measured set ivar to 0 and flux to any finite number"


def star_seed(star: object, seed: int, purpose: str) -> int:
    """A 63-bit seed that depends on the star's id, the user's seed and the purpose alone, never on its neighbours.

    So one star's draws agree between the app, a script and a cluster, whatever else is in the batch (house rule 4).
    """
    digest = hashlib.sha256(f"{purpose}|{seed}|{star}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def _frozen(name: str, value: Any, shape: tuple[int, ...], remedy: str = _NOT_MEASURED) -> Array:
    """A read-only float64 copy of shape `shape`, or a ValueError that names the array."""
    out = np.array(value, dtype=np.float64)
    if out.shape != shape:
        raise ValueError(f"{name} has shape {out.shape}; it must be {shape}, one value per spectrum and pixel.")
    if not np.isfinite(out).all():
        n = int((~np.isfinite(out)).sum())
        raise ValueError(f"{name} has {n} values that are not finite; {remedy}.")
    out.flags.writeable = False
    return out


@dataclass(frozen=True, eq=False)  # arrays have no one truth value: two are equal when they are one object
class Spectra:
    """B observed (or simulated) spectra on one wavelength grid, in units of a smooth curve.

    Args:
        wave: (L,) vacuum wavelength [Angstrom], rising.
        flux: (B, L) flux divided by `continuum`.
        ivar: (B, L) inverse variance of `flux` as quoted; 0 = nothing measured there (the only mask).
        continuum: (B, L) the positive curve that flux was divided by: multiply to come back.
        meta: B rows about the stars: star id, ra, dec [deg], snr_g, rv [km/s], teff [K], logg, feh, origin ...
        noise: how the true noise follows from the quoted sigma; white with scale 1 by default.
        patterns: (Q, L) of sky and air in units of quoted sigma, of unknown strength N(0, 1) in every star; none by
            default (core.data.sky has LAMOST's).

    Raises:
        ValueError: shapes that disagree, wavelengths not rising, negative or non-finite ivar, non-finite flux,
            a continuum that is not positive.
    """

    wave: Array
    flux: Array
    ivar: Array
    continuum: Array
    meta: pd.DataFrame
    noise: Kernel = WHITE
    patterns: Array = field(default_factory=lambda: np.zeros((0, 0)))

    def __post_init__(self) -> None:
        wave = np.asarray(self.wave, dtype=np.float64)
        if wave.ndim != 1 or wave.size < 2 or not np.isfinite(wave).all() or (np.diff(wave) <= 0).any():
            raise ValueError("wave must be one rising list of at least two vacuum wavelengths in Angstrom; sort it.")
        flux = np.asarray(self.flux)
        if flux.ndim != 2:
            raise ValueError(f"flux has {flux.ndim} dimension(s); give (spectra, pixels), also for one spectrum.")
        shape = (flux.shape[0], wave.size)
        set_ = object.__setattr__  # the documented way to normalise fields of a frozen dataclass
        set_(self, "wave", _frozen("wave", wave, wave.shape))
        count = len(np.atleast_2d(self.patterns)) if np.size(self.patterns) else 0
        rows = np.asarray(self.patterns, dtype=np.float64) if count else np.zeros((0, wave.size))
        set_(self, "patterns", _frozen("patterns", rows, (count, wave.size)))
        for name in ("flux", "ivar", "continuum"):
            set_(self, name, _frozen(name, getattr(self, name), shape))
        if (self.ivar < 0).any():
            raise ValueError(f"ivar is negative in {int((self.ivar < 0).sum())} pixels; 0 marks what was not measured.")
        if (self.continuum <= 0).any():
            raise ValueError("continuum must be positive in every pixel; use core.data.grid.prepare to make one.")
        if not isinstance(self.meta, pd.DataFrame) or len(self.meta) != shape[0]:
            raise ValueError(f"meta must be a DataFrame of {shape[0]} rows, one per spectrum.")
        meta = self.meta.reset_index(drop=True).copy()
        if "star" not in meta:  # an id made once travels with the star: its draws must not change when it is selected
            meta.insert(0, "star", [str(i) for i in range(shape[0])])
        set_(self, "meta", meta)

    def __len__(self) -> int:
        return int(self.flux.shape[0])

    @property
    def sigma(self) -> Array:
        """(B, L) quoted standard deviation, infinite where nothing was measured."""
        with np.errstate(divide="ignore"):
            return 1.0 / np.sqrt(self.ivar)

    @property
    def measured(self) -> npt.NDArray[np.bool_]:
        """(B, L) True where a pixel holds data."""
        return self.ivar > 0

    @property
    def stars(self) -> list[str]:
        """B star ids: the column `star` of meta, filled with row numbers where the input had none."""
        return [str(s) for s in self.meta["star"]]

    def select(self, rows: Any) -> Spectra:
        """The spectra named by an index, slice, list of indices or boolean mask; always at least one dimension kept."""
        index = np.atleast_1d(np.arange(len(self))[rows])
        return replace(self, flux=self.flux[index], ivar=self.ivar[index], continuum=self.continuum[index],
                       meta=self.meta.iloc[index])

    def with_noise(self, noise: Kernel) -> Spectra:
        """The same spectra with another statement about their noise."""
        return replace(self, noise=noise)


@dataclass(frozen=True, eq=False)
class Samples:
    """What a method answers: N draws of each of B clean spectra.

    Args:
        wave: (L,) vacuum wavelength [Angstrom].
        draws: (N, B, L) clean flux in units of the continuum of the Spectra asked about.
        method: name in core.pipeline.METHODS.
        origin: how it was made: checkpoint hash, seed, network calls, settings (plain JSON values).

    Raises:
        ValueError: shapes that disagree, no draws, a draw that is not finite.
    """

    wave: Array
    draws: Array
    method: str
    origin: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        draws = np.asarray(self.draws)
        if draws.ndim != 3 or draws.shape[0] < 1:
            raise ValueError(f"draws have shape {draws.shape}; give (draws, spectra, pixels) with at least one draw.")
        wave = np.asarray(self.wave, dtype=np.float64)
        object.__setattr__(self, "wave", _frozen("wave", wave, wave.shape))
        remedy = f"method {self.method!r} failed on this input, drop these draws or change its settings"
        object.__setattr__(self, "draws", _frozen("draws", draws, (*draws.shape[:2], wave.size), remedy))
        object.__setattr__(self, "origin", dict(self.origin))

    @property
    def mean(self) -> Array:
        """(B, L) mean of the draws."""
        return self.draws.mean(axis=0)

    def quantile(self, q: float) -> Array:
        """(B, L) quantile of the draws.

        Raises:
            ValueError: only one draw (a point estimate has no width), or q outside [0, 1].
        """
        if not 0.0 <= q <= 1.0:
            raise ValueError(f"quantile {q} is outside [0, 1].")
        if self.draws.shape[0] < 2:
            raise ValueError(f"{self.method} gave one draw, which has no width; ask for more draws.")
        return np.quantile(self.draws, q, axis=0)

    @property
    def spread(self) -> Array:
        """(B, L) standard deviation of the draws; 0 for a point estimate (N = 1 or all draws equal)."""
        if self.draws.shape[0] < 2:
            return np.zeros(self.draws.shape[1:])
        same = (self.draws == self.draws[0]).all(axis=0)  # the mean of six equal numbers need not be that number
        return np.where(same, 0.0, self.draws.std(axis=0, ddof=1))
