"""Mixture of factor analysers with velocity nodes: a stellar prior whose posterior is known in closed form."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from core import progress
from core.data.grid import CURVE_BASIS, N_PIXELS, check_grid
from core.data.hashes import verified
from core.data.instrument import MARGIN, MAX_VELOCITY
from core.models.observation import Observation
from core.models.star_posterior import Pair, StarPosterior
from core.models.velocity_search import VelocitySearch, pixels_of, velocity_log_prior
from core.models.whitening import Whitener, coloured

MODEL_FILE = Path(__file__).resolve().parents[2] / "checkpoints" / "mixture.safetensors"
_FAINT = 7.0  # log weight below the best at which a pair is no longer computed: 1e-3 of it
_STEP = 1.3  # posterior deviations between velocity nodes: a trapezoidal sum over a Gaussian is then right to 1e-5
_CACHED = 64  # rows moved at once
_REACH = 5.0  # posterior deviations on either side of the middle, at most


def shifted_columns(columns: Tensor, shift: float) -> Tensor:
    """Columns (L + 2 margin, ...) moved `shift` pixels to the red and cut to (L, ...), by ten-point Lagrange
    interpolation.

    At LAMOST's 2.4 pixels per FWHM its error is below 1 % of the depth of an unresolved line.
    """
    first, weights = _taps(shift)
    out = torch.zeros(N_PIXELS, *columns.shape[1:], device=columns.device)
    for k, weight in enumerate(weights, first):
        out.add_(columns[k : k + N_PIXELS], alpha=weight)
    return out


def shifted(rows: Tensor, shift: float) -> Tensor:
    """`shifted_columns` of rows (..., L + 2 margin): (..., L); the same numbers, ten times as fast for many rows."""
    first, weights = _taps(shift)
    flat = rows.reshape(-1, rows.shape[-1])
    out = torch.zeros(len(flat), N_PIXELS, device=rows.device)
    # as much at once as a core's cache holds
    for part, into in zip(torch.split(flat, _CACHED), torch.split(out, _CACHED), strict=True):
        for k, weight in enumerate(weights, first):
            into.add_(part[:, k : k + N_PIXELS], alpha=weight)
    return out.view(*rows.shape[:-1], N_PIXELS)


def _taps(shift: float) -> tuple[int, list[float]]:
    """Where the first of Lagrange's ten points lies for pixel 0, and their weights."""
    whole = int(np.floor(-shift))
    t = -shift - whole
    taps = range(-4, 6)
    return MARGIN + whole - 4, [float(np.prod([(t - m) / (k - m) for m in taps if m != k])) for k in taps]


class Mixture:
    """x = mean_j + t F_j + e, shifted by v: t ~ N(0, I), e ~ N(0, s R_j), j, s and v from their priors (Ghahramani &
    Hinton 1996).

    On disk all components share one basis; in memory the factors are spelled out. With noise covariance N and
    D = N + R: t | y, j, v ~ N(A^-1 h, A^-1), A = I + F' D^-1 F, h = F' D^-1 (y - mean), and
    log p(y | j, v) = -1/2 (log|D| + log|A| + (y - mean)' D^-1 (y - mean) - h' A^-1 h) up to a constant.

    What the factors lack of a new star is as wide as its lines, not independent from pixel to pixel: R has a
    correlation (`taps`). With a diagonal R half of the equivalent widths fell outside their
    intervals (docs/results.md).

    Args:
        log_weight: (J,) log prior probability of the components.
        mean: (J, L + 2 margin); factors: (J, k, L + 2 margin), trailing rows of zeros are skipped; residual:
            (J, L + 2 margin) variance; all at rest.
        kinds: J names, "physics" or "real".
        unit_spread: prior deviation of each of 12 smooth factors (the splines of the continuum curve). Spectra come in
            units of a curve drawn through the *noisy* star, so their smooth part carries that curve's error, whose size
            depends on the noise; a spread much larger than it leaves the smooth part to the data. 0 where
            the unit is known.
        taps: (T,) moving average that makes the residual from white noise (see Whitener).
        scales: factors on the residual variance, equally likely: some stars are as usual, some are not.

    Raises:
        ValueError: arrays on another grid.
    """

    def __init__(self, log_weight: Tensor, mean: Tensor, factors: Tensor, residual: Tensor, kinds: list[str],
                 unit_spread: float = 0.3, taps: Tensor | None = None, scales: tuple[float, ...] = (1.0,)) -> None:
        width = N_PIXELS + 2 * MARGIN
        if {mean.shape[-1], factors.shape[-1], residual.shape[-1]} != {width}:
            raise ValueError(f"a mixture on {mean.shape[-1]} pixels does not fit the grid's {width}; fit it again.")
        self.log_weight, self.mean, self.factors, self.residual = log_weight, mean, factors, residual
        self.kinds, self.unit_spread = kinds, unit_spread
        self.taps = torch.ones(1) if taps is None else taps
        self.scales, self.usual = scales, len(scales) // 2
        self.unit = unit_spread * torch.as_tensor(CURVE_BASIS, dtype=torch.float32)
        self.used = [int((f.abs().amax(1) > 0).sum()) for f in factors]
        self._columns = [torch.cat([m[None], f[:k]]).T.contiguous()
                         for m, f, k in zip(mean, factors, self.used, strict=True)]
        self.search = VelocitySearch(log_weight, mean, factors, residual)
        # the broadest real component is always looked at: a coarse look with few factors misjudges the oddest stars
        self.always = [kinds.index("real")] if "real" in kinds else []

    @classmethod
    def load(cls, path: Path = MODEL_FILE, unit_spread: float = 0.3) -> Mixture:
        """The committed mixture.

        Raises:
            ValueError: the file is missing, changed or holds no mixture.
        """
        for file in (path, path.with_suffix(".json")):
            verified(file)
        try:
            a = {name: value.float() for name, value in load_file(path).items()}
            kinds = json.loads(path.with_suffix(".json").read_text())["kinds"]
            mean = a["centre"] + a["mean"] @ a["basis"]
            return cls(a["log_weight"], mean, a["factors"] @ a["basis"], a["log_residual"].exp(), kinds, unit_spread,
                       a["taps"], tuple(a["scales"].tolist()))
        except (OSError, KeyError, ValueError, SafetensorError) as error:
            raise ValueError(f"{path} holds no mixture ({error}); run `python -m scripts.prepare prior`.") from error

    def posterior(self, observation: Observation) -> StarPosterior:
        """Posterior of an observation of one star.

        A coarse search finds the few components and velocities that matter; over them the posterior is exact, but for
        pairs of less than 1e-3 of the best one's weight.

        Raises:
            ValueError: more than one star, or another grid.
        """
        check_grid(observation.wave.cpu())
        if observation.y.shape != (1, N_PIXELS):
            raise ValueError(f"observation of shape {tuple(observation.y.shape)}; give one star: (1, {N_PIXELS}).")
        keep, likely = self.search.candidates(observation)
        keep += [j for j in self.always if j not in keep]
        work = _Work(self, observation)
        nodes, middle = work.nodes((keep[0], self.usual), likely)
        at = nodes[middle : middle + 1]
        usual = {j: work.pairs((j, self.usual), at)[0].log_weight for j in keep}
        # another scale of the residual may lift a component: it gets a little more room before it is left out
        near = [j for j in keep if usual[j] > max(usual.values()) - 2 * _FAINT]
        peak = {(j, s): work.pairs((j, s), at)[0].log_weight for j in near for s in range(len(self.scales))}
        for which, weight in peak.items():
            progress.tick(0)
            if weight > max(peak.values()) - _FAINT:
                work.pairs(which, nodes)
        best = max(peak.values())
        pairs = [p for p in work.done.values() if p.velocity in nodes and p.log_weight > best - _FAINT]
        return StarPosterior(work.y, pairs, self.taps)

    def prior_draw(self, rng: np.random.Generator) -> tuple[Tensor, float]:
        """A clean star (L,) of the prior itself, without the smooth factors of the unit, and its velocity [km/s]."""
        share = self.log_weight.double().exp().numpy()
        j = int(rng.choice(len(share), p=share / share.sum()))
        scale = self.scales[int(rng.integers(len(self.scales)))]
        v = float(np.clip(rng.choice([50.0, 180.0], p=[0.92, 0.08]) * rng.standard_normal(), -480, 480))
        shift = float(pixels_of(v))
        t, e = (torch.tensor(rng.standard_normal(n), dtype=torch.float32)
                for n in (self.factors.shape[1], N_PIXELS + len(self.taps) - 1))
        rest = self.residual[j, MARGIN - round(shift) : MARGIN - round(shift) + N_PIXELS]
        smooth = shifted(self.mean[j] + t @ self.factors[j], shift)
        return smooth + coloured(e[None], self.taps)[0] * (scale * rest).sqrt(), v

    def over(self, observation: Observation, components: list[int], velocity: list[float]) -> StarPosterior:
        """The posterior over given components and evenly spaced velocities [km/s], nothing searched for."""
        work = _Work(self, observation)
        every = [(j, s) for j in components for s in range(len(self.scales))]
        return StarPosterior(work.y, [p for which in every for p in work.pairs(which, velocity)], self.taps)


class _Work:
    """The pairs computed so far for one star: whiteners are shared by nodes less than half a pixel apart."""

    def __init__(self, mixture: Mixture, observation: Observation) -> None:
        self.mixture, self.observation = mixture, observation
        self.y = observation.y[0].float()
        self.done: dict[tuple[int, int, float], Pair] = {}
        self._noise: dict[tuple[int, int, int], Whitener] = {}

    def pairs(self, which: tuple[int, int], velocity: list[float]) -> list[Pair]:
        """A component and scale at some velocities [km/s]; the residual moves by whole pixels, the templates by all."""
        shift = {v: float(pixels_of(v)) for v in velocity}
        for whole in sorted({round(s) for s in shift.values()}):
            new = [v for v in velocity if round(shift[v]) == whole and (*which, v) not in self.done]
            if new:
                self._solve(*which, whole, {v: shift[v] for v in new})
        return [self.done[(*which, v)] for v in velocity]

    def _solve(self, j: int, scale: int, whole: int, shift: dict[float, float]) -> None:
        mixture = self.mixture
        if (j, scale, whole) not in self._noise:
            residual = mixture.scales[scale] * mixture.residual[j, MARGIN - whole : MARGIN - whole + N_PIXELS]
            self._noise[j, scale, whole] = Whitener(self.observation, residual, mixture.taps)
        noise = self._noise[j, scale, whole]
        own, unit, nuisance = mixture._columns[j], mixture.unit, self.observation.nuisance
        k = own.shape[1] + (unit.shape[1] if mixture.unit_spread > 0 else 0)
        signal = k - 1
        k += len(nuisance)
        columns = torch.empty(N_PIXELS, len(shift), k)
        for n, s in enumerate(shift.values()):
            moved = shifted_columns(own, s)
            columns[:, n, : own.shape[1]] = moved
            if mixture.unit_spread > 0:  # a factor exp(unit) to first order
                columns[:, n, own.shape[1] : signal + 1] = moved[:, :1] * unit
            columns[:, n, signal + 1 :] = nuisance.T
        mean = columns[:, :, 0].clone()
        columns[:, :, 0] = self.y[:, None] - mean
        white = noise.half(columns.flatten(1)).view(-1, len(shift), k)
        for n, v in enumerate(shift):
            z, g = white[:, n, 0], white[:, n, 1:]
            chol = torch.linalg.cholesky((g.T @ g).double() + torch.eye(k - 1, dtype=torch.float64))
            u = torch.linalg.solve_triangular(chol, (g.T @ z).double()[:, None], upper=False)
            log_det = noise.log_det + 2 * float(chol.diagonal().log().sum())
            distance = float((z.double() ** 2).sum() - (u**2).sum())
            evidence = -0.5 * (log_det + distance)
            prior = float(mixture.log_weight[j] + velocity_log_prior(torch.tensor(v, dtype=torch.float64)))
            prior -= float(np.log(len(mixture.scales)))
            centre = torch.linalg.solve_triangular(chol.T, u, upper=True)[:, 0].float()
            self.done[j, scale, v] = Pair(j, scale, v, prior + evidence, distance, mean[:, n], columns[:, n, 1:],
                                          signal, noise, centre, chol.float())

    def nodes(self, which: tuple[int, int], likely: Tensor) -> tuple[list[float], int]:
        """Evenly spaced velocities [km/s] that hold the posterior, and the place of the middle one among them.

        Three nodes of one component, placed by the search, give the peak and its width; they are kept when their
        spacing turns out right.
        """
        middle = float(likely[len(likely) // 2])
        step = float(np.clip((likely[-1] - likely[0]) / 6, 3.0, 40.0))
        for _ in range(8):
            middle = float(np.clip(middle, -MAX_VELOCITY + step, MAX_VELOCITY - step))
            three = [p.log_weight for p in self.pairs(which, [middle - step, middle, middle + step])]
            bend = three[0] - 2 * three[1] + three[2]
            if bend >= -1e-3:  # flat here: the width is that of the search
                spread, off = max(step, 10.0), 0.0
                break
            spread, off = step / np.sqrt(-bend), 0.5 * step * (three[0] - three[2]) / bend
            if abs(off) < step and 0.8 < step / spread < 1.8:
                break
            middle += float(np.clip(off, -10 * step, 10 * step))
            step = _STEP * spread
        low = max(min(float(likely[0]), middle + off - 3 * spread), middle - _REACH * spread, -MAX_VELOCITY)
        high = min(max(float(likely[-1]), middle + off + 3 * spread), middle + _REACH * spread, MAX_VELOCITY)
        left, right = int(max(middle - low, 0) / step), int(max(high - middle, 0) / step)
        return [middle + i * step for i in range(-left, right + 1)], left
