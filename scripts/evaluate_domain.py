"""Its part on the domain score: how many stars of the prior, and of the sky, it calls foreign; results/domain.csv."""

from __future__ import annotations

import argparse
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pandas as pd
import torch

from core import believed
from core.domain import score
from core.spectrum import Spectra
from scripts.judge_stars import real, simulated

ROOT = Path(__file__).resolve().parents[1]
SNR = (10.0, 30.0, 100.0)


def _job(task: tuple[Spectra, str, str, float]) -> dict[str, object]:
    """Worker: one star."""
    torch.set_num_threads(1)
    spectra, sample, library, at = task
    found = score(spectra)
    return {"sample": sample, "library": library, "snr": at, "star": spectra.stars[0], "misfit": found.misfit,
            "beyond": found.misfit > believed.OUTSIDE, "flagged": bool(found.flags), "outside": not found.inside}


def domain(args: argparse.Namespace) -> None:
    """Share of simulated and of held-out real stars called outside, at three S/N; writes results/domain.csv."""
    asked = [simulated(at, args.number) for at in SNR]
    if args.stars.exists():
        asked += [a for at in SNR for a in real(at, args.number // 2, args.stars)]
    tasks = [(a.spectra.select(b), a.sample, a.library, a.snr) for a in asked for b in range(len(a.spectra))]
    with ProcessPoolExecutor(args.workers) as pool:
        rows = pd.DataFrame(list(pool.map(_job, tasks)))
    table = rows.groupby(["sample", "library", "snr"]).agg(
        stars=("star", "size"), outside=("outside", "mean"), beyond=("beyond", "mean"), flagged=("flagged", "mean"),
        misfit_16=("misfit", lambda m: m.quantile(0.16)), misfit=("misfit", "median"),
        misfit_84=("misfit", lambda m: m.quantile(0.84))).reset_index()
    table.round(3).to_csv(ROOT / "results" / "domain.csv", index=False)
    print(table.round(3).to_string())
