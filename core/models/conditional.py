"""The supervised networks as methods: draws of a conditional DDPM by DDIM or ancestral steps, and DnCNN's answer."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from core import progress
from core.data.grid import N_PIXELS, check_grid
from core.models.network import true_noise
from core.models.noise_seen import Seen
from core.models.observation import Observation, PointEstimate, Reconstructor, check_draws, normals
from core.models.samplers import ddim
from core.models.schedule import linear_beta, respaced
from core.models.supervised import AroundMixture, ConditionalDDPM, DnCNN
from core.spectrum import star_seed

_ROWS = 64  # draws of a star at once, or spectra through DnCNN: memory stays bounded whatever is asked for
_TOGETHER = 512  # draws at once on a GPU, of as many stars as fit


class Conditional(Reconstructor):
    """Draws from what a conditional DDPM takes for p(clean | observed): from pure noise down the T = 1000 levels.

    DDIM with eta = 0 is the default: in 50 of the 1000 steps, ancestral draws (eta = 1, published with 1000) come out a
    fifth narrower (results/study_steps.csv). A draw's noise is then its start alone.

    Args:
        net: a ConditionalDDPM, or the one that is given the mixture; seen: the noise that it was trained on.
        steps: of T = 1000, evenly respaced; eta: fresh noise at each, 0 (DDIM) to 1 (ancestral).

    Raises:
        ValueError: steps outside 2..1000, eta outside [0, 1]; from `sample`: n < 1, another grid, draws that diverged.
    """

    draws_differ = True

    def __init__(self, net: ConditionalDDPM | AroundMixture, seen: Seen, steps: int = 50, eta: float = 0.0) -> None:
        if not 0 <= eta <= 1:
            raise ValueError(f"eta is {eta}; give 0 (no fresh noise: DDIM) to 1 (ancestral).")
        alpha_bar = linear_beta()
        self.net, self.seen, self.eta, self.levels = net, seen, eta, respaced(alpha_bar, steps)
        times = torch.linspace(len(alpha_bar) - 1, 0, steps, dtype=torch.float64).round()  # as `respaced`
        self.time = dict(zip(self.levels, times.tolist(), strict=True))

    def warnings(self, observation: Observation) -> list[str]:
        return self.seen.warnings(observation)

    def sample(self, observation: Observation, n: int, seed: int) -> Tensor:
        check_draws(n)
        check_grid(observation.wave.cpu())
        device = next(self.net.net.parameters()).device
        together = 1 if device.type == "cpu" else max(1, _TOGETHER // n)  # alone on a CPU: bit for bit the same answer
        parts, chunks = -(-len(observation.keys) // together), -(-n // _ROWS)
        progress.expect(parts * chunks * len(self.levels))
        out = []
        for first in range(0, len(observation.keys), together):
            part = observation.some(first, first + together)
            y, sigma = (t.to(device) for t in true_noise(part))
            question = self.net.question(y, sigma, torch.tensor(part.noise.rho, dtype=torch.float32, device=device))
            # one generator a star and step, read on from chunk to chunk: more draws leave the first ones as they were
            steps = range(-1, len(self.levels) - 1 if self.eta > 0 else 0)
            sources = [[torch.Generator().manual_seed(star_seed(key, seed, f"supervised {i}")) for key in part.keys]
                       for i in steps]

            def fresh(i: int, rows: int, sources: list[list[torch.Generator]] = sources,
                      device: torch.device = device) -> Tensor:
                return torch.stack([normals(g, rows, N_PIXELS)[0] for g in sources[i + 1]], 1).to(device)

            for rows in (min(_ROWS, n - at) for at in range(0, n, _ROWS)):
                shown = question.condition.expand(rows, *question.condition.shape).flatten(0, 1)

                def denoise(u: Tensor, level: float, shown: Tensor = shown) -> Tensor:
                    x_t = u.flatten(0, 1) / (1 + level**2) ** 0.5
                    t = torch.full((len(x_t),), self.time[level], device=u.device)
                    return u - level * self.net.eps_given(x_t, t, shown).view(u.shape)

                given = partial(fresh, rows=rows)
                start = (1 + self.levels[0] ** 2) ** 0.5 * given(-1)  # as published, x_T ~ N(0, 1)
                u = ddim(denoise, start, self.levels, given, self.eta)
                out.append((first, (question.centre + question.scale * u).double().cpu()))
        starts = sorted({first for first, _ in out})
        return torch.cat([torch.cat([u for at, u in out if at == first]) for first in starts], 1)


class Regression(PointEstimate):
    """DnCNN: one answer.

    Args:
        net, seen: the network, and the noise that it was trained on.

    Raises:
        ValueError: from `sample`: n < 1, or another grid.
    """

    def __init__(self, net: DnCNN, seen: Seen) -> None:
        self.net, self.seen = net, seen

    def warnings(self, observation: Observation) -> list[str]:
        return self.seen.warnings(observation)

    def estimate(self, observation: Observation) -> Tensor:
        check_grid(observation.wave.cpu())
        device = next(self.net.parameters()).device
        y, sigma = (t.to(device) for t in true_noise(observation))
        parts = zip(torch.split(y, _ROWS), torch.split(sigma, _ROWS), strict=True)
        return torch.cat([self.net(*part).double().cpu() for part in parts])
