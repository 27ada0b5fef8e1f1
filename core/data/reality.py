"""What real stars have and physics lacks: a label-dependent mean and a few factors, learned with their ivar."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from scipy.ndimage import gaussian_filter1d

from core.data.hashes import record, verified
from core.spectrum import Array

FILE = Path(__file__).resolve().parents[2] / "checkpoints" / "reality.safetensors"


def label_features(teff: Array, logg: Array, feh: Array) -> Array:
    """(n, 7) smooth functions of the labels, on which the mean residual depends; labels kept inside the library's."""
    t = np.log(np.clip(teff, 3950, 12000) / 5500) / 0.25
    g = (np.clip(logg, 0, 5) - 3.5) / 1.0
    m = (np.clip(feh, -2.5, 0.5) + 0.3) / 0.6
    return np.stack([np.ones_like(t), t, g, m, t**2, t * g, t * m], axis=1)


@dataclass(frozen=True, eq=False)
class Reality:
    """Residual of a real star against physics: features(labels) @ mean + t @ factors, t ~ N(0, I), and per-pixel noise.

    Args:
        mean: (7, L) coefficients of the label features; factors: (k, L); spread: (L,) standard deviation of
        what is left.
            All in units of the curve, at rest, on the wide grid.
    """

    mean: Array
    factors: Array
    spread: Array

    @classmethod
    def load(cls, path: Path = FILE) -> Reality:
        """The committed numbers.

        Raises:
            ValueError: the file is missing, changed or something else.
        """
        verified(path)
        try:
            return cls(**{name: value.astype(np.float64) for name, value in load_file(path).items()})
        except (OSError, TypeError, ValueError, SafetensorError) as error:
            raise ValueError(f"{path} holds no reality ({error}); run `python -m scripts.prepare prior`.") from error

    def save(self, path: Path = FILE) -> None:
        """Write the numbers as float16 (their errors are percents, float16's are .05 %)."""
        names = ("mean", "factors", "spread")
        save_file({n: np.ascontiguousarray(getattr(self, n), dtype=np.float16) for n in names}, path)
        record(path)

    def __call__(self, labels: Array, rng: np.random.Generator) -> Array:
        """A draw for each star, (n, L); labels (n, 28) in the library's order."""
        n = len(labels)
        mean = label_features(labels[:, 1], labels[:, 2], labels[:, 3]) @ self.mean
        return mean + rng.standard_normal((n, len(self.factors))) @ self.factors


def fit_reality(residual: Array, weight: Array, features: Array, factors: int, ridge: float = 3.0,
                rounds: int = 15) -> Reality:
    """Heteroscedastic factorisation with missing data (Tsalmantza & Hogg 2012, arXiv:1201.3370; here as EM with
    priors).

    The mean's slopes are shrunk by a ridge of `ridge` stars; factor scores have a unit normal prior; loadings are
    shrunk
    where few stars were measured, so that a factor goes to zero there and does not blow up.

    Args:
        residual: (n, L) real star less physics; weight: (n, L) inverse variance of its noise, 0 = not measured.
        features: (n, f) of `label_features`; rows with NaN use the intercept alone.
        factors: how many.
    """
    known = np.asarray(np.isfinite(features).all(axis=1))
    design = np.where(known[:, None], features, 0.0)
    design[:, 0] = 1.0
    live = weight > 0
    n, pixels = residual.shape
    mean = np.zeros((design.shape[1], pixels))
    loading = np.zeros((factors, pixels))
    scores = np.zeros((n, factors))
    left = np.full(pixels, 0.02**2)
    penalty = ridge * np.diag([0.0] + [1.0] * (design.shape[1] - 1)) + 1e-3 * np.eye(design.shape[1])
    second = np.zeros((n, factors, factors))
    for turn in range(rounds):
        noise = np.where(live, 1.0 / (1.0 / np.where(live, weight, 1.0) + left), 0.0)
        target = residual - scores @ loading
        w = noise / np.maximum(noise.max(axis=0), 1e-12)  # relative weights: the ridge counts in stars
        normal = np.einsum("nl,nf,ng->lfg", w, design, design, optimize=True) + penalty
        mean = np.linalg.solve(normal, np.einsum("nl,nf->lf", w * target, design)[..., None])[..., 0].T
        gap = np.where(live, residual - design @ mean, 0.0)
        if factors:
            if turn == 0:
                _, s, vt = np.linalg.svd(gap * (live.mean(axis=0) > 0.3), full_matrices=False)
                loading = vt[:factors] * s[:factors, None] / np.sqrt(n)
            for i in range(n):
                precision = (loading * noise[i]) @ loading.T + np.eye(factors)
                inverse = np.linalg.inv(precision)
                scores[i] = inverse @ (loading @ (noise[i] * gap[i]))
                second[i] = inverse + np.outer(scores[i], scores[i])
            moment = np.einsum("nl,nfg->lfg", w, second, optimize=True) + 2.0 * np.eye(factors)
            cross = np.einsum("nl,nf->lf", w * gap, scores, optimize=True)
            loading = np.linalg.solve(moment, cross[..., None])[..., 0].T
            # shrunk loadings would be made up for by large scores, and draws with unit scores be too narrow: let the
            # loadings carry the scores' size (parameter-expanded EM, Liu, Rubin & Wu 1998)
            size = np.linalg.cholesky(second.mean(axis=0))
            loading, scores = size.T @ loading, scores @ np.linalg.inv(size).T
        rest = np.where(live, gap - scores @ loading, 0.0)
        count = live.sum(axis=0)
        # what the scores' own uncertainty adds is small against pixel noise here; template noise is taken
        # off, not learned
        raw = (rest**2).sum(axis=0) - np.where(live, 1 / np.where(live, weight, 1.0), 0.0).sum(axis=0)
        left = np.maximum(raw / np.maximum(count - factors / 4, 10), 0.002**2)
        left = gaussian_filter1d(left, 3)
    return Reality(mean, loading, np.sqrt(left))
