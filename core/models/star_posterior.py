"""The mixture's posterior of one star: weighted Gaussians, their moments and exact draws."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from math import log

import torch
from torch import Tensor

from core.models.observation import normals
from core.models.whitening import Whitener

_LEAST = 1e-3  # weight under which a (component, velocity) pair is left out of the moments


@dataclass
class Pair:
    """One component at one velocity and scale, and the Gaussian posterior of its factors.

    Args:
        distance: squared Mahalanobis distance of the observation from the pair's prediction: chi-square of as many
            degrees of freedom as pixels were measured, where the prior and the noise are right.
        component: its number; scale: number of its residual's scale; velocity: [km/s]; log_weight: log p(y, these
            three).
        mean: (L,) prior mean; factors: (L, k), the first `signal` of them of the star, the others of the observation's
            nuisances; noise: the whitener, with the residual.
        centre: (k,) posterior mean of the factors; cholesky: (k, k) factor of their posterior precision.
    """

    component: int
    scale: int
    velocity: float
    log_weight: float
    distance: float
    mean: Tensor
    factors: Tensor
    signal: int
    noise: Whitener
    centre: Tensor
    cholesky: Tensor

    def smooth(self, scores: Tensor) -> tuple[Tensor, Tensor]:
        """Of scores (k, n): the star without its residual and the nuisances, each (L, n)."""
        star, rest = scores[: self.signal], scores[self.signal :]
        return self.mean[:, None] + self.factors[:, : self.signal] @ star, self.factors[:, self.signal :] @ rest


@dataclass
class Part:
    """Pairs of one component, scale and whole-pixel shift.

    Args:
        best: the heaviest of them; mean: (L, P) posterior mean of the clean spectrum under each; share: (P,) their
            weights among all parts; within: (L,) posterior variance under each.
    """

    best: Pair
    mean: Tensor
    share: Tensor
    within: Tensor


def pooled(parts: list[Part], within: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and variance, each (L,), of parts that have the variances `within`: the law of total variance."""
    first = sum((part.mean @ part.share for part in parts), torch.zeros_like(within[0]))
    # about the mean itself: a difference of squares would lose the variance where the flux is far from any constant
    second = sum((inner * part.share.sum() + (part.mean - first[:, None]) ** 2 @ part.share
                  for part, inner in zip(parts, within, strict=True)), torch.zeros_like(first))
    return first, second


class StarPosterior:
    """Posterior of one star: weighted pairs (component, velocity), a Gaussian of the factors within each.

    Args:
        y: (L,) what was observed; pairs: P of them, on evenly spaced velocities; taps: of the residual.

    Attributes:
        component: P numbers; velocity: (P,) [km/s]; log_weight: (P,) normalised.
        log_evidence: log p(y) under the whole prior, without the constant -n/2 log 2 pi.
    """

    def __init__(self, y: Tensor, pairs: list[Pair], taps: Tensor) -> None:
        self.y, self.pairs, self.taps = y, pairs, taps
        self.component = [p.component for p in pairs]
        self.velocity = torch.tensor([p.velocity for p in pairs], dtype=torch.float64)
        weight = torch.tensor([p.log_weight for p in pairs], dtype=torch.float64)
        total = torch.logsumexp(weight, 0)
        self.log_weight = weight - total
        nodes = sorted(set(self.velocity.tolist()))
        spacing = min((b - a for a, b in pairwise(nodes)), default=1.0)  # [km/s]; the sum over nodes is an integral
        self.log_evidence = float(total) + log(spacing)

    def misfit(self) -> float:
        """By how many standard deviations the best pair's chi-square is too large: above 5, no star this prior knows.

        A star of a kind that was never learned (or a wrong noise map) shows here, and is to be flagged, not believed.
        """
        best = self.pairs[int(self.log_weight.argmax())]
        pixels = int(best.noise.live.sum())
        return (best.distance - pixels) / (2.0 * pixels) ** 0.5

    def velocity_moments(self) -> tuple[float, float]:
        """Posterior mean and standard deviation of the velocity [km/s]."""
        weight = self.log_weight.exp()
        mean = float((weight * self.velocity).sum())
        return mean, float((weight * (self.velocity - mean) ** 2).sum().sqrt())

    def parts(self) -> list[Part]:
        """The posterior as a few parts, one for each component, scale and whole-pixel shift that matters.

        The variance within a pair hardly depends on a shift of a fraction of a pixel: it is computed once for each
        part, at the node of largest weight; the means are each node's own.
        """
        weight = self.log_weight.exp()
        use = torch.nonzero(weight > min(_LEAST, float(weight.max()))).flatten().tolist() or [int(weight.argmax())]
        total = float(weight[use].sum())
        out: list[Part] = []
        for noise in {id(self.pairs[p].noise): self.pairs[p].noise for p in use}.values():
            group = sorted((p for p in use if self.pairs[p].noise is noise), key=lambda p: -float(weight[p]))
            best = self.pairs[group[0]]
            parts = [self.pairs[p].smooth(self.pairs[p].centre[:, None]) for p in group]
            smooth = torch.cat([s for s, _ in parts], 1)
            gap = torch.where(noise.live[:, None], self.y[:, None] - smooth - torch.cat([u for _, u in parts], 1), 0.0)
            opened = noise.open(torch.cat([gap, best.factors], 1))
            mean = smooth + gap - opened[:, : len(group)]
            left = opened[:, len(group) :]
            left[:, best.signal :] -= best.factors[:, best.signal :]  # a nuisance is not the star's: -R D^-1 U
            inverse = torch.linalg.solve_triangular(best.cholesky, torch.eye(len(best.cholesky)), upper=False)
            within = noise.variance() + ((left @ inverse.T) ** 2).sum(1)
            out.append(Part(best, mean.double(), weight[group] / total, within.double()))
        return out

    def moments(self) -> tuple[Tensor, Tensor]:
        """Posterior mean and standard deviation of the clean spectrum, each (L,)."""
        parts = self.parts()
        mean, variance = pooled(parts, [part.within for part in parts])
        return mean.float(), variance.sqrt().float()

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """n clean spectra (n, L): a pair by its weight, then the factors, then the residual (Matheron's rule)."""
        pixels = self.y.shape[0]
        u, z, e, white = self._normals(n, generator)
        smooth, nuisance, pick = self._smooth(u, z)
        out = torch.empty(n, pixels)
        for noise in {id(self.pairs[i].noise): self.pairs[i].noise for i in pick.tolist()}.values():
            rows = torch.tensor([self.pairs[i].noise is noise for i in pick.tolist()])
            out[rows] = noise.complete(self.y - nuisance[rows], smooth[rows], e[rows], white[rows])
        return out

    def draw_nuisance(self, n: int, generator: torch.Generator) -> Tensor:
        """(n, L) what the observation's patterns add to y, drawn from their posterior."""
        u, z, _, _ = self._normals(n, generator)
        return self._smooth(u, z)[1]

    def _normals(self, n: int, generator: torch.Generator) -> list[Tensor]:
        pixels, most = self.y.shape[0], max(len(p.centre) for p in self.pairs)
        return normals(generator, n, 1, most, pixels + len(self.taps) - 1, pixels + 2)

    def _smooth(self, u: Tensor, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Draws of the star without its residual and of the nuisances, each (n, L), and the pair of each."""
        n, pixels = len(u), self.y.shape[0]
        steps = self.log_weight.exp().cumsum(0)
        pick = torch.searchsorted(steps / steps[-1], torch.special.ndtr(u[:, 0].double())).clamp_max(len(steps) - 1)
        smooth, nuisance = torch.empty(2, n, pixels)
        for number in set(pick.tolist()):
            rows, p = pick == number, self.pairs[number]
            score = z[rows, : len(p.centre)].T
            c = p.centre[:, None] + torch.linalg.solve_triangular(p.cholesky.T, score, upper=True)
            smooth[rows], nuisance[rows] = (part.T for part in p.smooth(c))
        return smooth, nuisance, pick
