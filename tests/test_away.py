"""Draws that are finite and no stars are refused with the remedy; those of stars, and of prior stars, are not."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from core.data.grid import N_PIXELS, WAVE
from core.data.library import bundled
from core.data.noise import LAMOST_NOISE, add_noise
from core.models.conditioning import MMPS, Linear, Measured, PiGDM, Product
from core.models.denoiser import Denoiser
from core.models.observation import Observation
from core.models.oracle import GaussianOracle
from core.models.posterior import DPS, Diffusion, check_stars
from core.models.samplers import Diverged, multistep
from core.models.schedule import karras
from core.spectrum import WHITE

L = 32


def star_like(spread: float = 0.08) -> GaussianOracle:
    at = torch.arange(L, dtype=torch.float64)
    prior = spread**2 * (torch.exp(-0.5 * ((at[:, None] - at) / 4) ** 2) + 0.01 * torch.eye(L, dtype=torch.float64))
    return GaussianOracle(1 - 0.1 * torch.sin(at), prior, np.linspace(5600.0, 6200.0, L))


def question(oracle: GaussianOracle, sigma: float = 0.05) -> Observation:
    g = torch.Generator().manual_seed(5)
    x = oracle.mean + torch.randn(2, L, generator=g, dtype=torch.float64) @ oracle.root.T
    y = x + sigma * torch.randn(2, L, generator=g, dtype=torch.float64)
    ivar = torch.where(torch.arange(L) % 11 == 5, 0.0, torch.full((2, L), sigma**-2, dtype=torch.float64))
    return Observation(torch.as_tensor(np.linspace(5600.0, 6200.0, L)), y, ivar, ("a", "b"), WHITE)


@pytest.fixture(scope="module")
def seen() -> tuple[Tensor, Measured]:
    """Clean bundled stars (n, L), and what was observed of them at S/N 30, a stretch dead."""
    _, truth = bundled()
    n = len(truth)
    ivar = np.full((n, N_PIXELS), 30.0**2)
    ivar[:, 2000:2100] = 0
    names = pd.DataFrame({"star": [f"s{i}" for i in range(n)]})
    spectra = add_noise(type(bundled()[0])(WAVE, truth, ivar, np.ones_like(ivar), names, LAMOST_NOISE), ivar, seed=8)
    return torch.as_tensor(truth), Measured.of(Observation.of(spectra), Linear.same(N_PIXELS), torch.float64)


def test_every_bundled_star_is_a_star_even_where_it_is_another_one(seen):
    truth, measured = seen
    check_stars(truth[None], measured, "")
    for turn in range(1, len(truth)):  # a prior draw that never heard of the data may be any other star
        check_stars(truth.roll(turn, 0)[None], measured, "")


@pytest.mark.parametrize("wrong", ["ringing", "dead", "scaled", "nan"])
def test_a_draw_that_no_star_is_is_refused(seen, wrong):
    truth, measured = seen
    draws = truth.repeat(2, 1, 1)
    ring = torch.cos(math.pi * torch.arange(N_PIXELS))
    if wrong == "ringing":  # inside the range of stars
        draws[1, 0] += 0.45 * ring
        check_stars(truth[None] + 0.1 * ring, measured, "")  # control: less is no running away
    elif wrong == "dead":  # where no data speak
        draws[1, 0, 2000:2100] += 8.0 * ring[:100]
    elif wrong == "scaled":
        draws[1, 0] *= 5
    else:
        draws[1, 0, 7] = math.nan
    with pytest.raises(Diverged, match=rf"ran away .*\(1 of {draws[..., 0].numel()}; .* take less") as said:
        check_stars(draws, measured, "take less")
    assert isinstance(said.value, ValueError)


def test_emission_that_the_data_show_is_no_running_away(seen):
    truth, measured = seen
    bright = truth.clone()
    bright[:, 1500:1530] += 9.0
    shown = Measured(measured.operator, measured.y + (bright - truth), measured.weight)
    check_stars(bright[None], shown, "")
    with pytest.raises(Diverged):
        check_stars(bright[None], measured, "")


def test_a_huge_guidance_is_caught_and_a_usual_one_is_not():
    oracle = star_like()
    asked, a = question(oracle), Linear.same(L)

    def dps(strength: float, checked: bool = True) -> DPS:
        made = DPS(oracle, strength, steps=100, operator=a, dtype=torch.float64)
        made.checked = checked
        return made

    for usual in (0.0, 0.03):
        assert torch.isfinite(dps(usual).sample(asked, 8, 1)).all()
    with pytest.raises(Diverged, match="ran away .* take a smaller strength, or more steps"):
        dps(3.0).sample(asked, 8, 1)
    wild = dps(3.0, checked=False).sample(asked, 8, 1)  # finite, and far below what stops a sampler on its way
    assert torch.isfinite(wild).all()
    assert wild.abs().max() > 5


class _Pushed(Denoiser):
    """A prior whose answers overshoot: a network asked where it never was."""

    def __init__(self, oracle: GaussianOracle, by: float) -> None:
        super().__init__()
        self.oracle, self.by = oracle, by

    def forward(self, x: Tensor, sigma: Tensor, rho: Tensor | None = None) -> Tensor:
        d = self.oracle(x, sigma)
        return self.oracle.mean + self.by * (d - self.oracle.mean)


@pytest.mark.parametrize("condition", [MMPS, PiGDM, Product], ids=lambda c: c.__name__)
def test_a_prior_that_overshoots_is_caught_with_every_condition(condition):
    oracle, levels = star_like(), karras(4.0, 1e-3, 20)
    asked, a = question(oracle), Linear.same(L)

    def sampled(by: float) -> Tensor:
        return Diffusion(_Pushed(oracle, by), condition, multistep, levels, a, dtype=torch.float64).sample(asked, 4, 1)

    assert torch.isfinite(sampled(1.0)).all()
    with pytest.raises(Diverged, match="diverged|ran away"):
        sampled(60.0)
