"""The pilot survey's tenfold variance at strong lines: found by its edges, and undone.

In files of LAMOST's pilot survey (pipeline v2.6, image layout with a `Subcontinuum` row) the quoted inverse variance
falls by exactly ten inside eleven windows of 19 Angstrom around Ca K and H, H delta, the G band, H gamma, H beta, Mg b,
H alpha and the calcium triplet, and returns at their other edge: the pipeline's own down-weighting of lines in its
continuum fit, left in the product. The scatter of the flux does not change there (docs/noise.md). Taken at face value
it would tell every method that the lines that matter are three times noisier than they are, and hand them to the prior.
"""

from __future__ import annotations

import numpy as np

from core.spectrum import Array

#: First and last vacuum wavelength [Angstrom] of each window, as measured on plate B6212 (heliocentric, that night).
WINDOWS: tuple[tuple[float, float], ...] = (
    (3925.5, 3944.6), (3961.9, 3981.1), (4093.5, 4112.4), (4296.4, 4315.2), (4332.1, 4351.1), (4852.9, 4871.9),
    (5167.7, 5185.6), (6555.4, 6573.6), (8491.8, 8509.4), (8534.9, 8552.6), (8655.7, 8673.6),
)  # fmt: skip

_FACTOR = 10.0
_REACH = 4  # pixels all windows may sit elsewhere on another night: heliocentric shifts of +-30 km/s are half a pixel
_TOLERANCE = 0.25  # dex; edges measure 0.98 +- 0.05 dex, and sky lines nearby add to that
_ENOUGH = 8  # of 22 edges; a map without the dips has none or one (the faintest pilot stars lose their bluest windows)


def undo_line_windows(wave: Array, ivar: Array) -> tuple[Array, int]:
    """Inverse variance with the tenfold dips at strong lines taken out, and how many pixels that changed.

    The dips are sharp and move together, so one common shift is sought at which most edges step by 1 dex, down at the
    blue edge and up at the red one. Where too few do, the map is returned as it came.

    Args:
        wave: (l,) vacuum wavelength [Angstrom], in steps of 1e-4 in log10.
        ivar: (l,) quoted inverse variance, 0 = not measured.
    """
    with np.errstate(divide="ignore"):
        step = np.diff(np.where(ivar > 0, np.log10(np.where(ivar > 0, ivar, 1.0)), np.nan), prepend=np.nan)
    inside = [w for w in WINDOWS if wave[0] < w[0] and w[1] < wave[-1]]
    if not inside:
        return ivar.copy(), 0
    # rounding to the nearest pixel, not searching, so that a float32 wavelength does not move an edge
    first = np.array([np.abs(wave - low).argmin() for low, _ in inside])
    after = np.array([np.abs(wave - high).argmin() for _, high in inside]) + 1

    def edges(shift: int) -> int:
        at = np.clip(np.array([first, after]) + shift, 0, len(wave) - 1)
        return int((np.abs(step[at] - np.array([[-1.0], [1.0]])) < _TOLERANCE).sum())

    shift = max(range(-_REACH, _REACH + 1), key=lambda s: (edges(s), -abs(s)))
    if edges(shift) < _ENOUGH:
        return ivar.copy(), 0
    dips = np.zeros(len(wave), dtype=bool)
    for low, high in zip(first + shift, after + shift, strict=True):
        dips[max(low, 0) : high] = True
    dips &= ivar > 0
    return np.where(dips, ivar * _FACTOR, ivar), int(dips.sum())
