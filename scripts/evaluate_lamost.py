"""Real LAMOST spectra of held-out stars: are pixels that the method did not see where it says they are?"""

from __future__ import annotations

import argparse
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from core.data import lamost
from core.data.noise import snr
from core.models.mixture import Mixture
from core.models.observation import Observation
from core.models.sky_fit import held_out
from core.spectrum import Array, Spectra
from scripts.pages import DOCS, fill

ROOT = Path(__file__).resolve().parents[1]
RANGES = {"3750-4500": (3750.0, 4500.0), "4500-5700": (4500.0, 5700.0), "6000-6850": (6000.0, 6850.0),
          "7000-8950": (7000.0, 8950.0)}
_BLOCK, _EVERY = 8, 5  # pixels hidden together, and one block in how many


def predicted(mixture: Mixture, spectra: Spectra, b: int, turn: int, sky: bool) -> tuple[Array, Array]:
    """z of the hidden pixels of star b (NaN elsewhere): against quoted sigma alone, and with the prediction's own."""
    hidden = (np.arange(len(spectra.wave)) // _BLOCK) % _EVERY == turn
    hidden &= spectra.measured[b]
    one = spectra.select(b)
    ivar = np.where(hidden, 0.0, one.ivar)
    bare = np.zeros((0, len(spectra.wave)))
    question = Observation.of(replace(one, ivar=ivar, patterns=one.patterns if sky else bare))
    posterior = mixture.posterior(question)
    mean, deviation = (x.double().numpy() for x in posterior.moments())
    sigma = one.sigma[0]
    if sky:
        best = posterior.pairs[int(posterior.log_weight.argmax())]
        spread = torch.cholesky_inverse(best.cholesky)[best.signal :, best.signal :].double().numpy()
        pattern = one.patterns * np.where(np.isfinite(sigma), sigma, 0.0)
        mean = mean + best.centre[best.signal :].double().numpy() @ pattern
        deviation = np.sqrt(deviation**2 + np.einsum("ql,qr,rl->l", pattern, spread, pattern, optimize=True))
    gap = np.where(hidden, one.flux[0] - mean, np.nan)
    noise = one.noise.scales(one.wave) * sigma
    return gap / sigma, gap / np.sqrt(noise**2 + deviation**2)


def _job(task: tuple[Spectra, int]) -> list[dict[str, object]]:
    """Worker: one star, every fifth of its pixels hidden in turn."""
    torch.set_num_threads(1)
    spectra, b = task
    mixture = Mixture.load()
    rows = []
    for sky in (False, True):
        parts = [predicted(mixture, spectra, b, turn, sky) for turn in range(_EVERY)]
        quoted, own = (np.nanmax(np.where(np.isnan(p), -np.inf, p), axis=0) for p in zip(*parts, strict=True))
        quoted, own = (np.where(np.isfinite(q), q, np.nan) for q in (quoted, own))
        for name, (low, high) in RANGES.items():
            use = (spectra.wave > low) & (spectra.wave < high) & np.isfinite(own)
            if use.sum() > 50:
                rows.append({"star": spectra.stars[b], "snr": float(snr(spectra)[b]), "range": name,
                             "sky": "with" if sky else "without", "quoted": float(np.mean(quoted[use] ** 2)),
                             "own": float(np.mean(own[use] ** 2)), "covered": float(np.mean(np.abs(own[use]) < 1))})
    return rows


def lamost_stars(args: argparse.Namespace) -> None:
    """Hidden pixels of held-out LAMOST stars: chi-square and coverage by range and S/N; results/reality_lamost.csv."""
    everything, _ = lamost.read_folder(args.lamost)
    spectra = everything.select((everything.meta["release"] == "pilot").to_numpy())
    spectra = spectra.select(held_out(spectra))
    with ProcessPoolExecutor(2) as pool:
        rows = [r for rows in pool.map(_job, [(spectra, b) for b in range(len(spectra))]) for r in rows]
    frame = pd.DataFrame(rows)
    frame.round(4).to_csv(ROOT / "results" / "reality_lamost.csv", index=False)
    frame["S/N"] = pd.cut(frame["snr"], [0, 12, 25, 60, 1000], labels=["< 12", "12-25", "25-60", "> 60"])
    table = frame.groupby(["range", "S/N", "sky"], observed=True).agg(
        stars=("star", "nunique"), chi2_quoted=("quoted", "median"), chi2=("own", "median"),
        covered=("covered", "mean")).reset_index()
    fill(DOCS / "results.md", {"reality-real": table.round(2)})
    print(table.round(2).to_string())
