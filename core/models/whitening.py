"""The noise of one observation as linear algebra: D = N + diag(r), white or correlated, without dead pixels."""

from __future__ import annotations

import numpy as np
import torch
from scipy.linalg import cholesky_banded
from scipy.linalg.lapack import dtbtrs
from torch import Tensor

from core.models.observation import Observation


class Whitener:
    """D = S C S + diag(r) over the live pixels, S = s sigma, C = K K' (a band of two); its square root and inverse.

    Dead pixels are decoupled from the live ones (their row and column of C set to zero, their flux to zero), which is
    the exact marginal over them, not the limit of a large sigma that would leave their neighbours' correlation behind.

    Args:
        observation: of one star; its ivar, scale and correlation say what N is.
        residual: (L,) variance r of the prior's residual, added to the noise's diagonal.
    """

    def __init__(self, observation: Observation, residual: Tensor) -> None:
        wave = observation.wave.numpy()
        live = observation.live[0]
        scale = torch.as_tensor(observation.noise.scales(wave), dtype=torch.float32)
        self.live, self.residual = live, residual
        self.sigma = torch.where(live, observation.ivar[0].clamp_min(1e-30).rsqrt().float() * scale, 0.0)
        total = self.sigma**2 + residual
        self.white = observation.noise.white
        self.taps = [torch.as_tensor(a, dtype=torch.float32) for a in observation.noise.taps(wave)]
        if self.white:
            self._weight = torch.where(live, 1.0 / total, 0.0)
            self.log_det = float(torch.log(total[live]).double().sum())
            return
        centre, side = observation.noise.taps(wave)
        s = self.sigma.double().numpy()
        on = live.numpy()
        band = np.zeros((3, len(s)))
        band[0] = np.where(on, s**2 + residual.double().numpy(), 1.0)
        # K K' between pixels i and i + 1, i + 2: rows of K overlap by two taps and by one
        band[1, :-1] = s[:-1] * s[1:] * (centre[:-1] * side[1:] + side[:-1] * centre[1:])
        band[2, :-2] = s[:-2] * s[2:] * side[:-2] * side[2:]
        self._factor = cholesky_banded(band, lower=True)
        self.log_det = float(2 * np.log(self._factor[0][on]).sum())
        self._diagonal: Tensor | None = None

    def half(self, rows: Tensor) -> Tensor:
        """D^-1/2 applied to rows (n, L): the rows of any vectors that the noise makes correlated become white."""
        if self.white:
            return rows * self._weight.sqrt()
        columns = np.asfortranarray(torch.where(self.live, rows, 0.0).double().numpy().T)
        answer, info = dtbtrs(self._factor, columns, uplo="L")
        if info != 0:
            raise ValueError("the noise covariance is singular; check that ivar is finite and rho at most 0.7.")
        return torch.from_numpy(np.ascontiguousarray(answer.T)).float()

    def solve(self, rows: Tensor) -> Tensor:
        """D^-1 applied to rows (..., L), zero in dead pixels."""
        if self.white:
            return rows * self._weight
        flat = rows.reshape(-1, rows.shape[-1])
        columns = np.asfortranarray(torch.where(self.live, flat, 0.0).double().numpy().T)
        once, _ = dtbtrs(self._factor, columns, uplo="L")
        twice, _ = dtbtrs(self._factor, once, uplo="L", trans="T")
        return torch.where(self.live, torch.from_numpy(np.ascontiguousarray(twice.T)).float(), 0.0).reshape(rows.shape)

    def diagonal(self) -> Tensor:
        """(L,) diagonal of D^-1, zero in dead pixels.

        It follows from the factor's own band, from the last pixel back (Takahashi, Fagan & Chin 1973).
        """
        if self.white:
            return self._weight
        if self._diagonal is None:
            f = self._factor
            n = f.shape[1]
            d0, d1, d2 = np.zeros(n + 2), np.zeros(n + 2), np.zeros(n + 2)  # Z_ii, Z_i,i+1, Z_i,i+2
            a, b = f[1] / f[0], f[2] / f[0]
            inv2 = 1.0 / f[0] ** 2
            for i in range(n - 1, -1, -1):
                d1[i] = -a[i] * d0[i + 1] - b[i] * d1[i + 1]
                d2[i] = -a[i] * d1[i + 1] - b[i] * d0[i + 2]
                d0[i] = inv2[i] - a[i] * d1[i] - b[i] * d2[i]
            self._diagonal = torch.where(self.live, torch.from_numpy(d0[:n]).float(), 0.0)
        return self._diagonal

    def complete(self, y: Tensor, smooth: Tensor, e: Tensor, white: Tensor) -> Tensor:
        """Draws (n, L) of the clean spectrum from draws of its smooth part (n, L), by Matheron's rule for the residual.

        Args:
            y: (L,) what was observed; e: (n, L) and white: (n, L + 2) standard normal numbers.
        """
        prior = e * self.residual.sqrt()
        return smooth + prior + self.residual * self.solve(y - smooth - prior - self.noise(white))

    def noise(self, z: Tensor) -> Tensor:
        """N^1/2 z: noise (n, L) with the observation's covariance, from white z (n, L + 2)."""
        centre, side = self.taps
        return self.sigma * (centre * z[..., 1:-1] + side * (z[..., :-2] + z[..., 2:]))
