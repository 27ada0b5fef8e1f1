"""Measures what sky and air leave in the spectra of one LAMOST plate, after the stars' own posterior mean."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch

from core.data import sky
from core.models.mixture import Mixture
from core.models.observation import Observation
from core.spectrum import Array, Spectra, star_seed

PATTERNS = 6  #: how many: more gain nothing on held-out stars (docs/results.md)


def held_out(spectra: Spectra) -> npt.NDArray[np.bool_]:
    """(B,) a quarter of the stars, by a hash of their id: kept out of the patterns."""
    return np.array([star_seed(star, 0, "held-out") % 4 == 0 for star in spectra.stars])


def residuals(mixture: Mixture, spectra: Spectra) -> Array:
    """(B, L) flux less the posterior mean of the star, no patterns known, in quoted sigma; NaN where not measured."""
    question = Observation.of(replace(spectra, patterns=np.zeros((0, len(spectra.wave)))))
    with torch.inference_mode():
        means = [mixture.posterior(question.star(b)).moments()[0].numpy() for b in range(len(spectra))]
    return np.where(spectra.measured, (spectra.flux - np.array(means)) * np.sqrt(spectra.ivar), np.nan)


def fit_sky(mixture: Mixture, spectra: Spectra, count: int = PATTERNS) -> Array:
    """(count, L) patterns of the stars that are not held out.

    Raises:
        ValueError: too few stars.
    """
    train = spectra.select(~held_out(spectra))
    return sky.learn(residuals(mixture, train), count)
