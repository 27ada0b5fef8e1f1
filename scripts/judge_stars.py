"""The stars that every method is judged on: fixed, seeded, and kept out of all training."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from core.data import lamost, real_stars
from core.data.noise import NoiseModel, degrade, snr
from core.data.reality import Reality
from core.data.simulator import Simulator
from core.metrics.lines import bridged
from core.models.templates import NATIVE, Templates
from core.spectrum import LABELS, Array, Spectra
from scripts.evaluate_reality import observed

SNR = (5.0, 10.0, 20.0, 30.0, 50.0, 100.0)
SEED = 20261124  # of simulated test stars; no training uses it
_GOOD = 40.0  # S/N_g from which a LAMOST spectrum serves as the truth about itself


@dataclass(frozen=True)
class Asked:
    """Stars at one S/N: what was observed, the truth (NaN where unknown) and the labels (B, 5), NaN where unknown.

    Args:
        sample, library: name the pieces of the judge's table, so neither holds a "-"; library is "all" where a sample
            has one source.

    Raises:
        ValueError: a "-" in either name.
    """

    sample: str
    snr: float
    spectra: Spectra
    truth: Array
    labels: Array
    library: str = "all"

    def __post_init__(self) -> None:
        if "-" in self.sample + self.library:
            raise ValueError(f"sample {self.sample!r} and library {self.library!r} name files whose parts a '-' "
                             "divides; leave it out of them.")


def simulated(at: float, number: int, seed: int = SEED) -> Asked:
    """Stars of the simulator with reality factors, LAMOST's noise and gaps; of another seed, for what is chosen."""
    templates = Templates()
    simulator = Simulator(templates, NATIVE, NoiseModel.load(), templates.emulator.nearest, Reality.load())
    stars = simulator.draw(number, np.random.default_rng([seed, int(at)]), at)
    meta = stars.spectra.meta.assign(star=[f"simulated-{int(at)}-{i}" for i in range(number)])
    labels = np.column_stack([stars.labels[:, 1:5], meta["rv"].to_numpy(float)])
    return Asked("simulated", at, replace(stars.spectra, meta=meta), stars.truth, labels)


def foremost(asked: Asked, number: int | None) -> Asked:
    """The first so many stars of a sample, all of them for None: the same stars, for a star depends on how many are
    drawn with it."""
    part = np.arange(len(asked.spectra))[:number]
    return replace(asked, spectra=asked.spectra.select(part), truth=asked.truth[part], labels=asked.labels[part])


def real(at: float, number: int, folder: Path) -> list[Asked]:
    """Held-out stars of MILES, STELIB and MaStar with LAMOST's noise put on; at most `number` of each library."""
    out = []
    for library, stars in real_stars.read(folder).items():
        held = stars.select(np.flatnonzero(stars.meta["held_out"].to_numpy())[:number])
        seen = observed(held, at, "LAMOST")
        truth = np.where(held.measured, held.flux / seen.continuum, np.nan)
        labels = np.full((len(held), len(LABELS)), np.nan)
        labels[:, :3] = held.meta[["teff", "logg", "feh"]].to_numpy(float)
        meta = seen.meta.assign(snr_g=at, star=[f"{s}-{int(at)}" for s in seen.stars])
        out.append(Asked("real", at, replace(seen, meta=meta), truth, labels, library))
    return out


def split(at: float, folder: Path) -> list[Asked]:
    """LAMOST spectra of S/N_g above 40 with noise added down to `at`: judged against themselves undegraded.

    What serves as truth has noise of its own (at most a quarter of what was added up to S/N 20), so only S/N 5-20.
    """
    if at > 20:
        return []
    everything, _ = lamost.read_folder(folder, progress=False)
    best = everything.select(np.flatnonzero(snr(everything) > _GOOD))
    worse = degrade(best, at, SEED)
    measured = best.flux * best.continuum / worse.continuum
    truth = np.where(best.measured, bridged(measured, best.measured), np.nan)
    meta = worse.meta.assign(snr_g=at, star=[f"{s}-{int(at)}" for s in worse.stars])
    return [Asked("lamost", at, replace(worse, meta=meta), truth, np.full((len(best), len(LABELS)), np.nan))]
