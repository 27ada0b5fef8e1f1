"""Simulated LAMOST stars: labels -> clean spectrum -> instrument -> units of the continuum -> noise."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from core.data.grid import N_PIXELS, WAVE, continuum_curve
from core.data.instrument import MARGIN, WIDE, calibration, extinction, observe
from core.data.noise import NoiseModel
from core.data.population import LABEL_NAMES, draw_labels
from core.spectrum import Array, Kernel, Spectra

#: labels (n, 28) -> (flux / continuum (n, 3864), continuum (n, 3864)) on WIDE, at rest: core.models.templates.Templates
TemplateSource = Callable[[Array], tuple[Array, Array]]
#: labels (n, 28), rng -> what real stars have and physics lacks (n, 3864), in units of the curve, at rest
RealitySource = Callable[[Array, np.random.Generator], Array]

#: resolution at the blue end and the unit normal number behind the red end's, v sin i [km/s], E(B - V) [mag], and the
#: unit normal weights of the calibration's eight cosines and of its step
NUISANCE_NAMES = ("blue", "red", "vsini", "dust", *(f"calibration_{i}" for i in range(1, 9)), "arm_step")

_INSIDE = slice(MARGIN, -MARGIN)


@dataclass(frozen=True)
class Simulated:
    """Simulated stars and the truth about them.

    Args:
        spectra: as observed, in units of the curve through each observation.
        truth: (n, 3840) clean flux in the same units.
        wide: (n, 3864) the same with its margins (the curve held flat beyond the ends).
        labels: (n, 28) in the order of core.data.population.LABEL_NAMES.
        nuisances: (n, 13) what else was drawn, in the order of `NUISANCE_NAMES`; None where nobody kept it.
    """

    spectra: Spectra
    truth: Array
    wide: Array
    labels: Array
    nuisances: Array | None = None


@dataclass(frozen=True)
class Simulator:
    """Draws stars from the population prior and observes them.

    Args:
        templates: physics.
        native: resolution lambda/FWHM of the templates.
        noise: LAMOST's sigma maps.
        inside: moves labels to the nearest ones in the templates' domain.
        reality: what physics lacks; nothing by default.
        velocity_spread: km/s; 0 keeps the stars at rest (for fitting a prior that has its own velocity nodes).
        open_fraction: share of spectra with one to three lines that no label explains, in absorption or emission.
    """

    templates: TemplateSource
    native: float
    noise: NoiseModel
    inside: Callable[[Array], Array] | None = None
    reality: RealitySource | None = None
    velocity_spread: float = 50.0
    open_fraction: float = 0.0

    def population(self, n: int, rng: np.random.Generator) -> Array:
        """(n, 28) labels from the population prior, moved into the templates' domain."""
        labels = draw_labels(n, rng)
        return labels if self.inside is None else self.inside(labels)

    def velocities(self, n: int, rng: np.random.Generator) -> Array:
        """(n,) km/s, the same prior as the mixture's: disk, and halo 3.6 times as wide, within 490."""
        fast = rng.random(n) < 0.08
        return np.clip(self.velocity_spread * np.where(fast, 3.6, 1.0) * rng.standard_normal(n), -490, 490)

    def physical(self, labels: Array, velocity: Array, rng: np.random.Generator,
                 record: list[Array] | None = None) -> Array:
        """(n, 3864) clean flux on WIDE in arbitrary units, as the instrument would deliver it without noise.

        Args:
            record: where given, the nuisances drawn are appended to it, (n, 13) in the order of `NUISANCE_NAMES`.
        """
        n = len(labels)
        lines, level = self.templates(labels)
        blue = rng.uniform(1400, 2200, n)
        tilt = rng.standard_normal(n)
        red = np.clip(blue + 150 * tilt, 1400, 2200)
        hot = labels[:, 1] > 6300
        vsini = np.minimum(np.where(hot, rng.gamma(2.0, 40.0, n), rng.gamma(1.5, 4.0, n)), 300.0)
        lines = observe(lines, velocity, vsini, blue, red, self.native)
        if self.open_fraction > 0:
            lines = np.maximum(lines + self._open_lines(n, rng), 0.0)  # a line on a line takes no more than there is
        flux = level / np.median(level, axis=1, keepdims=True) * lines
        if self.reality is not None:
            curve = _wide(continuum_curve(flux[:, _INSIDE], np.full((n, N_PIXELS), 1e4)))
            rest = self.reality(labels, rng)
            still = np.full(n, self.native)
            flux = np.maximum(flux + curve * observe(rest, velocity, np.zeros(n), still, still, self.native), 1e-4)
        dust = rng.exponential(0.12, n)
        replay = deepcopy(rng)  # calibration() says what it made of its numbers, not which they were
        flux = flux * extinction(dust) * calibration(n, rng)
        if record is not None:
            weights = np.concatenate([replay.standard_normal((n, 8)), replay.standard_normal((n, 1))], axis=1)
            record.append(np.concatenate([np.stack([blue, tilt, vsini, dust], axis=1), weights], axis=1))
        return flux

    def _open_lines(self, n: int, rng: np.random.Generator) -> Array:
        """(n, 3864) Gaussian lines of unknown origin: 1-3 in `open_fraction` of the stars, half in emission."""
        out = np.zeros((n, len(WIDE)))
        pixel = np.arange(len(WIDE))
        for row in np.flatnonzero(rng.random(n) < self.open_fraction):
            for _ in range(rng.integers(1, 4)):
                depth = np.exp(rng.uniform(np.log(0.02), np.log(0.6))) * rng.choice((-1, 1))
                out[row] += depth * np.exp(-0.5 * ((pixel - rng.uniform(0, len(WIDE))) / rng.uniform(1.0, 4.0)) ** 2)
        return out

    def observe(self, clean: Array, snr: Array, rng: np.random.Generator, kernel: Kernel | None = None,
                dead: bool = True) -> tuple[Array, Array]:
        """Clean flux (n, 3840) with LAMOST's noise at S/N_g `snr` (n,): flux and ivar in the same unit."""
        kernel = self.noise.noise if kernel is None else kernel
        level = brightness(clean)
        sigma = self.noise.draw(snr, rng, curve=level, dead=dead) * level
        live = np.isfinite(sigma)
        sigma = np.where(live, sigma, 0.0)
        white = kernel.colour(WAVE, rng.standard_normal((len(clean), N_PIXELS + 2)))
        seen = clean + kernel.scales(WAVE) * sigma * white
        return seen, np.where(live, 1.0 / np.where(live, sigma, 1.0) ** 2, 0.0)

    def rest(self, n: int, rng: np.random.Generator) -> tuple[Array, Array]:
        """n clean spectra at rest (n, 3864), in units of the curve through the *clean* star, and their labels.

        For fitting priors on. The curve through a noisy star differs from it by a smooth factor that the
        noise made; a prior answers for that
        with smooth factors of its own (Mixture.unit_spread), not with what it learned at one S/N.
        """
        labels = self.population(n, rng)
        flux = self.physical(labels, np.zeros(n), rng)
        return flux / _wide(continuum_curve(flux[:, _INSIDE], np.full((n, N_PIXELS), 1e6))), labels

    def draw(self, n: int, rng: np.random.Generator, snr: float | npt.ArrayLike | None = None,
             labels: Array | None = None, kernel: Kernel | None = None, dead: bool = True) -> Simulated:
        """n observed stars with their truth.

        Args:
            snr: S/N_g, one number or (n,); log-uniform in 3..300 when None.
            labels: (n, 28); drawn from the population prior when None.
            kernel: scale and correlation of the noise; LAMOST's by default.
            dead: False for maps without gaps.

        Raises:
            ValueError: no stars, S/N not positive, or labels of another shape, not finite or outside the templates'
                domain.
        """
        if n < 1:
            raise ValueError(f"{n} stars asked for; ask for at least 1.")
        labels = np.asarray(self.population(n, rng) if labels is None else labels, dtype=np.float64)
        if labels.shape != (n, len(LABEL_NAMES)):
            raise ValueError(f"labels have shape {labels.shape}; give ({n}, {len(LABEL_NAMES)}), a row for each star.")
        if not np.isfinite(labels).all():
            row, column = np.argwhere(~np.isfinite(labels))[0]
            raise ValueError(f"{LABEL_NAMES[column]} of star {row} is {labels[row, column]}; give a finite number.")
        if self.inside is not None:
            _check_inside(labels, self.inside(labels))
        drawn = np.exp(rng.uniform(np.log(3), np.log(300), n))
        want = drawn if snr is None else np.broadcast_to(np.asarray(snr, float), n)
        velocity = self.velocities(n, rng)
        kept: list[Array] = []
        flux = self.physical(labels, velocity, rng, kept)
        kernel = self.noise.noise if kernel is None else kernel
        seen, ivar = self.observe(flux[:, _INSIDE], want, rng, kernel, dead)
        live = ivar > 0
        curve = continuum_curve(seen, ivar)
        wide = flux / _wide(curve)
        meta = pd.DataFrame({"star": [f"simulated-{i}" for i in range(n)], "rv": velocity, "snr_g": want,
                             **{name: labels[:, i] for i, name in enumerate(LABEL_NAMES[:5])}, "origin": "simulated"})
        spectra = Spectra(WAVE, np.where(live, seen / curve, 1.0), ivar * curve**2, curve, meta, kernel)
        return Simulated(spectra, wide[:, _INSIDE], wide, labels, kept[0] if kept else None)


def _check_inside(labels: Array, nearest: Array) -> None:
    """Refuse labels that are not their own nearest ones in the domain."""
    wrong = np.abs(labels - nearest) > 1e-4 * (1.0 + np.abs(nearest))
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        raise ValueError(f"{LABEL_NAMES[column]} = {labels[row, column]:.6g} of star {row} is outside the templates' "
                         f"domain; the nearest inside is {nearest[row, column]:.6g}.")


def brightness(flux: Array, bins: int = 32) -> Array:
    """(n, 3840) smooth brightness for the noise map: means of 120 pixels joined by straight lines."""
    means = np.maximum(flux.reshape(len(flux), bins, -1).mean(axis=2), 1e-3)
    at = np.clip((np.arange(N_PIXELS) + 0.5) / N_PIXELS * bins - 0.5, 0, bins - 1)
    low = np.minimum(at.astype(int), bins - 2)
    return means[:, low] + (at - low) * (means[:, low + 1] - means[:, low])


def _wide(curve: Array) -> Array:
    """(n, 3840) continued flat to (n, 3864)."""
    return np.pad(curve, ((0, 0), (MARGIN, MARGIN)), mode="edge")
