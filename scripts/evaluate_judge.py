"""Every method through everything that is measured: the table, its summary, and where methods failed."""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from core.data.hashes import digest
from core.metrics.calibration import summary
from core.models.estimators import RidgeLabels
from core.pipeline import METHODS, build, evaluate, judged, reconstruct
from core.spectrum import Samples
from scripts.judge_origin import agreed, commit, family, filed, record, write
from scripts.judge_stars import SEED, SNR, Asked, foremost, real, simulated, split

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "results"
WORK = ROOT / ".trueline" / "judge"  # finished pieces: a killed run goes on from them
RIDGE = ROOT / "checkpoints" / "ridge.safetensors"
_CHUNK = 25  # stars a piece
_SUPERVISED = ("supervised", "supervised_ivar", "supervised_mixture")
SLOW = ("dps", "pigdm", "mmps", *_SUPERVISED)  # tens to hundreds of network calls a draw: fewer stars of a sample
#: on a GPU all stars of a sample are drawn at once, before they are measured
NETWORKS = ("exact", "dncnn", "dncnn_blind", *SLOW)
_RV_DRAWS = 8  # draws whose velocity is measured: 7 ms each
_SCORES = ("rms", "mae", "bias", "ssim", "chi2", "coverage", "width")


@dataclass(frozen=True)
class Piece:
    """Some stars of a sample, asked of one method.

    Args:
        first, last: of the sample's stars; path: where the table goes; origin: what it hangs on, told beside the table
            (scripts.judge_origin); drawn: file of draws (n, stars, L) float32 of the whole sample, where a GPU has made
            them.
    """

    asked: Asked
    method: str
    first: int
    last: int
    draws: int
    path: Path
    origin: dict[str, Any]
    drawn: Path | None = None


def measured(one: Piece) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The table of one method about some stars of a sample, and its failures."""
    part, asked = np.arange(one.first, one.last), one.asked
    spectra, labels, ridge = asked.spectra.select(part), asked.labels[part], RidgeLabels.load(RIDGE)
    settings = {"snr": np.full(len(part), asked.snr), "rv_draws": _RV_DRAWS}
    if one.drawn is None:
        table, failed = evaluate(spectra, asked.truth[part], [one.method], one.draws, SEED, labels, ridge, **settings)
    else:
        draws = np.asarray(np.load(one.drawn, mmap_mode="r")[:, part], dtype=np.float64)
        samples = Samples(spectra.wave, draws, one.method)
        table = judged(samples, spectra, asked.truth[part], labels, ridge, SEED, **settings)
        failed = pd.DataFrame(columns=["star", "method", "reason"])
    return table.assign(sample=asked.sample), failed


def _job(one: Piece) -> int:
    """Worker: one piece, written whole or not at all."""
    torch.set_num_threads(1)
    table, failed = measured(one)
    write(one.origin, one.path)
    for frame, kind in ((failed, "failed"), (table, "table")):
        part = one.path.with_suffix(f".{kind}.part")
        frame.to_parquet(part)
        part.rename(one.path.with_suffix(f".{kind}"))
    return len(table)


def plan(samples: list[Asked], methods: list[str], draws: int, folder: Path,
         slow: tuple[int, int] = (100, 8)) -> list[Piece]:
    """Pieces not finished yet, method by method; `slow` stars of a sample, and draws of each, for methods that are.

    A piece is finished where a file of its sample, S/N, method and first star holds the very stars that are asked about
    now, whatever stands for the library in its name (pieces of before have a number there). One of other stars, or of
    more or fewer, is asked again.
    """
    tasks = []
    there: dict[tuple[str, ...], list[Path]] = {}
    for file in folder.glob("*.table"):
        there.setdefault(_place(file), []).append(file)
    for method in methods:
        number_of = slow[1] if family(method) in SLOW else draws
        origin = record(method, number_of, torch.cuda.is_available() and family(method) in NETWORKS)
        for asked in samples:
            stars = min(len(asked.spectra), slow[0]) if family(method) in SLOW else len(asked.spectra)
            for first in range(0, stars, _CHUNK):
                path = folder / f"{asked.sample}-{asked.library}-{asked.snr:.0f}-{filed(method)}-{first}"
                wanted, last = set(asked.spectra.stars[first : first + _CHUNK][: stars - first]), first + _CHUNK
                if not any(_stars(file) == wanted for file in there.get(_place(path), [])):
                    tasks.append(Piece(asked, method, first, min(last, stars), number_of, path, origin))
    return tasks


def _place(path: Path) -> tuple[str, ...]:
    """Sample, S/N, method and first star of a piece `sample-library-snr-method-first`; before, a number was second."""
    sample, _, *rest = path.name.removesuffix(path.suffix).split("-")
    return sample, *rest


def _stars(piece: Path) -> set[str]:
    """Every star of a piece, also those at which the method failed."""
    return {str(s) for kind in (".table", ".failed")
            for s in pd.read_parquet(piece.with_suffix(kind), columns=["star"])["star"].unique()}


def _drawn(tasks: list[Piece], folder: Path) -> Iterator[Piece]:
    """The pieces; where a GPU is, those of networks once their sample has been drawn there, all stars at once."""
    at: tuple[int, str] | None = None
    file = None
    for one in tasks:
        if torch.cuda.is_available() and family(one.method) in NETWORKS:
            if at != (id(one.asked), one.method):
                last = max(t.last for t in tasks if t.asked is one.asked and t.method == one.method)
                answer = reconstruct(one.asked.spectra.select(np.arange(last)), one.method, one.draws, SEED)
                at, file = (id(one.asked), one.method), folder / f"{one.path.stem}.npy"
                np.save(file, answer.draws.astype(np.float32))
            yield replace(one, drawn=file)
        else:
            yield one


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
    wanted = args.snr or SNR
    out = [foremost(simulated(at, args.number), getattr(args, "first", None)) for at in wanted]
    for name, folder, make in (("real", args.stars, lambda at: real(at, args.real, args.stars)),
                               ("lamost", args.lamost, lambda at: split(at, args.lamost))):
        if folder.exists():
            out += [asked for at in wanted for asked in make(at)]
        else:
            print(f"{folder} is not there: no {name} stars in the table")
    return out


def judge(args: argparse.Namespace) -> None:
    """Every method through everything that is measured; writes results/judge.parquet and judge_summary.csv."""
    methods = args.methods.split(",") if args.methods else list(METHODS)
    for method in methods:
        build(method)  # an unknown name is refused now and not in an hour
    every = {f.name: digest(f)[:16]
             for f in sorted((ROOT / "checkpoints").glob("*.safetensors"))}
    hangs_on = [every, args.draws, args.slow_draws, args.number, args.real, args.slow, SEED]
    stamp = hashlib.sha256(json.dumps(hangs_on).encode()).hexdigest()[:12]
    folder = args.pieces or WORK / stamp
    folder.mkdir(parents=True, exist_ok=True)
    tasks = [] if args.collect else plan(samples_of(args), methods, args.draws, folder, (args.slow, args.slow_draws))
    start = time.time()
    run(tasks, args.workers, folder)
    if not args.no_table:
        collect(methods, folder, round(time.time() - start))


def run(tasks: list[Piece], workers: int, folder: Path) -> None:
    """Make pieces in processes."""
    # spawn: a forked child of a process that holds a GPU cannot use it, or hangs
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        jobs = [pool.submit(_job, one) for one in _drawn(tasks, folder)]
        for job in tqdm(as_completed(jobs), total=len(jobs), unit="piece"):
            job.result()


def gathered(files: list[Path], methods: list[str]) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, Any]]:
    """Rows of finished pieces, failures, and what each method's rows hang on.

    Raises:
        ValueError: pieces of one method made with different checkpoints.
    """
    of = {m: [f for f in files if f.name.split("-")[3] == filed(m)] for m in methods}
    origins = {m: agreed(of[m], m) for m in methods if of[m]}
    failed = pd.concat([pd.read_parquet(f.with_suffix(".failed")) for f in files], ignore_index=True).drop_duplicates()
    return _newest(files), failed, origins


def collect(methods: list[str], folder: Path, seconds: int = 0) -> None:
    """Finished pieces into one table, its summary and its provenance.

    Of what was there before only rows of the same method, sample and S/N are replaced: where a sample could not be
    asked about (no ../shared), or only at some S/N, its old rows stay. Failures are replaced by method.

    Raises:
        ValueError: no pieces, or pieces of one method made with different checkpoints.
    """
    files = [f for f in sorted(folder.glob("*.table")) if f.name.split("-")[3] in {filed(m) for m in methods}]
    if not files:
        raise ValueError(f"{folder} holds no piece of {', '.join(methods)}; judge first, or name another --pieces.")
    table, failed, origins = gathered(files, methods)
    methods = list(origins)
    whole, summed, lost = slim(table), card(table).round(5), failed
    before: dict[str, object] = {}
    still: set[str] = set()  # methods of which older rows stay
    if (RESULTS / "judge.json").exists():
        before = json.loads((RESULTS / "judge.json").read_text())
        kept = [without(pd.read_parquet(RESULTS / "judge.parquet"), whole),
                without(pd.read_csv(RESULTS / "judge_summary.csv"), summed),
                pd.read_csv(RESULTS / "judge_failed.csv").query("method not in @methods")]
        still = set(kept[0]["method"].unique())
        whole, summed, lost = (pd.concat(pair, ignore_index=True)
                               for pair in zip(kept, (whole, summed, lost), strict=True))
    for name in ("star", "method", "quantity", "unit", "sample"):
        whole[name] = whole[name].astype("category")
    whole.to_parquet(RESULTS / "judge.parquet", compression="zstd", compression_level=19)
    summed.to_csv(RESULTS / "judge_summary.csv", index=False)
    lost.to_csv(RESULTS / "judge_failed.csv", index=False)
    runs = before.get("runs", [before] if before else [])
    assert isinstance(runs, list)
    gone = set(methods) - still
    kept_runs = [run | {"methods": [m for m in run["methods"] if m not in gone],
                        **({"origin": {m: o for m, o in run["origin"].items() if m not in gone}}
                           if "origin" in run else {})} for run in runs]
    head, dirty = commit()
    told = {"runs": [*(run for run in kept_runs if run["methods"]),
                     {"methods": methods, "origin": origins, "seconds": seconds, "judged": _judged(table),
                      "collected": {"commit": head, "dirty": dirty}}]}
    (RESULTS / "judge.json").write_text(json.dumps(told, indent=1) + "\n")
    print(f"{len(table)} rows of {table['star'].nunique()} stars; {len(failed)} failures")


def _newest(files: list[Path]) -> pd.DataFrame:
    """The pieces' rows; of a star that two pieces hold (one of them in the old way of naming) those of the newer."""
    age = {f: i for i, f in enumerate(sorted(files, key=lambda f: f.stat().st_mtime_ns))}
    table = pd.concat([pd.read_parquet(f).assign(piece=age[f]) for f in files], ignore_index=True)
    last = table.groupby(["star", "method", "sample", "snr"], observed=True)["piece"].transform("max")
    return table[table["piece"].eq(last)].drop(columns="piece").reset_index(drop=True)


def _asked_of(table: pd.DataFrame) -> pd.Series:
    """Method, sample and S/N of each row as one word; S/N in whole numbers, as in the pieces' names."""
    return (table["method"].astype(str) + "-" + table["sample"].astype(str) + "-"
            + table["snr"].astype(float).round().astype(int).astype(str))


def without(old: pd.DataFrame, new: pd.DataFrame) -> pd.DataFrame:
    """Old rows whose method, sample and S/N are not among the new ones."""
    return old[~_asked_of(old).isin(set(_asked_of(new)))]


def _judged(table: pd.DataFrame) -> dict[str, dict[str, list[float]]]:
    """method -> sample -> S/N that rows are of: a later run's word counts before an earlier one's."""
    return {str(m): {str(s): sorted(float(x) for x in part["snr"].unique())
                     for s, part in rows.groupby("sample", observed=True)}
            for m, rows in table.groupby("method", observed=True)}


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

