"""The noise of one observation as linear algebra: D = N + R, both banded, without dead pixels."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from scipy.linalg import cholesky_banded
from torch import Tensor

from core.models.observation import Observation

_BLOCK = 32  # pixels; no correlation may reach further
REACH = _BLOCK - 2  #: longest residual kernel [taps]
_Index = npt.NDArray[np.int64]


@lru_cache(maxsize=8)
def _places(n: int, lags: int) -> tuple[_Index, _Index]:
    """Where the entries of the blocks L_kk and L_k,k-1 lie in a flattened band (lags + 1, n) whose last row is zero."""
    blocks = -(-n // _BLOCK)
    first = np.arange(blocks)[:, None, None] * _BLOCK
    row, column = first + np.arange(_BLOCK)[:, None], first + np.arange(_BLOCK)

    def at(i: _Index, j: _Index) -> _Index:
        lag = i - j
        inside = (lag >= 0) & (lag < lags) & (j >= 0)
        return np.asarray(np.where(inside, lag * blocks * _BLOCK + j, lags * blocks * _BLOCK))

    return at(row, column), at(row, column - _BLOCK)


class Whitener:
    """D = S C S + R over the live pixels: the noise, S = s sigma, C = K K' (a band of two), and the prior's residual,
    R_ij = sqrt(r_i r_j) rho(|i - j|); its square root, inverse, and what it leaves open.

    Dead pixels are decoupled from the live ones (their row and column of D set to zero), which is the exact marginal
    over them, not the limit of a large sigma that would leave their neighbours' correlation behind.

    All columns are (L, n): pixels first. The banded Cholesky factor is cut into blocks of 32 pixels, so that a solve is
    a chain of small matrix products over as many columns as one likes.

    Args:
        observation: of one star; its ivar, scale and correlation say what N is.
        residual: (L,) variance r of the prior's residual.
        taps: (T,) moving average that makes the residual from white noise, of unit norm; rho is its autocorrelation.
            One tap: independent from pixel to pixel.

    Raises:
        ValueError: more taps than blocks can hold.
    """

    def __init__(self, observation: Observation, residual: Tensor, taps: Tensor | None = None) -> None:
        wave = observation.wave.numpy()
        live = observation.live[0]
        scale = torch.as_tensor(observation.noise.scales(wave), dtype=torch.float32)
        self.taps = torch.ones(1) if taps is None else taps
        if len(self.taps) > REACH:
            raise ValueError(f"a residual kernel of {len(self.taps)} taps; give at most {REACH}.")
        self.live, self.residual = live, residual
        self.sigma = torch.where(live, observation.ivar[0].clamp_min(1e-30).rsqrt().float() * scale, 0.0)
        self._kernel = [torch.as_tensor(a, dtype=torch.float32) for a in observation.noise.taps(wave)]
        self._variance: Tensor | None = None
        self.diagonal = observation.noise.white and len(self.taps) == 1
        total = self.sigma**2 + residual
        if self.diagonal:
            self._weight = torch.where(live, 1.0 / total, 0.0)
            self.log_det = float(torch.log(total[live]).double().sum())
            return
        self._noise = self._noise_band(*observation.noise.taps(wave))
        self._rho = np.correlate(self.taps.double().numpy(), self.taps.double().numpy(), "full")[len(self.taps) - 1 :]
        self._factorise()

    def _noise_band(self, centre: npt.NDArray[np.float64], side: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """(3, L) diagonals of N: rows of K overlap by two taps and by one between pixels i and i + 1, i + 2."""
        s = self.sigma.double().numpy()
        band = np.zeros((3, len(s)))
        band[0] = s**2
        band[1, :-1] = s[:-1] * s[1:] * (centre[:-1] * side[1:] + side[:-1] * centre[1:])
        band[2, :-2] = s[:-2] * s[2:] * side[:-2] * side[2:]
        return band

    def _factorise(self) -> None:
        """Banded Cholesky factor of D, its blocks and their inverses."""
        on, n = self.live.numpy(), len(self.residual)
        blocks = -(-n // _BLOCK)
        lags = max(3, len(self._rho))
        root = self.residual.double().numpy() ** 0.5 * on
        band = np.zeros((lags + 1, blocks * _BLOCK))
        band[:3, :n] = self._noise
        for lag, rho in enumerate(self._rho):
            band[lag, : n - lag] += rho * root[: n - lag] * root[lag:]
        band[0, :n] = np.where(on, band[0, :n], 1.0)
        band[0, n:] = 1.0
        try:
            band[:lags] = cholesky_banded(band[:lags], lower=True)
        except np.linalg.LinAlgError as error:
            raise ValueError("the noise covariance is singular; check that ivar is finite.") from error
        self.log_det = float(2 * np.log(band[0, :n][on]).sum())
        own, before = (torch.from_numpy(band.ravel()[at]) for at in _places(n, lags))
        eye = torch.eye(_BLOCK, dtype=torch.float64).expand(blocks, _BLOCK, _BLOCK)
        self._inverse = torch.linalg.solve_triangular(own, eye, upper=False)
        self._before = before
        self._down = (self._inverse.float(), list((self._inverse @ before).float()))
        after = self._inverse[:-1].mT @ before[1:].mT
        self._up = (self._inverse.mT.float().contiguous(), list(after.float()))

    def _blocks(self, columns: Tensor) -> Tensor:
        n = len(self.residual)
        masked = torch.where(self.live[:, None], columns, 0.0)
        if n % _BLOCK:
            masked = torch.nn.functional.pad(masked, (0, 0, 0, -n % _BLOCK))
        return masked.view(-1, _BLOCK, columns.shape[1])

    def _chain(self, step: tuple[Tensor, list[Tensor]], blocks: Tensor, back: bool = False) -> Tensor:
        """L^-1 (or L^-1' when `back`) applied block by block."""
        inverse, coupling = step
        whole = torch.bmm(inverse, blocks)
        parts = list(whole)  # views: what is added to them is added to the whole
        for k in range(len(parts) - 2, -1, -1) if back else range(1, len(parts)):
            parts[k].addmm_(coupling[k], parts[k + 1 if back else k - 1], alpha=-1.0)
        return whole

    def half(self, columns: Tensor) -> Tensor:
        """D^-1/2 of columns (L, n), padded to whole blocks: what the noise makes correlated becomes white."""
        if self.diagonal:
            return columns * self._weight.sqrt()[:, None]
        return self._chain(self._down, self._blocks(columns)).flatten(0, 1)

    def solve(self, columns: Tensor) -> Tensor:
        """D^-1 of columns (L, n), zero in dead pixels."""
        if self.diagonal:
            return columns * self._weight[:, None]
        white = self._chain(self._down, self._blocks(columns))
        answer = self._chain(self._up, white, back=True).flatten(0, 1)[: len(columns)]
        return torch.where(self.live[:, None], answer, 0.0)

    def open(self, columns: Tensor) -> Tensor:
        """(I - R D^-1) of columns (L, n): what the data leave open of each (N D^-1 where live: no digits lost)."""
        if self.diagonal:
            return columns * (1 - self.residual * self._weight)[:, None]
        solved = self.solve(columns)
        out = self._band_times(self._noise, solved)
        dead = torch.nonzero(~self.live).flatten()
        if len(dead):
            place, weight = self._residual_rows(dead)
            out[dead] = columns[dead] - torch.bmm(weight[:, None], solved[place])[:, 0]
        return out

    def _band_times(self, band: npt.NDArray[np.float64], columns: Tensor) -> Tensor:
        rows = torch.as_tensor(band, dtype=torch.float32)[:, :, None]
        out = rows[0] * columns
        for lag in range(1, len(rows)):
            out[:-lag] += rows[lag, :-lag] * columns[lag:]
            out[lag:] += rows[lag, :-lag] * columns[:-lag]
        return out

    def _residual_rows(self, at: Tensor) -> tuple[Tensor, Tensor]:
        """The entries of rows `at` of R that are not zero: their columns and values, each (len(at), 2 reach + 1)."""
        reach = len(self._rho) - 1
        rho = torch.as_tensor(np.concatenate([self._rho[:0:-1], self._rho]), dtype=torch.float32)
        place = at[:, None] + torch.arange(-reach, reach + 1)
        inside = (place >= 0) & (place < len(self.residual))
        place = place.clamp(0, len(self.residual) - 1)
        return place, torch.where(inside, rho * (self.residual[at, None] * self.residual[place]).sqrt(), 0.0)

    def variance(self) -> Tensor:
        """(L,) diagonal of R - R D^-1 R: what the data leave open of the residual itself.

        Live pixels: of N - N D^-1 N, with the inverse's blocks beside the diagonal from the last pixel back (Takahashi,
        Fagan & Chin 1973). Dead pixels: r less the squared norm of the whitened column of R.
        """
        if self.diagonal:
            return self.residual * (1 - self.residual * self._weight)
        if self._variance is None:
            z = self._inverse_band(5)
            n = len(self.residual)
            size = np.zeros((5, n))  # rows of N: column i + d - 2
            for lag in range(3):
                size[2 + lag, : n - lag] = self._noise[lag, : n - lag]
                size[2 - lag, lag:] = self._noise[lag, : n - lag]
            padded = np.pad(z, ((0, 0), (2, 4)))  # entry (lag, i) of the inverse lies at column i + 2
            taken = np.zeros(n)
            for a in range(-2, 3):
                for b in range(-2, 3):
                    low = min(a, b)
                    taken += size[2 + a] * size[2 + b] * padded[abs(a - b), 2 + low : 2 + low + n]
            out = torch.as_tensor(self._noise[0] - taken).float()
            dead = torch.nonzero(~self.live).flatten()
            if len(dead):
                columns = torch.zeros(n, len(dead))
                place, weight = self._residual_rows(dead)
                columns.index_put_((place, torch.arange(len(dead))[:, None].expand_as(place)), weight, accumulate=True)
                out[dead] = self.residual[dead] - (self.half(columns) ** 2).sum(0)
            self._variance = out.clamp_min(0.0)
        return self._variance

    def _inverse_band(self, lags: int) -> npt.NDArray[np.float64]:
        """(lags, L) diagonals of D^-1."""
        m, before = self._inverse, self._before
        blocks = len(m)
        own: list[Tensor] = [torch.empty(0)] * blocks
        beside: list[Tensor] = [torch.zeros(_BLOCK, _BLOCK, dtype=torch.float64)] * blocks  # Z_k+1,k
        own[-1] = m[-1].T @ m[-1]
        for k in range(blocks - 2, -1, -1):
            back = before[k + 1] @ m[k]
            beside[k] = -own[k + 1] @ back
            own[k] = m[k].T @ m[k] - back.T @ beside[k]
        pair = torch.cat([torch.stack(own), torch.stack(beside)], 1).numpy()  # rows k * 32 ... + 64, columns of block k
        at = np.arange(_BLOCK)
        band = np.stack([pair[:, at + lag, at].ravel() for lag in range(lags)])[:, : len(self.residual)]
        return np.where(self.live.numpy(), band, 0.0)

    def complete(self, y: Tensor, smooth: Tensor, e: Tensor, white: Tensor) -> Tensor:
        """Draws (n, L) of the clean spectrum from draws of its smooth part (n, L), by Matheron's rule for the residual.

        Args:
            y: (L,) or (n, L) what was observed; e: (n, L + T - 1) and white: (n, L + 2) standard normal numbers.
        """
        prior = coloured(e, self.taps) * self.residual.sqrt()
        gap = torch.where(self.live, y - smooth - prior - self.noise(white), 0.0).T
        return smooth + prior + (gap - self.open(gap)).T

    def noise(self, z: Tensor) -> Tensor:
        """N^1/2 z: noise (n, L) with the observation's covariance, from white z (n, L + 2)."""
        centre, side = self._kernel
        return self.sigma * (centre * z[..., 1:-1] + side * (z[..., :-2] + z[..., 2:]))


def coloured(white: Tensor, taps: Tensor) -> Tensor:
    """Moving average of white numbers (n, L + T - 1) -> (n, L), with variance 1 for taps (T,) of unit norm."""
    if len(taps) == 1:
        return white
    return torch.nn.functional.conv1d(white[:, None], taps[None, None])[:, 0]
