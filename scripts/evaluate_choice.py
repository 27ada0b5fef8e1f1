"""Chooses the real components' residual (width, correlation, scales) on training stars alone: a quarter is asked."""

from __future__ import annotations

import argparse
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from core.data import real_stars
from core.models.mixture import Mixture
from core.models.observation import Observation
from core.models.prior_fit import Recipe, complete, join
from core.models.real_components import autocorrelation, left_out_residual, real_components, taps_of
from core.spectrum import WHITE, Array, Spectra
from scripts.evaluate_reality import observed, prior_of, widths_inside
from scripts.pages import DOCS, fill

ROOT = Path(__file__).resolve().parents[1]
#: name: (factor on the in-sample variance, or None for that of stars left out; correlated; scales)
VARIANTS: dict[str, tuple[float | None, bool, tuple[float, ...]]] = {
    "in sample": (1.0, False, (1.0,)),
    "in sample x 2": (2.0, False, (1.0,)),
    "in sample x 3": (3.0, False, (1.0,)),
    "in sample x 2, correlated": (2.0, True, (1.0,)),
    "left out, correlated": (None, True, (1.0,)),
    "left out x 1.5, correlated": (1.5, True, (1.0,)),
    "left out, correlated, scales .4, 2": (None, True, (0.4, 2.0)),
    "left out, correlated, scales .3, 1, 4": (None, True, (0.3, 1.0, 4.0)),
}


_COMPLETED: dict[str, tuple[Array, Array]] = {}  # of this worker


def _in_sample(stars: Array, variance: Array, factors: Array, mean: Array) -> Array:
    """(L,) variance that the factors leave of the stars they were learned from, and that of the completion."""
    gap = stars - mean
    basis = np.linalg.qr(factors.T)[0].T
    n, k = len(stars), len(factors)
    return (gap - (gap @ basis.T) @ basis).var(axis=0) * n / (n - k) + variance.mean(axis=0)


def _mixture(learn: Spectra, variant: str) -> Mixture:
    """The joint mixture of a variant, its real components learned from some stars."""
    factor, correlated, scales = VARIANTS[variant]
    physics = prior_of("physics", 0.0)
    if "done" not in _COMPLETED:  # the same for every variant
        _COMPLETED["done"] = complete(physics, learn)
    whole, variance = _COMPLETED["done"]
    groups = np.nan_to_num(learn.meta["teff"].to_numpy(float), nan=3500.0)
    edges = Recipe().edges
    real = real_components(whole, variance, edges, groups)
    if factor is not None and "in sample" in variant:
        cells = [groups > 0] + [(groups >= a) & (groups < b) for a, b in pairwise(edges)]
        cells = [c for c in cells if c.sum() >= 10]
        real = [(w, m, f, factor * _in_sample(whole[c], variance[c], f, m)) for c, (w, m, f, _) in
                zip(cells, real, strict=True)]
    elif factor is not None:
        real = [(w, m, f, factor * r) for w, m, f, r in real]
    taps = taps_of(autocorrelation(left_out_residual(whole, 100), variance == 0)) if correlated else None
    return join(physics, real, Recipe().share, 0.0, taps, scales)


def asked(mixture: Mixture, stars: Spectra, snr: float) -> pd.DataFrame:
    """One row for each star seen in white noise: evidence, coverage of pixels and EWs, chi-square, squared error."""
    question = Observation.of(replace(observed(stars, snr, "white"), noise=WHITE))
    rows = []
    for b, name in enumerate(stars.stars):
        posterior = mixture.posterior(question.star(b))
        mean, deviation = (x.numpy().astype(float) for x in posterior.moments())
        live = stars.measured[b]
        z = (mean - stars.flux[b])[live] / deviation[live]
        draws = posterior.draw(64, torch.Generator().manual_seed(b)).numpy().astype(float)
        inside = widths_inside(draws, stars.flux[b], live)
        rows.append({"star": name, "snr": snr, "log_evidence": posterior.log_evidence,
                     "covered": np.mean(np.abs(z) < 1), "chi2": np.mean(z**2),
                     "mse": np.mean((mean - stars.flux[b])[live] ** 2),
                     "ew_inside": sum(inside.values()), "ew_lines": len(inside)})
    return pd.DataFrame(rows)


def _job(task: tuple[Spectra, Spectra, str, float]) -> dict[str, float | str]:
    """Worker: real components learned from some stars, asked about others: evidence, coverage, chi-square, rms."""
    torch.set_num_threads(1)
    learn, ask, variant, snr = task
    rows = asked(_mixture(learn, variant), ask, snr)
    return {"residual": variant, "snr": snr, "stars": len(ask), "log_evidence": rows["log_evidence"].mean(),
            "pixel_coverage": rows["covered"].mean(), "ew_coverage": rows["ew_inside"].sum() / rows["ew_lines"].sum(),
            "chi2": rows["chi2"].mean(), "rms": float(np.sqrt(rows["mse"].mean()))}


def choice(args: argparse.Namespace) -> None:
    """The residual of the real components, chosen on training stars; writes results/prior_choice.csv."""
    miles = real_stars.read(args.stars)["miles"]
    number = miles.meta["number"].to_numpy() % 4
    learn, ask = miles.select((number == 2) | (number == 3)), miles.select(np.flatnonzero(number == 1)[::2])
    tasks = [(learn, ask, variant, snr) for variant in VARIANTS for snr in (10.0, 50.0)]
    with ProcessPoolExecutor(2) as pool:
        table = pd.DataFrame(list(pool.map(_job, tasks)))
    table.round(4).to_csv(ROOT / "results" / "prior_choice.csv", index=False)
    fill(DOCS / "results.md", {"choice": table.round(4)})
    print(table.round(4).to_string())
