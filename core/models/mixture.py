"""Mixture of factor analysers with velocity nodes: a stellar prior whose posterior is known in closed form."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from core.data.grid import CURVE_BASIS, N_PIXELS
from core.data.instrument import MARGIN, MAX_VELOCITY
from core.models.observation import Observation, normals
from core.models.velocity_search import VelocitySearch, pixels_of, velocity_log_prior
from core.models.whitening import Whitener

MODEL_FILE = Path(__file__).resolve().parents[2] / "checkpoints" / "mixture.safetensors"
_NODES = (7, 15)  # velocity nodes of the exact posterior, at least and at most
_LEAST = 1e-4  # weight under which a (component, velocity) pair is left out of the moments


def shifted(rows: Tensor, shift: float) -> Tensor:
    """Rows (..., L + 2 margin) moved `shift` pixels to the red and cut to (..., L), by ten-point Lagrange
    interpolation.

    At LAMOST's 2.4 pixels per FWHM its error is below 1 % of the depth of an unresolved line.
    """
    whole = int(np.floor(-shift))
    t = -shift - whole
    taps = range(-4, 6)
    out = torch.zeros(*rows.shape[:-1], N_PIXELS)
    for k in taps:
        weight = float(np.prod([(t - m) / (k - m) for m in taps if m != k]))
        out.add_(rows[..., MARGIN + whole + k : MARGIN + whole + k + N_PIXELS], alpha=weight)
    return out


@dataclass
class StarPosterior:
    """Posterior of one star: weighted pairs (component, velocity), a Gaussian of the factors within each.

    Args:
        component: P components; velocity: (P,) [km/s]; log_weight: (P,) normalised log probability.
        mean: (P, L) prior means, shifted; factors: P of (k, L), shifted; noise: P whiteners with their
        residual variance.
        centre: P of (k,) posterior mean of the factors; cholesky: P of (k, k), of their posterior precision.
        log_evidence: log p(y) under the whole prior, without the constant -n/2 log 2 pi.
    """

    component: list[int]
    velocity: Tensor
    log_weight: Tensor
    y: Tensor
    mean: list[Tensor]
    factors: list[Tensor]
    noise: list[Whitener]
    centre: list[Tensor]
    cholesky: list[Tensor]
    log_evidence: float

    def velocity_moments(self) -> tuple[float, float]:
        """Posterior mean and standard deviation of the velocity [km/s]."""
        weight = self.log_weight.exp().double()
        mean = float((weight * self.velocity).sum())
        return mean, float((weight * (self.velocity - mean) ** 2).sum().sqrt())

    def moments(self) -> tuple[Tensor, Tensor]:
        """Posterior mean and standard deviation of the clean spectrum, each (L,)."""
        weight = self.log_weight.exp()
        use = torch.nonzero(weight > _LEAST).flatten().tolist()
        first, second, total = torch.zeros_like(self.y), torch.zeros_like(self.y), float(weight[use].sum())
        for p in use:
            r = self.noise[p].residual
            smooth = self.mean[p] + self.centre[p] @ self.factors[p]
            mean = smooth + r * self.noise[p].solve(self.y - smooth)
            half = torch.linalg.solve_triangular(self.cholesky[p], self.factors[p], upper=False)
            open_ = 1 - r * self.noise[p].diagonal()  # the share of the residual variance that the data do not settle
            variance = open_**2 * (half**2).sum(0) + r * open_
            share = float(weight[p]) / total
            first += share * mean
            second += share * (variance + (mean - 1) ** 2)  # about 1, the curve, so that nothing is lost to rounding
        return first, (second - (first - 1) ** 2).clamp_min(1e-14).sqrt()

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """n clean spectra (n, L): a pair by its weight, then the factors, then the residual (Matheron's rule)."""
        pixels = self.y.shape[0]
        u, z, e, white = normals(generator, n, 1, self.centre[0].shape[0], pixels, pixels + 2)
        steps = self.log_weight.double().exp().cumsum(0)
        pick = torch.searchsorted(steps / steps[-1], torch.special.ndtr(u[:, 0].double())).clamp_max(len(steps) - 1)
        out = torch.empty(n, pixels)
        for p in set(pick.tolist()):
            rows = pick == p
            c = self.centre[p] + torch.linalg.solve_triangular(self.cholesky[p].T, z[rows].T, upper=True).T
            smooth = self.mean[p] + c @ self.factors[p]
            out[rows] = self.noise[p].complete(self.y, smooth, e[rows], white[rows])
        return out


class Mixture:
    """x = mean_j + t F_j + e, shifted by v: t ~ N(0, I), e ~ N(0, r_j), j and v from their priors (Ghahramani &
    Hinton 1996).

    On disk all components share one basis; in memory the factors are spelled out. With noise covariance N and
    D = N + diag(r): t | y, j, v ~ N(A^-1 h, A^-1), A = I + F D^-1 F', h = F D^-1 (y - mean), and
    log p(y | j, v) = -1/2 (log|D| + log|A| + (y - mean)' D^-1 (y - mean) - h' A^-1 h) up to a constant.

    Args:
        log_weight: (J,) log prior probability of the components.
        mean: (J, L + 2 margin); factors: (J, k, L + 2 margin); residual: (J, L + 2 margin) variance; all at rest.
        kinds: J names, "physics" or "real".
        unit_spread: prior deviation of each of 12 smooth factors (the splines of the continuum curve). Spectra come in
            units of a curve drawn through the *noisy* star, so their smooth part carries that curve's error, whose size
            depends on the noise; a spread much larger than it leaves the smooth part to the data. 0 where
            the unit is known.

    Raises:
        ValueError: arrays on another grid.
    """

    def __init__(self, log_weight: Tensor, mean: Tensor, factors: Tensor, residual: Tensor, kinds: list[str],
                 unit_spread: float = 0.3) -> None:
        width = N_PIXELS + 2 * MARGIN
        if {mean.shape[-1], factors.shape[-1], residual.shape[-1]} != {width}:
            raise ValueError(f"a mixture on {mean.shape[-1]} pixels does not fit the grid's {width}; fit it again.")
        self.log_weight, self.mean, self.factors, self.residual = log_weight, mean, factors, residual
        self.kinds = kinds
        self.unit = unit_spread * torch.as_tensor(CURVE_BASIS.T, dtype=torch.float32)
        self.search = VelocitySearch(log_weight, mean, factors, residual)
        # the broadest real component is always computed: a coarse look with few factors misjudges the oddest stars
        self.always = [kinds.index("real")] if "real" in kinds else []

    @classmethod
    def load(cls, path: Path = MODEL_FILE, unit_spread: float = 0.3) -> Mixture:
        """The committed mixture.

        Raises:
            ValueError: the file is missing or holds no mixture.
        """
        try:
            a = {name: value.float() for name, value in load_file(path).items()}
            kinds = json.loads(path.with_suffix(".json").read_text())["kinds"]
            mean = a["centre"] + a["mean"] @ a["basis"]
            return cls(a["log_weight"], mean, a["factors"] @ a["basis"], a["log_residual"].exp(), kinds, unit_spread)
        except (OSError, KeyError, ValueError, SafetensorError) as error:
            raise ValueError(f"{path} holds no mixture ({error}); run `python -m scripts.prepare prior`.") from error

    def posterior(self, observation: Observation) -> StarPosterior:
        """Posterior of an observation of one star.

        A coarse search finds the few components and velocities that matter; over them the posterior is exact. Nodes lie
        about one posterior deviation apart, where a sum over nodes equals the integral to 1e-8 (trapezoidal rule on a
        Gaussian).

        Raises:
            ValueError: more than one star, or another grid.
        """
        if observation.y.shape != (1, N_PIXELS):
            raise ValueError(f"observation of shape {tuple(observation.y.shape)}; give one star: (1, {N_PIXELS}).")
        keep, likely = self.search.candidates(observation)
        keep += [j for j in self.always if j not in keep]
        middle = float(likely[len(likely) // 2])
        step = 4.0
        for _ in range(3):  # three nodes about the peak of the best component give its place and width
            three = torch.tensor([self._pair(observation, keep[0], middle + d * step)[0] for d in (-1, 0, 1)])
            bend = float(three[0] - 2 * three[1] + three[2])
            if bend >= -1e-3:  # flat here: the width is that of the search
                break
            move = 0.5 * step * float(three[0] - three[2]) / bend
            middle = float(np.clip(middle + move, -MAX_VELOCITY + 5, MAX_VELOCITY - 5))
            if abs(move) < step:
                break
        spread = step / np.sqrt(-bend) if bend < -1e-3 else 50.0
        low = max(min(float(likely[0]), middle - 3 * spread), middle - 5 * spread, -MAX_VELOCITY)
        high = min(max(float(likely[-1]), middle + 3 * spread), middle + 5 * spread, MAX_VELOCITY)
        nodes = np.linspace(low, high, int(np.clip(np.ceil((high - low) / spread) + 1, *_NODES)))
        return self._over(observation, [(j, float(v)) for j in keep for v in nodes])

    def _pair(self, observation: Observation, j: int, v: float) -> tuple[Tensor, tuple[Tensor, ...], Whitener]:
        """Log p(y, j, v), (mean, factors, centre, cholesky) and the noise, of one component at one velocity."""
        shift = float(pixels_of(v))
        mean = shifted(self.mean[j], shift)
        factors = torch.cat([shifted(self.factors[j], shift), mean * self.unit])  # a factor exp(unit) to first order
        noise = Whitener(observation, shifted(self.residual[j], float(round(shift))))
        rows = noise.half(torch.cat([(observation.y[0].float() - mean)[None], factors]))
        z, g = rows[0].double(), rows[1:]
        chol = torch.linalg.cholesky((g @ g.T).double() + torch.eye(len(factors), dtype=torch.float64))
        u = torch.linalg.solve_triangular(chol, (g @ rows[0]).double()[:, None], upper=False)
        log_det = noise.log_det + 2 * float(chol.diagonal().log().sum())
        evidence = -0.5 * (log_det + (z**2).sum() - (u**2).sum())
        centre = torch.linalg.solve_triangular(chol.T, u, upper=True)[:, 0].float()
        prior = self.log_weight[j].double() + velocity_log_prior(torch.tensor(v, dtype=torch.float64))
        return prior + evidence, (mean, factors, centre, chol.float()), noise

    def _over(self, observation: Observation, pairs: list[tuple[int, float]]) -> StarPosterior:
        """The posterior over evenly spaced velocities of some components."""
        parts = [self._pair(observation, j, v) for j, v in pairs]
        weights = torch.stack([p[0] for p in parts])
        total = torch.logsumexp(weights, 0)
        mean, factors, centre, cholesky = (list(x) for x in zip(*(p[1] for p in parts), strict=True))
        return StarPosterior([j for j, _ in pairs], torch.tensor([v for _, v in pairs]), (weights - total).float(),
                             observation.y[0].float(), mean, factors, [p[2] for p in parts], centre, cholesky,
                             float(total))
