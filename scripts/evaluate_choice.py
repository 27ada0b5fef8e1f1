"""Chooses the real components' residual inflation on training stars alone, by leaving a third of them out."""

from __future__ import annotations

import argparse
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from core.data import real_stars
from core.models.observation import Observation
from core.models.prior_fit import Recipe, complete, join, real_components
from core.spectrum import WHITE, Spectra
from scripts.evaluate_reality import observed, prior_of
from scripts.pages import DOCS, fill

ROOT = Path(__file__).resolve().parents[1]
INFLATE = (1.0, 1.5, 2.0, 3.0)


def _job(task: tuple[Spectra, Spectra, float, float]) -> dict[str, float]:
    """Worker: real components learned from some stars, asked about others: evidence, coverage, chi-square, rms."""
    torch.set_num_threads(1)
    learn, ask, inflate, snr = task
    physics = prior_of("physics", 0.0)
    whole, variance = complete(physics, learn)
    groups = np.nan_to_num(learn.meta["teff"].to_numpy(float), nan=3500.0)
    real = real_components(whole, variance, Recipe().edges, groups, inflate)
    mixture = join(physics, real, Recipe().share, 0.0)
    question = Observation.of(replace(observed(ask, snr, "white"), noise=WHITE))
    rows = []
    for b in range(len(ask)):
        posterior = mixture.posterior(question.star(b))
        mean, deviation = (x.numpy().astype(float) for x in posterior.moments())
        live = ask.measured[b]
        z = (mean - ask.flux[b])[live] / deviation[live]
        mse = np.mean((mean - ask.flux[b])[live] ** 2)
        rows.append((posterior.log_evidence, np.mean(np.abs(z) < 1), np.mean(z**2), mse))
    evidence, covered, chi2, mean_square = np.mean(rows, axis=0)
    return {"inflate": inflate, "snr": snr, "stars": len(ask), "log_evidence": evidence, "pixel_coverage": covered,
            "chi2": chi2, "rms": float(np.sqrt(mean_square))}


def choice(args: argparse.Namespace) -> None:
    """Inflation of the real components' residual, chosen on training stars; writes results/prior_choice.csv."""
    miles = real_stars.read(args.stars)["miles"]
    number = miles.meta["number"].to_numpy() % 4
    learn, ask = miles.select((number == 2) | (number == 3)), miles.select(np.flatnonzero(number == 1)[::2])
    tasks = [(learn, ask, inflate, snr) for inflate in INFLATE for snr in (10.0, 50.0)]
    with ProcessPoolExecutor(2) as pool:
        table = pd.DataFrame(list(pool.map(_job, tasks)))
    table.round(4).to_csv(ROOT / "results" / "prior_choice.csv", index=False)
    fill(DOCS / "results.md", {"choice": table.round(4)})
    print(table.round(4).to_string())
