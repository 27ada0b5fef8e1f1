"""Every method through everything that is measured: the table, its summary, and where methods failed."""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from core.metrics.calibration import summary
from core.models.estimators import RidgeLabels
from core.pipeline import METHODS, build, evaluate
from scripts.judge_stars import SEED, SNR, Asked, real, simulated, split

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "results"
WORK = ROOT / ".trueline" / "judge"  # finished pieces: a killed run goes on from them
RIDGE = ROOT / "checkpoints" / "ridge.safetensors"
_CHUNK = 25  # stars a piece
_RV_DRAWS = 8  # draws whose velocity is measured: 7 ms each
_SCORES = ("rms", "mae", "bias", "ssim", "chi2", "coverage", "width")


def provenance(methods: list[str], draws: int) -> dict[str, object]:
    """What a result hangs on: commit, versions, hashes of the checkpoints, seed."""
    git = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    hashes = {f.name: hashlib.sha256(f.read_bytes()).hexdigest()[:16]
              for f in sorted((ROOT / "checkpoints").glob("*.safetensors"))}
    return {"commit": git.stdout.strip(), "torch": torch.__version__, "numpy": np.__version__, "seed": SEED,
            "draws": draws, "methods": methods, "checkpoints": hashes}


def piece(asked: Asked, method: str, first: int, draws: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The table of one method about some stars of a sample, and its failures."""
    part = np.arange(first, min(first + _CHUNK, len(asked.spectra)))
    spectra = asked.spectra.select(part)
    table, failed = evaluate(spectra, asked.truth[part], [method], draws, SEED, asked.labels[part],
                             RidgeLabels.load(RIDGE), snr=np.full(len(part), asked.snr), rv_draws=_RV_DRAWS)
    return table.assign(sample=asked.sample), failed


def _job(task: tuple[Asked, str, int, int, Path]) -> int:
    """Worker: one piece, written whole or not at all."""
    torch.set_num_threads(1)
    asked, method, first, draws, path = task
    table, failed = piece(asked, method, first, draws)
    for frame, kind in ((failed, "failed"), (table, "table")):
        part = path.with_suffix(f".{kind}.part")
        frame.to_parquet(part)
        part.rename(path.with_suffix(f".{kind}"))
    return len(table)


def plan(samples: list[Asked], methods: list[str], draws: int, stamp: str) -> list[tuple[Asked, str, int, int, Path]]:
    """Pieces not finished yet, the cheap methods first."""
    tasks = []
    for method in methods:
        for number, asked in enumerate(samples):
            for first in range(0, len(asked.spectra), _CHUNK):
                path = WORK / stamp / f"{asked.sample}-{number}-{asked.snr:.0f}-{method}-{first}"
                if not path.with_suffix(".table").exists():
                    tasks.append((asked, method, first, draws, path))
    return tasks


def card(table: pd.DataFrame) -> pd.DataFrame:
    """The summary by sample, method, quantity and S/N; scores by their mean and median."""
    out = []
    for sample, rows in table.groupby("sample"):
        known = rows[rows["truth"].notna() & ~rows["quantity"].isin(_SCORES)]
        known = known[known["n"].eq(1) | known["std"].gt(0)]
        lone = known.groupby(["method", "quantity", "snr"])["n"].transform("max").gt(1) & known["n"].eq(1)
        known = known[~lone]  # draws that all gave one number beside stars that did not
        known = known[known.groupby(["method", "quantity", "snr"])["n"].transform("max").eq(known["n"])]
        known = known.assign(rank=known["rank"].fillna(0))  # a point estimate has none, and is not asked for it
        odd = (known["mean"] - known["truth"]).groupby([known[k] for k in ("method", "quantity", "snr")])
        middle = odd.median().rename("median_bias").reset_index()
        spread = odd.apply(lambda gap: 1.4826 * np.median(np.abs(gap - np.median(gap)))).rename("scatter").reset_index()
        report = summary(known, points=True).merge(middle).merge(spread)
        out.append(report.assign(sample=sample))
        scores = rows[rows["quantity"].isin(_SCORES)].groupby(["method", "quantity", "snr"])["mean"]
        out.append(scores.agg(stars="size", value="mean", median="median").reset_index().assign(sample=sample))
    return pd.concat(out, ignore_index=True)


def samples_of(args: argparse.Namespace) -> list[Asked]:
    """All stars asked about; those of ../shared only where it is."""
    out = [simulated(at, args.number) for at in SNR]
    for name, folder, make in (("real", args.stars, lambda at: real(at, args.real, args.stars)),
                               ("lamost", args.lamost, lambda at: split(at, args.lamost))):
        if folder.exists():
            out += [asked for at in SNR for asked in make(at)]
        else:
            print(f"{folder} is not there: no {name} stars in the table")
    return out


def judge(args: argparse.Namespace) -> None:
    """Every method through everything that is measured; writes results/judge.parquet and judge_summary.csv."""
    methods = args.methods.split(",") if args.methods else list(METHODS)
    for method in methods:
        build(method)  # an unknown name is refused now and not in an hour
    origin = provenance(methods, args.draws)
    stamp = hashlib.sha256(json.dumps([origin["checkpoints"], args.draws, args.number, SEED]).encode()).hexdigest()[:12]
    (WORK / stamp).mkdir(parents=True, exist_ok=True)
    samples = samples_of(args)
    tasks = plan(samples, methods, args.draws, stamp)
    start = time.time()
    with ProcessPoolExecutor(args.workers) as pool:
        jobs = [pool.submit(_job, task) for task in tasks]
        for job in tqdm(as_completed(jobs), total=len(jobs), unit="piece"):
            job.result()
    collect(methods, stamp, origin | {"seconds": round(time.time() - start)})


def collect(methods: list[str], stamp: str, origin: dict[str, object]) -> None:
    """Finished pieces into one table, its summary and its provenance."""
    files = [f for f in sorted((WORK / stamp).glob("*.table")) if f.name.split("-")[3] in methods]
    table = pd.concat([pd.read_parquet(f) for f in files], ignore_index=True)
    failed = pd.concat([pd.read_parquet(f.with_suffix(".failed")) for f in files], ignore_index=True)
    slim(table).to_parquet(RESULTS / "judge.parquet", compression="zstd", compression_level=19)
    card(table).round(5).to_csv(RESULTS / "judge_summary.csv", index=False)
    failed.to_csv(RESULTS / "judge_failed.csv", index=False)
    (RESULTS / "judge.json").write_text(json.dumps(origin, indent=1) + "\n")
    print(f"{len(table)} rows of {table['star'].nunique()} stars; {len(failed)} failures")


def slim(table: pd.DataFrame) -> pd.DataFrame:
    """The table as it is committed: four significant digits, without the depths (their summary is in judge_summary)."""
    out = table[~table["quantity"].astype(str).str.startswith("depth:")].copy()
    for name in ("snr", "truth", "mean", "std", "q16", "q50", "q84"):
        x = out[name].to_numpy(np.float64)
        size = np.floor(np.log10(np.where((x == 0) | ~np.isfinite(x), 1.0, np.abs(x))))
        out[name] = (np.round(x / 10.0 ** (size - 3)) * 10.0 ** (size - 3)).astype(np.float32)
    for name in ("star", "method", "quantity", "unit", "sample"):
        out[name] = out[name].astype("category")
    return out.astype({"rank": np.float32, "n": np.int16})

