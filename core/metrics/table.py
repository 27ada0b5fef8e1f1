"""The one tidy table: what a method's draws say of lines, velocity, pixels and fidelity, a row a star and quantity."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from core.metrics.fidelity import residual, rms_error
from core.metrics.lines import LINES, Line, bridged, depth, equivalent_width, find_line, fwhm, measurable
from core.metrics.ranks import rank_of
from core.metrics.similarity import ssim
from core.metrics.velocity import chi_square_velocity
from core.spectrum import Array, Samples, Spectra, star_seed

COLUMNS = ("star", "method", "quantity", "unit", "snr", "truth", "mean", "std", "q16", "q50", "q84", "rank", "n")
#: label -> quantity of the tidy table; velocities are measured, not inferred
NAMES = {"teff": "Teff", "logg": "logg", "feh": "[Fe/H]", "alpha_fe": "[alpha/Fe]"}
PIXELS = 12  #: pixels whose flux is a quantity of its own, evenly spaced in index
_QUANTILES = (0.1587, 0.5, 0.8413)
_WIDTH = 8  # draws from which a star's own pixel coverage is counted


@dataclass(frozen=True)
class Known:
    """What is known of the stars asked about.

    Args:
        truth: (B, L) clean flux in units of the spectra's continuum, NaN where unknown (beyond a library's end).
        templates: (T, l) clean spectra at rest on template_wave (l,), for velocities; none: no velocities.
    """

    truth: Array
    templates: Array | None = None
    template_wave: Array | None = None


def rows_of(star: Sequence[str], method: str, quantity: str, unit: str, snr: npt.ArrayLike, truth: npt.ArrayLike,
            draws: npt.ArrayLike, seed: int) -> pd.DataFrame:
    """Rows of one quantity of B stars from its draws (n, B) and truth (B,), NaN where unknown.

    One draw, or draws that are all the same (a point estimate), have no width: std, quantiles and rank are NaN, n is 1.
    Draws that are not finite are left out of a star's row; a star without any has no row.
    """
    draws, truth = np.asarray(draws, dtype=np.float64), np.asarray(truth, dtype=np.float64)
    snr = np.broadcast_to(np.asarray(snr, dtype=np.float64), truth.shape)
    out: list[dict[str, Any]] = []
    for b, name in enumerate(star):
        mine = draws[np.isfinite(draws[:, b]), b]
        if not len(mine):
            continue
        row: dict[str, Any] = dict.fromkeys(COLUMNS, np.nan)
        row |= {"star": name, "method": method, "quantity": quantity, "unit": unit, "snr": snr[b], "truth": truth[b],
                "mean": mine.mean(), "n": 1}
        if len(mine) > 1 and np.ptp(mine) > 0:
            row |= dict(zip(("q16", "q50", "q84"), np.quantile(mine, _QUANTILES), strict=True))
            row |= {"std": mine.std(ddof=1), "n": len(mine)}
            if np.isfinite(truth[b]):
                rng = np.random.default_rng(star_seed(name, seed, f"rank {quantity}"))
                row["rank"] = int(rank_of(mine[:, None], truth[b : b + 1], rng)[0])
        out.append(row)
    return pd.DataFrame(out, columns=list(COLUMNS))


#: what can be measured of a line: name -> unit and function
OF_LINES: dict[str, tuple[str, Callable[[npt.ArrayLike, npt.ArrayLike, Line], Array]]] = {
    "EW": ("Angstrom", equivalent_width), "depth": ("1", depth), "FWHM": ("Angstrom", fwhm)}


def line_rows(samples: Samples, spectra: Spectra, known: Known, lines: Sequence[Line], snr: Array, seed: int,
              quantities: Sequence[str] = ("EW", "depth")) -> list[pd.DataFrame]:
    """Rows "EW:<line>" and so on of each line that was measured; the noisy spectrum's gaps are bridged.

    Args:
        snr: (B,); quantities: names in OF_LINES; the others as in `measure`.
    """
    live = spectra.measured
    draws = bridged(samples.draws[:1], live) if samples.method == "noisy" else samples.draws
    out = []
    for line in lines:
        if line.blue[0] < spectra.wave[0] or line.red[1] > spectra.wave[-1]:
            continue
        use = np.flatnonzero(measurable(live, spectra.wave, line))
        for name in quantities:
            unit, of = OF_LINES[name]
            if not len(use):
                continue
            truth = np.full(len(use), np.nan)
            low, high = np.searchsorted(spectra.wave, (min(line.blue[0], line.band[0]), max(line.red[1], line.band[1])))
            whole = np.isfinite(known.truth[use, low : high + 1]).all(axis=1)
            if whole.any():
                truth[whole] = of(spectra.wave, np.nan_to_num(known.truth[use[whole]], nan=1.0), line)
            out.append(rows_of([spectra.stars[b] for b in use], samples.method, f"{name}:{line.name}", unit, snr[use],
                               truth, of(spectra.wave, draws[:, use], line), seed))
    return out


def _pixels(samples: Samples, spectra: Spectra, known: Known, snr: Array, seed: int) -> list[pd.DataFrame]:
    """Flux of a few pixels, measured or not: gaps count."""
    at = np.linspace(0, len(spectra.wave) - 1, PIXELS + 2).astype(int)[1:-1]
    return [rows_of(spectra.stars, samples.method, f"flux:{spectra.wave[i]:.0f}", "continuum", snr, known.truth[:, i],
                    samples.draws[:, :, i], seed) for i in at]


def _scores(samples: Samples, spectra: Spectra, known: Known, snr: Array) -> list[pd.DataFrame]:
    """Per-star numbers of the mean answer over pixels that were measured and are known; in `mean`, without a truth."""
    use = spectra.measured & np.isfinite(known.truth)
    truth = np.where(use, known.truth, 1.0)
    mean = samples.draws.mean(axis=0)
    gap = np.where(use, mean - truth, np.nan)
    z = residual(mean, spectra)
    with np.errstate(invalid="ignore"):
        scores = {"rms": rms_error(mean, truth, use), "mae": np.nanmean(np.abs(gap), axis=1),
                  "bias": np.nanmean(gap, axis=1), "ssim": ssim(mean, truth, use),
                  "chi2": np.nanmean(z**2, axis=1)}
    if len(samples.draws) >= _WIDTH and not np.array_equal(samples.draws[0], samples.draws[-1]):
        low, high = np.quantile(samples.draws, (0.1587, 0.8413), axis=0)
        inside = (truth >= low) & (truth <= high)
        scores["coverage"] = np.where(use, inside, 0).sum(axis=1) / np.maximum(use.sum(axis=1), 1)
        scores["width"] = np.sqrt(np.where(use, samples.draws.var(axis=0, ddof=1), 0).sum(1) / use.sum(1))
    nothing = np.full(len(spectra), np.nan)
    return [rows_of(spectra.stars, samples.method, name, "1", snr, nothing, np.atleast_2d(value), 0)
            for name, value in scores.items()]


def velocities(samples: Samples, spectra: Spectra, known: Known, most: int = 16) -> tuple[Array, Array]:
    """RV [km/s] of each draw by least chi-square, (n, B), and of the true spectrum, measured alike, (B,) or NaN.

    A point estimate is measured once. Arguments as in `measure`; `known` must hold templates.

    Raises:
        ValueError: no templates.
    """
    templates = known.templates
    if templates is None:
        raise ValueError("velocities need templates; give `Known` some (core.pipeline.velocity_templates).")
    told = np.isfinite(known.truth)
    live = spectra.measured & (told | ~told.any(axis=1, keepdims=True))  # where nothing is known, all that was measured
    point = len(samples.draws) == 1 or np.array_equal(samples.draws[0], samples.draws[-1])
    draws = samples.draws[: 1 if point else most]
    weight = np.where(live, 1e4, 0.0)

    def of(flux: Array, ivar: Array) -> Array:
        flux, ivar = np.broadcast_arrays(np.nan_to_num(flux, nan=1.0), ivar)
        return chi_square_velocity(spectra.wave, flux, ivar, templates, known.template_wave).rv

    noisy = samples.method == "noisy"  # as one would measure it: with its own errors
    got = of(draws, np.where(live, spectra.ivar, 0.0) if noisy else weight)
    true = np.full(len(spectra), np.nan)
    some = np.flatnonzero(told.any(axis=1))
    if len(some):
        true[some] = of(known.truth[some], weight[some])
    return got, true


def _velocity(samples: Samples, spectra: Spectra, known: Known, snr: Array, seed: int, most: int) -> list[pd.DataFrame]:
    """RV of each draw, against that of the true spectrum: what the *method* does to it."""
    if known.templates is None:
        return []
    got, true = velocities(samples, spectra, known, most)
    return [rows_of(spectra.stars, samples.method, "RV", "km/s", snr, true, got, seed)]


def measure(samples: Samples, spectra: Spectra, known: Known, snr: npt.ArrayLike | None = None, seed: int = 0,
            lines: Sequence[Line | str] | str | None = None, rv_draws: int = 16) -> pd.DataFrame:
    """The tidy table of one method's answer about B stars.

    Args:
        samples: draws (n, B, L); spectra: what was asked about; known: truth and templates.
        snr: (B,) S/N_g of the stars; the column `snr_g` of meta by default.
        seed: breaks ties of ranks; lines: LINES by default, or some of them by name, or lines of one's own;
            rv_draws: draws whose velocity is measured (it is slow).

    Returns:
        Columns `COLUMNS`. Quantities: "EW:<line>" [Angstrom], "depth:<line>", "flux:<wavelength>", "RV" [km/s], and the
        scores rms, mae, bias, ssim, chi2, coverage, width (in `mean`).

    Raises:
        ValueError: samples or truth of another shape than the spectra, or a line of an unknown name.
    """
    asked = list(LINES.values()) if lines is None else [lines] if isinstance(lines, str) else lines
    known_lines = [find_line(line) if isinstance(line, str) else line for line in asked]
    if samples.draws.shape[1:] != spectra.flux.shape or np.shape(known.truth) != spectra.flux.shape:
        raise ValueError(f"draws {samples.draws.shape} and truth {np.shape(known.truth)} do not belong to spectra of "
                         f"{spectra.flux.shape}; ask about the same stars.")
    at = np.asarray(spectra.meta["snr_g"] if snr is None else snr, dtype=np.float64)
    at = np.broadcast_to(at, len(spectra))
    parts = [*line_rows(samples, spectra, known, known_lines, at, seed),
             *_pixels(samples, spectra, known, at, seed), *_scores(samples, spectra, known, at),
             *_velocity(samples, spectra, known, at, seed, rv_draws)]
    return pd.concat([p for p in parts if len(p)], ignore_index=True)
