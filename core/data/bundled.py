"""Makes the bundled stars: simulated observations written in LAMOST's own layout, truth beside."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from core.data.grid import C_KMS, N_PIXELS, STEP, WAVE
from core.data.instrument import MARGIN
from core.data.lamost_write import LAMOST_WAVE, write
from core.data.noise import SNR_WINDOW
from core.data.population import LABEL_NAMES, draw_labels
from core.data.simulator import Simulator
from core.spectrum import Array

# class, kind of the library, Teff [K], logg, [Fe/H], rv [km/s], S/N_g: F to M, dwarf and giant, poor to good data
WANTED: tuple[tuple[str, int, float, float, float, float, float], ...] = (
    ("F5V", 0, 6500, 4.2, 0.0, 12.0, 9.0), ("G2V", 0, 5800, 4.4, 0.0, -21.0, 10.0),
    ("K1V", 0, 5100, 4.6, 0.1, 33.0, 20.0),
    ("M0V", 0, 4010, 4.7, 0.0, -8.0, 12.0),
    ("G8III", 1, 4950, 2.8, -0.1, 41.0, 15.0), ("K2III", 1, 4400, 2.0, -0.3, -63.0, 30.0),
    ("A7V", 2, 7800, 4.1, 0.0, 5.0, 25.0), ("A1V", 2, 9300, 4.0, 0.0, -14.0, 40.0),
    ("F8 metal-poor", 0, 6200, 4.3, -1.5, 178.0, 18.0), ("K giant metal-poor", 1, 4700, 1.6, -2.0, -243.0, 5.0),
    ("G5V", 0, 5550, 4.5, -0.5, 57.0, 60.0), ("F9V", 0, 6050, 4.2, 0.2, -2.0, 80.0),
    ("G0V", 0, 5950, 4.3, 0.0, 24.0, 50.0),
)  # fmt: skip
#: a line that no star of any prior has: which of WANTED, observed vacuum wavelength [Angstrom], depth, Gaussian sigma
#: [pixels]. Seven standard deviations of the matched filter at S/N_g 9: enough to be flagged where an answer lacks it.
PLANTED: dict[int, tuple[float, float, float]] = {12: (6301.0, 0.2, 1.5)}
_START = 18  # LAMOST's own grid begins 18 pixels before WAVE


def make_stars(simulator: Simulator, folder: Path, seed: int = 2026) -> None:
    """Write the stars of `WANTED` into `folder` as gzipped LAMOST files with extension TRUTH, reality factors included.

    The M0 star is the coolest the synthetic library reaches. One star holds a line of PLANTED, and says so.

    Args:
        simulator: with reality factors and LAMOST's noise.
        folder: where to; made when missing, its old stars removed.
        seed: of labels that `WANTED` leaves open, noise and maps.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.fits.gz"):
        old.unlink()
    for i, (kind, number, teff, logg, feh, velocity, ratio) in enumerate(WANTED):
        rng = np.random.default_rng([seed, i])
        labels = draw_labels(1, rng)
        labels[0, :4] = number, teff, logg, feh
        labels[0, 4] = 0.25 if feh < -1 else 0.0
        if simulator.inside is not None:
            labels = simulator.inside(labels)
        still = replace(simulator, velocity_spread=0.0)
        flux = still.physical(labels, np.array([velocity]), rng)[0, MARGIN:-MARGIN]
        if i in PLANTED:
            flux = flux * (1 - _line(*PLANTED[i]))
        seen = still.observe(flux[None], np.array([ratio]), rng)
        _write(folder / f"sim-{i + 1:02d}.fits.gz", i, kind, labels[0], velocity, flux, seen[0][0], seen[1][0])


def _line(wavelength: float, depth: float, width: float) -> Array:
    """(L,) a Gaussian line on the grid."""
    pixels = np.log10(WAVE / wavelength) / STEP
    return np.asarray(depth * np.exp(-0.5 * (pixels / width) ** 2))


def _write(path: Path, i: int, kind: str, labels: Array, velocity: float, truth: Array, flux: Array,
           ivar: Array) -> None:
    """One star, in LAMOST's relative flux units, its header saying what it is."""
    scale = 100.0 / float(np.median(truth))
    ratio = np.where(ivar > 0, flux * np.sqrt(ivar), np.nan)[(WAVE > SNR_WINDOW[0]) & (WAVE < SNR_WINDOW[1])]
    wide = np.zeros((3, len(LAMOST_WAVE)))
    wide[:, _START : _START + N_PIXELS] = np.where(ivar > 0, flux, 0.0) * scale, ivar / scale**2, truth * scale
    said = f" with a line put in at {PLANTED[i][0]:.0f} A" if i in PLANTED else ""
    header = {"OBSID": f"SIM{i + 1:02d}", "DESIG": f"SIMULATED {kind}{said}", "CLASS": "STAR", "SUBCLASS": kind,
              "SNRG": round(float(np.nanmedian(ratio)), 2), "Z": velocity / C_KMS, "DATA_V": "Trueline"}
    header |= {"PLANTED": PLANTED[i][0]} if i in PLANTED else {}
    known = dict(zip(LABEL_NAMES, labels, strict=True))
    write(path, wide[0], wide[1], "coadd", header=header, truth=wide[2],
          labels={**{name: float(known[name]) for name in ("teff", "logg", "feh", "alpha_fe")}, "rv": velocity})
