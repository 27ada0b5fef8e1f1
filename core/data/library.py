"""The stars one can pick: bundled simulated ones with known truth, or a folder of the user's own files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from core.data import lamost
from core.spectrum import Array, Spectra

BUNDLED = Path(__file__).parent / "stars"  #: simulated observations in LAMOST's layout, made by `scripts.prepare stars`


def bundled(folder: Path = BUNDLED) -> tuple[Spectra, Array]:
    """The bundled simulated stars and their true clean spectra (B, 3840), in units of the same continuum.

    Raises:
        ValueError: the folder is missing, empty or holds a file that cannot be read.
    """
    spectra, refused = lamost.read_folder(folder, progress=False)
    if len(refused):
        raise ValueError(f"bundled star {refused['file'][0]} is broken ({refused['reason'][0]}); reinstall Trueline.")
    return spectra, np.array([lamost.read_truth(file) for file in spectra.meta["file"]])


def folder(path: str | Path, progress: bool = True) -> tuple[Spectra, pd.DataFrame]:
    """Every LAMOST spectrum of a folder, and a table (file, reason) of what was refused.

    Raises:
        ValueError: the folder is unreadable, holds no FITS file, or none that could be read.
    """
    spectra, refused = lamost.read_folder(path, progress=progress)
    if not len(spectra):
        raise ValueError(f"none of the {len(refused)} FITS files in {path} could be read; "
                         f"the first: {refused['reason'][0]}")
    return spectra, refused
