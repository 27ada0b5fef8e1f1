"""The floor is the closed form where there is one and the grid integral where not, and it lies between its bounds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from core.metrics.floor import Chain, bracket, chain, rho
from core.metrics.guide import Guide, Question, Surrogate
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


def plain(states: Array):
    """The spectra are smooth in the parameters themselves."""
    return lambda t: t[:, :-1]


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
        prior = gaussian_prior(self.centre, self.root)
        self.question = Question(self.y, whitener(self.sigma, WAVE, COLOURED), lambda t: 1 + t[:, :D] @ self.design,
                                 plain, np.arange(2), lambda t: prior(t[:, :D]), self.centre[None],
                                 np.sqrt((self.root**2).sum(axis=1))[None], lambda state: self.factors)


def walked(question: Question, start: Array, rng: np.random.Generator, walkers: int = 400,
           **how: int) -> tuple[Guide, Chain]:
    """Guide and free walkers of a question, from points about a start (d,) that is not the truth."""
    d = len(start)
    points = np.c_[start + question.scale[0] * rng.standard_normal((120, d)), np.zeros(120)]
    guide = Guide(question, points, rng)
    return guide, chain(guide, np.resize(guide.cloud, (walkers, d + 1)), rng, **how)


@pytest.fixture(scope="module")
def linear() -> Linear:
    return Linear()


@pytest.fixture(scope="module")
def answer(linear) -> tuple[Guide, Chain]:
    return walked(linear.question, linear.centre, np.random.default_rng(2), steps=8, keep=4)


def gaps(linear: Linear, guide: Guide, seen: Chain) -> tuple[float, float]:
    """Worst error of mean and of deviation over pixels, in units of the closed form's deviation."""
    variance = guide.marginal.restore(seen.means[0], np.zeros((seen.means.shape[1], K)))[2]
    flat = seen.means.reshape(-1, L)
    return (float(np.abs((flat.mean(axis=0) - linear.mean) / linear.spread).max()),
            float(np.abs(np.sqrt(flat.var(axis=0) + variance) / linear.spread - 1).max()))


def test_a_linear_model_with_a_gaussian_prior_gives_the_closed_form(linear, answer):
    guide, seen = answer
    mean, width = gaps(linear, guide, seen)
    assert seen.taken > 0.9  # the quadratic is the model
    assert mean < 4.5 / np.sqrt(400)
    assert width < 4.5 / np.sqrt(800)
    assert (np.abs(seen.draws.reshape(-1, L).std(axis=0) / linear.spread - 1) < 4.5 / np.sqrt(800)).all()
    theta = seen.states[..., :D].reshape(-1, D)
    z = np.linalg.solve(np.linalg.cholesky(linear.cov[:D, :D]), (theta - linear.post[:D]).T)
    assert (np.abs(np.cov(z) - np.eye(D)) < 4.5 * np.sqrt((1 + np.eye(D)) / 400)).all()
    other = Linear(7)  # the control: another star
    assert gaps(other, guide, seen)[0] > 4.5 / np.sqrt(400)


@pytest.mark.parametrize("kernel", ["white", "understated"])
def test_noise_that_is_told_wrong_is_found(linear, kernel):
    sigma, taps = (linear.sigma, Kernel(COLOURED.scale)) if kernel == "white" else (linear.sigma / 1.3, COLOURED)
    wrong = replace(linear.question, whiten=whitener(sigma, WAVE, taps))
    mean, width = gaps(linear, *walked(wrong, linear.centre, np.random.default_rng(2), steps=4, keep=2))
    assert max(mean / (4.5 / np.sqrt(400)), width / (4.5 / np.sqrt(800))) > 1


def bend(theta: Array) -> Array:
    """A nonlinear line: states (n, 2) -> (n, L), depth exp(theta / 2)."""
    return 1 - np.exp(0.5 * theta[:, :1]) * np.exp(-0.5 * ((np.arange(L) - 60) / 4) ** 2)


def scene(model, truth: float, sigma: float, seed: int = 3, near=plain, log_prior=None, kinds: int = 1) -> Question:
    g = np.random.default_rng(seed)
    y = model(np.array([[truth, 0.0]]))[0] + sigma * g.standard_normal(L)
    prior = gaussian_prior(np.zeros(1), np.eye(1))
    return Question(y, whitener(np.full(L, sigma), WAVE), model, near, np.array([0]),
                    log_prior or (lambda t: prior(t[:, :1])), np.zeros((kinds, 1)), np.ones((kinds, 1)))


def on_a_grid(question: Question, sigma: float) -> tuple[float, float]:
    """Posterior mean and deviation of the one parameter, by the trapezoidal rule."""
    t = np.linspace(-6, 6, 6001)
    states = np.c_[t, np.zeros_like(t)]
    value = question.log_prior(states) - 0.5 * (((question.y - question.spectra(states)) / sigma) ** 2).sum(axis=1)
    w = np.exp(value - value.max())
    mean = (w * t).sum() / w.sum()
    return float(mean), float(np.sqrt((w * (t - mean) ** 2).sum() / w.sum()))


@pytest.mark.parametrize("sigma", [0.3, 1.0])
def test_the_exact_posterior_is_kept_where_the_quadratic_errs(sigma):
    """Inputs that are wrong on purpose: a quadratic in tanh is no exponential."""
    question = scene(bend, 0.4, sigma, near=lambda states: lambda t: np.tanh(1.5 * t[:, :1]))
    mean, std = on_a_grid(question, sigma)
    guide, seen = walked(question, np.array([-0.5]), np.random.default_rng(4), 2000, steps=16, keep=1)
    found = seen.states[..., 0]
    assert abs(found.mean() - mean) < 4.5 * std / np.sqrt(2000)
    assert abs(found.std() / std - 1) < 4.5 / np.sqrt(4000) * 1.5
    if sigma == 1.0:  # the control: the quadratic's own posterior is another
        bare, _ = guide.moves.run(np.resize(guide.cloud, (2000, 2)), 60, np.random.default_rng(5))
        assert max(abs(bare[:, 0].mean() - mean) / (std / np.sqrt(2000)),
                   abs(bare[:, 0].std() / std - 1) * np.sqrt(4000)) > 6


def test_kinds_are_visited_as_often_as_they_are_likely():
    prior = gaussian_prior(np.zeros(1), np.eye(1))
    question = scene(bend, 0.4, 0.5, log_prior=lambda t: prior(t[:, :1]) + np.log([0.2, 0.5, 0.3])[t[:, 1].astype(int)],
                     kinds=3)
    _, seen = walked(question, np.array([0.0]), np.random.default_rng(4), 3000, steps=6, keep=1)
    share = np.bincount(seen.states[0, :, 1].astype(int), minlength=3) / 3000
    assert (np.abs(share - [0.2, 0.5, 0.3]) < 4.5 * np.sqrt(0.25 / 3000)).all()
    assert np.abs(share - 1 / 3).max() > 4.5 * np.sqrt(0.25 / 3000)  # the control


DESIGN = np.random.default_rng(0).standard_normal((41, L)) / 8


def test_a_wall_of_the_prior_and_flat_ground_before_it_do_not_narrow_the_posterior():
    """Forty-one labels, the first held at 0 below 0, as labels that are moved into the templates' domain."""
    sigma, wall = 1.5, -0.15

    def log_prior(t: Array) -> Array:
        over = np.maximum(wall - t[:, 0], 0.0) / 0.005
        return -2.5 * np.maximum(t[:, 0], wall) - 0.5 * over**2 - 0.5 * (t[:, 1:41] ** 2).sum(axis=1)

    def inputs(t: Array) -> Array:
        return np.concatenate([np.maximum(t[:, :1], 0.0), t[:, 1:41]], axis=1)

    g = np.random.default_rng(1)
    truth = np.r_[0.5, g.standard_normal(40)]
    y = truth @ DESIGN + sigma * g.standard_normal(L)
    question = Question(y, whitener(np.full(L, sigma), WAVE), lambda t: inputs(t) @ DESIGN, lambda states: inputs,
                        np.arange(2), log_prior, np.r_[0.25, np.zeros(40)][None], np.r_[0.4, np.ones(40)][None])
    t = np.linspace(wall - 0.05, 4, 4001)  # the other 40 are integrated in closed form
    total = DESIGN[1:].T @ DESIGN[1:] + sigma**2 * np.eye(L)
    left = y - np.maximum(t, 0.0)[:, None] * DESIGN[0]
    value = log_prior(np.c_[t, np.zeros((len(t), 40))])
    value = value - 0.5 * np.einsum("ni,ij,nj->n", left, np.linalg.inv(total), left)
    w = np.exp(value - value.max()) / np.exp(value - value.max()).sum()
    mean = w @ t
    std = np.sqrt(w @ (t - mean) ** 2)
    _, seen = walked(question, np.r_[0.3, np.zeros(40)], g, 300, steps=12, keep=4)
    found = seen.states[..., 0]
    assert abs(found.mean() - mean) < 4.5 * std / np.sqrt(300)
    assert abs(found.std() / std - 1) < 4.5 / np.sqrt(600) * 1.5
    assert t[value.argmax()] < 0  # the maximum lies on the flat ground


def autoregressive(start: Array, tie: float, g: np.random.Generator, steps: int, w: int) -> Array:
    """(steps, w, n) chains that keep N(0, 1), from start (n,), `tie` their correlation from step to step."""
    x, out = np.repeat(start[None], w, 0), []
    for _ in range(steps):
        x = tie * x + np.sqrt(1 - tie**2) * g.standard_normal(x.shape)
        out.append(x)
    return np.stack(out)


@pytest.mark.parametrize("tie", [0.5, 0.9])
def test_the_floor_lies_between_its_bounds_whatever_the_mixing(tie):
    """4000 stars whose posterior is N(m, 1): the lower bound is 1 - tie^(2 s), the upper 1 and more."""
    g = np.random.default_rng(1)
    truth, far = g.standard_normal((2, 4000))
    got = bracket(autoregressive(2 * far, tie, g, 8, 6)[4:], autoregressive(truth, tie, g, 8, 6)[4:], truth)
    want = np.mean([1 - tie ** (2 * s) for s in range(5, 9)])
    assert abs(got.lower.mean() - want) < 4.5 * np.sqrt(2 / 5 / 4000)
    assert got.lower.mean() < 1 + 4.5 * np.sqrt(2 / 5 / 4000)
    assert got.error.mean() > 1
    stuck = bracket(autoregressive(2 * far, 0.0, g, 8, 6), np.repeat(truth[None], 6, 0)[None], truth)
    assert stuck.lower.max() < 1e-20  # a chain that never moves says nothing, and claims nothing
    # the control: independent draws, and no bias
    free = bracket(autoregressive(far, 0.0, g, 8, 6), autoregressive(truth, 0.0, g, 8, 6), truth)
    assert abs(free.lower.mean() - 1) < 4.5 * np.sqrt(2 / 40 / 4000)
    assert abs(free.error.mean() - 1 - 1 / 48) < 4.5 * np.sqrt(2 / 4000)


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


def test_failed_stars_are_counted_and_bad_input_is_refused():
    g = np.random.default_rng(9)
    a = np.array([1.0, 2.0, np.nan])
    got = rho(a, np.ones(3), [True, True, False], g)
    assert (got.used, got.failed) == (2, 1)
    np.testing.assert_allclose(got.value, np.sqrt(2.5))
    with pytest.raises(ValueError, match="leave such stars out by ok = False"):
        rho(a, np.ones(3), [True, True, True], g)
    with pytest.raises(ValueError, match="at least two stars"):
        rho(a, np.ones(3), [True, False, False], g)
    with pytest.raises(ValueError, match="infinite marks what is dead"):
        whitener(np.full(L, np.inf), WAVE)
    with pytest.raises(ValueError, match="give half as many again"):
        Surrogate(np.zeros((5, 4)), np.zeros((5, L)), np.zeros(L), np.arange(2))
    with pytest.raises(ValueError, match="w >= 2"):
        bracket(np.zeros((3, 1, 4)), np.zeros((3, 1, 4)), np.zeros(4))
