"""Noise maps like those of training and unlike them: what each method makes of the same stars (H1.4)."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import pandas as pd

from core.data.grid import WAVE
from core.data.noise import add_noise
from core.pipeline import METHODS, build, reconstruct
from core.spectrum import ARM_JOIN, Array, Kernel, Spectra
from scripts.evaluate_judge import RESULTS
from scripts.judge_origin import family
from scripts.judge_stars import SEED, Asked, simulated
from scripts.shares import inside
from scripts.study_tables import ORDER, resampled

TABLE, STARS = RESULTS / "study_maps.csv", RESULTS / "study_maps_stars.csv"
Mask = npt.NDArray[np.bool_]
Change = Callable[[Array], Array]  #: (B, L) quoted sigma to another
_SKY = np.random.default_rng(SEED).choice(np.flatnonzero(WAVE > 7200), 60, replace=False)  # where OH lines crowd
_CENTRED = np.abs(np.arange(WAVE.size)[:, None] - _SKY).min(1) <= 1


def _louder(where: Mask, factor: float) -> Change:
    return lambda sigma: sigma * np.where(where, factor, 1.0)


def _gap(first: float, last: float) -> Change:
    return lambda sigma: np.where((first < WAVE) & (last > WAVE), np.inf, sigma)


def _flat(sigma: Array) -> Array:
    live = np.where(np.isfinite(sigma), sigma, np.nan)
    return np.broadcast_to(np.nanmedian(live, axis=1, keepdims=True), sigma.shape)


#: name -> what is done to LAMOST's own map, which pixels are looked at, and the noise's kernel (LAMOST's where None)
MAPS: dict[str, tuple[Change, Mask, Kernel | None]] = {
    "LAMOST": (lambda sigma: sigma, np.ones(WAVE.size, bool), None),
    "arm join": (_louder(np.abs(WAVE - ARM_JOIN) < 120, 5.0), np.abs(WAVE - ARM_JOIN) < 120, None),
    "sky lines": (_louder(_CENTRED, 8.0), _CENTRED, None),
    "gap at Mg b": (_gap(5100.0, 5260.0), (WAVE > 5100) & (WAVE < 5260), None),
    "red arm 4 x": (_louder(WAVE > ARM_JOIN, 4.0), WAVE > ARM_JOIN, None),
    "flat": (_flat, np.ones(WAVE.size, bool), None),
    "correlated .6": (lambda sigma: sigma, np.ones(WAVE.size, bool), Kernel((0.74, 0.60), (0.6, 0.6))),
}


@lru_cache(maxsize=1)
def _stars(at: float) -> Asked:
    return simulated(at, 400)  # as many as the judge's: a star depends on how many are drawn with it


def observed(name: str, at: float, number: int) -> tuple[Spectra, Array]:
    """The judge's first stars under a map, with the same noise numbers whatever the map, and their truth."""
    asked = _stars(at)
    part = np.arange(number)
    spectra, truth = asked.spectra.select(part), asked.truth[part]
    change, _, kernel = MAPS[name]
    sigma = change(spectra.sigma)
    ivar = np.where(np.isfinite(sigma), sigma, np.inf) ** -2.0
    noise = kernel or spectra.noise
    clean = replace(spectra, flux=truth, ivar=ivar, noise=noise)
    return add_noise(clean, ivar, SEED, noise), truth


def maps(args: argparse.Namespace) -> None:
    """Every method under each noise map, on the same stars; writes results/study_maps*.csv."""
    wanted = args.methods.split(",") if args.methods else [m for m in ORDER if family(m) in METHODS]
    at = (args.snr or [10.0])[0]
    rows = []
    for name in args.maps or MAPS:
        spectra, truth = observed(name, at, args.maps_of)
        for method in wanted:
            number = args.slow_draws if build(method).draws_differ else 1
            rows += score(name, at, spectra, truth, method, number)
    new = pd.DataFrame(rows)
    if STARS.exists():
        old = pd.read_csv(STARS)
        again = set(zip(new["map"], new["method"], strict=True))
        new = pd.concat([old[[k not in again for k in zip(old["map"], old["method"], strict=True)]], new])
    new.to_csv(STARS, index=False, float_format="%.5g")
    card(new).to_csv(TABLE, index=False, float_format="%.4g")
    print(card(new).to_string())


def score(name: str, at: float, spectra: Spectra, truth: Array, method: str, number: int) -> list[dict[str, object]]:
    """Squared error of a star's mean where the map was changed and elsewhere, share inside 68 %, warnings."""
    answer = reconstruct(spectra, method, number, SEED)
    where = MAPS[name][1]
    extra = answer.spread**2 / number  # what few draws add to their mean
    square = (answer.mean - truth) ** 2 - extra
    out = []
    for b, star in enumerate(spectra.stars):
        row = {"map": name, "snr": at, "star": star, "method": method, "draws": number,
               "mse_there": max(float(square[b, where].mean()), 1e-9),
               "mse_elsewhere": max(float(square[b, ~where].mean()), 1e-9) if not where.all() else np.nan,
               "warned": len(answer.origin.get("warnings", ()))}
        if number > 1:
            rank = (answer.draws[:, b, where] < truth[b, where]).sum(axis=0)
            row["inside"] = inside(pd.DataFrame({"rank": rank, "n": number}))
        out.append(row)
    return out


def card(rows: pd.DataFrame) -> pd.DataFrame:
    """By map and method: median squared error where the map was changed; geometric mean over stars of its ratio to
    Wiener's and to that of `supervised`, with errors; share inside 68 % there; warnings."""
    out = []
    for name, part in rows.groupby("map", sort=False):
        wide = np.log(part.pivot_table(index="star", columns="method", values="mse_there"))
        rank = {m: i for i, m in enumerate(ORDER)}
        for method in sorted(wide.columns, key=lambda m: rank.get(m, 99)):
            mine = part[part["method"] == method]
            row = {"map": name, "method": method, "stars": len(mine), "mse": mine["mse_there"].median()}
            for rival in ("wiener", "supervised"):
                ratio = (wide[method] - wide[rival]).dropna() if rival in wide else pd.Series(dtype=float)
                row[f"over_{rival}"] = np.exp(ratio.mean()) if len(ratio) else np.nan
                row[f"over_{rival}_err"] = np.exp(ratio.mean()) * resampled(ratio, np.mean) if len(ratio) else np.nan
            share = mine["inside"].mean() if "inside" in mine else np.nan
            out.append(row | {"inside": share, "warned": mine["warned"].max()})
    return pd.DataFrame(out)
