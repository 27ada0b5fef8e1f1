"""Ranks of truths among draws, and whether they are uniform: histogram, ECDF with simultaneous bands, p-value."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import gammaln

from core.spectrum import Array

Ranks = npt.NDArray[np.int64]

_POINTS = 200  # points of the ECDF at most: more cost time and, points so near being all but one, find nothing


def rank_of(draws: npt.ArrayLike, truth: npt.ArrayLike, rng: np.random.Generator) -> Ranks:
    """Number of draws below the truth, ties broken at random: uniform on 0..n when both come from one posterior.

    Talts et al. 2018 (arXiv:1804.06788), theorem 1.

    Args:
        draws: (n, ...) in any unit.
        truth: (...) in the same unit.
        rng: breaks the ties, as of a line that is absent from draw and truth alike.

    Returns:
        (...) integers in 0..n.

    Raises:
        ValueError: no draws, shapes that disagree, a draw or a truth that is not finite.
    """
    draws, truth = np.asarray(draws, dtype=np.float64), np.asarray(truth, dtype=np.float64)
    if draws.ndim < 1 or draws.shape[0] < 1:
        raise ValueError("there are no draws to rank a truth among; give (draws, ...) with at least one draw.")
    if draws.shape[1:] != truth.shape:
        raise ValueError(f"truth has shape {truth.shape}; it must be {draws.shape[1:]}, that of one draw.")
    finite("draws", draws)
    finite("truth", truth)
    ties = (draws == truth).sum(0)
    return np.asarray((draws < truth).sum(0) + rng.integers(0, ties + 1), dtype=np.int64)


def pit(rank: npt.ArrayLike, n: npt.ArrayLike) -> Array:
    """Probability integral transform in (0, 1): the middle (rank + 1/2) / (n + 1) of the rank's cell; shape of rank.

    Raises:
        ValueError: zero draws, ranks that are no whole numbers in 0..n.
    """
    ranks, draws = checked(rank, n)
    return np.asarray((ranks + 0.5) / (draws + 1))


def rank_histogram(rank: npt.ArrayLike, n: int, bins: int = 20) -> pd.DataFrame:
    """Histogram of ranks: low, high (ranks, both inside), count, expected, error (binomial, of one bin alone).

    Bins hold whole ranks, so they may differ by one rank in width; `expected` knows.

    Raises:
        ValueError: zero draws, ranks out of range, no bins.
    """
    ranks, _ = checked(rank, n)
    if bins < 1:
        raise ValueError(f"{bins} bins hold nothing; give at least one.")
    edges = _edges(n, bins)
    p = np.diff(edges) / (n + 1)
    return pd.DataFrame({"low": edges[:-1], "high": edges[1:] - 1, "count": np.histogram(ranks, edges - 0.5)[0],
                         "expected": ranks.size * p, "error": np.sqrt(ranks.size * p * (1 - p))})


def ecdf(rank: npt.ArrayLike, n: int) -> tuple[Array, Array]:
    """z (K,) and the share of stars whose rank cell ends at or below z, (K,): the curve that `ecdf_band` is for.

    Raises:
        ValueError: zero draws, ranks out of range.
    """
    ranks, _ = checked(rank, n)
    edges = _edges(n, _cells(ranks.size, n))[1:-1]
    return edges / (n + 1), np.searchsorted(np.sort(ranks), edges) / ranks.size


def ecdf_band(n_stars: int, n_draws: int, level: float = 0.95) -> tuple[Array, Array, Array]:
    """Band that holds the whole ECDF of uniform ranks with probability >= level (equal but for the counts' steps).

    Sailynoja, Burkner & Vehtari 2022 (Stat. Comput. 32, 32; arXiv:2103.10522): at each point the band is a binomial
    interval of level 1 - gamma, and one gamma is found for all points together. Here, in place of their recursion, from
    the same chain of counts written as a Poisson process that is conditioned on its total: exact, and each step a
    convolution.

    Args:
        n_stars: number of ranks.
        n_draws: draws each rank is among.
        level: probability in (0, 1) that a perfect posterior's curve stays inside everywhere.

    Returns:
        z, low, high, each (K,): edges of rank cells over n_draws + 1 (at most 200 of them) and the lowest and highest
        share of stars below that lie inside the band.

    Raises:
        ValueError: no stars, zero draws, a level outside (0, 1).
    """
    (share,) = probabilities([level])
    if n_stars < 1 or n_draws < 1:
        raise ValueError(f"{n_stars} stars with {n_draws} draws have no ranks; give at least one of each.")
    low, high = _band(int(n_stars), int(n_draws), float(share))
    return _edges(n_draws, _cells(n_stars, n_draws))[1:-1] / (n_draws + 1), low / n_stars, high / n_stars


def uniformity(rank: npt.ArrayLike, n: npt.ArrayLike) -> float:
    """p-value of uniform ranks: probability that their ECDF strays at least as far, in the sense of `ecdf_band`.

    Exact for independent stars (discrete: P(p <= a) <= a). At most 1 - level if and only if the curve leaves the band.

    Args:
        rank: (B,).
        n: draws, the same for all stars.

    Raises:
        ValueError: zero draws, ranks out of range, numbers of draws that differ.
    """
    ranks, draws = checked(rank, n)
    if (draws != draws.flat[0]).any():
        raise ValueError(f"draws per star range from {draws.min()} to {draws.max()}; test each number of draws alone.")
    n_draws = int(draws.flat[0])
    _, curve = ecdf(ranks, n_draws)
    count = np.rint(curve * ranks.size).astype(int)
    tails = _tails(ranks.size, n_draws)
    return float(np.clip(1 - _stays(ranks.size, n_draws, float(tails[np.arange(len(count)), count].min())), 0, 1))


def uniform(rank: npt.ArrayLike, n: npt.ArrayLike, level: float = 0.95) -> bool:
    """True when the ranks' ECDF stays inside the band of `level`; raises as `uniformity` and `ecdf_band` do."""
    (share,) = probabilities([level])
    return uniformity(rank, n) > 1 - share


def finite(name: str, values: Array, remedy: str = "drop the stars where it failed, and list them") -> None:
    """Raises ValueError, naming the array and the remedy, unless every value is finite."""
    if not np.isfinite(values).all():
        raise ValueError(f"{name}: {int((~np.isfinite(values)).sum())} values are not finite; {remedy}.")


def probabilities(levels: npt.ArrayLike) -> Array:
    """(Q,) copy of some levels; ValueError unless all lie between 0 and 1."""
    out = np.atleast_1d(np.asarray(levels, dtype=np.float64))
    if not ((out > 0) & (out < 1)).all():
        raise ValueError(f"levels {out.tolist()} are not all between 0 and 1; give probabilities such as 0.6827.")
    return out


def checked(rank: npt.ArrayLike, n: npt.ArrayLike) -> tuple[Ranks, Ranks]:
    """Ranks and numbers of draws as whole numbers of one shape, (B,); ValueError where they cannot be."""
    ranks, draws = np.atleast_1d(np.asarray(rank, dtype=np.float64)), np.asarray(n, dtype=np.float64)
    if ranks.size == 0:
        raise ValueError("there are no ranks; give at least one star.")
    if draws.ndim and draws.shape != ranks.shape:
        raise ValueError(f"n has shape {draws.shape}; give one number of draws or {ranks.shape}, one per rank.")
    draws = np.broadcast_to(draws, ranks.shape)
    if not ((draws >= 1) & (draws == np.rint(draws))).all():
        raise ValueError("n is not a whole number of at least one draw everywhere; a truth has no rank among no draws.")
    bad = ~((ranks >= 0) & (ranks <= draws) & (ranks == np.rint(ranks)))
    if bad.any():
        raise ValueError(f"{int(bad.sum())} ranks are no whole numbers in 0..n (first {ranks[bad][0]} of "
                         f"{draws[bad][0]:.0f} draws); make them with rank_of.")
    return ranks.astype(np.int64), draws.astype(np.int64)


def part_below(rank: Ranks, n: Ranks, u: Array) -> Array:
    """(B, Q) part of each rank's cell [r, r + 1] / (n + 1) below u (Q,)."""
    return np.asarray(np.clip((n[:, None] + 1) * u - rank[:, None], 0.0, 1.0))


def _cells(n_stars: int, n_draws: int) -> int:
    return min(n_draws + 1, max(n_stars, 2), _POINTS)


def _edges(n_draws: int, cells: int) -> Ranks:
    """Borders 0 ... n_draws + 1 of about equal groups of whole ranks: at them the ECDF's law is binomial exactly."""
    return np.unique(np.rint(np.linspace(0, n_draws + 1, cells + 1)).astype(np.int64))


@lru_cache(maxsize=8)
def _tails(n_stars: int, n_draws: int) -> Array:
    """(K, B + 1) two-sided tail probability 2 min(P(X <= x), P(X >= x)) of each count x at each inner edge."""
    from scipy.stats import binom  # here: it takes longer to load than all else that a first page needs

    z = (_edges(n_draws, _cells(n_stars, n_draws))[1:-1] / (n_draws + 1))[:, None]
    x = np.arange(n_stars + 1)
    return np.asarray(2 * np.minimum(binom.cdf(x, n_stars, z), binom.sf(x - 1, n_stars, z)))


def _limits(n_stars: int, n_draws: int, gamma: float) -> tuple[Ranks, Ranks]:
    """(K,) lowest and highest count at each edge with a tail above gamma; lowest > highest where there is none."""
    inside = _tails(n_stars, n_draws) > gamma * (1 + 1e-9)  # the two tails of one count differ by rounding
    some = inside.any(1)
    return np.where(some, inside.argmax(1), 1), np.where(some, n_stars - inside[:, ::-1].argmax(1), 0)


def _stays(n_stars: int, n_draws: int, gamma: float) -> float:
    """Probability that uniform ranks' counts have tails above gamma at every edge.

    Counts below the edges are a Poisson process of n_stars in all, given that its total is n_stars.
    """
    limits = _limits(n_stars, n_draws, gamma)
    if (limits[0] > limits[1]).any():
        return 0.0
    rates = n_stars * np.diff(_edges(n_draws, _cells(n_stars, n_draws))) / (n_draws + 1)
    factorial = gammaln(np.arange(n_stars + 1) + 1.0)

    def poisson(last: int, rate: float) -> Array:
        return np.asarray(np.exp(np.arange(last + 1) * np.log(rate) - rate - factorial[: last + 1]))

    state, first = np.ones(1), 0  # probability of each count first, first + 1, ... with the path inside so far
    for low, high, rate in zip(*limits, rates[:-1], strict=True):
        state = np.convolve(state, poisson(int(high) - first, rate))[low - first : high - first + 1]
        first = int(low)
    end = poisson(n_stars - first, rates[-1])[::-1][: len(state)]
    return float(state @ end / poisson(n_stars, float(n_stars))[-1])


@lru_cache(maxsize=64)
def _band(n_stars: int, n_draws: int, level: float) -> tuple[Ranks, Ranks]:
    """Lowest and highest count inside the band: the largest gamma whose probability of staying is >= level."""
    low, high = 0.0, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if _stays(n_stars, n_draws, middle) >= level else (low, middle)
    return _limits(n_stars, n_draws, low)
