"""The exact sampler without a trained network: on draws of its own mixture it is the mixture's posterior."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from test_mixture import CORRELATED, small_mixture, stars_of
from torch import Tensor

from core.data.grid import N_PIXELS
from core.models.mixture import Mixture
from core.models.network import Preconditioned
from core.models.noise_map import NoiseMap
from core.models.observation import Observation
from core.models.precondition import Precondition
from core.models.unet import UNetConfig
from core.spectrum import WHITE, Kernel
from scripts.judge_stars import simulated

STARS, DRAWS = 6, 40
TINY = UNetConfig(inputs=5, outputs=2, scalars=3, width=(8, 12), heads=2, embedding=16)


@pytest.fixture(scope="module")
def method() -> NoiseMap:
    torch.manual_seed(0)
    return NoiseMap(Preconditioned(TINY, Precondition(small_mixture())), sky=small_mixture())


@dataclass(frozen=True)
class Answer:
    """Truth (B, L) and draws (n, B, L), and the mixture's own moments of each star."""

    question: Observation
    truth: Tensor
    draws: Tensor
    mean: Tensor
    deviation: Tensor

    def width(self) -> float:
        """Deviation of the draws over that of the posterior, in live pixels."""
        ratio = self.draws.var(0) / self.deviation**2
        return float(ratio[self.question.live].mean().sqrt())

    def inside(self, seed: int = 0) -> float:
        """Share of truths inside the draws' 68 % interval, along 30 random smooth directions a star."""
        rng = np.random.default_rng(seed)
        bumps = torch.tensor(np.exp(-0.5 * ((np.arange(N_PIXELS) - rng.uniform(0, N_PIXELS, (30, 1))) / 6) ** 2))
        truth, draws = self.truth @ bumps.T, self.draws @ bumps.T
        low, high = (draws.quantile(q, 0) for q in (0.15865, 0.84135))
        return float(((truth > low) & (truth < high)).double().mean())


#: a direction in 30 of 6 stars; a star's share one velocity and eight factors, so that they count for a third
ERROR = math.sqrt(0.68 * 0.32 / (30 * STARS / 3))


def asked(method: NoiseMap, noise: Kernel, told: float = 1.0) -> Answer:
    mixture = small_mixture()
    truth, _, question = stars_of(mixture, STARS, 12.0, noise, np.random.default_rng(11))
    heard = replace(question, ivar=question.ivar / told**2)
    with torch.inference_mode():
        draws = method.sample(heard, DRAWS, 0)
    moments = [mixture.posterior(question.star(b)).moments() for b in range(STARS)]
    return Answer(question, torch.tensor(truth, dtype=torch.float64), draws,
                  *(torch.stack(part).double() for part in zip(*moments, strict=True)))


@pytest.fixture(scope="module", params=[WHITE, CORRELATED], ids=["white", "correlated"])
def answer(request, method) -> Answer:
    return asked(method, request.param)


def test_draws_are_as_wide_as_the_posterior_of_the_mixture(answer):
    assert answer.width() == pytest.approx(1, abs=0.1)
    for wrong in (0.8, 1.25):  # control
        middle = answer.draws.mean(0)
        assert replace(answer, draws=middle + wrong * (answer.draws - middle)).width() != pytest.approx(1, abs=0.1)


def test_their_mean_is_the_posterior_mean_of_the_mixture(answer):
    gap = (answer.draws.mean(0) - answer.mean) / answer.deviation
    # the mean of 40 draws errs by 1 / 40 of the variance; as much again for what the quick mixture leaves out
    assert float(gap.square()[answer.question.live].mean()) < 0.15
    off = (answer.truth - answer.mean) / answer.deviation
    assert float(off.square().mean()) == pytest.approx(1, abs=0.4)  # the ruler itself is right
    assert float(((answer.question.y - answer.mean) / answer.deviation).square()[answer.question.live].mean()) > 1


def test_they_cover_the_truth_as_often_as_they_say(answer):
    assert abs(answer.inside() - 0.68) < 3 * ERROR


def test_half_the_noise_is_found_to_be_too_sure(method):
    wrong = asked(method, WHITE, told=0.5)
    assert wrong.width() < 0.75
    assert wrong.inside() < 0.68 - 2 * ERROR


def test_dead_pixels_get_the_spread_of_what_was_not_measured(answer):
    dead = ~answer.question.live
    assert dead.any()
    spread = answer.draws.std(0)
    assert torch.isfinite(answer.draws).all()
    ratio = (spread / answer.deviation)[dead]
    assert 0.75 < float(ratio.square().mean().sqrt()) < 1.25
    held = torch.where(dead, answer.draws.mean(0), answer.draws).std(0)  # control: filled with one curve
    assert float((held / answer.deviation)[dead].max()) < 0.75


def test_more_draws_do_not_change_the_first_ones(method):
    _, _, question = stars_of(small_mixture(), 1, 20.0, CORRELATED, np.random.default_rng(2))
    with torch.inference_mode():
        two, four, other = (method.sample(question, n, s) for n, s in ((2, 3), (4, 3), (2, 4)))
    torch.testing.assert_close(four[:2], two, rtol=0, atol=1e-5)
    assert (other - two).abs().max() > 1e-3


def test_draws_in_pieces_are_those_of_one_go(method, monkeypatch):
    _, _, question = stars_of(small_mixture(), 1, 20.0, CORRELATED, np.random.default_rng(2))
    with torch.inference_mode():
        whole = method.sample(question, 5, 3)
        monkeypatch.setitem(method.sample.__globals__["_ROWS"], "cpu", 2)
        torch.testing.assert_close(method.sample(question, 5, 3), whole, rtol=0, atol=1e-5)


def test_a_star_does_not_know_its_neighbours(method):
    _, _, question = stars_of(small_mixture(), 3, 20.0, WHITE, np.random.default_rng(2))
    with torch.inference_mode():
        batch = method.sample(question, 2, 3)
        torch.testing.assert_close(method.sample(question.star(1), 2, 3), batch[:, 1:2], rtol=0, atol=1e-5)
    assert (batch[:, 0] - batch[:, 1]).abs().max() > 1e-3


def test_stars_drawn_together_as_on_a_gpu_are_drawn_as_if_alone(monkeypatch):
    # the committed mixture, whose 22 components stars choose differently from; the small one has too few to tell
    method = NoiseMap(Preconditioned(), calls=8, last=0.02)
    spectra = simulated(20.0, 36).spectra.select(np.array([3, 34]))
    question = Observation.of(spectra)
    with torch.inference_mode():
        alone = method.sample(question, 1, 3)
        monkeypatch.setattr(method, "together", 2)
        torch.testing.assert_close(method.sample(question, 1, 3), alone, rtol=0, atol=2e-4)


@dataclass
class Skies:
    """A star at S/N 40 with two patterns of the sky, three sigma strong, over it."""

    truth: Tensor
    question: Observation
    silent: Observation


def skies(method: NoiseMap) -> Skies:
    truth, _, question = stars_of(small_mixture(), 1, 40.0, WHITE, np.random.default_rng(5))
    at = torch.arange(N_PIXELS, dtype=torch.float64)
    patterns = torch.stack([3 * torch.exp(-0.5 * ((at - c) / 2) ** 2) for c in (1500.0, 2200.0)])
    added = question.live * (torch.tensor([1.5, -1.5], dtype=torch.float64) @ patterns) / question.ivar.clamp_min(
        1e-9).sqrt()
    silent = replace(question, y=question.y + added)
    return Skies(torch.tensor(truth), replace(silent, patterns=patterns), silent)


def test_patterns_of_the_sky_are_taken_off(method):
    sky = skies(method)
    with torch.inference_mode():
        clean, dirty = (method.sample(q, 32, 0) for q in (sky.question, sky.silent))
    at = slice(1497, 1504)

    def off(draws: Tensor) -> float:
        return float((draws.mean(0) - sky.truth)[0, at].abs().mean())

    assert off(clean) < 0.75 * off(dirty)  # control: without a word about them they stay in
    assert clean[:, 0, at].std(0).mean() > dirty[:, 0, at].std(0).mean()  # and what was under them is less certain


def test_where_nobody_measured_a_sky_none_is_drawn(method):
    sky = skies(method)
    assert method._sky_free(sky.silent, 3, 0) is None
    drawn = method._sky_free(sky.question, 3, 0)
    assert drawn.shape == (3, 1, N_PIXELS)
    assert (drawn[0] - drawn[1]).abs().max() > 0  # one set for each draw


@pytest.mark.parametrize("n", [0, -1])
def test_no_draws_are_refused(method, n):
    _, _, question = stars_of(small_mixture(), 1, 20.0, WHITE, np.random.default_rng(2))
    with pytest.raises(ValueError, match="at least 1"):
        method.sample(question, n, 0)


def test_another_grid_is_refused(method):
    one = torch.ones(1, 100, dtype=torch.float64)
    with pytest.raises(ValueError, match=f"the prior knows {N_PIXELS}"):
        method.sample(Observation(torch.linspace(4000, 5000, 100), one, one, ("a",)), 1, 0)


@pytest.mark.parametrize(("calls", "last"), [(7, 0.01), (9, 0.03), (0, 0.01)])
def test_a_number_of_calls_without_a_plan_is_refused_with_those_that_have_one(method, calls, last):
    with pytest.raises(ValueError, match="take one of 8 to 0.02, 9 to 0.02"):
        NoiseMap(method.denoiser, calls, last)


def test_it_asks_the_network_as_often_as_it_says(method, monkeypatch):
    _, _, question = stars_of(small_mixture(), 1, 20.0, WHITE, np.random.default_rng(2))
    asks: list[int] = []
    monkeypatch.setattr(method.denoiser, "correct", lambda x, sigma, m, s, rho: asks.append(len(x)) or m)
    for calls in (8, 9, 16):
        asks.clear()
        NoiseMap(method.denoiser, calls).sample(question, 3, 0)
        assert asks == [3] * calls


def test_the_mixture_that_knows_the_patterns_is_not_loaded_before_it_is_needed(method, monkeypatch):
    monkeypatch.setattr(Mixture, "load", lambda: pytest.fail("loaded before it was needed"))
    NoiseMap(method.denoiser)
