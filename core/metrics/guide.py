"""The way to one star's posterior from its data alone: quadratics fitted to exact spectra, cheap moves under them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from core.metrics.whiten import Whiten
from core.spectrum import Array

_WALL, _STEEP = 3.5, 30.0  # the quadratic speaks within so many deviations of what it was fitted to; a parabola beyond
_CLOUD = 64  # walkers that say where the next quadratic is fitted
_LATER = 0.6  # of the first number of fitting points in later rounds
_FEW = 40.0  # one in so many of the directions of the data is one in which the quadratic errs
_ENOUGH, _STILL = 1.06, 0.8  # temper, and shift of the walkers' mean in their deviations, at which the rounds end
_HOLDS = 1.2  # temper up to which points of the last round are kept for the next
_WIDER = 1.4  # half of the fitting points lie so much farther out than the walkers


@dataclass(frozen=True, eq=False)
class Question:
    """One star: y = spectra(state) + b factors + n, n ~ N(0, N), b ~ N(0, I), state ~ exp(log_prior).

    A state is (d + 1,): d numbers and, last, a whole number, the kind; moves change one or the other.

    Args:
        y: (L,) the data; its value in dead pixels means nothing.
        whiten: N^-1/2, from core.metrics.whiten.whitener.
        spectra: states (n, d + 1) -> clean spectra (n, L) in the unit of y.
        near: states (m, d + 1) -> a function from states (n, d + 1) to the (n, p) numbers in which the spectra about
            those states are smooth (clipping, hulls, kinks and quantile functions done), so that a quadratic is a good
            guess.
        factors: state (d + 1,) -> (k, L) linear nuisances with unit normal weights, part of the clean spectrum; their
            change with the state within the posterior is ignored.
        curved: which of the p enter squared and in pairs; the others are near enough linear.
        log_prior: states (n, d + 1) -> (n,), -inf allowed.
        centre, scale: (kinds, d) the prior's means and standard deviations; they guide, and bias nothing.
    """

    y: Array
    whiten: Whiten
    spectra: Callable[[Array], Array]
    near: Callable[[Array], Callable[[Array], Array]]
    curved: Array
    log_prior: Callable[[Array], Array]
    centre: Array
    scale: Array
    factors: Callable[[Array], Array | None] = lambda state: None


class Marginal:
    """N^-1/2 with the linear nuisances folded in: (I + G'G)^-1/2 N^-1/2, G = (N^-1/2 factors')', and their return.

    Args:
        y: (L,) data; whiten: N^-1/2; factors: (k, L) rows with unit normal weights, or None.
    """

    def __init__(self, y: Array, whiten: Whiten, factors: Array | None) -> None:
        self.y, self.whiten = y, whiten
        a = factors if factors is not None else np.zeros((1, len(y)))
        self.a, self.g, self.k = a, whiten(a), len(a)
        _, s, self.v = np.linalg.svd(self.g, full_matrices=False)
        self.shrink = 1.0 - 1.0 / np.sqrt(1.0 + s**2)
        self.precision = np.eye(len(a)) + self.g @ self.g.T
        self.log_det = float(np.log1p(s**2).sum())

    def half(self, rows: Array) -> Array:
        white = self.whiten(rows)
        return white - (white @ self.v.T * self.shrink) @ self.v

    def log_likelihood(self, spectra: Array) -> Array:
        """(n,) of models (n, L), b integrated out."""
        return -0.5 * (self.half(self.y - spectra) ** 2).sum(axis=1) - 0.5 * self.log_det

    def restore(self, spectra: Array, z: Array) -> tuple[Array, Array, Array]:
        """Models with the mean of their nuisances (n, L), with a draw of them (n, L), and their variance (L,)."""
        inverse = np.linalg.inv(self.precision)
        mean = self.whiten(self.y - spectra) @ self.g.T @ inverse
        root = np.linalg.cholesky(inverse)
        return (spectra + mean @ self.a, spectra + (mean + z @ root.T) @ self.a, ((root.T @ self.a) ** 2).sum(axis=0))


class Surrogate:
    """ln p(y | state) from a least-squares fit of whitened spectra by a quadratic: a microsecond in place of a second.

    Args:
        inputs: (n, p); white: (n, L) whitened spectra of the same states; target: (L,) whitened data.
        curved: as in `Question`.

    Raises:
        ValueError: fewer states than coefficients.
    """

    def __init__(self, inputs: Array, white: Array, target: Array, curved: Array) -> None:
        self.curved, self.centre = curved, inputs.mean(axis=0)
        self.spread = np.maximum(inputs.std(axis=0), 1e-9)
        self.i, self.j = np.triu_indices(len(curved))
        design = self._features(inputs)
        if len(design) < 1.2 * design.shape[1]:
            raise ValueError(f"{len(design)} states for {design.shape[1]} coefficients; give half as many again.")
        middle = white.mean(axis=0)
        normal = design.T @ design + 1e-6 * len(design) * np.eye(design.shape[1])
        solved = np.linalg.solve(normal, design.T @ (white - middle))
        rest = (white - middle - design @ solved) / np.sqrt(1.0 - design.shape[1] / len(design))
        #: how much the fit's own error adds to the noise, 1 = nothing, where it lies in the few directions that matter
        self.temper = 1.0 + _FEW * float((rest**2).mean())
        self.gram, self.pull = solved @ solved.T, solved @ (target - middle)
        self.rest = float(((target - middle) ** 2).sum())

    def _features(self, inputs: Array) -> Array:
        u = (inputs - self.centre) / self.spread
        c = u[:, self.curved]
        return np.concatenate([np.ones((len(u), 1)), u, c[:, self.i] * c[:, self.j]], axis=1)

    def __call__(self, inputs: Array) -> Array:
        """(n,) of inputs (n, p), tempered by the fit's own error, falling off where it was not fitted."""
        f = self._features(inputs)
        square = self.rest - 2 * f @ self.pull + ((f @ self.gram) * f).sum(axis=1)
        beyond = np.maximum(np.abs((inputs - self.centre) / self.spread)[:, self.curved] - _WALL, 0.0)
        return np.asarray(-0.5 * square / self.temper - _STEEP * (beyond**2).sum(axis=1))

    def curvature(self, slopes: Array) -> Array:
        """(d, d) Gauss-Newton, from slopes (d, f) of the features."""
        return np.asarray(slopes @ self.gram @ slopes.T / self.temper)


@dataclass
class Moves:
    """Reversible moves under a cheap density: Crank-Nicolson about a Gaussian (Cotter et al. 2013), all or few of its
    axes, and another kind; which one is drawn anew each time, so that any number of them is reversible too."""

    density: Callable[[Array], Array]
    centre: Array
    root: Array
    kinds: int

    def run(self, state: Array, steps: int, rng: np.random.Generator) -> tuple[Array, Array]:
        """States (n, d + 1) after so many moves, and their log density (n,)."""
        n, d = len(state), len(self.centre)
        state, value = state.copy(), self.density(state)
        z = np.linalg.solve(self.root, (state[:, :d] - self.centre).T).T
        for _ in range(steps):
            there, z_new = state.copy(), z
            if self.kinds > 1 and rng.random() < 0.1:
                there[:, d] = rng.integers(self.kinds, size=n)
                gain = np.zeros(n)
            else:
                length = np.exp(rng.uniform(np.log(0.1), np.log(0.95), (n, 1)))
                which = rng.random((n, d)) < (1.0 if rng.random() < 0.5 else 0.2)
                z_new = np.where(which, np.sqrt(1 - length**2) * z + length * rng.standard_normal((n, d)), z)
                there[:, :d] = self.centre + z_new @ self.root.T
                gain = 0.5 * (z_new**2 - z**2).sum(axis=1)
            value_new = self.density(there)
            with np.errstate(invalid="ignore"):
                take = np.log(rng.random(n)) < value_new - value + gain
            state = np.where(take[:, None], there, state)
            z, value = np.where(take[:, None], z_new, z), np.where(take, value_new, value)
        return state, value


class Guide:
    """Where the posterior lies, from the data alone: quadratics fitted to exact spectra where the last one pointed.

    Args:
        question: the star.
        states: (n, d + 1) points about a first guess, as wide as the guess may be wrong.
        rounds: fits, at most; it ends when the fit's error is small against the noise.
    """

    def __init__(self, question: Question, states: Array, rng: np.random.Generator, rounds: int = 9) -> None:
        self.question = question
        first, cloud, here = states, states[:1], np.full(len(question.curved), np.inf)
        seen: list[tuple[Array, Array]] = []
        self.misfits: list[float] = []
        for turn in range(rounds):
            if turn < 3:
                kind = np.bincount(cloud[:, -1].astype(int)).argmax()
                middle = cloud[cloud[:, -1] == kind][:, :-1].mean(axis=0)
                self.marginal = Marginal(question.y, question.whiten, question.factors(np.r_[middle, kind]))
                self.target = self.marginal.half(question.y[None])[0]
            seen.append((states, question.spectra(states)))
            points, spectra = (np.concatenate(x) for x in zip(*seen, strict=True))
            self.inputs = question.near(points)
            self.surrogate = Surrogate(self.inputs(points), self.marginal.half(spectra), self.target, question.curved)
            cloud = self._settle(states[0] if turn == 0 else cloud[0], None if turn == 0 else cloud, rng)
            self.misfits.append(float(self.surrogate.temper))
            there = self.inputs(cloud)[:, question.curved]
            moved = np.abs(there.mean(axis=0) - here) / np.maximum(there.std(axis=0), 1e-9)
            here = there.mean(axis=0)
            if turn >= 2 and self.surrogate.temper < _ENOUGH and moved.max() < _STILL:
                break
            # points of a wider round are kept only where the quadratic holds for them too
            seen = seen[-1:] if turn > 0 and self.surrogate.temper < _HOLDS else []
            n = int(_LATER * len(first)) if seen else len(first)
            # half from the walkers, which may have crowded together, half from their wider Gaussian, which has not
            pick = cloud[rng.permutation(np.resize(np.arange(len(cloud)), n))]
            z = rng.standard_normal((n, len(self.moves.centre)))
            jumps = np.where(np.arange(n)[:, None] % 2, pick[:, :-1] + 0.5 * z @ self.moves.root.T,
                             self.moves.centre + _WIDER * z @ self.moves.root.T)
            states = np.c_[jumps, pick[:, -1]]
        self.cloud = cloud

    def density(self, states: Array) -> Array:
        """(n,) ln of prior times the quadratic's likelihood."""
        return np.asarray(self.question.log_prior(states) + self.surrogate(self.inputs(states)))

    def exact(self, states: Array, spectra: Array) -> Array:
        """(n,) ln of prior times likelihood."""
        return np.asarray(self.question.log_prior(states) + self.marginal.log_likelihood(spectra))

    def _laplace(self, state: Array, steps: int = 8) -> tuple[Array, Array]:
        """Maximum (d,) and root (d, d) under the quadratic and a Gaussian prior: Levenberg-Marquardt on features."""
        q, theta, kind, damping = self.question, state[:-1].copy(), state[-1], 1e-3
        d, s, centre = len(theta), q.scale[int(kind)], q.centre[int(kind)]

        def value(t: Array) -> float:
            x = self.inputs(np.r_[t, kind][None])
            return float(self.surrogate(x)[0] - 0.5 * (((t - centre) / s) ** 2).sum())

        best = value(theta)
        bend = np.eye(d)
        for _ in range(steps):
            e = 0.02 * np.diag(s)
            points = np.concatenate([theta + e, theta - e, theta[None]])
            f = self.surrogate._features(self.inputs(np.c_[points, np.full(len(points), kind)]))
            slopes = (f[:d] - f[d : 2 * d]) / 0.04
            push = slopes @ (self.surrogate.pull - self.surrogate.gram @ f[-1]) / self.surrogate.temper
            push = push - (theta - centre) / s
            bend = self.surrogate.curvature(slopes) + np.eye(d)
            for _ in range(6):
                there = theta + s * np.linalg.solve(bend + damping * np.diag(np.diag(bend)), push)
                if value(there) > best:
                    theta, best, damping = there, value(there), damping / 5
                    break
                damping *= 5
        values, vectors = np.linalg.eigh(bend)
        return theta, s[:, None] * (vectors / np.sqrt(values))

    def _settle(self, state: Array, cloud: Array | None, rng: np.random.Generator) -> Array:
        """(_CLOUD, d + 1) walkers under the quadratic; sets the moves' Gaussian: Laplace's, then half their own."""
        d, kinds = len(state) - 1, len(self.question.scale)
        centre, root = self._laplace(state)
        laplace = root @ root.T
        if cloud is None:
            cloud = np.c_[centre + rng.standard_normal((_CLOUD, d)) @ root.T, np.full(_CLOUD, state[-1])]
        kept: list[Array] = []
        for _ in range(4):
            self.moves = Moves(self.density, centre, root, kinds)
            for _ in range(5):
                cloud, value = self.moves.run(cloud, 6, rng)
                # nothing here need be reversible: walkers left far below, as outside the domain, start from others
                good = np.flatnonzero(value > value.max() - 30.0 - d)
                cloud = np.where((value > value.max() - 30.0 - d)[:, None], cloud, cloud[rng.choice(good, len(cloud))])
                kept.append(cloud[:, :-1])
            last = np.concatenate(kept[-10:])
            # Laplace's share stays, and a fifth more: walkers that crowd together would else narrow their own moves
            wider = np.asarray(0.6 * np.cov(last.T) + 0.6 * laplace, dtype=np.float64)
            centre, root = last.mean(axis=0), np.asarray(np.linalg.cholesky(wider), dtype=np.float64)
        self.moves = Moves(self.density, centre, root, kinds)
        return cloud
