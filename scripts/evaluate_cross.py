"""Cross-validates the prior's recipe inside the real training stars: one number at a time, star by star against it.

The real half: a prior learned from two folds is asked about stars of the third, in the joint mixture with the committed
physics, which has seen the asked stars in its reality factors. Reality alone: learned from one
fold's residuals against synthetic physics, asked about another's.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from core.data.reality import fit_reality, label_features
from core.models.prior_fit import complete, honest_spread
from core.spectrum import Array, Spectra
from scripts.cross_fit import SNR, Real, compared, independent, joint, kept, kept_arrays, shown, some, training
from scripts.evaluate_choice import asked
from scripts.evaluate_reality import prior_of
from scripts.evaluate_without import gaps_of, learning
from scripts.pages import DOCS, fill, with_error

ROOT = Path(__file__).resolve().parents[1]
FOLDS = (1, 2, 3)
REAL: dict[str, tuple[str, Real]] = {
    "shipped": ("", Real()),
    "25 + 15 factors": ("factors", Real(most=(25, 15))),
    "40 + 25 factors": ("factors", Real(most=(40, 25))),
    "70 + 40 factors": ("factors", Real(most=(70, 40))),
    "150 + 90 factors": ("factors", Real(most=(150, 90))),
    "no cells": ("cells", Real(edges=())),
    "3 cells": ("cells", Real(edges=(0, 4800, 6500, 1e6))),
    "8 cells": ("cells", Real(edges=(0, 3900, 4500, 5000, 5500, 6000, 7000, 9000, 1e6))),
    "share .2": ("share", Real(share=0.2)),
    "share .8": ("share", Real(share=0.8)),
}
#: name: (its axis, factors of reality, columns of `label_features`, ridge of their slopes in stars)
REALITY: dict[str, tuple[str, int, tuple[int, ...], float]] = {
    "shipped": ("", 30, (0, 1, 2, 3, 4, 5, 6), 3.0),
    "5 factors": ("factors", 5, (0, 1, 2, 3, 4, 5, 6), 3.0),
    "15 factors": ("factors", 15, (0, 1, 2, 3, 4, 5, 6), 3.0),
    "60 factors": ("factors", 60, (0, 1, 2, 3, 4, 5, 6), 3.0),
    "90 factors": ("factors", 90, (0, 1, 2, 3, 4, 5, 6), 3.0),
    "no labels": ("labels", 30, (0,), 3.0),
    "linear in labels": ("labels", 30, (0, 1, 2, 3), 3.0),
    "ridge .3": ("shrinkage", 30, (0, 1, 2, 3, 4, 5, 6), 0.3),
    "ridge 30": ("shrinkage", 30, (0, 1, 2, 3, 4, 5, 6), 30.0),
}
_STRIDE = 4  # every fourth pixel: neighbours are correlated and tell little more
_LIMIT = 0.04  # of the residual of stars that reality learns from, as in a build


def real_rows(miles: Spectra, each: int, folds: list[int]) -> pd.DataFrame:
    """The real half's axes: learned from two folds of MILES, asked about `each` of the third, in some folds."""
    physics = prior_of("physics", 0.0)
    whole, variance = kept_arrays("complete-miles", complete, independent(physics), miles)
    fold, teff = miles.meta["number"].to_numpy() % 4, miles.meta["teff"].to_numpy(float)

    def of(recipe: Real, out: int) -> pd.DataFrame:
        learn, stars = fold != out, some(miles, fold, out, each)
        mixture = joint(physics, whole[learn], variance[learn], teff[learn], recipe)
        return pd.concat([asked(mixture, stars, snr) for snr in SNR])

    return pd.concat([kept(f"real-{each}-{out}-{variant}", of, recipe, out)
                      .assign(axis=axis, variant=variant) for out in folds for variant, (axis, recipe) in REAL.items()])


def star_evidence(gap: Array, variance: Array, factors: Array) -> tuple[float, float]:
    """log N(gap; 0, factors' factors + diag(variance)) of one star's live pixels (p,), and its chi-square a pixel."""
    inner = (factors / variance) @ factors.T + np.eye(len(factors))
    u = np.linalg.solve(np.linalg.cholesky(inner), (factors / variance) @ gap)
    distance = float((gap**2 / variance).sum() - (u**2).sum())
    log_det = float(np.log(variance).sum()) + float(np.linalg.slogdet(inner)[1])
    return -0.5 * (distance + log_det + len(gap) * np.log(2 * np.pi)), distance / len(gap)


def reality_rows(libraries: dict[str, Spectra], simulated: int) -> pd.DataFrame:
    """Reality alone: learned from half of the training stars' residuals against synthetic physics, asked of the rest.

    As a Gaussian of its mean, its factors and its spread, which comes from stars left out within the half.
    """
    stars = learning(libraries)
    gaps = gaps_of(stars, simulated)
    gap, seen = (np.concatenate([gaps[name][i] for name in stars])[:, ::_STRIDE] for i in (0, 1))
    number = np.concatenate([s.meta["number"].to_numpy() for s in stars.values()])
    name = np.concatenate([s.stars for s in stars.values()])
    noise = np.concatenate([[np.median(1 / s.ivar[b][s.measured[b]]) for b in range(len(s))] for s in stars.values()])
    features = label_features(*(np.concatenate([s.meta[k].to_numpy(float) for s in stars.values()])
                                for k in ("teff", "logg", "feh")))
    use = np.sqrt((gap**2 * seen).sum(axis=1) / np.maximum(seen.sum(axis=1), 1)) < _LIMIT
    gap, seen, number, name, noise, features = (x[use] for x in (gap, seen > 0, number, name, noise, features))
    weight = np.where(seen, 1 / noise[:, None], 0.0)

    def of(factors: int, columns: tuple[int, ...], ridge: float) -> pd.DataFrame:
        design, rows = features[:, columns], []
        for out in (2, 3):
            learn = number % 4 != out
            learned = fit_reality(gap[learn], weight[learn], design[learn], factors, ridge)
            spread = honest_spread(gap[learn], weight[learn], design[learn], factors, ridge=ridge)
            for i in np.flatnonzero(~learn):
                label = design[i] if np.isfinite(design[i]).all() else np.eye(len(columns))[0]
                live = seen[i]
                evidence, chi2 = star_evidence((gap[i] - label @ learned.mean)[live], spread[live] ** 2 + noise[i],
                                               learned.factors[:, live])
                rows.append({"star": name[i], "log_evidence": evidence, "chi2": chi2})
        return pd.DataFrame(rows)

    return pd.concat([kept(f"reality-{simulated}-{variant}", of, *what).assign(axis=axis, variant=variant)
                      for variant, (axis, *what) in REALITY.items()])


def reality_table(rows: pd.DataFrame) -> pd.DataFrame:
    """By variant: evidence and chi-square, and the difference of evidence to the shipped one star by star."""
    base = rows[rows["variant"] == "shipped"].set_index("star")["log_evidence"]
    out = []
    for (axis, variant), part in rows.groupby(["axis", "variant"], sort=False):
        gap = part.set_index("star")["log_evidence"] - base
        out.append({"axis": axis, "variant": variant, "stars": len(part), "log_evidence": part["log_evidence"].mean(),
                    "chi2": part["chi2"].mean(), "median_chi2": part["chi2"].median(), "d_evidence": gap.mean(),
                    "d_evidence_err": gap.std(ddof=1) / np.sqrt(len(gap)), "median_d_evidence": gap.median()})
    return pd.DataFrame(out)


def cross(args: argparse.Namespace) -> None:
    """The prior's recipe, a number at a time, inside the training stars; writes results/prior_cross_validation.csv."""
    torch.set_num_threads(1)
    libraries = training(args.stars)
    both = compared(real_rows(libraries["miles"], args.asked, args.folds), "shipped")
    reality = reality_table(reality_rows(libraries, args.simulated))
    table = pd.concat([both.assign(half="real"), reality.assign(half="reality of physics")])
    table.round(5).to_csv(ROOT / "results" / "prior_cross_validation.csv", index=False)
    gap = with_error(reality, "d_evidence", 1)
    fill(DOCS / "results.md", {"cross-real": shown(both), "cross-reality": reality.drop(columns="d_evidence_err")
                               .assign(d_evidence=gap).round(2)})
    print(table.round(4).to_string())
