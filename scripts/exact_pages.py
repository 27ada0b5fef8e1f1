"""The exact posterior beside the mixture, Wiener and the noisy spectrum, star by star, from the judge's table."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from scripts import exact_kinds
from scripts.floor_tables import rhos
from scripts.pages import DOCS, fill, with_error
from scripts.shares import inside

RESULTS = Path(__file__).resolve().parents[1] / "results"
_RIVALS = ("mixture", "wiener", "noisy")
_LABELS = ("Teff", "logg", "[Fe/H]", "[alpha/Fe]")


def _paired(table: pd.DataFrame, method: str, rival: str) -> pd.DataFrame:
    keys = ["sample", "star", "quantity", "snr"]
    mine, other = (table[table["method"] == m] for m in (method, rival))
    return mine.merge(other[[*keys, "mean"]], on=keys, suffixes=("", "_rival"))


def of_the_mean(table: pd.DataFrame) -> pd.DataFrame:
    """The table with every rms that of the posterior's mean: what few draws add to the mean of them, width^2 / draws,
    is taken off, for methods were asked for different numbers.
    """
    keys = ["sample", "method", "star", "snr"]
    name = table["quantity"].astype(str)
    draws = table.groupby(keys, observed=True)["n"].max().rename("draws").reset_index()
    width = table[name == "width"][[*keys, "mean"]].rename(columns={"mean": "width"})
    rms = table[name == "rms"].merge(draws, on=keys, how="left").merge(width, on=keys, how="left")
    extra = np.where(rms["draws"] > 1, rms["width"].fillna(0.0) ** 2 / rms["draws"], 0.0)
    rms["mean"] = np.sqrt(np.clip(rms["mean"] ** 2 - extra, 0.04 * rms["mean"] ** 2, None))
    return pd.concat([table[name != "rms"], rms[table.columns]], ignore_index=True)


def ratios(table: pd.DataFrame, method: str = "exact") -> pd.DataFrame:
    """Error over a rival's on the same stars and noise, by sample and S/N.

    rms: geometric mean over stars of the ratio of their rms, and its standard error; pooled: ratio of root mean squares
    over all stars, and its error from resampled stars; worse: share of stars more than 1.2 times worse; EW: geometric
    mean over lines of the ratio of root median square errors, and its error from resampled stars.
    """
    out = []
    table = of_the_mean(table)
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
            square = (rms[["mean", "mean_rival"]] ** 2).to_numpy(float)
            pooled = [float(np.sqrt(np.divide(*square[p].mean(axis=0))))
                      for p in np.random.default_rng(2).integers(len(rms), size=(200, len(rms)))]
            out.append({"sample": sample, "over": rival, "snr": snr, "stars": len(rms), "rms": np.exp(log.mean()),
                        "rms_err": np.exp(log.mean()) * log.std() / np.sqrt(len(log)),
                        "pooled": float(np.sqrt(np.divide(*square.mean(axis=0)))), "pooled_err": np.std(pooled),
                        "worse": float((log > np.log(1.2)).mean()), "EW": _lines(own, other),
                        "EW_err": np.std(again)})
    return pd.DataFrame(out)


def _lines(own: np.ndarray, other: np.ndarray) -> float:
    return float(np.exp(np.nanmean(np.log(np.nanmedian(own, axis=0) / np.nanmedian(other, axis=0)))))


def coverages(table: pd.DataFrame, methods: tuple[str, ...] = ("exact", "mixture", "dps")) -> pd.DataFrame:
    """Share inside 68 % by method, sample and S/N: pixels and EWs (mean, least, most), RV, labels; and z2, the summed
    squared error of all pixels over the summed variance, which a few wildly overconfident stars can raise unseen by
    shares. Of real stars only those that the exact posterior was asked about.
    """
    asked = table.loc[table["method"] == "exact", "star"].unique()
    table = table[table["star"].isin(asked)]
    known = table[table["method"].isin(methods) & table["truth"].notna() & (table["n"] > 1)]
    out = []
    for (sample, method, snr), rows in known.groupby(["sample", "method", "snr"], observed=True):
        name = rows["quantity"].astype(str)
        line = {q: inside(r) for q, r in rows[name.str.startswith("EW:")].groupby("quantity", observed=True)
                if len(r) > 20}
        pixel = {q: inside(r) for q, r in rows[name.str.startswith("flux:")].groupby("quantity", observed=True)
                 if len(r) > 20}
        row = {"sample": sample, "method": method, "snr": snr, "stars": rows["star"].nunique(),
               "pixels": np.mean([*pixel.values()]), "pixel_least": min(pixel.values(), default=np.nan),
               "pixel_most": max(pixel.values(), default=np.nan), "EW": np.mean([*line.values()]),
               "EW_least": min(line.values(), default=np.nan), "EW_most": max(line.values(), default=np.nan)}
        for q in ("RV", *_LABELS):
            part = rows[name == q]
            row[q] = inside(part) if len(part) else np.nan
        mine = table[(table["sample"] == sample) & (table["method"] == method) & (table["snr"] == snr)]
        rms, width = ((mine.loc[mine["quantity"] == q, "mean"] ** 2).sum() for q in ("rms", "width"))
        out.append(row | {"z2": float(rms) / float(width) if width else np.nan})
    return pd.DataFrame(out)


def pages() -> None:
    """results/exact_*.csv and their tables in docs/results.md; rho.csv and its in judge.md."""
    rhos()
    table = pd.read_parquet(RESULTS / "judge.parquet")
    ratio, cover = ratios(table), coverages(table)
    ratio.round(4).to_csv(RESULTS / "exact_ratios.csv", index=False)
    cover.round(4).to_csv(RESULTS / "exact_coverage.csv", index=False)
    told = {name: with_error(ratio, name, 3) for name in ("rms", "pooled", "EW")}
    short = ratio.assign(**told)
    shown = short[["sample", "over", "snr", "stars", "rms", "pooled", "worse", "EW"]]
    fill(DOCS / "results.md", {"exact-ratios": shown.round(3),
                               "exact-coverage": cover.round(3), **exact_kinds.marks(table)})
    print(short.to_string(), cover.round(3).to_string(), sep="\n")


def main() -> None:
    argparse.ArgumentParser(prog="python -m scripts.exact_pages", description=pages.__doc__).parse_args()
    pages()


if __name__ == "__main__":
    main()
