"""Simulated spectra written in LAMOST's own layouts, marked so that none can pass as an observation."""

from __future__ import annotations

import gzip
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from astropy.io import fits

from core.data.lamost import SIMULATED
from core.spectrum import LABELS, Array

LOGLAM0, STEP, N_PIXELS = 3.5682, 1e-4, 3909
#: (3909,) LAMOST's own grid, vacuum Angstrom
LAMOST_WAVE: Array = np.power(10.0, LOGLAM0 + STEP * np.arange(N_PIXELS, dtype=np.float64))
LAYOUTS = ("image", "pilot", "coadd", "table")


def _header(layout: str, header: Mapping[str, Any], labels: Mapping[str, float]) -> fits.Header:
    """The primary header: what LAMOST writes about wavelengths, what the caller says, and that it is simulated."""
    out = fits.Header()
    out["ORIGIN"] = (SIMULATED, "Simulated, not observed")
    out["COMMENT"] = "Simulated by Trueline. This is not an observation by LAMOST."
    out["VACUUM"] = (True, "Wavelengths are in vacuum")
    out["COEFF0"] = (LOGLAM0, "log10 wavelength of the first pixel")
    out["COEFF1"] = (STEP, "log10 step per pixel")
    for key, value in header.items():
        if layout == "pilot" and key in ("OBSID", "DATA_V"):
            continue  # the pilot files know neither
        key = f"SN_{key[3]}" if layout == "pilot" and key in ("SNRU", "SNRG", "SNRR", "SNRI", "SNRZ") else key
        if isinstance(value, float) and not np.isfinite(value):
            value = -9999.0  # FITS headers hold no NaN; this is LAMOST's own word for it
        out[key] = value
    for label, number in labels.items():
        out[label.upper()] = (float(number), f"true value of the simulation [{LABELS[label]}]")
    if layout in ("image", "pilot"):
        third = "Wavelength" if layout == "image" else "Subcontinuum"
        out["EXTEN0"] = f"Flux Inverse {third} Andmask Ormask"
    return out


def write(path: str | Path, flux: npt.ArrayLike, ivar: npt.ArrayLike, layout: str = "coadd", *,
          header: Mapping[str, Any] | None = None, labels: Mapping[str, float] | None = None,
          truth: npt.ArrayLike | None = None, andmask: npt.ArrayLike | None = None,
          ormask: npt.ArrayLike | None = None) -> None:
    """Write one simulated spectrum; the same call gives the same bytes, gzipped where the name ends in .gz.

    Args:
        path: where to.
        flux: (n,) on the first n <= 3909 pixels of LAMOST_WAVE, any unit.
        ivar: (n,) in the inverse square of that unit, 0 = not measured.
        layout: "image" (5 rows, DR6 and DR7), "pilot" (5 rows, wavelengths only in the header), "coadd" (a table of
            one row of vectors, DR8 and later) or "table" (one row per pixel).
        header: cards by LAMOST's names (OBSID, DESIG, RA, SNRG, ...).
        labels: true labels by the names in core.spectrum.LABELS.
        truth: (n,) clean flux in the unit of `flux`, as extension TRUTH.
        andmask: (n,) pixels bad in all exposures, none by default.
        ormask: (n,) pixels bad in any exposure, none by default.

    Raises:
        ValueError: an unknown layout or label, arrays of different lengths, or a header that claims another ORIGIN.
    """
    if layout not in LAYOUTS:
        raise ValueError(f"layout {layout!r} is unknown; choose one of {', '.join(LAYOUTS)}.")
    header, labels = dict(header or {}), dict(labels or {})
    if "ORIGIN" in header:
        raise ValueError(f"ORIGIN is always {SIMULATED!r} in what Trueline writes; leave it out of the header.")
    if unknown := [label for label in labels if label not in LABELS]:
        raise ValueError(f"label(s) {', '.join(unknown)} are unknown; use {', '.join(LABELS)}.")
    n = np.asarray(flux).size
    zeros = np.zeros(n)
    rows = [np.asarray(zeros if a is None else a, dtype=np.float32) for a in (flux, ivar, andmask, ormask)]
    if not 2 <= n <= N_PIXELS or any(a.shape != (n,) for a in rows) or (truth is not None and np.shape(truth) != (n,)):
        raise ValueError(f"flux, ivar, truth and masks must be lists of one length, at most {N_PIXELS} pixels; "
                         "give one spectrum on LAMOST_WAVE.")
    f, i, andm, orm = rows
    wave = LAMOST_WAVE[:n].astype(np.float32)
    top = _header(layout, header, labels)
    if layout in ("image", "pilot"):
        # the pilot files hold the flux less its continuum where later ones hold the wavelength
        third = wave if layout == "image" else f - np.convolve(f, np.ones(301, np.float32) / 301, mode="same")
        hdus: list[Any] = [fits.PrimaryHDU(np.stack([f, i, third, andm, orm]), header=top)]
    else:
        names = ("FLUX", "IVAR", "WAVELENGTH", "ANDMASK", "ORMASK")
        vector = layout == "coadd"
        columns = [fits.Column(name, f"{n}E" if vector else "E", array=a[None] if vector else a)
                   for name, a in zip(names, (f, i, wave, andm, orm), strict=True)]
        hdus = [fits.PrimaryHDU(header=top), fits.BinTableHDU.from_columns(columns, name="COADD")]
    if truth is not None:
        hdus.append(fits.ImageHDU(np.asarray(truth, dtype=np.float32), name="TRUTH"))
    content = io.BytesIO()
    fits.HDUList(hdus).writeto(content)
    data = content.getvalue()
    # no time stamp in the gzip header, so that bundled stars made again are the same files
    Path(path).write_bytes(gzip.compress(data, mtime=0) if str(path).endswith(".gz") else data)
