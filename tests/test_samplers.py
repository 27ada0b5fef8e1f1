"""Samplers on a Gaussian prior: their order, mean and covariance, and by how much the known-wrong ones are wrong.

On a linear denoiser a sampler is a linear map of its start and its fresh noise, so both are computed, not sampled:
feed it nothing for the mean, and each fresh number alone for the covariance.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor

from core.models.oracle import GaussianOracle, colouring
from core.models.samplers import Diverged, ancestral, ddim, heun, multistep
from core.models.schedule import geometric, karras
from core.spectrum import Kernel

L = 16
WAVE = np.linspace(5600.0, 6200.0, L)
RHO = torch.tensor([0.2, 0.4], dtype=torch.float64)
COLOUR = torch.as_tensor(colouring(Kernel(rho=(0.2, 0.4)), WAVE))  # (L, L + 2)


@dataclass(frozen=True)
class Asked:
    """One observation with correlated noise, its posterior in closed form, and the denoiser that samplers get."""

    oracle: GaussianOracle
    sigma: Tensor
    y: Tensor
    mean: Tensor
    root: Tensor

    def denoise(self, x: Tensor, tau: float) -> Tensor:
        return self.oracle(x, tau * self.sigma, RHO)

    def white(self, gap: Tensor) -> Tensor:
        """Of differences from the posterior mean (..., L): N(0, I) when they are right."""
        return torch.linalg.solve_triangular(self.root, gap.reshape(-1, L).T, upper=False).T.reshape(gap.shape)


@pytest.fixture(scope="module")
def asked() -> Asked:
    at = torch.arange(L, dtype=torch.float64)
    prior = 0.04 * torch.exp(-0.5 * ((at[:, None] - at) / 3) ** 2) + 4e-4 * torch.eye(L, dtype=torch.float64)
    oracle = GaussianOracle(1 - 0.1 * torch.sin(at), prior, WAVE)
    sigma = 0.1 * torch.exp(0.6 * torch.sin(at / 3))
    y = oracle.mean + 0.3 * torch.randn(L, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    mean, covariance = oracle.posterior(y, oracle.noise(sigma, RHO))
    return Asked(oracle, sigma, y, mean, torch.linalg.cholesky(covariance))


def moments(asked: Asked, sampler: Callable[..., Tensor], levels: list[float]) -> tuple[Tensor, Tensor]:
    """Mean (L,) and covariance (L, L) of what a sampler started at y draws, exactly, both whitened by the posterior."""
    steps, size = len(levels) - 1, L + 2
    pushes = torch.zeros(steps, steps * size + 1, L, dtype=torch.float64)  # the last row gets no noise
    for i in range(steps):
        pushes[i, i * size : (i + 1) * size] = (asked.sigma * COLOUR.T[:, :])
    x = sampler(asked.denoise, asked.y.expand(steps * size + 1, L), levels, lambda i: pushes[i])
    white = asked.white(x - x[-1])
    return asked.white(x[-1] - asked.mean), white.T @ white


def width_off(asked: Asked, sampler: Callable[..., Tensor], levels: list[float]) -> float:
    """Relative error of the posterior's width: root of the mean whitened variance, less one."""
    return float(moments(asked, sampler, levels)[1].diagonal().mean().sqrt() - 1)


def order(asked: Asked, sampler: Callable[..., Tensor]) -> float:
    """Of convergence in the covariance: by how much its change shrinks when the steps are halved, which leaves the last
    level's own error out of it."""
    a, b, c = (moments(asked, sampler, geometric(1.0, 1e-2, 1 + n))[1] for n in (40, 80, 160))
    return math.log2(float((b - a).norm() / (c - b).norm()))


def test_ancestral_is_of_first_order_and_multistep_of_second(asked: Asked) -> None:
    assert order(asked, ancestral) == pytest.approx(1.0, abs=0.15)
    assert order(asked, multistep) == pytest.approx(2.0, abs=0.25)
    # control: without the second-order term the same code is of first order
    assert order(asked, partial(multistep, pull=0.0)) == pytest.approx(1.0, abs=0.15)


def test_heun_is_of_second_order_and_ddims_ode_of_first(asked: Asked) -> None:
    """In the end point of the probability flow, whose truth is known: a whitened state shrinks by its deviation."""
    levels = {n: geometric(30.0, 1e-2, 1 + n) for n in (80, 160, 320)}
    start = asked.oracle.mean + 30.0 * asked.sigma
    for solver, expected in ((heun, 2.0), (ddim, 1.0)):
        ends = [solver(asked.denoise, start, v, lambda i: torch.zeros(L)) for v in levels.values()]
        got = math.log2(float((ends[1] - ends[0]).norm() / (ends[2] - ends[1]).norm()))
        assert got == pytest.approx(expected, abs=0.25)


def test_ddim_with_eta_one_is_ancestral(asked: Asked) -> None:
    noise = torch.randn(10, 7, L, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    levels, start = karras(1.0, 0.02, 10), asked.y.expand(7, L)
    by = [f(asked.denoise, start, levels, lambda i: noise[i]) for f in (ancestral, partial(ddim, eta=1.0))]
    torch.testing.assert_close(by[0], by[1])
    assert not torch.allclose(by[0], ddim(asked.denoise, start, levels, lambda i: noise[i], eta=0.9))


def test_started_at_y_the_mean_is_right_at_any_number_of_steps(asked: Asked) -> None:
    for n in (4, 10, 40):
        for sampler in (ancestral, multistep):
            gap, _ = moments(asked, sampler, geometric(1.0, 0.01, n))
            assert gap.abs().max() < 1e-9
    gap, _ = moments(asked, partial(ddim, eta=0.5), geometric(1.0, 0.01, 40))  # control: another process
    assert gap.abs().max() > 0.01


def test_second_order_reaches_the_whole_covariance(asked: Asked) -> None:
    _, covariance = moments(asked, multistep, geometric(1.0, 0.005, 80))
    values = torch.linalg.eigvalsh(covariance)  # all 1 when every direction is as wide as it should be
    assert (values - 1).abs().max() < 0.02
    _, covariance = moments(asked, ancestral, geometric(1.0, 0.005, 80))
    assert (torch.linalg.eigvalsh(covariance) - 1).abs().max() > 0.05


def test_draws_cover_the_truth_as_often_as_they_say(asked: Asked) -> None:
    """Ranks of the truth among draws, in the posterior's own directions, each independent of the others."""
    stars, n = 150, 63
    g = torch.Generator().manual_seed(3)
    root = asked.oracle.root
    truth = asked.oracle.mean + torch.randn(stars, L, generator=g, dtype=torch.float64) @ root.T
    y = truth + asked.sigma * (torch.randn(stars, L + 2, generator=g, dtype=torch.float64) @ COLOUR.T)
    target = asked.white(truth)

    def inside(levels: list[float], sampler: Callable[..., Tensor], swell: float = 1.0) -> float:
        def fresh(i: int) -> Tensor:
            z = torch.randn(n, stars, L + 2, generator=g, dtype=torch.float64)
            return swell * asked.sigma * (z @ COLOUR.T)

        draws = asked.white(sampler(asked.denoise, y.expand(n, stars, L), levels, fresh))
        rank = (draws < target).sum(0)
        return float(((rank >= 10) & (rank < 54)).double().mean())

    expected = 44 / 64
    error = math.sqrt(expected * (1 - expected) / (stars * L))
    assert abs(inside(karras(1.0, 0.005, 30), multistep) - expected) < 4 * error
    assert abs(inside(karras(1.0, 0.005, 30), multistep, 1.15) - expected) > 4 * error
    assert abs(inside(karras(1.0, 0.005, 30), multistep, 0.85) - expected) > 4 * error


KNOWN_WRONG = [
    pytest.param(ancestral, geometric(1.0, 0.02, 10), id="first order, 10 calls", marks=pytest.mark.xfail(
        strict=True, reason="first order with 10 levels leaves the posterior too narrow by a quarter")),
    pytest.param(ancestral, geometric(1.0, 0.02, 40), id="first order, 40 calls", marks=pytest.mark.xfail(
        strict=True, reason="first order with 40 levels is still too narrow by several per cent")),
    pytest.param(heun, geometric(1.0, 0.02, 20), id="ODE started at y", marks=pytest.mark.xfail(
        strict=True, reason="an ODE started at y has no spread at all: width -100 %")),
    pytest.param(partial(ddim, eta=0.0), geometric(1.0, 0.02, 20), id="DDIM started at y", marks=pytest.mark.xfail(
        strict=True, reason="an ODE started at y has no spread at all: width -100 %")),
]


@pytest.mark.parametrize(("sampler", "levels"), [
    pytest.param(multistep, karras(1.0, 0.005, 30), id="second order, 30 calls"), *KNOWN_WRONG])
def test_the_width_is_right_to_three_per_cent(asked: Asked, sampler: Callable[..., Tensor],
                                              levels: list[float]) -> None:
    assert abs(width_off(asked, sampler, levels)) < 0.03


@pytest.mark.parametrize(("sampler", "levels", "error"), [
    (ancestral, geometric(1.0, 0.02, 10), -0.25), (ancestral, geometric(1.0, 0.02, 40), -0.08),
    (heun, geometric(1.0, 0.02, 20), -1.0)])
def test_the_known_wrong_are_wrong_by_what_is_written(asked: Asked, sampler: Callable[..., Tensor],
                                                      levels: list[float], error: float) -> None:
    assert width_off(asked, sampler, levels) == pytest.approx(error, abs=0.03)


def test_a_sampler_that_runs_away_is_stopped() -> None:
    def explode(x: Tensor, tau: float) -> Tensor:
        return 100 * x

    def break_down(x: Tensor, tau: float) -> Tensor:
        return torch.full_like(x, math.nan)

    for denoise in (explode, break_down):
        for sampler in (ancestral, ddim, heun, multistep):
            with pytest.raises(Diverged, match="smaller strength or more levels"):
                sampler(denoise, torch.ones(2, 3), geometric(1.0, 0.01, 12), lambda i: torch.zeros(2, 3))


@pytest.mark.parametrize(("levels", "start", "says"), [
    ([], 1.0, "above 0"), ([1.0, 0.0], 1.0, "above 0"), ([0.1, 1.0], 1.0, "do not fall"),
    ([1.0, 0.1], math.nan, "not finite")])
@pytest.mark.parametrize("sampler", [ancestral, ddim, heun, multistep])
def test_bad_levels_and_starts_are_refused(sampler: Callable[..., Tensor], levels: list[float], start: float,
                                           says: str) -> None:
    with pytest.raises(ValueError, match=says):
        sampler(lambda x, tau: x, torch.full((2, 3), start), levels, lambda i: torch.zeros(2, 3))


def test_eta_outside_its_range_is_refused() -> None:
    with pytest.raises(ValueError, match="eta is 1.5"):
        ddim(lambda x, tau: x, torch.ones(3), [1.0, 0.1], lambda i: torch.zeros(3), eta=1.5)
