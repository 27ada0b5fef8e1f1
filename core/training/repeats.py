"""Option A: pairs of two real observations of one star in training, with the noise of both members accounted for."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from core.data.pairs import Pairs


@dataclass(frozen=True)
class Members:
    """Pairs as a network is trained on them, each (n, L).

    Args:
        truth: what stands for the clean star; left: the deviation of its own noise: 0 where it is clean, infinite where
            nothing is known of it.
        y, sigma: the observation and the deviation of its noise, infinite where nothing was measured (y is 1 there).
    """

    truth: Tensor
    left: Tensor
    y: Tensor
    sigma: Tensor

    def rows(self, index: Tensor) -> Members:
        """The pairs named by an index."""
        return Members(self.truth[index], self.left[index], self.y[index], self.sigma[index])

    def followed(self, other: Members) -> Members:
        """These pairs and then those."""
        parts = ((getattr(self, k), getattr(other, k)) for k in ("truth", "left", "y", "sigma"))
        return Members(*(torch.cat(pair) for pair in parts))


def members(pairs: Pairs, device: torch.device) -> Members:
    """Repeat observations as training takes them; deviations are the true ones (quoted times the kernel's scale).

    The better member was resampled: its noise is a tenth stronger at most, and correlated (core.data.pairs.align);
    training takes it for white.
    """

    def deviation(which: str) -> Tensor:
        one = getattr(pairs, which)
        return torch.tensor(one.sigma * one.noise.scales(one.wave), dtype=torch.float32, device=device)

    flux = {which: torch.tensor(getattr(pairs, which).flux, dtype=torch.float32, device=device)
            for which in ("noisy", "clean")}
    left, sigma = deviation("clean"), deviation("noisy")
    return Members(torch.where(torch.isfinite(left), flux["clean"], 1.0), left,
                   torch.where(torch.isfinite(sigma), flux["noisy"], 1.0), sigma)


def first_step(own: Tensor, level: Tensor, share: float = 0.9) -> Tensor:
    """(n,) the first step of a diffusion whose noise is above that of the better member in nine of ten pixels.

    Below it that member says nothing about the star: what it holds there is its own noise.

    Args:
        own: (n, L) deviation of that noise in units of u, infinite where nothing is known; level: (T,) rising noise of
            each step in the same units.
    """
    known = torch.where(torch.isfinite(own), own, torch.nan)
    worst = torch.nanquantile(known, share, 1).nan_to_num(torch.inf)
    return torch.searchsorted(level.float().contiguous(), worst.float().contiguous()).clamp_max(len(level) - 1)


def between(own: Tensor, level: Tensor) -> Tensor:
    """(n, L) share w of a step's variance that is added where u already holds noise of deviation `own`.

    x_t = sqrt(abar) (u + own n) + sqrt(1 - abar) sqrt(w) z then holds the noise of step t, whatever the member's own
    was, and E[z | x_t] = sqrt(w) E[all of its noise | x_t]: z tells a network about the star without its ever seeing
    a clean one (Daras et al. 2024, arXiv:2404.10177, section 3). 0 where own is the larger: such a pixel tells nothing.

    Args:
        level: (n, 1) noise of the step in units of u.
    """
    return (1 - (own / level) ** 2).clamp_min(0.0)
