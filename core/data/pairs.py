"""Training pairs of a noisy and a clean spectrum of one star: from repeat observations, or noise on clean spectra."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from astropy import units
from astropy.coordinates import SkyCoord, search_around_sky

from core.data import grid, lamost
from core.data.noise import snr
from core.spectrum import Array, Spectra

#: (clean, seed) -> the same stars observed, in the unit of clean: its flux with noise, its ivar as quoted.
Noise = Callable[[Spectra, int], Spectra]

# Chebyshev terms of the smooth ratio of two observations' calibrations: none is narrower than a Balmer line
_RATIO_TERMS = 9
_NOISELESS = 1e-6  # error of a clean flux given without ivar, as a fraction of its continuum


@dataclass(frozen=True)
class Pairs:
    """B pairs on one grid and in one unit: `noisy`, and of the same stars `clean`, whose ivar says how clean it is.

    Args:
        noisy: the low member, as observed.
        clean: the high member in units of noisy.continuum.
        table: B rows: star, clean_star, way ("repeats" or "simulated"), separation [arcsec], shift [km/s],
            snr_noisy and snr_clean (S/N_g of core.data.noise.snr).

    Raises:
        ValueError: grids, units or lengths that disagree, or a noisy member better than the clean one.
    """

    noisy: Spectra
    clean: Spectra
    table: pd.DataFrame

    def __post_init__(self) -> None:
        _check_grids(self.noisy, self.clean)
        if len(self.table) != len(self.noisy):
            raise ValueError(f"{len(self.noisy)} pairs have a table of {len(self.table)} rows; give one for each.")
        _check_unit(self.noisy, self.clean)
        _check_order(self.noisy, self.clean)

    def __len__(self) -> int:
        return len(self.noisy)


def _check_grids(low: Spectra, high: Spectra) -> None:
    if len(low) != len(high):
        raise ValueError(f"{len(low)} noisy spectra stand against {len(high)} clean ones; give one for each.")
    if low.wave.shape != high.wave.shape or not np.allclose(low.wave, high.wave, rtol=1e-9):
        raise ValueError("the members of a pair are on two wavelength grids; put both on one with grid.prepare.")


def _check_unit(low: Spectra, high: Spectra) -> None:
    if not np.allclose(low.continuum, high.continuum, rtol=1e-9, atol=0):
        raise ValueError("the members of a pair are in units of two continua; make pairs with align or from_clean.")


def _check_order(low: Spectra, high: Spectra) -> None:
    bad = np.flatnonzero(~(snr(low) <= snr(high)))
    if bad.size:
        raise ValueError(f"in {bad.size} pair(s), the first in row {bad[0]}, the clean member has not the better S/N; "
                         "swap the members.")


def _place(meta: pd.DataFrame) -> SkyCoord:
    missing = [name for name in ("ra", "dec", "rv") if name not in meta]
    if missing:
        raise ValueError(f"meta has no column(s) {', '.join(missing)}; repeats are matched by position, aligned by rv.")
    return SkyCoord(meta["ra"].to_numpy(float) * units.deg, meta["dec"].to_numpy(float) * units.deg)


def _designation(meta: pd.DataFrame) -> npt.NDArray[np.str_]:
    names = meta["designation"] if "designation" in meta else pd.Series("", index=meta.index)
    return names.fillna("").to_numpy(str)


def _same_name(a: npt.NDArray[np.str_], b: npt.NDArray[np.str_]) -> npt.NDArray[np.bool_]:
    """True unless both have a designation and these differ."""
    return (a == b) | (a == "") | (b == "")


def _smooth_ratio(low: Spectra, flux: Array, ivar: Array) -> Array:
    """(L,) smooth positive p with low.flux = p * flux in the mean: least squares in Chebyshev polynomials of the pixel.

    Two plates of one star differ in scale and in smooth calibration; only this puts the clean flux in the unit that the
    noisy one is in. Nine numbers from some 3800 pixels: what p takes over of the noise is 0.2 % of its variance.
    """
    both = low.measured[0] & (ivar > 0)
    if both.sum() < 10 * _RATIO_TERMS:
        raise ValueError(f"the pair of {low.stars[0]} has {int(both.sum())} pixels that both members measured, too "
                         "few to compare; leave it out.")
    x = np.linspace(-1, 1, low.wave.size)
    basis = np.polynomial.chebyshev.chebvander(x, _RATIO_TERMS - 1)
    root = 1.0 / np.sqrt(1.0 / low.ivar[0, both] + 1.0 / ivar[both])
    fit, *_ = np.linalg.lstsq(basis[both] * (flux[both] * root)[:, None], low.flux[0, both] * root, rcond=None)
    # beyond the pixels that both measured the polynomial would run away: hold it there
    edge = np.flatnonzero(both)[[0, -1]]
    ratio = (basis @ fit)[np.clip(np.arange(x.size), *edge)]
    if (ratio <= 0).any():
        raise ValueError(f"the pair of {low.stars[0]} has no positive smooth ratio, so its members are not alike; "
                         "leave it out.")
    return ratio


def align(low: Spectra, high: Spectra, max_sep_arcsec: float = 3.0) -> Pairs:
    """Pairs from two observations of each star, row by row: `high` is put at the velocity and in the unit of `low`.

    `high` is resampled with its variance by the difference of meta's rv; `low` is never interpolated, so its noise
    stays as it was measured. The clean member keeps `high.noise`, one kernel for all rows, although resampling makes
    neighbours of it share pixels, by a fraction that differs from row to row: with LAMOST's noise its variance is 1.06
    to 1.08 times what the kernel and ivar say after a shift by a quarter of a pixel, 1.10 to 1.13 after one by
    half, and its lag-1 correlation .38 to .56 instead of .05 to .10. Do not take `clean.noise` for its correlation.

    Args:
        low: B spectra with ra, dec [deg], rv [km/s] and designation in meta.
        high: B better spectra of the same stars.
        max_sep_arcsec: how far apart [arcsec] one star's positions may be.

    Raises:
        ValueError: two grids, two stars, an unknown rv, a low member better than the high, or too little in common.
    """
    _check_grids(low, high)
    _check_order(low, high)
    apart = _place(low.meta).separation(_place(high.meta)).arcsec
    two = ~(apart <= max_sep_arcsec) | ~_same_name(_designation(low.meta), _designation(high.meta))
    if two.any():
        row = int(np.flatnonzero(two)[0])
        raise ValueError(f"{int(two.sum())} pair(s), the first in row {row} ({apart[row]:.1f} arcsec apart), join two "
                         f"stars; pair observations within {max_sep_arcsec:g} arcsec and of one designation.")
    z_low, z_high = (s.meta["rv"].to_numpy(float) / grid.C_KMS for s in (low, high))  # rv is c z
    if not np.isfinite(z_low - z_high).all():
        raise ValueError("rv is unknown for a member of a pair, so it cannot be aligned; leave the pair out.")
    stretch = (1 + z_low) / (1 + z_high)
    flux, ivar = np.zeros(low.flux.shape), np.zeros(low.flux.shape)
    for b in range(len(low)):
        f, i = high.flux[b], high.ivar[b]
        if stretch[b] != 1.0:
            f, i = grid.resample(high.wave * stretch[b], f, i, onto=low.wave)
        ratio = _smooth_ratio(low.select(b), f, i)
        flux[b], ivar[b] = np.where(i > 0, f * ratio, 1.0), i / ratio**2
    clean = Spectra(low.wave, flux, ivar, low.continuum, high.meta, high.noise)
    table = pd.DataFrame({"star": low.stars, "clean_star": high.stars, "way": "repeats", "separation": apart,
                          "shift": grid.C_KMS * (stretch - 1), "snr_noisy": snr(low), "snr_clean": snr(clean)})
    return Pairs(low, clean, table)


def from_repeats(spectra: Spectra, max_sep_arcsec: float = 3.0, min_ratio: float = 2.0) -> Pairs:
    """Every observation that has a better one of its star, with the best one: low S/N with high S/N, RV-aligned.

    One star means within `max_sep_arcsec` and, where both have a designation, the same one. Observations without a
    position or a velocity are left out.

    Args:
        spectra: with ra, dec [deg], rv [km/s] and designation in meta.
        max_sep_arcsec: how far apart [arcsec] one star's positions may be.
        min_ratio: S/N of the high member over that of the low one, at least.

    Raises:
        ValueError: columns missing from meta, a ratio below 1, or no such pair.
    """
    if not min_ratio >= 1:
        raise ValueError(f"min_ratio is {min_ratio}; the clean member must be the better one, give 1 or more.")
    place, quality = _place(spectra.meta), snr(spectra)
    known = np.flatnonzero(np.isfinite(spectra.meta[["ra", "dec", "rv"]].to_numpy(float)).all(axis=1))
    i, j, *_ = search_around_sky(place[known], place[known], max_sep_arcsec * units.arcsec) if known.size else ([], [])
    i, j = known[np.asarray(i, int)], known[np.asarray(j, int)]
    names = _designation(spectra.meta)
    keep = _same_name(names[i], names[j]) & (quality[j] >= min_ratio * quality[i]) & (quality[i] > 0) & (i != j)
    pairs = pd.DataFrame({"low": i[keep], "high": j[keep], "quality": quality[j[keep]]})
    best = pairs.sort_values(["low", "quality", "high"], ascending=[True, False, True]).drop_duplicates("low")
    if best.empty:
        raise ValueError(f"no star has two observations within {max_sep_arcsec:g} arcsec whose S/N differ by a factor "
                         f"of {min_ratio:g}; give more spectra or lower min_ratio.")
    return align(spectra.select(best["low"].to_numpy()), spectra.select(best["high"].to_numpy()), max_sep_arcsec)


def from_folder(folder: str | Path, max_sep_arcsec: float = 3.0, min_ratio: float = 2.0) -> Pairs:
    """Option A on a folder of LAMOST files: `from_repeats` of every file that can be read.

    Raises:
        ValueError: no file that can be read (with each one's reason), or no star observed twice.
    """
    spectra, refused = lamost.read_folder(folder, progress=False)
    if not len(spectra):
        reasons = "; ".join(f"{row.file}: {row.reason}" for row in refused.head(3).itertuples())
        raise ValueError(f"{folder} holds no spectrum that can be read ({reasons}).")
    return from_repeats(spectra, max_sep_arcsec, min_ratio)


def from_clean(clean: Spectra | npt.ArrayLike, noise: Noise, seed: int) -> Pairs:
    """Noise put on clean spectra; with a `noise` of core.data.noise, a star's depends on its id and the seed alone.

    The noisy member gets a continuum made from its own noisy flux, as a real observation does; the clean member is then
    given in that unit. What the clean spectrum does not know is asked of neither.

    Args:
        clean: Spectra on grid.WAVE with an ivar that says how clean they are, or noise-free flux (B, 3840) in any unit.
        noise: makes the observation, for example lambda clean, seed: add_noise(clean, model.draw(...), seed).
        seed: of the noise.

    Raises:
        ValueError: another grid, an observation in another unit, or one that is better than the clean spectrum.
    """
    if not isinstance(clean, Spectra):
        flux = np.atleast_2d(np.asarray(clean, dtype=np.float64))
        if flux.shape[1:] != grid.WAVE.shape or not np.isfinite(flux).all():
            raise ValueError(f"clean flux has shape {flux.shape}, or is not finite; give finite (B, {grid.N_PIXELS}).")
        curve = grid.continuum_curve(flux, np.ones(flux.shape))
        meta = pd.DataFrame({"star": [f"clean-{b:06d}" for b in range(len(flux))], "origin": "simulated"})
        clean = Spectra(grid.WAVE, flux / curve, np.full(flux.shape, _NOISELESS**-2), curve, meta)
    if clean.wave.shape != grid.WAVE.shape or not np.allclose(clean.wave, grid.WAVE, rtol=1e-9):
        raise ValueError("the clean spectra are on another grid; put them on grid.WAVE with grid.prepare.")
    seen = noise(clean, seed)
    _check_grids(seen, clean)
    _check_unit(seen, clean)
    ivar = np.where(clean.measured, seen.ivar, 0.0)
    noisy = grid.prepare(grid.WAVE, seen.flux * seen.continuum, ivar / seen.continuum**2, meta=seen.meta)
    unit = clean.continuum / noisy.continuum
    target = replace(clean, flux=clean.flux * unit, ivar=clean.ivar / unit**2, continuum=noisy.continuum)
    table = pd.DataFrame({"star": seen.stars, "clean_star": clean.stars, "way": "simulated", "separation": 0.0,
                          "shift": 0.0, "snr_noisy": snr(noisy), "snr_clean": snr(target)})
    return Pairs(noisy.with_noise(seen.noise), target, table)
