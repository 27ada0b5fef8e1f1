"""Wiener's posterior is exact on stars drawn from its own prior, and a wrong one is found; PCA is least squares."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import scipy.linalg
import scipy.sparse
import torch
from torch import Tensor

from core.data.grid import N_PIXELS, WAVE
from core.models.gaussian import PCA, GaussianPrior, Wiener
from core.models.observation import Observation
from core.spectrum import Array, Kernel

COLOURED = Kernel(scale=(0.8, 0.9), rho=(0.3, 0.5))
FACTORS, QUANTITIES, STARS, DRAWS = 20, 10, 80, 127
#: of DRAWS + 1 equally likely ranks of the truth, those that count as inside
LOW, HIGH = 20, 108
INSIDE = (HIGH - LOW) / (DRAWS + 1)  # .6875, exact for any number of draws


def small_prior() -> GaussianPrior:
    """Smooth and narrow factors that fall in size, and an uneven residual."""
    g = np.random.default_rng(3)
    at = np.arange(N_PIXELS)
    width = np.geomspace(300, 4, FACTORS)
    rows = [np.exp(-0.5 * ((at[:, None] - g.uniform(0, N_PIXELS, 60)) / w) ** 2) @ g.standard_normal(60) for w in width]
    factors = np.array([0.1 * r / np.sqrt(np.mean(r**2)) * (i + 1) ** -0.7 for i, r in enumerate(rows)])
    residual = 1e-4 * (1 + 0.5 * np.sin(at / 90))
    mean = 1 - 0.3 * np.exp(-0.5 * ((at - 1500) / 20) ** 2)
    return GaussianPrior(*(torch.as_tensor(a, dtype=torch.float32) for a in (mean, factors, residual)))


def noise_map() -> Array:
    g = np.random.default_rng(4)
    sigma = 0.05 * np.exp(0.4 * np.sin(np.arange(N_PIXELS) / 150) + 0.2 * g.standard_normal(N_PIXELS))
    ivar = sigma**-2.0
    ivar[:40], ivar[2000:2050] = 0, 0
    return ivar


@dataclass(frozen=True)
class Laboratory:
    """Stars of the prior, all under one noise map, and ten numbers of each whose posterior is N(m, 1), independent.

    directions: (QUANTITIES, L), v' P v = identity under the dense posterior covariance P; centres: (STARS, QUANTITIES).
    """

    wiener: Wiener
    truth: Array
    asked: Observation
    directions: Array
    centres: Array


@pytest.fixture(scope="module")
def laboratory() -> Laboratory:
    g = np.random.default_rng(5)
    wiener = Wiener(unit_spread=0.1, prior=small_prior())
    f, r = wiener.factors.double().numpy(), wiener.prior.residual.double().numpy()
    mean, ivar = wiener.prior.mean.double().numpy(), noise_map()
    live = ivar > 0
    truth = mean + g.standard_normal((STARS, len(f))) @ f + np.sqrt(r) * g.standard_normal((STARS, N_PIXELS))
    s = np.where(live, 1 / np.sqrt(np.where(live, ivar, 1)), 0) * COLOURED.scales(WAVE)
    y = truth + s * COLOURED.colour(WAVE, g.standard_normal((STARS, N_PIXELS + 2)))
    asked = Observation(torch.as_tensor(WAVE), torch.as_tensor(np.where(live, y, 1.0)),
                        torch.as_tensor(np.tile(ivar, (STARS, 1))), tuple(f"g{i}" for i in range(STARS)), COLOURED)
    # dense algebra, none of the module's: covariance of the data over live pixels, and the posterior of projections
    centre, side = COLOURED.taps(WAVE)
    k = scipy.sparse.diags_array([side, centre, side], offsets=[0, 1, 2], shape=(N_PIXELS, N_PIXELS + 2))
    total = f.T @ f + np.diag(r) + s[:, None] * (k @ k.T).toarray() * s
    factor = scipy.linalg.cho_factor(total[np.ix_(live, live)], lower=True, overwrite_a=True)
    smooth = g.standard_normal((QUANTITIES // 2, len(f))) @ f  # half of the directions look like stars
    rough = g.standard_normal((QUANTITIES - len(smooth), N_PIXELS)) * (g.random((5, N_PIXELS)) < 0.02)  # half at pixels
    u = np.concatenate([smooth, rough])
    cu = (u @ f.T) @ f + u * r  # u C
    gain = scipy.linalg.cho_solve(factor, cu[:, live].T)
    whiten = np.linalg.inv(np.linalg.cholesky(cu @ u.T - cu[:, live] @ gain))
    centres = (u @ mean)[None] + (y - mean)[:, live] @ gain
    return Laboratory(wiener, truth, asked, whiten @ u, centres @ whiten.T)


def asked_of(laboratory: Laboratory, stars: int, kernel: Kernel = COLOURED) -> Observation:
    o = laboratory.asked
    return Observation(o.wave, o.y[:stars], o.ivar[:stars], o.keys[:stars], kernel)


@pytest.fixture(scope="module")
def projected(laboratory) -> Array:
    """(DRAWS, STARS, QUANTITIES) of Wiener's draws, star by star to spare memory."""
    parts = [laboratory.wiener.sample(laboratory.asked.star(b), DRAWS, seed=1)[:, 0].numpy() @ laboratory.directions.T
             for b in range(STARS)]
    return np.stack(parts, axis=1)


def covered(draws: Array, truth: Array) -> tuple[float, float]:
    """Share of quantities inside the central interval of the draws, and its distance from .6875 in standard errors."""
    rank = (draws < truth).sum(axis=0)
    share = float(((rank >= LOW) & (rank < HIGH)).mean())
    return share, (share - INSIDE) / np.sqrt(INSIDE * (1 - INSIDE) / rank.size)


def test_the_posterior_covers_gaussian_truth_within_binomial_error(laboratory, projected):
    truth = laboratory.truth @ laboratory.directions.T
    share, distance = covered(projected, truth)
    assert abs(distance) < 3, f"{share:.3f} of 800 independent quantities inside, {INSIDE:.3f} due"
    for half in (slice(None, 5), slice(5, None)):  # smooth directions, then rough ones
        assert abs(covered(projected[..., half], truth[:, half])[1]) < 3


@pytest.mark.parametrize("factor", [0.85, 1.18])
def test_a_posterior_15_percent_too_narrow_or_too_wide_is_found(laboratory, projected, factor):
    centre = projected.mean(axis=0)
    assert abs(covered(centre + factor * (projected - centre), laboratory.truth @ laboratory.directions.T)[1]) > 3


def test_a_posterior_that_takes_correlated_noise_for_white_is_found(laboratory):
    stars = 40
    white = asked_of(laboratory, stars, Kernel(COLOURED.scale))
    draws = np.stack([laboratory.wiener.sample(white.star(b), DRAWS, seed=1)[:, 0].numpy() @ laboratory.directions.T
                      for b in range(stars)], axis=1)
    truth = (laboratory.truth @ laboratory.directions.T)[:stars]
    assert covered(draws[..., :5], truth[:, :5])[1] < -3  # overconfident about what is smooth


def test_mean_and_covariance_of_draws_are_the_dense_closed_form(laboratory):
    n = 1500
    draws = laboratory.wiener.sample(laboratory.asked.star(0), n, seed=2)[:, 0].numpy() @ laboratory.directions.T
    error = (draws.mean(0) - laboratory.centres[0]) * np.sqrt(n)
    assert (error**2).sum() < 10 + 4 * np.sqrt(20)  # chi-square of ten
    off = np.cov(draws.T) - np.eye(QUANTITIES)
    bound = 4.5 * np.sqrt((1 + np.eye(QUANTITIES)) / n)
    assert (np.abs(off) < bound).all()
    assert (np.abs(0.85**2 * (off + np.eye(QUANTITIES)) - np.eye(QUANTITIES)) > bound).any()  # the control
    assert (np.abs(laboratory.centres[1] - laboratory.centres[0]) * np.sqrt(n) > 10).any()  # the control: another star


def test_a_star_does_not_know_its_neighbours(laboratory):
    together = laboratory.wiener.sample(asked_of(laboratory, 3), 4, seed=9)
    alone = laboratory.wiener.sample(laboratory.asked.star(1), 4, seed=9)
    assert together.shape == (4, 3, N_PIXELS)
    torch.testing.assert_close(together[:, 1:2], alone, rtol=0, atol=1e-6)
    assert not torch.equal(alone, laboratory.wiener.sample(laboratory.asked.star(1), 4, seed=10))


def test_nothing_measured_nearly_everywhere_gives_the_prior_back(laboratory):
    ivar = torch.zeros(1, N_PIXELS, dtype=torch.float64)
    ivar[0, 0] = 1e-8
    draws = laboratory.wiener.sample(Observation(torch.as_tensor(WAVE), torch.ones_like(ivar), ivar, ("a",)), 1000, 0)
    want = (laboratory.wiener.factors**2).sum(0) + laboratory.wiener.prior.residual
    ratio = (draws[:, 0].var(0) / want)[::640]
    assert ((ratio - 1).abs() < 4.5 * np.sqrt(2 / 1000)).all()


@pytest.mark.parametrize("snr", [3.0, 300.0, 3000.0])
def test_any_s_n_has_an_answer_close_to_the_truth(laboratory, snr):
    truth = torch.as_tensor(laboratory.truth[:1])
    ivar = torch.full_like(truth, snr**2)
    noise = torch.as_tensor(np.random.default_rng(1).standard_normal((1, N_PIXELS))) / snr
    draws = laboratory.wiener.sample(Observation(torch.as_tensor(WAVE), truth + noise, ivar, ("a",)), 8, 0)
    assert torch.isfinite(draws).all()
    assert (draws.mean(0) - truth).square().mean().sqrt() < 1.3 / snr


def test_one_star_on_the_working_grid_is_what_posterior_takes(laboratory):
    with pytest.raises(ValueError, match=r"give one star: \(1, 3840\)"):
        laboratory.wiener.posterior(asked_of(laboratory, 2))
    with pytest.raises(ValueError, match="ask for at least 1"):
        laboratory.wiener.sample(laboratory.asked.star(0), 0, 0)


# ------------------------------------------------------------------------------------------------- PCA, the prior


def question(y: Tensor, ivar: Tensor) -> Observation:
    return Observation(torch.as_tensor(WAVE), y.double(), ivar.double(), tuple(f"p{i}" for i in range(len(y))))


def test_pca_recovers_a_spectrum_in_its_space_through_gaps_and_not_one_outside():
    prior = small_prior()
    g = torch.Generator().manual_seed(1)
    y = prior.mean + torch.randn(3, FACTORS, generator=g) @ prior.factors
    ivar = torch.as_tensor(np.tile(noise_map(), (3, 1)))
    holed = torch.where(ivar > 0, y.double(), 77.0)
    answer = PCA(FACTORS, prior).sample(question(holed, ivar), 2, 0)
    assert answer.shape == (2, 3, N_PIXELS)
    torch.testing.assert_close(answer[0], y.double(), rtol=0, atol=2e-4)
    torch.testing.assert_close(answer[0], answer[1], rtol=0, atol=0)
    few = PCA(FACTORS - 5, prior).sample(question(holed, ivar), 1, 0)  # the control: too few components
    assert (few[0] - y).abs().max() > 0.01


def test_pca_is_weighted_least_squares(rng):
    prior = small_prior()
    ivar = noise_map()
    live = ivar > 0
    y = prior.mean.double().numpy() + 0.05 * rng.standard_normal(N_PIXELS)
    f, w = prior.factors[:8].double().numpy(), np.sqrt(ivar)
    best = np.linalg.lstsq((f * w).T[live], (w * (y - prior.mean.double().numpy()))[live])[0]
    got = PCA(8, prior).sample(question(torch.as_tensor(y)[None], torch.as_tensor(ivar)[None]), 1, 0)[0, 0].numpy()
    np.testing.assert_allclose(got, prior.mean.double().numpy() + best @ f, atol=1e-5)
    plain = np.linalg.lstsq(f.T[live], (y - prior.mean.double().numpy())[live])[0]  # the control: no weights
    assert np.abs(plain @ f - best @ f).max() > 1e-3


@pytest.mark.parametrize("components", [0, -1, FACTORS + 1])
def test_pca_settings_that_cannot_be_are_refused(components):
    with pytest.raises(ValueError, match=f"{components} components asked for; give 1 to {FACTORS}"):
        PCA(components, small_prior())


def test_fit_finds_the_covariance_it_was_shown():
    g = torch.Generator().manual_seed(2)
    part = slice(0, 300)
    prior = small_prior()
    mean, factors, residual = prior.mean[part], prior.factors[:4, part], prior.residual[part]
    n = 4000
    stars = mean + torch.randn(n, 4, generator=g) @ factors + torch.randn(n, 300, generator=g) * residual.sqrt()
    fit = GaussianPrior.fit(stars, 4)
    want, got = (f.T @ f + torch.diag(r) for f, r in ((factors, residual), (fit.factors, fit.residual)))
    assert ((got.diagonal() / want.diagonal() - 1).abs() < 5 * np.sqrt(2 / n)).all()
    assert (got - want).norm() / want.norm() < 5 * np.sqrt(4 / n)
    alone = torch.diag(got.diagonal())  # the control: every pixel for itself
    assert (alone - want).norm() / want.norm() > 5 * np.sqrt(4 / n)


def test_a_saved_prior_comes_back_to_float16(tmp_path):
    prior = small_prior()
    prior.save(tmp_path / "g.safetensors")
    back = GaussianPrior.load(tmp_path / "g.safetensors")
    torch.testing.assert_close(back.mean, prior.mean)
    torch.testing.assert_close(back.factors, prior.factors, rtol=1e-3, atol=1e-7)
    torch.testing.assert_close(back.residual, prior.residual, rtol=1e-2, atol=0)


@pytest.mark.parametrize("content", ["missing", "nonsense", "half"])
def test_a_file_that_is_no_gaussian_is_refused_with_the_remedy(content, tmp_path):
    path = tmp_path / "gaussian.safetensors"
    if content == "nonsense":
        path.write_bytes(b"these are no tensors, and long enough to be read")
    elif content == "half":
        from safetensors.torch import save_file

        save_file({"mean": torch.zeros(3)}, path)
    with pytest.raises(ValueError, match=r"holds no Gaussian .*; run `python -m scripts\.prepare prior`"):
        GaussianPrior.load(path)


def test_replacing_the_prior_is_all_it_takes(laboratory):
    other = Wiener(0.1, replace(small_prior(), mean=small_prior().mean + 0.5))
    a, b = (w.sample(laboratory.asked.star(0), 1, 0) for w in (laboratory.wiener, other))
    assert not torch.equal(a, b)
