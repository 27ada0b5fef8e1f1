"""Error against spectra seen: weights kept at each doubling (`scripts.train NAME --keep`), on the same stars."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from core import checkpoint, networks
from core.models.conditional import Conditional, Regression
from core.models.observation import Observation, Reconstructor
from core.models.supervised import AroundMixture, ConditionalDDPM
from core.pipeline import reconstruct
from core.spectrum import Array, Spectra
from scripts.evaluate_judge import RESULTS
from scripts.judge_stars import SEED, simulated
from scripts.study_tables import resampled

TABLE = RESULTS / "study_learning.csv"


def learning(args: argparse.Namespace) -> None:
    """Squared error over Wiener's against spectra seen, from weights kept on the way; writes study_learning.csv.

    Raises:
        ValueError: no weights were kept.
    """
    rows = []
    for name in args.methods.split(",") if args.methods else ("supervised_ivar", "supervised", "dncnn"):
        kept = sorted((args.kept / name).glob("seen-*.safetensors"), key=seen)
        if not kept:
            raise ValueError(f"{args.kept / name} holds no weights kept on the way; run `python -m scripts.train "
                             f"{name} --keep` first, or name another --kept.")
        for snr in args.snr or (10.0,):
            asked = simulated(snr, 400)
            part = np.arange(args.first or 50)
            stars, truth = asked.spectra.select(part), asked.truth[part]
            wiener = squares(reconstruct(stars, "wiener", 1, SEED).draws, truth)
            for file in kept:
                rows.append({"method": name, "snr": snr, "seen": seen(file), "stars": len(part),
                             **point(with_weights(name, file), stars, truth, wiener, args.slow_draws)})
                print(rows[-1], flush=True)
    pd.DataFrame(rows).to_csv(TABLE, index=False, float_format="%.5g")


def seen(file: Path) -> int:
    """Spectra that kept weights had seen, from their name."""
    return int(file.stem.partition("-")[2])


def squares(draws: Array, truth: Array) -> Array:
    """(B,) squared error of the mean of draws (n, B, L), less what few draws add to it."""
    extra = draws.var(axis=0, ddof=1) / len(draws) if len(draws) > 1 else 0.0
    return np.maximum(((draws.mean(axis=0) - truth) ** 2 - extra).mean(axis=1), 1e-9)


def point(method: Reconstructor, stars: Spectra, truth: Array, wiener: Array, draws: int) -> dict[str, float]:
    """Mean squared error, and geometric mean over stars of its ratio to Wiener's, with errors."""
    with torch.inference_mode():
        answer = method.sample(Observation.of(stars), draws if method.draws_differ else 1, SEED)
    mine = squares(answer.double().numpy(), truth)
    ratio = np.log(mine / wiener)
    return {"mse": float(mine.mean()), "mse_err": float(mine.std(ddof=1) / np.sqrt(len(mine))),
            "over_wiener": float(np.exp(ratio.mean())),
            "over_wiener_err": float(np.exp(ratio.mean()) * resampled(ratio, np.mean))}


def with_weights(name: str, file: Path) -> Reconstructor:
    """The method with weights kept on the way, in the architecture of the committed ones."""
    state = checkpoint.load_state(file)["weights"]
    if name.startswith("dncnn"):
        net, noise = networks.regression.__wrapped__(name)
        return Regression(checkpoint.fill(net, state, name), noise)
    drawn: ConditionalDDPM | AroundMixture
    drawn, noise = networks.around.__wrapped__() if name == "supervised_mixture" else networks.conditional.__wrapped__(
        name)
    return Conditional(checkpoint.fill(drawn, state, name), noise)


