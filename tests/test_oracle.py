"""The oracles are what they say: their denoiser is the posterior mean, their draws have the posterior's moments."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from core.models.oracle import DiagonalMixture, GaussianOracle, colouring
from core.spectrum import Kernel

L = 32
WAVE = np.linspace(5600.0, 6200.0, L)  # both arms
INFINITE = math.inf


def smooth_covariance(pixels: int = L) -> Tensor:
    at = torch.arange(pixels, dtype=torch.float64)
    return 0.04 * torch.exp(-0.5 * ((at[:, None] - at) / 4) ** 2) + 1e-4 * torch.eye(pixels, dtype=torch.float64)


def oracle() -> GaussianOracle:
    return GaussianOracle(1 - 0.1 * torch.sin(torch.arange(L, dtype=torch.float64)), smooth_covariance(), WAVE)


def noise_map() -> Tensor:
    return 0.05 * torch.exp(0.6 * torch.sin(torch.arange(L, dtype=torch.float64) / 3))


def small_mixture() -> DiagonalMixture:
    g = torch.Generator().manual_seed(4)
    mean, rows = (torch.randn(3, *s, generator=g, dtype=torch.float64) for s in ((L,), (4, L)))
    residual = 0.002 * (1 + torch.rand(3, L, generator=g, dtype=torch.float64))
    share = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
    return DiagonalMixture(share.log(), 1 + 0.1 * mean, 0.1 * rows, residual)


def by_hand(mixture: DiagonalMixture, y: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    """Posterior mean (L,) and covariance (L, L) with dense matrices, dead pixels left out."""
    live = torch.isfinite(sigma)
    logs, means, covariances = [], [], []
    for w, m, f, r in zip(mixture.log_weight, mixture.mean, mixture.factors, mixture.residual, strict=True):
        p = f.T @ f + torch.diag(r)
        total = p[live][:, live] + torch.diag(sigma[live] ** 2)
        gain = torch.linalg.solve(total, p[:, live], left=False)
        gap = y[live] - m[live]
        logs.append(w - 0.5 * (torch.logdet(total) + gap @ torch.linalg.solve(total, gap)))
        means.append(m + gain @ gap)
        covariances.append(p - gain @ p[live])
    share = torch.stack(logs).softmax(0)
    mean = torch.einsum("p,pl->l", share, torch.stack(means))
    outer = torch.stack([c + torch.outer(m - mean, m - mean) for m, c in zip(means, covariances, strict=True)])
    return mean, torch.einsum("p,pij->ij", share, outer)


@pytest.mark.parametrize("rho", [None, (0.3, 0.5)])
def test_the_gaussian_denoiser_is_the_posterior_mean(rho) -> None:
    o, sigma = oracle(), noise_map()
    told = None if rho is None else torch.tensor(rho, dtype=torch.float64)
    y = o.mean + torch.randn(L, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    k = torch.as_tensor(colouring(Kernel(rho=rho or (0, 0)), WAVE))
    n = torch.diag(sigma) @ k @ k.T @ torch.diag(sigma)
    mean, covariance = o.posterior(y, n)
    torch.testing.assert_close(o(y[None], sigma[None], told)[0], mean)
    # Tweedie's second rule: the covariance is N dD/dx
    slope = torch.autograd.functional.jacobian(lambda x: o(x[None], sigma[None], told)[0], y)
    torch.testing.assert_close(slope @ n, covariance)
    if rho is not None:  # control: white noise is another question
        assert (o(y[None], sigma[None])[0] - mean).abs().max() > 1e-3


def test_a_dead_pixel_says_nothing_and_is_filled_in() -> None:
    o, sigma = oracle(), noise_map()
    sigma[10] = INFINITE
    y = o.mean + torch.randn(L, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    other = y.clone()
    other[10] = 50.0
    rho = torch.tensor([0.3, 0.3], dtype=torch.float64)
    for told in (None, rho):
        torch.testing.assert_close(o(y[None], sigma[None], told), o(other[None], sigma[None], told))
    live = torch.arange(L) != 10
    a = torch.eye(L, dtype=torch.float64)[live]
    mean, _ = o.posterior(y[live], torch.diag(sigma[live] ** 2), a)
    torch.testing.assert_close(o(y[None], sigma[None])[0], mean)


def test_each_star_of_a_batch_has_its_own_map() -> None:
    o, m = oracle(), small_mixture()
    sigma = torch.stack([noise_map(), 3 * noise_map().flip(0)])
    x = 1 + 0.1 * torch.randn(5, 2, L, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    for prior in (o, m):
        both = prior(x, sigma)
        for b in range(2):
            torch.testing.assert_close(both[:, b], prior(x[:, b], sigma[b]))
        torch.testing.assert_close(both, prior(x, sigma.expand(5, 2, L)))


@pytest.mark.parametrize("dead", [False, True])
def test_the_mixtures_moments_are_those_of_dense_algebra(dead: bool) -> None:
    m, sigma = small_mixture(), noise_map()
    if dead:
        sigma[5:9] = INFINITE
    g = torch.Generator().manual_seed(3)
    y = m.draw(1, g)[0] + 0.05 * torch.randn(L, generator=g)
    mean, covariance = by_hand(m, y, sigma)
    got, width = m.moments(y[None], sigma[None])
    torch.testing.assert_close(got[0], mean)
    torch.testing.assert_close(width[0], covariance.diagonal().sqrt())
    torch.testing.assert_close(m(y[None], sigma[None])[0], mean)
    if not dead:
        slope = torch.autograd.functional.jacobian(lambda x: m(x[None], sigma[None])[0], y)
        torch.testing.assert_close(slope @ torch.diag(sigma**2), covariance)


def test_the_mixtures_draws_have_its_moments() -> None:
    m, sigma, n = small_mixture(), noise_map(), 20_000
    sigma[5:9] = INFINITE
    y = m.draw(1, torch.Generator().manual_seed(3))[0]
    mean, covariance = by_hand(m, y, sigma)
    draws = m.posterior_draws(y, sigma, n, torch.Generator().manual_seed(6))
    white = torch.linalg.solve_triangular(torch.linalg.cholesky(covariance), (draws - mean).T, upper=False).T

    def off(w: Tensor) -> float:
        """Largest of the standardised means and variances, in standard errors (of normal numbers)."""
        return float(torch.maximum(w.mean(0).abs() * n**0.5, (w.var(0) - 1).abs() * (n / 2) ** 0.5).max())

    assert off(white) < 5.0  # 64 numbers: beyond 4.5 once in 2000
    assert off(1.05 * white) > 5.0  # control: 5 % too wide
    assert off(white + 0.05) > 5.0  # control: .05 deviations aside


def test_prior_draws_have_the_priors_moments() -> None:
    m, n = small_mixture(), 20_000
    x = m.draw(n, torch.Generator().manual_seed(7))
    share = m.log_weight.exp()
    error = x.std(0) / n**0.5
    assert ((x.mean(0) - share @ m.mean).abs() < 5 * error).all()
    assert not ((x.mean(0) - m.mean[0]).abs() < 5 * error).all()


def test_a_gradient_survives_a_call_under_inference_mode() -> None:
    for prior in (oracle(), small_mixture()):
        sigma, x = noise_map()[None], torch.ones(1, L, dtype=torch.float64)
        with torch.inference_mode():
            prior(x, sigma)  # what is remembered from here must serve there
        at = x.clone().requires_grad_()
        prior(at, sigma).sum().backward()
        assert torch.isfinite(at.grad).all()


def test_the_committed_laboratory_is_a_stellar_prior() -> None:
    m = DiagonalMixture.committed(factors=8)
    assert m.mean.shape == (16, 3840)
    assert m.factors.shape == (16, 8, 3840)
    sigma = torch.full((1, 3840), 0.1)
    x = m.draw(1, torch.Generator().manual_seed(1))
    y = x + 0.1 * torch.randn(1, 3840, generator=torch.Generator().manual_seed(2))
    assert ((m(y, sigma) - x) ** 2).mean() < 0.05 * ((y - x) ** 2).mean()


@pytest.mark.parametrize(("call", "says"), [
    (lambda: GaussianOracle(torch.ones(3), torch.eye(4)), "give \\(L, L\\)"),
    (lambda: GaussianOracle(torch.ones(3), -torch.eye(3)), "not positive definite"),
    (lambda: GaussianOracle(torch.ones(3), torch.eye(3))(torch.ones(1, 3), torch.ones(1, 3), torch.zeros(2)), "wave"),
    (lambda: oracle()(torch.ones(1, L), torch.ones(1, L + 1)), "does not fit"),
    (lambda: oracle()(torch.ones(1, L), torch.full((1, L), -1.0)), "not positive"),
    (lambda: small_mixture()(torch.ones(1, L), torch.full((1, L), float("nan"))), "not positive"),
    (lambda: small_mixture()(torch.ones(1, 7), torch.ones(1, 7)), "7 pixels"),
    (lambda: small_mixture()(torch.ones(1, L), torch.ones(1, L), torch.tensor([0.1, 0.0])), "white noise alone"),
    (lambda: DiagonalMixture(torch.zeros(2), torch.ones(3, 5), torch.ones(3, 1, 5), torch.ones(3, 5)), "disagree"),
    (lambda: DiagonalMixture(torch.zeros(3), torch.ones(3, 5), torch.ones(3, 1, 5), torch.zeros(3, 5)), "above 0"),
])
def test_bad_input_is_refused_with_the_remedy(call, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        call()
