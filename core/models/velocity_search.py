"""A coarse, fast look at which components and velocities of a mixture an observation allows."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from core.data.grid import C_KMS, N_PIXELS, STEP
from core.data.instrument import MARGIN, MAX_VELOCITY
from core.models.observation import Observation

REDUCED = 12  # leading factors of each component that the search uses; what the others hold counts as noise
FAR = 12.0  # log evidence below the best at which a component or velocity is dropped: 6e-6 of its weight
MOST = 4  # components kept at most
_COARSE, _FINE = 35.0, 7.0  # km/s between nodes of the first and the second look


def pixels_of(velocity: Tensor | float) -> Tensor:
    """Shift [pixels of the grid] of a radial velocity [km/s], relativistic; same shape."""
    beta = torch.as_tensor(velocity, dtype=torch.float64) / C_KMS
    return torch.log10((1 + beta) / (1 - beta)) / 2 / STEP


def velocity_log_prior(velocity: Tensor) -> Tensor:
    """Log density of heliocentric velocities [km/s]: 92 % disk (50 km/s), 8 % halo and fast movers (180 km/s)."""
    disk = 0.92 / 50 * torch.exp(-0.5 * (velocity / 50) ** 2)
    halo = 0.08 / 180 * torch.exp(-0.5 * (velocity / 180) ** 2)
    return torch.log((disk + halo) / np.sqrt(2 * np.pi))


class VelocitySearch:
    """Approximate log p(y, j, v) for all components j and many velocities v with one matrix product.

    For each component the products of its mean and leading factors are kept, pixel by pixel; a Gram matrix at
    velocity v
    is then those products times the shifted weights. Here, and only here, the data are shifted (linearly), for
    they are one row
    and the prior is thousands; the result only says where the exact posterior is worth computing.

    Args:
        log_weight: (J,); mean: (J, L + 2 margin); factors: (J, k, L + 2 margin); residual: (J, L + 2 margin).
    """

    def __init__(self, log_weight: Tensor, mean: Tensor, factors: Tensor, residual: Tensor) -> None:
        self.log_weight = log_weight.double()
        _, scale, vectors = torch.linalg.svd(factors, full_matrices=False)
        q = min(REDUCED, factors.shape[1])
        lead = scale[:, :q, None] * vectors[:, :q]
        rest = (factors**2).sum(1) - (lead**2).sum(1) + residual
        self.rest = (log_weight.exp()[:, None] * rest).sum(0)[MARGIN : MARGIN + N_PIXELS]
        self.rows = torch.cat([mean[:, None], lead], 1)
        self.pairs = torch.tril_indices(q + 1, q + 1)
        self.products = self.rows[:, self.pairs[0]] * self.rows[:, self.pairs[1]]

    def log_evidence(self, observation: Observation, velocity: Tensor, keep: Tensor) -> Tensor:
        """(len(keep), V) approximate log p(y, j, v) up to a constant, of one star, as if its noise were white."""
        y = observation.y[0].float()
        scale = torch.as_tensor(observation.noise.scales(observation.wave.numpy()), dtype=torch.float32)
        ivar = observation.ivar[0].float() / scale**2
        flat = ivar / (1 + ivar * self.rest)
        at = torch.arange(-MARGIN, N_PIXELS + MARGIN, dtype=torch.float64)[:, None] + pixels_of(velocity.double())
        low = at.floor().long()
        t = (at - low).float()

        def moved(a: Tensor) -> Tensor:
            padded = torch.nn.functional.pad(a, (64, 64))
            return (1 - t) * padded[low + 64] + t * padded[low + 65]

        weight, product = moved(flat), moved(flat * y)
        n, q = len(keep), self.rows.shape[1]
        flat_pairs = (self.products[keep].flatten(0, 1) @ weight).view(n, -1, len(velocity)).double()
        linear = (self.rows[keep].flatten(0, 1) @ product).view(n, q, len(velocity)).double().transpose(1, 2)
        gram = torch.zeros(n, len(velocity), q, q, dtype=torch.float64)
        gram[:, :, self.pairs[0], self.pairs[1]] = flat_pairs.transpose(1, 2)
        gram[:, :, self.pairs[1], self.pairs[0]] = flat_pairs.transpose(1, 2)
        h = linear[..., 1:] - gram[..., 0, 1:]
        chol = torch.linalg.cholesky(gram[..., 1:, 1:] + torch.eye(q - 1, dtype=torch.float64))
        u = torch.linalg.solve_triangular(chol, h[..., None], upper=False)[..., 0]
        quadratic = gram[..., 0, 0] - 2 * linear[..., 0] - (u**2).sum(-1)
        log_det = 2 * chol.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        return self.log_weight[keep, None] + velocity_log_prior(velocity.double()) - 0.5 * (quadratic + log_det)

    def candidates(self, observation: Observation) -> tuple[list[int], Tensor]:
        """Components worth computing, best first, and the velocities [km/s] worth looking at, rising."""
        every = torch.arange(len(self.log_weight))
        coarse = torch.arange(-MAX_VELOCITY + 10, MAX_VELOCITY - 9, _COARSE)
        first = self.log_evidence(observation, coarse, every)
        near = coarse[(first.max(0).values > first.max() - FAR)]
        steps = torch.arange(-_COARSE, _COARSE + 1, _FINE)
        fine = torch.unique((near[:, None] + steps).clamp(-MAX_VELOCITY, MAX_VELOCITY))
        order = first.max(1).values.argsort(descending=True)
        # a component that the coarse nodes put far behind may gain at the right velocity: keep a few more
        # for the second look
        some = order[first.max(1).values[order] > first.max() - 4 * FAR][: 2 * MOST]
        second = self.log_evidence(observation, fine, some)
        best = second.max(1).values
        rank = best.argsort(descending=True)
        keep = some[rank[best[rank] > best.max() - FAR]][:MOST]
        return keep.tolist(), fine[second.max(0).values > second.max() - FAR]
