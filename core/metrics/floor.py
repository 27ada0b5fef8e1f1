"""The Bayes floor: how well anybody could do, given the noise and the simulator; every error is quoted over it.

It stands between two bounds that hold in expectation over stars whatever the chains' mixing (the idea is that of
Grosse, Ghahramani & Adams 2015, arXiv:1511.02543): the truth is itself a draw of the posterior, so the variance among
walkers that start there is at most the posterior's; and what walkers that never heard of the truth find is an estimate
like any other, whose error is at least the floor.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from core.metrics.guide import Guide
from core.spectrum import Array


@dataclass(frozen=True, eq=False)
class Chain:
    """What one group of walkers saw: states (steps, w, d + 1), spectra (steps, w, L) with the mean of their linear
    nuisances, and with a draw of them; taken: share of proposals accepted."""

    states: Array
    means: Array
    draws: Array
    taken: float


def chain(guide: Guide, start: Array, rng: np.random.Generator, steps: int = 7, keep: int = 4,
          inner: tuple[int, ...] = (30,)) -> Chain:
    """Walkers under the exact posterior: cheap moves propose, the exact density decides (Christen & Fox 2005).

    Whatever the quadratic's error the posterior is kept, so walkers that start at a draw of it (the truth is one)
    remain draws of it; the error costs acceptance alone.

    Args:
        start: (w, d + 1) states.
        keep: of the steps, the last so many are returned.
        inner: cheap moves before each step, in turn; few leave a place where the quadratic errs more easily than many.
    """
    q = guide.question
    state, cheap = start, guide.density(start)
    spectra = q.spectra(state)
    exact = guide.exact(state, spectra)
    out: list[tuple[Array, Array, Array]] = []
    taken = 0.0
    for step in range(steps):
        there, cheap_new = guide.moves.run(state, inner[step % len(inner)], rng)
        spectra_new = q.spectra(there)
        exact_new = guide.exact(there, spectra_new)
        with np.errstate(invalid="ignore"):
            take = np.log(rng.random(len(state))) < exact_new - exact - cheap_new + cheap
        state, spectra = np.where(take[:, None], there, state), np.where(take[:, None], spectra_new, spectra)
        cheap, exact = np.where(take, cheap_new, cheap), np.where(take, exact_new, exact)
        taken += float(take.mean()) / steps
        if step >= steps - keep:
            z = rng.standard_normal((len(state), guide.marginal.k))
            mean, drawn, _ = guide.marginal.restore(spectra, z)
            out.append((state, mean, drawn))
    states, means, draws = (np.stack(x) for x in zip(*out, strict=True))
    return Chain(states, means, draws, taken)


@dataclass(frozen=True, eq=False)
class Floor:
    """Mean square error of the best estimate of some numbers (...) of one star.

    Args:
        lower: variance among walkers that started at the truth, at a same step: at most the floor, in expectation.
        width: variance of the walkers from the data alone: the floor, where they have mixed.
        error: squared error of those walkers' mean: at least the floor, in expectation.
        ess: independent draws behind that mean, the least of all numbers': error is width (1 + 1 / ess).
    """

    lower: Array
    width: Array
    error: Array
    ess: float


def bracket(free: Array, told: Array, truth: npt.ArrayLike) -> Floor:
    """The floor of numbers of one star between its bounds.

    The variance is taken among walkers at one step and averaged over steps: two walkers from one draw are each other's
    neighbours at twice the lag, so it falls short of the posterior's by no more than their correlation at that lag.

    Args:
        free: (steps, w, ...) values of walkers from the data alone; told: the same of those from the truth.
        truth: (...).

    Raises:
        ValueError: fewer than two walkers, or shapes that disagree.
    """
    free, told, truth = (np.asarray(x, dtype=np.float64) for x in (free, told, truth))
    if free.shape[2:] != truth.shape or told.shape[2:] != truth.shape or min(free.shape[1], told.shape[1]) < 2:
        raise ValueError(f"walkers {free.shape} and {told.shape}, truth {truth.shape}; give (steps, w >= 2, ...) twice "
                         "and (...).")
    width = free.reshape(-1, *truth.shape).var(axis=0, ddof=1)
    between = free.mean(axis=0).var(axis=0, ddof=1)
    ess = free.shape[1] * width / np.maximum(between, 1e-300)
    worth = float(np.clip(ess.min(), 1.0, free.shape[0] * free.shape[1]))
    return Floor(told.var(axis=1, ddof=1).mean(axis=0), width, (free.mean(axis=(0, 1)) - truth) ** 2, worth)

@dataclass(frozen=True)
class Rho:
    """RMSE over the floor's: 1 = nothing left to gain. `error` by bootstrap over stars; `failed` stars had no floor."""

    value: float
    error: float
    used: int
    failed: int


def rho(rmse: npt.ArrayLike, floor: npt.ArrayLike, ok: npt.ArrayLike, rng: np.random.Generator,
        rounds: int = 1000) -> Rho:
    """sqrt(mean rmse^2 / mean floor^2) over the stars whose floor held, and their bootstrap error (Efron 1979).

    Args:
        rmse: (n,) a method's root mean square error of each star.
        floor: (n,) the root of the posterior's mean variance of the same quantity, for the same stars.
        ok: (n,) `Floor.ok`.

    Raises:
        ValueError: lengths that disagree, fewer than two stars with a floor, or values that are not finite
            or a floor that is not positive among them.
    """
    a, b, use = np.asarray(rmse, float), np.asarray(floor, float), np.asarray(ok, bool)
    if not a.shape == b.shape == use.shape or a.ndim != 1 or use.sum() < 2:
        raise ValueError(f"shapes {a.shape}, {b.shape}, {use.shape}, {int(use.sum())} with a floor; give three of "
                         "(n,) with at least two stars that have one.")
    top, bottom = a[use] ** 2, b[use] ** 2
    if not (np.isfinite(top).all() and np.isfinite(bottom).all() and (bottom > 0).all()):
        raise ValueError("an error is not finite or a floor is not positive; leave such stars out by ok = False.")
    pick = rng.integers(len(top), size=(rounds, len(top)))
    again = np.sqrt(top[pick].mean(axis=1) / bottom[pick].mean(axis=1))
    return Rho(float(np.sqrt(top.mean() / bottom.mean())), float(again.std(ddof=1)), len(top), int((~use).sum()))
