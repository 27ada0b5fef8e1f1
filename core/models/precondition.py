"""Nearly the mixture's posterior mean and deviation, many spectra and noise levels at once: where networks start."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from core.data.grid import C_KMS, N_PIXELS, STEP, WAVE
from core.data.instrument import MARGIN
from core.models.mixture import Mixture, shifted
from core.models.residual_filter import ResidualFilter
from core.models.settled import Columns, Settled, Solved
from core.models.velocity_search import velocity_log_prior
from core.spectrum import ARM_JOIN

_REDUCED = 10  # leading factors that the look for components and velocities uses
_COARSE = 0.5  # pixels between its nodes
_FARTHEST = 7.0  # pixels: 480 km/s
_WIDTH = 0.3  # prior deviation [pixels] about the node: far more than the data leave open, small enough to be linear
_STEPS = 16  # nodes a pixel on which templates are laid; what is between them is linear
_SEARCHED = 5  # components a star's draws may belong to, the likeliest of all by their whole evidence


@dataclass(frozen=True)
class Place:
    """Where in the mixture some spectra lie.

    Args:
        component: (B, P) numbers of the components worth computing; shift: (B,) pixels to the red, on nodes.
    """

    component: Tensor
    shift: Tensor


class Precondition(nn.Module):
    """m(x, sigma) and s(x, sigma) of a mixture of factor analysers, batched over stars, draws and noise levels.

    What it leaves out of `Mixture`, so that a call costs a millisecond and not a second: all components sit at the one
    velocity that suits best, with the derivative of the star along velocity as one more factor (exact to first order);
    to the factors, noise and residual are independent from pixel to pixel, with the power that their correlation has at
    the width of a line; the residual is filtered as if it and the noise changed slowly (`ResidualFilter`); and
    components and scales are weighed by what they leave in each pixel, as if pixels were independent. On the mixture's
    own draws its error is within 1 % of the mixture's (docs/training.md). A network corrects the rest.

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
    blue: Tensor

    def __init__(self, mixture: Mixture, most: int = 4) -> None:
        super().__init__()
        self.most, self.scales = most, mixture.scales
        self.always = mixture.always
        self.filter = ResidualFilter(mixture.taps)
        self.register_buffer("blue", torch.as_tensor(WAVE < ARM_JOIN), persistent=False)
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
        one = Solved(self, got, got.open_to(self.unit, None), sigma, len(self.scales) // 2)
        star = one.star(x[None])[0]  # (B, L)
        slope = -(torch.roll(star, -1, 1) - torch.roll(star, 1, 1)) / 2
        slope[:, :2] = 0
        slope[:, -2:] = 0
        with_it = Solved(self, got, got.open_to(self.unit, slope * _WIDTH), sigma, len(self.scales) // 2)
        return slope, with_it.score(x[None], -1)[0] * _WIDTH

    def settle(self, x: Tensor, sigma: Tensor, place: Place) -> Settled:
        """All that x (B, L), one spectrum a star, decides: templates at their place and the derivative among them."""
        slope, _ = self._climb(x, sigma, Place(place.component[:, :1], place.shift))
        return Settled(self, self.columns(place), slope * _WIDTH)

    def search(self, x: Tensor, sigma: Tensor, rho: Tensor | None = None) -> Place:
        """The velocity that suits x (B, L), and the few likeliest of all components there by their whole evidence.

        By rank, not by weight: what a star is answered must not depend on its neighbours' needs. `locate` alone ranks
        them by ten factors, and is wrong by tens in log evidence.
        """
        every = self.locate(x, sigma, len(self.log_weight))
        settled = self.settle(x, sigma, every)
        weight = torch.stack([one.scores(x[None]).log_weight[0] for one in settled.at(sigma, rho)]).amax(0)  # (B, J)
        best = weight.topk(min(_SEARCHED, weight.shape[1]), 1).indices
        return Place(every.component.gather(1, best), every.shift)


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
