"""What sky and air leave in LAMOST spectra that is neither star nor noise: a few patterns in the observer's frame."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from core.data.grid import WAVE
from core.data.hashes import record, verified
from core.spectrum import Array

FILE = Path(__file__).resolve().parents[2] / "checkpoints" / "sky.safetensors"
FROM = 5700.0  #: vacuum Angstrom; blue of it sky lines are few, and what stars lack of the templates would be learned
_EDGE = 60.0  # Angstrom over which the patterns rise
_CLIP = 8.0  # sigma at which residuals are cut, so that one cosmic ray makes no pattern


@lru_cache(maxsize=1)
def patterns(path: Path = FILE) -> Array:
    """(Q, 3840) in units of quoted sigma: each star has its own strength t ~ N(0, 1) of each.

    Learned on three quarters of the stars of one plate (docs/noise.md); a plate of another night has the same lines and
    bands in another mixture, which the strengths answer for in part.

    Raises:
        ValueError: the file is missing, changed or something else.
    """
    verified(path)
    try:
        out = load_file(path)["patterns"].astype(np.float64)
    except (OSError, KeyError, ValueError, SafetensorError) as error:
        raise ValueError(f"{path} holds no sky patterns ({error}); run `python -m scripts.prepare sky`.") from error
    out.flags.writeable = False
    return np.asarray(out)


def learn(z: Array, count: int) -> Array:
    """(count, L) leading patterns of residuals z (n, L), in quoted sigma, NaN where not measured.

    Principal components about zero (a mean is a pattern too), missing pixels filled from the patterns in turn
    (expectation-maximisation, Roweis 1998).

    Raises:
        ValueError: fewer than twenty stars, or not more stars than patterns.
    """
    if len(z) < max(20, 2 * count):
        raise ValueError(f"{len(z)} stars for {count} patterns; give at least {max(20, 2 * count)}.")
    rise = np.clip((WAVE - FROM) / _EDGE, 0.0, 1.0)
    live = np.isfinite(z)
    data = np.where(live, np.clip(np.nan_to_num(z), -_CLIP, _CLIP), 0.0) * rise
    filled, rows = data, np.zeros((count, z.shape[1]))
    for _ in range(10):
        u, s, vt = np.linalg.svd(filled, full_matrices=False)
        rows = vt[:count] * s[:count, None]
        filled = np.where(live, data, u[:, :count] @ rows)
    return np.asarray(rows / np.sqrt(len(z)))


def save(rows: Array, path: Path = FILE) -> None:
    """Write the patterns as float16."""
    save_file({"patterns": np.ascontiguousarray(rows, dtype=np.float16)}, path)
    record(path)
