"""What each network is asked to learn: its module and its loss on a batch of clean stars and noise maps."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional

from core.data.grid import N_PIXELS
from core.data.noise import LAMOST_NOISE
from core.models.network import PlainDDPM, Preconditioned
from core.models.supervised import STARS, AroundMixture, ConditionalDDPM, DnCNN
from core.training.repeats import Members, between, first_step
from core.training.stars import REAL, UNIT, UNIT_OPEN, RealStars, correlated, in_uncertain_units, noise_levels

_NEAR = 15  # pixels over which the misfit that softens the loss is averaged


class Task(ABC):
    """A network to be trained: `module` holds the weights, `loss` says how wrong they are.

    Args:
        real: what draws stars that physics does not make.
    """

    module: nn.Module
    deviation: tuple[float, float] = UNIT  # of the smooth error of the unit

    def __init__(self, real: RealStars) -> None:
        self.real = real

    def stars(self, clean: Tensor, generator: torch.Generator) -> Tensor:
        """Clean stars (n, L) in uncertain units, a share of them replaced by draws of the real components."""
        number = int(REAL * len(clean))
        if number:
            clean = torch.cat([self.real.draw(number, generator), clean[number:]])
        return in_uncertain_units(clean, self.real.precondition.unit, generator, self.deviation)

    @abstractmethod
    def loss(self, clean: Tensor, sigma: Tensor, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of a batch, and what else is worth writing down; clean and sigma are (n, L)."""


class DenoiserTask(Task):
    """Squared error of the noise-map denoiser in units of the mixture's own deviation: it starts at 1, its fall is the
    gain.

    Where the mixture does not fit (a line no star has), its deviation means little: the unit is then widened by the
    local misfit of x, which is a function of x and sigma alone and so leaves the minimum at E[x0 | x].
    """

    deviation = UNIT_OPEN

    def __init__(self, real: RealStars) -> None:
        super().__init__(real)
        self.module: Preconditioned = Preconditioned(precondition=real.precondition)

    def loss(self, clean: Tensor, sigma: Tensor, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        with torch.no_grad():
            truth = self.stars(clean, generator)
            asked = noise_levels(sigma, generator)
            (x, y), sigma, rho = asked.pair(truth, generator), asked.sigma, asked.rho
            precondition = self.module.precondition
            # the place is found where a sampler finds it: once, in the observation, which is noisier than x (by a quick
            # look, though, where a sampler searches: five times the time)
            settled = precondition.settle(y, asked.observed, precondition.locate(y, asked.observed))
            m, s = (part[0] for part in settled.moments(x[None], settled.at(sigma, rho)))
            unit = s**2 * misfit(x, sigma, m, s)
            start = (m - truth) ** 2 / unit
        answer = self.module.correct(x[None], sigma, m[None], s[None], rho)[0]
        error = (answer - truth) ** 2 / unit
        return error.mean(), {"mixture": start.mean(), "gain": (error.detach() / start.mean()).mean()}


def misfit(x: Tensor, sigma: Tensor, m: Tensor, s: Tensor) -> Tensor:
    """(n, L) local mean square of (x - m) / its expected deviation, at least 1."""
    live = torch.isfinite(sigma)
    odd = torch.where(live, (x - m) ** 2 / (sigma**2 + s**2), 1.0)
    return functional.avg_pool1d(odd[:, None], _NEAR, 1, _NEAR // 2, count_include_pad=False)[:, 0].clamp_min(1.0)


class DDPMTask(Task):
    """The seed's baseline: mean square of eps - eps(x_t, t) at a uniform step (Ho et al. 2020, eq. 14)."""

    def __init__(self, real: RealStars, centre: Tensor | None = None, scale: float = 0.2) -> None:
        super().__init__(real)
        self.module: PlainDDPM = PlainDDPM(centre=centre, scale=scale)

    def loss(self, clean: Tensor, sigma: Tensor, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        model, device = self.module, clean.device
        with torch.no_grad():
            u = (self.stars(clean, generator) - model.centre) / model.scale
            t = torch.randint(len(model.alpha_bar), (len(u),), device=device, generator=generator)
            a = model.alpha_bar[t].float()[:, None]
            eps = torch.randn(len(u), N_PIXELS, device=device, generator=generator)
            x_t = a.sqrt() * u + (1 - a).sqrt() * eps
        error = (model.eps(x_t, t.float()) - eps) ** 2
        return error.mean(), {}


class PairsTask(Task):
    """What the supervised networks share: pairs of a clean star and the same star observed with LAMOST's noise.

    With `repeats`, half of each batch are repeat observations of real stars instead.
    """

    repeats: Members | None = None

    def pair(self, clean: Tensor, sigma: Tensor, generator: torch.Generator) -> Members:
        """n pairs for n clean stars and noise maps."""
        truth = self.stars(clean, generator)
        rho = torch.tensor(LAMOST_NOISE.rho, device=clean.device).expand(len(clean), 2)
        y = torch.where(torch.isfinite(sigma), truth + correlated(sigma, rho, generator), 1.0)
        made = Members(truth, torch.zeros_like(truth), y, sigma)
        if self.repeats is None:
            return made
        half = torch.arange(len(truth) // 2, device=clean.device)
        pick = torch.randint(len(self.repeats.y), (len(truth) - len(half),), device=clean.device, generator=generator)
        return made.rows(half).followed(self.repeats.rows(pick))


class SupervisedTask(PairsTask):
    """Mean square of eps - eps(x_t, t | y) at a uniform step (spec-DDPM); of v around the mixture (AroundMixture)."""

    def __init__(self, real: RealStars, variant: str, centre: Tensor | None = None, scale: float = 0.2) -> None:
        super().__init__(real)
        self.module: ConditionalDDPM | AroundMixture = (
            AroundMixture(precondition=real.precondition) if variant == "supervised_mixture"
            else ConditionalDDPM(variant, centre=centre, scale=scale))

    def loss(self, clean: Tensor, sigma: Tensor, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        model = self.module
        with torch.no_grad():
            pair = self.pair(clean, sigma, generator)
            asked = model.question(pair.y, pair.sigma, torch.tensor(LAMOST_NOISE.rho, device=clean.device), quick=True)
            u, own = (pair.truth - asked.centre) / asked.scale, pair.left / asked.scale
            n, last, device = len(u), len(model.alpha_bar), u.device
            level = ((1 - model.alpha_bar) / model.alpha_bar).sqrt()
            begin = first_step(own, level)
            t = begin + (torch.rand(n, device=device, generator=generator) * (last - begin)).long()
            a = model.alpha_bar[t].float()[:, None]
            w = between(own, level[t].float()[:, None])
            z = torch.randn(n, N_PIXELS, device=device, generator=generator)
            x_t = a.sqrt() * torch.where(torch.isfinite(own), u, 0.0) + (1 - a).sqrt() * torch.where(
                torch.isfinite(own), w.sqrt(), 1.0) * z
        error = (w.sqrt() * model.eps_given(x_t, t.float(), asked.condition) - z) ** 2
        if isinstance(model, AroundMixture):  # of v: (eps - eps')^2 = abar (v - v')^2
            error = error / a
        told = (w > 0).float()
        return (error * told).sum() / told.sum(), {}


_FINE = 0.01  # deviation [continuum] below which the loss asks for no more: a network of one scale holds no star finer


class DnCNNTask(PairsTask):
    """Square error of the clean spectrum (Zhang et al. 2017, eq. 1), in units of what the best straight line would
    leave, sigma^2 s^2 / (sigma^2 + s^2) with stars of s = .2: in their own units the noisiest spectra are all of the
    loss, and of those the blue end. A function of sigma alone: the minimum stays at E[x0 | y].
    """

    def __init__(self, real: RealStars, sigma: bool) -> None:
        super().__init__(real)
        self.module: DnCNN = DnCNN(sigma)

    def loss(self, clean: Tensor, sigma: Tensor, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        with torch.no_grad():
            pair = self.pair(clean, sigma, generator)
            live = torch.isfinite(pair.sigma)
            noise = torch.where(live, pair.sigma, 1.0) ** 2
            unit = torch.where(live, noise * STARS**2 / (noise + STARS**2), STARS**2) + _FINE**2
            unit = unit + pair.left**2  # the better member's own noise: independent, so the minimum stays
            start = (pair.y - pair.truth) ** 2 / unit
        error = (self.module(pair.y, pair.sigma) - pair.truth) ** 2 / unit
        return error.mean(), {"noisy": start.mean()}
