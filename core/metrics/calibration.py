"""Do error bars hold: coverage, TARP, and beside them width, error and chi-square; ranks are in core.metrics.ranks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import binom

from core.metrics.ranks import (
    checked,
    ecdf,
    ecdf_band,
    finite,
    part_below,
    pit,
    probabilities,
    rank_histogram,
    rank_of,
    uniform,
    uniformity,
)
from core.spectrum import Array

__all__ = ["KEYS", "LEVELS", "Tarp", "central_coverage", "chance_to_miss", "contraction", "ecdf", "ecdf_band", "pit",
           "rank_histogram", "rank_of", "summary", "tarp", "uniform", "uniformity"]

#: Levels of central intervals that a coverage curve is drawn at; 0.6827 is the one of the gates.
LEVELS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.6827, 0.7, 0.8, 0.9, 0.95, 0.99)
KEYS = ["method", "quantity", "snr"]
_MORE = "; ask for more draws, or leave the method out."


def central_coverage(rank: npt.ArrayLike, n: npt.ArrayLike, levels: npt.ArrayLike = LEVELS) -> pd.DataFrame:
    """Share of truths inside the central interval at each level, from ranks.

    A rank r says that the truth's place u in its posterior lies in the cell [r, r + 1] / (n + 1). A truth counts by the
    part of its cell that lies between (1 - level) / 2 and (1 + level) / 2, which for a perfect posterior has the
    expectation `level` exactly, whatever n (quantiles of few draws make intervals that are too narrow: 68.27 % of 16
    draws cover 64 %). A wrong posterior is seen blurred by one cell: ask for 50 draws or more.

    Args:
        rank: (B,) as of `rank_of`.
        n: number of draws, one for all or (B,).
        levels: (Q,) probabilities in (0, 1).

    Returns:
        Q rows: level, coverage, error (binomial, sqrt(p (1 - p) / B) with p = (B coverage + 1/2) / (B + 1), so that it
        is not 0 at full coverage; counting parts of cells makes the true one slightly smaller), stars.

    Raises:
        ValueError: zero draws, ranks out of range, levels outside (0, 1).
    """
    ranks, draws = checked(rank, n)
    share = probabilities(levels)
    coverage = (part_below(ranks, draws, (1 + share) / 2) - part_below(ranks, draws, (1 - share) / 2)).mean(0)
    p = (ranks.size * coverage + 0.5) / (ranks.size + 1)
    error = np.sqrt(p * (1 - p) / ranks.size)
    return pd.DataFrame({"level": share, "coverage": coverage, "error": error, "stars": ranks.size})


def chance_to_miss(stars: int, gate: tuple[float, float] = (0.60, 0.75), level: float = 0.6827) -> float:
    """Probability that a perfect posterior's coverage of some stars lies outside a gate: how many stars a gate needs.

    Raises:
        ValueError: no stars, a level outside (0, 1).
    """
    (share,) = probabilities([level])
    if stars < 1:
        raise ValueError(f"{stars} stars have no coverage; give at least one.")
    inside = np.arange(stars + 1)
    # counted in thousandths of a star, for 0.6 * 50 is not 30 in binary
    inside = inside[(inside >= gate[0] * stars - 1e-3) & (inside <= gate[1] * stars + 1e-3)]
    return float(1 - binom.pmf(inside, stars, share).sum())


@dataclass(frozen=True, eq=False)
class Tarp:
    """Expected coverage probability (Lemos et al. 2023, arXiv:2302.03026) at some levels, with errors over stars.

    Args:
        levels: (Q,) credibility levels; ecp, error: (Q,) expected coverage there and its bootstrap error.
        deviation: largest |ecp - level|; deviation_error: its bootstrap error (0 is not expected of a perfect posterior
            but up to some 0.9 / sqrt(stars): judge by p_value).
        p_value: of uniform ranks of the distances, exact (`uniformity`).
    """

    levels: Array
    ecp: Array
    error: Array
    deviation: float
    deviation_error: float
    p_value: float


def tarp(draws: npt.ArrayLike, truth: npt.ArrayLike, rng: np.random.Generator, references: npt.ArrayLike | None = None,
         levels: npt.ArrayLike = LEVELS, resamples: int = 400) -> Tarp:
    """Test of accuracy with random points (Lemos et al. 2023, arXiv:2302.03026): all quantities at once.

    Per star the share of draws nearer to a reference point than the truth is must be uniform. Distances are Euclidean
    after each quantity is standardised by the pooled mean and deviation of the truths and the draws, or the one with
    the largest numbers would decide alone.

    References that know nothing of the data cannot see a posterior that is the prior, and hardly one that ignores part
    of the data (they allow references that depend on it): give, per star, a point made from its
    observation alone (a rough estimate plus noise; never from its truth or its draws).
    References spread evenly around the answer do not see a shift, which lengthens as many distances as it shortens: set
    them off to one side (a rough estimate minus a few deviations) as a second test.

    Args:
        draws: (n, B, D) draws of D quantities of B stars, any units.
        truth: (B, D).
        rng: draws default references, breaks ties, resamples.
        references: (B, D) in the units of truth; standard normal in standardised units by default.
        levels: (Q,) in (0, 1).
        resamples: bootstrap resamples over stars.

    Raises:
        ValueError: zero draws, shapes that disagree, values that are not finite, levels outside (0, 1).
    """
    draws, truth = np.asarray(draws, dtype=np.float64), np.asarray(truth, dtype=np.float64)
    if draws.ndim != 3 or 0 in draws.shape:
        raise ValueError(f"draws have shape {draws.shape}; give (draws, stars, quantities), at least one of each.")
    if truth.shape != draws.shape[1:]:
        raise ValueError(f"truth has shape {truth.shape}; it must be {draws.shape[1:]}, that of one draw.")
    finite("draws", draws)
    finite("truth", truth)
    share, (n, stars, _) = probabilities(levels), draws.shape
    # truths and all draws together count half each: the deviation of either alone would be 0 for a broken method
    mean = (truth.mean(0) + draws.mean((0, 1))) / 2
    scale = np.sqrt((((truth - mean) ** 2).mean(0) + ((draws - mean) ** 2).mean((0, 1))) / 2)
    scale = np.where(scale > 0, scale, 1.0)
    if references is None:
        points = mean + scale * rng.standard_normal(truth.shape)
    else:
        points = np.asarray(references, dtype=np.float64)
        if points.shape != truth.shape:
            raise ValueError(f"references have shape {points.shape}; they must be {truth.shape}, one per star.")
        finite("references", points)
    near = (((draws - points) / scale) ** 2).sum(-1)
    rank = rank_of(near, (((truth - points) / scale) ** 2).sum(-1), rng)
    below = part_below(rank, np.full(stars, n), share)
    again = rng.multinomial(stars, np.full(stars, 1 / stars), size=resamples) @ below / stars
    ecp = below.mean(0)
    return Tarp(share, ecp, again.std(0), float(np.abs(ecp - share).max()),
                float(np.abs(again - share).max(1).std()), uniformity(rank, n))


def summary(table: pd.DataFrame, points: bool = False) -> pd.DataFrame:
    """The report card by method, quantity and S/N of the house's tidy table.

    Coverage alone is passed by returning the prior, so width, error and chi-square stand beside it (and `contraction`).

    Args:
        table: columns method, quantity, snr, truth, mean, std, rank, n; one row per star.
        points: give NaN for what needs a width where a method drew once per star, instead of refusing; the rank of one
            draw is not looked at.

    Returns:
        One row per group: stars, coverage (of 68.27 %) and coverage_err, bias (mean - truth) and bias_err, rmse, width
        (mean posterior standard deviation), chi_square mean((truth - mean)^2 / std^2) and chi_square_err,
        chi_square_expected ((1 + 1/n) (n - 1) / (n - 3): what a perfect Gaussian posterior gives, mean and deviation
        being those of n draws; 1 for many), p_value of uniform ranks. Units are those of the table.

    Raises:
        ValueError: columns missing, NaN truth, zero draws, one draw (unless `points`), no width, ranks out of range.
    """
    _need(table, [*KEYS, "truth", "mean", "std", "rank", "n"])
    rows = []
    for key, group in table.groupby(KEYS, sort=False, dropna=False):
        name = f"{key[0]} / {key[1]} / S/N {key[2]}"
        truth, mean = (group[c].to_numpy(np.float64) for c in ("truth", "mean"))
        finite(f"truth of {name}", truth, "keep only rows with a truth, table[table.truth.notna()]")
        finite(f"mean of {name}", mean)
        alone = points and bool(group["n"].eq(1).all())
        if not alone and group["n"].eq(1).any():
            raise ValueError(f"{name} gave one draw, which has no width" + _MORE)
        # one draw's rank is NaN in the house's table
        rank, n = checked(group["rank"].fillna(0) if alone else group["rank"], group["n"])
        gap, stars = mean - truth, len(group)
        row = dict(zip(KEYS, key, strict=True)) | {
            "stars": stars, "coverage": np.nan, "coverage_err": np.nan, "bias": gap.mean(), "bias_err": _error(gap),
            "rmse": np.sqrt((gap**2).mean()), "width": np.nan, "chi_square": np.nan, "chi_square_err": np.nan,
            "chi_square_expected": np.nan, "p_value": np.nan}
        if not alone:
            width = _width(group, name)
            inside = central_coverage(rank, n, [0.6827]).iloc[0]
            square = (gap / width) ** 2
            expected = np.where(n > 3, (1 + 1 / n) * (n - 1) / np.maximum(n - 3, 1), np.inf).mean()
            row |= {"coverage": inside["coverage"], "coverage_err": inside["error"], "width": width.mean(),
                    "chi_square": square.mean(), "chi_square_err": _error(square), "chi_square_expected": expected,
                    "p_value": uniformity(rank, n)}
        rows.append(row)
    return pd.DataFrame(rows)


def contraction(table: pd.DataFrame, prior_std: float | Mapping[str, float]) -> pd.DataFrame:
    """1 - <std^2> / prior^2 by method, quantity and S/N: how much was learnt; 0 where the prior was handed back.

    Schad, Betancourt & Vasishth 2021 (arXiv:1904.12765), posterior contraction.

    Args:
        table: columns method, quantity, snr, std, n.
        prior_std: standard deviation of the prior by quantity (or one for all), in the table's units.

    Returns:
        One row per group: stars, contraction, error (standard error over stars).

    Raises:
        ValueError: columns missing, one draw (no width), a quantity whose prior is not given or not positive.
    """
    _need(table, [*KEYS, "std", "n"])
    rows = []
    for key, group in table.groupby(KEYS, sort=False, dropna=False):
        prior = prior_std.get(key[1], np.nan) if isinstance(prior_std, Mapping) else prior_std
        if not (np.isfinite(prior) and prior > 0):
            raise ValueError(f"the prior's deviation of {key[1]!r} is {prior}; give a positive number in prior_std.")
        share = (_width(group, f"{key[0]} / {key[1]} / S/N {key[2]}") / prior) ** 2
        rows.append(dict(zip(KEYS, key, strict=True)) | {"stars": len(group), "contraction": 1 - share.mean(),
                                                         "error": _error(share)})
    return pd.DataFrame(rows)


def _need(table: pd.DataFrame, columns: list[str]) -> None:
    if missing := [c for c in columns if c not in table]:
        raise ValueError(f"the table has no column {', '.join(missing)}; it must have {', '.join(columns)}.")
    if table.empty:
        raise ValueError("the table has no rows; give at least one star.")


def _error(values: Array) -> float:
    """Standard error of a mean; NaN for one value."""
    return float(values.std(ddof=1) / np.sqrt(values.size)) if values.size > 1 else np.nan


def _width(group: pd.DataFrame, name: str) -> Array:
    if (group["n"] < 2).any():
        raise ValueError(f"{name} gave one draw, which has no width" + _MORE)
    width = group["std"].to_numpy(np.float64)
    if not (np.isfinite(width) & (width > 0)).all():
        raise ValueError(f"{name} has {int((~(width > 0)).sum())} rows without a positive std; a point estimate is "
                         "one draw (n = 1), and a star where the method failed is left out and listed.")
    return width
