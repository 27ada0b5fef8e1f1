"""Spectral lines with their bands and sources, and equivalent widths of whole stacks of spectra at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from core.spectrum import Array


@dataclass(frozen=True)
class Line:
    """A line or index: where it is measured and against which continuum; all in vacuum Angstrom.

    Args:
        name: as it is called.
        centre: of the line, or of the band.
        band: first and last wavelength integrated over; blue, red: side bands that set the local continuum.
        source: of the definition.
    """

    name: str
    centre: float
    band: tuple[float, float]
    blue: tuple[float, float]
    red: tuple[float, float]
    source: str


_LICK = "Lick/IDS, Trager et al. 1998, ApJS 116, 1, table 1"
_BALMER = "Worthey & Ottaviani 1997, ApJS 111, 377, table 1"
_CAT = "Cenarro et al. 2001, MNRAS 326, 959, table 4 (bands), nearest continua"
#: Published in air, converted by core.data.grid.air_to_vacuum (a test converts them again).
LINES: dict[str, Line] = {line.name: line for line in (
    Line("Ca II K", 3934.77, (3928.81, 3940.82), (3904.11, 3924.11), (4001.13, 4021.14), "Beers et al. 1999"),
    Line("H delta", 4102.90, (4084.65, 4123.41), (4042.74, 4082.65), (4129.66, 4162.17), _BALMER),
    Line("G band", 4300.11, (4282.58, 4317.59), (4267.58, 4283.83), (4318.84, 4336.34), _LICK),
    Line("H gamma", 4341.69, (4320.96, 4364.73), (4284.71, 4320.96), (4368.48, 4420.99), _BALMER),
    Line("H beta", 4862.69, (4849.23, 4877.99), (4829.22, 4849.23), (4877.99, 4892.99), _LICK),
    Line("Mg b", 5177.84, (5161.56, 5194.07), (5119.13, 5144.13), (5192.82, 5207.82), _LICK),
    Line("Fe 5270", 5267.17, (5247.11, 5287.12), (5234.61, 5249.61), (5287.12, 5319.63), _LICK),
    Line("Fe 5335", 5333.58, (5313.60, 5353.61), (5306.10, 5318.73), (5354.86, 5364.87), _LICK),
    Line("Na D", 5894.73, (5878.50, 5911.01), (5862.25, 5877.30), (5923.77, 5949.77), _LICK),
    Line("H alpha", 6564.61, (6549.81, 6579.82), (6521.80, 6541.81), (6591.82, 6611.83), "this project"),
    Line("Ca II 8498", 8500.35, (8486.33, 8515.34), (8476.33, 8486.33), (8565.35, 8579.36), _CAT),
    Line("Ca II 8542", 8544.44, (8524.34, 8564.35), (8476.33, 8486.33), (8565.35, 8579.36), _CAT),
    Line("Ca II 8662", 8664.52, (8644.37, 8684.38), (8621.37, 8644.37), (8702.39, 8727.40), _CAT),
)}  # fmt: skip


def _weights(wave: Array, band: tuple[float, float]) -> Array:
    """(L,) Angstrom of each pixel inside the band, edges by their fraction."""
    log = np.log(wave)
    middle = (log[1:] + log[:-1]) / 2
    edges = np.exp(np.concatenate([[2 * log[0] - middle[0]], middle, [2 * log[-1] - middle[-1]]]))
    return np.clip(np.minimum(edges[1:], band[1]) - np.maximum(edges[:-1], band[0]), 0.0, None)


def equivalent_width(wave: npt.ArrayLike, flux: npt.ArrayLike, line: Line) -> Array:
    """Equivalent width [Angstrom] of absorption (emission is negative), against a straight line between two side bands.

    The local continuum runs through the mean flux of each side band at that band's mean wavelength; EW is the
    integral of 1 - flux /
    continuum over the band. Linear in neither, so it is taken of every draw and not of their mean.

    Args:
        wave: (L,) vacuum wavelength [Angstrom]; flux: (..., L), any unit; line: what to measure.

    Raises:
        ValueError: the line or a side band reaches beyond the spectrum.
    """
    wave, flux = np.asarray(wave, dtype=np.float64), np.asarray(flux, dtype=np.float64)
    reach = (*line.blue, *line.red, *line.band)
    if min(reach) < wave[0] or max(reach) > wave[-1]:
        raise ValueError(f"{line.name} needs {min(reach):.0f}-{max(reach):.0f} Angstrom and the spectrum has "
                         f"{wave[0]:.0f}-{wave[-1]:.0f}; leave this line out.")
    sides = [_weights(wave, side) for side in (line.blue, line.red)]
    level = [flux @ w / w.sum() for w in sides]
    place = [float(wave @ w / w.sum()) for w in sides]
    slope = (level[1] - level[0]) / (place[1] - place[0])
    band = _weights(wave, line.band)
    use = band > 0
    local = level[0][..., None] + slope[..., None] * (wave[use] - place[0])
    return np.asarray(((1.0 - flux[..., use] / local) * band[use]).sum(axis=-1))
