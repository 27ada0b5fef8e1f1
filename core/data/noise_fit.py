"""Fits the noise model to real LAMOST sigma maps: photon and sky terms, modes between fibres, gaps."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter1d
from scipy.optimize import nnls

from core.data.grid import N_PIXELS, WAVE
from core.data.noise import SNR_WINDOW, NoiseModel, snr
from core.spectrum import Array, Spectra


def _fill(values: Array, weights: npt.NDArray[np.bool_], modes: int, rounds: int = 30) -> tuple[Array, Array]:
    """Principal modes (k, L) of a table with holes and the stars' coefficients (B, k): fill, decompose, fill again."""
    filled = np.where(weights, values, 0.0)
    for _ in range(rounds):
        u, s, vt = np.linalg.svd(filled, full_matrices=False)
        low = (u[:, :modes] * s[:modes]) @ vt[:modes]
        filled = np.where(weights, values, low)
    return vt[:modes], u[:, :modes] * s[:modes]


def fit_model(spectra: Spectra, kernel: tuple[float, float, float, float], modes: int = 5) -> NoiseModel:
    """The sigma maps of some real spectra (of one or few spectrographs) as a `NoiseModel`; `kernel` as it stores it."""
    live = spectra.measured
    curve = spectra.continuum
    variance = np.where(live, curve**2 / np.where(live, spectra.ivar, 1.0), np.nan)
    fibre = np.ones(len(spectra))
    photon, sky = np.zeros(N_PIXELS), np.zeros(N_PIXELS)
    for _ in range(4):  # P and S per pixel by relative least squares, then each fibre's own factor k
        for j in range(N_PIXELS):
            ok = live[:, j]
            if ok.sum() >= 5:
                v = variance[ok, j] / fibre[ok]
                design = np.stack([curve[ok, j], np.ones(ok.sum())], axis=1) / v[:, None]
                photon[j], sky[j] = nnls(design, np.ones(ok.sum()))[0]
        known = photon + sky > 0  # the A band is dead in every pilot spectrum: interpolate P and S over it
        photon, sky = (np.interp(np.arange(N_PIXELS), np.flatnonzero(known), a[known]) for a in (photon, sky))
        ratio = np.log(variance / (photon * curve + sky))
        fibre = np.exp(np.nanmedian(ratio, axis=1))
        fibre /= np.exp(np.log(fibre).mean())  # or P and S would sink a little each round
    ratio = np.where(live, ratio - np.log(fibre)[:, None], 0.0)
    shapes, weights = _fill(ratio, live, modes)
    smooth = gaussian_filter1d(shapes, 3, axis=1)
    left = np.where(live, ratio - weights @ shapes, np.nan)
    dead = ~live.any(axis=0)
    left[:, dead] = 0.05 / 1.4826  # no star tells: 5 %, as elsewhere
    jitter = gaussian_filter1d(1.4826 * np.nanmedian(np.abs(left), axis=0), 10)

    window = (WAVE > SNR_WINDOW[0]) & (WAVE < SNR_WINDOW[1])
    log_curve = np.log(curve / np.median(curve[:, window], axis=1, keepdims=True))
    mean = log_curve.mean(axis=0)
    _, s, vt = np.linalg.svd(log_curve - mean, full_matrices=False)
    return NoiseModel(photon=photon, sky=sky, modes=smooth, mode_std=weights.std(axis=0), jitter=jitter,
                      log_curve=np.vstack([mean, vt[:4] * s[:4, None] / np.sqrt(len(spectra))]),
                      kernel=np.array(kernel), **_gap_statistics(live, snr(spectra)))


def _gap_statistics(live: npt.NDArray[np.bool_], ratio: Array) -> dict[str, Array]:
    """What `NoiseModel.gaps` draws from: where spectra start, every gap that was seen, the A band."""
    levels = np.linspace(0, 1, 21)
    first = live.argmax(axis=1)
    thirds = np.quantile(ratio, [1 / 3, 2 / 3])
    third = np.searchsorted(thirds, ratio)
    band = (WAVE > 7575) & (WAVE < 7700)
    telluric = ~live[:, band].any(axis=1) | ((~live[:, band]).sum(axis=1) > 40)
    gaps = []
    for b, row in enumerate(live):
        dead = np.flatnonzero(~row & (np.arange(N_PIXELS) > first[b]) & ~band)
        for run in np.split(dead, np.flatnonzero(np.diff(dead) > 1) + 1) if len(dead) else []:
            gaps.append((run[0], len(run), third[b]))
    # the A band was dead in every pilot spectrum and in none of the later ones: half of what users hold, by choice
    a_band = (0.5 if telluric.any() else 0.0, float(np.flatnonzero(band)[0]), float(band.sum()))
    return {"start": np.array([np.quantile(first[third == t], levels) for t in range(3)]), "thirds": thirds,
            "gaps": np.array(gaps, dtype=float).reshape(-1, 3),
            "gap_spectra": np.array([(third == t).sum() for t in range(3)], dtype=float),
            "telluric_gap": np.array(a_band)}
