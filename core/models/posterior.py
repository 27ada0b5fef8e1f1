"""Draws from p(clean | observed) with an unconditional prior: conditioned diffusion, and DPS as published."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor

from core import progress
from core.data.grid import N_PIXELS
from core.models.conditioning import Linear, Measured, Posterior
from core.models.denoiser import Denoiser
from core.models.observation import Observation, Reconstructor, check_draws, normals
from core.models.samplers import Denoise, Diverged, Fresh, check_state, multistep
from core.models.schedule import check_levels, karras, linear_beta, respaced
from core.spectrum import star_seed

_ROWS = 512  # draws at once on a GPU, of as many stars as fit
# Where a draw is no star any more. Of 400 simulated stars (simulator seed 777, S/N 300) no clean flux left 0 to 5.02
# times the continuum and one pixel in 10,000 passed 2.4; none was further than .23 (rms) from their mean.
_RANGE = (-1.0, 4.0)
_OUTSIDE = 0.002  # share of pixels beyond it
_APART = 0.2  # [continuum] by which two stars differ, about
_FAR = 2.0  # times sqrt(sigma^2 + _APART^2), rms: further from the data than the wrong star would be
Sampler = Callable[[Denoise, Tensor, Sequence[float], Fresh], Tensor]


def check_stars(draws: Tensor, measured: Measured, remedy: str) -> None:
    """Refuse draws (n, B, L) that are finite and yet no stars: a sampler that oscillates ends anywhere.

    A draw has run away when more than .2 % of its pixels are outside -1 to 4 times the continuum where the data do not
    say so, or when the rms over live pixels of (y - A x) / sqrt(sigma^2 + .2^2) is above 2: further from the data than
    a draw that never heard of them, such as that of DPS at strength 0. Less is not noticed here: that a draw is a star
    does not make it *this* star.

    Raises:
        Diverged: any of them ran away, with how many did and the remedy.
    """
    live = measured.weight > 0
    gap = measured.residual(draws) ** 2 / (1 + (_APART * measured.weight) ** 2)
    far = (gap.sum(-1) / live.sum(-1).clamp_min(1)).sqrt()
    outside = (draws < _RANGE[0]) | (draws > _RANGE[1])
    if measured.operator.identity:  # an emission line may be higher than any star's that was simulated
        outside &= ~(live & (gap < 9))
    away = ~(far <= _FAR) | (outside.double().mean(-1) > _OUTSIDE)  # NaN too
    if bool(away.any()):
        raise Diverged(f"the draws ran away from anything a star can be ({int(away.sum())} of {away.numel()}; flux "
                       f"of {float(draws.min()):.3g} to {float(draws.max()):.3g} of the continuum) and are worth "
                       f"nothing; {remedy}.")


class _Flat(Reconstructor):
    """What a sampler from flat noise needs: star by star, chunk by chunk, each step's numbers from its own generator.

    Args:
        prior: denoiser of clean spectra at flat noise maps.
        levels: falling, flat noise in units of the continuum.
        operator: A; the identity on LAMOST's grid when None.
        chunk: draws at once, which bounds the memory.
        dtype: of the work; draws come as float64.
    """

    draws_differ = True
    purpose = "diffusion"
    remedy = "take more levels (calls), or another method"  #: where draws ran away
    checked = True  #: False gives draws whatever they are, to measure how far a method goes

    def __init__(self, prior: Denoiser, levels: Sequence[float], operator: Linear | None, chunk: int,
                 dtype: torch.dtype) -> None:
        check_levels(list(levels))
        if chunk < 1:
            raise ValueError(f"chunks of {chunk} draws; give at least 1.")
        self.prior, self.levels, self.chunk, self.dtype = prior, list(levels), chunk, dtype
        self.operator = Linear.same(N_PIXELS) if operator is None else operator
        self.needs_identity = self.operator.identity

    def sample(self, observation: Observation, n: int, seed: int) -> Tensor:
        check_draws(n)
        if observation.y.shape[1] != self.operator.outputs:
            raise ValueError(f"spectra of {observation.y.shape[1]} pixels; this method takes {self.operator.outputs}: "
                             "bring them onto that grid (core.data.grid.prepare).")
        device = next((t.device for t in self.prior.state_dict().values()), torch.device("cpu"))
        together = 1 if device.type == "cpu" else max(1, _ROWS // n)  # alone on a CPU: bit for bit the same answer
        progress.expect(-(-len(observation.keys) // together) * -(-n // self.chunk) * len(self.levels))
        out = []
        for first in range(0, len(observation.keys), together):
            part = observation.some(first, first + together)
            # one generator a star and step, read on from chunk to chunk: more draws leave the first ones as they were
            sources = [[torch.Generator().manual_seed(star_seed(key, seed, f"{self.purpose} {i}")) for key in part.keys]
                       for i in range(len(self.levels))]

            def fresh(i: int, rows: int, sources: list[list[torch.Generator]] = sources) -> Tensor:
                return torch.stack([normals(g, rows, self.operator.inputs)[0] for g in sources[i + 1]], 1).to(
                    device, self.dtype)

            with torch.inference_mode(False), torch.no_grad():  # what is made here is differentiated through
                prior = self.prior.told(part.to(device))
                measured = Measured.of(part, self.operator, self.dtype).to(device)
            sizes = [min(self.chunk, n - at) for at in range(0, n, self.chunk)]
            drawn = []
            for r in sizes:
                drawn.append(self._chunk(prior, measured, partial(fresh, rows=r), (r, len(part.keys))).double())
                if self.checked:
                    check_stars(drawn[-1], measured, self.remedy)
            out.append(torch.cat(drawn).cpu())
        return torch.cat(out, 1)

    @abstractmethod
    def _chunk(self, prior: Denoiser, measured: Measured, fresh: Fresh, shape: tuple[int, int]) -> Tensor:
        """(rows, stars, L) draws; fresh(-1) is the start's noise, fresh(i) step i's."""


class Diffusion(_Flat):
    """A prior's denoiser, a condition and a sampler: reverse diffusion with E[x0 | x, y] in place of E[x0 | x]
    (Rozet et al. 2024, arXiv:2405.13712, section 3).

    Starts at levels[0] around the posterior mean (the answer to an x that says nothing), which leaves out the
    posterior's own spread: levels[0] is to be large beside it summed over pixels, sqrt(N) w for N dead pixels that are
    uncertain together by w. Started at 1, stars with a dead blue end came out at the wrong level (rms 1.5 times too
    large).

    Args:
        condition: Product, PiGDM, MMPS, or any (prior, measured) -> Denoiser.
        sampler: of core.models.samplers.
        prior, levels, operator, chunk, dtype: as above; by default 20 levels from 10 to .001.

    Raises:
        ValueError: levels that do not fall, a chunk below 1; from `sample`: n < 1, another grid, a condition that does
            not fit (blur or correlated noise with Product), a sampler that diverged or draws that ran away.
    """

    def __init__(self, prior: Denoiser, condition: Callable[[Denoiser, Measured], Denoiser],
                 sampler: Sampler = multistep, levels: Sequence[float] | None = None, operator: Linear | None = None,
                 chunk: int = 64, dtype: torch.dtype = torch.float32) -> None:
        super().__init__(prior, karras(10.0, 1e-3, 20) if levels is None else levels, operator, chunk, dtype)
        self.condition, self.sampler = condition, sampler
        self.exact = isinstance(condition, type) and issubclass(condition, Posterior) and condition.exact

    def _chunk(self, prior: Denoiser, measured: Measured, fresh: Fresh, shape: tuple[int, int]) -> Tensor:
        posterior = self.condition(prior, measured)
        one = torch.ones(1, shape[1], self.operator.inputs, dtype=self.dtype, device=measured.y.device)

        def denoise(x: Tensor, tau: float) -> Tensor:
            return posterior(x, tau * one)

        centre = denoise(one, 10 * self.levels[0])
        check_state(centre, 1.0, 0)
        return self.sampler(denoise, centre + self.levels[0] * fresh(-1), self.levels, fresh)


class DPS(_Flat):
    """Diffusion posterior sampling (Chung et al. 2023, arXiv:2209.14687, algorithm 1, section 3.3): ancestral DDPM
    steps, and in each x' <- x' - zeta_t grad_x ||r||^2, r = (y - A x0_hat(x)) / (s sigma), zeta_t = zeta / ||r||.

    It puts x0_hat for x0 in the likelihood, which no strength mends: on a prior whose posterior is known no zeta gives
    both the right mean and the right width (results/laboratory.csv). Kept because it is what others use.
    Written in variance-exploding form: grad and step are those of x_t = sqrt(alpha_bar_t) x.

    Args:
        strength: zeta, >= 0.
        normed: zeta / ||r|| as published; False for zeta itself.
        steps: of T = 1000, evenly respaced; 1000 as published.
        centre, unit: of the variables u = (x - centre) / unit in which the prior was trained with T = 1000 levels.
        prior, operator, chunk, dtype: as in Diffusion. Correlation of the noise is ignored, as published.

    Raises:
        ValueError: strength negative or not finite, steps outside 2..1000; from `sample`: as Diffusion.
    """

    purpose = "dps"
    remedy = "take a smaller strength, or more steps"

    def __init__(self, prior: Denoiser, strength: float = 1.0, normed: bool = True, steps: int = 100,
                 operator: Linear | None = None, chunk: int = 64, dtype: torch.dtype = torch.float32,
                 centre: Tensor | None = None, unit: float = 1.0) -> None:
        if not (strength >= 0 and math.isfinite(strength)):
            raise ValueError(f"guidance strength is {strength}; give 0 (no guidance) or a positive number, 0.3 to 1 in "
                             "the paper.")
        super().__init__(prior, [unit * level for level in respaced(linear_beta(), steps)], operator, chunk, dtype)
        self.strength, self.normed, self.unit = strength, normed, unit
        self.centre = torch.zeros(()) if centre is None else centre

    def _chunk(self, prior: Denoiser, measured: Measured, fresh: Fresh, shape: tuple[int, int]) -> Tensor:
        one = torch.ones(1, shape[1], self.operator.inputs, dtype=self.dtype, device=measured.y.device)
        unit = self.unit
        # alpha_bar_T is not quite 0; as published, x_T ~ N(0, 1) takes it for 0
        x = self.centre.to(one) + fresh(-1) * math.sqrt(unit**2 + self.levels[0] ** 2)
        start = float(x.abs().max())
        for i, (now, then) in enumerate(pairwise([*self.levels, 0.0])):
            d, gradient = self._guide(prior, measured, x, now * one)
            q = (then / now) ** 2
            x = q * x + (1 - q) * d
            if then > 0:
                x = x + then * math.sqrt(1 - q) * fresh(i)
            # u_vp' = sqrt(ab') u', grad_vp = grad / sqrt(ab), 1 / ab = 1 + (sigma / unit)^2, u = (x - centre) / unit
            progress.tick()
            x = x - self.strength * math.sqrt((unit**2 + now**2) * (unit**2 + then**2)) * gradient
            check_state(x, start, i)
        return x

    def _guide(self, prior: Denoiser, measured: Measured, x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """x0_hat and grad_x of ||r||^2, divided by ||r|| when normed, each (rows, stars, L)."""
        with torch.inference_mode(False), torch.enable_grad():
            at = x.detach().clone().requires_grad_()
            d = prior(at, sigma.clone())
            size = (measured.residual(d) ** 2).sum(-1, keepdim=True)
            gradient = torch.autograd.grad(size.sum(), at)[0]
        if self.normed:
            gradient = gradient / size.detach().sqrt().clamp_min(torch.finfo(x.dtype).tiny)
        return d.detach(), gradient
