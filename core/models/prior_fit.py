"""Builds the stellar prior: physics, then what physics lacks, then real stars as components of their own."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from scipy.ndimage import gaussian_filter1d
from torch import Tensor

from core.data.grid import N_PIXELS, WAVE
from core.data.hashes import record
from core.data.instrument import MARGIN, MAX_VELOCITY
from core.data.noise import NoiseModel
from core.data.reality import Reality, fit_reality, label_features
from core.data.simulator import Simulator
from core.models.mixture import MODEL_FILE, Mixture, shifted
from core.models.mixture_fit import FittedComponents, fit_components
from core.models.observation import Observation
from core.models.real_components import autocorrelation, left_out_residual, real_components, taps_of
from core.models.templates import NATIVE, Templates
from core.models.velocity_search import pixels_of
from core.spectrum import Array, Spectra

FACTORS = 100  #: of every component on disk; components with fewer stars leave the rest at zero
_BASIS = 320  # vectors of the common basis
_BATCH = 250


def _simulate(task: tuple[int, int, Reality | None]) -> Array:
    """Worker: clean stars at rest, (n, 3864) float32."""
    seed, n, reality = task
    torch.set_num_threads(1)
    templates = Templates()
    simulator = Simulator(templates, NATIVE, NoiseModel.load(), templates.emulator.nearest, reality)
    rng = np.random.default_rng(seed)
    return np.concatenate([simulator.rest(_BATCH, rng)[0].astype(np.float32) for _ in range(n // _BATCH)])


def simulate(n: int, seed: int, reality: Reality | None = None, workers: int = 2) -> Array:
    """(n, 3864) clean simulated stars at rest, in units of their curve; n a multiple of 250 x workers."""
    tasks = [(seed * 1000 + i, n // (2 * workers), reality) for i in range(2 * workers)]
    with ProcessPoolExecutor(workers) as pool:
        return np.concatenate(list(pool.map(_simulate, tasks)))


def as_mixture(fitted: FittedComponents, kind: str, unit_spread: float) -> Mixture:
    """A fit as a mixture, all components of one kind."""
    basis = torch.tensor(fitted.basis, dtype=torch.float32)
    mean = torch.tensor(fitted.centre, dtype=torch.float32) + torch.tensor(fitted.mean, dtype=torch.float32) @ basis
    factors = torch.tensor(fitted.factors, dtype=torch.float32) @ basis
    return Mixture(torch.tensor(np.log(fitted.weight), dtype=torch.float32), mean, factors,
                   torch.tensor(fitted.residual, dtype=torch.float32), [kind] * len(fitted.weight), unit_spread)


def _to_rest(values: Array, velocity: float) -> Array:
    """(3840,) moved by -velocity onto the wide grid (3864,), linearly; outside the grid the edge value."""
    at = np.arange(-MARGIN, N_PIXELS + MARGIN) + float(pixels_of(velocity))
    return np.interp(at, np.arange(N_PIXELS), values)


def residuals(mixture: Mixture, stars: Spectra) -> tuple[Array, Array]:
    """Real star less its best physics, at rest (n, 3864), and whether each pixel was measured.

    The physics is fitted with 3 % (blue of 4500 Angstrom) and 1.5 % of model error, so that its factors do not
    bend to swallow what
    they lack.
    """
    lack = np.where(WAVE < 4500, 0.03, 0.015) ** 2
    live = stars.measured
    ivar = np.where(live, 1.0 / (1.0 / np.where(live, stars.ivar, 1.0) + lack), 0.0)
    question = Observation.of(replace(stars, ivar=ivar))
    out, seen = [], []
    for b in range(len(stars)):
        posterior = mixture.posterior(question.star(b))
        mean, _ = posterior.moments()
        velocity, _ = posterior.velocity_moments()
        gap = np.where(live[b], stars.flux[b] - mean.numpy(), 0.0)
        out.append(_to_rest(gap, velocity))
        seen.append(_to_rest(live[b].astype(float), velocity) > 0.999)
    return np.array(out), np.array(seen)


def learn_reality(mixture: Mixture, libraries: list[Spectra], factors: int,
                  limit: float = 0.04) -> tuple[Reality, Array]:
    """Reality factors from training stars whose residual is below `limit` (beyond: no star of the synthetic domain).

    Returns:
        the factors, and which of the given stars (in order) were used.
    """
    return reality_of([residuals(mixture, stars) for stars in libraries], libraries, factors, limit)


def reality_of(parts: list[tuple[Array, Array]], libraries: list[Spectra], factors: int,
               limit: float = 0.04) -> tuple[Reality, Array]:
    """`learn_reality` where the `residuals` of each library are known."""
    gap, seen = (np.concatenate(x) for x in zip(*parts, strict=True))
    noise2 = np.concatenate([np.array([np.median(1 / s.ivar[b][s.measured[b]]) for b in range(len(s))])
                             for s in libraries])
    labels = [np.concatenate([s.meta[k].to_numpy(float) for s in libraries]) for k in ("teff", "logg", "feh")]
    rms = np.sqrt((gap**2 * seen).sum(axis=1) / np.maximum(seen.sum(axis=1), 1))
    use = rms < limit
    weight = np.where(seen, 1.0 / noise2[:, None], 0.0)
    gap, weight, features = gap[use], weight[use], label_features(*labels)[use]
    reality = fit_reality(gap, weight, features, factors)
    return replace(reality, spread=honest_spread(gap, weight, features, factors)), use


def honest_spread(gap: Array, weight: Array, features: Array, factors: int, folds: int = 3,
                  ridge: float = 3.0) -> Array:
    """(L,) deviation that mean and factors leave of stars they were *not* learned from, template noise taken off.

    In sample 40 factors leave .3 % where unseen stars keep .8 %: with that for a residual the prior is overconfident by
    as much, and its physical factors bend to carry what is missing.
    """
    live = weight > 0
    left = np.zeros(gap.shape)
    for fold in range(folds):
        out = np.arange(len(gap)) % folds == fold
        learned = fit_reality(gap[~out], weight[~out], features[~out], factors, ridge)
        design = np.where(np.asarray(np.isfinite(features).all(axis=1))[:, None], features, 0.0)
        design[:, 0] = 1.0
        rest = np.where(live, gap - design @ learned.mean, 0.0)
        for i in np.flatnonzero(out):
            precision = np.where(live[i], 1.0 / (0.01**2), 0.0)  # scores at the depth of a spectrum of S/N 100
            a = (learned.factors * precision) @ learned.factors.T + np.eye(factors)
            left[i] = rest[i] - np.linalg.solve(a, (learned.factors * precision) @ rest[i]) @ learned.factors
    count = np.maximum(live.sum(axis=0), 1)
    # a robust square, for a few stars of odd kinds would set it for all
    clipped = np.minimum(np.abs(left), 4 * np.median(np.abs(left)[live]))
    raw = np.where(live, clipped**2 - 1.0 / np.where(live, weight, 1.0), 0.0).sum(axis=0) / count
    few = live.sum(axis=0) < 20
    raw[few] = np.median(raw[~few])
    return np.sqrt(np.maximum(gaussian_filter1d(raw, 3), 0.002**2))


def complete(mixture: Mixture, stars: Spectra) -> tuple[Array, Array]:
    """Real stars at rest on the whole wide grid: measured, or the posterior mean and its variance."""
    question = Observation.of(stars)
    out, variance = [], []
    for b in range(len(stars)):
        posterior = mixture.posterior(question.star(b))
        mean, deviation = (x.numpy().astype(float) for x in posterior.moments())
        velocity, _ = posterior.velocity_moments()
        live = stars.measured[b]
        out.append(_to_rest(np.where(live, stars.flux[b], mean), velocity))
        variance.append(_to_rest(np.where(live, 0.0, deviation**2), velocity))
    return np.array(out), np.array(variance)


def join(physics: Mixture, real: list[tuple[float, Array, Array, Array]], share: float, unit_spread: float,
         taps: Tensor | None = None, scales: tuple[float, ...] = (1.0,)) -> Mixture:
    """Both kinds of component in one mixture; the real ones have the prior probability `share` together."""
    total = sum(w for w, *_ in real)
    width = max(physics.factors.shape[1], *(len(f) for _, _, f, _ in real))
    loadings = [*physics.factors, *(torch.tensor(f, dtype=torch.float32) for _, _, f, _ in real)]
    factors = torch.stack([torch.nn.functional.pad(f, (0, 0, 0, width - len(f))) for f in loadings])
    log_weight = torch.cat([physics.log_weight + np.log(1 - share),
                            torch.tensor([np.log(share * w / total) for w, *_ in real], dtype=torch.float32)])
    mean, residual = (torch.tensor(np.array([r[i] for r in real]), dtype=torch.float32) for i in (1, 3))
    return Mixture(log_weight, torch.cat([physics.mean, mean]), factors, torch.cat([physics.residual, residual]),
                   physics.kinds + ["real"] * len(real), unit_spread,
                   taps, scales)


@dataclass(frozen=True)
class Recipe:
    """Numbers of a build, chosen on training stars (docs/results.md).

    Args:
        stars: simulated for each fit; components: of physics; reality_factors: of reality; scales: factors on the
            residual variance, equally likely; share: prior probability of the real components together.
        seed: of everything; edges: effective temperatures [K] between the real components' cells.
    """

    stars: int = 20000
    components: int = 16
    reality_factors: int = 30
    scales: tuple[float, ...] = (0.3, 1.0, 4.0)
    share: float = 0.5
    seed: int = 7
    edges: tuple[float, ...] = (0, 4200, 5000, 6000, 8000, 1e6)


def physics_of(stars: Array, reality: Reality, recipe: Recipe) -> Mixture:
    """The physics half, fitted to stars (n, 3864) simulated with reality."""
    fitted = fit_components(stars, recipe.components, FACTORS, _BASIS, recipe.seed)
    fitted.residual += reality.spread**2
    return as_mixture(fitted, "physics", 0.0)


def synthetic_of(recipe: Recipe, unit_spread: float, workers: int = 2) -> Mixture:
    """A mixture fitted to simulated stars without reality."""
    stars = simulate(recipe.stars, recipe.seed, None, workers)
    return as_mixture(fit_components(stars, recipe.components, 60, 250, recipe.seed), "physics", unit_spread)


def build(libraries: list[Spectra], recipe: Recipe, say: Callable[[str], None]) -> tuple[Reality, Mixture, Tensor]:
    """The whole chain: physics -> reality -> physics with reality -> real components -> one mixture.

    Args:
        libraries: real *training* stars, none of them held out.
        say: hears of progress.

    Returns:
        reality, the mixture, and the simulated stars with reality (n, 3864) that a Gaussian prior may be fitted to.

    Raises:
        ValueError: a held-out star among the training ones.
    """
    if any(stars.meta["held_out"].any() for stars in libraries):
        raise ValueError("held-out stars were given to learn from; select those whose `held_out` is False.")
    physics = synthetic_of(recipe, 0.3)
    say("physics alone is fitted; measuring what real stars add")
    reality, used = learn_reality(physics, libraries, recipe.reality_factors)
    say(f"reality: {int(used.sum())} of {len(used)} stars, spread {np.median(reality.spread):.4f}")
    second = simulate(recipe.stars, recipe.seed + 1, reality)
    physics = physics_of(second, reality, recipe)
    say("physics with reality is fitted; completing real stars")
    parts = [complete(physics, stars) for stars in libraries]
    whole, variance = (np.concatenate(x) for x in zip(*parts, strict=True))
    teff = np.concatenate([stars.meta["teff"].to_numpy(float) for stars in libraries])
    # stars without a temperature are M, carbon or peculiar in these libraries: with the coolest
    real = real_components(whole, variance, recipe.edges, np.nan_to_num(teff, nan=3500.0))
    correlation = autocorrelation(left_out_residual(whole, 100), variance == 0)
    say("correlation of residuals: " + " ".join(f"{c:.2f}" for c in correlation))
    both = join(physics, real, recipe.share, 0.3, taps_of(correlation), recipe.scales)
    return reality, both, torch.from_numpy(second)


def moved(stars: Tensor, seed: int) -> Tensor:
    """Stars at rest (n, 3864) moved by velocities of the prior, (n, 3840), for a prior without velocity nodes."""
    rng = np.random.default_rng(seed)
    spread = np.where(rng.random(len(stars)) < 0.08, 180.0, 50.0)
    velocity = np.clip(spread * rng.standard_normal(len(stars)), -MAX_VELOCITY, MAX_VELOCITY)
    return torch.stack([shifted(star, float(pixels_of(v))) for star, v in zip(stars, velocity, strict=True)])


def save(mixture: Mixture, card: dict[str, object], path: Path = MODEL_FILE) -> None:
    """Write a mixture in one common basis, float16: under 12 MB."""
    rows = torch.cat([mixture.mean - mixture.mean.mean(0), mixture.factors.flatten(0, 1)])
    # a basis for all: the leading directions of means and factors together
    _, _, basis = torch.linalg.svd(rows.double(), full_matrices=False)
    basis = basis[:_BASIS].float()
    centre = mixture.mean.mean(0)
    factors = mixture.factors @ basis.T
    lost = ((mixture.factors - factors @ basis) ** 2).sum(1)  # what the basis cannot hold becomes residual variance
    arrays = {"centre": centre, "basis": basis.half(), "mean": (mixture.mean - centre) @ basis.T,
              "factors": factors.half(),
              "log_residual": torch.log(mixture.residual + lost).half(), "log_weight": mixture.log_weight,
              "taps": mixture.taps, "scales": torch.tensor(mixture.scales)}
    save_file({name: value.contiguous() for name, value in arrays.items()}, path)
    path.with_suffix(".json").write_text(json.dumps({"kinds": mixture.kinds, **card}, indent=1) + "\n")
    record(path, path.with_suffix(".json"))
