"""Priors whose denoiser, posterior and draws are known in closed form: where a sampler's own error can be measured."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from core.data.grid import WAVE
from core.data.instrument import MARGIN
from core.models.denoiser import Denoiser, check_noise
from core.models.mixture import Mixture
from core.spectrum import Array, Kernel

_T = TypeVar("_T")
_KEPT = 128  # noise maps whose algebra is remembered: more than the levels of one sampler


class _Remembered(dict[tuple[object, ...], object]):
    """What was worked out for a noise map, found again by the map's own bytes; the oldest are forgotten."""

    def recall(self, sigma: Tensor, rho: Tensor | None, work: Callable[[Tensor, Tensor | None], _T]) -> _T:
        key = tuple(None if a is None else (a.dtype, tuple(a.shape), a.detach().cpu().numpy().tobytes())
                    for a in (sigma, rho))
        if key not in self:
            if len(self) >= _KEPT:
                del self[next(iter(self))]
            # normal tensors even under inference mode: a later call may want a gradient through them
            with torch.inference_mode(False), torch.no_grad():
                self[key] = work(sigma.clone(), None if rho is None else rho.clone())
        return self[key]  # type: ignore[return-value]


class GaussianOracle(Denoiser):
    """x0 ~ N(mean, P): D(x) = mean + P (P + N)^-1 (x - mean), N = sigma K K' sigma, over the live pixels.

    Args:
        mean: (L,); covariance: (L, L), positive definite.
        wave: (L,) vacuum wavelength [Angstrom]: which arm's correlation holds; needed where rho is given.

    Raises:
        ValueError: shapes that disagree, a covariance that is not positive definite.
    """

    def __init__(self, mean: Tensor, covariance: Tensor, wave: Array | None = None) -> None:
        super().__init__()
        if covariance.shape != (len(mean), len(mean)):
            raise ValueError(f"covariance {tuple(covariance.shape)} for {len(mean)} pixels; give (L, L).")
        root, failed = torch.linalg.cholesky_ex(covariance)
        if bool(failed):
            raise ValueError("the covariance is not positive definite; add a little to its diagonal.")
        self.mean, self.covariance, self.root, self.wave = mean, covariance, root, wave
        self._known = _Remembered()

    def forward(self, x: Tensor, sigma: Tensor, rho: Tensor | None = None) -> Tensor:
        check_noise(x, sigma)
        batch = sigma if sigma.ndim > 1 else sigma.reshape(1, -1)
        batch = batch.expand(*batch.shape[:-1], x.shape[-1])
        gain = self._known.recall(batch, rho, self._gain)
        gap, pixels = x - self.mean, len(self.mean)
        if gain.numel() == pixels**2:  # one map for all: one matrix product
            return self.mean + gap @ gain.reshape(pixels, pixels).T
        return self.mean + (gain @ gap[..., None])[..., 0]

    def _gain(self, sigma: Tensor, rho: Tensor | None) -> Tensor:
        """(..., L, L) P (P + N)^-1, zero columns in dead pixels."""
        live = torch.isfinite(sigma)
        both = live[..., :, None] & live[..., None, :]
        eye = torch.eye(len(self.mean), dtype=sigma.dtype)
        total = torch.where(both, self.covariance + self.noise(sigma, rho), eye)
        known = torch.where(live[..., None, :], self.covariance, 0.0)
        return torch.linalg.solve(total, known, left=False)

    def noise(self, sigma: Tensor, rho: Tensor | None = None) -> Tensor:
        """(..., L, L) covariance of the noise; rows of dead pixels are zero.

        Raises:
            ValueError: rho without wave.
        """
        s = torch.where(torch.isfinite(sigma), sigma, 0.0)
        if rho is None:
            return torch.diag_embed(s**2)
        if self.wave is None:
            raise ValueError("rho is given and the oracle does not know its wavelengths; construct it with wave.")
        rows = []
        for r in rho.reshape(-1, 2).tolist():
            k = torch.as_tensor(colouring(Kernel(rho=(r[0], r[1])), self.wave), dtype=sigma.dtype)
            rows.append(k @ k.T)
        correlation = torch.stack(rows) if rho.ndim > 1 else rows[0]
        return s[..., :, None] * correlation * s[..., None, :]

    def posterior(self, y: Tensor, noise: Tensor, operator: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Mean (L,) and covariance (L, L) of the clean spectrum given y = A x + n.

        Args:
            y: (M,); noise: (M, M) covariance of n; operator: (M, L), the identity when None.
        """
        a = torch.eye(len(self.mean), dtype=y.dtype) if operator is None else operator
        gain = torch.linalg.solve(a @ self.covariance @ a.T + noise, self.covariance @ a.T, left=False)
        return self.mean + gain @ (y - a @ self.mean), self.covariance - gain @ a @ self.covariance


def colouring(kernel: Kernel, wave: Array) -> Array:
    """(L, L + 2) K as a matrix: K z for white z."""
    return np.asarray(kernel.colour(wave, np.eye(len(wave) + 2)).T)


class DiagonalMixture(Denoiser):
    """x0 = mean_j + t F_j + e, t ~ N(0, I), e ~ N(0, diag r_j), under white noise: denoiser and posterior, exact.

    With D = sigma^2 + r, A = I + F D^-1 F', h = F D^-1 (x - mean): t | x, j ~ N(A^-1 h, A^-1) and log p(x | j) =
    -1/2 (log|D| + log|A| + (x - mean)' D^-1 (x - mean) - h' A^-1 h) (Ghahramani & Hinton 1996). The laboratory: a
    realistic stellar prior with every pixel, where each sampler's error is known because the posterior is.

    Args:
        log_weight: (P,); mean: (P, L); factors: (P, k, L); residual: (P, L), variance r.

    Raises:
        ValueError: shapes that disagree, a residual that is not positive.
    """

    def __init__(self, log_weight: Tensor, mean: Tensor, factors: Tensor, residual: Tensor) -> None:
        super().__init__()
        p, pixels = mean.shape
        if log_weight.shape != (p,) or residual.shape != mean.shape or factors.shape[::2] != (p, pixels):
            raise ValueError(f"weights {tuple(log_weight.shape)}, means {tuple(mean.shape)}, factors "
                             f"{tuple(factors.shape)} and residual {tuple(residual.shape)} disagree; give (P,), "
                             "(P, L), (P, k, L), (P, L).")
        if not (residual > 0).all():
            raise ValueError("the residual variance is not positive everywhere; give numbers above 0.")
        self.log_weight = log_weight.log_softmax(0)
        self.mean, self.factors, self.residual = mean, factors, residual
        self._known = _Remembered()

    @classmethod
    def committed(cls, factors: int = 60, dtype: torch.dtype = torch.float32) -> DiagonalMixture:
        """The committed mixture's components from physics, at rest, white residual, without its unit and velocity.

        A laboratory, not a method: real spectra move, and their residual is correlated.
        """
        m = Mixture.load()
        use = torch.tensor([i for i, kind in enumerate(m.kinds) if kind == "physics"])
        inside = slice(MARGIN, MARGIN + len(WAVE))
        return cls(*(a.to(dtype) for a in (m.log_weight[use], m.mean[use][:, inside],
                                           m.factors[use][:, :factors, inside], m.residual[use][:, inside])))

    def _algebra(self, sigma: Tensor, rho: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Weight 1/D (P, B, L), Cholesky factor of A (P, B, k, k), log|D| + log|A| (P, B)."""
        weight = 1 / (sigma**2 + self.residual[:, None])
        gram = torch.stack([(f * w[:, None]) @ f.T for f, w in zip(self.factors, weight, strict=True)]).double()
        chol = torch.linalg.cholesky(gram + torch.eye(gram.shape[-1], dtype=torch.float64))
        log_det = 2 * chol.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        log_det = log_det - torch.where(weight > 0, weight, 1.0).double().log().sum(-1)
        return weight, chol.to(sigma.dtype), log_det

    def _scores(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Of x (n, B, L): log weights (P, n, B), mean scores (P, n, B, k), the algebra's 1/D and Cholesky factor."""
        weight, chol, log_det = self._known.recall(sigma, None, self._algebra)
        logs, scores = [], []
        for j in range(len(self.mean)):
            gap = x - self.mean[j]
            scaled = gap * weight[j]
            h = scaled @ self.factors[j].T
            t = torch.cholesky_solve(h.movedim(0, -1), chol[j]).movedim(-1, 0)
            distance = (gap * scaled).double().sum(-1) - (h * t).double().sum(-1)
            logs.append(self.log_weight[j] - 0.5 * (log_det[j] + distance))
            scores.append(t)
        return torch.stack(logs).log_softmax(0), torch.stack(scores), weight, chol

    def _shaped(self, x: Tensor, sigma: Tensor, rho: Tensor | None) -> tuple[Tensor, Tensor]:
        """x as (n, B, L) and its map as (B, L)."""
        check_noise(x, sigma)
        if rho is not None and bool((rho != 0).any()):
            raise ValueError("the laboratory's prior knows white noise alone; use the mixture for correlated noise.")
        pixels = self.mean.shape[1]
        if x.shape[-1] != pixels:
            raise ValueError(f"x has {x.shape[-1]} pixels and the prior {pixels}; bring it onto the prior's grid.")
        while sigma.ndim > 2 and len(sigma) == 1:
            sigma = sigma[0]
        if sigma.ndim > 2:
            sigma, x = sigma.expand(x.shape).reshape(-1, pixels), x.reshape(1, -1, pixels)
        rows = x.shape[-2] if x.ndim > 1 else 1
        if sigma.ndim < 2 or len(sigma) == 1:  # one map for all: all rows are draws under it
            return x.reshape(-1, 1, pixels), sigma.to(x.dtype).expand(1, pixels)
        return x.reshape(-1, rows, pixels), sigma.to(x.dtype).expand(rows, pixels)

    def forward(self, x: Tensor, sigma: Tensor, rho: Tensor | None = None) -> Tensor:
        rows, sigma = self._shaped(x, sigma, rho)
        log_weight, scores, weight, _ = self._scores(rows, sigma)
        share = log_weight.exp().to(x.dtype)
        out = torch.zeros_like(rows)
        for j in range(len(share)):
            if float(share[j].detach().max()) < 1e-9:
                continue
            smooth = self.mean[j] + scores[j] @ self.factors[j]
            out = out + share[j, ..., None] * (smooth + self.residual[j] * weight[j] * (rows - smooth))
        return out.reshape(x.shape)

    def moments(self, y: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """Posterior mean and deviation of the clean spectrum, each (B, L), of y (B, L)."""
        rows, sigma = self._shaped(y[None], sigma, None)
        log_weight, scores, weight, chol = self._scores(rows, sigma)
        mean = self(y, sigma)
        variance = torch.zeros_like(rows, dtype=torch.float64)
        for j, share in enumerate(log_weight.exp()):
            smooth = self.mean[j] + scores[j] @ self.factors[j]
            kept = self.residual[j] * weight[j]  # (B, L), and 1 - kept is the noise's share
            centre = smooth + kept * (rows - smooth)
            root = torch.linalg.solve_triangular(chol[j], self.factors[j].expand(len(chol[j]), -1, -1), upper=False)
            within = self.residual[j] * (1 - kept) + (root**2).sum(-2) * (1 - kept) ** 2
            variance += share[..., None] * (within + (centre.reshape(y.shape) - mean).reshape(rows.shape) ** 2)
        return mean, variance.reshape(y.shape).sqrt().to(y.dtype)

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """(n, L) clean spectra of the prior itself."""
        j = torch.multinomial(self.log_weight.exp(), n, replacement=True, generator=generator)
        t, e = (torch.randn(n, s, generator=generator, dtype=self.mean.dtype)
                for s in (self.factors.shape[1], self.mean.shape[1]))
        return self.mean[j] + torch.einsum("nk,nkl->nl", t, self.factors[j]) + e * self.residual[j].sqrt()

    def posterior_draws(self, y: Tensor, sigma: Tensor, n: int, generator: torch.Generator) -> Tensor:
        """(n, L) draws of the clean spectrum of one star y (L,) with map sigma (L,), infinite where dead."""
        rows, sigma = self._shaped(y[None, None], sigma, None)
        log_weight, scores, weight, chol = self._scores(rows, sigma)
        j = torch.multinomial(log_weight[:, 0, 0].exp(), n, replacement=True, generator=generator)
        z, e = (torch.randn(n, s, generator=generator, dtype=y.dtype)
                for s in (self.factors.shape[1], self.mean.shape[1]))
        out = torch.empty(n, len(y), dtype=y.dtype)
        for i in set(j.tolist()):
            at, kept = j == i, self.residual[i] * weight[i, 0]
            c = scores[i, 0, 0] + torch.linalg.solve_triangular(chol[i, 0].T, z[at].T, upper=True).T
            smooth = self.mean[i] + c @ self.factors[i]
            out[at] = smooth + kept * (y - smooth) + (self.residual[i] * (1 - kept)).sqrt() * e[at]
        return out
