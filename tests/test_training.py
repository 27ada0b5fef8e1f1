"""Training goes on after a kill as if nothing had been, learns what can be learned, and stops when it breaks."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from core.data.grid import N_PIXELS
from core.models.network import PlainDDPM, Preconditioned
from core.models.supervised import AroundMixture, ConditionalDDPM, DnCNN
from core.models.unet import UNet, UNetConfig
from core.training.loop import Run, TrainConfig, fit
from core.training.stars import correlated, in_uncertain_units, noise_levels
from core.training.tasks import DDPMTask, DenoiserTask, DnCNNTask, SupervisedTask, Task, misfit
from scripts.train import NAMES, RECIPES, build

CPU = torch.device("cpu")
LENGTH = 64


class Tiny(Task):
    """A U-Net of a few thousand weights that is to give back a smooth curve from beneath its noise."""

    def __init__(self) -> None:
        torch.manual_seed(3)
        self.module = UNet(UNetConfig(1, 1, 1, (8, 12), heads=2, embedding=16))

    def loss(self, clean: Tensor, sigma: Tensor, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        x = clean + sigma * torch.randn(clean.shape, generator=generator)
        error = (self.module(x[:, None], sigma[:, :1])[:, 0] - clean) ** 2
        return error.mean(), {"start": (clean**2).mean()}


def curves(step: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    phase = 6 * torch.rand(8, 1, generator=generator)
    return torch.sin(phase + torch.arange(LENGTH) / 5), torch.full((8, LENGTH), 0.3)


class PowerCutError(Exception):
    """Stands for a power cut."""


def killed_at(step: int) -> Callable[[int, torch.Generator], tuple[Tensor, Tensor]]:
    def source(now: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        if now == step:
            raise PowerCutError
        return curves(now, generator)

    return source


def curve_of(folder: Path) -> list[tuple[float, ...]]:
    """What must not depend on the clock."""
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [tuple(line[k] for k in ("step", "seen", "loss", "norm", "start", "rate")) for line in lines]


# ------------------------------------------------------------------------------------------- the loop


def test_after_a_kill_it_goes_on_to_the_same_loss_curve_bit_for_bit(tmp_path):
    config = TrainConfig(steps=60, rate=3e-3, every=0.0)
    whole = Run(Tiny(), config, tmp_path / "whole", CPU)
    fit(whole, curves, 8)
    with pytest.raises(PowerCutError):
        fit(Run(Tiny(), config, tmp_path / "cut", CPU), killed_at(37), 8)
    again = Run(Tiny(), config, tmp_path / "cut", CPU)
    assert 0 < again.step <= 37
    fit(again, curves, 8)
    assert curve_of(tmp_path / "cut") == curve_of(tmp_path / "whole")
    for one, other in zip(again.weights + again.averaged, whole.weights + whole.averaged, strict=True):
        assert torch.equal(one, other)
    # control: another seed is another curve
    fit(Run(Tiny(), TrainConfig(steps=60, rate=3e-3, seed=1), tmp_path / "other", CPU), curves, 8)
    assert curve_of(tmp_path / "other") != curve_of(tmp_path / "whole")


def test_what_was_logged_after_the_last_state_is_not_logged_twice(tmp_path):
    config = TrainConfig(steps=40, rate=3e-3, every=1e9)  # states only where a sitting ends
    fit(Run(Tiny(), config, tmp_path / "whole", CPU), curves, 8)
    run = Run(Tiny(), config, tmp_path / "cut", CPU)
    with pytest.raises(PowerCutError):
        fit(run, killed_at(12), 8, each=lambda r: r.save() if r.step < 6 else None)
    logged = [line[0] for line in curve_of(tmp_path / "cut")]
    with run.log.open("a") as log:
        log.write('{"step": 99, "lo')  # half a line, as a kill leaves it
    fit(Run(Tiny(), config, tmp_path / "cut", CPU), curves, 8)
    steps = [line[0] for line in curve_of(tmp_path / "cut")]
    assert logged[-1] in steps  # those steps were done again
    assert steps == sorted(set(steps))
    assert steps[-1] == 40


def test_the_loss_falls_by_far_and_the_average_of_the_weights_follows(tmp_path):
    run = Run(Tiny(), TrainConfig(steps=250, rate=5e-3, average=0.95), tmp_path, CPU)
    lines = fit(run, curves, 8)
    assert lines[0]["loss"] > 0.4  # half: the mean square of a sine
    assert lines[-1]["loss"] < 0.15 * lines[0]["loss"]

    def now() -> float:
        with torch.no_grad():
            return float(run.task.loss(*curves(0, torch.Generator().manual_seed(9)),
                                       torch.Generator().manual_seed(9))[0])

    raw = now()
    before = [p.detach().clone() for p in run.weights]
    run.swap()
    averaged = now()
    assert averaged < 0.15
    assert averaged != raw
    run.swap()
    assert all(torch.equal(a, b) for a, b in zip(before, run.weights, strict=True))


def test_the_rate_rises_and_then_falls_as_a_cosine(tmp_path):
    run = Run(Tiny(), TrainConfig(steps=1000, rate=1e-3, warm=0.1), tmp_path, CPU)

    def at(step: int) -> float:
        run.step = step
        return run.rate()

    assert at(0) == 0
    assert at(50) == pytest.approx(5e-4)
    assert at(100) == pytest.approx(1e-3)
    assert at(550) == pytest.approx(5e-4)
    assert at(325) == pytest.approx(1e-3 * 0.5 * (1 + math.cos(math.pi / 4)))
    assert at(1000) == pytest.approx(0, abs=1e-12)
    assert at(2000) == pytest.approx(0, abs=1e-12)


def test_a_budget_of_time_ends_the_training_and_counts_what_was_used_before(tmp_path):
    config = TrainConfig(budget=1.0, rate=1e-3)
    run = Run(Tiny(), config, tmp_path, CPU)
    run.used = 0.5
    assert run.progress == pytest.approx(0.5)
    fit(run, curves, 8)
    assert run.progress == 1
    assert 1.0 <= run.used < 3.0
    assert not fit(Run(Tiny(), config, tmp_path, CPU), curves, 8)  # it is over: a new sitting does nothing


def test_a_pause_ends_a_sitting_and_not_the_training(tmp_path):
    config = TrainConfig(steps=100_000)
    run = Run(Tiny(), config, tmp_path, CPU)
    fit(run, curves, 8, pause=0.3)
    assert 0 < run.progress < 1
    assert Run(Tiny(), config, tmp_path, CPU).step == run.step


def test_a_loss_that_is_no_number_stops_it_before_it_is_saved(tmp_path):
    def source(step: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        clean, sigma = curves(step, generator)
        return clean * (torch.nan if step > 10 else 1), sigma

    run = Run(Tiny(), TrainConfig(steps=40, every=0.0), tmp_path, CPU)
    with pytest.raises(ValueError, match="the loss is nan at step .*; lower the rate and begin anew"):
        fit(run, source, 8)
    assert all(torch.isfinite(p).all() for p in Run(Tiny(), TrainConfig(steps=40), tmp_path, CPU).weights)


def test_it_is_looked_at_about_fifty_times_with_averaged_weights(tmp_path):
    run = Run(Tiny(), TrainConfig(steps=150, rate=1e-3), tmp_path, CPU)
    seen = []
    fit(run, curves, 8, lambda r: seen.append((r.step, r.weights[0].detach().clone())))
    assert 10 <= len(seen) <= 50
    assert not torch.equal(seen[-1][1], run.weights[0])


# ------------------------------------------------------------------------------------------- what is trained on


def generator(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_stars_of_the_real_components_are_theirs(real):
    stars = real.draw(400, generator())
    assert stars.shape == (400, N_PIXELS)
    assert torch.isfinite(stars).all()
    assert torch.equal(real.draw(400, generator())[:3], stars[:3])
    weight = real.share / real.share.sum()
    owner = real.precondition
    mean = (weight[:, None] * owner.rows[real.component, 0]).sum(0)[12:-12].mean()
    spread = stars.mean(1).std() / 20
    assert abs(float(stars.mean() - mean)) < 4 * float(spread)


@pytest.mark.parametrize("rho", [(0.0, 0.0), (0.3, 0.6)])
def test_the_noise_has_the_map_and_the_correlation_it_is_said_to_have(rho):
    n = 300
    sigma = torch.linspace(0.05, 0.2, N_PIXELS).repeat(n, 1)
    sigma[:, 100:110] = torch.inf
    noise = correlated(sigma, torch.tensor(rho).expand(n, 2), generator())
    assert not noise[:, 100:110].any()
    z = noise / torch.where(torch.isfinite(sigma), sigma, 1.0)
    error = 1 / math.sqrt(n * 1000)
    for part, r in ((slice(200, 1200), rho[0]), (slice(2700, 3700), rho[1])):
        assert float(z[:, part].square().mean()) == pytest.approx(1, abs=5 * 1.5 * error * 2**0.5)
        lag = float((z[:, part] * z[:, part.start + 1 : part.stop + 1]).mean())
        assert lag == pytest.approx(r, abs=5 * 1.5 * error)


def test_noise_levels_are_those_a_sampler_asks_for():
    sigma = torch.full((4000, 30), 0.1)
    sigma[:, :5] = torch.inf
    asked = noise_levels(sigma, generator())
    out, rho = asked.sigma, asked.rho
    assert (out > 0).all()
    dead = torch.isinf(out[:, 0])
    flat = (out[:, :1] == out).all(1)
    filled = ~dead & ~flat
    for share, wanted in ((dead, 0.5), (filled, 0.34), (flat, 0.16)):
        assert float(share.float().mean()) == pytest.approx(wanted, abs=4 * math.sqrt(wanted * (1 - wanted) / 4000))
    assert not rho[flat].any()
    assert 0.5 < rho.max() < 0.6
    assert out[dead, 10].min() >= 0.00099
    assert out[dead, 10].max() == pytest.approx(0.1)
    assert (out[filled, 0] / out[filled, 10]).min() > 1.9  # dead pixels are filled with .2-.5 and fall with tau
    assert (asked.observed >= out).all()
    assert torch.isinf(asked.observed[filled, 0]).all()  # a sampler fills what the observation lacks
    assert torch.equal(asked.observed[flat], out[flat])


def test_an_observation_is_what_was_asked_about_with_the_rest_of_its_noise():
    sigma, truth = torch.full((3000, N_PIXELS), 0.1), torch.ones(3000, N_PIXELS)
    sigma[:, :5] = torch.inf
    asked = noise_levels(sigma, generator())
    x, y = asked.pair(truth, generator())
    assert (y[:, 0][torch.isinf(asked.observed[:, 0])] == 1).all()
    at = slice(1000, 1100)
    for seen, wanted in ((x, asked.sigma), (y, asked.observed), (y - x, (asked.observed**2 - asked.sigma**2).sqrt())):
        gap = seen[:, at] - (truth[:, at] if seen is x or seen is y else 0)
        assert float(gap.square().mean() / wanted[:, at].square().mean()) == pytest.approx(1, rel=0.05)
    assert float((x * (y - x))[:, at].mean()) == pytest.approx(0, abs=2e-3)  # the rest knows nothing of what x has


def test_uncertain_units_change_stars_by_as_much_as_said(real):
    clean = torch.ones(2000, N_PIXELS)
    unit = real.precondition.unit
    small, wide = (in_uncertain_units(clean, unit, generator(), d).log().std() for d in ((0.02, 0.021), (0.2, 0.21)))
    assert float(wide / small) == pytest.approx(10, rel=0.15)


# ------------------------------------------------------------------------------------------- the tasks


TASKS = {"denoiser": (DenoiserTask, Preconditioned), "ddpm": (DDPMTask, PlainDDPM),
         "supervised": (SupervisedTask, ConditionalDDPM), "supervised_ivar": (SupervisedTask, ConditionalDDPM),
         "supervised_mixture": (SupervisedTask, AroundMixture), "dncnn": (DnCNNTask, DnCNN),
         "dncnn_blind": (DnCNNTask, DnCNN)}


def test_every_name_has_a_task():
    assert set(TASKS) == set(NAMES)
    assert RECIPES["cpu"].budget <= 90 * 60
    assert RECIPES["gpu"].budget <= 25 * 60


@pytest.mark.parametrize("name", TASKS)
def test_a_task_has_a_loss_that_reaches_the_weights(real, name):
    clean = 1 + 0.1 * torch.randn(4, N_PIXELS, generator=generator())
    sigma = torch.full((4, N_PIXELS), 0.05)
    sigma[0, 50:80] = torch.inf
    task = build(name, real, clean)
    assert (type(task), type(task.module)) == TASKS[name]
    before = [p.detach().clone() for p in task.module.parameters()]
    loss, more = task.loss(clean, sigma, generator())
    again = task.loss(clean, sigma, generator())[0].detach()
    if not name.startswith("dncnn"):  # batch norm moves
        assert float(loss.detach()) == pytest.approx(float(again), rel=1e-6)
        assert float(again) != float(task.loss(clean, sigma, generator(2))[0].detach())
    loss.backward()
    gradients = [p.grad for p in task.module.parameters() if p.grad is not None]
    assert gradients
    assert all(torch.isfinite(g).all() for g in gradients)
    assert any(g.abs().max() > 0 for g in gradients)
    assert all(torch.equal(a, b) for a, b in zip(before, task.module.parameters(), strict=True))
    if name == "denoiser":  # untrained it is the mixture, and the loss is the mixture's
        assert float(more["gain"]) == pytest.approx(1, abs=1e-4)
        assert float(again) == pytest.approx(float(more["mixture"]), rel=1e-4)
    if name in ("ddpm", "supervised"):  # untrained they see no noise: all of eps is left
        assert float(again) == pytest.approx(1, abs=5 * math.sqrt(2 / (4 * N_PIXELS)))


def test_the_loss_is_softened_where_the_mixture_does_not_fit():
    m, s = torch.ones(1, 100), torch.full((1, 100), 0.01)
    sigma = torch.full((1, 100), 0.02)
    sigma[0, :10] = torch.inf
    x = m.clone()
    x[0, 50:55] += 1.0
    out = misfit(x, sigma, m, s)
    assert (out[0, :30] == 1).all()
    assert out[0, 52] > 100
    assert out.shape == (1, 100)


def test_a_module_of_the_tiny_task_is_tiny():
    assert isinstance(Tiny().module, nn.Module)
    assert sum(p.numel() for p in Tiny().module.parameters()) < 20_000
