"""What the judge found, as the short tables of docs/judge.md: gates, biases, coverage, the audit."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from scripts.audit_counts import counts, shown_counts
from scripts.exact_pages import of_the_mean
from scripts.pages import DOCS, fill
from scripts.shares import common, share

RESULTS = Path(__file__).resolve().parents[1] / "results"
_STRONG = ("EW:Ca II K", "EW:G band", "EW:H beta", "EW:Mg b", "EW:Fe 5270", "EW:H alpha", "EW:Ca II 8542")
_ORDER = ("noisy", "savgol", "wavelet", "pca", "wiener", "mixture", "exact", "dps")


def _missed(share: float) -> str:
    """Which gate a share inside 68 % misses: the seed's, ours, or none."""
    return " x" if not 0.60 <= share <= 0.75 else " ." if not 0.66 <= share <= 0.70 else ""


def sizes(rows: pd.DataFrame) -> pd.Series:
    """How large a sample's truths are, by quantity: mean |EW| [Angstrom] and whatever else, but the median Teff [K].

    Args:
        rows: of the tidy table of one sample, truths known.
    """
    by = rows["truth"].abs().groupby(rows["quantity"].astype(str))
    out = by.mean()
    if "Teff" in out:
        out["Teff"] = by.median()["Teff"]
    return out


def gates(card: pd.DataFrame, widths: pd.Series, sample: str) -> pd.DataFrame:
    """The seed's gates, method by method and S/N: the number and whether it passes.

    Args:
        card: of results/judge_summary.csv; widths: as of `sizes`.

    Returns:
        EW bias (mean over strong lines of |median bias| / mean |EW|, < 5 %), RV bias (|median|, < 1 km/s), bias of
        Teff (|median| / median Teff / ln 10), logg and [Fe/H] (|median|; each < .05 dex), shares of EWs and [Fe/H]
        inside 68 % (60-75 %). An "x" behind a number says that this gate is missed, a "." that only the tighter one
        of 66-70 % is. Each bias has its error, and an "x" only where it is more than two of them beyond the gate; a "?"
        where it is beyond by less.
    """
    out = []
    mine = card[card["sample"] == sample]
    for (method, snr), rows in mine.groupby(["method", "snr"]):
        by = rows.set_index("quantity")
        lines = [q for q in _STRONG if q in by.index]
        # the error of a median is sqrt(pi / 2) times that of a mean; scatter is the robust one that the card has
        error = np.sqrt(np.pi / 2) * by["scatter"] / np.sqrt(by["stars"])
        told = {q: (abs(by["median_bias"].get(q, np.nan)), error.get(q, np.nan))
                for q in ("RV", "Teff", "logg", "[Fe/H]")}
        off_lines = np.sqrt(((error[lines] / widths[lines]) ** 2).sum()) / max(len(lines), 1)
        dex = widths.get("Teff", np.nan) * np.log(10)
        numbers = {"EW bias [%]": (100 * (by.loc[lines, "median_bias"].abs() / widths[lines]).mean(),
                                   100 * off_lines, 5.0),
                   "RV bias [km/s]": (*told["RV"], 1.0),
                   "Teff bias [dex]": (told["Teff"][0] / dex, told["Teff"][1] / dex, 0.05),
                   "logg bias": (*told["logg"], 0.05), "[Fe/H] bias": (*told["[Fe/H]"], 0.05)}
        row: dict[str, object] = {"method": method, "S/N": int(snr)}
        for name, (value, off, most) in numbers.items():
            mark = " x" if value - 2 * off >= most else " ?" if value >= most else ""
            row[name] = "-" if pd.isna(value) else f"{value:.2g} +- {off:.1g}{mark}"
        for name, quantity in (("EWs inside", lines), ("[Fe/H] inside", ["[Fe/H]"])):
            share = round(by.loc[quantity, "coverage"].mean(), 6)  # a mean of seven .7 is a hair above .7
            row[name] = "-" if pd.isna(share) else f"{share:.2f}" + _missed(share)
        out.append(row)
    table = pd.DataFrame(out)
    rank = table["method"].map({m: i for i, m in enumerate(_ORDER)}).fillna(len(_ORDER))
    return table.assign(rank=rank).sort_values(["rank", "S/N"]).drop(columns="rank")


def errors(table: pd.DataFrame, sample: str) -> pd.DataFrame:
    """Median star's rms and SSIM by method and S/N, of stars that the exact posterior was asked about as well; what few
    draws add to an rms is taken off.
    """
    rows = of_the_mean(common(table[table["sample"] == sample]))
    rms, ssim = (rows[rows["quantity"] == q].groupby(["method", "snr"], observed=True)["mean"].median()
                 .unstack().astype(float).round(4) for q in ("rms", "ssim"))
    out = rms.astype(str) + " / " + ssim.round(3).astype(str)
    out.columns = [f"S/N {c:.0f}" for c in out.columns]
    return out.reindex([m for m in _ORDER if m in out.index]).reset_index()


def coverage(table: pd.DataFrame, card: pd.DataFrame, sample: str) -> pd.DataFrame:
    """Share inside 68 % of what methods with draws claim, with its error: all lines together, velocities, labels,
    pixels, by `scripts.shares.share`. Of depths, whose rows are not kept, the card's mean over lines without an error.

    Args:
        table: of results/judge.parquet; card: of results/judge_summary.csv.
    """
    rows = common(table[table["sample"] == sample])
    rows = rows[rows["truth"].notna()].assign(
        what=rows["quantity"].astype(str).str.split(":").str[0].replace({"flux": "pixels"}))
    out = []
    for (method, what, snr), part in rows.groupby(["method", "what", "snr"], observed=True):
        value, error, n = share(part)
        if n:
            out.append({"method": method, "what": what, "snr": snr, "shown": f"{value:.2f} +- {error:.2f}"})
    deep = card[(card["sample"] == sample) & card["coverage"].notna() & card["quantity"].str.startswith("depth:")]
    out += [{"method": method, "what": "depth", "snr": snr, "shown": f"{value:.2f}"}
            for (method, snr), value in deep.groupby(["method", "snr"])["coverage"].mean().items()]
    wide = pd.DataFrame(out).pivot_table(index=["method", "what"], columns="snr", values="shown", aggfunc="first")
    wide.columns = [f"S/N {c:.0f}" for c in wide.columns]
    return wide.reset_index()


def remedies(card: pd.DataFrame) -> pd.DataFrame:
    """Remedies for the flag's power by S/N: flagged of all lines of 5-10 sigma, of those removed; false alarms.

    Args:
        card: of results/audit_remedies.csv.
    """
    def shown(all_: float, removed: float) -> str:
        return f"{all_:.2f} / {removed:.2f}"

    rows = []
    card = card[card["method"] == "mixture"]  # of which the page speaks
    for name, part in card.groupby("remedy", sort=False):
        row: dict[str, object] = {"remedy": name}
        row |= {f"S/N {r.snr:.0f}": shown(r.flagged_5_10, r.caught_5_10) for r in part.itertuples()}
        rows.append(row | {"false alarms [%]": round(100 * part["false_alarms"].sum() / part["null_stars"].sum(), 2)})
    best = card.drop_duplicates("snr")
    rows.append({"remedy": "matched filter",
                 **{f"S/N {r.snr:.0f}": shown(r.limit_5_10, r.could_5_10) for r in best.itertuples()},
                 "false alarms [%]": 1.0})
    return pd.DataFrame(rows)


def pages() -> None:
    """Fill docs/judge.md from results/judge*.csv, judge.parquet and the audit's tables."""
    card = pd.read_csv(RESULTS / "judge_summary.csv")
    table = pd.read_parquet(RESULTS / "judge.parquet")
    parts: dict[str, pd.DataFrame] = {}
    for sample in ("simulated", "real"):
        if sample not in set(card["sample"]):
            continue
        rows = table[(table["sample"] == sample) & table["truth"].notna()]
        parts |= {f"gates-{sample}": gates(card, sizes(rows), sample), f"errors-{sample}": errors(table, sample),
                  f"coverage-{sample}": coverage(table, card, sample)}
    if (RESULTS / "audit_summary.csv").exists():
        audit = pd.read_csv(RESULTS / "audit_summary.csv").round(2)
        audit["rank"] = audit["method"].map({m: i for i, m in enumerate(_ORDER)})
        counted = counts(pd.read_parquet(RESULTS / "audit.parquet"))
        counted.round(4).to_csv(RESULTS / "audit_counts.csv", index=False)
        parts["audit-counts"] = shown_counts(counted)
        parts["audit"] = audit.sort_values(["rank", "snr"]).drop(columns=["rank", "gap_z2"])
    if (RESULTS / "audit_remedies.csv").exists():
        parts["audit-remedies"] = remedies(pd.read_csv(RESULTS / "audit_remedies.csv"))
    fill(DOCS / "judge.md", parts)


def main() -> None:
    argparse.ArgumentParser(prog="python -m scripts.judge_pages", description=pages.__doc__).parse_args()
    pages()


if __name__ == "__main__":
    main()
