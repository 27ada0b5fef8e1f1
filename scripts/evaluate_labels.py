"""The mixture's labels in closed form: bias, error and coverage on simulated and held-out real stars."""

from __future__ import annotations

import argparse
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from core.metrics.calibration import summary
from core.metrics.table import rows_of
from core.models.estimators import RidgeLabels
from core.models.mixture import Mixture
from core.models.mixture_labels import MixtureLabels
from core.models.observation import Observation
from core.pipeline import NAMES, infer
from core.spectrum import LABELS, Samples, star_seed
from scripts.judge_stars import SEED, Asked, real, simulated
from scripts.pages import DOCS, fill

ROOT = Path(__file__).resolve().parents[1]
SNR = (10.0, 30.0, 100.0)
_DRAWS, _STARS = 200, 100
_KNOWN = 32  # times a known spectrum is passed through the estimator


def _job(asked: Asked) -> pd.DataFrame:
    """Worker: rows of the tidy table for one sample at one S/N."""
    torch.set_num_threads(1)
    mixture, labels = Mixture.load(), MixtureLabels.load()
    question = Observation.of(asked.spectra)
    draws = np.stack([labels.draw(mixture.posterior(question.star(b)), _DRAWS,
                                  np.random.default_rng(star_seed(star, SEED, "closed labels")))
                      for b, star in enumerate(asked.spectra.stars)], axis=1)
    names = {**NAMES, "rv": "RV"}
    parts = [rows_of(asked.spectra.stars, "mixture, closed form", names[label], unit, asked.snr, asked.labels[:, i],
                     draws[:, :, i], SEED) for i, (label, unit) in enumerate(LABELS.items())]
    return pd.concat(parts).assign(sample=asked.sample)


def labels(args: argparse.Namespace) -> None:
    """p(labels | y) of the mixture in closed form; writes results/labels_closed.csv."""
    asked = [simulated(at, _STARS) for at in SNR]
    if args.stars.exists():
        asked += [a for at in SNR for a in real(at, _STARS, args.stars) if np.isfinite(a.labels[:, 0]).any()]
    with ProcessPoolExecutor(args.workers) as pool:
        table = pd.concat(list(pool.map(_job, asked)), ignore_index=True)
    table = table[table["truth"].notna()]
    out = [summary(rows).assign(sample=sample) for sample, rows in table.groupby("sample")]
    card = pd.concat(out)[["sample", "quantity", "snr", "stars", "bias", "bias_err", "rmse", "width", "coverage",
                           "chi_square"]]
    card.round(4).to_csv(ROOT / "results" / "labels_closed.csv", index=False)
    fill(DOCS / "judge.md", {"labels": card.round(3)})
    print(card.round(3).to_string())


def control(args: argparse.Namespace) -> None:
    """Label intervals when the clean spectrum is known exactly: what the estimator alone makes of them; writes
    results/estimator_control.csv.
    """
    ridge = RidgeLabels.load(ROOT / "checkpoints" / "ridge.safetensors")
    parts = []
    for at in SNR:
        asked = simulated(at, args.number)
        draws = np.repeat(asked.truth[None], _KNOWN, axis=0)
        parts.append(infer(Samples(asked.spectra.wave, draws, "clean spectrum"), asked.spectra, ridge, asked.labels,
                           np.full(args.number, at), SEED, scatter=True))
    table = summary(pd.concat(parts, ignore_index=True))
    card = table[["method", "quantity", "snr", "stars", "bias", "rmse", "width", "coverage", "coverage_err"]]
    card.round(4).to_csv(ROOT / "results" / "estimator_control.csv", index=False)
    fill(DOCS / "judge.md", {"labels-control": card.round(3)})
    print(card.round(3).to_string())
