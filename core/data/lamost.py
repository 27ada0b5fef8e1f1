"""LAMOST low-resolution spectra from FITS, all published layouts, onto the working grid; bad pixels become ivar = 0."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from core.data import grid, sky
from core.data.lamost_layouts import find_spectrum, load, read_hdus
from core.data.line_windows import undo_line_windows
from core.data.noise import LAMOST_NOISE
from core.spectrum import LABELS, Array, Spectra

SIMULATED = "TRUELINE"  #: header card ORIGIN of files that our simulator wrote
SUFFIXES = (".fits", ".fits.gz", ".fit", ".fit.gz")

_PILOT_END = 56171  # MJD of 2012-09-01: what was observed before is the pilot survey, whose files name no release
_UNITS = (("nm", 300.0, 1100.0, "multiply by 10"), ("micron", 0.3, 1.1, "multiply by 10000"),
          ("log10 of Angstrom", 3.47, 4.05, "take 10**x"), ("metre", 3e-7, 1.1e-6, "multiply by 1e10"))


@contextmanager
def _quiet() -> Iterator[None]:
    """No warnings of astropy: what matters about a file is said once, in the ValueError."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _check_wave(wave: Array) -> None:
    """Refuse wavelengths in another unit, or not rising."""
    middle = float(np.nanmedian(wave)) if np.isfinite(wave).any() else np.nan
    if not 3000 < middle < 11000:
        guess = [f"they look like {unit}: {remedy}" for unit, low, high, remedy in _UNITS if low < middle < high]
        raise ValueError(f"has wavelengths about {middle:.5g}, which is not optical Angstrom; "
                         f"{guess[0] if guess else 'give vacuum wavelengths in Angstrom'}.")
    if not np.isfinite(wave).all() or (np.diff(wave) <= 0).any():
        raise ValueError("has wavelengths that do not rise from pixel to pixel; sort them or download the file again.")
    if wave[0] < 3000 or wave[-1] > 11000:
        raise ValueError(f"has wavelengths from {wave[0]:.5g} to {wave[-1]:.5g}, beyond 3000-11000 Angstrom, where "
                         "LAMOST does not measure; give a LAMOST low-resolution spectrum.")


def _masked(flux: Array, ivar: Array, andmask: Array) -> tuple[Array, Array]:
    """Flux, finite everywhere, and ivar = 0 in every bad pixel; what is broken as a whole is refused."""
    negative = int((ivar < 0).sum())
    if negative:
        raise ValueError(f"has negative ivar in {negative} pixels, so its noise is unknown; download it again.")
    claimed = (ivar > 0) & (andmask == 0)
    good = claimed & np.isfinite(flux) & np.isfinite(ivar)
    if not claimed.any():
        raise ValueError("has ivar = 0 or a mask in every pixel, so nothing was measured; leave it out.")
    if 2 * good.sum() < claimed.sum():
        raise ValueError(f"has flux or ivar that is not finite (NaN) in {int((claimed & ~good).sum())} of "
                         f"{int(claimed.sum())} measured pixels; download it again.")
    return np.where(np.isfinite(flux), flux, 0.0), np.where(good, ivar, 0.0)


def _number(value: Any) -> float:
    """A header value as a number; NaN where it is missing, text, or LAMOST's -9999."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return float("nan")
    return number if np.isfinite(number) and number > -9998 else float("nan")


def _meta(cards: dict[str, Any], file: str, layout: str) -> dict[str, Any]:
    """One row about the star, the same columns for every release."""
    def text(key: str) -> str:
        return str(cards.get(key, "")).strip()

    def whole(key: str) -> int:
        return int(np.nan_to_num(_number(cards.get(key))))

    simulated = text("ORIGIN") == SIMULATED
    day = whole("LMJD") or whole("MJD")
    known = day and text("PLANID")
    place = f"{day}-{text('PLANID')}-{whole('SPID'):02d}-{whole('FIBERID'):03d}" if known else Path(file).name
    release = text("DATA_V").removeprefix("LAMOST ") or ("pilot" if 0 < day < _PILOT_END else text("VERSPIPE"))
    z = _number(cards.get("Z"))
    row = {"star": text("OBSID") or place, "obsid": text("OBSID"), "designation": text("DESIG").removeprefix("LAMOST "),
           "ra": _number(cards.get("RA")), "dec": _number(cards.get("DEC")),
           **{f"snr_{b.lower()}": _number(cards.get(f"SNR{b}", cards.get(f"SN_{b}"))) for b in "UGRIZ"},
           "class": text("CLASS"), "subclass": text("SUBCLASS"), "z": z, "rv": grid.C_KMS * z, "release": release,
           "file": file, "layout": layout, "origin": "simulated" if simulated else "observed"}
    if simulated:  # only here does a header know the true labels, and RV is the true velocity
        row |= {label: _number(cards[label.upper()]) for label in LABELS if label.upper() in cards}
        row |= {"planted": _number(cards["PLANTED"])} if "PLANTED" in cards else {}
    return row


def _parse(source: str | Path | bytes, name: str,
           mend: bool = True) -> tuple[Array, Array, Array, dict[str, Any], Array | None]:
    """`parse`, and the truth of a simulated file in the unit of flux."""
    hdus = read_hdus(load(source, name), name)
    try:
        wave, flux, ivar, andmask, layout = find_spectrum(hdus)
        if not flux.shape == ivar.shape == andmask.shape == wave.shape:
            raise ValueError("has columns of different lengths; download it again.")
        _check_wave(wave)
        flux, ivar = _masked(flux, ivar, andmask)
    except ValueError as err:
        raise ValueError(f"{name} {err}") from err
    cards = hdus[0].cards
    if cards.get("VACUUM") is False:  # LAMOST is in vacuum where the header does not say otherwise
        wave = grid.air_to_vacuum(wave)
    meta = _meta(cards, name, layout) | {"ivar_mended": 0}
    if mend:
        ivar, meta["ivar_mended"] = undo_line_windows(wave, ivar)
    truth = [h.image for h in hdus if h.name == "TRUTH" and h.image is not None and h.image.shape == flux.shape]
    return wave, flux, ivar, meta, truth[0] if truth else None


def parse(source: str | Path | bytes, name: str | None = None) -> tuple[Array, Array, Array, dict[str, Any]]:
    """One spectrum as in the file: vacuum wavelength (n,) [Angstrom], flux (n,), ivar (n,) with 0 for bad pixels, meta.

    Args:
        source: path of a plain or gzipped FITS file, or its bytes.
        name: what to call it in messages; the path by default.

    Raises:
        ValueError: with the file, the fact and the remedy, for whatever is not one LAMOST low-resolution spectrum.
    """
    with _quiet():
        return _parse(source, _name(source, name))[:4]


def _name(source: str | Path | bytes, name: str | None) -> str:
    return name or ("upload" if isinstance(source, bytes) else str(source))


def _patterns(*origins: str) -> Array:
    """Sky and air of real spectra; our simulator's files have none."""
    return np.zeros((0, grid.N_PIXELS)) if all(o == "simulated" for o in origins) else sky.patterns()


def _read(source: str | Path | bytes, name: str, mend: bool = True) -> tuple[Spectra, Array | None]:
    wave, flux, ivar, meta, truth = _parse(source, name, mend)
    try:
        spectra = grid.prepare(wave, flux, ivar, meta=pd.DataFrame([meta]))
        spectra = replace(spectra, noise=LAMOST_NOISE, patterns=_patterns(meta["origin"]))
    except ValueError as err:
        raise ValueError(f"{name}: {err}") from err
    if truth is None:
        return spectra, None
    return spectra, (grid.onto_grid(wave, truth[None], np.ones((1, len(wave))))[0] / spectra.continuum)[0]


def read(path: str | Path, mend: bool = True) -> Spectra:
    """One LAMOST file as Spectra of one row on grid.WAVE, in units of its continuum.

    Meta: star (id of this observation), obsid, designation, ra, dec [deg], snr_u ... snr_z, class, subclass, z,
    rv [km/s] (c z of the pipeline), release, file, layout, origin ("observed", or "simulated" with the true labels),
    ivar_mended (pixels whose tenfold variance was undone).

    Args:
        path: a plain or gzipped FITS file.
        mend: undo the pilot survey's tenfold variance at strong lines (core.data.line_windows); False: ivar as quoted.

    Raises:
        ValueError: with the file, the fact and the remedy.
    """
    with _quiet():
        return _read(path, str(path), mend)[0]


def read_bytes(data: bytes, name: str) -> Spectra:
    """Like `read`, for the content of an upload called `name`."""
    with _quiet():
        return _read(data, name)[0]


def read_truth(source: str | Path | bytes, name: str | None = None) -> Array:
    """The (3840,) clean flux of a simulated file, in units of the continuum that `read` divides by.

    Raises:
        ValueError: also when the file holds no truth, as every real observation.
    """
    with _quiet():
        truth = _read(source, _name(source, name))[1]
    if truth is None:
        raise ValueError(f"{_name(source, name)} holds no truth; only files that Trueline simulated do.")
    return truth


def _fits_files(folder: Path) -> list[Path]:
    """FITS files of a folder itself, by the end of their name, sorted."""
    return sorted(p for p in folder.iterdir() if p.name.lower().endswith(SUFFIXES) and not p.name.startswith("."))


def _why_empty(folder: Path) -> str:
    """Where to look instead when a folder has no FITS file: a subfolder that has, or the names they have."""
    for inner in sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")):
        with suppress(OSError):  # one that may not be opened is no hint
            if _fits_files(inner):
                return f"holds no FITS file itself; its subfolder {inner.name} does; name that one."
    return f"holds no FITS file; LAMOST spectra end in {', '.join(SUFFIXES)}."


def read_folder(folder: str | Path, workers: int | None = None, progress: bool = True,
                mend: bool = True) -> tuple[Spectra, pd.DataFrame]:
    """Every FITS file of a folder (not of folders in it), sorted by name; bad files are set aside, other files ignored.

    Args:
        folder: its path.
        workers: threads; as many as ThreadPoolExecutor takes by default.
        progress: show a progress bar.
        mend: as in `read`.

    Returns:
        Spectra of the files that could be read (no rows where none could); a table of file and reason for the others.

    Raises:
        ValueError: the folder is missing or unreadable, or holds no FITS file.
    """
    folder = Path(folder)
    try:
        files = _fits_files(folder)
    except OSError as err:
        raise ValueError(f"folder {folder} cannot be read ({err.strerror}); check its path and permissions.") from err
    if not files:
        raise ValueError(f"folder {folder} {_why_empty(folder)}")

    def attempt(path: Path) -> Spectra | str:
        try:
            return _read(path, str(path), mend)[0]
        except ValueError as err:
            return str(err)

    # one filter for all threads: catch_warnings changes the process, so threads must not each enter it
    with _quiet(), ThreadPoolExecutor(workers) as pool:
        answers = list(tqdm(pool.map(attempt, files), total=len(files), unit="file", disable=not progress))
    kept = [a for a in answers if isinstance(a, Spectra)]
    refused = pd.DataFrame([(str(f), a) for f, a in zip(files, answers, strict=True) if isinstance(a, str)],
                           columns=["file", "reason"])
    empty = np.zeros((0, grid.N_PIXELS))
    flux = np.concatenate([empty, *(s.flux for s in kept)])
    ivar = np.concatenate([empty, *(s.ivar for s in kept)])
    continuum = np.concatenate([empty, *(s.continuum for s in kept)])
    meta = pd.concat([s.meta for s in kept]) if kept else pd.DataFrame()
    patterns = _patterns(*meta["origin"]) if kept else _patterns()
    return Spectra(grid.WAVE, flux, ivar, continuum, meta, LAMOST_NOISE, patterns), refused
