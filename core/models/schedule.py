"""Noise levels: where a sampler asks the denoiser, and the way between variance-preserving and -exploding form."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor


def linear_beta(steps: int = 1000, first: float = 1e-4, last: float = 0.02) -> Tensor:
    """alpha_bar_t = prod (1 - beta_s), beta linear (Ho, Jain & Abbeel 2020, arXiv:2006.11239, section 4).

    Args:
        steps: T; first, last: beta_1 and beta_T.

    Returns:
        (T,) float64, falling.

    Raises:
        ValueError: no steps, or betas outside (0, 1).
    """
    if steps < 1:
        raise ValueError(f"{steps} steps asked for; give at least 1.")
    if not 0 < first <= last < 1:
        raise ValueError(f"beta from {first} to {last}; give 0 < first <= last < 1.")
    return (1 - torch.linspace(first, last, steps, dtype=torch.float64)).cumprod(0)


def cosine(steps: int = 1000, offset: float = 0.008) -> Tensor:
    """alpha_bar_t = f(t) / f(0), f = cos^2((t/T + s)/(1 + s) pi/2), beta at most .999 (Nichol & Dhariwal 2021,
    arXiv:2102.09672, eq. 17).

    Returns:
        (T,) float64, falling.

    Raises:
        ValueError: no steps.
    """
    if steps < 1:
        raise ValueError(f"{steps} steps asked for; give at least 1.")
    t = torch.arange(steps + 1, dtype=torch.float64) / steps
    f = torch.cos((t + offset) / (1 + offset) * math.pi / 2) ** 2
    return (f[1:] / f[:-1]).clamp_min(1e-3).cumprod(0)


def sigma_of(alpha_bar: Tensor) -> Tensor:
    """Noise of the variance-exploding form, sqrt((1 - alpha_bar) / alpha_bar): x_ve = x_vp / sqrt(alpha_bar)."""
    return ((1 - alpha_bar) / alpha_bar).sqrt()


def alpha_bar_of(sigma: Tensor) -> Tensor:
    """The inverse of `sigma_of`: 1 / (1 + sigma^2); x_vp = sqrt(alpha_bar) x_ve."""
    return 1 / (1 + sigma**2)


def geometric(first: float, last: float, n: int) -> list[float]:
    """n levels from first to last, each the same fraction of the one before (Song & Ermon 2019, arXiv:1907.05600).

    Raises:
        ValueError: fewer than 2 levels, or not first > last > 0.
    """
    _check(first, last, n)
    return [first * (last / first) ** (i / (n - 1)) for i in range(n)]


def karras(first: float, last: float, n: int, rho: float = 7.0) -> list[float]:
    """n levels equally spaced in sigma^(1/rho) (Karras et al. 2022, arXiv:2206.00364, eq. 5).

    Raises:
        ValueError: fewer than 2 levels, not first > last > 0, or rho not positive.
    """
    _check(first, last, n)
    if not rho > 0:
        raise ValueError(f"rho is {rho}; give a positive number, 7 as published.")
    a, b = first ** (1 / rho), last ** (1 / rho)
    return [(a + i / (n - 1) * (b - a)) ** rho for i in range(n)]


def respaced(alpha_bar: Tensor, n: int) -> list[float]:
    """n levels sigma, falling, of a trained schedule: its last step first, evenly spaced in t (Nichol & Dhariwal 2021,
    section 4). All of them for n = T.

    Raises:
        ValueError: n outside 2..T.
    """
    if not 2 <= n <= len(alpha_bar):
        raise ValueError(f"{n} steps of a schedule of {len(alpha_bar)}; give 2 to {len(alpha_bar)}.")
    at = torch.linspace(len(alpha_bar) - 1, 0, n, dtype=torch.float64).round().long()
    return [float(s) for s in sigma_of(alpha_bar[at])]


def check_levels(levels: list[float] | tuple[float, ...]) -> None:
    """Refuse levels that do not fall, or end at 0.

    Raises:
        ValueError: with the fact and the remedy.
    """
    if not levels or not all(math.isfinite(t) and t > 0 for t in levels):
        raise ValueError(f"levels are {list(levels)}; give finite numbers above 0: the denoiser's answer at the last "
                         "one is the end.")
    if any(b >= a for a, b in pairwise(levels)):
        raise ValueError("levels do not fall; sort them from the noisiest to the last.")


def _check(first: float, last: float, n: int) -> None:
    if n < 2:
        raise ValueError(f"{n} levels asked for; give at least 2.")
    if not (math.isfinite(first) and first > last > 0):
        raise ValueError(f"levels from {first} to {last}; give first > last > 0.")
