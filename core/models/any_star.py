"""A simulated star of unknown kind as a question for the floor, in the units that methods are given it in."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from core.data.grid import CURVE_BASIS, N_PIXELS, WAVE, continuum_curve
from core.data.instrument import MARGIN
from core.data.population import DOMAIN, LABEL_NAMES
from core.data.simulator import Simulator
from core.metrics.guide import Question
from core.metrics.whiten import Whiten, whitener
from core.models.star_model import KIND_SHARE, RV, StarModel
from core.spectrum import Array, Spectra

_INSIDE = slice(MARGIN, -MARGIN)
_NOISES = 100  # draws of the noise, for the covariance of what it makes of the curve


def smooth_rows(clean: Array, ivar: Array, spectra: Spectra, whiten: Whiten, rng: np.random.Generator) -> Array:
    """(12, 3840) linear nuisances, weights unit normal: what noise made of the curve that the data were divided by.

    The curve follows the noise, so that where it is well measured the data are left with nothing to say about a smooth
    factor but the noise itself: there the splines are free. In gaps and where noise is large the curve's own penalty
    holds it, its error is less than the data's, and that is the factor's prior. In the basis where the data's precision
    is 1 and the curve's variance tau, the precision is 1 / tau - 1, at least a hundredth.

    Args:
        clean: (3840,) flux near the truth, ivar: (3840,) in the same unit; spectra: the star; whiten: its N^-1/2.
    """
    level = continuum_curve(clean[None], ivar[None])
    sigma = np.where(ivar > 0, 1.0 / np.sqrt(np.where(ivar > 0, ivar, 1.0)), 0.0)
    white = spectra.noise.colour(WAVE, rng.standard_normal((_NOISES, N_PIXELS + 2)))
    noise = spectra.noise.scales(WAVE) * sigma * white
    moved = np.log(continuum_curve(clean + noise, np.repeat(ivar[None], _NOISES, 0)) / level)
    error = np.cov(np.linalg.lstsq(CURVE_BASIS, moved.T, rcond=None)[0])
    rows = CURVE_BASIS.T * (clean / level[0])
    white_rows = whiten(rows)
    root = np.linalg.cholesky(white_rows @ white_rows.T + 1e-2 * np.eye(len(rows)))
    tau, axes = np.linalg.eigh(root.T @ error @ root)
    spread = 1.0 / np.sqrt(np.maximum(1.0 / np.maximum(tau, 1e-6) - 1.0, 1e-2))
    return np.asarray((np.linalg.solve(root.T, axes) * spread).T @ rows)


class AnyKind:
    """The three kinds as one model: states (n, 42) are parameters (41) and the kind, weighted as they are drawn.

    Args:
        simulator: as `StarModel`'s.
    """

    def __init__(self, simulator: Simulator) -> None:
        self.models = [StarModel(simulator, kind) for kind in sorted(DOMAIN)]
        self._log_share = np.log(KIND_SHARE)

    def _each(self, states: Array, of: Callable[[StarModel, Array], Array], width: int) -> Array:
        out = np.empty((len(states), width))
        for model in self.models:
            rows = states[:, -1] == model.kind
            if rows.any():
                out[rows] = of(model, states[rows, :-1]).reshape(-1, width)
        return out

    def labels(self, states: Array) -> Array:
        """(n, 28) labels inside the domain."""
        return self._each(states, lambda model, theta: model.labels(theta), len(LABEL_NAMES))

    def log_prior(self, states: Array) -> Array:
        """(n,)"""
        return self._each(states, lambda m, theta: m.log_prior(theta) + self._log_share[m.kind], 1)[:, 0]

    def near(self, states: Array) -> Callable[[Array], Array]:
        """What the spectrum is smooth in, (n, 42) of states (n, 42): labels, velocity, squares of widths, E(B - V),
        calibration, and last the logarithm of the level's median over pixels, by which the simulator divides.

        A median has kinks where its pixel changes, so its pixels are predicted, by a quadratic in the labels fitted
        about the given states, and the median is taken of the prediction.
        """
        known = self.labels(states)[:, 1:]
        level = np.log(self.models[0].simulator.templates(self.labels(states))[1])
        middle, spread = known.mean(axis=0), np.maximum(known.std(axis=0), 1e-9)
        i, j = np.triu_indices(7)

        def features(labels: Array) -> Array:
            u = (labels - middle) / spread
            return np.concatenate([np.ones((len(u), 1)), u, u[:, i] * u[:, j]], axis=1)

        design = features(known)
        normal = design.T @ design + 1e-7 * len(design) * np.eye(design.shape[1])
        fit = np.linalg.solve(normal, design.T @ level)
        gap = level - np.median(level, axis=1, keepdims=True)
        margin = 0.3 * np.ptp(gap, axis=0) + 1e-3
        above, below = (gap - margin > 0).all(axis=0), (gap + margin < 0).all(axis=0)
        fit, skip = fit[:, ~above & ~below], level.shape[1] // 2 - 1 - int(below.sum())  # even: the mean of two

        def inputs(states: Array) -> Array:
            labels = self.labels(states)
            blue, red, vsini, dust = self.models[0].nuisances(states[:, :-1], labels)
            widths = [(1800 / blue) ** 2, (1800 / red) ** 2, (vsini / 75) ** 2 / np.sqrt(1 + (vsini / 75) ** 2)]
            two = np.partition(features(labels[:, 1:]) @ fit, (skip, skip + 1), axis=1)[:, skip : skip + 2]
            return np.column_stack([labels[:, 1:], states[:, RV], *widths, dust, states[:, RV + 5 : -1],
                                    two.mean(axis=1)])

        return inputs

    def question(self, spectra: Spectra, rng: np.random.Generator, understated: float = 1.0,
                 colours: bool = False) -> Question:
        """One star for `core.metrics.guide`, in units of its curve.

        No method is told the curve by which its data were divided: colours and level are not in the data, and a star
        of known colours would have a far lower floor. So the model is divided by its own curve (with the star's
        weights and gaps), and what the noise made of the other is a linear nuisance (`smooth_rows`). Sigma is taken as
        known, as every method takes it.

        Args:
            spectra: one star, made by this simulator.
            understated: sigma is divided by it: a control, whose intervals must be found too narrow.
            colours: True tells the curve, and with it colours and level: more than any method has, so its floor is a
                lower bound of theirs.

        Raises:
            ValueError: more than one star, or another grid.
        """
        if spectra.flux.shape != (1, N_PIXELS) or not np.array_equal(spectra.wave, WAVE):
            raise ValueError(f"spectra of shape {spectra.flux.shape}; give one star on the grid: (1, {N_PIXELS}).")
        ivar = spectra.ivar[0] / spectra.continuum[0] ** 2
        whiten = whitener(spectra.sigma[0] / understated, WAVE, spectra.noise)
        draws = np.stack([m.prior_draws(200, rng) for m in self.models])
        seed = int(rng.integers(2**31))

        def divided(flux: Array) -> Array:
            known = spectra.continuum if colours else continuum_curve(flux, np.broadcast_to(ivar, flux.shape))
            return np.asarray(flux / known)

        def physical(states: Array) -> Array:
            return self._each(states, lambda m, theta: m.physical(theta)[:, _INSIDE], N_PIXELS)

        def factors(state: Array) -> Array | None:
            clean = physical(state[None])
            reality = self.models[int(state[-1])].factors(state[:-1])
            if colours:
                return None if reality is None else reality / spectra.continuum
            free = smooth_rows(clean[0], ivar, spectra, whiten, np.random.default_rng(seed))
            # a factor moves the curve as well, and the curve takes its smooth part out again
            return free if reality is None else np.concatenate([divided(clean + reality) - divided(clean), free])

        return Question(spectra.flux[0], whiten, lambda states: divided(physical(states)), self.near,
                        np.r_[:8, RV : RV + 7], self.log_prior, draws.mean(axis=1), draws.std(axis=1), factors)
