"""The layouts of LAMOST's FITS files, told apart by what they hold: bytes in, arrays and header cards out."""

from __future__ import annotations

import gzip
import io
import re
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits

from core.spectrum import Array

MAX_BYTES = 64 * 2**20  #: a low-resolution spectrum is below 1 MB, also unpacked; nothing larger is read

_KEYS = ("OBSID DATA_V DESIG RA DEC CLASS SUBCLASS Z VERSPIPE MJD LMJD PLANID SPID FIBERID VACUUM ORIGIN EXTEN0 "
         "COEFF0 COEFF1 SNRU SNRG SNRR SNRI SNRZ SN_U SN_G SN_R SN_I SN_Z TEFF LOGG FEH ALPHA_FE RV PLANTED").split()
_MRS = re.compile(r"(COADD_)?[BR](-\d+)?$")  # COADD_B, COADD_R and one B-... or R-... for each exposure


@dataclass(frozen=True)
class Hdu:
    """What one HDU holds, taken out of astropy's hands: name, the cards we know, an image or the columns of a table."""

    name: str
    cards: dict[str, Any]
    image: Array | None
    columns: dict[str, Array]


def load(source: str | Path | bytes, name: str) -> bytes:
    """The unpacked content of a file or an upload, at most MAX_BYTES.

    Raises:
        ValueError: missing, a folder, unreadable, empty, too large, or a gzip file that is cut off.
    """
    limit = f"{MAX_BYTES // 2**20} MB"
    if isinstance(source, bytes):
        data = source
    else:
        path = Path(source)
        if path.is_dir():
            raise ValueError(f"{name} is a folder; read it with read_folder.")
        try:
            if path.stat().st_size > MAX_BYTES:
                raise ValueError(f"{name} is {path.stat().st_size / 2**20:.0f} MB, above the limit of {limit}; "
                                 "give one LAMOST low-resolution spectrum (below 1 MB).")
            data = path.read_bytes()
        except OSError as err:
            raise ValueError(f"{name} cannot be read ({err.strerror}); check its path and permissions.") from err
    if len(data) > MAX_BYTES:
        raise ValueError(f"{name} is {len(data) / 2**20:.0f} MB, above the limit of {limit}; "
                         "give one LAMOST low-resolution spectrum (below 1 MB).")
    if not data:
        raise ValueError(f"{name} is empty; download it again.")
    if data[:2] != b"\x1f\x8b":
        return data
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as packed:
            data = packed.read(MAX_BYTES + 1)
    except (OSError, EOFError, zlib.error) as err:
        raise ValueError(f"{name} is a gzip file that is cut off or damaged ({err}); download it again.") from err
    if len(data) > MAX_BYTES:
        raise ValueError(f"{name} unpacks to more than {limit}; give one LAMOST low-resolution spectrum (below 1 MB).")
    return data


def _cards(header: fits.Header) -> dict[str, Any]:
    """The header cards we know; one that astropy cannot parse counts as missing."""
    cards = {}
    for key in _KEYS:
        try:
            if key in header and not isinstance(header[key], fits.card.Undefined):
                cards[key] = header[key]
        except fits.VerifyError:
            continue
    return cards


def read_hdus(data: bytes, name: str) -> list[Hdu]:
    """Every HDU of a FITS file.

    Raises:
        ValueError: not FITS, or cut off.
    """
    out = []
    try:
        with fits.open(io.BytesIO(data), memmap=False) as opened:
            for hdu in opened:
                table = isinstance(hdu, fits.BinTableHDU) and not isinstance(hdu, fits.CompImageHDU)
                columns = {n.upper(): np.array(hdu.data[n]) for n in hdu.columns.names} if table else {}
                image = None if table or hdu.data is None else np.array(hdu.data, dtype=np.float64)
                out.append(Hdu(hdu.name.strip().upper(), _cards(hdu.header), image, columns))
    except Exception as err:  # astropy answers damaged bytes with nearly every kind of exception
        if not data.startswith(b"SIMPLE"):
            raise ValueError(f"{name} is not a FITS file; give a LAMOST spectrum as .fits or .fits.gz.") from err
        raise ValueError(f"{name} is a FITS file that is cut off or damaged ({err}); download it again.") from err
    return out


def _from_image(hdu: Hdu) -> tuple[Array, Array, Array, Array, str]:
    """Wavelength, flux, ivar, andmask and layout of an image of 3 to 5 rows (pilot survey to DR7)."""
    rows = hdu.image
    if rows is None or rows.ndim != 2 or not 3 <= len(rows) <= 5 or rows.shape[1] < 2:
        shape = None if rows is None else rows.shape
        raise ValueError(f"holds an image of shape {shape} where LAMOST has 5 rows (flux, ivar, wavelength, andmask, "
                         "ormask); give a LAMOST low-resolution spectrum.")
    # the third row is the wavelength, or in the pilot survey the flux less its continuum: the numbers decide, for the
    # header may be silent. A spoiled wavelength row must be found out, not silently replaced.
    third = rows[2]
    wavelengths = (bool((np.diff(third) > 0).all()) or bool(((third > 3000) & (third < 11000)).all())
                   or "wavelength" in str(hdu.cards.get("EXTEN0", "")).lower())
    if wavelengths:
        wave, layout = third, "image"
    elif "COEFF0" in hdu.cards and "COEFF1" in hdu.cards:
        wave, layout = 10.0 ** (hdu.cards["COEFF0"] + hdu.cards["COEFF1"] * np.arange(rows.shape[1])), "pilot"
    else:
        raise ValueError("has no wavelengths: its third row does not rise and the header has no COEFF0 and COEFF1; "
                         "download it again from the survey.")
    return wave, rows[0], rows[1], rows[3] if len(rows) > 3 else np.zeros(rows.shape[1]), layout


def _from_table(hdu: Hdu) -> tuple[Array, Array, Array, Array, str]:
    """Wavelength, flux, ivar, andmask and layout of a table: one row ("coadd") or a row per pixel ("table")."""
    columns = dict(hdu.columns)
    if "WAVELENGTH" not in columns and "LOGLAM" in columns:
        columns["WAVELENGTH"] = 10.0 ** columns["LOGLAM"].astype(np.float64)
    missing = [n for n in ("FLUX", "IVAR", "WAVELENGTH", "ANDMASK") if n not in columns]
    if missing:
        raise ValueError(f"has a table without the column(s) {', '.join(missing)}; if it is not from LAMOST, "
                         "read it with specutils and core.data.sdss.from_specutils.")
    arrays = [columns[n].astype(np.float64) for n in ("WAVELENGTH", "FLUX", "IVAR", "ANDMASK")]
    vectors = arrays[0].ndim == 2
    if vectors and len(arrays[0]) != 1:
        raise ValueError(f"holds {len(arrays[0])} spectra in one table; write one file for each.")
    wave, flux, ivar, andmask = (a[0] for a in arrays) if vectors else arrays
    return wave, flux, ivar, andmask, "coadd" if vectors else "table"


def find_spectrum(hdus: list[Hdu]) -> tuple[Array, Array, Array, Array, str]:
    """Wavelength (n,), flux (n,), ivar (n,), andmask (n,) and the layout's name, found among the HDUs by their content.

    Raises:
        ValueError: the fact and the remedy, to be put after the name of the file.
    """
    if any(_MRS.match(h.name) for h in hdus):
        raise ValueError("is a medium-resolution (MRS) spectrum; Trueline reads low-resolution (LRS) spectra, "
                         "choose the LRS file of this star.")
    if hdus[0].image is not None:
        return _from_image(hdus[0])
    tables = [h for h in hdus if "FLUX" in h.columns]
    if not tables:
        raise ValueError(f"has no spectrum: its HDUs are {[h.name for h in hdus]}, without an image in the first and "
                         "without a table with FLUX; give a LAMOST low-resolution spectrum.")
    return _from_table(tables[0])
