"""The literature's way: a DDPM that is shown the noisy spectrum, eps(x_t, t | y), learned from pairs (spec-DDPM)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from core.models.mixture import Mixture
from core.models.network import PlainDDPM, run
from core.models.precondition import Precondition
from core.models.schedule import linear_beta
from core.models.unet import UNet, UNetConfig

#: what a variant is shown beside x_t: the spectrum; its noise map and mask
CHANNELS: dict[str, tuple[str, ...]] = {
    "supervised": ("y",),
    "supervised_ivar": ("y", "log_sigma", "mask"),
}


@dataclass(frozen=True)
class Question:
    """What a conditional network is asked about B observations.

    Args:
        condition: (B, C, L) channels; centre, scale: clean spectra are centre + scale u, each (B, L) or broadcast to
            it, with u near N(0, 1): the network's diffusion is in u.
    """

    condition: Tensor
    centre: Tensor
    scale: Tensor


def level_of(sigma: Tensor) -> Tensor:
    """The noise map as a channel: near 0 at S/N 20, 1.5 in dead pixels."""
    live = torch.isfinite(sigma)
    return torch.where(live, (torch.where(live, sigma, 1.0).log() + 3) / 2, 1.5)


class ConditionalDDPM(PlainDDPM):
    """eps(x_t, t | y): T = 1000, linear beta, eps-prediction, the observation as further channels (spec-DDPM, RAA 2025;
    Saharia et al. 2021, arXiv:2104.07636, for images).

    Args:
        variant: a key of CHANNELS.
        config, centre, scale: see PlainDDPM; the number of inputs follows from the variant.

    Raises:
        ValueError: an unknown variant.
    """

    def __init__(self, variant: str, config: UNetConfig | None = None, centre: Tensor | None = None,
                 scale: float = 0.2) -> None:
        if variant not in CHANNELS:
            raise ValueError(f"variant {variant!r} is unknown; known: {', '.join(CHANNELS)}.")
        wanted = replace(config or self.CONFIG, inputs=1 + len(CHANNELS[variant]))
        super().__init__(wanted, centre, scale)
        self.variant = variant

    def condition(self, y: Tensor, sigma: Tensor) -> Tensor:
        """(N, C, L) channels about observations y (N, L) with noise maps sigma (N, L), infinite in dead pixels."""
        live = torch.isfinite(sigma)
        channel = {"y": torch.where(live, (y - self.centre) / self.scale, 0.0).clamp(-30, 30),
                   "log_sigma": level_of(sigma), "mask": live.float()}
        return torch.stack([channel[name] for name in CHANNELS[self.variant]], 1)

    def question(self, y: Tensor, sigma: Tensor, rho: Tensor | None = None, quick: bool = False) -> Question:
        """What is asked about observations (N, L); rho and quick are AroundMixture's."""
        return Question(self.condition(y, sigma), self.centre, self.scale)

    def eps_given(self, x_t: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        """The noise in x_t (N, L) at steps t (N,), given the condition's channels (N, C, L)."""
        return run(self.net, torch.cat([x_t[:, None], condition], 1), (t / 250.0)[:, None])[:, 0]


class AroundMixture(nn.Module):
    """The fair rival: a conditional diffusion that is given the mixture's posterior, mean m and deviation s, and draws
    the star around it, u = (x0 - m) / s. eps = sqrt(1 - abar) x_t + sqrt(abar) F (v-prediction: Salimans & Ho 2022,
    arXiv:2202.00512, appendix D), F = 0 in an untrained network: its draws are then N(m, s^2), pixel by pixel. What it
    has to learn is how pixels go together, and where the mixture is wrong.

    It is shown (y - m) / sqrt(sigma^2 + s^2), m - 1, log s, log sigma, and 1 where something was measured.

    Args:
        config: of the network; precondition: of another mixture; the committed one by default.
    """

    CONFIG = UNetConfig(inputs=6, outputs=1, scalars=1)
    alpha_bar: Tensor

    def __init__(self, config: UNetConfig | None = None, precondition: Precondition | None = None) -> None:
        super().__init__()
        self.net = UNet(config or self.CONFIG)
        self.precondition = Precondition(Mixture.load()) if precondition is None else precondition
        self.register_buffer("alpha_bar", linear_beta(), persistent=False)

    def question(self, y: Tensor, sigma: Tensor, rho: Tensor | None = None, quick: bool = False) -> Question:
        """What is asked about observations (N, L) with noise of correlation rho (2,).

        Args:
            quick: the star's place by a quick look (in training), not by the whole evidence: a fifth of the time.
        """
        known = self.precondition
        place = known.locate(y, sigma) if quick else known.search(y, sigma, rho)
        settled = known.settle(y, sigma, place)
        m, s = (part[0] for part in settled.moments(y[None], settled.at(sigma, rho)))
        live = torch.isfinite(sigma)
        noise = torch.where(live, sigma, 1.0)
        gap = torch.where(live, (y - m) / (noise**2 + s**2).sqrt(), 0.0).clamp(-30, 30)
        shown = [gap, m - 1.0, (s.log() + 5) / 2, level_of(sigma), live.float()]
        return Question(torch.stack(shown, 1), m, s)

    def v(self, x_t: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        """F: sqrt(abar) eps - sqrt(1 - abar) u of x_t (N, L) at steps t (N,)."""
        return run(self.net, torch.cat([x_t[:, None], condition], 1), (t / 250.0)[:, None])[:, 0]

    def eps_given(self, x_t: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        """The noise in x_t (N, L) at steps t (N,), given the condition's channels (N, C, L)."""
        a = self.alpha_bar[t.round().long()].float()[:, None]
        return (1 - a).sqrt() * x_t + a.sqrt() * self.v(x_t, t, condition)


STARS = 0.2  #: [continuum] by which stars differ from the continuum, about
_WINDOW = 301  # pixels over which the noise of a spectrum without a map is judged


class DnCNN(nn.Module):
    """y less the noise that 17 convolutional layers see in it (Zhang et al. 2017, arXiv:1608.03981, section III).

    What goes in is in units of sqrt(sigma^2 + .2^2), and so is what comes out: the paper's noise spans a factor of ten,
    ours of hundreds, and batch norm's statistics would be those of the noisiest spectrum of a batch, whatever the
    others are. Untrained it takes nothing off.

    Args:
        sigma: True when the noise map goes in as a second channel (as FFDNet does, Zhang et al. 2018); blind otherwise.
        layers, width: as published, 17 and 64.
    """

    def __init__(self, sigma: bool, layers: int = 17, width: int = 64) -> None:
        super().__init__()
        self.sigma = sigma
        parts: list[nn.Module] = [nn.Conv2d(3 if sigma else 1, width, (1, 3), padding=(0, 1)), nn.ReLU(inplace=True)]
        for _ in range(layers - 2):
            parts += [nn.Conv2d(width, width, (1, 3), padding=(0, 1), bias=False), nn.BatchNorm2d(width),
                      nn.ReLU(inplace=True)]
        last = nn.Conv2d(width, 1, (1, 3), padding=(0, 1))
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)  # type: ignore[arg-type]
        parts.append(last)
        self.net = nn.Sequential(*parts)  # in one dimension: kernels of (1, 3)
        self.net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs lack it

    def forward(self, y: Tensor, sigma: Tensor) -> Tensor:
        """(N, L) clean spectra of y (N, L); sigma (N, L) is infinite in dead pixels, whose y is taken as 1."""
        live = torch.isfinite(sigma)
        rows = torch.where(live, y, 1.0)
        spread = torch.where(live, sigma, 0.0) ** 2 if self.sigma else judged(rows)
        unit = (STARS**2 + spread).sqrt()
        channels = [(rows - 1.0) / unit]
        if self.sigma:
            channels += [level_of(sigma), live.float()]
        with torch.autocast(y.device.type, torch.bfloat16, enabled=y.is_cuda):
            noise = self.net(torch.stack(channels, 1)[:, :, None].contiguous(memory_format=torch.channels_last))
        out: Tensor = rows - unit * noise[:, 0, 0].float()
        return out


def judged(y: Tensor) -> Tensor:
    """(N, L) local variance of white noise in spectra (N, L), from second differences; lines add a little to it."""
    bend = y[:, 1:-1] - (y[:, :-2] + y[:, 2:]) / 2
    mean = functional.avg_pool1d((bend**2 / 1.5)[:, None], _WINDOW, 1, _WINDOW // 2, count_include_pad=False)[:, 0]
    return functional.pad(mean[:, None], (1, 1), mode="replicate")[:, 0]


