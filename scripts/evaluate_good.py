"""A very good spectrum must come back as it is: the judge's stars at an S/N that no other table asks about."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from scripts.evaluate_judge import RESULTS, WORK, plan, run
from scripts.exact_pages import of_the_mean
from scripts.judge_stars import foremost, simulated
from scripts.pages import DOCS, fill, with_error
from scripts.shares import inside
from scripts.study_tables import resampled

METHODS = ("noisy", "wiener", "mixture", "exact")
_SNR, _STARS, _DRAWS = 200.0, 60, 8


def good(args: argparse.Namespace) -> None:
    """Does a very good spectrum come back as it is: the first stars at S/N 200; writes results/exact_good.csv."""
    folder: Path = args.pieces or WORK / "good"
    folder.mkdir(parents=True, exist_ok=True)
    asked = [foremost(simulated(_SNR, args.number), args.first or _STARS)]
    run(plan(asked, list(METHODS), _DRAWS, folder), args.workers, folder)
    rows = pd.concat([pd.read_parquet(f) for f in sorted(folder.glob("*.table"))], ignore_index=True)
    table = compared(rows[rows["snr"] == _SNR])
    table.round(5).to_csv(RESULTS / "exact_good.csv", index=False)
    print(table.to_string())
    pages(table)


def compared(rows: pd.DataFrame) -> pd.DataFrame:
    """By method: error and likeness on the same stars, and the share of truths inside 68 %.

    Args:
        rows: of the judge, the same stars of each method.

    Returns:
        method, stars, rms (median star, without what so few draws add), over_<m> and over_<m>_err (geometric mean over
        stars of its rms over that of `noisy`, `wiener`, `mixture`), worst (the largest of a star over `noisy`), chi2
        (median star), pixels and EW (share inside 68 %, NaN of point estimates).
    """
    rows = of_the_mean(rows)
    rms = rows[rows["quantity"] == "rms"].pivot_table(index="star", columns="method", values="mean", observed=True)
    out = []
    for method in [m for m in METHODS if m in rms]:
        mine = rows[rows["method"] == method]
        name = mine["quantity"].astype(str)
        row = {"method": method, "stars": int(rms[method].notna().sum()), "rms": float(rms[method].median()),
               "chi2": float(mine.loc[name == "chi2", "mean"].median())}
        for rival in ("noisy", "wiener", "mixture"):
            gap = np.log(rms[method] / rms[rival]).dropna() if rival in rms else pd.Series(dtype=float)
            middle = float(np.exp(gap.mean()))
            row |= {f"over_{rival}": middle,
                    f"over_{rival}_err": middle * resampled(gap, np.mean) if len(gap) else np.nan}
        row["worst"] = float((rms[method] / rms["noisy"]).max())
        for what, mark in (("pixels", "flux:"), ("EW", "EW:")):
            part = mine[name.str.startswith(mark) & (mine["n"] > 1) & mine["truth"].notna()]
            row[what] = inside(part) if len(part) else np.nan
        out.append(row)
    return pd.DataFrame(out)


def pages(table: pd.DataFrame) -> None:
    """The table in docs/results.md."""
    shown = pd.DataFrame({
        "method": table["method"], "stars": table["stars"], "rms [1e-4]": (1e4 * table["rms"]).round(1),
        "chi2": table["chi2"].round(2),
        **{f"over {m}": with_error(table, f"over_{m}", 3) for m in ("noisy", "wiener", "mixture")},
        "worst over noisy": table["worst"].round(3),
        "pixels inside": table["pixels"].map(lambda v: "-" if pd.isna(v) else f"{v:.3f}"),
        "EW inside": table["EW"].map(lambda v: "-" if pd.isna(v) else f"{v:.3f}")})
    fill(DOCS / "results.md", {"exact-good": shown})
