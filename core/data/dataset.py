"""What networks are trained on: seeded batches of clean stars with a noise map each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from core.data.grid import N_PIXELS, WAVE, continuum_curve
from core.data.instrument import MARGIN
from core.data.simulator import Simulator, brightness
from core.spectrum import Array

SNR = (1.5, 500.0)  #: S/N_g of the noise maps, log-uniform: wider than anything that will be asked
OPEN = 0.04  #: share of stars with lines that no label explains


@dataclass(frozen=True)
class Batch:
    """Clean stars and noise maps, float16 as they travel between processes.

    Args:
        excess: (n, 3840) clean flux in units of the curve through the clean star, less 1: float16 keeps its digits
            there.
        sigma: (n, 3840) true deviation of the noise in the same units (quoted sigma times LAMOST's scale), infinite in
            dead pixels.
    """

    excess: npt.NDArray[np.float16]
    sigma: npt.NDArray[np.float16]


def batch(simulator: Simulator, n: int, rng: np.random.Generator) -> Batch:
    """n stars of the simulator, moved and blurred, each with a noise map of its own brightness at a random S/N."""
    labels, velocity = simulator.population(n, rng), simulator.velocities(n, rng)
    flux = simulator.physical(labels, velocity, rng)[:, MARGIN:-MARGIN]
    curve = continuum_curve(flux, np.full((n, N_PIXELS), 1e6))
    level = brightness(flux)
    snr = np.exp(rng.uniform(np.log(SNR[0]), np.log(SNR[1]), n))
    sigma = simulator.noise.draw(snr, rng, curve=level) * level / curve * simulator.noise.noise.scales(WAVE)
    return Batch((flux / curve - 1.0).astype(np.float16), _half(sigma))


def _half(sigma: Array) -> npt.NDArray[np.float16]:
    """float16, with what is too noisy to tell from dead made dead."""
    return np.where(sigma < 1e3, np.clip(sigma, 1e-4, None), np.inf).astype(np.float16)
