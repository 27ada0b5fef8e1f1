"""Priors learned from some of the real training stars, one library left out at a time, asked about that library.

Learned from stars whose number modulo four is 2 or 3, asked about those where it is 1; held-out ones (0) are never
touched. "Part" learns from all three libraries, "without X" from the same stars less those of X: what is lost when a
survey's instrument was never seen. Fewer stars are simulated than for the committed prior.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from core.data.reality import Reality
from core.models.mixture import Mixture
from core.models.prior_fit import Recipe, complete, physics_of, reality_of, residuals, simulate, synthetic_of
from core.spectrum import Array, Spectra
from scripts.cross_fit import SNR, Real, compared, joint, kept, kept_arrays, shown, some, training
from scripts.evaluate_choice import asked
from scripts.pages import DOCS, fill

ROOT = Path(__file__).resolve().parents[1]
ASKED = 1  #: number modulo four of the stars that are asked about
Gaps = dict[str, tuple[Array, Array]]
_LAST: dict[tuple[object, ...], tuple[Reality, Array]] = {}  # reality and stars simulated with it, the latest only


def learning(libraries: dict[str, Spectra], without: str = "") -> dict[str, Spectra]:
    """The stars learned from, by library."""
    return {name: s.select(s.meta["number"].to_numpy() % 4 != ASKED) for name, s in libraries.items()
            if name != without}


def gaps_of(libraries: dict[str, Spectra], simulated: int) -> Gaps:
    """What synthetic physics lacks of each star learned from (`residuals`); it has seen no real star."""
    first: list[Mixture] = []

    def lacking(stars: Spectra) -> tuple[Array, Array]:
        if not first:
            first.append(synthetic_of(replace(Recipe(), stars=simulated), 0.3, 1))
        return residuals(first[0], stars)

    return {name: kept_arrays(f"gaps-{simulated}-{name}", lacking, s) for name, s in libraries.items()}


def physics(stars: dict[str, Spectra], gaps: Gaps, factors: int, components: int, limit: float,
            simulated: int) -> Mixture:
    """The physics half of a build on some of the libraries."""
    recipe = replace(Recipe(), components=components, reality_factors=factors, stars=simulated)
    what = (tuple(stars), factors, limit, simulated)
    if what not in _LAST:  # the same stars serve any number of components
        reality, _ = reality_of([gaps[name] for name in stars], list(stars.values()), factors, limit)
        _LAST.clear()
        _LAST[what] = reality, simulate(simulated, recipe.seed + 1, reality, 1)
    reality, drawn = _LAST[what]
    return physics_of(drawn, reality, recipe)


def whole_prior(stars: dict[str, Spectra], half: Mixture) -> Mixture:
    """The rest of the build: real components beside a physics half."""
    parts = [complete(half, s) for s in stars.values()]
    whole, variance = (np.concatenate(x) for x in zip(*parts, strict=True))
    return joint(half, whole, variance, np.concatenate([s.meta["teff"].to_numpy(float) for s in stars.values()]),
                 Real())


def rows_of_libraries(libraries: dict[str, Spectra], simulated: int, each: int) -> pd.DataFrame:
    """Scores star by star of each library's asked stars under the prior with a part of it and under that without."""
    gaps = gaps_of(learning(libraries), simulated)
    ask = {name: some(s, s.meta["number"].to_numpy() % 4, ASKED, each) for name, s in libraries.items()}

    def of(without: str) -> pd.DataFrame:
        stars = learning(libraries, without)
        prior = whole_prior(stars, physics(stars, gaps, 30, 16, 0.04, simulated))
        return pd.concat([asked(prior, s, snr).assign(axis=name) for name, s in ask.items() if without in ("", name)
                          for snr in SNR])

    frames = [kept(f"library-{simulated}-{each}-{out or 'part'}", of, out)
              .assign(variant="without it" if out else "with part of it") for out in ("", *libraries)]
    return pd.concat(frames)


def without(args: argparse.Namespace) -> None:
    """A prior without each library asked about it; writes results/prior_without_library.csv."""
    torch.set_num_threads(1)
    rows = rows_of_libraries(training(args.stars), args.simulated, args.asked)
    tables = [compared(part, "with part of it").assign(axis=name) for name, part in rows.groupby("axis", sort=False)]
    table = pd.concat(tables).rename(columns={"axis": "library", "variant": "learned"})
    table.round(5).to_csv(ROOT / "results" / "prior_without_library.csv", index=False)
    fill(DOCS / "results.md", {"without-library": shown(table)})
    print(table.round(4).to_string())
