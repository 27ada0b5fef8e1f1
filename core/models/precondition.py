"""Nearly the mixture's posterior mean and deviation, many spectra and noise levels at once: where networks start."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from core.data.grid import C_KMS, N_PIXELS, STEP
from core.data.instrument import MARGIN
from core.models.mixture import Mixture, shifted
from core.models.velocity_search import velocity_log_prior

_REDUCED = 10  # leading factors that the look for components and velocities uses
_COARSE = 0.5  # pixels between its nodes
_FARTHEST = 7.0  # pixels: 480 km/s
_WIDTH = 0.3  # prior deviation [pixels] about the node: far more than the data leave open, small enough to be linear
_STEPS = 16  # nodes a pixel on which templates are laid; what is between them is linear
_POWER = 3.5  # of the residual's correlation at the width of a line: what factors see of it (docs/results.md)
_DEAD = 1e30


@dataclass(frozen=True)
class Place:
    """Where in the mixture some spectra lie.

    Args:
        component: (B, P) numbers of the components worth computing; shift: (B,) pixels to the red, on nodes.
    """

    component: Tensor
    shift: Tensor


class Columns:
    """The mean and factors of P components at one velocity a star: (B, P, k + 1, L), residual (B, P, L)."""

    def __init__(self, rows: Tensor, residual: Tensor, log_weight: Tensor) -> None:
        self.mean, self.factors = rows[:, :, 0], rows[:, :, 1:]
        self.residual, self.log_weight = residual, log_weight


class Precondition(nn.Module):
    """m(x, sigma) and s(x, sigma) of a mixture of factor analysers, batched over stars, draws and noise levels.

    What it leaves out of `Mixture`, so that a call costs a millisecond and not a second: all components sit at the one
    velocity that suits best, with the derivative of the star along velocity as one more factor (exact to first order);
    noise and residual are taken as independent from pixel to pixel, with the variance that their correlation has at
    the width of a line. A network corrects the rest.

    Args:
        mixture: on the house's grid.
        most: components computed for each spectrum.

    Shapes: x is (n, B, L): n draws of B stars that share a noise map; sigma (B, L).
    """

    rows: Tensor
    residual: Tensor
    log_weight: Tensor
    unit: Tensor
    rest: Tensor
    look: Tensor
    pair: Tensor
    products: Tensor
    bank: Tensor

    def __init__(self, mixture: Mixture, most: int = 4) -> None:
        super().__init__()
        self.most, self.scales = most, mixture.scales
        self.always = mixture.always
        rows = torch.cat([mixture.mean[:, None], mixture.factors], 1)
        self.register_buffer("rows", rows, persistent=False)
        self.register_buffer("residual", mixture.residual, persistent=False)
        self.register_buffer("log_weight", mixture.log_weight.double(), persistent=False)
        self.register_buffer("unit", mixture.unit.T.contiguous(), persistent=False)
        _, scale, vectors = torch.linalg.svd(mixture.factors, full_matrices=False)
        lead = scale[:, :_REDUCED, None] * vectors[:, :_REDUCED]
        rest = (mixture.factors**2).sum(1) - (lead**2).sum(1) + mixture.residual
        mean = (mixture.log_weight.exp()[:, None] * rest).sum(0)[MARGIN : MARGIN + N_PIXELS]
        look = torch.cat([mixture.mean[:, None] - 1.0, lead], 1)  # about 1, as the data in `_evidence`
        pair = torch.tril_indices(look.shape[1], look.shape[1])
        self.register_buffer("rest", mean, persistent=False)
        self.register_buffer("look", look, persistent=False)
        self.register_buffer("pair", pair, persistent=False)
        self.register_buffer("products", look[:, pair[0]] * look[:, pair[1]], persistent=False)
        self.register_buffer("bank", torch.zeros(0), persistent=False)

    def lay(self) -> Precondition:
        """Lay all templates at every sixteenth of a pixel, once: for a GPU, where memory is plenty (2 GB)."""
        flat = torch.nn.functional.pad(self.rows.cpu(), (MARGIN, MARGIN), mode="replicate")
        moved = [_moved(flat, i / _STEPS) for i in range(_STEPS)]
        self.bank = torch.stack(moved).to(self.rows.device)  # (16, J, k + 1, L + 2 margin)
        return self

    def locate(self, x: Tensor, sigma: Tensor, most: int | None = None) -> Place:
        """Components (at most `most`, best first) and velocity that suit spectra x (B, L) with noise sigma (B, L)."""
        shifts = torch.arange(-_FARTHEST, _FARTHEST + 0.1, _COARSE, device=x.device)
        evidence = self._evidence(x, sigma, shifts)  # (B, J, V)
        best = evidence.amax(2)
        ranked = best.clone()
        ranked[:, self.always] = -torch.inf  # they come last, always, and need no rank
        component = ranked.topk(min(most or self.most, best.shape[1]) - len(self.always), 1).indices
        every = torch.tensor(self.always, device=x.device, dtype=torch.long).expand(len(x), -1)
        component = torch.cat([component, every], 1)
        at = evidence.amax(1).argmax(1).clamp(1, len(shifts) - 2)
        three = torch.stack([evidence.amax(1).gather(1, (at + i)[:, None])[:, 0] for i in (-1, 0, 1)])
        bend = (three[0] - 2 * three[1] + three[2]).clamp_max(-1e-3)
        shift = shifts[at] + (0.5 * (three[0] - three[2]) / bend).clamp(-1, 1).float() * _COARSE
        for _ in range(2):  # climb along the derivative to the middle of the peak
            first = Place(component[:, :1], self.node(shift))
            _, off = self._climb(x, sigma, first)
            shift = first.shift + off.clamp(-1.0, 1.0)
        return Place(component, self.node(shift.clamp(-_FARTHEST, _FARTHEST)))

    def node(self, shift: Tensor) -> Tensor:
        """The nearest place where templates are laid."""
        return (shift * _STEPS).round() / _STEPS

    def _evidence(self, x: Tensor, sigma: Tensor, shifts: Tensor) -> Tensor:
        """(B, J, V) approximate log p(x, j, shift): the data are moved, linearly, and a few factors used."""
        flat = 1.0 / (sigma**2 + self.rest)  # 0 where sigma is infinite
        flat = torch.where(torch.isfinite(sigma), flat, 0.0)
        y = torch.where(flat > 0, x - 1.0, 0.0)  # about 1: fewer digits are lost
        at = torch.arange(-MARGIN, N_PIXELS + MARGIN, device=x.device)[:, None] + shifts
        low = at.floor().long()
        t = at - low

        def moved(a: Tensor) -> Tensor:
            padded = torch.nn.functional.pad(a, (32, 32))
            return (1 - t) * padded[:, low + 32] + t * padded[:, low + 33]  # (B, W, V)

        weight, product, square = moved(flat), moved(flat * y), (flat * y**2).sum(1)
        j, q = self.look.shape[:2]
        gram = torch.zeros(*weight.shape[:1], j, len(shifts), q, q, device=x.device)
        flat_pairs = torch.einsum("jcw,bwv->bjvc", self.products, weight)
        linear = torch.einsum("jcw,bwv->bjvc", self.look, product)
        gram[..., self.pair[0], self.pair[1]] = flat_pairs
        gram[..., self.pair[1], self.pair[0]] = flat_pairs
        h = (linear[..., 1:] - gram[..., 0, 1:]).double()
        chol = torch.linalg.cholesky(gram[..., 1:, 1:].double() + torch.eye(q - 1, device=x.device).double())
        u = torch.linalg.solve_triangular(chol, h[..., None], upper=False)[..., 0]
        quadratic = gram[..., 0, 0].double() - 2 * linear[..., 0].double() + square[:, None, None] - (u**2).sum(-1)
        log_det = 2 * chol.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        prior = velocity_log_prior(shifts.cpu().double() * _PIXEL_KMS).to(x.device)
        return self.log_weight[:, None] + prior - 0.5 * (quadratic + log_det)

    def columns(self, place: Place) -> Columns:
        """Mean, factors and residual of the components at their place."""
        component, shift = place.component, place.shift
        if len(self.bank):
            turned = torch.remainder(shift, 1.0)
            whole = (shift - turned).round().long()
            pixels = 2 * MARGIN - whole[:, None] + torch.arange(N_PIXELS, device=shift.device)
            picked = self.bank[(turned * _STEPS).round().long()[:, None], component]  # (B, P, k + 1, W)
            rows = picked.gather(3, pixels[:, None, None].expand(*picked.shape[:3], -1))
        else:
            rows = torch.stack([shifted(self.rows[c], float(s)) for c, s in zip(component, shift, strict=True)])
        near = shift.round().long()
        pixels = MARGIN - near[:, None] + torch.arange(N_PIXELS, device=shift.device)
        residual = self.residual[component].gather(2, pixels[:, None].expand(*component.shape, -1))
        return Columns(rows, residual, self.log_weight[component])

    def _climb(self, x: Tensor, sigma: Tensor, place: Place) -> tuple[Tensor, Tensor]:
        """The derivative (B, L) of the likeliest star along a shift of one pixel, and how far to go (B,) [pixels]."""
        got = self.columns(place)
        one = _Solved(self, got, sigma, None, len(self.scales) // 2)
        star = one.star(x[None])[0]  # (B, L)
        slope = -(torch.roll(star, -1, 1) - torch.roll(star, 1, 1)) / 2
        slope[:, :2] = 0
        slope[:, -2:] = 0
        with_it = _Solved(self, got, sigma, slope * _WIDTH, len(self.scales) // 2)
        return slope, with_it.score(x[None], -1)[0] * _WIDTH

    def settle(self, x: Tensor, sigma: Tensor, place: Place) -> Settled:
        """All that x (B, L), one spectrum a star, decides: templates at their place and the derivative among them."""
        slope, _ = self._climb(x, sigma, Place(place.component[:, :1], place.shift))
        return Settled(self, self.columns(place), slope * _WIDTH)


class Settled:
    """Moments of draws of stars whose place is known."""

    def __init__(self, owner: Precondition, columns: Columns, slope: Tensor) -> None:
        self.owner, self.columns, self.slope = owner, columns, slope

    def at(self, sigma: Tensor) -> list[_Solved]:
        """What one noise map (B, L) needs, for every scale of the residual."""
        return [_Solved(self.owner, self.columns, sigma, self.slope, s) for s in range(len(self.owner.scales))]

    def moments(self, x: Tensor, solved: list[_Solved]) -> tuple[Tensor, Tensor]:
        """Posterior mean and deviation of x (n, B, L), each (n, B, L)."""
        parts = [one.moments(x) for one in solved]  # mean (n, B, P, L), variance (B, P, L), log weight (n, B, P)
        weight = torch.cat([p[2] for p in parts], 2).softmax(2).to(x.dtype)
        mean = torch.cat([p[0] for p in parts], 2)
        within = torch.cat([p[1] for p in parts], 1)
        first = torch.einsum("nbp,nbpl->nbl", weight, mean)
        between = torch.einsum("nbp,nbpl->nbl", weight, (mean - first[:, :, None]) ** 2)
        second = torch.einsum("nbp,bpl->nbl", weight, within) + between
        return first, second.clamp_min(1e-10).sqrt()

    def draw(self, y: Tensor, solved: list[_Solved], numbers: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """Joint draws (n, B, L) of clean spectra given y (B, L): a component and scale, its factors, its residual.

        Args:
            numbers: (n, B) uniform, (n, B, k) and (n, B, L) standard normal.
        """
        uniform, z, white = numbers
        parts = [one.scores(y[None]) for one in solved]
        log_weight = torch.cat([p[2][0] for p in parts], 1)  # (B, scales P)
        steps = log_weight.softmax(1).cumsum(1)
        pick = torch.searchsorted(steps, uniform.T.double().contiguous()).clamp_max(steps.shape[1] - 1)  # (B, n)
        hot = nn.functional.one_hot(pick, steps.shape[1]).to(y.dtype)
        chosen = torch.split(hot, log_weight.shape[1] // len(solved), 2)
        out = torch.zeros_like(white)
        for one, (c, gap, _), share in zip(solved, parts, chosen, strict=True):
            spread = torch.linalg.solve_triangular(one.chol.mT, z.permute(1, 2, 0)[:, None], upper=True)  # (B, P, k, n)
            scores = torch.einsum("bpkn,bnp->nbpk", c[0][..., None] + spread, share)
            smooth = torch.einsum("nbpk,bpkl->nbl", scores, one.factors) + torch.einsum("bnp,bpl->nbl", share, one.mean)
            gain, left = (torch.einsum("bnp,bpl->nbl", share, part) for part in (one.gain, one.left))
            off = torch.where(torch.isfinite(gap[:, :, 0]), y - smooth, 0.0)
            out += share.sum(2).T[:, :, None] * smooth + gain * off + left.sqrt() * white
        return out


class _Solved:
    """One scale of the residual under one noise map: t | x ~ N(A^-1 h, A^-1) for every component (see Mixture)."""

    def __init__(self, owner: Precondition, columns: Columns, sigma: Tensor, slope: Tensor | None, scale: int) -> None:
        live = torch.isfinite(sigma)[:, None]
        variance = torch.where(live, sigma[:, None] ** 2, _DEAD)
        residual = owner.scales[scale] * columns.residual
        seen = variance + _POWER * residual  # (B, P, L)
        self.weight = torch.where(live, 1.0 / seen, 0.0)
        self.log_det = torch.where(live, seen.log(), 0.0).double().sum(2)
        parts = [columns.factors, columns.mean[:, :, None] * owner.unit]
        if slope is not None:
            parts.append(slope[:, None, None].expand(-1, columns.mean.shape[1], 1, -1))
        self.factors = torch.cat(parts, 2)  # (B, P, k, L)
        self.mean, self.log_weight = columns.mean, columns.log_weight
        self.scaled = self.factors * self.weight[:, :, None]
        k = self.factors.shape[2]
        gram = self.scaled @ self.factors.mT + torch.eye(k, device=sigma.device)
        self.chol = torch.linalg.cholesky(gram)
        self.gain = torch.where(live, residual / (variance + residual), 0.0)
        self.left = torch.where(live, residual * variance / (variance + residual), residual)
        self._within: Tensor | None = None

    def scores(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Posterior means (n, B, P, k) of the factors, x - mean (n, B, P, L), and log p(x, j) (n, B, P)."""
        gap = x[:, :, None] - self.mean
        h = torch.einsum("nbpl,bpkl->bpkn", gap, self.scaled)
        u = torch.linalg.solve_triangular(self.chol, h, upper=False)
        c = torch.linalg.solve_triangular(self.chol.mT, u, upper=True).permute(3, 0, 1, 2)
        log_det = self.log_det + 2 * self.chol.diagonal(dim1=-2, dim2=-1).log().double().sum(-1)
        distance = (gap**2 * self.weight).double().sum(-1) - (u.double() ** 2).sum(2).permute(2, 0, 1)
        return c, gap, self.log_weight - 0.5 * (log_det + distance)

    def score(self, x: Tensor, which: int) -> Tensor:
        """(n, B) posterior mean of one factor of the first component."""
        return self.scores(x)[0][:, :, 0, which]

    def star(self, x: Tensor) -> Tensor:
        """(n, B, L) smooth star of the first component."""
        c, _, _ = self.scores(x)
        return self.mean[:, 0] + torch.einsum("nbk,bkl->nbl", c[:, :, 0], self.factors[:, 0])

    def moments(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mean (n, B, P, L), variance (B, P, L) and log weight (n, B, P)."""
        c, gap, log_weight = self.scores(x)
        smooth = torch.einsum("nbpk,bpkl->nbpl", c, self.factors)
        mean = self.mean + smooth + self.gain * torch.where(self.weight > 0, gap - smooth, 0.0)
        if self._within is None:
            white = torch.linalg.solve_triangular(self.chol, self.factors, upper=False)
            self._within = self.left + (1 - self.gain) ** 2 * (white**2).sum(2)
        return mean, self._within, log_weight


_PIXEL_KMS = float(C_KMS * STEP * np.log(10))


def _moved(rows: Tensor, shift: float) -> Tensor:
    """Rows (..., W + 2 margin) moved `shift` pixels to the red, (..., W + margin): ten-point Lagrange interpolation."""
    whole = int(np.floor(-shift))
    t = -shift - whole
    taps = range(-4, 6)
    width = rows.shape[-1]
    out = torch.zeros(*rows.shape[:-1], width)
    for k in taps:
        weight = float(np.prod([(t - m) / (k - m) for m in taps if m != k]))
        out += weight * torch.roll(rows, -(whole + k), -1)
    return out
