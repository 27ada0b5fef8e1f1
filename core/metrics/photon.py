"""What the noise of each pixel alone does to what is measured: the error of a method that has no error of its own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from core.metrics.fidelity import error
from core.metrics.lines import Line, bridged, measurable, photon_error
from core.metrics.table import OF_LINES, Known
from core.metrics.velocity import chi_square_velocity
from core.spectrum import Array, Spectra, star_seed

REPEATS = 64  #: of the noise, for what has no formula: an error is then good to 9 %


def noise_draws(spectra: Spectra, n: int, seed: int) -> Array:
    """(n, L) draws of the noise s sigma (K z) of one star, 0 where nothing was measured; by its id and the seed.

    Raises:
        ValueError: more than one star.
    """
    if len(spectra) != 1:
        raise ValueError(f"{len(spectra)} stars; give one.")
    rng = np.random.default_rng(star_seed(spectra.stars[0], seed, "photon error"))
    z = rng.standard_normal((n, len(spectra.wave) + 2))
    live = spectra.measured[0]
    return np.asarray(spectra.noise.colour(spectra.wave, z) * np.where(live, error(spectra)[0], 0.0))


def line_errors(spectra: Spectra, flux: Array, lines: Sequence[Line], seed: int = 0) -> dict[tuple[str, str], float]:
    """Standard errors by (quantity, line) that the observation's noise alone gives EW, depth and FWHM of a spectrum.

    EW by linear propagation (`core.metrics.lines.photon_error`). Depth and width have no such formula: they are
    measured on the spectrum with `REPEATS` draws of the noise put on, and scatter by so much; NaN where most have none.

    Args:
        spectra: one star, whose noise it is; flux: (L,) the spectrum measured, gaps filled; lines: to measure.
        seed: of the noise.

    Raises:
        ValueError: more than one star, or a flux of another length or not finite in a line.
    """
    noise, live, sigma = noise_draws(spectra, REPEATS, seed), spectra.measured[0], error(spectra)[0]
    noisy = bridged(np.where(live, flux + noise, 0.0), live)
    taps, out = spectra.noise.taps(spectra.wave), {}
    for line in lines:
        if not measurable(live, spectra.wave, line):
            continue
        out["EW", line.name] = float(photon_error(spectra.wave, flux, sigma, line, taps))
        for name in ("depth", "FWHM"):
            values = OF_LINES[name][1](spectra.wave, noisy, line)
            values = values[np.isfinite(values)]
            out[name, line.name] = float(values.std(ddof=1)) if len(values) > REPEATS / 2 else np.nan
    return out


def velocity_error(spectra: Spectra, known: Known) -> float:
    """Error [km/s] of the velocity of one observed star by least chi-square, its noise's scale and correlation known.

    Raises:
        ValueError: no templates.
    """
    if known.templates is None:
        raise ValueError("a velocity needs templates; give `Known` some (core.pipeline.velocity_templates).")
    scale = spectra.noise.scales(spectra.wave)
    found = chi_square_velocity(spectra.wave, spectra.flux, spectra.ivar / scale**2, known.templates,
                                known.template_wave, taps=spectra.noise.taps(spectra.wave))
    return float(found.error[0])
