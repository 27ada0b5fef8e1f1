"""Fits a mixture of factor analysers to clean spectra: classification EM in one basis, residual variance per pixel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.linalg import eigh

from core.spectrum import Array

_SHRINK = 30.0  # pseudo-stars with the pooled covariance that each component's covariance is shrunk by


@dataclass
class FittedComponents:
    """What `fit_components` returns: the common basis and each component in it.

    Args:
        centre: (L,); basis: (M, L) orthonormal rows; weight: (J,); mean: (J, M); factors: (J, k, M);
        residual: (J, L) variance of what the factors leave.
    """

    centre: Array
    basis: Array
    weight: Array
    mean: Array
    factors: Array
    residual: Array


def _basis(spectra: npt.NDArray[Any], size: int) -> tuple[Any, Any, Any]:
    """Mean (L,), leading principal directions (M, L) and the variance per pixel they leave (L,)."""
    centre = spectra.mean(axis=0, dtype=np.float64).astype(np.float32)
    gap = spectra - centre
    pixels = gap.shape[1]
    _, vectors = eigh((gap.T @ gap).astype(np.float64) / len(gap), subset_by_index=(pixels - size, pixels - 1))
    basis = vectors[:, ::-1].T.astype(np.float32)
    coefficients = gap @ basis.T
    left = ((gap - coefficients @ basis) ** 2).mean(axis=0)
    return np.asarray(centre), np.asarray(basis), np.asarray(left)


def _start(scores: Array, components: int, rng: np.random.Generator, rounds: int = 30) -> Array:
    """Hard assignment (N,) by k-means on the leading scores, each scaled by the square root of its spread."""
    points = scores[:, :20] / scores[:, :20].std(axis=0) ** 0.5
    centres = points[rng.choice(len(points), components, replace=False)]
    label = np.zeros(len(points), dtype=int)
    for _ in range(rounds):
        label = ((points**2).sum(1)[:, None] - 2 * points @ centres.T + (centres**2).sum(1)).argmin(axis=1)
        for j in range(components):
            if (label == j).sum() >= 50:
                centres[j] = points[label == j].mean(axis=0)
            else:  # an empty or tiny cell starts again at a random star
                centres[j] = points[rng.integers(len(points))]
    return label


def fit_components(spectra: Array, components: int, factors: int, size: int, seed: int,
                   rounds: int = 6) -> FittedComponents:
    """Mixture of factor analysers by classification EM in the space of the leading principal components.

    Covariances are shrunk towards the pooled one by a weight of 30 stars; the factors are the leading eigenvectors of
    each component's covariance; what they leave, and what the basis leaves, is variance per pixel.

    Args:
        spectra: (N, L) clean, in units of their continuum.
        components: J; factors: k; size: M, of the common basis.
        seed: of the start.

    Raises:
        ValueError: fewer than 100 stars per component, or more factors than basis vectors.
    """
    if len(spectra) < 100 * components or factors >= size:
        raise ValueError(f"{len(spectra)} spectra for {components} components of {factors} factors in {size} vectors: "
                         "give at least 100 spectra each and fewer factors.")
    centre, basis, left = _basis(np.asarray(spectra, dtype=np.float32), size)
    scores = ((spectra - centre) @ basis.T).astype(np.float64)
    label = _start(scores, components, np.random.default_rng(seed))
    for _ in range(rounds):
        pooled = np.mean([np.cov(scores[label == j].T) for j in range(components) if (label == j).sum() > 1], axis=0)
        weight, mean, covariance, cost = np.zeros(components), np.zeros((components, size)), [], []
        for j in range(components):
            mine = scores[label == j]
            weight[j] = max(len(mine), 1) / len(scores)
            mean[j] = mine.mean(axis=0) if len(mine) else scores.mean(axis=0)
            scatter = (mine - mean[j]).T @ (mine - mean[j])
            covariance.append((scatter + _SHRINK * pooled) / (len(mine) + _SHRINK) + 1e-12 * np.eye(size))
            chol = np.linalg.cholesky(covariance[j])
            u = np.linalg.solve(chol, (scores - mean[j]).T)
            cost.append((u**2).sum(axis=0) + 2 * np.log(np.diag(chol)).sum() - 2 * np.log(weight[j]))
        moved = np.argmin(cost, axis=0)
        if (moved != label).mean() < 0.002:
            break
        label = moved
    loading, residual = np.zeros((components, factors, size)), np.zeros((components, basis.shape[1]))
    for j in range(components):
        values, vectors = np.linalg.eigh(covariance[j])
        loading[j] = (vectors[:, ::-1][:, :factors] * np.sqrt(values[::-1][:factors])).T
        rest = (vectors[:, ::-1][:, factors:] * np.sqrt(np.maximum(values[::-1][factors:], 0))).T @ basis
        residual[j] = (rest**2).sum(axis=0) + left
    return FittedComponents(centre, basis, weight, mean, loading, residual)
