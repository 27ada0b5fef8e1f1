"""Asking a method and testing its answer: what the four experiments of the audit share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from core.metrics.false_alarms import Calibration, Nominal
from core.metrics.flags import Flag, flags_of, significance
from core.metrics.matched_filter import RESOLUTION, WIDTHS, Scan
from core.spectrum import Array, Spectra

#: Any method: (spectra, how many draws n, seed) -> draws (n, B, L). One star's may not depend on its neighbours.
Answer = Callable[[Spectra, int, int], npt.ArrayLike]


@dataclass(frozen=True)
class Test:
    """How flags are raised: arguments of `core.metrics.flags.flags`.

    Args:
        level: false alarms per star; calibration: the method's own null, or None for the noise's.
        with_draws: let the spread of the draws sharpen the test; the same choice as made in the calibration.
        resolution: Gaussian sigma of the instrument [dex]; widths: searched, in units of it.
    """

    __test__ = False  # not one of pytest's

    level: float = 0.01
    calibration: Calibration | None = None
    with_draws: bool = True
    resolution: float = RESOLUTION
    widths: tuple[float, ...] = WIDTHS

    def draws(self, draws: Array) -> Array | None:
        """What of the draws the test may see."""
        return draws if self.with_draws and len(draws) > 1 else None

    def run(self, spectra: Spectra, draws: Array) -> tuple[list[list[Flag]], Array]:
        """Flags of each star, and (B,) its number of trials."""
        scan = Scan(spectra, self.resolution, self.widths)
        found = flags_of(scan, draws.mean(axis=0), self.draws(draws), self.level, self.calibration)
        return found, np.array([null.trials(self.level) for null in Nominal.of(scan)])


def ask(answer: Answer, spectra: Spectra, n: int, seed: int) -> Array:
    """(n, B, L) the method's draws, checked.

    Raises:
        ValueError: n < 1, or an answer of another shape or not finite.
    """
    if n < 1:
        raise ValueError(f"{n} draws asked for; ask for at least 1.")
    draws = np.asarray(answer(spectra, n, seed), dtype=np.float64)
    if draws.shape != (n, *spectra.flux.shape) or not np.isfinite(draws).all():
        raise ValueError(f"the method answered with shape {draws.shape} or values not finite; {n} draws of "
                         f"{spectra.flux.shape} were asked for. Leave out the star or the method that fails.")
    return draws


def blocks(spectra: Spectra, truth: npt.ArrayLike | None, size: int) -> Iterator[tuple[Spectra, Array]]:
    """Some stars at a time, so that draws of all variants fit in memory, with their truths (zeros where none is).

    Raises:
        ValueError: no stars a block, truth of another shape than the flux or not finite.
    """
    if size < 1:
        raise ValueError(f"blocks of {size} stars; give at least 1.")
    clean = np.zeros(spectra.flux.shape) if truth is None else np.asarray(truth, dtype=np.float64)
    if clean.shape != spectra.flux.shape or not np.isfinite(clean).all():
        raise ValueError(f"truth has shape {clean.shape}; it must be {spectra.flux.shape} and finite everywhere.")
    for start in range(0, len(spectra), size):
        part = np.arange(start, min(start + size, len(spectra)))
        yield spectra.select(part), clean[part]


def calibrate(spectra: Spectra, answer: Answer, n: int = 16, seed: int = 0, test: Test | None = None,
              block: int = 50, places: bool = True) -> Calibration:
    """A method's own null, from at least 100 stars of the prior that are not those it will be judged on; better 400.

    Args:
        spectra: null stars; answer: the method; n: draws; seed: of the draws; test: widths and the choice about draws.
        block: stars at a time; places: let it know where the method misfits (`Misfit`), or the maxima of T alone.

    Raises:
        ValueError: fewer than 100 stars, an answer of another shape or not finite.
    """
    test = test or Test()
    statistic, norm = [], []
    for stars, _ in blocks(spectra, None, block):
        draws, scan = ask(answer, stars, n, seed), Scan(stars, test.resolution, test.widths)
        t = significance(scan, draws.mean(0), test.draws(draws))
        statistic.append(t.astype(np.float32) if places else np.abs(t).max(axis=(1, 2)))
        norm.append(scan.norm.astype(np.float32) if places else np.empty(0))
    whole = np.concatenate(statistic)
    return Calibration.of(whole, np.concatenate(norm)) if places and whole.any() else Calibration.fit(
        np.abs(whole).reshape(len(whole), -1).max(axis=1))
