"""The exact posterior: diffusion along the observation's own noise map, started at what was observed."""

from __future__ import annotations

import torch
from torch import Tensor

from core import progress
from core.data.grid import N_PIXELS, check_grid
from core.models.balance import BALANCED, Plan
from core.models.mixture import Mixture
from core.models.mixture_sampler import MixtureSampler
from core.models.network import Preconditioned, Told, true_noise
from core.models.observation import Observation, Reconstructor, check_draws, normals
from core.models.samplers import multistep
from core.spectrum import star_seed

_FILL = 0.35  # deviation [continuum] at which dead pixels are seen: far above any star's own spread, inside training
_ROWS = {"cpu": 64, "cuda": 1024}  # draws at once: memory stays bounded whatever is asked for


class NoiseMap(Reconstructor):
    """Draws from p(x0 | y), y = x0 + sigma (K z): x_tau = x0 + tau sigma (K z) is followed from tau = 1, where it *is*
    the observation, down to 0 (second-order multistep SDE; levels and pull: core.models.balance).

    Approximate are the denoiser, asked only at noise it was trained on, but with the star's place in the mixture (one
    velocity, the five likeliest components) found once from y; and the steps, whose error in width is 1 % with nine
    calls. Dead pixels start at a draw of the mixture with a deviation of .35: a measurement that says nothing. The last
    answer is a draw: the mixture's deviation at that level is put back.

    Patterns of sky and air that the observation names are drawn from the mixture's posterior and taken off, one set for
    each draw.

    Args:
        denoiser: trained, or untrained for the mixture in its stead.
        calls: of the network for each draw: 8, 9, 10, 12 or 16; last: level of the last one, .01 or .02.
        sky: the mixture that knows the patterns; the committed one by default.

    Raises:
        ValueError: a number of calls without a plan; from `sample`: n < 1, or another grid.
    """

    exact = True
    draws_differ = True
    together: int | None = None  # stars at once; by the device where None

    def __init__(self, denoiser: Preconditioned, calls: int = 9, last: float = 0.01,
                 sky: Mixture | None = None) -> None:
        if (calls, last) not in BALANCED:
            raise ValueError(f"no levels are balanced for {calls} calls to {last}; take one of "
                             f"{', '.join(f'{c} to {t}' for c, t in BALANCED)}.")
        self.denoiser, self.plan, self.sky = denoiser.eval(), BALANCED[calls, last], sky

    @property
    def device(self) -> torch.device:
        """Where the network lives."""
        return next(self.denoiser.net.parameters()).device

    def sample(self, observation: Observation, n: int, seed: int) -> Tensor:
        check_draws(n)
        check_grid(observation.wave.cpu())
        most = _ROWS[self.device.type]
        alone = self.device.type == "cpu"  # bit for bit the same answer, whoever is asked about beside it
        stars = self.together or (1 if alone else max(1, most // n))
        rows = max(1, most // min(stars, len(observation.keys)))
        groups = -(-len(observation.keys) // stars)
        progress.expect(groups * (1 + -(-n // rows) * self.plan.calls))
        parts = []
        for first in range(0, len(observation.keys), stars):
            part = observation.some(first, first + stars)
            follow = _Followed(self.denoiser, part, seed, self.device, self._sky_free(part, n, seed))
            progress.tick()
            rows = max(1, most // len(part.keys))
            chunks = [follow.draw(self.plan, min(rows, n - at)) for at in range(0, n, rows)]
            parts.append(torch.cat(chunks).double().cpu())
        return torch.cat(parts, 1)

    def _sky_free(self, observation: Observation, n: int, seed: int) -> Tensor | None:
        """(n, B, L) observations without draws of the patterns; None where there are none."""
        if not len(observation.patterns):
            return None
        if self.sky is None:
            self.sky = MixtureSampler().mixture  # one in memory for all who ask
        out = []
        for b, key in enumerate(observation.keys):
            star = observation.star(b)
            generator = torch.Generator().manual_seed(star_seed(key, seed, "exact sky"))
            out.append(star.y[0].float() - self.sky.posterior(star).draw_nuisance(n, generator))
        return torch.stack(out, 1)


class _Followed:
    """Some stars on their way from tau = 1 to 0."""

    def __init__(self, denoiser: Preconditioned, observation: Observation, seed: int, device: torch.device,
                 clean_sky: Tensor | None) -> None:
        self.y, sigma = (part.to(device) for part in true_noise(observation))
        self.clean_sky = clean_sky
        if clean_sky is not None:
            middle = clean_sky.mean(0).to(observation.y)
            observation = observation.with_y(torch.where(observation.live, middle, observation.y))
        self.seen = true_noise(observation)[0].to(device)  # without the sky: dead pixels know it no more than live ones
        self.told = Told(denoiser, observation.to(device))
        self.live = torch.isfinite(sigma)
        self.sigma = torch.where(self.live, sigma, _FILL)
        self.rho = torch.tensor(observation.noise.rho, device=device, dtype=torch.float32)
        self.taps = [torch.as_tensor(t, dtype=torch.float32, device=device)
                     for t in observation.noise.taps(observation.wave.cpu().numpy())]
        self.solved = self.told.settled.at(sigma, self.rho)
        # one generator a star and step, read on from chunk to chunk: more draws leave the first ones as they were
        self.sources = [[torch.Generator().manual_seed(star_seed(key, seed, f"exact {i}")) for key in observation.keys]
                        for i in range(32)]
        self.done = 0

    def noise(self, step: int, rows: int) -> Tensor:
        """K z, (rows, B, L)."""
        z = torch.stack([normals(source, rows, N_PIXELS + 2)[0] for source in self.sources[step]], 1).to(self.y.device)
        centre, side = self.taps
        return centre * z[..., 1:-1] + side * (z[..., :-2] + z[..., 2:])

    def unseen(self, rows: int) -> Tensor:
        """(rows, B, L) draws of the mixture, for dead pixels: joint ones, what is uncertain as a whole stays so."""
        k = self.solved[0].factors.shape[2]
        parts = [normals(source, rows, 1, k, N_PIXELS) for source in self.sources[-1]]
        u, z, white = (torch.stack([p[i] for p in parts], 1).to(self.y.device) for i in range(3))
        return self.told.settled.draw(self.seen, self.solved, (torch.special.ndtr(u[:, :, 0]), z, white))

    def draw(self, plan: Plan, rows: int) -> Tensor:
        """(rows, B, L) draws."""
        y = self.y.expand(rows, -1, -1)
        if self.clean_sky is not None:
            y = self.clean_sky[self.done : self.done + rows].to(self.y.device)
            self.done += rows
        x = torch.where(self.live, y, self.unseen(rows) + _FILL * self.noise(plan.calls, rows))
        last = plan.levels[-1]

        def denoise(x: Tensor, tau: float) -> Tensor:
            m, s = self.told.moments(x, tau * self.sigma, self.rho)
            d = self.told.owner.correct(x, tau * self.sigma, m, s, self.rho)
            return d if tau > last else d + s * self.noise(plan.calls + 1, rows)

        return multistep(denoise, x, plan.levels, lambda i: self.sigma * self.noise(i, rows), plan.pull)
