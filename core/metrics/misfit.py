"""How far a method's own errors spread the flag's statistic: by place, width, and the local S/N of the star."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from core.spectrum import Array

_BLOCK = 20  # pixels over which the spread is averaged: 1400 km/s, ten times what most stars move
_REGION = 100  # pixels over which its dependence on S/N is fitted
_FEW = 20  # stars that must have been seen in a block or region before it says anything of its own
_PRIOR = 1.0  # of the slope against S/N: as if a star at e times the mean S/N^2 had shown none
_MOST = 1.0  # |log| of the factor that S/N may make: beyond lies extrapolation


def _blocks(values: Array, size: int) -> Array:
    """(..., blocks) sums over so many pixels."""
    return np.asarray(np.add.reduceat(values, np.arange(0, values.shape[-1], size), axis=-1))


def _centres(pixels: int, size: int) -> Array:
    start = np.arange(0, pixels, size)
    return (start + np.minimum(start + size, pixels) - 1) / 2


def _everywhere(rows: Array, size: int, pixels: int) -> Array:
    """(n, L) rows (n, blocks) known at the blocks' centres, straight lines between."""
    return np.stack([np.interp(np.arange(pixels), _centres(pixels, size), row) for row in rows])


def _signal(norm: Array, seen: npt.NDArray[np.bool_]) -> tuple[Array, Array]:
    """(B, regions) log of the mean t' N^-1 t of what is seen, and how many places that are."""
    count = _blocks(seen.sum(axis=1, dtype=np.float64), _REGION)
    total = _blocks(np.where(seen, norm, 0.0).sum(axis=1), _REGION)
    return np.log(np.where(count > 0, total / np.maximum(count, 1), 1.0)), count


@dataclass(frozen=True, eq=False)
class Misfit:
    """The standard deviation of T on stars of which nothing was removed, to divide T by before its maximum is taken.

    Noise alone gives T a variance of 1. A method's prior takes some of it away where it explains noise as well (more
    the brighter the star is there: N / (N + P)), and its misfits add to it at known places (strong lines, the join of
    the arms, the blue end). With one threshold for all places, the worst of them sets it and lines elsewhere are lost.
    So sigma(m, i) = place(m, i) (s / middle(i))^slope(i), with s the star's own t' N^-1 t, a squared S/N, about pixel i
    relative to the null stars'; a heteroscedastic model of the log variance as Harvey 1976 (Econometrica 44, 461).

    Args:
        place: (M, blocks) root mean square of T over null stars in blocks of pixels.
        slope: (regions,) d log sigma / d log s; middle: (regions,) mean log s of null stars.
        pixels: L of the spectra it belongs to.

    Raises:
        ValueError: shapes that disagree, values not finite or a place that is not positive.
    """

    place: Array
    slope: Array
    middle: Array
    pixels: int

    def __post_init__(self) -> None:
        shapes = len(_centres(self.pixels, _BLOCK)), len(_centres(self.pixels, _REGION))
        if self.place.ndim != 2 or (self.place.shape[1], *self.slope.shape, *self.middle.shape) != (
                shapes[0], shapes[1], shapes[1]):
            raise ValueError(f"place {self.place.shape}, slope {self.slope.shape} and middle {self.middle.shape} do "
                             f"not belong to {self.pixels} pixels; give what `Misfit.fit` or `to_arrays` gave.")
        if not all(np.isfinite(a).all() for a in (self.place, self.slope, self.middle)) or not (self.place > 0).all():
            raise ValueError("a misfit must be finite and its spread positive; fit it to stars the method answered.")

    @classmethod
    def fit(cls, t: npt.ArrayLike, norm: npt.ArrayLike) -> Misfit:
        """From null stars.

        Args:
            t: (B, M, L) `significance`, 0 where unseen; norm: (B, M, L) `Scan.norm` of the same stars.

        Raises:
            ValueError: shapes that disagree, nothing seen in any star.
        """
        values, size = np.asarray(t), np.asarray(norm)
        if values.ndim != 3 or values.shape != size.shape or not values.any():
            raise ValueError(f"t of {values.shape} and norm of {size.shape}; give both of shape (B, M, L), something "
                             "seen in at least one star.")
        seen = values != 0
        pixels = values.shape[-1]
        count = _blocks(seen.sum(axis=0, dtype=np.float64), _BLOCK)
        square = _blocks((values.astype(np.float64) ** 2).sum(axis=0), _BLOCK)
        centres = _centres(pixels, _BLOCK)
        place = np.empty(count.shape)
        for m in range(len(place)):  # a block few stars show takes its neighbours'
            known = count[m] >= min(_FEW * _BLOCK, count.max())
            place[m] = np.sqrt(np.interp(centres, centres[known], square[m, known] / count[m, known]))
        place = np.maximum(place, 1e-6)  # a method that copies what it sees has no residual
        slope, signal = _slopes(values / _everywhere(place, _BLOCK, pixels), size, seen)
        return cls(place, slope, signal, pixels)

    def sigma(self, norm: Array, seen: npt.ArrayLike) -> Array:
        """(B, M, L) standard deviation of T in each place.

        Args:
            norm, seen: (B, M, L) of the stars' `Scan`.

        Raises:
            ValueError: a scan of other widths or another grid than the null's.
        """
        if norm.shape[1:] != (len(self.place), self.pixels):
            raise ValueError(f"the null was measured on {len(self.place)} channels and {self.pixels} pixels; this scan "
                             f"has {norm.shape[1:]}: use the widths, resolution and grid of the calibration.")
        signal, count = _signal(norm, np.asarray(seen, dtype=bool))
        change = np.where(count > 0, np.clip((signal - self.middle) * self.slope, -_MOST, _MOST), 0.0)
        factor = np.exp(_everywhere(change, _REGION, self.pixels))
        return np.asarray(_everywhere(self.place, _BLOCK, self.pixels) * factor[:, None])

    def to_arrays(self) -> dict[str, Array]:
        """Arrays to be stored, single precision."""
        return {"place": self.place.astype(np.float32), "slope": self.slope.astype(np.float32),
                "middle": self.middle.astype(np.float32), "pixels": np.array(self.pixels)}

    @classmethod
    def from_arrays(cls, stored: Mapping[str, Array]) -> Misfit:
        """From what `to_arrays` gave."""
        place, slope, middle = (np.asarray(stored[k], dtype=np.float64) for k in ("place", "slope", "middle"))
        return cls(place, slope, middle, int(stored["pixels"]))


def _slopes(t: Array, norm: Array, seen: npt.NDArray[np.bool_]) -> tuple[Array, Array]:
    """(regions,) slope of the log spread of T against the log S/N^2, and (regions,) mean of the latter."""
    signal, count = _signal(norm, seen)
    square = _blocks((t.astype(np.float64) ** 2).sum(axis=1), _REGION)
    slope, middle = np.zeros((2, count.shape[1]))
    for r in range(len(slope)):
        use = count[:, r] > count[:, r].max() / 4
        if use.sum() < _FEW:
            continue
        x, y = signal[use, r], 0.5 * np.log(square[use, r] / count[use, r] + 1e-3)
        middle[r] = x.mean()
        x = x - middle[r]
        slope[r] = (x @ (y - y.mean())) / (x @ x + _PRIOR)
    return slope, middle
