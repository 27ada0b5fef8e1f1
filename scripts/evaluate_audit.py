"""The hallucination audit: what each method keeps of a line put in, paints back of one taken out, and flags."""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from core.believed import read_nulls
from core.data.noise import NoiseModel
from core.data.reality import Reality
from core.data.simulator import Simulator
from core.metrics.audit import Test, calibrate
from core.metrics.false_alarms import Calibration
from core.metrics.injection import gap, nothing, put_in, take_out
from core.metrics.lines import LINES
from core.models.templates import NATIVE, Templates
from core.pipeline import METHODS, build, reconstruct
from core.spectrum import Array, Spectra
from scripts.evaluate_judge import RESULTS, ROOT
from scripts.judge_origin import hashes, keep, record, together
from scripts.judge_stars import SEED, SNR, simulated

TABLE, NULLS = RESULTS / "audit.parquet", RESULTS / "audit_nulls.npz"
SUMMARY = RESULTS / "audit_summary.csv"
WORK = ROOT / ".trueline" / "audit"  # finished pieces: a killed run goes on from them
EXPERIMENTS = ("nothing", "put in", "take out", "gap")
_DRAWS = 16
_BLOCK = 64  # stars asked about at once: what fills a GPU with 16 draws of each
#: Without draws: their spread, told by so few, only blurs what the null knows (docs/judge.md).
_TEST = Test(with_draws=False)
_TAKEN = ("H alpha", "Mg b", "Na D", "Ca II 8542")
_HIDDEN = ("H beta", "Ca II 8542")


def answer(method: str, spectra: Spectra, n: int, seed: int) -> Array:
    """Draws (n, B, L) of a method, as the audit asks for them."""
    return reconstruct(spectra, method, n, seed).draws


def null_stars(snr: float, number: int) -> Spectra:
    """Stars of the simulator that are not judged."""
    templates = Templates()
    simulator = Simulator(templates, NATIVE, NoiseModel.load(), templates.emulator.nearest, Reality.load())
    stars = simulator.draw(number, np.random.default_rng([SEED + 1, int(snr)]), snr).spectra
    return replace(stars, meta=stars.meta.assign(star=[f"null-{int(snr)}-{i}" for i in range(number)]))


@dataclass(frozen=True)
class Piece:
    """One method at one S/N, asked about `number` stars of each experiment; each part is a file in `folder`.

    `nulls` is how many stars its own null is measured on, none of those it is asked about.
    """

    method: str
    snr: float
    number: int
    folder: Path
    nulls: int = 400

    def path(self, part: str) -> Path:
        """Where a part lies once it is finished: the method's own null, or the rows of an experiment."""
        return self.folder / f"audit-{self.method}-{self.snr:g}-{self.number}.{part.replace(' ', '_')}"

    @property
    def finished(self) -> bool:
        """Are all parts there?"""
        return all(self.path(part).exists() for part in ("null", *EXPERIMENTS))

    @classmethod
    def of(cls, file: Path) -> Piece:
        """The piece whose null a file is."""
        _, method, snr, number = file.stem.split("-")
        return cls(method, float(snr), int(number), file.parent)


def _save(path: Path, arrays: Mapping[str, Array]) -> None:
    """Arrays into an .npz, whatever the file is called."""
    with path.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def _load(path: Path) -> dict[str, Array]:
    """What `_save` wrote."""
    with np.load(path, allow_pickle=False) as stored:
        return dict(stored)


def nulls() -> dict[tuple[str, float], Calibration]:
    """The committed nulls by method and S/N."""
    return read_nulls(NULLS)


def _whole(path: Path, write: Callable[[Path], object]) -> None:
    """A file that is written whole or not at all."""
    part = path.with_name(path.name + ".part")
    write(part)
    part.rename(path)


def _null(piece: Piece) -> Calibration:
    """The method's own null, from stars that are not judged."""
    return calibrate(null_stars(piece.snr, piece.nulls), partial(answer, piece.method), _DRAWS, SEED, _TEST, _BLOCK)


def _experiment(piece: Piece, name: str) -> pd.DataFrame:
    """Rows of one of the four; all but the gap want the null to be there."""
    ask, both = partial(answer, piece.method), simulated(piece.snr, 2 * piece.number)
    fresh, stars = (both.spectra.select(part) for part in (slice(0, piece.number), slice(piece.number, None)))
    truth = both.truth[piece.number :]
    taken, hidden = ([LINES[line] for line in lines] for lines in (_TAKEN, _HIDDEN))
    if name == "gap":
        rows = gap(stars, truth, ask, _DRAWS, SEED, lines=hidden, block=_BLOCK)
    else:
        test = replace(_TEST, calibration=Calibration.from_arrays(_load(piece.path("null"))))
        if name == "nothing":
            rows = nothing(fresh, ask, _DRAWS, SEED, test, _BLOCK)
        elif name == "put in":
            rows = put_in(stars, ask, _DRAWS, SEED, 2, test=test, block=_BLOCK)
        else:
            rows = take_out(stars, truth, ask, _DRAWS, SEED, taken, test, _BLOCK)
    if "line" in rows:
        rows["line"] = rows["line"].astype(str)  # a number, or a name
    return rows.assign(experiment=name, method=piece.method, snr=piece.snr)


def _job(piece: Piece, part: str) -> None:
    """Worker: one part of a piece into its file."""
    torch.set_num_threads(1)
    keep(record(piece.method, _DRAWS, torch.cuda.is_available()) | {"nulls": piece.nulls}, piece.path("json"),
         any(piece.path(name).exists() for name in ("null", *EXPERIMENTS)))
    if part == "null":
        null = _null(piece)
        _whole(piece.path(part), lambda path: _save(path, null.to_arrays()))
    else:
        _whole(piece.path(part), _experiment(piece, part).to_parquet)


def card(rows: pd.DataFrame) -> pd.DataFrame:
    """One row per method and S/N: false alarms, survival and flags of lines put in, paint, gaps.

    removed_5_10 is the share of lines of which less than half survives, caught_5_10 and could_5_10 the flags and the
    limit of these alone: what is kept for the most part needs no flag to be seen, and has none.
    """
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
        use = (strong >= 5) & (strong < 10)
        gone = use & (put["survival"] < 0.5)
        row |= {"removed_5_10": gone.sum() / max(use.sum(), 1), "caught_5_10": put["flagged"][gone].mean(),
                "could_5_10": put["limit"][gone].mean()}
        line = taken["strength"].abs() > 10
        row |= {"painted": taken["painted"][line].median(), "paint_flagged": taken["flagged"][line].mean(),
                "gap_covered": hidden["covered"].mean(), "gap_z2": hidden["chi2"].median()}
        out.append(row)
    return pd.DataFrame(out)


def _run(pieces: list[Piece], workers: int) -> list[str]:
    """All that is not finished, nulls first; what failed, in words. One worker is this process itself."""
    failed: list[str] = []

    def done(piece: Piece, part: str, result: Callable[[], object]) -> None:
        try:
            result()
        except (ValueError, RuntimeError, OSError) as error:  # one part of one method at one S/N, not the run
            failed.append(f"{piece.method} at S/N {piece.snr:g}, {part}: {error}")

    for stage in (("null", "gap"), ("nothing", "put in", "take out")):
        able = [piece for piece in pieces if stage[0] == "null" or piece.path("null").exists()]
        tasks = [(piece, part) for piece in able for part in stage if not piece.path(part).exists()]
        bar = partial(tqdm, total=len(tasks), unit="part", desc=", ".join(stage), disable=not tasks)
        if workers == 1:
            for piece, part in bar(tasks):
                done(piece, part, partial(_job, piece, part))
            continue
        # spawn: a forked child of a process that holds a GPU cannot use it, or hangs
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            jobs = {pool.submit(_job, *task): task for task in tasks}
            for job in bar(as_completed(jobs)):
                done(*jobs[job], job.result)
    return failed


def audit(args: argparse.Namespace) -> None:
    """Lines put in and taken out, gaps, false alarms, by method and S/N; writes results/audit.parquet, its summary."""
    methods = args.methods.split(",") if args.methods else list(METHODS)
    wanted = args.snr or SNR
    for method in methods:
        build(method)  # an unknown name is refused now and not in an hour
    if args.audited < 1:
        raise ValueError(f"{args.audited} stars of each experiment asked for; ask for at least 1.")
    if args.nulls < 100:
        raise ValueError(f"{args.nulls} stars for a null; a tail of 1 % needs at least 100, better 400.")
    hangs_on = [{method: hashes(method) for method in methods}, _DRAWS, args.nulls, SEED]
    folder = args.pieces or WORK / hashlib.sha256(json.dumps(hangs_on).encode()).hexdigest()[:12]
    folder.mkdir(parents=True, exist_ok=True)
    pieces = [Piece(method, snr, args.audited, folder, args.nulls) for method in methods for snr in wanted]
    failed = [] if args.collect else _run(pieces, args.workers)
    for line in failed:
        print(line)
    if not args.no_table:
        collect(folder, methods, wanted, None if args.collect else args.audited)
    if failed:
        raise SystemExit("The audit failed for " + "\n".join(failed) + "\nThe next run tries these again.")


def _finished(folder: Path, methods: Collection[str], wanted: Collection[float], number: int | None) -> list[Piece]:
    """Finished pieces of a folder, one for each method and S/N: of so many stars, or of the most there are."""
    best: dict[tuple[str, float], Piece] = {}
    for piece in map(Piece.of, sorted(folder.glob("audit-*.null"))):
        at = piece.method, piece.snr
        if piece.method not in methods or piece.snr not in wanted or number not in (None, piece.number):
            continue
        if not piece.finished:
            print(f"{piece.method} at S/N {piece.snr:g} with {piece.number} stars is not finished: left out")
        elif at not in best or piece.number > best[at].number:
            best[at] = piece
    return list(best.values())


def collect(folder: Path, methods: Collection[str], wanted: Collection[float], number: int | None = None) -> None:
    """Finished pieces into the table, its summary and the nulls; rows of other methods and S/N stay as they were.

    Raises:
        ValueError: nothing finished in the folder.
    """
    pieces = _finished(folder, methods, wanted, number)
    if not pieces:
        raise ValueError(f"{folder} holds no finished piece of {', '.join(methods)}; run the audit there first.")
    origins = {f"{piece.method}/{piece.snr:g}": json.loads(piece.path("json").read_text())
               if piece.path("json").exists() else {} for piece in pieces}
    rest: set[str] = set()
    frames = [pd.read_parquet(piece.path(part)) for piece in pieces for part in EXPERIMENTS]
    new = {(piece.method, piece.snr) for piece in pieces}
    if TABLE.exists():  # what was not asked again stays
        old = pd.read_parquet(TABLE)
        rest = {f"{method}/{snr:g}" for method, snr in zip(old["method"], old["snr"], strict=True)}
        frames.insert(0, old[[at not in new for at in zip(old["method"], old["snr"], strict=True)]])
    together(origins, TABLE.with_suffix(".json"), rest)  # first: what does not belong together is not written
    table = pd.concat(frames, ignore_index=True)
    table = table.sort_values(["method", "snr", "experiment"], ignore_index=True, kind="stable")
    table.to_parquet(TABLE, compression="zstd")
    kept = _load(NULLS) if NULLS.exists() else {}
    for piece in pieces:
        name = f"{piece.method}/{piece.snr:g}/"
        kept = {key: values for key, values in kept.items() if not key.startswith(name)}
        kept |= {name + what: values for what, values in _load(piece.path("null")).items()}
    _whole(NULLS, lambda path: _save(path, kept))
    summary = card(table)
    summary.round(4).to_csv(SUMMARY, index=False)
    print(summary.round(3).to_string())
