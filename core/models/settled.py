"""Moments of a mixture of factor analysers at places that are known, batched over stars, draws and noise levels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from core.models.residual_filter import ResidualFilter

_POWER = 3.5  # of the residual's correlation at the width of a line: what factors see of it (docs/results.md)


class Owner(Protocol):
    """What a precondition tells: factors on the residual, the unit's splines (12, L), the blue arm's pixels (L,)."""

    scales: tuple[float, ...]
    unit: Tensor
    blue: Tensor
    filter: ResidualFilter


class Columns:
    """The mean and factors of P components at one velocity a star: (B, P, k + 1, L), residual (B, P, L)."""

    def __init__(self, rows: Tensor, residual: Tensor, log_weight: Tensor) -> None:
        self.mean, self.factors = rows[:, :, 0], rows[:, :, 1:]
        self.residual, self.log_weight = residual, log_weight

    def open_to(self, unit: Tensor, slope: Tensor | None) -> Tensor:
        """(B, P, k, L) factors with the unit's splines (12, L) and the slope along velocity (B, L) among them."""
        parts = [self.factors, self.mean[:, :, None] * unit]
        if slope is not None:
            parts.append(slope[:, None, None].expand(-1, self.mean.shape[1], 1, -1))
        return torch.cat(parts, 2)


class Settled:
    """Moments of draws of stars whose place is known."""

    def __init__(self, owner: Owner, columns: Columns, slope: Tensor) -> None:
        self.owner, self.columns = owner, columns
        self.factors = columns.open_to(owner.unit, slope)

    def at(self, sigma: Tensor, rho: Tensor | None = None) -> list[Solved]:
        """What one noise map (B, L) needs, for every scale of the residual.

        Args:
            rho: (B, 2) or (2,) correlation of neighbouring pixels' noise in either arm; white where None.
        """
        scales = range(len(self.owner.scales))
        return [Solved(self.owner, self.columns, self.factors, sigma, s, rho) for s in scales]

    def moments(self, x: Tensor, solved: list[Solved]) -> tuple[Tensor, Tensor]:
        """Posterior mean and deviation of x (n, B, L), each (n, B, L)."""
        parts = [one.moments(x) for one in solved]  # mean (n, B, P, L), variance (B, P, L), log weight (n, B, P)
        weight = torch.cat([p[2] for p in parts], 2).softmax(2).to(x.dtype)
        mean = torch.cat([p[0] for p in parts], 2)
        within = torch.cat([p[1] for p in parts], 1)
        first = torch.einsum("nbp,nbpl->nbl", weight, mean)
        between = torch.einsum("nbp,nbpl->nbl", weight, (mean - first[:, :, None]) ** 2)
        second = torch.einsum("nbp,bpl->nbl", weight, within) + between
        return first, second.clamp_min(1e-10).sqrt()

    def draw(self, y: Tensor, solved: list[Solved], numbers: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """Joint draws (n, B, L) of clean spectra given y (B, L): a component and scale, its factors, its residual.

        Args:
            numbers: (n, B) uniform, (n, B, k) and (n, B, L) standard normal.
        """
        uniform, z, white = numbers
        parts = [one.scores(y[None]) for one in solved]
        log_weight = torch.cat([p.log_weight[0] for p in parts], 1)  # (B, scales P)
        steps = log_weight.softmax(1).cumsum(1)
        pick = torch.searchsorted(steps, uniform.T.double().contiguous()).clamp_max(steps.shape[1] - 1)  # (B, n)
        hot = nn.functional.one_hot(pick, steps.shape[1]).to(y.dtype)
        chosen = torch.split(hot, log_weight.shape[1] // len(solved), 2)
        out = torch.zeros_like(white)
        for one, part, share in zip(solved, parts, chosen, strict=True):
            spread = one.half.mT @ z.permute(1, 2, 0)[:, None]  # (B, P, k, n)
            off = torch.einsum("bpkn,bnp->nbpk", spread, share)
            smooth = torch.einsum("nbpk,bpkl->nbl", off, one.factors * one.open[:, :, None])
            middle = one.mean + (part.smooth + one.residual(part.rest))[0]
            out += smooth + torch.einsum("bnp,bpl->nbl", share, middle)
            out += torch.einsum("bnp,bpl->nbl", share, one.left).sqrt() * white
        return out


@dataclass(frozen=True)
class Scores:
    """Of spectra x under every component: posterior mean of the factors' part of the star (n, B, P, L), what it leaves
    of x (n, B, P, L), posterior means of the factors (n, B, P, k), and log p(x, j) (n, B, P)."""

    smooth: Tensor
    rest: Tensor
    factors: Tensor
    log_weight: Tensor


class Solved:
    """One scale of the residual under one noise map: t | x ~ N(A^-1 h, A^-1) for every component (see Mixture).

    Args:
        factors: (B, P, k, L) of `Columns.open_to`; sigma: (B, L); scale: which of the owner's; rho: as in `Settled.at`.
    """

    def __init__(self, owner: Owner, columns: Columns, factors: Tensor, sigma: Tensor, scale: int,
                 rho: Tensor | None = None) -> None:
        live = torch.isfinite(sigma)[:, None]
        variance = torch.where(live, sigma[:, None] ** 2, 1.0)
        residual = owner.scales[scale] * columns.residual
        total = torch.where(live, variance + residual, 1.0)
        power = variance
        if rho is not None:  # at the width of a line two neighbours count in full
            arm = torch.where(owner.blue, rho.reshape(-1, 2)[:, :1], rho.reshape(-1, 2)[:, 1:])
            power = variance * (1 + 2 * arm)[:, None]
        seen = power + _POWER * residual  # (B, P, L)
        self.weight = torch.where(live, 1.0 / seen, 0.0)
        self.open = torch.where(live, power / seen, 1.0)  # what of a line the residual does not take
        self.root = total.sqrt()
        self.inverse = torch.where(live, 1.0 / self.root, 0.0)
        self.log_det = torch.where(live, total.log(), 0.0).double().sum(2)
        self.factors = factors
        self.mean, self.log_weight = columns.mean, columns.log_weight
        self.scaled = self.factors * self.weight[:, :, None]
        k = self.factors.shape[2]
        gram = self.scaled @ self.factors.mT + torch.eye(k, device=sigma.device)
        chol = torch.linalg.cholesky(gram)
        self.log_det = self.log_det + 2 * chol.diagonal(dim1=-2, dim2=-1).log().double().sum(-1)
        # products with the inverse: three times as fast as triangular solves of as many columns as pixels, and on a GPU
        # a solve of many small systems is a loop
        self.half = torch.linalg.solve_triangular(chol, torch.eye(k, device=sigma.device).expand_as(chol), upper=False)
        self.filter = owner.filter
        share = torch.where(live, residual / total, 0.0)
        self.mixed = owner.filter.weights(share)
        self.left = torch.where(live, total * owner.filter.variance(share), residual)
        self._within: Tensor | None = None

    def scores(self, x: Tensor) -> Scores:
        """How well the components explain x (n, B, L).

        Nearly Laplace's identity, log p(x | c) + log p(c) - log|A| / 2 at the mode c. Noise and residual in the first
        are those of single pixels: with the power they have at a line's width, which is right for c and A, the
        narrowest scale wins always, and deviations came out too small by a third. As two noises are mixed it is right
        to .1-.2 only, and leans to wide scales at S/N 5-20 (docs/training.md).
        """
        gap = x[:, :, None] - self.mean
        h = torch.einsum("nbpl,bpkl->bpkn", gap, self.scaled)
        c = (self.half.mT @ (self.half @ h)).permute(3, 0, 1, 2)
        smooth = torch.einsum("nbpk,bpkl->nbpl", c, self.factors)
        rest = gap - smooth
        distance = ((rest * self.inverse) ** 2).double().sum(-1) + (c.double() ** 2).sum(-1)
        return Scores(smooth, rest, c, self.log_weight - 0.5 * (self.log_det + distance))

    def residual(self, rest: Tensor) -> Tensor:
        """(n, B, P, L) posterior mean of the residual from what the factors leave."""
        return self.root * self.filter.mean(rest * self.inverse, self.mixed)

    def score(self, x: Tensor, which: int) -> Tensor:
        """(n, B) posterior mean of one factor of the first component."""
        return self.scores(x).factors[:, :, 0, which]

    def star(self, x: Tensor) -> Tensor:
        """(n, B, L) smooth star of the first component."""
        return self.mean[:, 0] + self.scores(x).smooth[:, :, 0]

    def moments(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mean (n, B, P, L), variance (B, P, L) and log weight (n, B, P)."""
        got = self.scores(x)
        mean = self.mean + got.smooth + self.residual(got.rest)
        if self._within is None:
            self._within = self.left + self.open**2 * ((self.half @ self.factors) ** 2).sum(2)
        return mean, self._within, got.log_weight
