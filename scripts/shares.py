"""The share of truths inside the central 68 % of the draws: one function for every page, with errors by star."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.stats import binom, norm

CENTRAL = 0.6827
FEW = 20  # stars up to which the share of a single line or pixel says nothing


def parts(rows: pd.DataFrame) -> pd.Series:
    """Of each row the part of its rank's cell that lies in the central 68 %: its mean is the share inside.

    A rank r of n draws stands for the interval (r, r + 1) / (n + 1) of the posterior's own scale.
    """
    low = (1 - CENTRAL) / 2
    a, b = rows["rank"] / (rows["n"] + 1), (rows["rank"] + 1) / (rows["n"] + 1)
    return (np.minimum(b, 1 - low) - np.maximum(a, low)).clip(lower=0) / (b - a)


def inside(rows: pd.DataFrame) -> float:
    """Share of truths within the central 68 % of the draws, from ranks: .683 for a right posterior, whatever the number
    of draws (with few, a wrong one is pulled towards that: n = 8 reads .545 where .516 is true, n = 32 within .02).
    """
    return float(parts(rows).mean())


def share(rows: pd.DataFrame) -> tuple[float, float, int]:
    """Share inside over all rows, each a star and quantity, its error and the most draws of a row.

    The error is that of a mean over stars: pixels and lines of one star go together, so rows are fewer than they look.
    Rows without a width (one draw, or draws that all gave one number) are left out; NaN where none is left.
    """
    rows = rows[rows["truth"].notna() & rows["n"].gt(1) & rows["std"].gt(0)]
    if rows.empty:
        return float("nan"), float("nan"), 0
    by = parts(rows).groupby(rows["star"].astype(str)).agg(["sum", "size"])
    value, stars = by["sum"].sum() / by["size"].sum(), len(by)
    off = by["sum"] - value * by["size"]
    error = np.sqrt((off**2).sum() * stars / max(stars - 1, 1)) / by["size"].sum()
    return float(value), float(error) if stars > 1 else float("nan"), int(rows["n"].max())


def common(table: pd.DataFrame) -> pd.DataFrame:
    """The rows about stars that the exact posterior was asked about, so that all methods stand on the same ones."""
    return table[table["star"].isin(table.loc[table["method"] == "exact", "star"].unique())]


def pulled(true: float, n: int) -> float:
    """The share inside that is read from n draws of a Gaussian posterior of right centre and wrong width, of which
    `true` is the share that many draws would give: few draws pull it to .683.
    """
    width = norm.ppf((1 + true) / 2) / norm.ppf((1 + CENTRAL) / 2)
    x = np.linspace(-6, 6, 4001)
    ranks = np.arange(n + 1)
    part = parts(pd.DataFrame({"rank": ranks, "n": n})).to_numpy(float)
    read = binom.pmf(ranks, n, norm.cdf(x / width)[:, None]) @ part
    return float(np.average(read, weights=norm.pdf(x)))


def pull() -> pd.DataFrame:
    """What 8, 16 and 32 draws read of some true shares."""
    true = (0.50, 0.55, 0.60, 0.65, CENTRAL, 0.70, 0.75, 0.80, 0.85)
    return pd.DataFrame({"true share": true, **{f"{n} draws": [round(pulled(t, n), 3) for t in true]
                                                for n in (8, 16, 32)}})
