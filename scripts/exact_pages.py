"""The exact posterior beside the mixture, Wiener and the noisy spectrum, star by star, from the judge's table."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from scripts import exact_kinds
from scripts.exact_kinds import z2
from scripts.floor_tables import rhos
from scripts.pages import DOCS, fill, with_error
from scripts.shares import CENTRAL, FEW, common, inside, pull, share

RESULTS = Path(__file__).resolve().parents[1] / "results"
_RIVALS = ("mixture", "wiener", "noisy")
_LABELS = ("Teff", "logg", "[Fe/H]", "[alpha/Fe]")


def _paired(table: pd.DataFrame, method: str, rival: str) -> pd.DataFrame:
    keys = ["sample", "star", "quantity", "snr"]
    mine, other = (table[table["method"] == m] for m in (method, rival))
    return mine.merge(other[[*keys, "mean", "n"]], on=keys, suffixes=("", "_rival"))


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
    over all stars, and its error from resampled stars; pooled_1, pooled_3: without the one and the three stars at which
    either errs most; better: share of stars at which it errs less, and better_p of a fair coin; worse: share of stars
    more than 1.2 times worse; above: how many stars are worse at all as they are, without anything taken off for few
    draws; EW: geometric mean over lines of the ratio of root median square errors, which are divided by 1 + 1 / draws,
    what few draws add to a right posterior's; and its error from resampled stars.
    """
    out = []
    raw = table[table["quantity"] == "rms"]
    table = of_the_mean(table)
    for rival in _RIVALS:
        lost = _paired(raw, method, rival)
        lost = lost[lost["mean"] > lost["mean_rival"]].groupby(["sample", "snr"], observed=True).size()
        both = _paired(table, method, rival)
        for (sample, snr), rows in both.groupby(["sample", "snr"], observed=True):
            rms = rows[rows["quantity"] == "rms"]
            if rms.empty:
                continue
            log = np.log(rms["mean"] / rms["mean_rival"])
            square = (rms[["mean", "mean_rival"]] ** 2).to_numpy(float)
            ew = rows[rows["quantity"].astype(str).str.startswith("EW:") & rows["truth"].notna()]
            worst = np.argsort(-square.max(axis=1))
            less = int((log < 0).sum())
            own, other = (pd.DataFrame({"star": ew["star"].astype(str), "line": ew["quantity"].astype(str),
                                        "off": (ew[f"mean{m}"] - ew["truth"]).abs() / of_few(ew[f"n{m}"])})
                          .pivot(index="star", columns="line", values="off").to_numpy() for m in ("", "_rival"))
            pick = np.random.default_rng(1).integers(len(own), size=(200, len(own)))
            again = [_lines(own[p], other[p]) for p in pick]
            pooled = [float(np.sqrt(np.divide(*square[p].mean(axis=0))))
                      for p in np.random.default_rng(2).integers(len(rms), size=(200, len(rms)))]
            out.append({"sample": sample, "over": rival, "snr": snr, "stars": len(rms), "rms": np.exp(log.mean()),
                        "rms_err": np.exp(log.mean()) * log.std() / np.sqrt(len(log)),
                        "pooled": float(np.sqrt(np.divide(*square.mean(axis=0)))), "pooled_err": np.std(pooled),
                        **{f"pooled_{k}": float(np.sqrt(np.divide(*np.delete(square, worst[:k], axis=0).mean(axis=0))))
                           for k in (1, 3)},
                        "better": less / len(log), "better_p": float(binomtest(less, len(log)).pvalue),
                        "above": int(lost.get((sample, snr), 0)),
                        "worse": float((log > np.log(1.2)).mean()), "EW": _lines(own, other),
                        "EW_err": np.std(again)})
    return pd.DataFrame(out)


def of_few(n: pd.Series) -> pd.Series:
    """How much larger the mean of n draws of a right posterior errs than its own mean does; 1 for a point estimate."""
    return (1 + (1 / n).where(n > 1, 0.0)) ** 0.5


def _lines(own: np.ndarray, other: np.ndarray) -> float:
    return float(np.exp(np.nanmean(np.log(np.nanmedian(own, axis=0) / np.nanmedian(other, axis=0)))))


def coverages(table: pd.DataFrame, methods: tuple[str, ...] = ("exact", "mixture", "wiener", "dps")) -> pd.DataFrame:
    """Share inside 68 % by method, sample and S/N, each with its error by star: pixels and EWs (all rows, and the least
    and most of one of them), RV, labels; draws and rv_draws that they are read from; and z2, the summed squared error
    of all pixels over the summed variance, which a few wildly overconfident stars can raise unseen by shares, with its
    error and without the star of largest error. Of real stars only those that the exact posterior was asked about.
    """
    table = common(table)
    known = table[table["method"].isin(methods) & table["truth"].notna() & (table["n"] > 1)]
    out = []
    for (sample, method, snr), rows in known.groupby(["sample", "method", "snr"], observed=True):
        name = rows["quantity"].astype(str)
        row = {"sample": sample, "method": method, "snr": snr, "stars": rows["star"].nunique(), "draws": 0,
               "rv_draws": 0}
        for what, short, begin in (("pixels", "pixel", "flux:"), ("EW", "EW", "EW:")):
            part = rows[name.str.startswith(begin)]
            row[what], row[f"{what}_err"], row["draws"] = share(part)
            each = [inside(r) for _, r in part.groupby("quantity", observed=True) if len(r) > FEW]
            row[f"{short}_least"], row[f"{short}_most"] = min(each, default=np.nan), max(each, default=np.nan)
        for q in ("RV", *_LABELS):
            row[q], row[f"{q}_err"], n = share(rows[name == q])
            row["rv_draws"] = n if q == "RV" else row["rv_draws"]
        mine = table[(table["sample"] == sample) & (table["method"] == method) & (table["snr"] == snr)]
        mine = mine[mine["quantity"].isin(["rms", "width"])].astype({"star": str, "quantity": str})
        wide = mine.pivot(index="star", columns="quantity", values="mean").dropna()
        row["z2"], row["z2_err"] = z2(wide["rms"], wide["width"])
        rest = wide.drop(wide["rms"].idxmax())
        out.append(row | {"z2_rest": z2(rest["rms"], rest["width"])[0]})
    return pd.DataFrame(out)


def shown_coverages(cover: pd.DataFrame) -> pd.DataFrame:
    """The page's: shares with their errors, and of pixels and EWs how many errors they are from .683."""
    cover = cover[cover["method"].isin(["exact", "mixture", "dps"])]
    out = cover[["sample", "method", "snr", "stars", "draws"]].copy()
    for what, short in (("pixels", "pixel"), ("EW", "EW")):
        out[what] = with_error(cover, what, 3)
        out[f"{what}: errors off"] = ((cover[what] - CENTRAL) / cover[f"{what}_err"]).map("{:+.1f}".format)
        out[f"{what}: least, most"] = [f"{a:.2f}, {b:.2f}" for a, b in
                                       zip(cover[f"{short}_least"], cover[f"{short}_most"], strict=True)]
    out["RV draws"] = cover["rv_draws"]
    for q in ("RV", *_LABELS):
        out[q] = ["-" if pd.isna(v) else f"{v:.2f} +- {e:.2f}" for v, e in
                  zip(cover[q], cover[f"{q}_err"], strict=True)]
    return out.assign(z2=with_error(cover, "z2"), **{"z2 without the worst star": cover["z2_rest"].round(2)})


def uniform(card: pd.DataFrame) -> pd.DataFrame:
    """How many ranks are not uniform: of all (line or pixel, S/N) those with p below .01, and how many chance gives.

    Args:
        card: of results/judge_summary.csv.
    """
    kind = card["quantity"].str.split(":").str[0].map({"flux": "pixels", "EW": "EW"})
    asked = card["method"].isin(["exact", "mixture", "wiener"]) & card["sample"].isin(["simulated", "real"])
    rows = card[asked & kind.notna() & card["p_value"].notna()].assign(what=kind)
    out = rows.groupby(["sample", "method", "what"])["p_value"].agg(
        asked="size", below_01=lambda p: int((p < 0.01).sum()), by_chance=lambda p: 0.01 * len(p))
    return out.reset_index()


def pages() -> None:
    """results/exact_*.csv and their tables in docs/results.md; rho.csv and its in judge.md."""
    rhos()
    table = pd.read_parquet(RESULTS / "judge.parquet")
    ratio, cover, odd = ratios(table), coverages(table), uniform(pd.read_csv(RESULTS / "judge_summary.csv"))
    ratio.round(4).to_csv(RESULTS / "exact_ratios.csv", index=False)
    cover.round(4).to_csv(RESULTS / "exact_coverage.csv", index=False)
    odd.to_csv(RESULTS / "exact_uniform.csv", index=False)
    told = {name: with_error(ratio, name, 3) for name in ("rms", "pooled", "EW")}
    short = ratio.assign(**told)
    shown = short[["sample", "over", "snr", "stars", "rms", "pooled", "pooled_1", "pooled_3", "better", "better_p",
                   "worse", "above", "EW"]]
    fill(DOCS / "results.md", {"exact-ratios": shown.round(3),
                               "exact-coverage": shown_coverages(cover), "exact-uniform": odd, "exact-pull": pull(),
                               **exact_kinds.marks(table)})
    print(short.to_string(), cover.round(3).to_string(), sep="\n")


def main() -> None:
    argparse.ArgumentParser(prog="python -m scripts.exact_pages", description=pages.__doc__).parse_args()
    pages()


if __name__ == "__main__":
    main()
