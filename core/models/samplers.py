"""Samplers: from noise to a clean spectrum by asking a denoiser at falling noise levels, whatever the denoiser is.

All are in variance-exploding form with one noise map: x_i = x0 + tau_i sigma (K z), tau falling. Noise comes in as an
argument; a sampler makes no random numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

from torch import Tensor

from core import progress
from core.models.schedule import check_levels

#: (x, tau) -> E[x0 | x0 + tau sigma (K z) = x]; any shape.
Denoise = Callable[[Tensor, float], Tensor]
#: step i -> sigma (K z_i): noise at level 1, of the shape of x.
Fresh = Callable[[int], Tensor]

_ABSURD = 1e3  # times the size of the start: no spectrum goes there


class Diverged(ValueError):  # noqa: N818 (a name that says what happened)
    """A sampler ran away; its draws are worth nothing."""


def check_state(x: Tensor, start: float, step: int) -> None:
    """Stop a sampler whose state is not finite or far larger than it began.

    Raises:
        Diverged: with the remedy.
    """
    size = float(x.detach().abs().max())
    if not size <= _ABSURD * (1 + start):  # NaN too
        raise Diverged(f"the sampler diverged at step {step} (largest value {size:.3g}); take a smaller strength or "
                       "more levels.")


def _begin(x: Tensor, levels: Sequence[float]) -> float:
    check_levels(list(levels))
    start = float(x.abs().max())
    if not math.isfinite(start):
        raise ValueError("the start holds values that are not finite; set dead pixels to any finite number.")
    return start


def _shrink(a: float, b: float) -> float:
    """1 - (b / a)^2 without losing digits between near levels."""
    return -math.expm1(-2 * math.log(a / b))


def ancestral(denoise: Denoise, x: Tensor, levels: Sequence[float], fresh: Fresh) -> Tensor:
    """x' = q x + (1 - q) d + tau' sqrt(1 - q) sigma (K z), q = (tau'/tau)^2 (Ho et al. 2020, arXiv:2006.11239, eq. 7).

    First order: what it lacks is (1 - q)^2 Var[x0 | x] at each step, so few steps are too narrow.

    Args:
        denoise: see Denoise; called once at each level.
        x: any shape, the start, noisy at levels[0].
        levels: falling, in units of the noise map; the denoiser's answer at the last is the end.
        fresh: see Fresh.

    Returns:
        The shape of x.

    Raises:
        ValueError: levels that do not fall or reach 0; a start that is not finite.
        Diverged: the state ran away.
    """
    return ddim(denoise, x, levels, fresh, eta=1.0)


def ddim(denoise: Denoise, x: Tensor, levels: Sequence[float], fresh: Fresh, eta: float = 0.0) -> Tensor:
    """x' = d + sqrt(tau'^2 - s^2) (x - d) / tau + s sigma (K z), s = eta tau' sqrt(1 - q) (Song, Meng & Ermon 2021,
    arXiv:2010.02502, eq. 12 and 16). eta = 1 is `ancestral`, 0 the ODE's first-order step.

    Arguments and errors as `ancestral`; ValueError also for eta outside [0, 1].
    """
    if not 0 <= eta <= 1:
        raise ValueError(f"eta is {eta}; give 0 (no fresh noise) to 1 (ancestral).")
    start = _begin(x, levels)
    for i, (now, then) in enumerate(pairwise(levels)):
        d = denoise(x, now)
        progress.tick()
        noise = eta * then * math.sqrt(_shrink(now, then))
        x = d + math.sqrt(then**2 - noise**2) / now * (x - d)
        if eta > 0:
            x = x + noise * fresh(i)
        check_state(x, start, i)
    d = denoise(x, levels[-1])
    progress.tick()
    return d


def heun(denoise: Denoise, x: Tensor, levels: Sequence[float], fresh: Fresh) -> Tensor:
    """Heun's step for dx/dtau = (x - D(x, tau)) / tau (Karras et al. 2022, arXiv:2206.00364, algorithm 1).

    An ODE: no fresh noise, two calls a step. Its end is a function of its start: started at an observation, every draw
    is the same.

    Arguments and errors as `ancestral`; fresh is not asked.
    """
    start = _begin(x, levels)
    for i, (now, then) in enumerate(pairwise(levels)):
        slope = (x - denoise(x, now)) / now
        tried = x + (then - now) * slope
        x = x + (then - now) / 2 * (slope + (tried - denoise(tried, then)) / then)
        progress.tick()
        check_state(x, start, i)
    d = denoise(x, levels[-1])
    progress.tick()
    return d


def multistep(denoise: Denoise, x: Tensor, levels: Sequence[float], fresh: Fresh, pull: float = 1.0) -> Tensor:
    """x' = q x + (1 - q) d + pull/2 (1 - q) (h/h_before) (d - d_before) + tau' sqrt(1 - q) sigma (K z), where h =
    log(tau/tau') and q = exp(-2 h).

    Second order (DPM-Solver++(2M) SDE: Lu et al. 2022, arXiv:2211.01095, with the SDE of its section 6). One call a
    step; the first step is of first order, so let it be short. `pull` below 1 belongs to few calls at levels made for
    it (core.models.balance).

    Arguments and errors as `ancestral`.
    """
    start = _begin(x, levels)
    before: Tensor | None = None
    h_before = 1.0
    for i, (now, then) in enumerate(pairwise(levels)):
        d = denoise(x, now)
        progress.tick()
        h, move = math.log(now / then), _shrink(now, then)
        x = (1 - move) * x + move * d + then * math.sqrt(move) * fresh(i)
        if before is not None:
            x = x + (pull / 2 * move * h / h_before) * (d - before)
        before, h_before = d, h
        check_state(x, start, i)
    d = denoise(x, levels[-1])
    progress.tick()
    return d
