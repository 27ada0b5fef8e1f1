"""What of a star goes into files: tables as ECSV, spectra with quantiles (and draws) as FITS, provenance as JSON."""

from __future__ import annotations

import io
import platform
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from astropy.io import fits
from astropy.table import Table

from core.data import hashes
from core.data.grid import vacuum_to_air
from core.metrics.fidelity import error
from core.spectrum import Array, Samples, Spectra

QUANTILES = {"q025": 0.0228, "q16": 0.1587, "q84": 0.8413, "q975": 0.9772}  #: one and two standard deviations
_PACKAGES = ("torch", "numpy", "scipy", "pandas", "astropy", "scikit-learn", "safetensors")


def versions() -> dict[str, str]:
    """Of Trueline, Python and what numbers hang on."""
    return {"trueline": version("trueline"), "python": platform.python_version(),
            **{name: version(name) for name in _PACKAGES}}


@lru_cache(maxsize=1)
def checkpoints() -> dict[str, str]:
    """SHA-256 of every file of numbers that ships, by name."""
    return {path.name: hashes.digest(path) for path in sorted(hashes.FOLDER.glob("*.safetensors"))}


def ecsv(frame: pd.DataFrame, meta: Mapping[str, Any] | None = None) -> str:
    """A table as ECSV (astropy reads it, and any reader of CSV that skips #), `meta` in its header.

    Args:
        frame: with a column `unit` where columns have no one unit; meta: plain values.
    """
    out = io.StringIO()
    table = Table.from_pandas(frame)
    table.meta = dict(meta or {})
    table.write(out, format="ascii.ecsv", delimiter=",")
    return out.getvalue()


def spectrum_table(spectra: Spectra, answers: Sequence[Samples], truth: Array | None = None,
                   trust: Mapping[str, Array] | None = None) -> Table:
    """One star pixel by pixel: wavelengths, what was measured, the truth, each method's median and quantiles.

    Args:
        spectra: one star; answers: draws (n, 1, L) about it; truth: (L,); trust: by method, (L,) share of the prior.

    Returns:
        columns with units [Angstrom; 1, of the continuum]: wavelength, wavelength_air, flux and sigma (NaN where
        nothing was measured; sigma is the true one, sigma_quoted the file's), continuum, truth, METHOD (median),
        METHOD_q025, _q16, _q84, _q975 where draws differ, METHOD_prior.
    """
    live, measured = spectra.measured[0], (spectra.flux, spectra.sigma, error(spectra))
    flux, quoted, sigma = (np.where(live, values[0], np.nan) for values in measured)
    columns: dict[str, Array] = {"wavelength": spectra.wave, "wavelength_air": vacuum_to_air(spectra.wave),
                                 "flux": flux, "sigma": sigma, "sigma_quoted": quoted,
                                 "continuum": spectra.continuum[0]}
    if truth is not None:
        columns["truth"] = truth
    for answer in answers:
        drawn = answer.draws[:, 0]
        columns[answer.method] = np.median(drawn, axis=0)
        if answer.spread.any():
            for name, q in QUANTILES.items():
                columns[f"{answer.method}_{name}"] = np.quantile(drawn, q, axis=0)
        if trust and answer.method in trust and np.isfinite(trust[answer.method]).any():
            columns[f"{answer.method}_prior"] = trust[answer.method]
    units = {"wavelength": "Angstrom", "wavelength_air": "Angstrom"}
    return Table({name: np.asarray(values, dtype=np.float64 if name in units else np.float32)
                  for name, values in columns.items()}, units=units)


def fits_bytes(spectrum: Table, flags: pd.DataFrame, answers: Sequence[Samples] = (),
               header: Mapping[str, str | float | int] | None = None) -> bytes:
    """A FITS file: SPECTRUM and FLAGS as tables, DRAWS_<METHOD> (n, L) as images of the `answers` whose draws differ.

    Args:
        header: of the primary unit; keys of up to eight letters.
    """
    primary = fits.PrimaryHDU()
    for key, value in (header or {}).items():
        # a card holds printable ASCII; a designation from a stranger's header may not be that
        primary.header[key] = value.encode("ascii", "replace").decode() if isinstance(value, str) else value
    units = [primary, fits.BinTableHDU(spectrum, name="SPECTRUM")]
    if len(flags):
        units.append(fits.BinTableHDU(Table.from_pandas(flags), name="FLAGS"))
    units += [fits.ImageHDU(answer.draws[:, 0].astype(np.float32), name=f"DRAWS_{answer.method.upper()}")
              for answer in answers if answer.spread.any()]
    for unit in units:
        unit.add_checksum(when="of this HDU")  # by itself it writes the date, and the same star would give other bytes
    out = io.BytesIO()
    fits.HDUList(units).writeto(out)
    return out.getvalue()


def write(path: Path, content: str | bytes) -> None:
    """Bytes or text into a file."""
    path.write_bytes(content.encode() if isinstance(content, str) else content)
