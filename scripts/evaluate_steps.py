"""How few steps a conditional DDPM's draws may take: error, width and coverage against steps and eta."""

from __future__ import annotations

import argparse

import numpy as np
import pandas as pd

from core.pipeline import reconstruct
from core.spectrum import Array
from scripts import judge_stars
from scripts.evaluate_judge import RESULTS

TABLE = RESULTS / "study_steps.csv"
_SEED = 777  # of stars that are not the judge's
WAYS = ((50, 0.0), (20, 0.0), (12, 0.0), (50, 1.0), (20, 1.0))  #: steps and eta


def steps(args: argparse.Namespace) -> None:
    """Steps and eta of supervised_ivar on six stars at S/N 10 that the judge does not ask about; study_steps.csv."""
    asked = judge_stars.simulated(10.0, 6, _SEED)
    first: Array | None = None
    rows = []
    for number, eta in WAYS:
        answer = reconstruct(asked.spectra, "supervised_ivar", args.slow_draws, 0, steps=number, eta=eta)
        first = answer.draws if first is None else first
        rows.append({"steps": number, "eta": eta, "stars": len(asked.spectra), "draws": args.slow_draws,
                     **scores(answer.draws, asked.truth), "apart": apart(answer.draws, first) if eta == 0 else np.nan})
    pd.DataFrame(rows).to_csv(TABLE, index=False, float_format="%.4g")


def scores(draws: Array, truth: Array) -> dict[str, float]:
    """Of draws (n, B, L): the median star's rms of their mean and mean spread, and the share of pixels between their
    16 and 84 % quantiles."""
    low, high = np.quantile(draws, (0.16, 0.84), axis=0)
    return {"rms": float(np.median(np.sqrt(((draws.mean(0) - truth) ** 2).mean(1)))),
            "spread": float(np.median(draws.std(0, ddof=1).mean(1))),
            "inside": float(((truth >= low) & (truth <= high)).mean())}


def apart(draws: Array, first: Array) -> float:
    """rms difference of draws from one start to one end, over the spread of the first."""
    return float(np.sqrt(((draws - first) ** 2).mean() / first.var(0, ddof=1).mean()))
