"""What the figures of the tidy table draw, as small tables: pure functions, asked by the page and the screen alike."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import binom

from core.figures.rows import KEYS, Methods, groups, select
from core.figures.style import EW_GATE, GATES
from core.metrics import ranks
from core.spectrum import Array

CELLS = 20  #: a coverage curve is drawn at the levels 1/20 ... 19/20


def bias_and_scatter(table: pd.DataFrame, quantity: str, methods: Methods = None) -> pd.DataFrame:
    """How far answers lie from the truth by sample, method and S/N, in the table's unit.

    Args:
        table: columns star, sample, method, quantity, snr, truth, mean; rows without a truth are left out.
        quantity: one name, as 'EW:Mg b', 'RV', 'Teff'; methods: some, all by default.

    Returns:
        sample, method, snr, stars, bias (mean of mean - truth), bias_err (standard error), scatter (standard deviation
        of mean - truth), scatter_err (from the fourth moment, so that heavy tails count), gate (largest |bias| that
        the seed lets pass, NaN where it sets none; of an EW 5 % of the mean |truth|). Errors of one star are NaN.

    Raises:
        ValueError: as `select`.
    """
    rows = select(table, quantity, ["truth", "mean"], methods)
    gate = EW_GATE * rows["truth"].abs().mean() if quantity.startswith("EW:") else GATES.get(quantity, np.nan)
    out = []
    for key, group in groups(rows, KEYS):
        gap = (group["mean"] - group["truth"]).to_numpy(np.float64)
        n, bias = gap.size, gap.mean()
        scatter = gap.std(ddof=1) if n > 1 else np.nan
        fourth = ((gap - bias) ** 4).mean() - gap.var() ** 2
        error = np.sqrt(max(fourth, 0.0) / n) / (2 * scatter) if n > 1 and scatter > 0 else np.nan
        out.append(key | {"stars": n, "bias": bias, "bias_err": scatter / np.sqrt(n), "scatter": scatter,
                          "scatter_err": error, "gate": gate})
    return pd.DataFrame(out)


def ranked(table: pd.DataFrame, prefix: str, methods: Methods) -> Iterator[tuple[dict[str, Any], pd.DataFrame, int]]:
    """Groups that drew more than once, with their number of different stars: what is independent among their rows."""
    rows = select(table, prefix, ["rank", "n"], methods)
    rows = rows[rows["n"] > 1]
    if rows.empty:
        raise ValueError(f"no method drew {prefix!r} more than once; coverage and ranks want methods that draw.")
    for key, group in groups(rows, KEYS):
        yield key, group, int(group["star"].nunique())


def _band(stars: int, draws: int, level: float, at: Array) -> tuple[Array, Array]:
    """Simultaneous band of the ECDF of uniform ranks, between its points along straight lines."""
    z, low, high = ranks.ecdf_band(stars, draws, level)
    x = np.array([0.0, *z, 1.0])
    return np.interp(at, x, [0.0, *low, 1.0]), np.interp(at, x, [0.0, *high, 1.0])


def coverage_curve(table: pd.DataFrame, quantity: str, methods: Methods = None, level: float = 0.95) -> pd.DataFrame:
    """Share of truths inside the central interval at each level, by sample, method and S/N.

    A truth counts by the part of its rank's cell that is inside (`core.metrics.calibration.central_coverage`), so few
    draws do not look too narrow. The curve is the ECDF of |2 u - 1|, and has that one's simultaneous band. Rows of one
    star hang together: error and band count stars, which is on the safe side.

    Args:
        table: columns star, sample, method, quantity, snr, truth, rank, n; methods that answer once are left out.
        quantity: one name, or several at once by what they begin with, up to the colon ('EW:', 'flux:').
        methods: some, all by default; level: that a perfect posterior's whole curve stays inside the band.

    Returns:
        sample, method, snr, level, coverage, error (binomial), low, high (of the band), stars.

    Raises:
        ValueError: as `select`, no method that draws, ranks out of range.
    """
    share, parts = np.arange(1, CELLS) / CELLS, []
    for key, group, stars in ranked(table, quantity, methods):
        rank, n = ranks.checked(group["rank"], group["n"])
        inside = ranks.part_below(rank, n, (1 + share) / 2) - ranks.part_below(rank, n, (1 - share) / 2)
        coverage = inside.mean(0)
        p = (stars * coverage + 0.5) / (stars + 1)
        low, high = _band(stars, CELLS - 1, level, share)
        parts.append(pd.DataFrame(key | {"level": share, "coverage": coverage, "error": np.sqrt(p * (1 - p) / stars),
                                         "low": low, "high": high, "stars": stars}))
    return pd.concat(parts, ignore_index=True)


def pit_histogram(table: pd.DataFrame, quantity: str, methods: Methods = None, bins: int = 10,
                  level: float = 0.95) -> pd.DataFrame:
    """Where the truth lies in its posterior (probability integral transform); flat at 1 when perfect.

    Each truth is spread over its rank's cell, so that bins and numbers of draws need not fit each other.

    Args:
        table, quantity, methods: as in `coverage_curve`; bins: of equal width in (0, 1).
        level: that a perfect posterior's bars all lie in the band (binomial, Bonferroni over the bins, by stars).

    Returns:
        sample, method, snr, low, high (of the bin), density, band_low, band_high, stars.

    Raises:
        ValueError: as `coverage_curve`, no bins, a level outside (0, 1).
    """
    ranks.probabilities([level])
    if bins < 1:
        raise ValueError(f"{bins} bins hold nothing; give at least one.")
    edges, parts = np.linspace(0, 1, bins + 1), []
    for key, group, stars in ranked(table, quantity, methods):
        density = bins * np.diff(ranks.part_below(*ranks.checked(group["rank"], group["n"]), edges), axis=1).mean(0)
        tail = (1 - level) / 2 / bins
        low, high = (bins * binom.ppf(q, stars, 1 / bins) / stars for q in (tail, 1 - tail))
        parts.append(pd.DataFrame(key | {"low": edges[:-1], "high": edges[1:], "density": density, "band_low": low,
                                         "band_high": high, "stars": stars}))
    return pd.concat(parts, ignore_index=True)


def rank_histogram(table: pd.DataFrame, quantity: str, methods: Methods = None, bins: int = 20) -> pd.DataFrame:
    """Histogram of the truth's rank among the draws, by sample, method and S/N (SBC, Talts et al. 2018).

    Args:
        table, quantity, methods: as in `coverage_curve`; bins: at most, each of whole ranks.

    Returns:
        sample, method, snr, n, low, high (ranks, both inside), count, expected, error (binomial, of one bin), stars.

    Raises:
        ValueError: as `coverage_curve`, no bins, numbers of draws that differ within a group.
    """
    parts = []
    for key, group, stars in ranked(table, quantity, methods):
        n = _one_n(key, group)
        parts.append(ranks.rank_histogram(group["rank"], n, bins).assign(**key, n=n, stars=stars))
    out = pd.concat(parts, ignore_index=True)
    return out[[*KEYS, "n", "low", "high", "count", "expected", "error", "stars"]]


def rank_ecdf(table: pd.DataFrame, quantity: str, methods: Methods = None, level: float = 0.95) -> pd.DataFrame:
    """ECDF of the ranks less that of uniform ones, with the simultaneous band of Sailynoja et al. 2022.

    Args:
        table, quantity, methods, level: as in `coverage_curve`.

    Returns:
        sample, method, snr, z, difference, low, high (of the band, less z), p_value (of uniform ranks; NaN where
        several quantities are pooled, for one star's hang together), stars.

    Raises:
        ValueError: as `rank_histogram`.
    """
    parts = []
    for key, group, stars in ranked(table, quantity, methods):
        n = _one_n(key, group)
        z, curve = ranks.ecdf(group["rank"], n)
        low, high = _band(stars, n, level, z)
        p = ranks.uniformity(group["rank"], n) if len(group) == stars else np.nan
        parts.append(pd.DataFrame(key | {"z": z, "difference": curve - z, "low": low - z, "high": high - z,
                                         "p_value": p, "stars": stars}))
    return pd.concat(parts, ignore_index=True)


def _one_n(key: dict[str, Any], group: pd.DataFrame) -> int:
    if group["n"].nunique() > 1:
        raise ValueError(f"{key['method']} at S/N {key['snr']:g} has {sorted(group['n'].unique())} draws; keep the "
                         "rows of one number of draws, or draw the PIT histogram, which takes any.")
    return int(group["n"].iloc[0])
