"""Training spectra as they are seen: real stars' components drawn among simulated ones, an uncertain unit, noise."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from core.data.grid import C_KMS, N_PIXELS, STEP, WAVE
from core.models.mixture import Mixture
from core.models.precondition import Place, Precondition
from core.models.whitening import coloured
from core.spectrum import ARM_JOIN

REAL = 0.4  #: share of stars drawn from the components that were learned from real ones
#: Deviation of the smooth error of the unit, log-uniform, where a network is to answer for it. It must be far above
#: what an S/N 5 star leaves open (.03 in the blue): the curve through a noisy star takes its smooth part away, so a
#: network that has seen small errors believes, of every star, that there is none (docs/training.md).
UNIT_OPEN = (0.1, 0.3)
UNIT = (0.02, 0.3)  #: the same, of stars as such
_FILL = (0.2, 0.5)  # deviation at which dead pixels are seen when a sampler fills them, in units of the continuum
_PIXEL_KMS = C_KMS * STEP * 2.302585092994046


class RealStars(nn.Module):
    """Draws of the mixture's real components at velocities of the prior: what stars are that physics does not make."""

    component: Tensor
    share: Tensor
    taps: Tensor

    def __init__(self, mixture: Mixture, precondition: Precondition) -> None:
        super().__init__()
        self.precondition, self.scales = precondition, mixture.scales
        real = torch.tensor([i for i, kind in enumerate(mixture.kinds) if kind == "real"])
        self.register_buffer("component", real)
        self.register_buffer("share", mixture.log_weight[real].exp())
        self.register_buffer("taps", mixture.taps)

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """(n, L) clean stars."""
        device = generator.device
        pick = torch.multinomial(self.share, n, replacement=True, generator=generator)
        spread = torch.where(torch.rand(n, device=device, generator=generator) < 0.08, 180.0, 50.0)
        shift = spread * torch.randn(n, device=device, generator=generator) / _PIXEL_KMS
        place = Place(self.component[pick][:, None], self.precondition.node(shift.clamp(-6.9, 6.9)))
        columns = self.precondition.columns(place)
        t = torch.randn(n, 1, columns.factors.shape[2], device=device, generator=generator)
        smooth = columns.mean[:, 0] + (t @ columns.factors[:, 0])[:, 0]
        white = torch.randn(n, N_PIXELS + len(self.taps) - 1, device=device, generator=generator)
        scale = torch.tensor(self.scales, device=device)[
            torch.randint(len(self.scales), (n, 1), device=device, generator=generator)]
        return smooth + coloured(white, self.taps) * (scale * columns.residual[:, 0]).sqrt()


def uniform(low: float, high: float, n: int, generator: torch.Generator, log: bool = False) -> Tensor:
    """(n, 1) numbers between low and high, evenly in themselves or in their logarithm."""
    u = torch.rand(n, 1, device=generator.device, generator=generator)
    return low * (high / low) ** u if log else low + (high - low) * u


def in_uncertain_units(clean: Tensor, unit: Tensor, generator: torch.Generator,
                       deviation: tuple[float, float] = UNIT) -> Tensor:
    """Clean spectra (n, L) times a smooth factor: spectra come in units of a curve drawn through the *noisy* star.

    Args:
        unit: (12, L) smooth functions with a deviation of .3 (Mixture.unit); deviation: its range, log-uniform.
    """
    amount = uniform(*deviation, len(clean), generator, log=True) / 0.3
    weights = torch.randn(len(clean), len(unit), device=clean.device, generator=generator)
    return clean * torch.exp(amount * weights @ unit)


def correlated(sigma: Tensor, rho: Tensor, generator: torch.Generator) -> Tensor:
    """sigma (K z) for maps (n, L) and correlations (n, 2) of the two arms; 0 where sigma is infinite."""
    z = torch.randn(len(sigma), N_PIXELS + 2, device=sigma.device, generator=generator)
    blue = torch.as_tensor(WAVE < ARM_JOIN, device=sigma.device)
    r = torch.where(blue, rho[:, :1], rho[:, 1:])
    a = r / (1 + (1 - 2 * r**2).sqrt())  # as core.spectrum.Kernel.taps
    noise = (z[:, 1:-1] + a * (z[:, :-2] + z[:, 2:])) / (1 + 2 * a**2).sqrt()
    return torch.where(torch.isfinite(sigma), sigma, 0.0) * noise


@dataclass(frozen=True)
class Asked:
    """Noise as a sampler asks about it: (n, L) each, and the correlation (n, 2) of both arms.

    Args:
        sigma: of x, what is to be denoised; observed: of the observation y that x came from, in which the star's place
            in the mixture was found: at least sigma, infinite where nothing was measured.
    """

    sigma: Tensor
    observed: Tensor
    rho: Tensor

    def pair(self, truth: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """x and y (n, L): x = truth + sigma K z, and y is x with the rest of its noise, 1 where nothing was seen."""
        x = truth + correlated(self.sigma, self.rho, generator)
        more = torch.where(torch.isfinite(self.observed), (self.observed**2 - self.sigma**2).clamp_min(0).sqrt(), 0.0)
        y = x + correlated(more, self.rho, generator)
        return (torch.where(torch.isfinite(self.sigma), x, 1.0), torch.where(torch.isfinite(self.observed), y, 1.0))


def noise_levels(sigma: Tensor, generator: torch.Generator) -> Asked:
    """Maps (n, L) as a sampler asks about them.

    Half as they are or scaled by tau in .01-1 with dead pixels dead; a third scaled, with dead pixels filled as a
    sampler fills them; a sixth flat and white, to serve as the unconditional prior.
    """
    n = len(sigma)
    kind = torch.rand(n, 1, device=sigma.device, generator=generator)
    tau = uniform(0.01, 1.0, n, generator, log=True)
    tau = torch.where(torch.rand(n, 1, device=sigma.device, generator=generator) < 0.25, 1.0, tau)
    filled = torch.where(torch.isfinite(sigma), sigma, uniform(*_FILL, n, generator))
    flat = uniform(0.002, 4.0, n, generator, log=True).expand_as(sigma)
    out = torch.where(kind < 0.5, sigma * tau, torch.where(kind < 0.84, filled * tau, flat))
    wide = torch.rand(n, 1, device=sigma.device, generator=generator)
    most = torch.where(wide < 0.2, 0.0, torch.where(wide < 0.6, 0.2, 0.6))
    rho = most * torch.rand(n, 2, device=sigma.device, generator=generator)
    out = out.clamp_min(2e-5)
    return Asked(out, torch.where(kind < 0.84, torch.maximum(sigma, out), out), torch.where(kind < 0.84, rho, 0.0))


