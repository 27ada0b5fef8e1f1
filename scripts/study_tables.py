"""The tables of the study, from the judge's rows: errors, biases and coverage of every method on the same stars."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from scripts.exact_pages import of_the_mean
from scripts.judge_pages import _STRONG as STRONG
from scripts.judge_pages import sizes
from scripts.shares import inside

ORDER = ("noisy", "savgol", "wavelet", "pca", "wiener", "mixture", "dncnn", "dncnn_blind", "supervised",
         "supervised_ivar", "supervised_mixture", "dps@0.01", "dps", "dps@0.1", "exact")
RIVALS = ("wiener", "pca", "dncnn")
LABELS = ("Teff", "logg", "[Fe/H]")
_FEW = 20  # stars below which a median over them, or a slope, says nothing
_AGAIN = 400  # resamplings of the stars behind an error


def ordered(table: pd.DataFrame) -> pd.DataFrame:
    """Rows by S/N, then methods as in ORDER."""
    rank = table["method"].map({m: i for i, m in enumerate(ORDER)}).fillna(len(ORDER))
    return table.assign(rank=rank).sort_values(["snr", "rank"]).drop(columns="rank").reset_index(drop=True)


def resampled(values: npt.ArrayLike, of: object = np.median) -> float:
    """Standard error of a statistic of a sample, by resampling it."""
    sample = np.asarray(values, dtype=np.float64)
    pick = np.random.default_rng(3).integers(len(sample), size=(_AGAIN, len(sample)))
    assert callable(of)
    return float(np.std([of(sample[p]) for p in pick]))


def common(rows: pd.DataFrame, sample: str, asked: tuple[str, ...] = ("supervised_ivar", "dncnn")) -> pd.DataFrame:
    """Rows of a sample about the stars that the first of these methods answered (the next where it answered none at an
    S/N): networks are asked about the first stars of a sample, and all others are compared on these."""
    mine = rows[rows["sample"] == sample]
    kept = []
    for _, part in mine.groupby("snr"):
        there = next((m for m in asked if (part["method"] == m).any()), None)
        if there is not None:
            kept.append(part[part["star"].isin(part.loc[part["method"] == there, "star"])])
    return pd.concat(kept, ignore_index=True) if kept else mine.iloc[:0]


def errors(rows: pd.DataFrame) -> pd.DataFrame:
    """Error and likeness by S/N and method, on the same stars.

    mse: mean over stars of the squared error of the posterior's mean (what few draws add is taken off) and its error;
    over_wiener, over_pca, over_dncnn: geometric mean over stars of the ratio of squared errors, and its standard error;
    ssim: the median star's.
    """
    rows = of_the_mean(rows)
    name = rows["quantity"].astype(str)
    square = rows[name == "rms"].pivot_table(index=["snr", "star"], columns="method", values="mean", observed=True) ** 2
    like = rows[name == "ssim"].groupby(["snr", "method"], observed=True)["mean"].median()
    out = []
    for snr, part in square.groupby(level="snr"):
        for method in part.columns[part.notna().any()]:
            mine = part[method].dropna()
            row = {"snr": snr, "method": method, "stars": len(mine), "mse": mine.mean(),
                   "mse_err": mine.std() / np.sqrt(len(mine))}
            for rival in RIVALS:
                ratio = np.log(part[method] / part[rival]).dropna() if rival in part else pd.Series(dtype=float)
                known = len(ratio) > 1
                row[f"over_{rival}"] = np.exp(ratio.mean()) if known else np.nan
                row[f"over_{rival}_err"] = (np.exp(ratio.mean()) * ratio.std() / np.sqrt(len(ratio)) if known
                                            else np.nan)
            out.append(row | {"ssim": like.get((snr, method), np.nan)})
    return ordered(pd.DataFrame(out))


def biases(rows: pd.DataFrame) -> pd.DataFrame:
    """Bias by S/N and method: median error of each label and of the velocity with its error; EW_bias: mean over strong
    lines of |median bias| over the mean equivalent width; slope: of the estimate against the true label, 1 where
    nothing is drawn to the mean, and its standard error."""
    known = rows[rows["truth"].notna()]
    out = []
    for (snr, method), part in known.groupby(["snr", "method"], observed=True):
        name, off = part["quantity"].astype(str), part["mean"] - part["truth"]
        lines = [off[name == q].median() / w for q, w in sizes(part).items() if q in STRONG and w > 0]
        row = {"snr": snr, "method": method, "stars": part["star"].nunique(), "EW_bias": np.mean(np.abs(lines))}
        for q in ("RV", *LABELS):
            mine, gap = part[name == q], off[name == q]
            enough = len(gap) >= _FEW
            row[q] = gap.median() if enough else np.nan
            row[f"{q}_err"] = resampled(gap) if enough else np.nan
            if q in LABELS:
                row[f"{q}_slope"], row[f"{q}_slope_err"] = slope(mine) if enough else (np.nan, np.nan)
        out.append(row)
    return ordered(pd.DataFrame(out))


def slope(rows: pd.DataFrame) -> tuple[float, float]:
    """Slope of the estimate against the truth, least squares, and its error from resampled stars."""
    x, y = rows["truth"].to_numpy(float), rows["mean"].to_numpy(float)

    def fit(pair: npt.NDArray[np.float64]) -> float:
        a = pair[:, 0] - pair[:, 0].mean()
        return float(a @ pair[:, 1] / (a @ a))

    pairs = np.column_stack([x, y])
    return fit(pairs), resampled(pairs, fit)


def coverage(rows: pd.DataFrame) -> pd.DataFrame:
    """Share of truths inside the central 68 % by S/N and method of what has draws: pixels, EWs, RV, labels; error of
    each: of the mean over stars, whose pixels and lines go together. z2: squared error over variance, all pixels."""
    known = rows[rows["truth"].notna() & (rows["n"] > 1) & (rows["std"] > 0)]
    kind = known["quantity"].astype(str).str.split(":").str[0].replace({"flux": "pixels"})
    out = []
    for (snr, method), part in known.groupby(["snr", "method"], observed=True):
        row = {"snr": snr, "method": method, "stars": part["star"].nunique(), "draws": int(part["n"].max())}
        for what in ("pixels", "EW", "RV", *LABELS):
            mine = part[kind.loc[part.index] == what]
            each = [inside(one) for _, one in mine.groupby("star", observed=True)]
            row[what] = np.mean(each) if each else np.nan
            row[f"{what}_err"] = np.std(each, ddof=1) / np.sqrt(len(each)) if len(each) > 1 else np.nan
        whole = rows[(rows["snr"] == snr) & (rows["method"] == method)]
        rms, width = ((whole.loc[whole["quantity"] == q, "mean"].astype(float) ** 2).sum() for q in ("rms", "width"))
        out.append(row | {"z2": rms / width if width else np.nan})
    return ordered(pd.DataFrame(out))
