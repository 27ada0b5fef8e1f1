"""Many stars, one after another or side by side: one worker for a loop, a process pool or a cluster; resumable."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from core import believed, domain, pipeline, products, star_tables
from core.cache import rounded
from core.data import hashes, lamost, noise
from core.spectrum import Array, Samples, Spectra

DONE = "provenance.json"  #: written last: a star's folder that holds it is whole
MADE, KEPT, REFUSED = "made", "kept", "refused"
COLUMNS = ("file", "star", "state", "folder", "reason")
#: maps a worker over jobs, in order: `map` for a loop, an executor's `map` for processes
Mapper = Callable[[Callable[["Job"], "Outcome"], Iterable["Job"]], Iterable["Outcome"]]


@dataclass(frozen=True)
class Order:
    """What is wanted of every star.

    Args:
        methods: names in core.pipeline.METHODS; draws: of each; seed: of draws and of added noise.
        snr: S/N_g that better stars are degraded to, None: as observed.
        settings: of methods, by name; keep_draws: into the FITS file.

    Raises:
        ValueError: no method, an unknown one or a setting it does not take, draws < 1, a seed below 0, an S/N below 1.
    """

    methods: tuple[str, ...] = ("exact",)
    draws: int = 32
    seed: int = 0
    snr: float | None = None
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    keep_draws: bool = False

    def __post_init__(self) -> None:
        if not self.methods:
            raise ValueError(f"no method is named; known are {', '.join(pipeline.METHODS)}.")
        if self.draws < 1 or self.seed < 0:
            raise ValueError(f"{self.draws} draws with seed {self.seed}; give at least 1, and a seed of 0 or more.")
        if self.snr is not None and not 1 <= self.snr < 1e5:
            raise ValueError(f"S/N {self.snr} is not to be had; give a number of at least 1.")
        if odd := set(self.settings) - set(self.methods):
            raise ValueError(f"settings for {', '.join(sorted(odd))}, which is not asked; name it as a method too.")
        for method in self.methods:
            pipeline.build(method, **self.settings.get(method, {}))


@dataclass(frozen=True)
class Job:
    """One file and the folder its star goes to."""

    file: Path
    folder: Path


@dataclass(frozen=True)
class Outcome:
    """What became of a file: MADE, KEPT (finished before) or REFUSED, and why; also which methods failed, and why."""

    file: str
    star: str
    state: str
    folder: str
    reason: str = ""


def fits_files(given: Sequence[Path]) -> list[Path]:
    """The files given, and of folders the FITS files in them, sorted; each once.

    Raises:
        ValueError: a folder without FITS files; nothing given.
    """
    out: list[Path] = []
    for path in given:
        found = [path]
        if path.is_dir():
            found = sorted(p for p in path.iterdir() if p.name.lower().endswith(lamost.SUFFIXES))
            if not found:
                raise ValueError(f"{path} holds no FITS file; LAMOST spectra end in {', '.join(lamost.SUFFIXES)}.")
        out += found
    if not out:
        raise ValueError("no file is given; name FITS files or folders of them.")
    return list(dict.fromkeys(out))


def jobs(files: Sequence[Path], out: Path) -> list[Job]:
    """A folder for each file, by its name; where two have one name, the later ones get their number.

    Part of a cluster must list all files before it takes its share of the jobs, or numbers would differ.
    """
    taken: dict[str, int] = {}
    made = []
    for file in files:
        lower = file.name.lower()
        stem = file.name[: -len(next((end for end in sorted(lamost.SUFFIXES, key=len, reverse=True)
                                      if lower.endswith(end)), "")) or None]
        name = re.sub(r"[^A-Za-z0-9.+-]+", "_", stem).strip(".") or "star"
        taken[name] = taken.get(name, 0) + 1
        made.append(Job(file, out / (name if taken[name] == 1 else f"{name}_{taken[name]}")))
    return made


def run(todo: Sequence[Job], order: Order, mapper: Mapper = map) -> pd.DataFrame:
    """Every job through `work`; a row each (COLUMNS). A bad file costs its own row only."""
    return pd.DataFrame([asdict(outcome) for outcome in mapper(partial(work, order=order), todo)],
                        columns=list(COLUMNS))


def work(job: Job, order: Order) -> Outcome:
    """One star, made unless it is finished; its folder is whole or not there. Never raises for a bad file."""
    try:
        question = _question(job.file, order)
        done = job.folder / DONE
        if done.is_file() and json.loads(done.read_text()).get("question") == question:
            return Outcome(str(job.file), json.loads(done.read_text())["star"], KEPT, str(job.folder))
        files, star, failed = contents(job.file, order, question)
    except (ValueError, OSError, RuntimeError) as error:
        return Outcome(str(job.file), "", REFUSED, "", re.sub(r"\s+", " ", str(error)))
    part = job.folder.with_name(f".{job.folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    for name, content in files.items():
        products.write(part / name, content)
    if job.folder.is_dir():  # of another question
        shutil.rmtree(job.folder)
    os.replace(part, job.folder)
    return Outcome(str(job.file), star, MADE, str(job.folder), " ".join(failed))


def _question(file: Path, order: Order) -> str:
    """A hash of all that the numbers hang on: the file, the order, versions and checkpoints."""
    told = {"file": hashes.digest(file), **asdict(order), **products.versions(), **products.checkpoints()}
    return hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()


def observed(file: Path, order: Order) -> tuple[Spectra, Array | None, Spectra | None, str]:
    """The star as asked about, its truth or None, itself before it was degraded (without a truth) or None, a remark.

    Raises:
        ValueError: the file is no LAMOST spectrum.
    """
    own = lamost.read(file)
    truth = lamost.read_truth(file) if str(own.meta["origin"].iloc[0]) == "simulated" else None
    if order.snr is None:
        return own, truth, None, ""
    try:
        spectra = noise.degrade(own, order.snr, order.seed)
    except ValueError as error:
        return own, truth, None, f"As observed: {error}"
    return spectra, truth, own if truth is None else None, ""


def contents(file: Path, order: Order, question: str = "") -> tuple[dict[str, str | bytes], str, list[str]]:
    """The files of one star by name, its id, and sentences about methods that failed.

    Raises:
        ValueError: the file is no LAMOST spectrum, or every method failed.
    """
    spectra, truth, own, remark = observed(file, order)
    star, said = spectra.stars[0], [remark] if remark else []
    answers: list[Samples] = []
    for method in order.methods:
        try:
            answers.append(rounded(pipeline.reconstruct(spectra, method, order.draws, order.seed,
                                                        **order.settings.get(method, {}))))
        except (ValueError, RuntimeError) as error:
            said.append(f"{method}: {error}")
    if not answers:
        raise ValueError(" ".join(said))
    found = {answer.method: believed.flagged(answer, spectra)[0] for answer in answers}
    shares = {answer.method: believed.trust(answer, spectra)[0] for answer in answers}
    lines = star_tables.lines(answers, spectra, truth, own, order.seed, shares=shares, flags=found)
    labels = star_tables.labels(star_tables.label_draws(answers, spectra, order.seed), spectra)
    flags, kind = star_tables.flags_table(star, found), domain.score(spectra)
    release = products.versions()
    provenance: dict[str, Any] = {"question": question, "star": star, "file": str(file),
                  "file_sha256": hashes.digest(file),
                  "origin": str(spectra.meta["origin"].iloc[0]), "order": asdict(order), "said": said,
                  "snr_g": float(noise.snr(spectra)[0]), "domain": kind.told(),
                  "versions": release, "checkpoints": products.checkpoints()}
    head = {"star": star, "origin": provenance["origin"], "seed": order.seed, "draws": order.draws,
            "wavelengths": "vacuum, observed frame"}
    card = {"STAR": star, "ORIGIN": provenance["origin"], "SEED": order.seed, "NDRAWS": order.draws,
            "SNRG": provenance["snr_g"], "MISFIT": kind.misfit, "INSIDE": kind.inside,
            "TRUELINE": release["trueline"]}
    spectrum = products.spectrum_table(spectra, answers, truth, shares)
    return {"lines.ecsv": products.ecsv(lines, head), "labels.ecsv": products.ecsv(labels, head),
            "flags.ecsv": products.ecsv(flags, head),
            "spectrum.fits": products.fits_bytes(spectrum, flags, answers if order.keep_draws else (), card),
            DONE: json.dumps(provenance, indent=1, default=float) + "\n"}, star, said
