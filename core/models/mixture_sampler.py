"""The mixture as a method: exact draws of the clean spectrum, star by star."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from core import progress
from core.models.mixture import Mixture
from core.models.observation import Observation, Reconstructor, check_draws
from core.spectrum import star_seed


@lru_cache(maxsize=2)
def _committed(unit_spread: float) -> Mixture:
    return Mixture.load(unit_spread=unit_spread)


class MixtureSampler(Reconstructor):
    """Draws from the mixture's posterior in closed form; exact for stars that are draws of the mixture.

    Args:
        unit_spread: see Mixture.
        mixture: another one than the committed.
    """

    exact = True
    draws_differ = True

    def __init__(self, unit_spread: float = 0.3, mixture: Mixture | None = None) -> None:
        self.mixture = _committed(unit_spread) if mixture is None else mixture

    def sample(self, observation: Observation, n: int, seed: int) -> Tensor:
        check_draws(n)
        progress.expect(len(observation.keys))
        out = []
        for b, key in enumerate(observation.keys):
            generator = torch.Generator().manual_seed(star_seed(key, seed, "mixture"))
            out.append(self.mixture.posterior(observation.star(b)).draw(n, generator))
            progress.tick()
        return torch.stack(out, 1).double()
