"""The supervised networks of the literature: what each is shown, and what it gives back."""

from __future__ import annotations

import pytest
import torch

from core import checkpoint
from core.data.grid import N_PIXELS
from core.models.network import modules_of
from core.models.supervised import CHANNELS, ConditionalDDPM, DnCNN, judged
from core.models.unet import UNetConfig
from core.training.loop import Run, TrainConfig, settle
from core.training.tasks import Task

TINY = UNetConfig(inputs=1, outputs=1, scalars=1, width=(8, 12), heads=2, embedding=16)


def question(n: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(1)
    y = 1 + 0.1 * torch.randn(n, N_PIXELS, generator=g)
    sigma = torch.full((n, N_PIXELS), 0.1)
    sigma[0, 100:200] = torch.inf
    return y, sigma


@pytest.mark.parametrize("variant", CHANNELS)
@torch.no_grad()
def test_a_variant_is_shown_its_channels_and_answers_for_each_pixel(variant):
    model = ConditionalDDPM(variant, TINY).eval()
    y, sigma = question()
    condition = model.condition(y, sigma)
    assert condition.shape == (3, len(CHANNELS[variant]), N_PIXELS)
    assert torch.isfinite(condition).all()
    assert model.net.config.inputs == 1 + len(CHANNELS[variant])
    eps = model.eps_given(torch.randn(3, N_PIXELS, generator=torch.Generator().manual_seed(2)),
                          torch.tensor([0.0, 10.5, 999.0]), condition)
    assert eps.shape == (3, N_PIXELS)
    assert not eps.any()  # untrained it sees no noise


@torch.no_grad()
def test_what_it_is_shown_is_what_was_measured():
    centre = torch.linspace(0.9, 1.1, N_PIXELS)
    model = ConditionalDDPM("supervised_ivar", TINY, centre, 0.2)
    y, sigma = question()
    shown, level, mask = model.condition(y, sigma).unbind(1)
    live = torch.isfinite(sigma)
    torch.testing.assert_close(shown[live], ((y - centre) / 0.2)[live])
    assert not shown[~live].any()
    assert torch.equal(mask, live.float())
    assert level[~live].min() > level[live].max()  # a dead pixel is noisier than any live one
    other = torch.where(live, y, 99.0)  # what lies in a dead pixel does not matter
    assert torch.equal(model.condition(other, sigma), model.condition(y, sigma))


@torch.no_grad()
def test_the_condition_and_the_step_reach_the_answer():
    model = ConditionalDDPM("supervised", TINY).eval()
    g = torch.Generator().manual_seed(3)
    for p in model.net.parameters():
        p.add_(0.1 * torch.randn(p.shape, generator=g))
    y, sigma = question()
    x, t = torch.randn(3, N_PIXELS, generator=g), torch.full((3,), 500.0)
    one = model.eps_given(x, t, model.condition(y, sigma))
    assert (one - model.eps_given(x, t, model.condition(y + 0.3, sigma))).abs().max() > 1e-3
    assert (one - model.eps_given(x, t - 400, model.condition(y, sigma))).abs().max() > 1e-4


def test_an_unknown_variant_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="'supervized' is unknown; known: supervised, supervised_ivar"):
        ConditionalDDPM("supervized")


def test_a_checkpoint_holds_its_weights_and_its_unit():
    names = set(modules_of(ConditionalDDPM("supervised_ivar", TINY)))
    assert {"centre", "scale"} < names
    assert all(n.startswith("net.") for n in names - {"centre", "scale"})


@pytest.mark.parametrize("sigma", [True, False])
@torch.no_grad()
def test_dncnn_takes_off_what_its_layers_see(sigma):
    model = DnCNN(sigma, layers=4, width=8).eval()
    y, noise = question()
    assert torch.equal(model(y, noise)[torch.isfinite(noise)], y[torch.isfinite(noise)])  # untrained: nothing
    torch.nn.init.normal_(model.net[-1].weight, std=0.1, generator=torch.Generator().manual_seed(1))
    answer = model(y, noise)
    assert answer.shape == y.shape
    assert torch.isfinite(answer).all()
    other = torch.where(torch.isfinite(noise), y, -50.0)
    assert torch.equal(model(other, noise), answer)
    assert torch.equal(model(y, torch.where(torch.isfinite(noise), 2 * noise, noise)), answer) == (not sigma)
    for p in model.net[-1].parameters():
        p.zero_()
    silent = model(y, noise)
    live = torch.isfinite(noise)
    assert torch.equal(silent[live], y[live])
    assert (silent[~live] == 1).all()


@pytest.mark.parametrize("sigma", [0.002, 0.02, 0.5])
def test_the_noise_of_a_spectrum_without_a_map_is_judged_from_itself(sigma):
    y = 1 + sigma * torch.randn(3, 3840, generator=torch.Generator().manual_seed(1))
    assert judged(y).shape == y.shape
    assert judged(y).sqrt().mean().item() == pytest.approx(sigma, rel=0.05)
    smooth = 1 + 0.3 * torch.sin(torch.arange(3840) / 100).expand(3, -1)
    assert judged(smooth).max() < 1e-6  # control


class _Normed(Task):
    """The mean of what batch norm gives: no use but to have one."""

    def __init__(self) -> None:
        self.module = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3))

    def loss(self, clean, sigma, generator):
        return self.module(clean + sigma * torch.randn(clean.shape, generator=generator)).square().mean(), {}


def test_settled_statistics_are_those_of_the_weights_that_are_in(tmp_path):
    def source(step, generator):
        return 3 + torch.randn(64, 4, generator=generator), torch.full((64, 4), 0.1)

    torch.manual_seed(0)  # of the layer's first weights, which decide how far off the averages begin
    run = Run(_Normed(), TrainConfig(rate=0.1), tmp_path, torch.device("cpu"))
    for _ in range(15):
        run.advance(source)
    run.swap()
    layer, norm = run.net

    @torch.no_grad()
    def off() -> float:  # of what batch norm should find: the layer is linear
        return float((layer(torch.full((4,), 3.0)) - norm.running_mean).abs().max())

    before = off()
    settle(run, source)
    assert off() < 0.05 < before
    assert norm.momentum == 0.1
    settle(Run(_Plain(), TrainConfig(), tmp_path / "plain", torch.device("cpu")), source)  # nothing to do


class _Plain(_Normed):
    def __init__(self) -> None:
        self.module = torch.nn.Linear(4, 3)


def test_dncnn_is_as_deep_and_wide_as_published():
    convolutions = [m for m in DnCNN(False).net if isinstance(m, torch.nn.Conv2d)]
    assert len(convolutions) == 17
    assert {m.out_channels for m in convolutions[:-1]} == {64}
    assert sum(p.numel() for p in DnCNN(True).parameters()) < 1e6


@pytest.mark.parametrize("name", ["supervised", "supervised_ivar"])
def test_a_committed_network_sees_the_noise_it_is_asked_about(name):
    state, config, card = checkpoint.load(checkpoint.path_of(name))
    model = checkpoint.fill(ConditionalDDPM(name, UNetConfig.of(config["unet"])), state, name).eval()
    assert card["spectra_seen"] > 1e5
    rng = torch.Generator().manual_seed(0)
    truth = model.centre.expand(4, -1)  # the mean star, seen at S/N 20
    sigma = torch.full_like(truth, 0.05)
    y = truth + sigma * torch.randn(truth.shape, generator=rng)
    a = model.alpha_bar[300].float()
    eps = torch.randn(truth.shape, generator=rng)
    with torch.no_grad():
        found = model.eps_given((1 - a).sqrt() * eps, torch.full((4,), 300.0), model.condition(y, sigma))
    assert float(((found - eps) ** 2).mean()) < 0.1  # of 1: a network that saw nothing would have 1
