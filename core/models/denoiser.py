"""Denoiser: the one signature behind every diffusion model here, E[x0 | x0 + sigma (K z) = x]."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from core.models.observation import Observation


class Denoiser(nn.Module, ABC):
    """D(x, sigma) = E[x0 | x], x = x0 + sigma (K z), z ~ N(0, I), sigma a map: one number for each pixel.

    A posterior denoiser E[x0 | x, y] is again a Denoiser (Rozet et al. 2024, arXiv:2405.13712, section 3), which is why
    samplers know nothing else.
    """

    @abstractmethod
    def forward(self, x: Tensor, sigma: Tensor, rho: Tensor | None = None) -> Tensor:
        """The posterior mean of the clean spectrum.

        Args:
            x: (..., B, L) noisy spectra, in units of the continuum.
            sigma: broadcasts to x, the true deviation of the noise, > 0; infinite where x says nothing.
            rho: (2,) or (B, 2) lag-1 correlation of the noise in the blue and the red arm (core.spectrum.Kernel);
                white noise when None.

        Returns:
            (..., B, L), of x's dtype.

        Raises:
            ValueError: sigma that does not fit x, not positive or NaN.
        """

    def told(self, observation: Observation) -> Denoiser:
        """The same denoiser, free to compute once what all draws given this observation share; itself by default."""
        return self


def check_noise(x: Tensor, sigma: Tensor) -> None:
    """Refuse a noise map that does not fit.

    Raises:
        ValueError: with the fact and the remedy.
    """
    try:
        shape = torch.broadcast_shapes(x.shape, sigma.shape)  # type: ignore[no-untyped-call]
    except RuntimeError:
        shape = torch.Size()
    if shape != x.shape:
        raise ValueError(f"sigma of shape {tuple(sigma.shape)} does not fit x of {tuple(x.shape)}; give one number for "
                         "each pixel, or one that broadcasts.")
    if not (sigma > 0).all():  # NaN too
        raise ValueError("sigma is not positive everywhere; give deviations above 0, infinite in dead pixels.")
