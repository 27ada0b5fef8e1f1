"""Stars and answers, made once and kept in memory: the only door from the page to core.pipeline."""

from __future__ import annotations

import argparse
import hashlib
import logging
import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from inspect import signature
from pathlib import Path

import numpy as np
import pandas as pd
import streamlit as st

from app.answers import Answers
from app.shown import Answer, Look, Star, Waiting
from app.styles import shifted, style
from core import pipeline
from core.data import lamost, library, noise
from core.metrics import fidelity
from core.spectrum import Array, Spectra

#: own S/N_g of the real star of a first visit: good enough that its spectrum is a reference once degraded
FIRST_OWN = (20.0, 40.0)
_SOURCES = ("Upload", "Folder", "Simulated")
#: of each method; a filter repeats its one answer, so that the page need not know which is which
DRAWS = {"other": 16, "dps": 8, "pigdm": 8, "mmps": 8}
DPS_STEPS = 50  #: of 1000

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Catalogue:
    """The stars one can pick, by key, and what could not be read: sentences, and files with their reasons."""

    stars: dict[str, Star]
    problems: tuple[str, ...]
    refused: pd.DataFrame


def methods() -> tuple[str, ...]:
    """The names of all methods, in the order of core.pipeline."""
    return tuple(pipeline.METHODS)


def folders() -> list[str]:
    """Folders of spectra named when the server started, never by the browser: --folder, or TRUELINE_FOLDER."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--folder", action="append", default=[])
    try:
        named = list(parser.parse_known_args(sys.argv[1:])[0].folder)
    except SystemExit:  # --folder without a path: argparse has said so in the terminal, the page goes on without
        named = []
    return named or [path for path in os.environ.get("TRUELINE_FOLDER", "").split(os.pathsep) if path]


def _stars(source: str, spectra: Spectra, truths: Iterable[Array | None]) -> list[Star]:
    own = noise.snr(spectra)
    return [Star(f"{source.lower()}:{star}", source, spectra, row, float(own[row]), truth)
            for row, (star, truth) in enumerate(zip(spectra.stars, truths, strict=True))]


@st.cache_resource(show_spinner="Reading the bundled stars ...")
def _bundled() -> list[Star]:
    spectra, truth = library.bundled()
    return _stars("Simulated", spectra, truth)


@st.cache_resource(show_spinner="Reading the folder of spectra ...", max_entries=8)
def _folder(path: str, changed: int) -> tuple[list[Star], pd.DataFrame]:
    """The stars of a folder; `changed` is its time stamp, so that a new file in it is seen."""
    spectra, refused = library.folder(path)
    # a folder may hold files that Trueline simulated: they say so themselves, and bring their truth
    truths = [lamost.read_truth(row.file) if row.origin == "simulated" else None for row in spectra.meta.itertuples()]
    return _stars("Folder", spectra, truths), refused


@st.cache_resource(show_spinner="Reading the upload ...", max_entries=64)
def _upload(digest: str, name: str, _data: bytes) -> Star | str:
    """The star in an upload, or the sentence why there is none; kept by content."""
    try:
        spectra = lamost.read_bytes(_data, name)
        known = spectra.meta["origin"][0] == "simulated"
        truth = lamost.read_truth(_data, name) if known else None
    except ValueError as error:
        return str(error)
    except Exception:  # a stranger's file: whatever else a FITS library makes of it must not take the page down
        _log.exception("upload %r", name)
        return f"{name} cannot be read as FITS; download it again, or give one LAMOST low-resolution spectrum."
    star = _stars("Upload", spectra, [truth])[0]
    return replace(star, key=f"upload:{digest[:12]}")


def _unique(stars: Iterable[Star]) -> dict[str, Star]:
    """Stars by key; a second file of the same observation gets the number of its row."""
    out: dict[str, Star] = {}
    for star in stars:
        key = star.key if star.key not in out else f"{star.key}.{star.row + 1}"
        out[key] = replace(star, key=key)
    return out


def catalogue(uploads: Iterable[tuple[str, bytes]] = ()) -> Catalogue:
    """All stars: uploads first, then the folders named at start, then the bundled ones; what fails is said, not raised.

    Of one source the best data come first.

    Args:
        uploads: (name, content) of the files uploaded in this session.
    """
    stars: list[Star] = []
    problems: list[str] = []
    refused = [pd.DataFrame(columns=["file", "reason"])]
    for name, data in uploads:
        answer = _upload(hashlib.sha256(data).hexdigest(), name, data)
        if isinstance(answer, str):
            problems.append(answer)
        elif answer.key not in {star.key for star in stars}:  # the same content under two names is one star
            stars.append(answer)
    for path in folders():
        try:
            found, bad = _folder(path, Path(path).stat().st_mtime_ns if Path(path).exists() else 0)
        except ValueError as error:
            problems.append(str(error))
            continue
        stars += found
        if len(bad):
            problems.append(f"{len(bad)} of {len(bad) + len(found)} files in {path} were refused; page About says why.")
            refused.append(bad)
    try:
        stars += _bundled()
    except ValueError as error:
        problems.append(str(error))
    stars.sort(key=lambda star: (_SOURCES.index(star.source), -np.nan_to_num(star.own), star.name))
    return Catalogue(_unique(stars), tuple(problems), pd.concat(refused, ignore_index=True))


def default(stars: Mapping[str, Star]) -> str | None:
    """The star of a first visit: a real one of the folder, else the simulated one with the furthest to fall.

    Of the real ones that whose own S/N is nearest to FIRST_OWN, or to its middle.
    """
    low, high = FIRST_OWN
    if real := [star for star in stars.values() if star.source == "Folder" and not star.simulated and star.own > 0]:
        return min(real, key=lambda star: (max(low - star.own, star.own - high, 0.0),
                                           abs(star.own - (low + high) / 2), star.key)).key
    first = [star for star in stars.values() if star.source == "Simulated"] or list(stars.values())
    return max(first, key=lambda star: np.nan_to_num(star.own)).key if first else None


@st.cache_resource(show_spinner=False)
def answers() -> Answers:
    """The one store of answers that all visitors share."""
    return Answers()


def strength() -> float:
    """The guidance strength that DPS has unless told otherwise."""
    return float(signature(pipeline.METHODS["dps"]).parameters["strength"].default)


def _answer(method: str, draws: int, seed: int, settings: Mapping[str, float], spectra: Spectra, lines: fidelity.Mask,
            reference: Array | None) -> Answer:
    """One method's answer.

    Raises:
        ValueError: the method refuses, or its draws ran away.
    """
    samples = pipeline.reconstruct(spectra, method, draws=draws, seed=seed, **settings)
    live = spectra.measured[0]
    middle, wide = samples.quantile(0.5), bool(samples.spread.any())

    def rms(pixels: fidelity.Mask) -> float | None:
        return None if reference is None else float(fidelity.rms_error(middle[0], reference, pixels))

    return Answer(
        method, middle[0], samples.quantile(0.16)[0] if wide else None, samples.quantile(0.84)[0] if wide else None,
        fidelity.residual(middle, spectra)[0], float(fidelity.chi_square(middle, spectra)[0]),
        float(fidelity.chi_square(middle, spectra, lines)[0]), rms(live), rms(live & lines), draws, settings,
        samples.draws[:, 0] if wide else samples.draws[:1, 0])


def _content(spectra: Spectra, lines: fidelity.Mask, reference: Array | None) -> str:
    """A name for a question that changes whenever its answer would."""
    digest = hashlib.sha256(f"{spectra.stars} {spectra.noise}".encode())
    for array in (spectra.flux, spectra.ivar, lines, *(() if reference is None else (reference,))):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def look(star: Star, snr: float | None, chosen: Iterable[str], seed: int, guidance: float | None = None,
         wait: bool = True) -> Look:
    """One star at an S/N_g (None: as observed) with the chosen methods' answers; what fails is said, not raised.

    Args:
        star: whose spectrum; seed: of the added noise and of the draws.
        chosen: names of methods.
        guidance: strength of DPS, None: the usual one.
        wait: for slow answers; else those not there yet are begun, and named in the look's `waiting`.
    """
    problems: list[str] = []
    spectra, shown, own = star.spectra, star.own, None
    if snr is not None:
        try:
            degraded = noise.degrade(spectra, snr, seed)
        except ValueError as error:
            problems.append(f"Shown as observed: {error}")
        else:
            if star.truth is None:  # what it was before is the nearest to a reference that a real star has
                own = np.where(spectra.measured[0], spectra.flux[0], np.nan)
            spectra, shown = degraded, snr
    lines = fidelity.in_windows(spectra.wave, shifted(star.velocity))
    reference = own if star.truth is None else star.truth
    content, found, waiting, store = _content(spectra, lines, reference), [], [], answers()
    for method in (name for name in methods() if name in chosen):
        draws = DRAWS.get(method, DRAWS["other"])
        settings: dict[str, float] = {}
        if method == "dps":
            settings = {"strength": strength() if guidance is None else guidance, "steps": DPS_STEPS}
        key = (content, method, seed, draws, tuple(settings.items()))
        future, since = store.ask(key, partial(_answer, method, draws, seed, settings, spectra, lines, reference))
        if not wait and (future.cancelled() or not future.done()):
            waiting.append(Waiting(method, draws, store.seconds.get(method, 1.0), since, future))
            continue
        try:
            found.append(future.result())
        except ValueError as error:
            problems.append(f"No answer from {style(method).name}: {error}")
        except BaseException:
            store.kept.pop(key, None)  # a fault, not an answer: made anew the next time
            raise
    return Look(star, spectra, fidelity.error(spectra)[0], shown, float(noise.snr(spectra)[0]), lines, seed,
                tuple(found), tuple(problems), own, tuple(waiting))
