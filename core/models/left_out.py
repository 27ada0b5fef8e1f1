"""What a star's prior says of each pixel once its neighbourhood is left out: the measure of what was measured there."""

from __future__ import annotations

import torch
from torch import Tensor

from core.models.star_posterior import Pair, StarPosterior, pooled

HALF = 10  #: pixels left out on either side: half the band of H-alpha, the widest line that is measured
_BLOCK = 480  # pixels at a time: their windows of factors need 20 MB


def left_out_variance(posterior: StarPosterior, half: int = HALF) -> Tensor:
    """(L,) variance of the clean flux of each pixel, had the pixels within `half` of it not been measured.

    The mixture's law of total variance over components, scales and velocities as the whole star weighs them; within
    each, factors t ~ N(c, A^-1) become N(c', (A - G_W' G_W)^-1) without the whitened rows G_W of the window, so that
    with u = A^-1/2 g and z = A^-1/2 f (Woodbury) f' A^-1 f grows by (U_W z)' (I - U_W U_W')^-1 (U_W z); the residual
    has its prior variance again. What the noise and the residual correlate across the window's edge is not undone,
    which matters less than the window is long.

    Args:
        posterior: of one star; half: pixels left out on either side, at least 0.

    Raises:
        ValueError: a negative window.
    """
    if half < 0:
        raise ValueError(f"a window of {half} pixels on either side; give at least 0.")
    parts = posterior.parts()
    return pooled(parts, [_within(part.best, half) for part in parts])[1]


def _within(pair: Pair, half: int) -> Tensor:
    """(L,) the variance within one pair."""
    pixels = len(pair.factors)
    inverse = torch.linalg.solve_triangular(pair.cholesky.double(), torch.eye(len(pair.cholesky)).double(), upper=False)
    own = pair.factors.double()
    own[:, pair.signal :] = 0.0  # a pattern of the sky is not the star's
    z = own @ inverse.T
    u = pair.noise.half(pair.factors)[:pixels].double() @ inverse.T
    u = torch.nn.functional.pad(u, (0, 0, half, half))
    out = torch.empty(pixels, dtype=torch.float64)
    eye = torch.eye(2 * half + 1, dtype=torch.float64)
    for first in range(0, pixels, _BLOCK):
        part = slice(first, min(first + _BLOCK, pixels))
        window = u[first : part.stop + 2 * half].unfold(0, 2 * half + 1, 1)  # (n, k, 2 half + 1)
        c = (window * z[part, :, None]).sum(1)
        # the data outside never say nothing: A - G_W' G_W holds the prior's own identity
        more = torch.linalg.solve(eye - window.mT @ window, c[:, :, None])[:, :, 0]
        out[part] = (z[part] ** 2).sum(1) + (c * more).sum(1)
    return out + pair.noise.residual.double()
