"""The hallucination audit: what each method keeps of a line put in, paints back of one taken out, and flags."""

from __future__ import annotations

import argparse
import json
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from core.data.noise import NoiseModel
from core.data.reality import Reality
from core.data.simulator import Simulator
from core.metrics.audit import Test, calibrate
from core.metrics.injection import gap, nothing, put_in, take_out
from core.metrics.lines import LINES
from core.models.templates import NATIVE, Templates
from core.pipeline import METHODS, build, reconstruct
from core.spectrum import Array, Spectra
from scripts.judge_stars import SEED, SNR, simulated

ROOT = Path(__file__).resolve().parents[1]
TABLE, NULLS = ROOT / "results" / "audit.parquet", ROOT / "results" / "audit_nulls.json"
_DRAWS = 16
_NULL = 100  # stars of a method's own null, none of those it is asked about
_TAKEN = ("H alpha", "Mg b", "Na D", "Ca II 8542")
_HIDDEN = ("H beta", "Ca II 8542")


def answer(method: str, spectra: Spectra, n: int, seed: int) -> Array:
    """Draws (n, B, L) of a method, as the audit asks for them."""
    return reconstruct(spectra, method, n, seed).draws


def null_stars(snr: float) -> Spectra:
    """Stars of the simulator that are not judged."""
    templates = Templates()
    simulator = Simulator(templates, NATIVE, NoiseModel.load(), templates.emulator.nearest, Reality.load())
    stars = simulator.draw(_NULL, np.random.default_rng([SEED + 1, int(snr)]), snr).spectra
    return replace(stars, meta=stars.meta.assign(star=[f"null-{int(snr)}-{i}" for i in range(_NULL)]))


def _job(task: tuple[str, float, int]) -> tuple[pd.DataFrame, dict[str, object]]:
    """Worker: the four experiments for one method at one S/N, with the method's own null."""
    torch.set_num_threads(1)
    method, snr, number = task
    ask = partial(answer, method)
    own = Test(with_draws=build(method).draws_differ)
    null = calibrate(null_stars(snr), ask, _DRAWS, SEED, own)
    test = replace(own, calibration=null)
    asked = simulated(snr, 2 * number)
    fresh, stars = asked.spectra.select(slice(0, number)), asked.spectra.select(slice(number, None))
    truth = asked.truth[number:]
    parts = {
        "nothing": nothing(fresh, ask, _DRAWS, SEED, test),
        "put in": put_in(stars, ask, _DRAWS, SEED, 2, test=test),
        "take out": take_out(stars, truth, ask, _DRAWS, SEED, [LINES[name] for name in _TAKEN], test),
        "gap": gap(stars, truth, ask, _DRAWS, SEED, lines=[LINES[name] for name in _HIDDEN]),
    }
    rows = pd.concat([part.assign(experiment=name) for name, part in parts.items()], ignore_index=True)
    rows = rows.assign(method=method, snr=snr, line=rows["line"].astype(str))  # a number, or a name
    return rows, {"method": method, "snr": snr, **null.to_json()}


def card(rows: pd.DataFrame) -> pd.DataFrame:
    """One row per method and S/N: false alarms, survival and flags of lines put in, paint, gaps."""
    out = []
    for (method, snr), part in rows.groupby(["method", "snr"], sort=False):
        none, put, taken, hidden = (part[part["experiment"] == e] for e in ("nothing", "put in", "take out", "gap"))
        hidden = hidden[hidden["ew_std"] > 1e-6]  # a point estimate has no width to judge
        strong = put["strength"].abs()
        row = {"method": method, "snr": snr, "stars": none["star"].nunique(), "false_alarms": none["flagged"].mean()}
        for low, high in ((1, 5), (5, 10), (10, 20)):
            use = (strong >= low) & (strong < high)
            row |= {f"kept_{low}_{high}": put["survival"][use].median(),
                    f"flagged_{low}_{high}": put["flagged"][use].mean(),
                    f"limit_{low}_{high}": put["limit"][use].mean()}
        line = taken["strength"].abs() > 10
        row |= {"painted": taken["painted"][line].median(), "paint_flagged": taken["flagged"][line].mean(),
                "gap_covered": hidden["covered"].mean(), "gap_z2": hidden["chi2"].median()}
        out.append(row)
    return pd.DataFrame(out)


def audit(args: argparse.Namespace) -> None:
    """Lines put in and taken out, gaps, false alarms, by method and S/N; writes results/audit.parquet, its summary."""
    methods = args.methods.split(",") if args.methods else list(METHODS)
    wanted = args.snr or SNR
    tasks = [(method, snr, args.audited) for method in methods for snr in wanted]
    frames, nulls = [], []
    with ProcessPoolExecutor(args.workers, mp_context=get_context("spawn")) as pool:
        jobs = [pool.submit(_job, task) for task in tasks]
        for job in tqdm(as_completed(jobs), total=len(jobs), unit="method x S/N"):
            rows, null = job.result()
            frames.append(rows)
            nulls.append(null)
    new = pd.concat(frames, ignore_index=True)
    if TABLE.exists():  # what was not asked again stays
        old = pd.read_parquet(TABLE)
        kept = ~(old["method"].isin(methods) & old["snr"].isin(wanted))
        new = pd.concat([old[kept], new], ignore_index=True)
        nulls += [n for n in json.loads(NULLS.read_text()) if not (n["method"] in methods and n["snr"] in wanted)]
    table = new.sort_values(["method", "snr", "experiment"], ignore_index=True, kind="stable")
    table.to_parquet(TABLE, compression="zstd")
    NULLS.write_text(json.dumps(nulls) + "\n")
    summary = card(table)
    summary.round(4).to_csv(ROOT / "results" / "audit_summary.csv", index=False)
    print(summary.round(3).to_string())
