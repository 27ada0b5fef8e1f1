"""The stars one can pick: uploads, the folders named at start, the bundled ones; and why others cannot be."""

from __future__ import annotations

import argparse
import hashlib
import logging
import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import streamlit as st

from app.shown import Star
from core.data import lamost, library, noise
from core.spectrum import Array, Spectra

#: own S/N_g of the real star of a first visit: good enough that its spectrum is a reference once degraded
FIRST_OWN = (20.0, 40.0)
_SOURCES = ("Upload", "Folder", "Simulated")

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Catalogue:
    """The stars one can pick, by key, and what could not be read: sentences, and files with their reasons.

    Args:
        failed: sentences about what was uploaded in this session; problems: about the rest.
    """

    stars: dict[str, Star]
    problems: tuple[str, ...]
    refused: pd.DataFrame
    failed: tuple[str, ...] = ()


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
        out[key] = star if key == star.key else replace(star, key=key)  # the same object knows its facts already
    return out


def catalogue(uploads: Iterable[tuple[str, bytes]] = ()) -> Catalogue:
    """All stars: uploads first, then the folders named at start, then the bundled ones; what fails is said, not raised.

    Of one source the best data come first.

    Args:
        uploads: (name, content) of the files uploaded in this session.
    """
    stars: list[Star] = []
    problems: list[str] = []
    failed: list[str] = []
    refused = [pd.DataFrame(columns=["file", "reason"])]
    for name, data in uploads:
        answer = _upload(hashlib.sha256(data).hexdigest(), name, data)
        if isinstance(answer, str):
            failed.append(answer)
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
            problems.append(f"{len(bad)} of {len(bad) + len(found)} files in {path} were refused; page Models and data "
                            "says why.")
            refused.append(bad)
    try:
        stars += _bundled()
    except ValueError as error:
        problems.append(str(error))
    stars.sort(key=lambda star: (_SOURCES.index(star.source), -np.nan_to_num(star.own), star.name))
    return Catalogue(_unique(stars), tuple(problems), pd.concat(refused, ignore_index=True), tuple(failed))


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
