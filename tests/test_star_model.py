"""The star model is the simulator: the same spectrum from the same parameters, the same prior, a floor that holds."""

from __future__ import annotations

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
from core.metrics.floor import bracket, chain
from core.metrics.guide import Guide, Surrogate
from core.models.any_star import AnyKind
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
    gaps = (flux - model.physical(theta))[:, MARGIN:-MARGIN]

    def left(of: Array) -> float:
        """Rms of what the factors do not say, in units of theirs; of: (n, 41) where they are taken."""
        said = np.stack([score @ model.factors(t) for score, t in zip(scores, of, strict=True)])
        return float(np.sqrt(((gaps - said) ** 2).mean() / (gaps**2).mean()))

    assert left(theta) < 0.02
    wrong = theta.copy()  # the control: the other velocity
    wrong[:, RV] *= -1
    assert left(wrong) > 0.1
    # the older fault: reality in units of the curve drawn through the data, which the noise moves
    noisy = flux[:, MARGIN:-MARGIN] + 0.2 * np.random.default_rng(1).standard_normal((len(flux), N_PIXELS))
    curve = continuum_curve(noisy, np.full(noisy.shape, 25.0))
    rows = [model.factors(t) * c / model.unit(t) for t, c in zip(theta, curve, strict=True)]
    older = np.stack([score @ row for score, row in zip(scores, rows, strict=True)])
    assert np.sqrt(((gaps - older) ** 2).mean() / (gaps**2).mean()) > 0.02


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


def test_prior_draws_lie_where_the_prior_is_high(simulator, rng):
    model = StarModel(simulator, 0)
    draws = model.prior_draws(200, rng)
    assert draws.shape == (200, N_PARAMETERS)
    value = model.log_prior(draws)
    assert np.isfinite(value).all()
    wild = draws + 3 * draws.std(axis=0) * rng.standard_normal(draws.shape)  # the control
    assert np.median(value) > np.median(model.log_prior(wild)) + 50


def test_the_inputs_are_what_the_spectrum_is_smooth_in(simulator, rng):
    """A quadratic in them fits, kinks of the level's median included; without the median it does not."""
    model = AnyKind(simulator)
    centre = model.models[1].prior_draws(1, rng)[0]
    centre[:7] = 4600, 2.3, -0.2, 0.05, -0.1, 0.1, 1.8
    spread = np.r_[15, 0.04, 0.03, 0.03, 0.03, 0.03, 0.05, np.full(20, 0.02), 0.6, 0.1, 0.3, 0.5, 0.1, np.full(9, 0.1)]
    states = np.c_[centre + spread * rng.standard_normal((500, N_PARAMETERS)), np.ones(500)]
    question = model.question(simulator.draw(1, rng, snr=50.0).spectra, rng, colours=True)
    white = question.whiten(question.spectra(states))

    def misfit(inputs: Array) -> float:
        return Surrogate(inputs, white, question.whiten(question.y[None])[0], question.curved).temper - 1

    inputs = question.near(states)(states)
    blind = inputs.copy()  # the control: nothing said about the median
    blind[:, -1] = 0.0
    assert misfit(inputs) < 0.5 * misfit(blind)
    median = np.log(np.median(simulator.templates(model.labels(states))[1], axis=1))
    assert np.abs(inputs[:, -1] - median).std() < 0.1 * median.std()


def test_the_floor_of_a_star_holds_the_truth_and_beats_the_noise(simulator):
    rng = np.random.default_rng(2)
    labels = np.array([[0, 5700, 4.4, -0.1, 0.05, 0, 0, 1.3, *np.zeros(20)]])
    star = simulator.draw(1, rng, snr=30.0, labels=simulator.inside(labels))
    velocity = float(star.spectra.meta["rv"][0])
    model = AnyKind(simulator)
    question = model.question(star.spectra, rng)
    start = np.r_[5800, 4.3, -0.2, 0.0, question.centre[0][4:RV], velocity + 3, np.zeros(13)]
    ball = np.minimum(question.scale[0], np.r_[300, 0.4, 0.3, 0.1, np.full(23, 0.1), 5, np.ones(13)])
    guide = Guide(question, np.c_[start + ball * rng.standard_normal((400, N_PARAMETERS)), np.zeros(400)], rng)
    free = chain(guide, guide.cloud[:20], rng)
    truth = np.r_[model.models[0].start(star.labels[0], velocity, star.nuisances[0]), 0]
    told = chain(guide, np.repeat(truth[None], 20, 0), rng)
    seen = [np.concatenate([model.labels(s)[:, 1:4] for s in c.states]).reshape(4, 20, 3) for c in (free, told)]
    both = [np.concatenate([a, c.states[..., RV : RV + 1]], axis=2) for a, c in zip(seen, (free, told), strict=True)]
    got = bracket(*both, np.r_[star.labels[0, 1:4], velocity])
    assert (got.error / got.width).sum() < 4 + 4 * np.sqrt(8)  # chi-square of four
    assert ((got.lower / got.width > 0.2) & (got.lower / got.width < 5)).all()
    flux = bracket(free.means, told.means, star.truth[0])
    rmse, bound = np.sqrt(flux.error.mean()), np.sqrt(flux.width.mean())
    assert rmse < 2 * bound
    live = star.spectra.measured[0]
    noise = np.sqrt(((star.spectra.flux - star.truth)[0, live] ** 2).mean())
    assert rmse < 0.3 * noise  # the control: the noisy spectrum itself


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
                assert gap[0] < 2e-5  # the emulator ends in float32: 7e-6 with AVX2 alone, below 1e-6 with AMX
            assert gap[1] > 1e-2  # the control: nuisances at their medians are no truth


def test_what_has_no_floor_is_refused(simulator, rng):
    with pytest.raises(ValueError, match="give 0"):
        StarModel(simulator, 3)
    with pytest.raises(ValueError, match="set open_fraction to 0"):
        StarModel(replace(simulator, open_fraction=0.1), 0)
    with pytest.raises(ValueError, match="give that or None"):
        StarModel(replace(simulator, reality=lambda labels, rng: np.zeros((len(labels), 3864))), 0)
    with pytest.raises(ValueError, match="give one star"):
        AnyKind(simulator).question(simulator.draw(2, rng, snr=9.0).spectra, rng)
