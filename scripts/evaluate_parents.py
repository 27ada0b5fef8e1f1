"""Both kinds of prior against either alone in LAMOST's noise, star by star, on held-out real stars: reported only."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from core.data import real_stars
from scripts.cross_fit import kept
from scripts.evaluate_reality import kind_of, rows_of
from scripts.pages import DOCS, fill, with_error

ROOT = Path(__file__).resolve().parents[1]
SNR = (10.0, 20.0, 50.0)
PARENTS = ("physics", "real")


def ratios(rows: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """rms of *both* over that of each parent on the same stars, with bootstrap errors over stars.

    Args:
        rows: `prior`, `snr`, `star`, `kind`, `mse`, one for each star, prior and S/N.

    Returns:
        by group, S/N and parent: `rms_ratio` of all stars together (a few bad ones set it), `typical_ratio` the
        geometric mean over stars, `better` the share of stars on which *both* errs less.
    """
    rng = np.random.default_rng(seed)
    out = []
    groups = {"all": np.ones(len(rows), dtype=bool), "in domain": ~rows["kind"].isin(["unknown", "M", "O and B"])}
    for group, use in groups.items():
        wide = rows[use].pivot(index=["snr", "star"], columns="prior", values="mse")
        for snr, part in wide.groupby("snr"):
            pick = rng.integers(0, len(part), (1000, len(part)))
            for parent in PARENTS:
                both, other = part["both"].to_numpy(), part[parent].to_numpy()
                again = np.sqrt(both[pick].mean(axis=1) / other[pick].mean(axis=1))
                log = 0.5 * np.log(both / other)
                out.append({"group": group, "snr": snr, "stars": len(part), "parent": parent,
                            "rms_both": np.sqrt(both.mean()), "rms_parent": np.sqrt(other.mean()),
                            "rms_ratio": np.sqrt(both.mean() / other.mean()), "rms_ratio_err": again.std(),
                            "typical_ratio": np.exp(log.mean()),
                            "typical_ratio_err": np.exp(log.mean()) * log.std(ddof=1) / np.sqrt(len(log)),
                            "better": (both < other).mean()})
    return pd.DataFrame(out)


def page(table: pd.DataFrame) -> None:
    """The table of docs/results.md."""
    short = table[["group", "snr", "stars", "parent"]].assign(snr=table["snr"].map("{:.0f}".format))
    for name in ("rms_both", "rms_parent"):
        short[name] = table[name].map("{:.4f}".format)
    for name in ("rms_ratio", "typical_ratio"):
        short[name] = with_error(table, name, 3)
    fill(DOCS / "results.md", {"reality-parents": short.assign(better=table["better"].map("{:.2f}".format))})


def parents(args: argparse.Namespace) -> None:
    """Both kinds against either alone in LAMOST's noise, held-out stars; writes results/reality_parents.csv."""
    torch.set_num_threads(1)
    held = {name: s.select(s.meta["held_out"].to_numpy()) for name, s in real_stars.read(args.stars).items()}
    parts = {name: s.select(slice(0, None, args.every)) for name, s in held.items()}
    frames = [kept(f"parents-{args.every}-{prior}-{name}-{snr:.0f}",
                   rows_of, (prior, "LAMOST", snr, stars)).assign(prior=prior)
              for snr in SNR for prior in ("both", *PARENTS) for name, stars in parts.items()]
    rows = pd.concat(frames)
    meta = pd.concat([s.meta for s in held.values()])
    rows["kind"] = rows["star"].map(dict(zip(meta["star"], kind_of(meta), strict=True)))
    table = ratios(rows)
    table.round(5).to_csv(ROOT / "results" / "reality_parents.csv", index=False)
    page(table)
    print(table.round(4).to_string())
