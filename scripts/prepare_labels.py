"""Fits the label estimators on simulated stars, clean, in the units in which reconstructions come."""

from __future__ import annotations

import argparse
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from core.data import real_stars
from core.data.noise import NoiseModel
from core.data.reality import Reality
from core.data.simulator import Simulator
from core.models.estimators import LabelEstimator, MLPLabels, RidgeLabels
from core.models.mixture import Mixture
from core.models.mixture_labels import fit_labels
from core.models.prior_fit import complete
from core.models.templates import NATIVE, Templates
from core.spectrum import LABELS, Array

ROOT = Path(__file__).resolve().parents[1]
_SEED, _BATCH = 31, 250
_STARS, _REST = 16000, 12000  # for the regressions, and at rest for the closed form
_HELD_OUT = 0.3  # of a regression's stars measure its error: some thousands


def _draw(seed: int) -> tuple[Array, Array]:
    """Worker: clean stars in units of the curve through their noisy selves (S/N 4 to 300), and their labels."""
    torch.set_num_threads(1)
    templates = Templates()
    simulator = Simulator(templates, NATIVE, NoiseModel.load(), templates.emulator.nearest, Reality.load())
    rng = np.random.default_rng([_SEED, seed])
    stars = simulator.draw(_BATCH, rng, np.exp(rng.uniform(np.log(4), np.log(300), _BATCH)))
    return stars.truth.astype(np.float32), np.column_stack([stars.labels[:, 1:5], stars.spectra.meta["rv"]])


def _rest(seed: int) -> tuple[Array, Array]:
    """Worker: clean stars at rest on the wide grid, and their Teff, logg, [Fe/H], [alpha/Fe]."""
    torch.set_num_threads(1)
    templates = Templates()
    simulator = Simulator(templates, NATIVE, NoiseModel.load(), templates.emulator.nearest, Reality.load())
    stars, known = simulator.rest(_BATCH, np.random.default_rng([_SEED + 1, seed]))
    return stars.astype(np.float32), known[:, 1:5]


def closed_form(folder: Path) -> None:
    """Labels as unmeasured pixels of the mixture: checkpoints/labels.safetensors. Real training stars from `folder`."""
    mixture = Mixture.load(unit_spread=0.0)
    with ProcessPoolExecutor(2) as pool:
        parts = list(pool.map(_rest, range(_REST // _BATCH)))
    simulated = tuple(np.concatenate(x) for x in zip(*parts, strict=True))
    stars, known = [], []
    for library in real_stars.read(folder).values():
        train = library.select(~library.meta["held_out"].to_numpy())
        if np.isfinite(train.meta["teff"].to_numpy(float)).any():
            stars.append(complete(mixture, train)[0])
            row = train.meta[["teff", "logg", "feh"]].to_numpy(float)
            known.append(np.column_stack([row, np.full(len(row), np.nan)]))
    real = torch.tensor(np.concatenate(stars), dtype=torch.float32), np.concatenate(known)
    fit_labels(mixture, (torch.tensor(simulated[0]), simulated[1]), real).save()


def labels(args: argparse.Namespace) -> None:
    """Fit Ridge, the perceptrons and the mixture's own labels; writes checkpoints and results/estimators.csv."""
    torch.set_num_threads(1)
    closed_form(args.stars)
    regressions()


def regressions() -> None:
    """Ridge and the perceptrons with their errors, from simulated stars alone; writes results/estimators.csv."""
    with ProcessPoolExecutor(2) as pool:
        parts = list(pool.map(_draw, range(_STARS // _BATCH)))
    spectra, truth = (np.concatenate(x) for x in zip(*parts, strict=True))
    test = slice(_STARS * 9 // 10, None)
    rows = []
    fitted: dict[str, LabelEstimator] = {"ridge": RidgeLabels(), "mlp": MLPLabels(components=60, members=2, epochs=80)}
    for name, estimator in fitted.items():
        estimator.fit(spectra[: test.start], truth[: test.start], _HELD_OUT)
        estimator.save(ROOT / "checkpoints" / f"{name}.safetensors")
        gap = estimator.predict(spectra[test]) - truth[test]
        for i, label in enumerate(LABELS):
            spread = np.median(np.abs(truth[test][:, i] - np.median(truth[test][:, i])))
            rows.append({"estimator": name, "label": label, "bias": gap[:, i].mean(),
                         "rmse": np.sqrt((gap[:, i] ** 2).mean()),
                         "robust": 1.4826 * np.median(np.abs(gap[:, i])), "population": 1.4826 * spread})
    table = pd.DataFrame(rows)
    table.round(4).to_csv(ROOT / "results" / "estimators.csv", index=False)
    print(table.round(3).to_string())
