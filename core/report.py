"""What an answer says of one's stars, as a reader wants it: lines and labels with value, error, unit and method.

Velocities and labels want core.pipeline, and import it when they are asked for: lines alone do without PyTorch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd

from core.data.grid import doppler
from core.metrics import photon, table
from core.metrics.fidelity import in_windows, mean_where
from core.metrics.flags import Flag
from core.metrics.lines import LINES, Line, bridged
from core.question import UNCALIBRATED
from core.spectrum import LABELS, Array, Samples, Spectra, star_seed

if TYPE_CHECKING:
    from core.models.estimators import LabelEstimator

#: minus, plus: distances to the 16 and 84 % quantiles, or twice the same standard error; error_is says which
LINE_COLUMNS = ("star", "method", "line", "quantity", "unit", "value", "minus", "plus", "error_is", "reference",
                "residual", "draws", "prior_share", "flags")
LABEL_COLUMNS = ("star", "method", "quantity", "unit", "value", "minus", "plus", "error_is", "reference", "residual",
                 "draws")
PHOTON, NONE = "photon noise", "none"  #: error_is, beside "68 % of n draws"
CLOSED = "mixture, closed form"  #: the method of `closed_form`
NAMES = {**table.NAMES, "rv": "RV"}  #: label -> quantity
_MAX_VELOCITY = 3000.0  # km/s: what files give beyond is no star's


def at_velocity(line: Line, velocity: float) -> Line:
    """The line where a star of that velocity [km/s] has it: all its bands moved, its name kept."""
    moved = [doppler(window, velocity).tolist() for window in (line.band, line.blue, line.red)]
    band, blue, red = ((low, high) for low, high in moved)
    return replace(line, centre=float(doppler(line.centre, velocity)), band=band, blue=blue, red=red)


def velocities_of(spectra: Spectra) -> Array:
    """(B,) the velocity [km/s] that meta gives each star, 0 where it gives none that can be believed."""
    if "rv" not in spectra.meta:
        return np.zeros(len(spectra))
    value = pd.to_numeric(spectra.meta["rv"], errors="coerce").to_numpy(dtype=np.float64)
    return np.where(np.abs(value) < _MAX_VELOCITY, value, 0.0)


def flag_words(flag: Flag) -> str:
    """A flag in a few words; a positive strength is absorption that the method lacks (or emission that it painted)."""
    what = "absorption not in answer" if flag.strength > 0 else "emission not in answer"
    return f"{what}, {abs(flag.strength):.1f} sigma at {flag.wavelength:.1f}"


def error_of(method: str, n: int) -> str:
    """What the error of n draws of a method is, in words."""
    return f"68 % of {n} draws" + (", not calibrated" if method in UNCALIBRATED else "")


def _asymmetric(tidy: pd.DataFrame) -> pd.DataFrame:
    """value, minus and plus of tidy rows: median and quantiles of draws, or the one value without an error."""
    wide = tidy["n"] > 1
    value = tidy["q50"].where(wide, tidy["mean"])
    return tidy.assign(value=value, minus=tidy["q50"] - tidy["q16"], plus=tidy["q84"] - tidy["q50"], draws=tidy["n"],
                       error_is=[error_of(m, n) if w else NONE for m, n, w in zip(tidy["method"], tidy["n"], wide,
                                                                                 strict=True)])


def _residual(rows: pd.DataFrame, reference_error: npt.ArrayLike = 0.0) -> Array:
    """(value - reference) over the error on the reference's side, and the reference's own."""
    gap = (rows["value"] - rows["reference"]).to_numpy(dtype=np.float64)
    side = np.where(gap > 0, rows["minus"], rows["plus"]).astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(gap / np.hypot(side, reference_error))


def line_table(samples: Samples, spectra: Spectra, truth: Array | None = None,
               lines: Sequence[Line] | None = None, *, own: Spectra | None = None, seed: int = 0, rv_draws: int = 16,
               prior_share: Array | None = None, flags: Sequence[Sequence[Flag]] | None = None) -> pd.DataFrame:
    """EW, depth and FWHM of each line that was measured, and the velocity, of each star.

    Bands lie where the star's own velocity (meta's `rv`) puts them; widths are as observed, (1 + v / c) times those at
    rest. The error is that of the draws (median, 16 and 84 % quantiles); a method without draws has that of the
    observation's noise, which knows nothing of the method's bias (`core.metrics.photon`). The velocity is that of the
    whole spectrum (line "all").

    Args:
        samples: draws (n, B, L) about `spectra`.
        truth: (B, L) clean flux in units of the spectra's continuum, NaN where unknown.
        lines: at rest; all of LINES by default.
        own: the same stars before they were degraded, when no truth is known: the reference then, with its own error.
        seed: of the noise behind photon errors, and of ties; rv_draws: draws whose velocity is measured (0: none).
        prior_share: (B, L) posterior over prior variance of each pixel, of which a line gets the mean in its band.
        flags: of each star; a line gets those inside its band.

    Returns:
        Columns LINE_COLUMNS: reference and residual [sigma] are NaN where neither truth nor `own` is known; flags are
        words, "" where none; prior_share NaN where unknown.

    Raises:
        ValueError: shapes that disagree, or truth and own both given.
    """
    shape = spectra.flux.shape
    if truth is not None and own is not None:
        raise ValueError("truth and own spectra both given; a residual is against one of them.")
    given = {"draws": samples.draws[0], "truth": truth, "own spectra": None if own is None else own.flux,
             "prior_share": prior_share}
    for name, array in given.items():
        if array is not None and np.shape(array) != shape:
            raise ValueError(f"{name} of shape {np.shape(array)} do not belong to spectra of {shape}.")
    parts = []
    for b, velocity in enumerate(velocities_of(spectra)):
        moved = [at_velocity(line, velocity) for line in (LINES.values() if lines is None else lines)]
        one, its = spectra.select(b), replace(samples, draws=samples.draws[:, b : b + 1])
        before = None if own is None else own.select(b)
        known = _known(one, None if truth is None else truth[b], before, bool(rv_draws))
        rows = _star_rows(its, one, known, before, moved, seed, rv_draws)
        parts.append(_said(rows, spectra.wave, {line.name: line for line in moved},
                           None if prior_share is None else prior_share[b], () if flags is None else flags[b]))
    return pd.concat(parts, ignore_index=True)[list(LINE_COLUMNS)]


def _known(one: Spectra, truth: Array | None, before: Spectra | None, velocities: bool) -> table.Known:
    """The reference of one star, and the templates of velocities where these are wanted."""
    clean = np.full(one.flux.shape, np.nan)
    if before is not None:
        clean = np.where(before.measured, before.flux, np.nan)
    elif truth is not None:
        clean[0] = truth
    if not velocities:
        return table.Known(clean)
    from core import pipeline

    log, templates = pipeline.velocity_templates()
    return table.Known(clean, templates, 10.0**log)


def _star_rows(samples: Samples, one: Spectra, known: table.Known, before: Spectra | None, lines: list[Line],
               seed: int, rv_draws: int) -> pd.DataFrame:
    """All rows of one star, without prior share and flags."""
    snr = np.array([float(one.meta["snr_g"].iloc[0]) if "snr_g" in one.meta else np.nan])
    parts = table.line_rows(samples, one, known, lines, snr, seed, tuple(table.OF_LINES))
    if rv_draws:
        got, true = table.velocities(samples, one, known, rv_draws)
        parts.append(table.rows_of(one.stars, samples.method, "RV", "km/s", snr, true, got, seed))
    tidy = pd.concat([p for p in parts if len(p)], ignore_index=True)
    rows = _asymmetric(tidy).rename(columns={"truth": "reference"})
    split = rows["quantity"].str.partition(":")
    rows = rows.assign(quantity=split[0], line=split[2].where(split[2] != "", "all"))
    keys = list(zip(rows["quantity"], rows["line"], strict=True))
    if (bare := rows["error_is"] == NONE).any():
        clean = bridged(samples.draws[0, 0], one.measured[0]) if samples.method == "noisy" else samples.draws[0, 0]
        errors = {**photon.line_errors(one, clean, lines, seed),
                  **({("RV", "all"): photon.velocity_error(one, known)} if rv_draws else {})}
        error = np.array([errors.get(key, np.nan) for key in keys])
        for side in ("minus", "plus"):
            rows[side] = np.where(bare, error, rows[side])
        rows["error_is"] = np.where(bare & np.isfinite(error), PHOTON, rows["error_is"])
    of_reference = np.zeros(len(rows))
    if before is not None:
        flux = bridged(before.flux[0], before.measured[0])
        errors = {**photon.line_errors(before, flux, lines, seed),
                  **({("RV", "all"): photon.velocity_error(before, known)} if rv_draws else {})}
        of_reference = np.array([errors.get(key, np.nan) for key in keys])
    return rows.assign(residual=_residual(rows, of_reference))


def _said(rows: pd.DataFrame, wave: Array, lines: dict[str, Line], share: Array | None,
          flags: Sequence[Flag]) -> pd.DataFrame:
    """Rows with each line's prior share and flags."""
    def words(line: Line) -> str:
        return "; ".join(flag_words(f) for f in flags if line.band[0] <= f.wavelength <= line.band[1])

    shares = {name: np.nan if share is None else float(mean_where(share, in_windows(wave, [line.band])))
              for name, line in lines.items()}
    told = {name: words(line) for name, line in lines.items()}
    return rows.assign(prior_share=rows["line"].map(shares).astype(float), flags=rows["line"].map(told).fillna(""))


@lru_cache(maxsize=1)
def ridge() -> LabelEstimator:
    """The committed label estimator."""
    from core import checkpoint
    from core.models.estimators import RidgeLabels

    return RidgeLabels.load(checkpoint.path_of("ridge"))


def labels_of(samples: Samples, spectra: Spectra, estimator: LabelEstimator | None = None, seed: int = 0) -> Array:
    """(n, B, 5) labels by sample propagation, in the order of core.spectrum.LABELS; RV measured in each draw.

    NaN where a draw has no velocity. An answer without draws gives one, without the estimator's scatter.

    Args:
        samples: an answer about `spectra`; estimator: the committed ridge by default; seed: of its scatter.

    Raises:
        ValueError: another grid, or samples of other stars.
    """
    from core import pipeline

    labels = pipeline.label_draws(samples, spectra, ridge() if estimator is None else estimator, seed)
    log, templates = pipeline.velocity_templates()
    known = table.Known(np.full(spectra.flux.shape, np.nan), templates, 10.0**log)
    labels[:, :, list(LABELS).index("rv")] = table.velocities(samples, spectra, known, len(labels))[0]
    return labels


def closed_form(spectra: Spectra, n: int = 1000, seed: int = 0) -> Array:
    """(n, B, 5) draws of the labels from the mixture's posterior, in which they ride along: no spectrum is drawn.

    Args:
        n: draws, of microseconds each; seed: with each star's id, of these.

    Raises:
        ValueError: another grid, or n < 1.
    """
    if n < 1:
        raise ValueError(f"{n} draws asked for; ask for at least 1.")
    import torch

    from core.models.mixture_labels import MixtureLabels
    from core.models.mixture_sampler import MixtureSampler
    from core.models.observation import Observation

    with torch.inference_mode():
        question, mixture, labels = Observation.of(spectra), MixtureSampler().mixture, MixtureLabels.load()
        return np.stack([labels.draw(mixture.posterior(question.star(b)), n,
                                     np.random.default_rng(star_seed(star, seed, "closed labels")))
                         for b, star in enumerate(spectra.stars)], axis=1)


def known_labels(spectra: Spectra) -> Array:
    """(B, 5) labels that meta gives, NaN where it gives none."""
    out = [pd.to_numeric(spectra.meta[name], errors="coerce") if name in spectra.meta else np.full(len(spectra), np.nan)
           for name in LABELS]
    return np.array(out, dtype=np.float64).T


def label_table(labels: Array, spectra: Spectra, method: str, truth: Array | None = None) -> pd.DataFrame:
    """Teff [K], logg, [Fe/H], [alpha/Fe] [dex] and RV [km/s] of each star from draws of labels.

    Args:
        labels: (n, B, 5) from `labels_of` or `closed_form`; method: whose; truth: (B, 5), NaN where unknown.

    Returns:
        Columns LABEL_COLUMNS; one draw has no error, and says so.

    Raises:
        ValueError: shapes that disagree.
    """
    if labels.ndim != 3 or labels.shape[1:] != (len(spectra), len(LABELS)):
        raise ValueError(f"labels of shape {labels.shape} for {len(spectra)} stars; give (n, {len(spectra)}, 5).")
    known = np.full(labels.shape[1:], np.nan) if truth is None else np.asarray(truth, dtype=np.float64)
    parts = [table.rows_of(spectra.stars, method, NAMES[name], unit, np.nan, known[:, i], labels[:, :, i], 0)
             for i, (name, unit) in enumerate(LABELS.items())]
    rows = _asymmetric(pd.concat([p for p in parts if len(p)], ignore_index=True)).rename(
        columns={"truth": "reference"})
    added = "" if method == CLOSED else " and the estimator's own error"
    own = (rows["error_is"] != NONE) & (rows["quantity"] != NAMES["rv"])
    rows["error_is"] = rows["error_is"].where(~own, rows["error_is"] + added)
    return rows.assign(residual=_residual(rows))[list(LABEL_COLUMNS)]
