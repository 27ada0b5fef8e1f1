"""Posterior denoisers and samplers against closed form on a Gaussian prior; what is approximate is wrong by what is
written."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor

from core.models.conditioning import MMPS, Linear, Measured, PiGDM, Product, conjugate_gradients
from core.models.denoiser import Denoiser
from core.models.observation import Observation
from core.models.oracle import GaussianOracle, colouring
from core.models.posterior import DPS, Diffusion
from core.models.samplers import Diverged, ancestral, multistep
from core.models.schedule import karras
from core.spectrum import WHITE, Kernel

L = 32
WAVE = np.linspace(5600.0, 6200.0, L)
COLOURED = Kernel(scale=(0.8, 0.7), rho=(0.3, 0.5))
EXACT = partial(MMPS, iterations=60)
pytestmark = pytest.mark.usefixtures("unchecked")  # it is measured how far draws go


def operators() -> dict[str, Linear]:
    taps = torch.tensor([0.1, 0.2, 0.4, 0.2, 0.1], dtype=torch.float64)
    live = torch.arange(L) % 7 != 3
    blur = Linear.blur(L, taps)
    return {"identity": Linear.same(L), "blur": blur, "mask": Linear.mask(live), "rebin": Linear.rebin(L, 2),
            "blur, then mask": blur.then(Linear.mask(live)),
            "uneven blur": Linear.blur(L, taps + torch.linspace(0, 0.2, 5))}


def gaussian() -> GaussianOracle:
    at = torch.arange(L, dtype=torch.float64)
    prior = 0.04 * torch.exp(-0.5 * ((at[:, None] - at) / 4) ** 2) + 4e-4 * torch.eye(L, dtype=torch.float64)
    return GaussianOracle(1 - 0.1 * torch.sin(at), prior, WAVE)


@pytest.fixture(scope="module")
def oracle() -> GaussianOracle:
    return gaussian()


def question(oracle: GaussianOracle, operator: Linear, noise: Kernel = WHITE, dead: bool = True) -> Observation:
    """Two stars seen through A, some pixels dead."""
    g = torch.Generator().manual_seed(5)
    x = oracle.mean + torch.randn(2, L, generator=g, dtype=torch.float64) @ oracle.root.T
    m = operator.outputs
    wave = np.linspace(WAVE[0], WAVE[-1], m)
    sigma = 0.1 * torch.exp(0.5 * torch.sin(torch.arange(m, dtype=torch.float64) / 2)).expand(2, m)
    z = torch.as_tensor(noise.colour(wave, torch.randn(2, m + 2, generator=g, dtype=torch.float64).numpy()))
    y = operator.apply(x) + torch.as_tensor(noise.scales(wave)) * sigma * z
    ivar = sigma**-2
    if dead:
        ivar = torch.where(torch.arange(m) % 11 == 5, 0.0, ivar)
    return Observation(torch.as_tensor(wave), y, ivar, ("a", "b"), noise)


def dense(operator: Linear, star: Observation) -> tuple[Tensor, Tensor, Tensor]:
    """A (M, L), covariance of the noise (M, M) and y (M,) of the live pixels."""
    live, wave = star.live[0], star.wave.numpy()
    a = operator.apply(torch.eye(L, dtype=torch.float64)).T
    k = torch.as_tensor(star.noise.scales(wave)[:, None] * colouring(star.noise, wave))
    n = torch.where(live, star.ivar[0].clamp_min(1e-9).rsqrt(), 0.0)[:, None] * k
    return a[live], (n @ n.T)[live][:, live], star.y[0][live]


def closed_form(oracle: GaussianOracle, operator: Linear, star: Observation) -> tuple[Tensor, Tensor]:
    a, n, y = dense(operator, star)
    return oracle.posterior(y, n, a)


def told_twice(oracle: GaussianOracle, operator: Linear, star: Observation, x: Tensor, tau: float) -> Tensor:
    """E[x0 | x, y]: y and x, one below the other, as one observation."""
    a, n, y = dense(operator, star)
    eye = torch.eye(L, dtype=torch.float64)
    return oracle.posterior(torch.cat([y, x]), torch.block_diag(n, tau**2 * eye), torch.cat([a, eye]))[0]


@pytest.mark.parametrize("name", list(operators()))
def test_the_transpose_is_the_transpose(name: str) -> None:
    a = operators()[name]
    g = torch.Generator().manual_seed(1)
    x, v = (torch.randn(s, generator=g, dtype=torch.float64) for s in (a.inputs, a.outputs))
    assert float(a.apply(x) @ v) == pytest.approx(float(x @ a.transpose(v)))


@pytest.mark.parametrize("noise", [WHITE, COLOURED], ids=["white", "correlated"])
@pytest.mark.parametrize("name", list(operators()))
@pytest.mark.parametrize("tau", [0.02, 0.3])
def test_mmps_is_the_posterior_mean_for_any_linear_instrument(oracle: GaussianOracle, name: str, noise: Kernel,
                                                              tau: float) -> None:
    a = operators()[name]
    star = question(oracle, a, noise).star(0)
    x = oracle.mean + tau * torch.randn(L, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    measured = Measured.of(star, a, torch.float64)
    expected = told_twice(oracle, a, star, x, tau)
    level = torch.full((1, L), tau, dtype=torch.float64)
    torch.testing.assert_close(EXACT(oracle, measured)(x[None], level)[0], expected, atol=1e-5, rtol=0)
    if tau > 0.1:  # control: one iteration is not there yet, and the pseudo-inverse's guess is another thing
        for other in (MMPS(oracle, measured, iterations=1), PiGDM(oracle, measured)):
            assert (other(x[None], level)[0] - expected).abs().max() > 1e-4


def test_the_product_is_the_posterior_mean_and_so_is_mmps(oracle: GaussianOracle) -> None:
    a = Linear.same(L)
    star = question(oracle, a).star(0)
    measured = Measured.of(star, a, torch.float64)
    for tau in (0.01, 0.1, 1.0):
        x = oracle.mean + tau * torch.randn(L, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
        level = torch.full((1, L), tau, dtype=torch.float64)
        expected = told_twice(oracle, a, star, x, tau)
        torch.testing.assert_close(Product(oracle, measured)(x[None], level)[0], expected)
        torch.testing.assert_close(EXACT(oracle, measured)(x[None], level)[0], expected, atol=1e-5, rtol=0)
        wrong = replace(measured, weight=measured.weight * 1.1)  # control: another noise is another answer
        assert (Product(oracle, wrong)(x[None], level)[0] - expected).abs().max() > 1e-4


def errors(oracle: GaussianOracle, draws: Tensor, operator: Linear, star: Observation) -> tuple[float, float]:
    """Of draws (n, L): rms offset of the mean in posterior deviations, and width over the posterior's less 1."""
    mean, covariance = closed_form(oracle, operator, star)
    root = torch.linalg.cholesky(covariance)
    white = torch.linalg.solve_triangular(root, (draws - mean).T, upper=False).T
    return float((white.mean(0) ** 2).mean().sqrt()), float(white.var(0).mean().sqrt() - 1)


EXACT_METHODS = [("identity", WHITE, Product), ("identity", WHITE, EXACT), ("identity", COLOURED, EXACT),
                 ("blur", WHITE, EXACT), ("rebin", COLOURED, EXACT)]


@pytest.mark.parametrize(("name", "noise", "condition"), EXACT_METHODS, ids=[
    "product", "mmps", "mmps correlated", "mmps blur", "mmps rebin correlated"])
def test_exact_conditions_draw_from_the_posterior(oracle: GaussianOracle, name: str, noise: Kernel, condition) -> None:
    a, n = operators()[name], 600
    star = question(oracle, a, noise).star(0)
    levels = karras(2.0, 2e-3, 40)
    draws = Diffusion(oracle, condition, levels=levels, operator=a, dtype=torch.float64, chunk=n).sample(star, n, 1)
    off, width = errors(oracle, draws[:, 0], a, star)
    # the mean of n whitened draws is off by 1/sqrt(n) in each direction; the width by 1/sqrt(2 n L), 40 levels by 1 %
    assert off < 1.35 / math.sqrt(n)
    assert abs(width) < 4 / math.sqrt(2 * n * L) + 0.01
    # control: first order with as many calls is too narrow
    first = Diffusion(oracle, condition, ancestral, levels, a, dtype=torch.float64, chunk=n).sample(star, n, 1)
    assert errors(oracle, first[:, 0], a, star)[1] < -0.05


def dps(oracle: GaussianOracle, strength: float, normed: bool, n: int = 200) -> tuple[float, float]:
    a = Linear.same(L)
    star = question(oracle, a).star(0)
    draws = DPS(oracle, strength, normed, operator=a, dtype=torch.float64, chunk=n).sample(star, n, 1)
    return errors(oracle, draws[:, 0], a, star)


def pigdm(oracle: GaussianOracle, spread: float) -> tuple[float, float]:
    a = Linear.same(L)
    star = question(oracle, a).star(0)
    made = Diffusion(oracle, partial(PiGDM, spread=spread), levels=karras(2.0, 2e-3, 40), operator=a,
                     dtype=torch.float64, chunk=200)
    return errors(oracle, made.sample(star, 200, 1)[:, 0], a, star)


#: what is drawn, and what it was measured to be off: the mean in posterior deviations, the width
KNOWN_WRONG = {
    "dps .003": (partial(dps, strength=0.003, normed=True), (0.62, 0.19)),
    "dps .01": (partial(dps, strength=0.01, normed=True), (1.22, -0.52)),
    "dps .03": (partial(dps, strength=0.03, normed=True), (2.89, 0.64)),
    "dps .3": (partial(dps, strength=0.3, normed=True), (2.39, 19.0)),
    "dps 1": (partial(dps, strength=1.0, normed=True), (5.75, 66.0)),
    "dps .003 without norm": (partial(dps, strength=0.003, normed=False), (1.64, -0.63)),
    "dps .01 without norm": (partial(dps, strength=0.01, normed=False), (81.7, 1146.0)),
}


@pytest.mark.parametrize("name", [pytest.param(k, marks=pytest.mark.xfail(
    strict=True, reason=f"{k}: mean off by {v[1][0]} posterior deviations, width {v[1][1]:+.0%}"))
    for k, v in KNOWN_WRONG.items()])
def test_the_approximate_are_calibrated(oracle: GaussianOracle, name: str) -> None:
    off, width = KNOWN_WRONG[name][0](oracle)
    assert off < 0.2
    assert abs(width) < 0.1


@pytest.mark.parametrize("name", list(KNOWN_WRONG))
def test_the_approximate_are_wrong_by_what_is_written(oracle: GaussianOracle, name: str) -> None:
    call, (off, width) = KNOWN_WRONG[name]
    got = call(oracle)
    assert got[0] == pytest.approx(off, rel=0.15, abs=0.1)
    assert got[1] == pytest.approx(width, rel=0.15, abs=0.06)


def methods(oracle: GaussianOracle) -> dict[str, Diffusion | DPS]:
    a, few = Linear.same(L), karras(2.0, 0.01, 6)
    return {"product": Diffusion(oracle, Product, levels=few, operator=a, chunk=5, dtype=torch.float64),
            "mmps": Diffusion(oracle, MMPS, levels=few, operator=a, chunk=5, dtype=torch.float64),
            "pigdm": Diffusion(oracle, PiGDM, levels=few, operator=a, chunk=5, dtype=torch.float64),
            "dps": DPS(oracle, steps=6, operator=a, chunk=5, dtype=torch.float64)}


@pytest.mark.parametrize("name", ["product", "mmps", "pigdm", "dps"])
def test_a_stars_draws_depend_on_its_key_and_the_seed_alone(oracle: GaussianOracle, name: str) -> None:
    method, asked = methods(oracle)[name], question(oracle, Linear.same(L))
    with torch.inference_mode():
        both = method.sample(asked, 7, 3)
    assert both.shape == (7, 2, L)
    assert both.dtype == torch.float64
    close = partial(torch.testing.assert_close, atol=1e-9, rtol=0)
    close(both[:, 1:], method.sample(asked.star(1), 7, 3))
    close(both, method.sample(asked, 14, 3)[:7])  # more draws leave the first ones, across chunks
    assert not torch.allclose(both, method.sample(asked, 7, 4))
    assert not torch.allclose(both[0], both[1])


def test_a_dead_pixels_flux_is_never_read(oracle: GaussianOracle) -> None:
    asked = question(oracle, Linear.same(L))
    other = replace(asked, y=torch.where(asked.live, asked.y, 7.0))
    for method in methods(oracle).values():
        torch.testing.assert_close(method.sample(asked, 2, 1), method.sample(other, 2, 1))


def test_a_large_strength_diverges_and_says_so(oracle: GaussianOracle) -> None:
    asked = question(oracle, Linear.same(L))
    with pytest.raises(Diverged, match="smaller strength"):
        DPS(oracle, 30.0, normed=False, operator=Linear.same(L), dtype=torch.float64).sample(asked, 2, 1)


def test_without_guidance_dps_draws_from_the_prior(oracle: GaussianOracle) -> None:
    n = 400
    asked = question(oracle, Linear.same(L)).star(0)
    a = Linear.same(L)
    draws = DPS(oracle, 0.0, steps=1000, operator=a, dtype=torch.float64, chunk=n).sample(asked, n, 1)[:, 0]
    # pixel by pixel: directions narrower than the schedule's last noise (.01) come out too narrow
    gap = (draws - oracle.mean) / oracle.covariance.diagonal().sqrt()
    assert gap.mean(0).abs().max() < 4.5 / math.sqrt(n)
    assert float(gap.var(0).mean().sqrt()) == pytest.approx(1, abs=4 / math.sqrt(2 * n * 4) + 0.01)  # ~4 pixels alone
    guided = DPS(oracle, 0.1, operator=a, dtype=torch.float64, chunk=n).sample(asked, n, 1)[:, 0]
    assert (guided - oracle.mean).mean(0).div(oracle.covariance.diagonal().sqrt()).abs().max() > 4.5 / math.sqrt(n)


def test_conjugate_gradients_solves_each_row_for_itself() -> None:
    g = torch.Generator().manual_seed(8)
    root = torch.randn(9, 9, generator=g, dtype=torch.float64)
    matrix, b = root @ root.T + torch.eye(9, dtype=torch.float64), torch.randn(4, 9, generator=g, dtype=torch.float64)
    b[2] = 0
    got = conjugate_gradients(lambda v: v @ matrix, b, 50, 1e-10)
    torch.testing.assert_close(got, torch.linalg.solve(matrix, b, left=False))


class _Deaf(Denoiser):
    def forward(self, x: Tensor, sigma: Tensor, rho: Tensor | None = None) -> Tensor:
        return x * math.nan


def test_bad_input_is_refused_with_the_remedy(oracle: GaussianOracle) -> None:
    a = Linear.same(L)
    asked = question(oracle, a)
    star = asked.star(0)
    measured = Measured.of(star, a, torch.float64)
    coloured = Measured.of(replace(star, noise=COLOURED), a, torch.float64)
    x, level = torch.ones(1, L, dtype=torch.float64), torch.ones(1, L, dtype=torch.float64)
    bad = {
        "guidance strength is -1": lambda: DPS(oracle, -1.0),
        "guidance strength is nan": lambda: DPS(oracle, math.nan),
        "2 to 1000": lambda: DPS(oracle, steps=1),
        "do not fall": lambda: Diffusion(oracle, Product, levels=[0.1, 1.0]),
        "at least 1": lambda: Diffusion(oracle, Product, chunk=0),
        "ask for at least 1": lambda: Diffusion(oracle, Product, operator=a).sample(asked, 0, 1),
        "onto that grid": lambda: Diffusion(oracle, Product).sample(asked, 1, 1),
        "another grid|onto that grid": lambda: DPS(oracle).sample(asked, 1, 1),
        "take MMPS for a blur": lambda: Product(oracle, replace(measured, operator=operators()["blur"])),
        "take MMPS, or start at y": lambda: Product(oracle, coloured),
        "at least 1.": lambda: MMPS(oracle, measured, iterations=0),
        "positive spread": lambda: PiGDM(oracle, measured, spread=0.0),
        "does not fit": lambda: MMPS(oracle, measured)(x, torch.ones(1, L + 1)),
        "not positive": lambda: PiGDM(oracle, measured)(x, -level),
        "infinite": lambda: Product(oracle, measured)(x, level * math.inf),
        "leave rho out": lambda: Product(oracle, measured)(x, level, torch.tensor([0.1, 0.1])),
        "odd row": lambda: Linear.blur(L, torch.ones(4)),
        "divides": lambda: Linear.rebin(L, 5),
        "let them agree": lambda: Linear.rebin(L, 2).then(Linear.same(L)),
        "diverged": lambda: Diffusion(_Deaf(), Product, operator=a).sample(asked, 1, 1),
    }
    for says, call in bad.items():
        with pytest.raises(ValueError, match=says):
            call()


def test_a_method_says_what_it_needs_and_whether_it_is_exact(oracle: GaussianOracle) -> None:
    a = operators()
    assert Diffusion(oracle, Product, operator=a["identity"]).exact
    assert not Diffusion(oracle, MMPS, operator=a["identity"]).exact
    assert not DPS(oracle).exact
    assert DPS(oracle).needs_identity
    assert not Diffusion(oracle, MMPS, multistep, operator=a["blur"]).needs_identity
