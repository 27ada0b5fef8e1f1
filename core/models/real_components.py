"""Mixture components learned from real stars alone, and how wide and correlated is what they leave of a new star."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch
from scipy.ndimage import gaussian_filter1d
from torch import Tensor

from core.spectrum import Array

MOST = (100, 60)  #: factors of the component of all stars, of each cell
_FOLDS = 5
_LEFT, _NOISE = 0.006, 0.005  # residual and noise (S/N 200) at which a star left out is projected on the factors
_CLIP = 4.0  # robust deviations at which residuals are cut: a few odd stars would set the width for all
_REACH = 24  # pixels over which residuals are correlated; beyond, nothing is left (docs/results.md)


def _factors(stars: Array, most: int) -> tuple[Array, Array]:
    """Mean (L,) and leading principal directions times their deviation (k, L), k at most half the stars."""
    n = len(stars)
    k = min(most, n // 2)
    mean = stars.mean(axis=0)
    gap = stars - mean
    # the directions among stars, not pixels: a tenth of the time of a decomposition of the stars themselves
    _, among = np.linalg.eigh(gap @ gap.T)
    return mean, among[:, ::-1][:, :k].T @ gap / np.sqrt(n)


def left_out_residual(stars: Array, most: int, seed: int = 0) -> Array:
    """(n, L) what the factors leave of each star when they were learned from the others (five folds).

    In sample a hundred factors leave a third of it: they fit the stars they came from too well.
    """
    fold = np.random.default_rng(seed).permutation(len(stars)) % _FOLDS
    out = np.zeros_like(stars)
    for i in range(_FOLDS):
        mean, factors = _factors(stars[fold != i], most)
        gap = stars[fold == i] - mean
        precision = 1.0 / (_LEFT**2 + _NOISE**2)
        scores = np.linalg.solve(precision * factors @ factors.T + np.eye(len(factors)), precision * factors @ gap.T)
        out[fold == i] = gap - scores.T @ factors
    return out


def residual_variance(residual: Array) -> Array:
    """(L,) mean square of residuals (n, L), robust against a few odd stars and smoothed over two pixels."""
    limit = _CLIP * 1.4826 * np.median(np.abs(residual), axis=0)
    return np.asarray(gaussian_filter1d((np.clip(residual, -limit, limit) ** 2).mean(axis=0), 2))


def real_components(stars: Array, variance: Array, edges: tuple[float, ...], groups: Array,
                    most: tuple[int, int] = MOST) -> list[tuple[float, Array, Array, Array]]:
    """Components learned from real stars: one for all of them, one for each cell of `groups` between `edges`.

    Args:
        stars: (n, L) completed, at rest; variance: (n, L) of the completion, 0 where measured.
        groups: (n,) what the cells are cut in (a colour or temperature); no edges, no cells.
        most: factors of the component of all stars and of each cell, where half the stars are not fewer.

    Returns:
        (weight, mean, factors, residual variance of stars *not* learned from) of each.
    """
    cells = [np.ones(len(stars), dtype=bool)]
    cells += [(groups >= a) & (groups < b) for a, b in pairwise(edges)]
    out = []
    for number, cell in enumerate(cells):
        if cell.sum() < 2 * _FOLDS:  # too few to learn from and leave out: the component of all stars serves them
            continue
        mean, factors = _factors(stars[cell], most[number > 0])
        residual = residual_variance(left_out_residual(stars[cell], most[number > 0])) + variance[cell].mean(axis=0)
        weight = 0.5 if number == 0 else 0.5 * cell.sum() / len(stars)
        out.append((float(weight), mean, factors, residual))
    return out


def autocorrelation(residual: Array, measured: npt.NDArray[np.bool_]) -> Array:
    """(25,) correlation of residuals (n, L) at lags 0 to 24, each star and each pixel scaled to unit variance."""
    z = np.where(measured, residual, np.nan)
    keep = measured.sum(axis=0) > 0.5 * len(residual)
    z = z[:, keep]
    z = z / np.nanstd(z, axis=0)
    z = z / np.nanstd(z, axis=1, keepdims=True)
    return np.array([np.nanmean(z[:, : z.shape[1] - lag] * z[:, lag:]) for lag in range(_REACH + 1)])


def taps_of(correlation: Array) -> Tensor:
    """(25,) symmetric moving average of unit norm with nearly a given autocorrelation (25,).

    The square root of its spectrum, after a triangular taper that keeps the spectrum positive (Bartlett window).
    """
    n = 256
    lag = np.arange(len(correlation))
    tapered = correlation * (1 - lag / (len(correlation) + 1))
    two_sided = np.zeros(n)
    two_sided[lag] = tapered
    two_sided[-lag[1:]] = tapered[1:]
    root = np.fft.fft(np.sqrt(np.maximum(np.fft.fft(two_sided).real, 1e-3))).real / n
    half = len(correlation) // 2
    taps = np.concatenate([root[half:0:-1], root[: half + 1]])
    return torch.tensor(taps / np.linalg.norm(taps), dtype=torch.float32)
