"""Importance sampling: what weights are worth, their smoothing, and a tempered path where they are worth nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import gammaln, logsumexp

from core.spectrum import Array


def effective(log_weight: Array) -> float:
    """Effective number of draws, 1 / sum w^2 of the normalised weights (Kong 1992), of log weights (n,)."""
    return float(np.exp(2 * logsumexp(log_weight) - logsumexp(2 * log_weight)))


def pareto_smooth(log_weight: npt.ArrayLike) -> tuple[Array, float]:
    """Normalised log weights with their upper tail smoothed, and khat (Vehtari et al. 2024, arXiv:1507.02646, sec. 3).

    The largest min(n / 5, 3 sqrt n) weights become the quantiles of a generalised Pareto fitted to them by the
    estimator of Zhang & Stephens (2009) with the weak prior of Vehtari et al. (appendix C).

    Args:
        log_weight: (n,), any additive constant.

    Raises:
        ValueError: fewer than 25 weights, or none that is finite.
    """
    out = np.array(log_weight, dtype=np.float64)
    if len(out) < 25 or not np.isfinite(out).any():
        raise ValueError(f"{len(out)} weights, {int(np.isfinite(out).sum())} finite; draw at least 25 with some prior.")
    out -= out.max()
    tail = int(np.ceil(min(0.2 * len(out), 3 * np.sqrt(len(out)))))
    order = np.argsort(out)
    last = order[-tail:]
    cut = np.exp(max(out[order[-tail - 1]], -700.0))
    x = np.exp(out[last]) - cut
    khat = np.inf
    if x[0] > 0 and x[-1] > x[0]:
        grid = 30 + int(np.sqrt(tail))
        quarter = x[int(tail / 4 + 0.5) - 1]
        b = 1 / x[-1] + (1 - np.sqrt(grid / (np.arange(grid) + 0.5))) / (3 * quarter)
        k = np.log1p(-b[:, None] * x).mean(axis=1)
        profile = tail * (np.log(-b / k) - k - 1)
        b_mean = float((np.exp(profile - logsumexp(profile)) * b).sum())
        shape = float(np.log1p(-b_mean * x).mean())
        sigma = -shape / b_mean
        khat = (shape * tail + 5.0) / (tail + 10.0)
        p = (np.arange(tail) + 0.5) / tail
        quantile = sigma * np.expm1(-khat * np.log1p(-p)) / khat if abs(khat) > 1e-9 else -sigma * np.log1p(-p)
        out[last] = np.minimum(np.log(cut + quantile), 0.0)
    elif np.ptp(out) < 1e-9:
        khat = 0.0  # equal weights have no tail: the proposal is the posterior
    return out - logsumexp(out), float(khat)


@dataclass(frozen=True, eq=False)
class Student:
    """Multivariate Student t about `centre` (d,) with scale matrix root root', root (d, d), `degrees` of freedom."""

    centre: Array
    root: Array
    degrees: float

    def draw(self, n: int, rng: np.random.Generator) -> Array:
        """(n, d)."""
        z = rng.standard_normal((n, len(self.centre))) / np.sqrt(rng.chisquare(self.degrees, n) / self.degrees)[:, None]
        return np.asarray(self.centre + z @ self.root.T)

    def log_density(self, theta: Array) -> Array:
        """(n,) of points (n, d)."""
        nu, d = self.degrees, len(self.centre)
        z = np.linalg.solve(self.root, (theta - self.centre).T)
        norm = gammaln((nu + d) / 2) - gammaln(nu / 2) - d / 2 * np.log(nu * np.pi) - np.linalg.slogdet(self.root)[1]
        return np.asarray(norm - (nu + d) / 2 * np.log1p((z**2).sum(axis=0) / nu))


def _next(log_ratio: Array, power: float) -> float:
    """The next power, at most 1, at which a third of the draws still count (by bisection)."""
    low, high = power, 1.0
    if effective((1.0 - power) * log_ratio) >= len(log_ratio) / 3:
        return 1.0
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (middle, high) if effective((middle - power) * log_ratio) >= len(log_ratio) / 3 else (low, middle)
    return low if low > power else high


def anneal(log_posterior: Callable[[Array], Array], proposal: Student, n: int, rng: np.random.Generator,
           sweeps: int = 4, most: int = 40, rounds: int = 16, narrow: float = 0.8) -> tuple[Array, float, float]:
    """n draws of a proposal q carried to the posterior p through q^(1 - b) p^b (Del Moral et al. 2006, sec. 3).

    At each power b, chosen so that a third of the draws count, they are resampled and moved by `sweeps` pairs of steps
    (preconditioned Crank-Nicolson, Cotter et al. 2013), whose lengths follow the acceptance: one reversible under a
    Gaussian a fifth wider than the draws, one under the proposal's own, `narrow` times as wide. The first alone keeps
    what it starts with: some directions of a covariance of 200 draws in 41 dimensions are too narrow, so the draws stay
    narrow there, and the next covariance is theirs (label errors came out 13 % small at S/N 100). At b = 1 rounds of
    such moves go on until two in a row widen the draws by less than 1 % in the mean over parameters, and then until a
    third of the draws have forgotten where they were.

    Args:
        log_posterior: (n, d) -> (n,) ln p, -inf allowed.
        most: powers, and rounds: of moves at b = 1, at most.
        narrow: 0.8 takes off a widening of the proposal by 1.5 and leaves a fifth.

    Returns:
        (n, d) equally likely draws, ln of the integral of p, and what the draws are worth: n (1 - the largest
        correlation of any parameter's place now with that before the first of those two rounds); 0 where the path or
        the widening came to no end.
    """
    theta = proposal.draw(n, rng)
    log_q = proposal.log_density(theta)
    ratio = np.nan_to_num(log_posterior(theta) - log_q, neginf=-1e6)
    power, log_evidence, length = 0.0, 0.0, np.full(2, 0.5)

    def sweep(weight: Array) -> None:
        nonlocal theta, ratio, log_q
        centre = weight @ theta
        known = min(1.0, 1.0 / float((weight**2).sum()) / (4.0 * theta.shape[1]))  # few draws know no covariance
        cov = known * ((theta - centre).T * weight) @ (theta - centre) + (1 - known) * proposal.root @ proposal.root.T
        size = np.sqrt(np.diag(cov))
        own = 1.2 * size[:, None] * np.linalg.cholesky(cov / np.outer(size, size) + 1e-9 * np.eye(len(size)))
        roots = (own, narrow * proposal.root)
        pick = np.minimum(np.searchsorted(np.cumsum(weight), (np.arange(n) + rng.random()) / n), n - 1)
        theta, ratio, log_q = theta[pick], ratio[pick], log_q[pick]
        for turn in range(2 * sweeps):
            kind = turn % 2
            root = roots[kind]
            z = np.linalg.solve(root, (theta - centre).T).T
            # half of the walkers take short steps, so that one bad guess of the length does not stop them all
            step = np.where(rng.random((n, 1)) < 0.5, length[kind], length[kind] / 3)
            z_new = np.sqrt(1 - step**2) * z + step * rng.standard_normal(z.shape)
            there = centre + z_new @ root.T
            q_new = proposal.log_density(there)
            ratio_new = np.nan_to_num(log_posterior(there) - q_new, neginf=-1e6)
            gain = power * (ratio_new - ratio) + q_new - log_q + 0.5 * (z_new**2 - z**2).sum(axis=1)
            take = np.log(rng.random(n)) < gain
            theta = np.where(take[:, None], there, theta)
            ratio, log_q = np.where(take, ratio_new, ratio), np.where(take, q_new, log_q)
            length[kind] = np.clip(length[kind] * np.exp(0.5 * (take.mean() - 0.3)), 0.05, 0.95)

    for _ in range(most):
        new = _next(ratio, power)
        w = (new - power) * ratio
        log_evidence += float(logsumexp(w) - np.log(n))
        power = new
        sweep(np.exp(w - logsumexp(w)))
        if power == 1.0:
            break
    even, calm, before, worth = np.full(n, 1.0 / n), 0, theta, 0.0
    for _ in range(rounds if power == 1.0 else 0):
        before, wide = (before if calm else theta), np.log(theta.std(axis=0)).mean()
        sweep(even)
        calm = calm + 1 if calm >= 2 or np.log(theta.std(axis=0)).mean() - wide < 0.01 else 0
        if calm >= 2:
            a, b = theta - theta.mean(axis=0), before - before.mean(axis=0)
            tie = (a * b).sum(axis=0) / np.sqrt((a**2).sum(axis=0) * (b**2).sum(axis=0) + 1e-300)
            worth = float(n * (1.0 - max(tie.max(), 0.0)))
            if worth >= n / 3:
                break
    return theta, log_evidence, worth
