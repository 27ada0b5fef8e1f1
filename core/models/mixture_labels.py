"""Labels ride along in the mixture as unmeasured pixels: p(labels | y) in closed form, a by-product of milliseconds."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from core.data.hashes import record, verified
from core.models.mixture import Mixture
from core.models.star_posterior import StarPosterior
from core.spectrum import LABELS, Array

FILE = Path(__file__).resolve().parents[2] / "checkpoints" / "labels.safetensors"
_RIDGE = 3.0  # pseudo-stars by which the slopes are shrunk
_FOLDS = 5


@dataclass(frozen=True, eq=False)
class MixtureLabels:
    """labels = a_j + t B_j + e, e ~ N(0, C_j), within component j; t the factors' scores. Teff as log10 Teff inside.

    With t | y, j, v ~ N(c, A^-1): labels | y, j, v ~ N(a + c B, B' A^-1 B + C); pairs are weighted as the spectrum's.
    The velocity is the pairs' own.

    Args:
        constant: (J, 4); slope: (J, k, 4), rows of factors that a component lacks are zero; scatter: (J, 4, 4).
    """

    constant: Tensor
    slope: Tensor
    scatter: Tensor

    @classmethod
    @lru_cache(maxsize=1)
    def load(cls, path: Path = FILE) -> MixtureLabels:
        """The committed one.

        Raises:
            ValueError: the file is missing, changed or something else.
        """
        verified(path)
        try:
            return cls(**{name: a.float() for name, a in load_file(path).items()})
        except (OSError, TypeError, ValueError, SafetensorError) as error:
            raise ValueError(f"{path} holds no labels ({error}); run `python -m scripts.prepare labels`.") from error

    def save(self, path: Path = FILE) -> None:
        """Write the numbers."""
        save_file({n: getattr(self, n).contiguous() for n in ("constant", "slope", "scatter")}, path)
        record(path)

    def draw(self, posterior: StarPosterior, n: int, rng: np.random.Generator) -> Array:
        """(n, 5) labels in the order and units of core.spectrum.LABELS.

        Velocities are drawn from a normal with the nodes' moments: between nodes they are not known one by one.
        """
        weight = posterior.log_weight.exp().numpy()
        pick = rng.choice(len(weight), n, p=weight / weight.sum())
        out = np.empty((n, len(LABELS)))
        for number in np.unique(pick):
            pair, rows = posterior.pairs[number], pick == number
            slope = torch.zeros(len(pair.centre), self.slope.shape[2])
            k = min(pair.signal, self.slope.shape[1])
            slope[:k] = self.slope[pair.component, :k]
            spread = torch.linalg.solve_triangular(pair.cholesky, slope, upper=False)
            covariance = (spread.T @ spread + self.scatter[pair.component]).double().numpy()
            mean = (self.constant[pair.component] + pair.centre @ slope).double().numpy()
            out[rows, :4] = rng.multivariate_normal(mean, covariance, int(rows.sum()), method="eigh")
        middle, width = posterior.velocity_moments()
        out[:, 4] = middle + width * rng.standard_normal(n)
        out[:, 0] = 10.0 ** out[:, 0]
        return out


def scores(mixture: Mixture, spectra: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Which component each clean star at rest (n, L + 2 margin) belongs to (n,), and its scores in each (n, k_j)."""
    best, found = [], []
    for j in range(len(mixture.kinds)):
        k = mixture.used[j]
        weight = mixture.residual[j].rsqrt()
        g = (mixture.factors[j, :k] * weight).double()
        z = ((spectra - mixture.mean[j]) * weight).double()
        precision = g @ g.T + torch.eye(k, dtype=torch.float64)
        h = z @ g.T
        chol = torch.linalg.cholesky(precision)
        t = torch.cholesky_solve(h.T, chol).T
        log_det = 2 * chol.diagonal().log().sum() + mixture.residual[j].double().log().sum()
        best.append(mixture.log_weight[j] - 0.5 * (log_det + (z**2).sum(1) - (h * t).sum(1)))
        found.append(t.float())
    return torch.stack(best).argmax(0), found


def _ridge(t: Array, y: Array) -> tuple[Array, Array, Array]:
    """Constant (4,), slopes (k, 4) and the covariance (4, 4) of predictions for stars left out, by five folds."""
    def solve(x: Array, z: Array) -> tuple[Array, Array]:
        middle, level = x.mean(0), z.mean(0)
        gram = (x - middle).T @ (x - middle) + _RIDGE * np.eye(x.shape[1])
        slope = np.linalg.solve(gram, (x - middle).T @ (z - level))
        return level - middle @ slope, slope

    fold, left = np.arange(len(y)) % _FOLDS, np.zeros_like(y)
    for f in range(_FOLDS):
        constant, slope = solve(t[fold != f], y[fold != f])
        left[fold == f] = y[fold == f] - constant - t[fold == f] @ slope
    limit = 5 * 1.4826 * np.median(np.abs(left), axis=0)
    left = np.clip(left, -limit, limit)
    return (*solve(t, y), left.T @ left / len(left) + 1e-8 * np.eye(y.shape[1]))


def fit_labels(mixture: Mixture, simulated: tuple[Tensor, Array], real: tuple[Tensor, Array]) -> MixtureLabels:
    """Labels of each component: physics from simulated stars, real components from real ones.

    Args:
        simulated: clean stars at rest (n, L + 2 margin) and their Teff [K], logg, [Fe/H], [alpha/Fe] (n, 4).
        real: completed real *training* stars and the same, NaN where unknown. No library knows [alpha/Fe] here: it
            follows [Fe/H] as among the simulated stars, with their scatter about that.

    Raises:
        ValueError: a component that no star belongs to.
    """
    if not np.isfinite(simulated[1]).all(axis=1).any():
        raise ValueError("no simulated star has labels; give some.")
    width = max(mixture.used)
    constant, slope, scatter = (np.zeros((len(mixture.kinds), *s)) for s in ((4,), (width, 4), (4, 4)))
    alpha = np.polyfit(simulated[1][:, 2], simulated[1][:, 3], 1)
    spread = np.std(simulated[1][:, 3] - np.polyval(alpha, simulated[1][:, 2]))
    for kind, (stars, labels) in (("physics", simulated), ("real", real)):
        y = np.column_stack([np.log10(labels[:, 0]), labels[:, 1:]])
        if kind == "real":
            y[:, 3] = np.polyval(alpha, y[:, 2])
        known = np.isfinite(y).all(axis=1)
        owner, found = scores(mixture, stars)
        for j, k in enumerate(mixture.used):
            if mixture.kinds[j] != kind:
                continue
            mine = known & ((owner == j).numpy() if kind == "physics" else np.ones(len(y), dtype=bool))
            if mine.sum() < 20:
                mine = known
            if not mine.any():
                raise ValueError(f"no {kind} star has labels; give some.")
            constant[j], slope[j, :k], scatter[j] = _ridge(found[j].numpy()[mine].astype(float), y[mine])
            if kind == "real":
                scatter[j, 3, 3] += spread**2
    return MixtureLabels(*(torch.tensor(a, dtype=torch.float32) for a in (constant, slope, scatter)))
