"""Posterior denoisers E[x0 | x, y]: a prior's denoiser told what was measured, which is again a denoiser."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from core import progress
from core.models.denoiser import Denoiser, check_noise
from core.models.observation import Observation


@dataclass(frozen=True)
class Linear:
    """What an instrument does to a clean spectrum: y = A x + noise.

    Args:
        inputs, outputs: pixels of x and of y.
        apply: (..., inputs) -> (..., outputs), A; transpose: (..., outputs) -> (..., inputs), A'.
        identity: True when A leaves every spectrum as it is.
    """

    inputs: int
    outputs: int
    apply: Callable[[Tensor], Tensor]
    transpose: Callable[[Tensor], Tensor]
    identity: bool = False

    @classmethod
    def same(cls, pixels: int) -> Linear:
        """A = I."""
        return cls(pixels, pixels, lambda x: x, lambda x: x, identity=True)

    @classmethod
    def blur(cls, pixels: int, taps: Tensor) -> Linear:
        """A line-spread function that is the same in every pixel; nothing comes from beyond the ends.

        Raises:
            ValueError: an even number of taps.
        """
        if taps.ndim != 1 or len(taps) % 2 == 0:
            raise ValueError(f"taps of shape {tuple(taps.shape)}; give one odd row, the middle tap in its middle.")

        def convolve(x: Tensor, kernel: Tensor) -> Tensor:
            rows, weights = x.reshape(-1, 1, pixels), kernel.to(x)[None, None]
            return torch.nn.functional.conv1d(rows, weights, padding=len(taps) // 2).reshape(x.shape)

        return cls(pixels, pixels, lambda x: convolve(x, taps.flip(0)), lambda x: convolve(x, taps))

    @classmethod
    def mask(cls, live: Tensor) -> Linear:
        """Zero where nothing is measured (..., L): what ivar = 0 says as well, and needs no A."""
        return cls(live.shape[-1], live.shape[-1], lambda x: torch.where(live, x, 0.0),
                   lambda x: torch.where(live, x, 0.0))

    @classmethod
    def rebin(cls, pixels: int, factor: int) -> Linear:
        """The mean of each `factor` neighbouring pixels.

        Raises:
            ValueError: a factor that does not divide the pixels.
        """
        if factor < 1 or pixels % factor:
            raise ValueError(f"{pixels} pixels in groups of {factor}; give a factor that divides them.")
        return cls(pixels, pixels // factor, lambda x: x.reshape(*x.shape[:-1], -1, factor).mean(-1),
                   lambda v: v.repeat_interleave(factor, -1) / factor, identity=factor == 1)

    def then(self, other: Linear) -> Linear:
        """This, then the other: B A.

        Raises:
            ValueError: the other takes another number of pixels.
        """
        if other.inputs != self.outputs:
            raise ValueError(f"{self.outputs} pixels come out and {other.inputs} go in; let them agree.")
        return Linear(self.inputs, other.outputs, lambda x: other.apply(self.apply(x)),
                      lambda v: self.transpose(other.transpose(v)), self.identity and other.identity)


@dataclass(frozen=True, eq=False)
class Measured:
    """What stars' spectra say, as the conditions need it: y = A x + S K z, S = s sigma.

    Args:
        operator: A.
        y: (B, M) where dead any finite number.
        weight: (B, M) 1 / (s sigma), 0 where nothing was measured.
        taps: centre and side weight of K, (M,) each; None for white noise.
    """

    operator: Linear
    y: Tensor
    weight: Tensor
    taps: tuple[Tensor, Tensor] | None = None

    @classmethod
    def of(cls, stars: Observation, operator: Linear, dtype: torch.dtype) -> Measured:
        """Of an observation.

        Raises:
            ValueError: another grid than the operator's.
        """
        if stars.y.shape[1] != operator.outputs:
            raise ValueError(f"spectra of {stars.y.shape[1]} pixels; this method takes {operator.outputs}: bring them "
                             "onto that grid (core.data.grid.prepare).")
        wave = stars.wave.numpy()
        scale = torch.as_tensor(stars.noise.scales(wave))
        weight = (stars.ivar.double().sqrt() / scale).to(dtype)
        white = stars.noise.white
        centre, side = (torch.as_tensor(a, dtype=dtype) for a in stars.noise.taps(wave))
        return cls(operator, stars.y.to(dtype), weight, None if white else (centre, side))

    def to(self, device: torch.device) -> Measured:
        """The same on a device."""
        taps = None if self.taps is None else (self.taps[0].to(device), self.taps[1].to(device))
        return Measured(self.operator, self.y.to(device).clone(), self.weight.to(device).clone(), taps)

    def residual(self, x: Tensor) -> Tensor:
        """S^-1 (y - A x), (..., M), 0 where dead; correlated as K is."""
        return self.weight * (self.y - self.operator.apply(x))

    def correlate(self, v: Tensor) -> Tensor:
        """K K' v over live pixels, the identity on dead ones, (..., M)."""
        if self.taps is None:
            return v
        centre, side = self.taps
        live = self.weight > 0
        on = torch.where(live, v, 0.0)
        back = torch.nn.functional.pad(centre * on, (1, 1))  # K' v, two pixels longer
        back = back + torch.nn.functional.pad(side * on, (0, 2)) + torch.nn.functional.pad(side * on, (2, 0))
        forth = centre * back[..., 1:-1] + side * (back[..., :-2] + back[..., 2:])
        return torch.where(live, forth, v)

    def pull(self, v: Tensor) -> Tensor:
        """A' S^-1 v, (..., L)."""
        return self.operator.transpose(self.weight * v)


def conjugate_gradients(apply: Callable[[Tensor], Tensor], b: Tensor, iterations: int, enough: float = 1e-5) -> Tensor:
    """Solve apply(v) = b, each row (..., M) for itself; `apply` symmetric, positive (Hestenes & Stiefel 1952)."""
    v, r = torch.zeros_like(b), b
    p, size = r, (r * r).sum(-1, keepdim=True)
    goal = enough**2 * size
    for _ in range(iterations):
        if bool((size <= goal).all()):
            break
        progress.tick(0)
        image = apply(p)
        bend = (p * image).sum(-1, keepdim=True)
        # a row that is done moves no more, nor one whose matrix bends the wrong way: a network's Jacobian is nearly
        # symmetric and positive, not quite
        step = torch.where((size > goal) & (bend > 0), size / bend.clamp_min(torch.finfo(b.dtype).tiny), 0.0)
        v, r = v + step * p, r - step * image
        new = (r * r).sum(-1, keepdim=True)
        p, size = r + new / size.clamp_min(torch.finfo(b.dtype).tiny) * p, new
    return v


def answer_and_pullback(prior: Denoiser, x: Tensor, sigma: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """D(x) and v -> (dD/dx)' v, also under inference mode (whose tensors know no gradient)."""
    with torch.inference_mode(False), torch.enable_grad():
        at = x.detach().clone().requires_grad_()
        d = prior(at, sigma.clone())

    def pullback(v: Tensor) -> Tensor:
        with torch.inference_mode(False), torch.enable_grad():
            return torch.autograd.grad(d, at, v.clone(), retain_graph=True)[0]

    return d.detach(), pullback


class Posterior(Denoiser):
    """A prior's denoiser and what was measured of one star; x (..., L), all rows draws of that star.

    Attributes:
        exact: True when it is E[x0 | x, y] and nothing was approximated.
    """

    exact: bool = False

    def __init__(self, prior: Denoiser, measured: Measured) -> None:
        super().__init__()
        self.prior, self.measured = prior, measured

    def _check(self, x: Tensor, sigma: Tensor, rho: Tensor | None) -> None:
        check_noise(x, sigma)
        if rho is not None and bool((rho != 0).any()):
            raise ValueError("a posterior denoiser takes white diffusion noise; leave rho out (the observation's "
                             "correlation is its own).")
        if not torch.isfinite(sigma).all():
            raise ValueError("the diffusion noise is infinite somewhere; give finite levels, dead pixels are in ivar.")


class Product(Posterior):
    """E[x0 | x, y] = D(x~, sigma~), sigma~^-2 = sigma^-2 + s^-2, x~ = sigma~^2 (x / sigma^2 + y / s^2), s the true
    noise of y: two Gaussian statements about the same pixels are one. Exact for A = I, dead pixels and white noise.

    With sigma = tau s it is the way from y of core.models.samplers: levels tau / sqrt(1 + tau^2) times s.

    Raises:
        ValueError: another A, or correlated noise.
    """

    exact = True

    def __init__(self, prior: Denoiser, measured: Measured) -> None:
        super().__init__(prior, measured)
        if not measured.operator.identity:
            raise ValueError("the product form needs A = I (dead pixels are welcome); take MMPS for a blur or bins.")
        if measured.taps is not None:
            raise ValueError("the product of white and correlated noise is neither; take MMPS, or start at y.")

    def forward(self, x: Tensor, sigma: Tensor, rho: Tensor | None = None) -> Tensor:
        self._check(x, sigma, rho)
        own, theirs = sigma**-2, self.measured.weight**2
        return self.prior((own * x + theirs * self.measured.y) / (own + theirs), (own + theirs).rsqrt())


class PiGDM(Posterior):
    """E[x0 | x, y] ~ D + sigma^2 J' A' (A r^2 A' + N)^-1 (y - A D), r^2 = sigma^2 p^2 / (sigma^2 + p^2), J = dD/dx
    (Song et al. 2023, ICLR, "Pseudoinverse-guided diffusion models", eq. 7-8; there p = 1, the data's deviation).

    Its guess, that pixels given x are independent with one variance, is far from a star's: results/laboratory.csv.

    Args:
        spread: p, deviation of the data.
        iterations: of conjugate gradients, at most; a diagonal system needs none.

    Raises:
        ValueError: a spread that is not positive, no iterations.
    """

    def __init__(self, prior: Denoiser, measured: Measured, spread: float = 1.0, iterations: int = 30) -> None:
        super().__init__(prior, measured)
        if not spread > 0 or iterations < 1:
            raise ValueError(f"spread {spread} and {iterations} iterations; give a positive spread and at least 1.")
        self.spread, self.iterations = spread, iterations

    def forward(self, x: Tensor, sigma: Tensor, rho: Tensor | None = None) -> Tensor:
        self._check(x, sigma, rho)
        m = self.measured
        d, pullback = answer_and_pullback(self.prior, x, sigma)
        variance = sigma**2 * self.spread**2 / (sigma**2 + self.spread**2)
        if m.operator.identity and m.taps is None:
            solved = m.residual(d) / (m.weight**2 * variance + 1)
        else:
            solved = conjugate_gradients(
                lambda v: m.weight * m.operator.apply(variance * m.pull(v)) + m.correlate(v), m.residual(d),
                self.iterations)
        return d + sigma**2 * pullback(m.pull(solved))


class MMPS(Posterior):
    """E[x0 | x, y] ~ D + V A' (A V A' + N)^-1 (y - A D), V = V[x0 | x] = sigma^2 J' (Tweedie), J = dD/dx (Rozet et al.
    2024, arXiv:2405.13712, eq. 17-20: moment matching posterior sampling).

    Exact when x0 | x is Gaussian. The system is solved in whitened pixels, one vector-Jacobian product an iteration.

    Args:
        iterations: of conjugate gradients, at most; the paper takes 1-5, a Gaussian prior needs as many as it has
            different directions.

    Raises:
        ValueError: no iterations.
    """

    def __init__(self, prior: Denoiser, measured: Measured, iterations: int = 10) -> None:
        super().__init__(prior, measured)
        if iterations < 1:
            raise ValueError(f"{iterations} iterations; give at least 1.")
        self.iterations = iterations

    def forward(self, x: Tensor, sigma: Tensor, rho: Tensor | None = None) -> Tensor:
        self._check(x, sigma, rho)
        m = self.measured
        d, pullback = answer_and_pullback(self.prior, x, sigma)

        def covariance(v: Tensor) -> Tensor:
            return sigma**2 * pullback(v)

        solved = conjugate_gradients(
            lambda v: m.weight * m.operator.apply(covariance(m.pull(v))) + m.correlate(v), m.residual(d),
            self.iterations)
        return d + covariance(m.pull(solved))
