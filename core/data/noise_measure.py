"""Measures on real LAMOST spectra how large the noise is against its quoted sigma, and how correlated."""

from __future__ import annotations

import warnings
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.linalg import eigh
from scipy.ndimage import gaussian_filter1d, median_filter
from scipy.optimize import nnls

from core.data.grid import C_KMS, LOGLAM, N_PIXELS, STEP, WAVE, continuum_curve
from core.data.line_windows import WINDOWS
from core.spectrum import Array, Spectra

#: Wavelength ranges [Angstrom] the table is made in: two of each arm, away from the join.
REGIONS: dict[str, tuple[float, float]] = {
    "3800-4500": (3800, 4500), "4500-5700": (4500, 5700), "6100-6800": (6100, 6800), "7000-8900": (7000, 8900),
}  # fmt: skip
ARM = {"3800-4500": "blue", "4500-5700": "blue", "6100-6800": "red", "7000-8900": "red"}
BINS = (2.0, 6.0, 12.0, 25.0, 60.0, 200.0)  #: borders of the S/N bins, S/N per pixel in the region itself

#: Telluric O2 and H2O bands and interstellar or sky Na D [Angstrom, vacuum]: absorption no star template holds.
TELLURIC = ((5885, 5905), (6275, 6330), (6860, 6965), (7160, 7340), (7590, 7720), (8100, 8360), (8900, 9000))
_SKY_STEP = 1.2  # a pixel whose sigma exceeds its running median (101 pixels) by this factor lies on a sky line
_LAGS = (1, 2, 3, 5, 10)
_REFERENCE = 5  # lag [pixels] whose differences give s^2: past the kernel's reach, short against the template's misfits
_ENOUGH = 60  # pixels a star must offer in a class to count
_FACTORS, _RIPPLES, _RIPPLE_STD, _MODEL_ERROR = 150, 24, 0.03, 0.005


def template_space(library: Path, resolution: float = 1800.0) -> tuple[Array, Array]:
    """Mean (L,) and scaled principal components (150, L) of the synthetic library as LAMOST would see it.

    Args:
        library: synspec.npz (its README gives the keys), R = 4000.
        resolution: lambda/FWHM to convolve to.
    """
    with np.load(library) as data:
        log, flux = data["loglam"], data["flux_u16"].astype(np.float32) * data["flux_scale"]
    width = [1 / (r * np.log(10) * 2.3548 * (log[1] - log[0])) for r in (resolution, 4000.0)]
    flux = gaussian_filter1d(flux, np.sqrt(width[0] ** 2 - width[1] ** 2), axis=1)
    on_grid = np.array([np.interp(LOGLAM, log, row) for row in flux])
    on_grid /= continuum_curve(on_grid, np.full_like(on_grid, 1e4))
    mean = on_grid.mean(axis=0)
    gap, n = on_grid - mean, len(on_grid)
    _, left = eigh(gap @ gap.T, subset_by_index=(n - _FACTORS, n - 1))  # a fifth of the time of the whole SVD
    return mean, left[:, ::-1].T @ gap / np.sqrt(n)


def residuals(spectra: Spectra, mean: Array, factors: Array) -> Array:
    """Whitened residual z = (y - model) / quoted sigma of each star against its best template, NaN where not measured.

    The model is the posterior mean of a Gaussian prior: synthetic principal components shifted to the pipeline's
    velocity plus 24 slow cosines of 3 %, with .5 % of model error. z is divided by sqrt(1 - leverage), so that what the
    fit absorbed of the noise is given back.
    """
    pixels = np.arange(N_PIXELS)
    slow = _RIPPLE_STD * np.cos(np.pi * np.arange(1, _RIPPLES + 1)[:, None] * np.linspace(0, 1, N_PIXELS))
    out = np.full(spectra.flux.shape, np.nan)
    for b, velocity in enumerate(spectra.meta["rv"].to_numpy(float)):
        at = pixels - np.log10(1 + (velocity if np.isfinite(velocity) else 0.0) / C_KMS) / STEP
        basis = np.vstack([[np.interp(at, pixels, f) for f in factors], slow])
        weight = spectra.ivar[b] / 0.6 / (1 + spectra.ivar[b] * _MODEL_ERROR**2)
        inverse = np.linalg.inv((basis * weight) @ basis.T + np.eye(len(basis)))
        gap = spectra.flux[b] - np.interp(at, pixels, mean)
        fit = inverse @ (basis @ (weight * gap)) @ basis
        leverage = np.clip(weight * np.einsum("kl,kj,jl->l", basis, inverse, basis, optimize=True), 0, 0.9)
        z = (gap - fit) * np.sqrt(spectra.ivar[b]) / np.sqrt(1 - leverage)
        out[b] = np.where(spectra.measured[b], z, np.nan)
    return out


def split_common(z: Array, block: int = 128) -> tuple[Array, Array]:
    """Residuals parted into what the stars of a plate share, pixel by pixel, and what is each star's own; both (B, L).

    What is shared is no noise: sky lines left by the subtraction, telluric bands, the response, and what the template
    lacks of every star. Its shape for a star is the median of z over the *other half* of the plate (so that no star is
    taken out of itself), its strength fitted in blocks of `block` pixels.

    Args:
        z: (B, L) whitened residuals of stars of one plate and night, NaN where not measured; B >= 20.

    Raises:
        ValueError: fewer than 20 stars (the median would be noise).
    """
    if len(z) < 20:
        raise ValueError(f"{len(z)} stars are too few to tell what a plate shares; give at least 20.")
    shared = np.zeros_like(z)
    halves = np.arange(len(z)) % 2
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # pixels dead in every star
        medians = [np.nan_to_num(np.nanmedian(z[halves == 1 - h], axis=0)) for h in (0, 1)]
    for b, h in enumerate(halves):
        for first in range(0, z.shape[1], block):
            shape, mine = medians[h][first : first + block], z[b, first : first + block]
            live = np.isfinite(mine)
            power = float((shape[live] ** 2).sum())
            shared[b, first : first + block] = shape * (float((shape * mine)[live].sum()) / power if power > 0 else 0.0)
    return shared, z - shared


def pixel_classes(spectra: Spectra) -> dict[str, npt.NDArray[np.bool_]]:
    """(B, L) masks of live pixels: 'telluric' bands, 'sky' lines (sigma above its running median), 'clean' the rest."""
    telluric = np.zeros(N_PIXELS, dtype=bool)
    for low, high in TELLURIC:
        telluric |= (low < WAVE) & (high > WAVE)
    sigma = np.where(spectra.measured, spectra.sigma, np.nan)
    filled = np.where(np.isfinite(sigma), sigma, np.nanmedian(sigma, axis=1, keepdims=True))
    sky = filled > _SKY_STEP * median_filter(filled, (1, 101))
    live = spectra.measured
    return {"clean": live & ~sky & ~telluric, "sky": live & sky & ~telluric, "telluric": live & telluric}


def _spread2(values: Array) -> float:
    """Robust variance: (1.4826 median |v|)^2, of values whose centre is zero."""
    return float((1.4826 * np.median(np.abs(values))) ** 2)


def per_star(spectra: Spectra, z: Array) -> pd.DataFrame:
    """One row per star, region and pixel class: S/N there, variance of z, half the variance of its differences by lag.

    Half the variance of z_i+k - z_i is s^2 (1 - rho_k): differences do not see misfits of the template that are slow.
    """
    classes = pixel_classes(spectra)
    ratio = np.where(spectra.measured, spectra.flux * np.sqrt(spectra.ivar), np.nan)
    rows, names = [], spectra.stars
    for region, (low, high) in REGIONS.items():
        inside = (low < WAVE) & (high > WAVE)
        for name, mask in classes.items():
            for b in range(len(spectra)):
                use = mask[b] & inside
                if use.sum() < _ENOUGH:
                    continue
                row = {"region": region, "pixels": name, "star": names[b], "snr": float(np.nanmedian(ratio[b, inside])),
                       "variance": _spread2(z[b, use]), "power": float(np.mean(z[b, use] ** 2))}
                for lag in _LAGS:
                    pair = use[lag:] & use[:-lag]
                    enough = pair.sum() > _ENOUGH / 2
                    row[f"d{lag}"] = _spread2((z[b, lag:] - z[b, :-lag])[pair]) / 2 if enough else np.nan
                rows.append(row)
    return pd.DataFrame(rows)


def _summary(group: pd.DataFrame) -> Array:
    """(z variance, s^2, rho_1, rho_2, rho_3) as medians over stars."""
    reference = group[f"d{_REFERENCE}"].to_numpy()
    rho = [np.nanmedian(1 - group[f"d{lag}"].to_numpy() / reference) for lag in (1, 2, 3)]
    return np.array([np.nanmedian(group["variance"]), np.nanmedian(reference), *rho])


def table(stars: pd.DataFrame, seed: int = 0, resamples: int = 400) -> pd.DataFrame:
    """Scale and correlation by region, pixel class and S/N bin, with bootstrap errors over stars (at least five)."""
    rng = np.random.default_rng(seed)
    names = ("z_variance", "s2", "rho1", "rho2", "rho3")
    rows = []
    stars = stars.dropna(subset=[f"d{_REFERENCE}"])
    for (region, pixels), part in stars.groupby(["region", "pixels"], sort=False):
        for low, high in pairwise(BINS):
            group = part[(part["snr"] >= low) & (part["snr"] < high)]
            if len(group) < 5:
                continue
            value = _summary(group)
            again = [_summary(group.iloc[rng.integers(0, len(group), len(group))]) for _ in range(resamples)]
            error = np.std(again, axis=0)
            row = {"region": region, "pixels": pixels, "snr_low": low, "snr_high": high, "stars": len(group)}
            for name, v, e in zip(names, value, error, strict=True):
                row[name], row[f"{name}_err"] = v, e
            rows.append(row)
    return pd.DataFrame(rows)


def _intercepts(group: pd.DataFrame) -> Array:
    """(s^2, rho_1, rho_2) at S/N -> 0: each half difference variance is a constant plus a misfit that grows as (S/N)^2.

    Least absolute deviations would need a solver; a twice-clipped weighted fit does, its weights set by the misfit's
    scatter.
    """
    at_zero = {}
    for lag in (1, 2, _REFERENCE):
        x, y = group["snr"].to_numpy() ** 2, group[f"d{lag}"].to_numpy()
        ok = np.isfinite(y)
        weight = 1 / (0.15**2 + (x / 60.0**2) ** 2)
        for _ in range(3):
            design = np.stack([np.ones(ok.sum()), x[ok]], axis=1) * np.sqrt(weight[ok])[:, None]
            constant, slope = nnls(design, y[ok] * np.sqrt(weight[ok]))[0]
            gap = (y - constant - slope * x) * np.sqrt(weight)
            ok = np.isfinite(y) & (np.abs(gap) < 3 * 1.4826 * np.nanmedian(np.abs(gap)))
        at_zero[lag] = constant
    s2 = at_zero[_REFERENCE]
    return np.array([s2, 1 - at_zero[1] / s2, 1 - at_zero[2] / s2])


def noise_proper(stars: pd.DataFrame, seed: int = 0, resamples: int = 400) -> pd.DataFrame:
    """s and rho of the noise alone, per region: clean pixels, extrapolated to S/N -> 0, bootstrap errors over stars."""
    rng = np.random.default_rng(seed)
    rows = []
    for region, part in stars[stars["pixels"] == "clean"].groupby("region", sort=False):
        value = _intercepts(part)
        again = np.array([_intercepts(part.iloc[rng.integers(0, len(part), len(part))]) for _ in range(resamples)])
        error = again.std(axis=0)
        rows.append({"region": region, "arm": ARM[str(region)], "stars": len(part),
                     "s": np.sqrt(value[0]), "s_err": error[0] / 2 / np.sqrt(value[0]),
                     "rho1": value[1], "rho1_err": error[1], "rho2": value[2], "rho2_err": error[2]})
    return pd.DataFrame(rows)


def adopted_kernel(proper: pd.DataFrame) -> tuple[float, float, float, float]:
    """(s blue, s red, rho blue, rho red): mean over each arm's regions of what `noise_proper` extrapolates to S/N 0.

    Not the table's own bins: already at S/N 25-60 the template misses lines of cool stars by more than the noise, and
    that misfit, taken for noise, made s in the red arm 20 % larger and its rho twice as large.
    """
    mean = proper.groupby("arm")[["s", "rho1"]].mean().clip(lower=0.0)
    blue, red = mean.loc["blue"], mean.loc["red"]
    return float(blue["s"]), float(red["s"]), float(blue["rho1"]), float(red["rho1"])


def line_window_table(raw: Spectra, mended: Spectra) -> pd.DataFrame:
    """Is the tenfold variance at strong lines real? Second differences' variance over 6, quoted units, by window.

    Were the quoted sigma right inside, its column would equal the one beside; it is the mended one that does, as far as
    lines and sky residuals (the triplet) let second differences tell. Give stars of low S/N, where they do.

    Args:
        raw: pilot spectra with ivar as quoted.
        mended: the same after `undo_line_windows`.
    """
    def scatter(spectra: Spectra, low: float, high: float) -> float:
        inside = (spectra.wave > low) & (spectra.wave < high)
        live = spectra.measured[:, inside]
        z = (spectra.flux * np.sqrt(spectra.ivar))[:, inside]
        second = np.diff(z, 2, axis=1)[live[:, 2:] & live[:, 1:-1] & live[:, :-2]]
        return _spread2(second - np.median(second)) / 6

    rows = []
    for low, high in WINDOWS:
        width = high - low
        sides = [scatter(mended, low - width, low - 2), scatter(mended, high + 2, high + width)]
        rows.append({"window": f"{low:.0f}-{high:.0f}", "quoted": scatter(raw, low + 2, high - 2),
                     "mended": scatter(mended, low + 2, high - 2), "beside": float(np.mean(sides))})
    return pd.DataFrame(rows)
