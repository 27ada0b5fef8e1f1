"""The quick mixture is nearly the exact one, alone for every draw, and a wrong velocity or width would be seen.

It had been too sure by a third where the residual counts (S/N 50), for an evidence that overcounts the residual prefers
too small a scale of it: the bounds below would find that.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from test_mixture import small_mixture
from torch import Tensor

from core.data.grid import N_PIXELS, WAVE
from core.models.mixture import Mixture
from core.models.observation import Observation
from core.models.precondition import Place, Precondition
from core.models.settled import Settled
from core.models.velocity_search import pixels_of

STARS = 6


@dataclass(frozen=True)
class Asked:
    """Draws of a mixture with white noise, some pixels dead, and its exact posterior of each."""

    owner: Precondition
    truth: Tensor
    y: Tensor
    sigma: Tensor
    mean: Tensor
    deviation: Tensor
    shift: Tensor

    def settled(self, stars: slice = slice(None)) -> Settled:
        y, sigma = self.y[stars], self.sigma[stars]
        return self.owner.settle(y, sigma, self.owner.locate(y, sigma, 9))

    def moments(self) -> tuple[Tensor, Tensor]:
        settled = self.settled()
        m, s = settled.moments(self.y[None], settled.at(self.sigma))
        return m[0], s[0]


def asked(mixture: Mixture, owner: Precondition, snr: float, seed: int = 1) -> Asked:
    rng, g = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    truth, speed = zip(*(mixture.prior_draw(rng) for _ in range(STARS)), strict=True)
    x = torch.stack(truth)
    sigma = torch.full_like(x, 1 / snr)
    sigma[0, 1000:1040] = sigma[1, :200] = torch.inf
    live = torch.isfinite(sigma)
    y = torch.where(live, x + torch.where(live, sigma, 0.0) * torch.randn(x.shape, generator=g), 1.0)
    question = Observation(torch.tensor(WAVE), y.double(), torch.where(live, sigma, 1.0).double()**-2 * live,
                           tuple(f"s{i}" for i in range(STARS)))
    exact = [mixture.posterior(question.star(b)).moments() for b in range(STARS)]
    shift = torch.tensor([float(pixels_of(v)) for v in speed])
    return Asked(owner, x, y, sigma, torch.stack([m for m, _ in exact]), torch.stack([s for _, s in exact]), shift)


@pytest.fixture(scope="module")
def small() -> tuple[Mixture, Precondition]:
    mixture = small_mixture()
    return mixture, Precondition(mixture)


@pytest.fixture(scope="module")
def committed() -> tuple[Mixture, Precondition]:
    mixture = Mixture.load()
    return mixture, Precondition(mixture)


def ratio(one: Asked, mean: Tensor) -> float:
    """Its rms error over that of the exact posterior mean."""
    return float((mean - one.truth).square().mean().sqrt() / (one.mean - one.truth).square().mean().sqrt())


def z2(one: Asked, mean: Tensor, deviation: Tensor) -> float:
    return float(((mean - one.truth) / deviation).square().mean())


@pytest.mark.parametrize("snr", [10.0, 50.0])
def test_where_its_assumptions_hold_it_is_the_exact_posterior(small, snr):
    """One scale of the residual, white: what is left out is the velocities' spread and its power at a line's width."""
    one = asked(*small, snr)
    m, s = one.moments()
    assert ratio(one, m) < 1.1
    assert 0.7 < z2(one, m, s) < 1.5
    assert float(((m - one.mean) / one.deviation).square().mean()) < 0.1
    assert float((s / one.deviation).mean()) == pytest.approx(1, abs=0.15)
    for wrong in (0.5, 2.0):  # control: a posterior of another width is found
        assert not 0.7 < z2(one, m, wrong * s) < 1.5


@pytest.mark.parametrize("snr", [10.0, 50.0])
def test_on_the_committed_mixture_it_is_as_near_and_as_wide(committed, snr):
    one = asked(*committed, snr)
    m, s = one.moments()
    assert 0.94 < ratio(one, m) < 1.06
    assert 0.7 < z2(one, m, s) < 1.45
    assert float((s / one.deviation).mean()) == pytest.approx(1, abs=0.1)
    assert z2(one, m, 0.75 * s) > 1.45  # control: as sure as it once was
    assert z2(one, one.mean, one.deviation) == pytest.approx(1, abs=0.4)  # and the exact one is right


def test_stars_are_found_at_their_velocity(small):
    one = asked(*small, 30.0)
    place = one.owner.locate(one.y, one.sigma)
    assert (place.shift - one.shift).abs().max() < 0.15  # pixels: 10 km/s
    assert place.component.shape == (STARS, 3)


def test_a_wrong_velocity_is_found_out(small):
    one = asked(*small, 30.0)
    place = one.owner.locate(one.y, one.sigma)
    wrong = Place(place.component, one.owner.node(place.shift.clamp(-5, 5) + 2.0))
    settled = one.owner.settle(one.y, one.sigma, wrong)
    m, s = (part[0] for part in settled.moments(one.y[None], settled.at(one.sigma)))
    assert ratio(one, m) > 1.5
    assert z2(one, m, s) > 1.5


def test_the_derivative_carries_what_a_node_misses(small):
    """A velocity a seventh of a pixel (10 km/s) off costs next to nothing: the derivative is among the factors."""
    one = asked(*small, 30.0)
    place = one.owner.locate(one.y, one.sigma)
    off = Place(place.component, one.owner.node(place.shift + 0.15))
    settled = one.owner.settle(one.y, one.sigma, off)
    m, _ = settled.moments(one.y[None], settled.at(one.sigma))
    stiff = Settled(one.owner, settled.columns, torch.zeros_like(one.y))  # control: without it
    n, _ = stiff.moments(one.y[None], stiff.at(one.sigma))
    assert ratio(one, m[0]) < 1.1
    assert ratio(one, n[0]) > 1.5


def test_laid_templates_are_those_moved_on_demand(small):
    mixture, moved = small
    laid = Precondition(mixture).lay()
    place = Place(torch.tensor([[0, 2], [1, 0], [2, 1]]), moved.node(torch.tensor([-6.9, 0.0, 3.44])))
    a, b = moved.columns(place), laid.columns(place)
    for name in ("mean", "factors", "residual", "log_weight"):
        torch.testing.assert_close(getattr(a, name), getattr(b, name), rtol=0, atol=1e-5)
    other = laid.columns(Place(place.component, place.shift + 1 / 16))  # control: the next node is another
    assert (other.mean - a.mean).abs().max() > 1e-3


def test_draws_do_not_know_each_other(small):
    one = asked(*small, 20.0)
    settled = one.settled()
    solved = settled.at(one.sigma)
    x = one.y + 0.02 * torch.randn(3, STARS, N_PIXELS, generator=torch.Generator().manual_seed(4))
    m, s = settled.moments(x, solved)
    alone = [settled.moments(x[i : i + 1], solved) for i in range(3)]
    for i in range(3):
        torch.testing.assert_close(alone[i][0][0], m[i], rtol=0, atol=2e-5)
        torch.testing.assert_close(alone[i][1][0], s[i], rtol=1e-2, atol=2e-5)
    assert (m[0] - m[1]).abs().max() > 1e-3  # control


def test_stars_do_not_know_each_other(small):
    one = asked(*small, 20.0)
    m, s = one.moments()
    two = one.settled(slice(2, 3))
    alone, width = two.moments(one.y[None, 2:3], two.at(one.sigma[2:3]))
    torch.testing.assert_close(alone[0, 0], m[2], rtol=0, atol=1e-4)
    torch.testing.assert_close(width[0, 0], s[2], rtol=1e-2, atol=1e-4)


def test_what_lies_in_dead_pixels_does_not_matter(small):
    one = asked(*small, 20.0)
    settled = one.settled()
    y = torch.where(torch.isfinite(one.sigma), one.y, 7.0)
    other = one.owner.settle(y, one.sigma, one.owner.locate(y, one.sigma, 9))
    torch.testing.assert_close(other.moments(y[None], other.at(one.sigma))[0],
                               settled.moments(one.y[None], settled.at(one.sigma))[0], rtol=0, atol=1e-5)


def test_joint_draws_have_the_mean_and_width_of_the_moments(small):
    """400 draws know a mean to 5 % of the deviation and a variance to 7 %; pixels beside each other move as one."""
    one, n, g = asked(*small, 15.0), 400, torch.Generator().manual_seed(5)
    settled = one.settled()
    solved = settled.at(one.sigma)
    m, s = (part[0] for part in settled.moments(one.y[None], solved))
    k = solved[0].factors.shape[2]
    numbers = (torch.rand(n, STARS, generator=g), torch.randn(n, STARS, k, generator=g),
               torch.randn(n, STARS, N_PIXELS, generator=g))
    draws = settled.draw(one.y, solved, numbers)
    assert draws.shape == (n, STARS, N_PIXELS)

    def off(scale: float) -> tuple[float, float]:
        drawn = m + scale * (draws - m)
        gap = ((drawn.mean(0) - m) / s).square().mean(1).max()
        return float(gap * n), float((drawn.var(0) / s**2).mean(1).sub(1).abs().max())

    mean, width = off(1.0)
    assert mean < 2.5  # 1 is expected, and a star's pixels are few independent numbers
    assert width < 0.25
    for wrong in (0.75, 1.3):
        assert off(wrong)[1] > 0.25
    alone = torch.einsum("nbl,nbl->b", draws[:, :, 500:1500] - m[:, 500:1500],
                         (draws - m)[:, :, 501:1501]) / torch.einsum("nbl->b", (draws - m)[:, :, 500:1500] ** 2)
    assert (alone > 0.2).all()  # they are joint draws: neighbours go together



def test_the_broadest_real_component_is_always_among_those_computed(committed):
    mixture, owner = committed
    rng, g = np.random.default_rng(3), torch.Generator().manual_seed(3)
    x = torch.stack([mixture.prior_draw(rng)[0] for _ in range(STARS)])
    place = owner.locate(x + 0.05 * torch.randn(x.shape, generator=g), torch.full_like(x, 0.05))
    assert place.component.shape == (STARS, 4)
    assert mixture.kinds[mixture.always[0]] == "real"
    assert (place.component[:, -1] == mixture.always[0]).all()
