"""The Bayes floor: how well anybody could do, given the noise and the simulator; every error is quoted over it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import logsumexp

from core.metrics.importance import Student, anneal, effective, pareto_smooth
from core.metrics.whiten import Whiten
from core.spectrum import Array

_FAR, _DEEP = 5.0, 8.0  # two maxima are two modes beyond this distance [sigma], within this log density of the best
_SOFTEST = 0.05  # least curvature of the log prior in its own units: a concave Gaussian for the proposal, nothing more
_STEEPEST = 16.0  # and most: a wall says nothing about how far the posterior reaches on its inner side
_DEGREES = 5.0  # of the Student t that proposes
_AGAIN = 6  # climbs from better draws, at most


@dataclass(frozen=True, eq=False)
class Problem:
    """One star: y = model(theta) + b factors + n, n ~ N(0, N), b ~ N(0, I), theta ~ exp(log_prior).

    Args:
        y: (L,) the data; its value in dead pixels means nothing.
        whiten: N^-1/2, from core.metrics.whiten.whitener.
        model: theta (n, d) -> clean spectra (n, L), in the unit of y.
        log_prior: theta (n, d) -> (n,), normalised if the evidence is to mean anything.
        prior_draws: (m, d) draws of theta from the prior; they set the scale of steps and nothing else.
        factors: (k, L) linear nuisances with unit normal weights, marginalised in closed form and part of the clean
            spectrum (what physics lacks, the smooth error of the unit); none by default.
        jacobian: theta (d,) -> (d, L); central differences of the model when None.

    Raises:
        ValueError: shapes that disagree, fewer prior draws than parameters, or a parameter without spread.
    """

    y: Array
    whiten: Whiten
    model: Callable[[Array], Array]
    log_prior: Callable[[Array], Array]
    prior_draws: Array
    factors: Array | None = None
    jacobian: Callable[[Array], Array] | None = None

    def __post_init__(self) -> None:
        draws = np.asarray(self.prior_draws)
        if draws.ndim != 2 or len(draws) <= draws.shape[1] or not (draws.std(axis=0) > 0).all():
            raise ValueError(f"prior_draws of shape {draws.shape} must be (m, d), m > d, each parameter with a spread; "
                             "fix a parameter that has none inside the model.")
        if self.factors is not None and self.factors.shape[1:] != self.y.shape:
            raise ValueError(f"factors have shape {self.factors.shape}; give (k, {len(self.y)}).")

    def slopes(self, theta: Array, step: float = 0.01) -> Array:
        """(d, L) derivatives of the model; differences over `step` of the prior's deviation, which irons out kinks."""
        if self.jacobian is not None:
            return self.jacobian(theta)
        h = step * self.prior_draws.std(axis=0)
        rows = self.model(np.concatenate([theta + np.diag(h), theta - np.diag(h)]))
        return (rows[: len(h)] - rows[len(h) :]) / (2 * h[:, None])


@dataclass(frozen=True, eq=False)
class Floor:
    """Posterior of one star.

    Args:
        mean, std: (L,) of the clean spectrum.
        draws: (n, L) clean spectra and theta: (n, d) parameters, equally likely, of the same n draws.
        theta_mean, theta_std: (d,), from the weights.
        log_evidence: ln p(y) without -1/2 ln |2 pi N|; where a tempered path was used its moves lag behind its powers
            and one run may be off by several, so compare no models by it.
        ess: effective number of draws: 1 / sum w^2 of smoothed weights, or what `anneal` says of its path.
        khat: Pareto shape of the largest weights; above 0.7 they were not used, and a tempered path was.
        modes: distinct maxima found.
        ok: False where the floor failed: such stars are counted, never averaged. True promises no more than that
            nothing was seen: from a start far from the truth every climb can end in the same wrong place.
    """

    mean: Array
    std: Array
    draws: Array
    theta: Array
    theta_mean: Array
    theta_std: Array
    log_evidence: float
    ess: float
    khat: float
    modes: int
    ok: bool


class _Marginal:
    """N^-1/2 with the linear nuisances folded in: (I + G'G)^-1/2 N^-1/2, G = (N^-1/2 factors')', and their return."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        a = problem.factors if problem.factors is not None else np.zeros((1, len(problem.y)))
        self.a, self.g = a, problem.whiten(a)
        _, s, self.v = np.linalg.svd(self.g, full_matrices=False)
        self.shrink = 1.0 - 1.0 / np.sqrt(1.0 + s**2)
        self.precision = np.eye(len(a)) + self.g @ self.g.T
        self.log_det = float(np.log1p(s**2).sum())

    def half(self, rows: Array) -> Array:
        white = self.problem.whiten(rows)
        return white - (white @ self.v.T * self.shrink) @ self.v

    def log_likelihood(self, spectra: Array) -> Array:
        """(n,) of models (n, L), b integrated out."""
        return -0.5 * (self.half(self.problem.y - spectra) ** 2).sum(axis=1) - 0.5 * self.log_det

    def restore(self, spectra: Array, z: Array) -> tuple[Array, Array, Array]:
        """Models with the mean of their nuisances (n, L), with a draw of them (n, L), and their variance (L,)."""
        inverse = np.linalg.inv(self.precision)
        mean = self.problem.whiten(self.problem.y - spectra) @ self.g.T @ inverse
        root = np.linalg.cholesky(inverse)
        return (spectra + mean @ self.a, spectra + (mean + z @ root.T) @ self.a, ((root.T @ self.a) ** 2).sum(axis=0))


def _prior_bend(log_prior: Callable[[Array], Array], theta: Array, scale: Array,
                step: float = 0.03) -> tuple[Array, Array]:
    """Gradient (d,) and negative Hessian (d, d) of the log prior in units of `scale`, made positive, by differences."""
    d = len(theta)
    i, j = np.triu_indices(d, 1)
    e = step * np.eye(d)
    points = np.concatenate([np.zeros((1, d)), e, -e, e[i] + e[j], -e[i] - e[j]])
    value = log_prior(theta + points * scale)
    value = np.maximum(value, value[0] - 50.0)  # where the prior ends its slope is steep, not infinite
    up, down = value[1 : d + 1], value[d + 1 : 2 * d + 1]
    both, neither = value[2 * d + 1 :].reshape(2, -1)
    hessian = np.diag((up + down - 2 * value[0]) / step**2)
    hessian[i, j] = hessian[j, i] = (both + neither - up[i] - up[j] - down[i] - down[j] + 2 * value[0]) / 2 / step**2
    values, vectors = np.linalg.eigh(-hessian)
    return (up - down) / 2 / step, (vectors * np.maximum(values, _SOFTEST)) @ vectors.T


def _curvature(problem: Problem, marginal: _Marginal, theta: Array) -> Array:
    """(d, d) negative Hessian of the log posterior at theta (d,), in units of the prior's spread, for a proposal."""
    scale = problem.prior_draws.std(axis=0)
    slopes = marginal.half(problem.slopes(theta) * scale[:, None])
    # a wall of the prior is steep only at itself: over a third of the prior's spread it weighs as much as it should
    values, vectors = np.linalg.eigh(_prior_bend(problem.log_prior, theta, scale, 0.3)[1])
    return np.asarray(slopes @ slopes.T + (vectors * np.minimum(values, _STEEPEST)) @ vectors.T)


def _climb(problem: Problem, marginal: _Marginal, theta: Array, steps: int) -> tuple[float, Array, Array]:
    """Levenberg-Marquardt to a maximum: log density, place (d,), and curvature (d, d) in units of the prior's spread.

    Levenberg (1944), Marquardt (1963); the likelihood's curvature is Gauss-Newton's J'J, the prior's its own.
    """
    scale = problem.prior_draws.std(axis=0)

    def density(t: Array, spectrum: Array) -> float:
        return float(marginal.log_likelihood(spectrum)[0] + problem.log_prior(t[None])[0])

    spectrum = problem.model(theta[None])
    best, damping = density(theta, spectrum), 1e-2
    for _ in range(steps):
        slopes = marginal.half(problem.slopes(theta) * scale[:, None])
        push, bend = _prior_bend(problem.log_prior, theta, scale)
        bend = bend + slopes @ slopes.T
        push = push + slopes @ marginal.half(problem.y - spectrum)[0]
        gain = 0.0
        for _ in range(8):
            step = np.linalg.solve(bend + damping * np.diag(np.diag(bend)), push)
            there = theta + step * scale
            seen = problem.model(there[None])
            value = density(there, seen)
            if value > best:
                theta, spectrum, gain, best = there, seen, value - best, value
                damping = max(damping / 6, 1e-9)
                break
            damping *= 6
        if gain < 1e-3:
            break
    return best, theta, _curvature(problem, marginal, theta)


def bayes_floor(problem: Problem, starts: npt.ArrayLike, rng: np.random.Generator, draws: int = 200,
                sweeps: int = 4, least: float = 50.0, steps: int = 40) -> Floor:
    """Posterior of one star: Laplace about the maximum, then importance weights, Pareto-smoothed, or a tempered path.

    This is the floor of a simulator whose truth is known, not a method: it may start at the truth, so that no error of
    a search enters; it starts elsewhere too, so that a second mode is seen. Where the weights are too uneven (a wall of
    the prior, a kink of the domain: half of all stars) the draws are carried from the Student t to the posterior by
    `core.metrics.importance.anneal`. Two modes are a failure, for neither knows the way to the other.

    Args:
        starts: (s, d) the full truth first, nuisances too (a climb from nuisances at their medians may stick in a
            corner of the prior, `ok` and far off), perturbed points after.
        draws: proposals, and equally likely draws returned.
        sweeps: pairs of moves at each temperature of the path; 0 for importance weights alone.
        least: effective draws below which the star counts as failed.
        steps: of the climb, at most.

    Raises:
        ValueError: starts of another shape or where the prior is zero, fewer than 100 draws.
    """
    theta0 = np.atleast_2d(np.asarray(starts, dtype=np.float64))
    d = problem.prior_draws.shape[1]
    if theta0.shape[1] != d or not np.isfinite(problem.log_prior(theta0)).all():
        raise ValueError(f"starts have shape {theta0.shape} or lie where the prior is zero; give (s, {d}) inside it.")
    if draws < 100:
        raise ValueError(f"{draws} draws asked for; importance weights need at least 100.")
    marginal, scale = _Marginal(problem), problem.prior_draws.std(axis=0)
    limit = min(0.7, 1 - 1 / np.log10(draws))  # Vehtari et al. 2024, sec. 3.2.4
    found = sorted((_climb(problem, marginal, t, steps) for t in theta0), key=lambda f: -f[0])
    top, place, bend = found[0]
    distinct = [place]
    for value, other, _ in found[1:]:
        gaps = [(other - m) / scale for m in distinct]
        if value > top - _DEEP and all(g @ bend @ g > _FAR**2 for g in gaps):
            distinct.append(other)

    def log_posterior(theta: Array) -> Array:
        value = problem.log_prior(theta)
        inside = np.isfinite(value)
        value[inside] += marginal.log_likelihood(problem.model(theta[inside]))
        return value

    for _ in range(_AGAIN):
        proposal = Student(place, scale[:, None] * np.linalg.cholesky(np.linalg.inv(bend)), _DEGREES)
        theta = proposal.draw(draws, rng)
        heights = log_posterior(theta)
        best = int(heights.argmax())
        if not heights[best] > top + 0.5:
            break
        # a draw above the maximum: the climb had stuck, as at a kink where one slope does not serve both sides
        top, place, bend = _climb(problem, marginal, theta[best], steps)
        distinct[0] = place
    misfit = float((marginal.half(problem.y - problem.model(place[None])) ** 2).sum())
    pixels = int((problem.whiten(np.ones((1, len(problem.y)))) != 0).sum())
    fits = misfit < pixels + 6 * np.sqrt(2 * pixels)  # the model is the simulator: a bad fit is no maximum
    log_w = heights - proposal.log_density(theta)
    if not np.isfinite(log_w).any():
        log_w = np.where(np.arange(draws) == 0, 0.0, -np.inf)  # nothing hit the prior: one draw, which fails below
    weight_log, khat = pareto_smooth(log_w)
    ess, log_evidence = effective(weight_log), float(logsumexp(log_w) - np.log(draws))
    if (khat >= limit or ess < least) and len(distinct) == 1 and sweeps > 0:
        # a maximum in a corner of the prior knows nothing of the open ground, which the first start stands on
        cov = (np.linalg.inv(bend) + np.linalg.inv(_curvature(problem, marginal, theta0[0]))) / 2
        # from outside in: walkers widen slowly
        wide = Student(place, 1.5 * scale[:, None] * np.linalg.cholesky(cov), _DEGREES)
        theta, log_evidence, ess = anneal(log_posterior, wide, draws, rng, sweeps)
        weight_log, reliable = np.full(draws, -np.log(draws)), True
    else:
        reliable = khat < limit
    w = np.exp(weight_log)
    spectra = problem.model(theta)
    centre, drawn, variance = marginal.restore(spectra, rng.standard_normal((draws, len(marginal.a))))
    mean = w @ centre
    theta_mean = w @ theta
    # systematic resampling: equally likely draws with the least added noise
    pick = np.searchsorted(np.cumsum(w) / w.sum(), (np.arange(draws) + rng.random()) / draws)
    pick = rng.permutation(np.minimum(pick, draws - 1))
    return Floor(mean, np.sqrt(w @ (centre - mean) ** 2 + variance), drawn[pick], theta[pick], theta_mean,
                 np.sqrt(w @ (theta - theta_mean) ** 2), log_evidence, ess, khat, len(distinct),
                 bool(fits and len(distinct) == 1 and reliable and ess >= least))


def starts_about(truth: npt.ArrayLike, prior_draws: Array, rng: np.random.Generator, n: int = 2,
                 reach: float = 0.3) -> Array:
    """(n + 1, d) starts: the truth, and n points moved from it by `reach` times a prior draw's distance to its mean."""
    pick = rng.integers(len(prior_draws), size=n)
    away = reach * (prior_draws[pick] - prior_draws.mean(axis=0))
    return np.concatenate([np.asarray(truth, dtype=np.float64)[None], truth + away])


@dataclass(frozen=True)
class Rho:
    """RMSE over the floor's: 1 = nothing left to gain. `error` by bootstrap over stars; `failed` stars had no floor."""

    value: float
    error: float
    used: int
    failed: int


def rho(rmse: npt.ArrayLike, floor: npt.ArrayLike, ok: npt.ArrayLike, rng: np.random.Generator,
        rounds: int = 1000) -> Rho:
    """sqrt(mean rmse^2 / mean floor^2) over the stars whose floor held, and their bootstrap error (Efron 1979).

    Args:
        rmse: (n,) a method's root mean square error of each star.
        floor: (n,) the root of the posterior's mean variance of the same quantity, for the same stars.
        ok: (n,) `Floor.ok`.

    Raises:
        ValueError: lengths that disagree, fewer than two stars with a floor, or values that are not finite
            or a floor that is not positive among them.
    """
    a, b, use = np.asarray(rmse, float), np.asarray(floor, float), np.asarray(ok, bool)
    if not a.shape == b.shape == use.shape or a.ndim != 1 or use.sum() < 2:
        raise ValueError(f"shapes {a.shape}, {b.shape}, {use.shape}, {int(use.sum())} with a floor; give three of "
                         "(n,) with at least two stars that have one.")
    top, bottom = a[use] ** 2, b[use] ** 2
    if not (np.isfinite(top).all() and np.isfinite(bottom).all() and (bottom > 0).all()):
        raise ValueError("an error is not finite or a floor is not positive; leave such stars out by ok = False.")
    pick = rng.integers(len(top), size=(rounds, len(top)))
    again = np.sqrt(top[pick].mean(axis=1) / bottom[pick].mean(axis=1))
    return Rho(float(np.sqrt(top.mean() / bottom.mean())), float(again.std(ddof=1)), len(top), int((~use).sum()))
