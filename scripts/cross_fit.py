"""What cross-validation inside the real training stars is made of: folds, finished pieces, paired comparison.

Folds are the stars' numbers modulo four; 0 is held out and left behind when the stars are read.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from core.checkpoint import sha256
from core.data import real_stars
from core.models.mixture import Mixture
from core.models.prior_fit import Recipe, join
from core.models.real_components import MOST, autocorrelation, left_out_residual, real_components, taps_of
from core.spectrum import Array, Spectra
from scripts.pages import with_error

ROOT = Path(__file__).resolve().parents[1]
SNR = (10.0, 50.0)
#: what is finished is kept here and not made again while checkpoints and code are the same
KEPT = ROOT / ".trueline" / "cross"


@dataclass(frozen=True)
class Real:
    """Numbers of the real half: most factors of all stars and of a cell, cells' edges [K], prior probability."""

    most: tuple[int, int] = MOST
    edges: tuple[float, ...] = Recipe().edges
    share: float = Recipe().share


@lru_cache(maxsize=1)
def made_by() -> str:
    """Ten digits for the checkpoints and the code that a piece hangs on: pieces of other ones are not taken for it."""
    files = [*(ROOT / "core" / "models").glob("*.py"), *(ROOT / "core" / "data").glob("*.py"),
             *(ROOT / "scripts").glob("evaluate_*.py"), *(ROOT / "checkpoints").glob("*.safetensors")]
    return sha256(*sorted(files))[:10]


def kept(name: str, make: Callable[..., pd.DataFrame], *what: Any) -> pd.DataFrame:
    """The finished piece `make(*what)`, or a new one, which is kept."""
    path = KEPT / f"{name}-{made_by()}.parquet"
    if not path.exists():
        KEPT.mkdir(parents=True, exist_ok=True)
        make(*what).to_parquet(path)
        print(name, flush=True)
    return pd.read_parquet(path)


def kept_arrays(name: str, make: Callable[..., tuple[Array, Array]], *what: Any) -> tuple[Array, Array]:
    """The same for two arrays."""
    path = KEPT / f"{name}-{made_by()}.npz"
    if not path.exists():
        KEPT.mkdir(parents=True, exist_ok=True)
        first, second = make(*what)
        np.savez(path, first=np.asarray(first, dtype=np.float32), second=np.asarray(second, dtype=np.float32))
        print(name, flush=True)
    with np.load(path) as a:
        return a["first"].astype(float), a["second"].astype(float)


def training(folder: Path) -> dict[str, Spectra]:
    """The real stars that may be learned from, by library; the held-out ones are left behind here."""
    return {name: s.select(~s.meta["held_out"].to_numpy()) for name, s in real_stars.read(folder).items()}


def independent(physics: Mixture) -> Mixture:
    """Its components with the usual residual, uncorrelated: what a build completes stars with."""
    return Mixture(physics.log_weight, physics.mean, physics.factors, physics.residual, physics.kinds, 0.0)


def joint(physics: Mixture, whole: Array, variance: Array, teff: Array, recipe: Real) -> Mixture:
    """A mixture of both kinds, its real half learned from completed stars (n, L) of temperatures (n,) [K or NaN]."""
    # stars without a temperature are M, carbon or peculiar: with the coolest, as in a build
    real = real_components(whole, variance, recipe.edges, np.nan_to_num(teff, nan=3500.0), recipe.most)
    taps = taps_of(autocorrelation(left_out_residual(whole, recipe.most[0]), variance == 0))
    return join(physics, real, recipe.share, 0.0, taps, Recipe().scales)


def compared(rows: pd.DataFrame, usual: str) -> pd.DataFrame:
    """By variant and S/N: scores, and differences to the usual recipe star by star with standard errors.

    Args:
        rows: one for each star, with the columns of `asked`, `axis` and `variant`.

    Returns:
        a table; `d_evidence` is the mean difference of log evidence a star (and `median_d_evidence` the median),
        `d_log_rms` the mean difference of ln(rms of the star).
    """
    out = []
    for (axis, variant, snr), part in rows.groupby(["axis", "variant", "snr"], sort=False):
        base = rows[(rows["variant"] == usual) & (rows["snr"] == snr)].set_index("star").loc[part["star"]]
        mine = part.set_index("star")
        gaps = {"d_evidence": mine["log_evidence"] - base["log_evidence"],
                "d_log_rms": 0.5 * np.log(mine["mse"] / base["mse"])}
        row = {"axis": axis, "variant": variant, "snr": snr, "stars": len(part),
               "log_evidence": part["log_evidence"].mean(), "pixel_coverage": part["covered"].mean(),
               "ew_coverage": part["ew_inside"].sum() / part["ew_lines"].sum(), "chi2": part["chi2"].mean(),
               "median_chi2": part["chi2"].median(), "rms": float(np.sqrt(part["mse"].mean()))}
        for name, gap in gaps.items():
            row |= {name: gap.mean(), f"{name}_err": gap.std(ddof=1) / np.sqrt(len(gap))}
        row["median_d_evidence"] = gaps["d_evidence"].median()  # a few odd stars may set the mean
        out.append(row)
    return pd.DataFrame(out)


def some(stars: Spectra, fold: Array, number: int, each: int) -> Spectra:
    """`each` stars of one fold, evenly spaced in the library's order; all of them where there are fewer."""
    inside = np.flatnonzero(fold == number)
    return stars.select(inside[np.unique(np.linspace(0, len(inside) - 1, each).astype(int))])


def shown(table: pd.DataFrame) -> pd.DataFrame:
    """A table of `compared` for a page of the docs."""
    out = table.iloc[:, :2].assign(snr=table["snr"].map("{:.0f}".format), stars=table["stars"])
    for name in ("pixel_coverage", "ew_coverage", "chi2", "median_chi2"):
        out[name] = table[name].map("{:.2f}".format)
    out["rms"] = table["rms"].map("{:.4f}".format)
    out["d_evidence"] = with_error(table, "d_evidence")
    out["median_d_evidence"] = table["median_d_evidence"].map("{:.2f}".format)
    return out.assign(d_rms_percent=with_error(table, "d_log_rms", 1, 100))
