"""azula's own MMPS, PiGDM and DPS (MIT, another group's code) on the same denoiser: theirs and ours agree."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from core.models.conditioning import Linear, Measured, PiGDM
from core.models.observation import normals
from core.models.oracle import GaussianOracle
from core.models.posterior import DPS
from core.spectrum import star_seed
from tests.test_posterior import EXACT, L, gaussian, operators, question


@pytest.fixture(scope="module")
def oracle() -> GaussianOracle:
    return gaussian()


class _Steps:
    """Our levels as azula's schedule: time is the place in the list."""

    def __init__(self, sigma: list[float], exploding: bool = False) -> None:
        self.sigma, self.exploding = sigma, exploding

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        sigma = torch.tensor(self.sigma[int(t)], dtype=torch.float64)
        alpha = torch.ones_like(sigma) if self.exploding else (1 + sigma**2).rsqrt()
        return alpha, alpha * sigma


def azula_prior(oracle: GaussianOracle, schedule: _Steps):
    """The same denoiser in azula's clothes."""
    denoise = pytest.importorskip(
        "azula.denoise", reason="azula is not here; `pip install --no-deps azula einops` and run again")

    class Wrapped(denoise.Denoiser):
        def forward(self, x_t: Tensor, t: Tensor, **_):
            alpha, sigma = schedule(t)
            return denoise.DiracPosterior(mean=oracle(x_t / alpha, (sigma / alpha).expand(1, L)))

    out = Wrapped()
    out.schedule = schedule
    return out


def test_azulas_mmps_is_ours(oracle: GaussianOracle) -> None:
    prior = azula_prior(oracle, _Steps([0.2], exploding=True))
    from azula.guidance import MMPSDenoiser
    from azula.linalg.covariance import DiagonalCovariance

    a = operators()["blur"]
    star = question(oracle, a, dead=False).star(0)
    x = oracle.mean + 0.2 * torch.randn(1, L, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    level = torch.full((1, L), 0.2, dtype=torch.float64)
    theirs = MMPSDenoiser(prior, star.y, a.apply, DiagonalCovariance(1 / star.ivar[0]), solver="cg", iterations=60)
    got = theirs(x, torch.tensor(0)).mean
    torch.testing.assert_close(EXACT(oracle, Measured.of(star, a, torch.float64))(x, level), got, atol=1e-5, rtol=0)
    few = MMPSDenoiser(prior, star.y, a.apply, DiagonalCovariance(1 / star.ivar[0]), solver="cg", iterations=1)
    assert (few(x, torch.tensor(0)).mean - got).abs().max() > 1e-4


def test_azulas_pigdm_pulls_as_ours_without_noise(oracle: GaussianOracle) -> None:
    prior = azula_prior(oracle, _Steps([0.2, 0.1], exploding=True))
    from azula.guidance import PGDMSampler

    a = Linear.same(L)
    star = question(oracle, a, dead=False).star(0)
    x = oracle.mean + 0.2 * torch.randn(1, L, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    level = torch.full((1, L), 0.2, dtype=torch.float64)
    theirs = PGDMSampler(prior, star.y, lambda v: v, lambda v: v, eta=0.0)
    d = oracle(x, level)
    pull = theirs.step(x, torch.tensor(0), torch.tensor(1)) - (d + 0.5 * (x - d))
    measured = replace(Measured.of(star, a, torch.float64), weight=torch.full((L,), 1e6, dtype=torch.float64))
    torch.testing.assert_close(PiGDM(oracle, measured, spread=1e4)(x, level) - d, pull, atol=1e-6, rtol=1e-6)
    assert (PiGDM(oracle, measured, spread=0.1)(x, level) - d - pull).abs().max() > 1e-3


def test_azulas_dps_walks_our_path(oracle: GaussianOracle, monkeypatch: pytest.MonkeyPatch) -> None:
    a = operators()["blur"]
    star = question(oracle, a).star(0)
    ours = DPS(oracle, 0.4, operator=a, steps=30, dtype=torch.float64)
    levels = [*ours.levels, 0.0]
    prior = azula_prior(oracle, _Steps(levels))
    from azula.guidance import DPSSampler

    measured = Measured.of(star, a, torch.float64)
    sources = [torch.Generator().manual_seed(star_seed("a", 3, f"dps {i}")) for i in range(len(ours.levels))]
    noise = [normals(g, 1, L)[0].double() for g in sources]
    noise.append(torch.zeros(1, L, dtype=torch.float64))
    monkeypatch.setattr(torch, "randn_like", lambda x: noise[step + 1])
    # grad ||r||^2 / ||r|| is twice grad ||r||, which is what azula steps along
    theirs = DPSSampler(prior, measured.weight * star.y, lambda v: measured.weight * a.apply(v), zeta=0.8)
    x = noise[0]
    for step in range(len(ours.levels)):
        x = theirs.step(x, torch.tensor(step), torch.tensor(step + 1))
    got = ours.sample(star, 1, 3)[0]
    torch.testing.assert_close(got, x, atol=1e-6, rtol=0)
    assert not torch.allclose(got, DPS(oracle, 0.5, operator=a, steps=30, dtype=torch.float64).sample(star, 1, 3)[0])
