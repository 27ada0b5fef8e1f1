"""Real stars nearly free of noise (MILES, STELIB, MaStar) on the working grid, a quarter kept out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.interpolate import CubicSpline
from scipy.ndimage import gaussian_filter1d

from core.data import mangadap
from core.data.grid import N_PIXELS, WAVE, air_to_vacuum, continuum_curve
from core.data.noise_measure import TELLURIC
from core.spectrum import Array, Spectra

RESOLUTION = 1800.0  #: lambda/FWHM that spectra sharper than LAMOST's are brought to; blurrier ones stay
_FWHM = 2.0 * np.sqrt(2.0 * np.log(2.0))
#: source: FWHM [Angstrom], relative noise of a pixel: third differences at 5500-6200 Angstrom scatter by .0034 (MILES,
#: median over stars), lines included
_SOURCES = {"miles": (2.5, 0.003), "stelib": (3.0, 0.006)}


def _blurred(wave: Array, flux: Array, fwhm: float) -> Array:
    """Spectra of constant FWHM [Angstrom] brought down to lambda/FWHM = 1800 where sharper."""
    step = wave[1] - wave[0]
    sigma = np.sqrt(np.maximum((wave / RESOLUTION) ** 2 - fwhm**2, 0.0)) / _FWHM / step
    levels = np.linspace(0.0, sigma.max(), 10)
    stack = np.array([gaussian_filter1d(flux, s, axis=1) if s > 0 else flux for s in levels])
    low = np.clip(np.searchsorted(levels, sigma) - 1, 0, len(levels) - 2)
    part = (sigma - levels[low]) / (levels[low + 1] - levels[low])
    pixel = np.arange(len(wave))
    return stack[low, :, pixel].T * (1 - part) + stack[low + 1, :, pixel].T * part


def _spectra(flux: Array, ivar: Array, numbers: npt.NDArray[Any], labels: Array, source: str) -> Spectra:
    """Flux (n, L) in units of its curve; the star's number divisible by four keeps it out of all fitting."""
    good = (ivar > 0).sum(axis=1) > 1000
    flux, ivar, numbers, labels = flux[good], ivar[good], numbers[good], labels[good]
    curve = continuum_curve(flux, ivar)
    meta = pd.DataFrame({"star": [f"{source}-{n}" for n in numbers], "source": source, "number": numbers,
                         "teff": labels[:, 0], "logg": labels[:, 1], "feh": labels[:, 2], "rv": 0.0,
                         "held_out": numbers % 4 == 0, "origin": "real template"})
    return Spectra(WAVE, np.where(ivar > 0, flux / curve, 1.0), ivar * curve**2, curve, meta)


def _from_air(flux: Array, wave_air: Array, source: str) -> tuple[Array, Array]:
    """Flux and ivar on WAVE of spectra evenly spaced in air; zero flux is not measured."""
    fwhm, noise = _SOURCES[source]
    wave = air_to_vacuum(wave_air)
    gone = flux <= 0
    flux = flux / np.max(flux, axis=1, keepdims=True)  # their scale is arbitrary, in STELIB 1e-11
    smooth = _blurred(wave_air, np.where(gone, np.median(flux, axis=1, keepdims=True), flux), fwhm)
    out = CubicSpline(wave, smooth, axis=1)(np.clip(WAVE, wave[0], wave[-1]))
    near = np.array([np.interp(WAVE, wave, gaussian_filter1d(row.astype(float), 4)) for row in gone]) > 0.01
    inside = (wave[0] + 5 < WAVE) & (wave[-1] - 12 > WAVE)
    level = gaussian_filter1d(np.maximum(out, 1e-9), 60, axis=1)
    return out, np.where(inside & ~near & (out > 0), 1.0 / (noise * level) ** 2, 0.0)


def _arrays(path: Path) -> dict[str, mangadap.Arrays]:
    """The arrays that mangadap.read_package describes, from the package or from ../shared/stars."""
    if mangadap.is_package(path):
        return mangadap.read_package(path)
    out = {}
    try:
        for name, file in (("miles", "miles.npz"), ("stelib", "stelib.npz"), ("mastar", "mastar_hc.npz")):
            with np.load(path / file) as a:
                out[name] = {k: a[k] for k in a.files}
    except OSError as error:
        raise ValueError(f"{path} lacks a library of real stars ({error}); name the folder with --stars.") from error
    for name in ("miles", "stelib"):
        out[name]["flux"] = out[name]["flux_u16"].astype(float) * np.reshape(out[name]["flux_scale"], (-1, 1))
    return out


def read(path: Path) -> dict[str, Spectra]:
    """The three libraries: keys "miles", "stelib", "mastar"; the same stars from either place.

    Args:
        path: the folder `../shared/stars` with miles.npz, stelib.npz and mastar_hc.npz (its README says what they
            hold), or the package that they come from: the wheel of sdss_mangadap 4.5.0, or its installed folder.

    Raises:
        ValueError: a file is missing, or `path` is no such package.
    """
    libraries = _arrays(path)
    miles, stelib, mastar = (libraries[name] for name in ("miles", "stelib", "mastar"))
    out = {}
    flux, ivar = _from_air(miles["flux"], miles["wave_air"], "miles")
    out["miles"] = _spectra(flux, ivar, miles["star"], miles["labels"], "miles")
    flux = stelib["flux"]
    waves = stelib["wave0_air"][:, None] + stelib["dwave"][:, None] * np.arange(flux.shape[1])
    # each star was shifted to rest, so each has its own wavelengths
    parts = [_from_air(flux[i : i + 1], wave, "stelib") for i, wave in enumerate(waves)]
    grid, ivar = (np.concatenate(x) for x in zip(*parts, strict=True))
    for low, high in TELLURIC:
        if low > 6200:  # sodium is the star's own
            ivar[:, (low < WAVE) & (high > WAVE)] = 0.0
    out["stelib"] = _spectra(grid, ivar, np.arange(len(flux)), stelib["labels"], "stelib")
    start = round((3.57 - float(mastar["loglam_vac"][0])) / 1e-4)
    part = slice(start, start + N_PIXELS)
    ivar = np.minimum(mastar["ivar"][:, part], 1 / (0.004 * np.maximum(mastar["flux"][:, part], 1e-9)) ** 2)
    unknown = np.full((len(ivar), 3), np.nan)
    flux = mastar["flux"][:, part].astype(float)
    out["mastar"] = _spectra(flux, ivar.astype(float), mastar["template"], unknown, "mastar")
    return out
