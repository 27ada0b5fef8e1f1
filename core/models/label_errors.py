"""How far a label estimator is off at a given star: a scale that follows the star times a shape without a formula."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import cross_val_predict
from sklearn.preprocessing import StandardScaler

from core.spectrum import Array

_COMPONENTS = 100  # of the features: what is beyond them counts as one number
_BANDS = (5, 20, 60)  # components up to which oddness is counted apart: smooth curves, strong lines, weak ones
_REACH = 4.0  # deviations beyond which the scale is not extrapolated
_FLOOR = 0.02  # of the median error: keeps the logarithm of a lucky hit finite


def fit_errors(learned: Array, x: Array, predicted: Array, truth: Array) -> dict[str, Array]:
    """What `scale` and `draw` need, from stars that the estimator has not seen.

    truth - predicted = s(star) * r: log s is a quadratic in the predicted labels and in how odd the spectrum is (log
    of its squared whitened principal-component scores, in bands, and of what lies beyond them: a Mahalanobis distance
    in parts), by ridge regression of log |error|; r are the errors of the same stars over a scale fitted without them
    (five folds), whole vectors, so that labels stay correlated and tails as heavy as they are. This is the
    locally weighted residual of Lei et al. (2018, JASA 113, 1094, sec. 5.2), drawn from instead of ranked.

    Args:
        learned: (m, p) features that the estimator was fitted on; x: (n, p) those of other stars.
        predicted, truth: (n, 5) inner labels of those.
    """
    scaler = StandardScaler().fit(learned)
    z = scaler.transform(learned)
    size, axes = np.linalg.eigh(z.T @ z / len(z))
    keep = max(1, min(_COMPONENTS, z.shape[1] // 2, len(z) // 2))
    size = np.maximum(size[::-1][:keep], 1e-9 * size[-1])
    # in single precision from the start: an estimator from its file then draws the same
    out = {"feature_mean": scaler.mean_, "feature_scale": scaler.scale_, "size": size,
           "axes": axes[:, ::-1][:, :keep].astype(np.float32)}
    about = np.concatenate([predicted, _oddness(out, x)], axis=1)
    unit = StandardScaler().fit(about)
    out |= {"centre": unit.mean_, "unit": unit.scale_}
    error = truth - predicted
    size_of = np.log(np.abs(error) + _FLOOR * np.median(np.abs(error), axis=0) + 1e-12)
    design = _quadratic(unit.transform(about))
    regression = RidgeCV(alphas=np.geomspace(0.1, 1e4, 11), alpha_per_target=True)
    unseen = cross_val_predict(regression, design, size_of, cv=5)
    regression.fit(design, size_of)
    return out | {"weight": regression.coef_.T, "constant": regression.intercept_,
                  "shape": (error / np.exp(unseen)).astype(np.float32)}


def scale(arrays: dict[str, Array], x: Array, predicted: Array) -> Array:
    """(n, 5) scale of the error of inner labels `predicted` (n, 5) from features x (n, p)."""
    about = np.concatenate([predicted, _oddness(arrays, x)], axis=1)
    u = np.clip((about - arrays["centre"]) / arrays["unit"], -_REACH, _REACH)
    return np.asarray(np.exp(arrays["constant"] + _quadratic(u) @ arrays["weight"]))


def draw(arrays: dict[str, Array], x: Array, predicted: Array, rng: np.random.Generator) -> Array:
    """(n, 5) draws of truth - predicted: the scale of each star times the shape of another one, picked at random."""
    shape = arrays["shape"]
    return np.asarray(scale(arrays, x, predicted) * shape[rng.integers(len(shape), size=len(x))])


def _oddness(arrays: dict[str, Array], x: Array) -> Array:
    """(n, K) log mean square of whitened scores in bands of components, and log of the square beyond the last."""
    z = (x - arrays["feature_mean"]) / arrays["feature_scale"]
    square = (z @ arrays["axes"]) ** 2
    edges = [0, *(b for b in _BANDS if b < square.shape[1]), square.shape[1]]
    whole, white = (z**2).sum(axis=1), square / arrays["size"]
    parts = [white[:, a:b].mean(axis=1) for a, b in pairwise(edges)]
    beyond = np.maximum(whole - square.sum(axis=1), 1e-6 * whole)
    return np.log(np.maximum(np.stack([*parts, beyond], axis=1), 1e-12))


def _quadratic(u: Array) -> Array:
    """(n, q + q (q + 1) / 2) the columns of u (n, q) and all their products."""
    first, second = np.triu_indices(u.shape[1])
    return np.concatenate([u, u[:, first] * u[:, second]], axis=1)
