"""Networks as denoisers: untrained they are the mixture, trained and committed they are no worse, and say what they
cannot."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from test_mixture import small_mixture, stars_of
from torch import Tensor

from core.data.dataset import batch
from core.data.grid import N_PIXELS
from core.data.noise import LAMOST_NOISE, NoiseModel
from core.data.simulator import Simulator
from core.models.network import PlainDDPM, Preconditioned, Told, modules_of, true_noise
from core.models.precondition import Precondition
from core.models.templates import NATIVE, Templates
from core.models.unet import PATCH, UNetConfig
from core.networks import ddpm, denoiser
from core.training.stars import correlated

TINY = UNetConfig(inputs=5, outputs=2, scalars=3, width=(8, 12), heads=2, embedding=16)
PLAIN = UNetConfig(inputs=1, outputs=1, scalars=1, width=(8, 12), heads=2, embedding=16)


@pytest.fixture(scope="module")
def net() -> Preconditioned:
    torch.manual_seed(0)
    return Preconditioned(TINY, Precondition(small_mixture())).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def question():
    return stars_of(small_mixture(), 2, 20.0, LAMOST_NOISE, np.random.default_rng(1))[2]


def out_of(net: Preconditioned, f: float, g: float) -> Preconditioned:
    """The same with a network that answers F = f and G = g everywhere."""
    other = Preconditioned(TINY, net.precondition).eval().requires_grad_(False)
    other.net.head.bias.copy_(torch.cat([torch.full((PATCH,), f), torch.full((PATCH,), g)]))
    return other


# ------------------------------------------------------------------------------------------- the mixture and a U-Net


def test_untrained_it_is_its_mixture(net, question):
    y, sigma = true_noise(question)
    told = net.told(question)
    m, s = told.moments(y[None], sigma)
    answer = told(y[None], sigma.expand(1, -1, -1))
    assert torch.equal(answer, m)
    owner = net.precondition
    settled = owner.settle(y, sigma, owner.locate(y, sigma))
    torch.testing.assert_close(net(y, sigma), settled.moments(y[None], settled.at(sigma))[0][0])
    assert (net(y, sigma) - y)[torch.isfinite(sigma)].abs().max() > 0.05  # control: it is not the data
    torch.testing.assert_close(out_of(net, 2.0, 0.0).told(question)(y[None], sigma.expand(1, -1, -1)), m + 2 * s,
                               rtol=0, atol=2e-3)  # F counts in units of the mixture's deviation


def test_g_lets_the_data_back_in_where_there_are_any(net, question):
    y, sigma = true_noise(question)
    live = torch.isfinite(sigma)
    answer = out_of(net, 0.0, 1.0)(y, sigma)
    torch.testing.assert_close(answer[live], y[live], rtol=0, atol=1e-2)
    torch.testing.assert_close(answer[~live], net(y, sigma)[~live])  # a dead pixel has nothing to let in
    half = out_of(net, 0.0, 0.5)(y, sigma)
    torch.testing.assert_close(half[live], (0.5 * y + 0.5 * net(y, sigma))[live], rtol=0, atol=1e-2)


def test_what_lies_in_dead_pixels_does_not_matter(net, question):
    y, sigma = true_noise(question)
    torch.manual_seed(2)
    loud = Preconditioned(TINY, net.precondition).eval().requires_grad_(False)
    loud.net.head.weight.copy_(0.3 * torch.randn(loud.net.head.weight.shape))
    other = torch.where(torch.isfinite(sigma), y, 9.0)
    assert (loud(y, sigma) - net(y, sigma)).abs().max() > 1e-3
    torch.testing.assert_close(loud(other, sigma), loud(y, sigma), rtol=0, atol=1e-5)


def test_the_network_is_told_the_correlation_of_the_noise(net, question):
    y, sigma = true_noise(question)
    torch.manual_seed(2)
    loud = Preconditioned(TINY, net.precondition).eval().requires_grad_(False)
    for name, p in loud.net.named_parameters():
        if "film" in name or name.startswith("head"):
            p.copy_(0.3 * torch.randn(p.shape))
    white, rho = (loud(y, sigma, r) for r in (None, torch.tensor([0.3, 0.5])))
    assert (white - rho).abs().max() > 1e-4
    assert torch.equal(white, loud(y, sigma, torch.zeros(2)))
    assert torch.equal(rho, loud(y, sigma, torch.tensor([[0.3, 0.5], [0.3, 0.5]])))


def test_told_of_its_stars_it_answers_for_any_noise_level_of_them(net, question):
    y, sigma = true_noise(question)
    told = net.told(question)
    assert isinstance(told, Told)
    x = torch.where(torch.isfinite(sigma), y, 1.0).expand(3, -1, -1)
    wide, narrow = (told(x, (t * sigma).expand(3, -1, -1)) for t in (1.0, 0.05))
    live = torch.isfinite(sigma)
    assert (narrow - x)[:, live].abs().mean() < (wide - x)[:, live].abs().mean()  # less noise, less to take away
    assert torch.equal(wide[0], wide[2])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("lead", [(), (2,), (2, 3)])
def test_any_shape_comes_back_in_its_own_and_its_own_precision(net, lead, dtype):
    x = torch.ones(*lead, N_PIXELS, dtype=dtype) if lead else torch.ones(1, N_PIXELS, dtype=dtype)
    answer = net(x, torch.full((1,), 0.1, dtype=dtype))
    assert (answer.shape, answer.dtype) == (x.shape, dtype)
    plain = PlainDDPM(PLAIN).eval().requires_grad_(False)(x, torch.full((1,), 0.1, dtype=dtype))
    assert (plain.shape, plain.dtype) == (x.shape, dtype)


@pytest.mark.parametrize(("change", "says"), [
    (lambda s: s[:, :100], "does not fit x"), (lambda s: s.expand(3, 2, -1), "does not fit x"),
    (lambda s: -s, "above 0"), (lambda s: 0 * s, "above 0"), (lambda s: s * torch.nan, "above 0")])
@pytest.mark.parametrize("kind", ["preconditioned", "told", "plain"])
def test_a_wrong_noise_map_is_refused(net, question, kind, change: Callable[[Tensor], Tensor], says):
    made = {"preconditioned": lambda: net, "told": lambda: net.told(question), "plain": lambda: PlainDDPM(PLAIN)}
    model = made[kind]()
    with pytest.raises(ValueError, match=says):
        model(torch.ones(2, N_PIXELS), change(torch.full((2, N_PIXELS), 0.1)))


def test_another_grid_is_refused(net):
    with pytest.raises(ValueError, match=f"the network knows {N_PIXELS}"):
        net(torch.ones(1, 100), torch.ones(1, 100))


def test_the_mixture_stays_out_of_the_checkpoint(net):
    assert set(modules_of(net)) == {f"net.{name}" for name in net.net.state_dict()}
    assert set(modules_of(PlainDDPM(PLAIN))) - {f"net.{n}" for n in PlainDDPM(PLAIN).net.state_dict()} == {
        "centre", "scale"}


# ------------------------------------------------------------------------------------------- the plain DDPM


def test_the_plain_ddpm_takes_off_the_noise_it_sees():
    """x - sigma eps, eps asked at x_t = sqrt(abar) u + sqrt(1 - abar) eps and its own step."""
    centre = torch.linspace(0.9, 1.1, N_PIXELS)
    model = PlainDDPM(PLAIN, centre, 0.25).eval().requires_grad_(False)
    g = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in model.net.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=g))
    t = torch.tensor([20, 500, 900])
    a = model.alpha_bar[t].float()[:, None]
    u, eps = (torch.randn(3, N_PIXELS, generator=g) for _ in range(2))
    x_t = a.sqrt() * u + (1 - a).sqrt() * eps
    sigma = model.levels[t][:, None]
    x = centre + 0.25 * x_t / a.sqrt()
    torch.testing.assert_close(x, centre + 0.25 * u + sigma * eps, rtol=1e-4, atol=1e-4)
    answer = model(x, sigma)
    torch.testing.assert_close((x - answer) / sigma, model.eps(x_t, t.float()), rtol=0, atol=2e-2)
    wrong = model.eps(x_t, t.float() + 150)  # control: asked at another step it says something else
    assert ((x - answer) / sigma - wrong).abs().max() > 3e-2
    empty = PlainDDPM(PLAIN, centre, 0.25).eval().requires_grad_(False)
    assert torch.equal(empty(x, sigma), x)  # untrained it sees no noise


def test_a_step_is_found_from_its_level_and_between_steps_it_is_in_between():
    model = PlainDDPM(PLAIN, scale=0.3)
    t = torch.arange(0, 1000, 37)
    torch.testing.assert_close(model.step_of(model.levels[t] / 0.3), t.float(), rtol=0, atol=5e-3)
    between = model.step_of((model.levels[100] * model.levels[101]).sqrt()[None] / 0.3)
    assert float(between) == pytest.approx(100.5, abs=0.01)
    assert (model.levels.diff() > 0).all()
    assert model.step_of(torch.tensor([1e-9, 1e9])).tolist() == [0.0, 999.0]  # beyond the ends: the ends


@pytest.mark.parametrize(("sigma", "rho"), [
    (torch.linspace(0.1, 0.2, N_PIXELS), None), (torch.full((N_PIXELS,), 0.1), torch.tensor([0.0, 0.3])),
    (torch.full((N_PIXELS,), 0.1).index_fill(0, torch.tensor([5]), math.inf), None)])
def test_the_plain_ddpm_refuses_maps_it_was_not_trained_on(sigma, rho):
    model = PlainDDPM(PLAIN).eval()
    with pytest.raises(ValueError, match="flat, white noise only"):
        model(torch.ones(2, N_PIXELS), sigma, rho)
    model(torch.ones(2, N_PIXELS), torch.full((N_PIXELS,), 0.1), torch.zeros(2))  # control


# ------------------------------------------------------------------------------------------- the committed ones


@pytest.fixture(scope="module")
def stars() -> tuple[Tensor, Tensor, Tensor]:
    """16 simulated stars as the networks were trained on them: clean, noise maps with dead pixels, observed."""
    templates = Templates()
    made = batch(Simulator(templates, NATIVE, NoiseModel.load(), templates.emulator.nearest, open_fraction=0.04), 16,
                 np.random.default_rng(5))
    clean, sigma = (torch.from_numpy(a).float() for a in (made.excess, made.sigma))
    clean += 1
    noise = correlated(sigma, RHO.expand(16, 2), torch.Generator().manual_seed(1))
    return clean, sigma, torch.where(torch.isfinite(sigma), clean + noise, 1.0)


RHO = torch.tensor([0.1, 0.3])


def against(clean: Tensor, answer: Tensor, other: Tensor) -> tuple[float, float]:
    """Mean log of the ratio of squared errors over stars, and its standard error."""
    one, two = ((a - clean).square().mean(1) for a in (answer, other))
    gap = (one / two).log()
    return float(gap.mean()), float(gap.std() / len(gap) ** 0.5)


@torch.no_grad()
def mixture_of(net: Preconditioned, x: Tensor, sigma: Tensor) -> Tensor:
    settled = net.precondition.settle(x, sigma, net.precondition.locate(x, sigma))
    return settled.moments(x[None], settled.at(sigma))[0][0]


@torch.no_grad()
def test_the_committed_denoiser_is_no_worse_than_the_mixture_it_stands_on(stars):
    clean, sigma, x = stars
    net = denoiser("cpu")
    mean, answer = mixture_of(net, x, sigma), net(x, sigma, RHO)
    assert torch.isfinite(answer).all()
    better, error = against(clean, answer, mean)
    assert better < 2 * error  # measured: -.23 +- .11, a squared error of four fifths
    worse, error = against(clean, 2 * mean - answer, mean)  # control: its correction, backwards
    assert worse > 2 * error
    assert worse > better + 0.2


@torch.no_grad()
@pytest.mark.parametrize("level", [0.02, 0.1, 0.5])
def test_as_a_prior_at_flat_noise_the_denoiser_is_no_worse_than_the_mixture_and_the_ddpm_better_than_nothing(
        stars, level):
    clean = stars[0][:8]
    x = clean + level * torch.randn(clean.shape, generator=torch.Generator().manual_seed(2))
    sigma = torch.full_like(x, level)
    net = denoiser("cpu")
    mean = mixture_of(net, x, sigma)
    gap, error = against(clean, net(x, sigma), mean)
    assert gap < 3 * error + 0.05
    plain = ddpm("cpu")(x, sigma)
    assert torch.isfinite(plain).all()
    assert against(clean, plain, x)[0] < -1.5  # measured: -2.1 at .02, -3.5 at .1, -4.9 at .5
    assert against(clean, plain, mean)[0] < 2.0  # measured: 1.3, .8 and .6: no match for the mixture, and not expected
    wrong = ddpm("cpu")(x, sigma * 3)  # control: told another level it is worse
    assert against(clean, wrong, plain)[0] > 0.1
