"""The hallucination audit: what a method does to a line put in, taken out, hidden in a gap, and to nothing at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import t as student

from core.metrics.audit import Answer, Test, ask, blocks
from core.metrics.false_alarms import Nominal, limit
from core.metrics.fidelity import in_windows
from core.metrics.flags import flags_of, significance
from core.metrics.lines import LINES, Line, equivalent_width
from core.metrics.matched_filter import Scan, pixel, profile, strength
from core.metrics.planted import LN10, angstrom, live_enough, own_flag, placed, width_in
from core.spectrum import Array, Spectra, star_seed


def _rng(star: str, seed: int, purpose: str) -> np.random.Generator:
    return np.random.default_rng(star_seed(star, seed, f"audit {purpose}"))


def _inside(lines: Sequence[Line] | None, wave: Array) -> list[Line]:
    """The lines whose bands all lie within the spectrum."""
    known = list(LINES.values()) if lines is None else list(lines)
    out = [li for li in known if min(*li.blue, *li.band, *li.red) >= wave[0]
           and max(*li.blue, *li.band, *li.red) <= wave[-1]]
    if not out:
        raise ValueError(f"none of {[li.name for li in known]} lies within {wave[0]:.0f}-{wave[-1]:.0f} Angstrom with "
                         "its side bands; give a line that does.")
    return out


def put_in(spectra: Spectra, answer: Answer, n: int = 16, seed: int = 0, lines: int = 1,
           strengths: tuple[float, float] = (1.0, 20.0), widths: tuple[float, float] = (0.5, 5.0),
           test: Test | None = None, block: int = 50) -> pd.DataFrame:
    """Experiment 1: a Gaussian line the prior does not know is added to the observation. Is it kept, is it flagged?

    Place even over where at least nine tenths of the line are live, sign even, strength even and width even in its
    logarithm over what is given. The noise stays as it is; both answers come from one seed and one star id.

    Args:
        spectra: B observed stars; answer: the method; n: draws; seed: of places and of draws.
        lines: put in, each alone, per star; strengths: matched-filter standard deviations under the star's own noise.
        widths: Gaussian sigma in units of the resolution; test: how flags are raised; block: stars at a time.

    Returns:
        A row per star and line: star, line (number), wavelength [A], width [A], strength (signed, + absorption),
        ew_in and ew_kept [A, + absorption], survival = ew_kept / ew_in (the difference of both mean answers, summed
        over the line's own pixels), flagged (a flag of its sign within three widths), found (that flag's strength, or
        0), p_value (that flag's, or 1), limit (power of the matched filter for this strength), trials, n.

    Raises:
        ValueError: strengths or widths not rising from above 0, an answer of another shape, a star without live pixels.
    """
    for name, (low, high) in (("strengths", strengths), ("widths", widths)):
        if not 0 < low <= high:
            raise ValueError(f"{name} run from {low} to {high}; give two positive numbers, the lower first.")
    test = test or Test()
    dex = pixel(spectra.wave)
    rows: list[dict[str, Any]] = []
    for stars, _ in blocks(spectra, None, block):
        b_of = np.repeat(np.arange(len(stars)), lines)
        plain = stars.select(b_of)
        shape, todo = np.zeros(plain.flux.shape), []
        for j, b in enumerate(b_of):
            rng = _rng(stars.stars[b], seed, f"put in {j % lines}")
            width = float(np.exp(rng.uniform(*np.log(widths)))) * test.resolution / dex
            offset, sign, sigmas = rng.uniform(-0.5, 0.5), rng.choice((-1.0, 1.0)), rng.uniform(*strengths)
            usable = live_enough(stars.measured[b], width, offset)
            if not usable.any():
                raise ValueError(f"star {stars.stars[b]} has no {len(profile(width, offset))} live pixels to put a "
                                 "line in; leave it out.")
            place = int(rng.choice(np.flatnonzero(usable)))
            shape[j] = placed(len(stars.wave), place, offset, width)
            todo.append((place + offset, width, sign * sigmas))
        want = np.array([s for _, _, s in todo])
        put = -shape * (want / strength(plain, shape))[:, None]
        both = Spectra(stars.wave, np.concatenate([stars.flux, plain.flux + put]),
                       np.concatenate([stars.ivar, plain.ivar]), np.concatenate([stars.continuum, plain.continuum]),
                       pd.concat([stars.meta, plain.meta]), stars.noise)
        draws = ask(answer, both, n, seed)
        added = slice(len(stars), len(both))
        found, trials = test.run(both.select(added), draws[:, added])
        change = draws[:, added].mean(0) - draws[:, : len(stars)].mean(0)[b_of]
        ew_in, kept = -(put @ angstrom(stars.wave)), width_in(stars.wave, shape, change)
        for j, (at, width, signed) in enumerate(todo):
            best = own_flag(found[j], signed, at, width, stars.wave)
            centre = float(stars.wave[0] * 10 ** (at * dex))
            rows.append({"star": stars.stars[b_of[j]], "line": j % lines, "wavelength": centre,
                         "width": width * centre * LN10 * dex, "strength": signed, "ew_in": ew_in[j],
                         "ew_kept": kept[j], "survival": kept[j] / ew_in[j], "flagged": best is not None,
                         "found": best.strength if best else 0.0, "p_value": best.p_value if best else 1.0,
                         "limit": float(limit(signed, trials[j], test.level)), "trials": trials[j], "n": n})
    return pd.DataFrame(rows)


def filled(wave: Array, flux: Array, line: Line) -> Array:
    """(..., L) flux with the line's band replaced by the straight line through the mean flux of its two side bands."""
    sides = [in_windows(wave, [side]) for side in (line.blue, line.red)]
    (low, high), (left, right) = [flux[..., s].mean(-1) for s in sides], [wave[s].mean() for s in sides]
    band = in_windows(wave, [line.band])
    out = flux.copy()
    out[..., band] = low[..., None] + (high - low)[..., None] * (wave[band] - left) / (right - left)
    return out


def take_out(spectra: Spectra, truth: npt.ArrayLike, answer: Answer, n: int = 16, seed: int = 0,
             lines: Sequence[Line] | None = None, test: Test | None = None, block: int = 50) -> pd.DataFrame:
    """Experiment 2: a line the prior expects is filled with continuum. How much is painted back, and is that flagged?

    The truth's line is filled, and the observation changes by the same amount; its noise stays as it is.

    Args:
        spectra: B observed stars; truth: (B, L) clean flux in units of their continuum; answer, n, seed, test, block:
            as in `put_in`; lines: each taken out alone; all LINES within the spectrum by default.

    Returns:
        A row per star and line: star, line (name), wavelength [A], strength (standard deviations of what was taken
        out), ew_truth [A], ew_back [A] (mean over draws, less what the filled truth itself measures), ew_back_std over
        draws, painted = ew_back / ew_truth, flagged (a flag in the band of the sign of paint), limit (power for the
        strength that the paint has, if it has the line's shape), trials, n. For a line that is nothing (|strength| < 3)
        `painted` says nothing.

    Raises:
        ValueError: truth of another shape or not finite, no line inside the spectrum, an answer of another shape.
    """
    test = test or Test()
    chosen = _inside(lines, spectra.wave)
    rows: list[dict[str, Any]] = []
    for stars, clean in blocks(spectra, truth, block):
        for line in chosen:
            empty = filled(stars.wave, clean, line)
            without = replace(stars, flux=stars.flux + empty - clean)
            draws = ask(answer, without, n, seed)
            found, trials = test.run(without, draws)
            nothing = equivalent_width(stars.wave, empty, line)
            real = equivalent_width(stars.wave, clean, line) - nothing
            back = equivalent_width(stars.wave, draws, line) - nothing
            mean, size = back.mean(0), strength(stars, clean - empty)
            for b, star in enumerate(stars.stars):
                painted = mean[b] / real[b] if real[b] else np.nan
                hit = any(f.strength * mean[b] < 0 and line.band[0] - f.width <= f.wavelength <= line.band[1] + f.width
                          for f in found[b])
                seen = abs(painted) * size[b]
                rows.append({"star": star, "line": line.name, "wavelength": line.centre, "strength": size[b],
                             "ew_truth": real[b], "ew_back": mean[b],
                             "ew_back_std": back[:, b].std(ddof=1) if n > 1 else np.nan, "painted": painted,
                             "flagged": hit, "limit": float(limit(seen, trials[b], test.level)),
                             "trials": trials[b], "n": n})
    return pd.DataFrame(rows)


def gap(spectra: Spectra, truth: npt.ArrayLike, answer: Answer, n: int = 16, seed: int = 0,
        lines: Sequence[Line] | None = None, pixels: tuple[int, int] = (20, 300), level: float = 0.683,
        block: int = 50) -> pd.DataFrame:
    """Experiment 3: a strong line is hidden by a gap (ivar = 0). Are the draws there as wide as they should be?

    Of n draws z = (truth - mean) / (std sqrt(1 + 1 / n)) follows Student's t with n - 1 degrees of freedom where the
    draws are right and near Gaussian; `covered` uses its quantiles, so few draws do not count as too narrow.

    Args:
        spectra, truth, answer, n (at least 2), seed, lines, block: as in `take_out`; pixels: shortest and longest gap,
            even in the logarithm, about the line's centre; level: of the interval, in (0, 1).

    Returns:
        A row per star and line: star, line, wavelength [A], pixels, ew_truth, ew_mean, ew_std [A], z, chi2 = z^2,
        covered, rank of the truth's EW (draws below it, 0..n), pixel_coverage and pixel_chi2 (means in the gap), width
        and width_open (mean std of the draws in the gap, with it and without it), n. A point estimate has z NaN.

    Raises:
        ValueError: fewer than 2 draws, a gap that is not positive, and as `take_out`.
    """
    if n < 2:
        raise ValueError(f"{n} draw has no width; ask for at least 2 draws, better 16.")
    if not 1 <= pixels[0] <= pixels[1] or not 0 < level < 1:
        raise ValueError(f"gap of {pixels} pixels, level {level}; give rising positive lengths and a level in (0, 1).")
    reach = float(student.ppf(0.5 + level / 2, n - 1)) * np.sqrt(1 + 1 / n)
    rows: list[dict[str, Any]] = []
    for stars, clean in blocks(spectra, truth, block):
        open_ = ask(answer, stars, n, seed).std(0, ddof=1)
        for line in _inside(lines, spectra.wave):
            hidden = np.zeros(stars.flux.shape, dtype=bool)
            for b, star in enumerate(stars.stars):
                length = round(np.exp(_rng(star, seed, f"gap {line.name}").uniform(*np.log(pixels))))
                first = int(np.searchsorted(stars.wave, line.centre)) - length // 2
                hidden[b, max(first, 0) : first + length] = True
            # what lies in the gap must not leak: flux there is set to the continuum
            masked = replace(stars, ivar=np.where(hidden, 0.0, stars.ivar), flux=np.where(hidden, 1.0, stars.flux))
            draws = ask(answer, masked, n, seed)
            ew, real = equivalent_width(stars.wave, draws, line), equivalent_width(stars.wave, clean, line)
            mean, std = ew.mean(0), ew.std(0, ddof=1)
            off, spread = clean - draws.mean(0), draws.std(0, ddof=1)
            with np.errstate(divide="ignore", invalid="ignore"):
                z = np.where(std > 0, (real - mean) / (std * np.sqrt(1 + 1 / n)), np.nan)
                chi2 = np.where(spread > 0, (off / spread) ** 2 / (1 + 1 / n), np.nan)
            for b, star in enumerate(stars.stars):
                g = hidden[b]
                rows.append({"star": star, "line": line.name, "wavelength": line.centre, "pixels": int(g.sum()),
                             "ew_truth": real[b], "ew_mean": mean[b], "ew_std": std[b], "z": z[b], "chi2": z[b] ** 2,
                             "covered": bool(abs(real[b] - mean[b]) <= reach * std[b]),
                             "rank": int((ew[:, b] < real[b]).sum()),
                             "pixel_coverage": float((np.abs(off[b, g]) <= reach * spread[b, g]).mean()),
                             "pixel_chi2": float(chi2[b, g].mean()), "width": float(spread[b, g].mean()),
                             "width_open": float(open_[b, g].mean()), "n": n})
    return pd.DataFrame(rows)


def nothing(spectra: Spectra, answer: Answer, n: int = 16, seed: int = 0, test: Test | None = None,
            block: int = 50) -> pd.DataFrame:
    """Experiment 4: the stars as they are. Every flag is a false alarm, where they are stars of the prior.

    Returns:
        A row per star: star, flags (how many), flagged, strongest (largest |T|), p_value (of the strongest), trials, n.

    Raises:
        ValueError: an answer of another shape or not finite.
    """
    test = test or Test()
    rows: list[dict[str, Any]] = []
    for stars, _ in blocks(spectra, None, block):
        draws = ask(answer, stars, n, seed)
        scan = Scan(stars, test.resolution, test.widths)
        mean, seen = draws.mean(0), test.draws(draws)
        found = flags_of(scan, mean, seen, test.level, test.calibration)
        top = np.abs(significance(scan, mean, seen, test.calibration)).max(axis=(1, 2))
        for b, null in enumerate(Nominal.of(scan)):
            p = float((test.calibration or null).p_value(top[b]))
            rows.append({"star": stars.stars[b], "flags": len(found[b]), "flagged": bool(found[b]), "strongest": top[b],
                         "p_value": p, "trials": null.trials(test.level), "n": n})
    return pd.DataFrame(rows)
