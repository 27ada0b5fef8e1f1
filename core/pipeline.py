"""The one path that app, scripts and notebooks walk: METHODS, reconstruct, measure, infer, evaluate."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from core import networks
from core.data.instrument import WIDE, observe
from core.metrics import table
from core.metrics.lines import bridged
from core.models.baselines import Noisy, SavitzkyGolay, Wavelet
from core.models.estimators import LabelEstimator, propagate
from core.models.gaussian import PCA, Wiener
from core.models.mixture_sampler import MixtureSampler
from core.models.observation import Observation, Reconstructor, check_draws
from core.models.payne import typical
from core.models.templates import NATIVE, Templates
from core.spectrum import LABELS, Array, Samples, Spectra, star_seed

#: Every method by name, and what builds it from its settings. A new method is one class and one line here.
METHODS: dict[str, Callable[..., Reconstructor]] = {
    "noisy": Noisy,
    "savgol": SavitzkyGolay,
    "wavelet": Wavelet,
    "pca": PCA,
    "wiener": Wiener,
    "mixture": MixtureSampler,
    "dncnn": networks.dncnn,
    "supervised": networks.supervised,
    "supervised_ivar": networks.supervised_ivar,
    **networks.there(),
    "exact": networks.exact,
    "dps": networks.dps,
    "pigdm": networks.pigdm,
    "mmps": networks.mmps,
}

#: method -> the setting that may be named with it, as in `dps@0.01`
NAMED = {"dps": "strength"}

NAMES = table.NAMES

def build(method: str, **settings: Any) -> Reconstructor:
    """The named method with its settings; `dps@0.01` names one of them too (NAMED).

    Raises:
        ValueError: unknown name (the nearest known one is given) or a setting the method does not have.
    """
    name, at, value = method.partition("@")
    if name not in METHODS or (at and name not in NAMED):
        near = difflib.get_close_matches(name, METHODS, n=1, cutoff=0.0)[0]
        raise ValueError(f"method {method!r} is unknown; did you mean {near!r}? Known: {', '.join(METHODS)}.")
    if at:
        try:
            settings = {NAMED[name]: float(value), **settings}
        except ValueError as error:
            raise ValueError(f"method {method!r} names no {NAMED[name]}; write {name}@0.01, say.") from error
    try:
        return METHODS[name](**settings)
    except TypeError as error:
        raise ValueError(f"method {method!r} does not take {', '.join(settings)} so: {error}.") from error


def reconstruct(spectra: Spectra, method: str, draws: int = 1, seed: int = 0, **settings: Any) -> Samples:
    """Draws of the clean spectra behind some observed ones.

    Args:
        spectra: what was observed.
        method: a name in METHODS.
        draws: how many draws of each star; a point estimate repeats itself.
        seed: with each star's id, decides its draws.
        settings: of the method.

    Returns:
        Samples with draws (draws, B, L) in units of the spectra's continuum. Where a method answers to a question far
        from what it was made for, origin["warnings"] says so, a sentence for each cause.

    Raises:
        ValueError: unknown method or setting, draws < 1, a star with no live pixel, an answer that is not finite.
    """
    check_draws(draws)
    with torch.inference_mode():
        built, asked = build(method, **settings), Observation.of(spectra)
        answer, warned = built.sample(asked, draws, seed), built.warnings(asked)
    origin = {"method": method, "settings": settings, "seed": seed, "draws": draws}
    if warned:
        origin["warnings"] = warned
    return Samples(spectra.wave, np.asarray(answer.double().numpy()), method, origin)


def measure(samples: Samples, spectra: Spectra, truth: Array | None = None, **settings: Any) -> pd.DataFrame:
    """The tidy table of an answer: lines, velocity, pixels, fidelity (core.metrics.table.measure).

    Args:
        samples: an answer about `spectra`; truth: (B, L) clean flux in units of their continuum, NaN where unknown.
        settings: of core.metrics.table.measure; lines may be named (`lines=["H alpha"]`).

    Raises:
        ValueError: shapes that disagree, or a line of an unknown name (the nearest known one is given).
    """
    clean = np.full(spectra.flux.shape, np.nan) if truth is None else np.asarray(truth, dtype=np.float64)
    log, templates = velocity_templates()
    return table.measure(samples, spectra, table.Known(clean, templates, 10.0**log), **settings)


@lru_cache(maxsize=1)
def velocity_templates() -> tuple[Array, Array]:
    """log10 wavelength (3864,) and clean spectra at rest (6, 3864) for velocities: dwarfs and giants, F to K."""
    labels = typical(np.array([[4300.0, 1.5, -0.2, 0.0], [4800.0, 2.8, -0.1, 0.0], [5000.0, 4.5, 0.0, 0.0],
                               [5800.0, 4.4, -0.1, 0.0], [6500.0, 4.2, -0.3, 0.0], [5900.0, 4.2, -1.5, 0.3]]),
                     np.array([1, 1, 0, 0, 0, 0]))
    templates = Templates()
    lines, _ = templates(templates.emulator.nearest(labels))
    return np.log10(WIDE), observe(lines, np.zeros(6), np.zeros(6), np.full(6, 1800.0), np.full(6, 1800.0), NATIVE)


def label_draws(samples: Samples, spectra: Spectra, estimator: LabelEstimator, seed: int = 0,
                scatter: bool | None = None) -> Array:
    """(n, B, 5) labels by sample propagation: each draw through the estimator, its own scatter added.

    A point estimate, and a noisy spectrum itself, go straight through the estimator, without a width. The last column,
    the velocity, is the estimator's guess: `measure` finds better ones.

    Args:
        samples: an answer about `spectra`; estimator: core.models.estimators; seed: of the scatter.
        scatter: whether the estimator's own scatter is added; by default to all but point estimates.

    Raises:
        ValueError: another grid, or samples of other stars.
    """
    if samples.draws.shape[1:] != spectra.flux.shape:
        raise ValueError(f"draws {samples.draws.shape} do not belong to spectra of {spectra.flux.shape}.")
    point = len(samples.draws) == 1 or np.array_equal(samples.draws[0], samples.draws[-1])
    added = not point if scatter is None else scatter
    clean = bridged(samples.draws[:1], spectra.measured) if samples.method == "noisy" else samples.draws
    return np.concatenate([propagate(estimator, clean[:, b : b + 1], np.random.default_rng(
        star_seed(star, seed, "label scatter")) if added else None) for b, star in enumerate(spectra.stars)], axis=1)


def infer(samples: Samples, spectra: Spectra, estimator: LabelEstimator, truth: Array | None = None,
          snr: npt.ArrayLike | None = None, seed: int = 0, scatter: bool | None = None) -> pd.DataFrame:
    """The tidy table of `label_draws`.

    Velocities are not inferred: `measure` finds them in each draw and compares with that of the true spectrum,
    measured alike, so that the width is the method's alone and no error of the measurement is added.

    Args:
        truth: (B, 5), NaN where unknown; snr: (B,), the column `snr_g` of meta by default; the others as in
            `label_draws`, with its errors.
    """
    labels = label_draws(samples, spectra, estimator, seed, scatter)
    known = np.full((len(spectra), len(LABELS)), np.nan) if truth is None else np.asarray(truth, dtype=np.float64)
    at = np.asarray(spectra.meta["snr_g"] if snr is None else snr, dtype=np.float64)
    return pd.concat([table.rows_of(spectra.stars, samples.method, NAMES[name], unit, at, known[:, i],
                                    labels[:, :, i], seed)
                      for i, (name, unit) in enumerate(LABELS.items()) if name in NAMES], ignore_index=True)


def judged(samples: Samples, spectra: Spectra, truth: Array, labels: Array | None = None,
           estimator: LabelEstimator | None = None, seed: int = 0, **settings: Any) -> pd.DataFrame:
    """The tidy table of one answer: all that `measure` finds and, given an estimator, the labels."""
    parts = [measure(samples, spectra, truth, seed=seed, **settings)]
    if estimator is not None:
        parts.append(infer(samples, spectra, estimator, labels, settings.get("snr"), seed))
    return pd.concat(parts, ignore_index=True)


def evaluate(spectra: Spectra, truth: Array, methods: Sequence[str], draws: int = 32, seed: int = 0,
             labels: Array | None = None, estimator: LabelEstimator | None = None,
             **settings: Any) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Every method through everything that is measured, on the same stars and noise, drawn once.

    Returns:
        the tidy table, and the stars at which a method failed (star, method, reason): such a star costs its own rows.

    Raises:
        ValueError: unknown method, draws < 1, or one draw asked of a method whose draws differ: it has no width.
    """
    check_draws(draws)  # the asker's mistakes, not the stars'
    if draws == 1 and (wide := [method for method in methods if build(method).draws_differ]):
        raise ValueError(f"1 draw has no width ({', '.join(wide)}); ask for at least 2, better 32.")
    parts: list[pd.DataFrame] = []
    failed: list[tuple[str, str, str]] = []
    for method in methods:
        for rows in _answerable(spectra, method, draws, seed, failed):
            known = None if labels is None else labels[rows[0]]
            parts.append(judged(rows[1], spectra.select(rows[0]), truth[rows[0]], known, estimator, seed, **settings))
    return (pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=list(table.COLUMNS)),
            pd.DataFrame(failed, columns=["star", "method", "reason"]))


def _answerable(spectra: Spectra, method: str, draws: int, seed: int,
                failed: list[tuple[str, str, str]]) -> list[tuple[npt.NDArray[np.intp], Samples]]:
    """Answers about all stars at once; one by one where that fails, so that a bad star costs its own rows only."""
    number = draws if build(method).draws_differ else 1
    try:
        return [(np.arange(len(spectra)), reconstruct(spectra, method, number, seed))]
    except (ValueError, RuntimeError):
        pass
    good, answers = [], []
    for b in range(len(spectra)):
        try:
            answers.append(reconstruct(spectra.select(b), method, number, seed).draws)
            good.append(b)
        except (ValueError, RuntimeError) as error:
            failed.append((spectra.stars[b], method, str(error)))
    if not good:
        return []
    return [(np.array(good), Samples(spectra.wave, np.concatenate(answers, axis=1), method))]
