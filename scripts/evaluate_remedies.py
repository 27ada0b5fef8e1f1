"""What helps a flag to find lines at high S/N: remedies compared on the same draws of stars that are never judged."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.ndimage import uniform_filter1d
from scipy.stats import genpareto

from core.data.noise import NoiseModel
from core.data.reality import Reality
from core.data.simulator import Simulator
from core.metrics.audit import Test, ask, blocks
from core.metrics.false_alarms import Calibration, limit
from core.metrics.flags import Flag, sharpened
from core.metrics.injection import put_in
from core.metrics.matched_filter import Scan, pixel
from core.metrics.misfit import Misfit
from core.models.templates import NATIVE, Templates
from core.spectrum import Array, Spectra
from scripts.evaluate_audit import answer
from scripts.evaluate_judge import RESULTS, ROOT
from scripts.judge_origin import NOT_RECORDED, keep, record
from scripts.judge_stars import SEED

WORK = ROOT / ".trueline" / "remedies"  # filtered residuals of finished samples, to ask again at once
_KINDS = {"null": 77, "check": 78, "lines": 79, "causes": 80}  # added to the judge's seed: stars of their own
_DRAWS, _STARS, _BLOCK = 16, 200, 50
#: (seed, lines a star, weakest, strongest) of what is put in, in standard deviations
_PUT = ((1, 3, 5.0, 10.0), (2, 1, 10.0, 20.0))


@dataclass(frozen=True)
class Filtered:
    """What the scan of some stars gave, all (B, M, L): t' N^-1 r, t' N^-1 t, its squares summed over draws, seen."""

    score: Array
    norm: Array
    spread: Array
    seen: Array

    def over(self, variance: Array) -> Array:
        """T under this variance, 0 where unseen."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(self.seen, -self.score / np.sqrt(variance), 0.0)


def stars_with_truth(snr: float, number: int, kind: str) -> tuple[Spectra, Array]:
    """Stars of the simulator of a seed that nothing else uses, and their clean spectra (number, L)."""
    templates = Templates()
    simulator = Simulator(templates, NATIVE, NoiseModel.load(), templates.emulator.nearest, Reality.load())
    drawn = simulator.draw(number, np.random.default_rng([SEED + _KINDS[kind], int(snr)]), snr)
    names = [f"dev-{kind}-{int(snr)}-{i}" for i in range(number)]
    return replace(drawn.spectra, meta=drawn.spectra.meta.assign(star=names)), drawn.truth


def stars(snr: float, number: int, kind: str) -> Spectra:
    """The same without the truth."""
    return stars_with_truth(snr, number, kind)[0]


def filtered(spectra: Spectra, draws: Array) -> dict[str, Any]:
    """The parts of `Filtered`, single precision."""
    scan, centre = Scan(spectra), draws.mean(axis=0)
    spread = sum(scan.score(draw - centre) ** 2 for draw in draws)
    parts = {"score": scan.score(spectra.flux - centre), "norm": scan.norm, "spread": np.asarray(spread)}
    return {name: values.astype(np.float32) for name, values in parts.items()} | {"seen": scan.seen}


class _Recorder(Test):
    """Keeps what the scan of put-in lines gave, and flags nothing."""

    def run(self, spectra: Spectra, draws: Array) -> tuple[list[list[Flag]], Array]:
        _RECORDED.append(filtered(spectra, draws))
        found, trials = super().run(spectra, draws)
        return found, trials


_RECORDED: list[dict[str, Any]] = []


def sample(method: str, snr: float, kind: str) -> tuple[Filtered, pd.DataFrame]:
    """One sample of stars, from the disk where it was made before; with put-in lines, their rows."""
    file = WORK / f"{method}-{snr:g}-{kind}.npz"
    rows = file.with_suffix(".parquet")
    if not file.exists():
        WORK.mkdir(parents=True, exist_ok=True)
        ask_it, parts = partial(answer, method), []
        if kind == "lines":
            _RECORDED.clear()
            some = stars(snr, _STARS // 5, kind)
            pd.concat([put_in(some, ask_it, _DRAWS, seed, lines, (low, high), test=_Recorder(), block=20)
                       for seed, lines, low, high in _PUT], ignore_index=True).to_parquet(rows)
            parts = list(_RECORDED)
        else:
            parts = [filtered(part, ask(ask_it, part, _DRAWS, 1))
                     for part, _ in blocks(stars(snr, _STARS, kind), None, _BLOCK)]
        whole: dict[str, Any] = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        np.savez(file, **whole)
    with np.load(file) as stored:
        return (Filtered(*(stored[name] for name in ("score", "norm", "spread", "seen"))),
                pd.read_parquet(rows) if kind == "lines" else pd.DataFrame())


def _smoothed(one: Filtered) -> Array:
    """T under the variance that draws leave, averaged over 50 pixels instead of lowered to what few of them prove."""
    explained = uniform_filter1d(one.spread, 50, axis=-1) / _DRAWS
    share = explained / np.maximum(uniform_filter1d(one.norm, 50, axis=-1), 1e-30)
    return one.over(one.norm * np.maximum(1 - share, 0.05))


def _misfit(null: Filtered, t: Array, place: bool = True, slope: bool = True) -> Misfit:
    """The misfit of null stars; without its places, or without its dependence on S/N."""
    whole = Misfit.fit(t, null.norm)
    flat = np.full_like(whole.place, np.sqrt((t[t != 0] ** 2).mean()))
    return replace(whole, place=whole.place if place else flat, slope=whole.slope if slope else 0 * whole.slope)


def _by_star(t: Array) -> Array:
    """T over the median absolute deviation of its own star."""
    size = np.nanmedian(np.where(t != 0, np.abs(t), np.nan), axis=(1, 2))
    return np.asarray(t / (1.4826 * size)[:, None, None])


def _tail(maxima: Array) -> float:
    """Threshold of 1 % by a generalized Pareto law of the largest fifth (Pickands 1975, Ann. Stat. 3, 119)."""
    values = np.sort(maxima)
    start = values[-len(values) // 5 - 1]
    shape, _, scale = genpareto.fit(values[values > start] - start, floc=0)
    return float(start + genpareto.ppf(1 - 0.01 * 5, np.clip(shape, -0.2, 0.5), 0, scale))


def _threshold(maxima: Array) -> float:
    """Of 1 % by `Calibration`."""
    null, grid = Calibration.fit(maxima), np.linspace(0, 40, 8001)
    return float(grid[np.argmax(null.p_value(grid) <= 0.01)])


#: name -> statistic without the misfit, (places, slope) of the misfit or None, by star too, threshold
_Remedy = tuple[Callable[[Filtered], Array], tuple[bool, bool] | None, bool, Callable[[Array], float]]


def _nominal(one: Filtered) -> Array:
    return one.over(one.norm)


def _drawn(one: Filtered) -> Array:
    return one.over(sharpened(one.norm, one.spread, _DRAWS))


REMEDIES: dict[str, _Remedy] = {
    "as it was: spread of the draws, one threshold": (_drawn, None, False, _threshold),
    "the same without draws": (_nominal, None, False, _threshold),
    "(a) scale by place and width": (_nominal, (True, False), False, _threshold),
    "(a), with draws": (_drawn, (True, False), False, _threshold),
    "(b) variance from the draws, smoothed": (_smoothed, None, False, _threshold),
    "(b) smoothed, and (a)": (_smoothed, (True, False), False, _threshold),
    "(b) scale by local S/N alone": (_nominal, (False, True), False, _threshold),
    "(c) scale by star": (_nominal, None, True, _threshold),
    "(a) and (c)": (_nominal, (True, False), True, _threshold),
    "(a) by local S/N: built": (_nominal, (True, True), False, _threshold),
    "the same, and (c)": (_nominal, (True, True), True, _threshold),
    "the same, with draws": (_drawn, (True, True), False, _threshold),
    "the same, (d) generalized Pareto tail": (_nominal, (True, True), False, _tail),
}


def compared(null: Filtered, check: Filtered, put: Filtered, rows: pd.DataFrame, near: Array,
             remedy: _Remedy) -> dict[str, float]:
    """False alarms and power of one remedy: fitted to one half of the null stars, asked of the other, both ways."""
    statistic, misfit, by_star, threshold = remedy
    sign, strong = np.sign(rows["strength"].to_numpy())[:, None, None], rows["strength"].abs()
    middle, gone = strong < 10, rows["survival"] < 0.5
    alarms, found, at = 0, [], []
    for one, other in ((null, check), (check, null)):
        known = None if misfit is None else _misfit(one, statistic(one), *misfit)
        t = [statistic(s) if known is None else statistic(s) / known.sigma(s.norm, s.seen) for s in (one, other, put)]
        if by_star:
            t = [_by_star(part) for part in t]
        at.append(threshold(np.abs(t[0]).max(axis=(1, 2))))
        alarms += int((np.abs(t[1]).max(axis=(1, 2)) > at[-1]).sum())
        found.append(np.where(near, sign * t[2], 0.0).max(axis=(1, 2)) > at[-1])
    hit = np.mean(found, axis=0)
    return {"threshold": np.mean(at), "false_alarms": alarms, "null_stars": len(null.score) + len(check.score),
            "flagged_5_10": hit[middle].mean(), "flagged_10_20": hit[~middle].mean(),
            "removed_5_10": gone[middle].mean(), "caught_5_10": hit[middle & gone].mean()}


def remedies(args: argparse.Namespace) -> None:
    """Remedies for the flag's power, on the same draws of unjudged stars; writes results/audit_remedies.csv."""
    out = []
    WORK.mkdir(parents=True, exist_ok=True)
    origins: dict[str, Any] = {}
    for method in (args.methods or "mixture").split(","):
        origins[method] = record(method, _DRAWS, torch.cuda.is_available())
        # samples of before are asked again without being made again
        keep(origins[method], WORK / f"{method}.json", any(WORK.glob(f"{method}-*.npz")))
        if not (WORK / f"{method}.json").exists():
            origins[method] = NOT_RECORDED
        for snr in args.snr or (20.0, 50.0, 100.0):
            (null, _), (check, _), (put, rows) = (sample(method, snr, kind) for kind in _KINDS)
            spectra = stars(snr, 1, "null")
            scan, dex = Scan(spectra), pixel(spectra.wave)
            place = np.log10(rows["wavelength"].to_numpy() / spectra.wave[0]) / dex
            width = rows["width"].to_numpy() / (rows["wavelength"].to_numpy() * np.log(10) * dex)
            away = np.abs(np.arange(len(spectra.wave)) + scan.offset[:, None] - place[:, None, None])
            near = away <= 3 * np.hypot(width[:, None], scan.width)[..., None] + 1  # as `put_in` counts a flag
            can = limit(rows["strength"].to_numpy(), float(rows["trials"].mean()))
            middle, gone = rows["strength"].abs() < 10, rows["survival"] < 0.5
            known = {"limit_5_10": can[middle].mean(), "could_5_10": can[middle & gone].mean()}
            for name, remedy in REMEDIES.items():
                row = compared(null, check, put, rows, near, remedy)
                out.append({"method": method, "snr": snr, "remedy": name, **row, **known})
                print(name, {key: round(float(value), 3) for key, value in row.items()}, flush=True)
    table = pd.DataFrame(out).round(3)
    table.to_csv(RESULTS / "audit_remedies.csv", index=False)
    (RESULTS / "audit_remedies.json").write_text(json.dumps(origins, indent=1) + "\n")
