"""The floor is the closed form where there is one and the grid integral where not; else it says that it failed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from core.metrics.floor import Floor, Problem, bayes_floor, rho, starts_about
from core.metrics.importance import Student, anneal, pareto_smooth
from core.metrics.whiten import whitener
from core.spectrum import Array, Kernel

L, D, K = 120, 8, 3
WAVE = np.linspace(5800.0, 6000.0, L)
COLOURED = Kernel(scale=(0.8, 0.6), rho=(0.3, 0.5))


def gaussian_prior(centre: Array, root: Array):
    """Log density of N(centre, root root')."""
    def log_prior(theta: Array) -> Array:
        z = np.linalg.solve(root, (theta - centre).T)
        return -0.5 * (z**2).sum(axis=0) - np.log(np.abs(np.diag(root))).sum() - len(centre) / 2 * np.log(2 * np.pi)

    return log_prior


def covariance(sigma: Array, kernel: Kernel) -> Array:
    """Dense noise covariance from the taps, by hand."""
    centre, side = kernel.taps(WAVE)
    k = np.zeros((L, L + 2))
    for i in range(L):
        k[i, i : i + 3] = side[i], centre[i], side[i]
    s = kernel.scales(WAVE) * sigma
    return s[:, None] * (k @ k.T) * s


class Linear:
    """A Gaussian prior, a linear model, linear nuisances and correlated noise with a gap: everything in closed form."""

    def __init__(self, seed: int = 1) -> None:
        g = np.random.default_rng(seed)
        self.centre = g.standard_normal(D)
        self.root = np.tril(0.3 * g.standard_normal((D, D))) + np.diag(0.5 + g.random(D))
        self.design, self.factors = g.standard_normal((D, L)) / 8, 0.1 * g.standard_normal((K, L))
        self.sigma = 0.2 + 0.2 * g.random(L)
        self.sigma[40:50] = np.inf
        live = np.isfinite(self.sigma)
        self.theta = self.centre + self.root @ g.standard_normal(D)
        self.truth = 1 + self.theta @ self.design + g.standard_normal(K) @ self.factors
        noise = covariance(np.where(live, self.sigma, 0.0), COLOURED)[np.ix_(live, live)]
        self.y = np.full(L, 77.0)
        self.y[live] = self.truth[live] + np.linalg.cholesky(noise) @ g.standard_normal(live.sum())
        # dense algebra, none of the module's
        p = np.block([[self.root @ self.root.T, np.zeros((D, K))], [np.zeros((K, D)), np.eye(K)]])
        a = np.concatenate([self.design, self.factors])
        mean = 1 + self.centre @ self.design
        total = a.T[live] @ p @ a[:, live] + noise
        gain = p @ a[:, live] @ np.linalg.inv(total)
        self.post = np.r_[self.centre, np.zeros(K)] + gain @ (self.y - mean)[live]
        self.cov = p - gain @ a.T[live] @ p
        self.mean, self.spread = 1 + self.post @ a, np.sqrt(np.einsum("il,ij,jl->l", a, self.cov, a))
        self.evidence = (stats.multivariate_normal(mean[live], total).logpdf(self.y[live])
                         + 0.5 * np.linalg.slogdet(2 * np.pi * noise)[1])
        draws = self.centre + g.standard_normal((200, D)) @ self.root.T
        self.problem = Problem(self.y, whitener(self.sigma, WAVE, COLOURED), lambda t: 1 + t @ self.design,
                               gaussian_prior(self.centre, self.root), draws, self.factors)


@pytest.fixture(scope="module")
def linear() -> Linear:
    return Linear()


@pytest.fixture(scope="module")
def answer(linear):
    g = np.random.default_rng(2)
    return bayes_floor(linear.problem, starts_about(linear.theta, linear.problem.prior_draws, g), g, draws=4000)


def test_a_linear_model_with_a_gaussian_prior_gives_the_closed_form(linear, answer):
    assert answer.ok
    assert answer.modes == 1
    assert answer.ess > 400
    n, sd = answer.ess, np.sqrt(np.diag(linear.cov))[:D]
    assert (np.abs(answer.theta_mean - linear.post[:D]) < 4.5 * sd / np.sqrt(n)).all()
    assert (np.abs(answer.theta_std / sd - 1) < 4.5 / np.sqrt(2 * n) * 1.5).all()
    assert (np.abs(answer.mean - linear.mean) < 4.5 * linear.spread / np.sqrt(n)).all()
    assert (np.abs(answer.std / linear.spread - 1) < 4.5 / np.sqrt(2 * n) * 1.5).all()
    # the variance of the mean weight is (1 / ess - 1 / n)
    assert abs(answer.log_evidence - linear.evidence) < 4.5 / np.sqrt(n)
    other = Linear(7)  # the control: another star
    assert (np.abs(answer.mean - other.mean) > 4.5 * linear.spread / np.sqrt(n)).any()
    assert abs(answer.log_evidence - other.evidence) > 4.5 / np.sqrt(n)


def test_the_equally_likely_draws_have_the_posterior_s_covariance(linear, answer):
    n = answer.ess
    z = np.linalg.solve(np.linalg.cholesky(linear.cov[:D, :D]), (answer.theta - linear.post[:D]).T)
    gap = np.cov(z) - np.eye(D)
    bound = 4.5 * np.sqrt((1 + np.eye(D)) / n) * 1.3
    assert (np.abs(gap) < bound).all()
    assert (np.abs(1.5**2 * (gap + np.eye(D)) - np.eye(D)) > bound).any()  # the control: half as wide again
    assert (np.abs(answer.draws.std(axis=0) / linear.spread - 1) < 4.5 / np.sqrt(2 * n) * 1.5).all()
    bare = answer.theta @ linear.design  # the control: draws without their linear nuisances
    assert (bare.std(axis=0) / linear.spread - 1 < -4.5 / np.sqrt(2 * n)).mean() > 0.5


def test_noise_that_is_correlated_and_taken_for_white_is_found(linear, answer):
    g = np.random.default_rng(2)
    p = linear.problem
    wrong = Problem(p.y, whitener(linear.sigma, WAVE, Kernel(COLOURED.scale)), p.model, p.log_prior, p.prior_draws,
                    p.factors)
    got = bayes_floor(wrong, linear.theta, g, draws=2000)
    gap = np.abs(got.mean - linear.mean) / linear.spread * np.sqrt(got.ess)
    assert gap.max() > 4.5


def bend(theta: Array) -> Array:
    """A mildly nonlinear line: (n, 1) -> (n, L), depth exp(theta)."""
    return 1 - np.exp(0.5 * theta) * np.exp(-0.5 * ((np.arange(L) - 60) / 4) ** 2)


def scene(model, truth: float, sigma: float, seed: int = 3, log_prior=None) -> Problem:
    g = np.random.default_rng(seed)
    y = model(np.array([[truth]]))[0] + sigma * g.standard_normal(L)
    return Problem(y, whitener(np.full(L, sigma), WAVE), model, log_prior or gaussian_prior(np.zeros(1), np.eye(1)),
                   g.standard_normal((200, 1)))


def on_a_grid(problem: Problem, sigma: float) -> tuple[float, float, float, Array]:
    """Mean, deviation, log evidence and mean spectrum by the trapezoidal rule."""
    t = np.linspace(-6, 6, 6001)
    spectra = problem.model(t[:, None])
    value = problem.log_prior(t[:, None]) - 0.5 * (((problem.y - spectra) / sigma) ** 2).sum(axis=1)
    w = np.exp(value - value.max())
    total = w.sum()
    mean = (w * t).sum() / total
    return (mean, np.sqrt((w * (t - mean) ** 2).sum() / total), value.max() + np.log(total * (t[1] - t[0])),
            w @ spectra / total)


@pytest.mark.parametrize("sigma", [0.3, 1.0])
def test_a_nonlinear_problem_agrees_with_the_grid_integral_where_laplace_does_not(sigma):
    problem = scene(bend, 0.4, sigma)
    got = bayes_floor(problem, np.array([[0.4], [-0.5], [1.5]]), np.random.default_rng(4), draws=4000)
    mean, std, evidence, spectrum = on_a_grid(problem, sigma)
    assert got.ok
    error = 4.5 / np.sqrt(got.ess)
    assert abs(got.theta_mean[0] - mean) < error * std
    assert abs(got.theta_std[0] / std - 1) < error
    assert abs(got.log_evidence - evidence) < error
    assert (np.abs(got.mean - spectrum) <= error * got.std + 1e-12).all()
    if sigma == 1.0:  # the control: the maximum alone is not the mean
        t = np.linspace(-6, 6, 6001)[:, None]
        value = problem.log_prior(t) - 0.5 * (((problem.y - bend(t)) / sigma) ** 2).sum(axis=1)
        assert abs(t[value.argmax(), 0] - mean) > error * std


def test_two_modes_are_reported_as_failed_and_one_is_not():
    def squared(theta: Array) -> Array:
        return bend(theta**2)

    start = np.array([[1.5], [-1.0]])
    two = bayes_floor(scene(squared, 1.5, 0.2), start, np.random.default_rng(5))
    assert two.modes == 2
    assert not two.ok
    one_sided = scene(squared, 1.5, 0.2, log_prior=lambda t: np.where(t[:, 0] > 0, 0.0, -40.0) - 0.5 * t[:, 0] ** 2)
    assert bayes_floor(one_sided, start, np.random.default_rng(5)).ok  # the control


def test_a_proposal_that_misses_the_bulk_has_few_effective_draws_and_is_failed():
    def comb(theta: Array) -> Array:  # many narrow maxima within a broad one: a Gaussian at one of them is no posterior
        return np.concatenate([theta, 3 * np.sin(60 * theta)], axis=1) @ np.eye(2, L)

    g = np.random.default_rng(0)
    y = comb(np.array([[0.3]]))[0]
    sharp = Problem(y, whitener(np.full(L, 0.05), WAVE), comb, gaussian_prior(np.zeros(1), np.eye(1)),
                    g.standard_normal((50, 1)))
    got = bayes_floor(sharp, np.array([[0.3], [0.41], [0.2], [0.52]]), g, draws=400)
    assert not got.ok


def test_the_pareto_shape_of_weights_is_found_and_their_mean_improved():
    g = np.random.default_rng(6)
    for shape in (0.2, 0.5, 0.9):
        found = np.array([pareto_smooth(np.log(stats.genpareto.rvs(shape, size=4000, random_state=g)))[1]
                          for _ in range(30)])
        # the estimator's own error: (1 + k) / sqrt(tail), tail = 190; the prior of ten draws at 0.5 pulls by 5 %
        want = (190 * shape + 5) / 200
        assert abs(found.mean() - want) < 4 * (1 + shape) / np.sqrt(190 * 30) + 0.02
        assert abs(found.mean() - shape - 0.3) > 0.15  # the control
    raw = np.log(stats.genpareto.rvs(0.6, size=2000, random_state=g))
    smooth, _ = pareto_smooth(raw)
    assert (np.argsort(smooth) == np.argsort(raw)).all()
    np.testing.assert_allclose(np.exp(smooth).sum(), 1.0)
    assert pareto_smooth(np.zeros(50))[1] == 0.0


def test_where_laplace_is_much_too_narrow_the_tempered_path_finds_the_closed_form(linear):
    """A Jacobian five times too steep makes a proposal far too narrow in every direction."""
    steep = replace(linear.problem, jacobian=lambda theta: 5 * linear.design)
    n, sd = 1000, np.sqrt(np.diag(linear.cov))[:D]
    alone = bayes_floor(steep, linear.theta, np.random.default_rng(1), draws=n, sweeps=0)
    assert not alone.ok
    got = bayes_floor(steep, linear.theta, np.random.default_rng(1), draws=n, sweeps=6)
    assert got.ok
    assert got.khat > 0.6
    error = 4.5 / np.sqrt(got.ess)
    assert (np.abs(got.theta_mean - linear.post[:D]) < error * sd).all()
    assert (np.abs(got.theta_std / sd - 1) < error).all()
    assert (np.abs(got.mean - linear.mean) < error * linear.spread).all()
    assert abs(got.log_evidence - linear.evidence) < 2.0  # six moves a step leave a lag: the draws are what counts
    assert np.abs(alone.theta_std / sd - 1).max() > error  # the control: the weights alone


def z_square(walls: int, d: int, runs: int, **how: float) -> float:
    """Mean z^2, over truths drawn from it, that `anneal` gives a unit normal cut off at -0.5 in its first `walls`."""
    def log_p(theta: Array) -> Array:
        return np.where((theta[:, :walls] > -0.5).all(axis=1), -0.5 * (theta**2).sum(axis=1), -np.inf)

    cut = stats.truncnorm(-0.5, np.inf)
    total = []
    for seed in range(runs):
        wide = Student(np.zeros(d), 1.5 * np.eye(d), 5.0)
        draws, _, ess = anneal(log_p, wide, 200, np.random.default_rng(seed), **how)
        assert ess > 50
        total.append((cut.var() + (draws[:, :walls].mean(axis=0) - cut.mean()) ** 2) / draws[:, :walls].var(axis=0))
    return float(np.mean(total))


def test_two_hundred_draws_in_forty_one_dimensions_are_as_wide_as_what_they_are_drawn_from():
    # 64 parameters, each variance and mean from some 80 draws: 1 + 3 / 80, with an error of sqrt(2 / 80 / 64) = 0.02
    assert abs(z_square(8, 41, 8) - 1.04) < 4 * 0.02
    assert z_square(8, 41, 8, narrow=0.02) > 1.04 + 4 * 0.02  # the control: moves under the draws' own covariance alone


DESIGN = np.random.default_rng(0).standard_normal((41, L)) / 8


def shelf(theta: Array) -> Array:
    """Spectra (n, L) of 41 labels, the first of which is held at 0 below 0, as labels that `nearest` moves."""
    return np.concatenate([np.maximum(theta[:, :1], 0.0), theta[:, 1:]], axis=1) @ DESIGN


def test_a_maximum_in_a_corner_of_the_prior_does_not_narrow_the_posterior(monkeypatch):
    """Flat ground, then a wall: the curvature there says nothing of the slope on which the posterior lies."""
    sigma, wall = 1.5, -0.15

    def log_prior(theta: Array) -> Array:
        over = np.maximum(wall - theta[:, 0], 0.0) / 0.005
        return -2.5 * np.maximum(theta[:, 0], wall) - 0.5 * over**2 - 0.5 * (theta[:, 1:] ** 2).sum(axis=1)

    g = np.random.default_rng(1)
    truth = np.r_[0.5, g.standard_normal(40)]
    y = truth @ DESIGN + sigma * g.standard_normal(L)
    draws = np.c_[0.4 * np.abs(g.standard_normal(300)), g.standard_normal((300, 40))]
    problem = Problem(y, whitener(np.full(L, sigma), WAVE), shelf, log_prior, draws)
    t = np.linspace(wall - 0.05, 4, 4001)  # the other 40 are integrated in closed form
    total = DESIGN[1:].T @ DESIGN[1:] + sigma**2 * np.eye(L)
    left = y - np.maximum(t, 0.0)[:, None] * DESIGN[0]
    rest = np.c_[t, np.zeros((len(t), 40))]
    value = log_prior(rest) - 0.5 * np.einsum("ni,ij,nj->n", left, np.linalg.inv(total), left)
    w = np.exp(value - value.max())
    w /= w.sum()
    mean = w @ t
    std = np.sqrt(w @ (t - mean) ** 2)

    def four(start: Array) -> list[Floor]:
        return [bayes_floor(problem, start, np.random.default_rng(k)) for k in range(4)]

    got = four(truth)
    assert all(f.ok for f in got)
    n = sum(f.ess for f in got)
    assert abs(np.mean([f.theta_mean[0] for f in got]) - mean) < 4.5 * std / np.sqrt(n)
    assert abs(np.mean([f.theta_std[0] for f in got]) / std - 1) < 4.5 / np.sqrt(n)
    assert t[value.argmax()] < 0  # the maximum lies on the flat ground
    monkeypatch.setattr("core.metrics.floor._STEEPEST", 1e9)  # the control: the wall's curvature, and no other start
    assert all(f.theta_std[0] < 0.2 * std for f in four(np.r_[wall, truth[1:]]))


def test_data_that_the_model_cannot_make_are_reported_as_failed(linear):
    far = replace(linear.problem, y=linear.y + 3 * np.sign(np.sin(np.arange(L))))
    assert not bayes_floor(far, linear.theta, np.random.default_rng(1)).ok
    assert bayes_floor(linear.problem, linear.theta, np.random.default_rng(1)).ok  # the control


def test_rho_is_one_for_the_posterior_mean_and_its_error_is_the_scatter_of_repetitions():
    g = np.random.default_rng(8)
    floor = 0.1 + 0.1 * g.random(300)

    def once(factor: float):
        return rho(factor * np.abs(floor * g.standard_normal(300)), floor, np.ones(300, bool), g)

    again = [once(1.0) for _ in range(60)]
    values = np.array([a.value for a in again])
    assert abs(values.mean() - 1) < 4 * values.std() / np.sqrt(60) + 0.005
    quoted = np.mean([a.error for a in again])
    assert abs(values.std(ddof=1) / quoted - 1) < 4 / np.sqrt(2 * 59)
    worse = once(1.4)  # the control
    assert worse.value - 1 > 3 * worse.error


def test_failed_stars_are_counted_and_bad_input_is_refused(linear):
    g = np.random.default_rng(9)
    a = np.array([1.0, 2.0, np.nan])
    got = rho(a, np.ones(3), [True, True, False], g)
    assert (got.used, got.failed) == (2, 1)
    np.testing.assert_allclose(got.value, np.sqrt(2.5))
    with pytest.raises(ValueError, match="leave such stars out by ok = False"):
        rho(a, np.ones(3), [True, True, True], g)
    with pytest.raises(ValueError, match="at least two stars"):
        rho(a, np.ones(3), [True, False, False], g)
    p = linear.problem
    with pytest.raises(ValueError, match=r"give \(s, 8\) inside it"):
        bayes_floor(p, np.zeros((1, 3)), g)
    with pytest.raises(ValueError, match="at least 100"):
        bayes_floor(p, linear.theta, g, draws=10)
    with pytest.raises(ValueError, match="each parameter with a spread"):
        Problem(p.y, p.whiten, p.model, p.log_prior, np.zeros((50, D)))
    with pytest.raises(ValueError, match=r"give \(k, 120\)"):
        Problem(p.y, p.whiten, p.model, p.log_prior, p.prior_draws, np.zeros((2, 3)))
    with pytest.raises(ValueError, match="infinite marks what is dead"):
        whitener(np.full(L, np.inf), WAVE)
    with pytest.raises(ValueError, match="draw at least 25"):
        pareto_smooth(np.zeros(3))
