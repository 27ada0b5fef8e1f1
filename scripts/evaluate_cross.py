"""Cross-validates the prior's recipe inside the real training stars: one number at a time, star by star against it.

The real half: a prior learned from two folds is asked about stars of the third, in the joint mixture with the committed
physics, which has seen the asked stars in its reality factors. The physics half: it alone, learned anew from two folds.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd
import torch

from core.models.mixture import Mixture
from core.models.prior_fit import complete
from core.spectrum import Spectra
from scripts.cross_fit import SNR, Real, compared, independent, joint, kept, kept_arrays, shown, some, training
from scripts.evaluate_choice import asked
from scripts.evaluate_reality import prior_of
from scripts.evaluate_without import ASKED, gaps_of, learning, physics
from scripts.pages import DOCS, fill

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
#: name: (its axis, factors of reality, components, limit of the residual of stars that reality learns from)
PHYSICS: dict[str, tuple[str, int, int, float]] = {
    "as shipped": ("", 30, 16, 0.04),
    "8 components": ("components", 30, 8, 0.04),
    "32 components": ("components", 30, 32, 0.04),
    "15 reality factors": ("reality factors", 15, 16, 0.04),
    "60 reality factors": ("reality factors", 60, 16, 0.04),
    "limit .025": ("limit", 30, 16, 0.025),
    "limit .08": ("limit", 30, 16, 0.08),
}


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


def physics_rows(libraries: dict[str, Spectra], simulated: int, each: int, names: list[str]) -> pd.DataFrame:
    """The physics half alone (residual correlated and scaled as shipped): some of PHYSICS, asked about MILES."""
    stars, usual = learning(libraries), prior_of("physics", 0.0)
    gaps = gaps_of(stars, simulated)
    ask = some(libraries["miles"], libraries["miles"].meta["number"].to_numpy() % 4, ASKED, each)

    def of(factors: int, components: int, limit: float) -> pd.DataFrame:
        half = physics(stars, gaps, factors, components, limit, simulated)
        half = Mixture(half.log_weight, half.mean, half.factors, half.residual, half.kinds, 0.0, usual.taps,
                       usual.scales)
        return pd.concat([asked(half, ask, snr) for snr in SNR])

    return pd.concat([kept(f"physics-{simulated}-{each}-{name}", of, *what).assign(axis=axis, variant=name)
                      for name, (axis, *what) in PHYSICS.items() if name in names])


def cross(args: argparse.Namespace) -> None:
    """The prior's recipe, a number at a time, inside the training stars; writes results/prior_cross_validation.csv."""
    torch.set_num_threads(1)
    libraries = training(args.stars)
    both = compared(real_rows(libraries["miles"], args.asked, args.folds), "shipped")
    physical = compared(physics_rows(libraries, args.simulated, args.asked, args.physics), "as shipped")
    table = pd.concat([both.assign(half="both kinds"), physical.assign(half="physics")])
    table.round(5).to_csv(ROOT / "results" / "prior_cross_validation.csv", index=False)
    fill(DOCS / "results.md", {"cross-real": shown(both), "cross-physics": shown(physical)})
    print(table.round(4).to_string())
