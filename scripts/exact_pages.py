"""The exact posterior beside the mixture, Wiener and the noisy spectrum, star by star, from the judge's table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from scripts.pages import DOCS, fill

RESULTS = Path(__file__).resolve().parents[1] / "results"
_RIVALS = ("mixture", "wiener", "noisy")
_CENTRAL = 0.6827
_LABELS = ("Teff", "logg", "[Fe/H]", "[alpha/Fe]")


def inside(rows: pd.DataFrame) -> float:
    """Share of truths within the central 68 % of the draws, from ranks: exact for any number of draws."""
    low = (1 - _CENTRAL) / 2
    # a rank r of n draws stands for the interval (r, r + 1) / (n + 1) of the posterior's own scale
    a, b = rows["rank"] / (rows["n"] + 1), (rows["rank"] + 1) / (rows["n"] + 1)
    share = (np.minimum(b, 1 - low) - np.maximum(a, low)).clip(lower=0) / (b - a)
    return float(share.mean())


def _paired(table: pd.DataFrame, method: str, rival: str) -> pd.DataFrame:
    keys = ["sample", "star", "quantity", "snr"]
    mine, other = (table[table["method"] == m] for m in (method, rival))
    return mine.merge(other[[*keys, "mean"]], on=keys, suffixes=("", "_rival"))


def ratios(table: pd.DataFrame, method: str = "exact") -> pd.DataFrame:
    """Error over a rival's on the same stars and noise, by sample and S/N.

    rms: geometric mean over stars of the ratio of their rms, and its standard error; EW: geometric mean over lines of
    the ratio of root median square errors, and its error from resampled stars.
    """
    out = []
    for rival in _RIVALS:
        both = _paired(table, method, rival)
        for (sample, snr), rows in both.groupby(["sample", "snr"], observed=True):
            rms = rows[rows["quantity"] == "rms"]
            if rms.empty:
                continue
            log = np.log(rms["mean"] / rms["mean_rival"])
            ew = rows[rows["quantity"].astype(str).str.startswith("EW:") & rows["truth"].notna()]
            own, other = (pd.DataFrame({"star": ew["star"].astype(str), "line": ew["quantity"].astype(str),
                                        "off": (ew[m] - ew["truth"]).abs()}).pivot(index="star", columns="line",
                                                                                    values="off").to_numpy()
                          for m in ("mean", "mean_rival"))
            pick = np.random.default_rng(1).integers(len(own), size=(200, len(own)))
            again = [_lines(own[p], other[p]) for p in pick]
            out.append({"sample": sample, "over": rival, "snr": snr, "stars": len(rms), "rms": np.exp(log.mean()),
                        "rms_err": np.exp(log.mean()) * log.std() / np.sqrt(len(log)), "EW": _lines(own, other),
                        "EW_err": np.std(again)})
    return pd.DataFrame(out)


def _lines(own: np.ndarray, other: np.ndarray) -> float:
    return float(np.exp(np.nanmean(np.log(np.nanmedian(own, axis=0) / np.nanmedian(other, axis=0)))))


def coverages(table: pd.DataFrame, methods: tuple[str, ...] = ("exact", "mixture", "dps")) -> pd.DataFrame:
    """Share inside 68 % by method, sample and S/N: pixels, EWs (mean, least and most of the lines), RV, labels."""
    known = table[table["method"].isin(methods) & table["truth"].notna() & (table["n"] > 1)]
    out = []
    for (sample, method, snr), rows in known.groupby(["sample", "method", "snr"], observed=True):
        name = rows["quantity"].astype(str)
        line = {q: inside(r) for q, r in rows[name.str.startswith("EW:")].groupby("quantity", observed=True)
                if len(r) > 20}
        row = {"sample": sample, "method": method, "snr": snr, "stars": rows["star"].nunique(),
               "pixels": inside(rows[name.str.startswith("flux:")]), "EW": np.mean([*line.values()]),
               "EW_least": min(line.values(), default=np.nan), "EW_most": max(line.values(), default=np.nan)}
        for q in ("RV", *_LABELS):
            part = rows[name == q]
            row[q] = inside(part) if len(part) else np.nan
        out.append(row)
    return pd.DataFrame(out)


def pages() -> None:
    """results/exact_ratios.csv, exact_coverage.csv and their tables in docs/results.md."""
    table = pd.read_parquet(RESULTS / "judge.parquet")
    ratio, cover = ratios(table), coverages(table)
    ratio.round(4).to_csv(RESULTS / "exact_ratios.csv", index=False)
    cover.round(4).to_csv(RESULTS / "exact_coverage.csv", index=False)
    short = ratio.assign(rms=[f"{r:.3f} +- {e:.3f}" for r, e in zip(ratio["rms"], ratio["rms_err"], strict=True)],
                         EW=[f"{r:.3f} +- {e:.3f}" for r, e in zip(ratio["EW"], ratio["EW_err"], strict=True)])
    fill(DOCS / "results.md", {"exact-ratios": short[["sample", "over", "snr", "stars", "rms", "EW"]],
                               "exact-coverage": cover.round(3)})
    print(short.to_string(), cover.round(3).to_string(), sep="\n")


if __name__ == "__main__":
    pages()
