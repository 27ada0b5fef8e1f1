"""Makes the bundled stars: synthetic spectra as LAMOST would observe them, written in its own layout, truth beside."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from scipy.ndimage import gaussian_filter1d

from core.data.grid import N_PIXELS, WAVE, doppler
from core.data.lamost_write import LAMOST_WAVE, write
from core.data.noise import NoiseModel, add_noise, snr
from core.spectrum import Array, Spectra

# kind, Teff [K], logg, [Fe/H], rv [km/s], S/N_g: A to K, dwarf and giant, metal-rich to metal-poor, poor to good data
WANTED: tuple[tuple[str, float, float, float, float, float], ...] = (
    ("F5V", 6500, 4.2, 0.0, 12.0, 9.0), ("G2V", 5800, 4.4, 0.0, -21.0, 10.0), ("K1V", 5100, 4.6, 0.1, 33.0, 20.0),
    ("K5V", 4400, 4.7, 0.0, -8.0, 12.0), ("G8III", 4950, 2.8, -0.1, 41.0, 15.0),
    ("K2III", 4400, 2.0, -0.3, -63.0, 30.0), ("A7V", 7800, 4.1, 0.0, 5.0, 25.0), ("A1V", 9300, 4.0, 0.0, -14.0, 40.0),
    ("F8 metal-poor", 6200, 4.3, -1.5, 178.0, 18.0), ("K giant metal-poor", 4700, 1.6, -2.0, -243.0, 35.0),
    ("G5V", 5550, 4.5, -0.5, 57.0, 60.0), ("F9V", 6050, 4.2, 0.2, -2.0, 80.0),
)  # fmt: skip
RESOLUTION = 1800.0  # lambda/FWHM of LAMOST's 2/3 slit (Zhao et al. 2012)
_START = 18  # LAMOST's own grid begins 18 pixels before WAVE


def _nearest(labels: Array, teff: float, logg: float, feh: float) -> int:
    """Row of the library star closest in log Teff (1 %), logg (.1 dex) and [Fe/H] (.1 dex)."""
    gap = np.array([np.log(labels[:, 0] / teff) / 0.01, (labels[:, 1] - logg) / 0.1, (labels[:, 2] - feh) / 0.1])
    return int((gap**2).sum(axis=0).argmin())


def make_stars(library: Path, folder: Path, seed: int = 2026) -> None:
    """Write the dozen of `WANTED` into `folder` as gzipped LAMOST files with extension TRUTH.

    Args:
        library: synspec.npz of the synthetic library (flux over continuum at R = 4000, and the continuum).
        folder: where to; made when missing, its old stars removed.
        seed: of the noise and its maps.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.fits.gz"):
        old.unlink()
    with np.load(library) as data:
        log, log_continuum, labels = data["loglam"], data["loglam_continuum"], data["labels"]
        rows = [_nearest(labels[:, 1:4], t, g, m) for _, t, g, m, _, _ in WANTED]
        lines, continua = data["flux_u16"][rows] * float(data["flux_scale"]), data["continuum"][rows]
    model, rng = NoiseModel.load(), np.random.default_rng(seed)
    width = np.sqrt(RESOLUTION**-2 - 4000.0**-2) / (np.log(10) * 2.3548 * (log[1] - log[0]))
    lines = gaussian_filter1d(lines, width, axis=1)
    for i, ((kind, *_, velocity, ratio), row) in enumerate(zip(WANTED, rows, strict=True)):
        rest = np.log10(doppler(WAVE, -velocity))
        level = np.interp(rest, log_continuum, continua[i])
        level *= 100.0 / np.median(level)  # LAMOST's relative flux units
        truth = level * np.interp(rest, log, lines[i])
        sigma = model.draw(ratio, rng, curve=level[None], dead=True)[0] * level
        ivar = np.where(np.isfinite(sigma), 1.0 / sigma**2, 0.0)
        star = f"sim-{i + 1:02d}"
        one, name = np.ones((1, N_PIXELS)), pd.DataFrame({"star": [star]})
        clean = Spectra(WAVE, truth[None], ivar[None], one, name, model.noise)
        seen = add_noise(clean, ivar[None], seed)
        _, teff, logg, feh, alpha = (float(v) for v in labels[row][:5])
        wide = np.zeros((3, len(LAMOST_WAVE)))
        wide[:, _START : _START + N_PIXELS] = np.where(ivar > 0, seen.flux[0], 0.0), ivar, truth
        header = {"OBSID": f"SIM{i + 1:02d}", "DESIG": f"SIMULATED {kind}", "CLASS": "STAR", "SUBCLASS": kind,
                  "SNRG": round(float(snr(seen)[0]), 2), "Z": velocity / 299792.458, "DATA_V": "Trueline"}
        write(folder / f"{star}.fits.gz", wide[0], wide[1], "coadd", header=header, truth=wide[2],
              labels={"teff": teff, "logg": logg, "feh": feh, "alpha_fe": alpha, "rv": velocity})
