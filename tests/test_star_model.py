"""The star model is the simulator: the same spectrum from the same parameters, the same prior, a floor that holds."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import ndtri
from scipy.stats import gamma

from core.data.grid import N_PIXELS, continuum_curve
from core.data.instrument import MARGIN
from core.data.noise import NoiseModel
from core.data.population import DOMAIN, draw_labels
from core.data.reality import Reality
from core.data.simulator import Simulator
from core.metrics.floor import bayes_floor, starts_about
from core.models.star_model import N_PARAMETERS, RV, StarModel, population_log_density
from core.models.templates import NATIVE, Templates
from core.spectrum import Array

N = 24


@pytest.fixture(scope="module")
def simulator() -> Simulator:
    templates = Templates()
    return Simulator(templates, NATIVE, NoiseModel.load(), templates.emulator.nearest)


def same_star(simulator: Simulator, kind: int, seed: int) -> tuple[Array, Array, Array]:
    """Flux (n, 3864) of `Simulator.physical`, the parameters (n, 41) that made it, and the scores of reality (n, k)."""
    g = np.random.default_rng(seed)
    labels = draw_labels(12 * N, g)
    labels = simulator.inside(labels[labels[:, 0] == kind][:N])
    velocity = np.linspace(-200, 200, len(labels))
    flux = simulator.physical(labels, velocity, np.random.default_rng(seed + 1))
    n, r = len(labels), np.random.default_rng(seed + 1)  # the same numbers in the same order
    blue, z_red = r.uniform(1400, 2200, n), r.standard_normal(n)
    fast, slow = r.gamma(2.0, 40.0, n), r.gamma(1.5, 4.0, n)
    k = 0 if simulator.reality is None else len(simulator.reality.factors)
    scores = r.standard_normal((n, k)) if k else np.zeros((n, 0))
    dust, waves, step = r.exponential(0.12, n), r.standard_normal((n, 8)), r.standard_normal((n, 1))
    hot = labels[:, 1] > 6300
    spin = np.where(hot, gamma.cdf(fast, 2.0, scale=40.0), gamma.cdf(slow, 1.5, scale=4.0))
    z = np.stack([ndtri((blue - 1400) / 800), z_red, ndtri(spin), -ndtri(np.exp(-dust / 0.12))], axis=1)
    return flux, np.concatenate([labels[:, 1:], velocity[:, None], z, waves, step], axis=1), scores


@pytest.mark.parametrize("kind", [0, 1, 2])
def test_the_same_parameters_give_the_simulator_s_spectrum(simulator, kind):
    flux, theta, _ = same_star(simulator, kind, 3)
    model = StarModel(simulator, kind)
    assert np.abs(model.physical(theta) / flux - 1).max() < 1e-3
    for column in (0, RV, RV + 1, RV + 4, RV + 13):  # the control: each parameter matters
        other = theta.copy()
        other[:, column] += 50.0 if column in (0, RV) else 0.5
        assert np.abs(model.physical(other) / flux - 1).max() > 1e-3


def test_reality_s_mean_is_in_the_model_and_its_factors_are_linear_nuisances(simulator):
    real = Reality.load()
    mean_only = replace(simulator, reality=replace(real, factors=0.0 * real.factors))
    flux, theta, _ = same_star(mean_only, 0, 5)
    assert np.abs(StarModel(mean_only, 0).physical(theta) / flux - 1).max() < 1e-3
    full = replace(simulator, reality=real)
    flux, theta, scores = same_star(full, 0, 5)
    model = StarModel(full, 0)
    bare = model.physical(theta)[:, MARGIN:-MARGIN]
    curve = continuum_curve(flux[:, MARGIN:-MARGIN], np.full((len(flux), N_PIXELS), 1e4))
    gaps = (flux[:, MARGIN:-MARGIN] - bare) / curve
    added = np.stack([s @ model.factors(v) for s, v in zip(scores, theta[:, RV], strict=True)])
    assert np.sqrt(((gaps - added) ** 2).mean()) < 0.1 * np.sqrt((gaps**2).mean())
    wrong = np.stack([s @ model.factors(-v) for s, v in zip(scores, theta[:, RV], strict=True)])  # the control
    assert np.sqrt(((gaps - wrong) ** 2).mean()) > 0.1 * np.sqrt((gaps**2).mean())


@pytest.mark.parametrize("kind", [0, 1, 2])
def test_the_prior_of_labels_is_the_law_they_are_drawn_from(kind):
    """Normalised, with the drawn means and spreads of Teff, logg and [Fe/H] (before the domain's hull)."""
    draws = draw_labels(60000, np.random.default_rng(8))
    draws = draws[draws[:, 0] == kind][:, 1:4]
    (t0, t1), (g0, g1) = DOMAIN[kind]
    axes = [np.linspace(t0 - 900, t1 + 2500, 90), np.linspace(g0 - 0.6, g1 + 0.6, 200), np.linspace(-3.4, 1.2, 70)]
    t, g, m = (a.ravel() for a in np.meshgrid(*axes, indexing="ij"))
    cell = np.prod([a[1] - a[0] for a in axes])
    p = np.exp(population_log_density(kind, t, g, m)) * cell
    assert abs(p.sum() - 1) < 0.03  # the softened edges and the steps of the grid
    p /= p.sum()
    clipped = [np.clip(t, t0, t1), np.clip(g, g0, g1), np.clip(m, -2.49, 0.49)]
    for values, seen in zip(clipped, draws.T, strict=True):
        mean = p @ values
        std = np.sqrt(p @ (values - mean) ** 2)
        assert abs(seen.mean() - mean) < 4 * std / np.sqrt(len(seen)) + 0.03 * std
        assert abs(seen.std() / std - 1) < 0.04
    other = np.exp(population_log_density((kind + 1) % 3, t, g, m)) * cell  # the control: another kind
    assert np.abs([(other / other.sum()) @ v - s.mean() for v, s in zip(clipped, draws.T, strict=True)]).max() > 0.3


def test_prior_draws_lie_where_the_prior_is_high_and_a_jacobian_takes_less_than_a_second(simulator, rng):
    model = StarModel(simulator, 0)
    draws = model.prior_draws(200, rng)
    assert draws.shape == (200, N_PARAMETERS)
    value = model.log_prior(draws)
    assert np.isfinite(value).all()
    wild = draws + 3 * draws.std(axis=0) * rng.standard_normal(draws.shape)  # the control
    assert np.median(value) > np.median(model.log_prior(wild)) + 50
    star = simulator.draw(1, rng, snr=30.0)
    problem = model.problem(star.spectra, 0.0, rng)
    begin = time.perf_counter()
    slopes = problem.slopes(draws[0])
    assert time.perf_counter() - begin < 1.0
    step = 0.1 * draws.std(axis=0)[RV]
    e = step * (np.arange(N_PARAMETERS) == RV)
    rough = np.diff(problem.model(np.stack([draws[0] - e, draws[0] + e])), axis=0)[0] / (2 * step)
    assert np.abs(rough - slopes[RV]).max() < 0.1 * np.abs(slopes[RV]).max()


def test_the_floor_of_a_star_holds_the_truth_and_beats_the_noise(simulator):
    rng = np.random.default_rng(2)
    labels = np.array([[0, 5700, 4.4, -0.1, 0.05, 0, 0, 1.3, *np.zeros(20)]])
    star = simulator.draw(1, rng, snr=30.0, labels=simulator.inside(labels))
    velocity = float(star.spectra.meta["rv"][0])
    model = StarModel(simulator, 0)
    problem = model.problem(star.spectra, velocity, rng)
    start = model.start(star.labels[0], velocity, star.nuisances[0])
    floor = bayes_floor(problem, starts_about(start, problem.prior_draws, rng, 1, 0.2), rng)
    assert floor.ok
    z = (np.r_[star.labels[0, 1:4], velocity] - floor.theta_mean[[0, 1, 2, RV]]) / floor.theta_std[[0, 1, 2, RV]]
    assert (z**2).sum() < 4 + 4 * np.sqrt(8)  # chi-square of four
    rmse = np.sqrt(((floor.mean - star.truth[0]) ** 2).mean())
    bound = np.sqrt((floor.std**2).mean())
    assert rmse < 2.5 * bound
    live = star.spectra.measured[0]
    noise = np.sqrt(((star.spectra.flux - star.truth)[0, live] ** 2).mean())
    assert rmse < 0.3 * noise  # the control: the noisy spectrum itself
    assert abs(floor.theta_mean[RV] - velocity - 60) > 5 * floor.theta_std[RV]


def test_the_start_with_its_nuisances_is_the_full_truth(simulator, rng):
    for source in (simulator, replace(simulator, reality=Reality.load())):
        stars = source.draw(16, rng, snr=np.geomspace(5, 100, 16))
        for i, (labels, rv) in enumerate(zip(stars.labels, stars.spectra.meta["rv"], strict=True)):
            model = StarModel(source, int(labels[0]))
            theta = model.start(labels, rv, stars.nuisances[i])
            assert np.isfinite(model.log_prior(theta[None])).all()
            flux = model.physical(np.stack([theta, model.start(labels, rv)]))[:, MARGIN:-MARGIN]
            gap = np.abs(flux / stars.spectra.continuum[i] / stars.truth[i] - 1).max(axis=1)
            if source.reality is None:  # its factors are no part of theta
                assert gap[0] < 1e-6  # the emulator ends in float32
            assert gap[1] > 1e-2  # the control: nuisances at their medians are no truth


def test_what_has_no_floor_is_refused(simulator, rng):
    with pytest.raises(ValueError, match="give 0"):
        StarModel(simulator, 3)
    with pytest.raises(ValueError, match="set open_fraction to 0"):
        StarModel(replace(simulator, open_fraction=0.1), 0)
    with pytest.raises(ValueError, match="give that or None"):
        StarModel(replace(simulator, reality=lambda labels, rng: np.zeros((len(labels), 3864))), 0)
    with pytest.raises(ValueError, match="give one star"):
        StarModel(simulator, 0).problem(simulator.draw(2, rng, snr=9.0).spectra, 0.0, rng)
