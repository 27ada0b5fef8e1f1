"""What data say about a correlated residual, pixel by pixel: Wiener filters from a table."""

from __future__ import annotations

import torch
from torch import Tensor, nn

_SHARES = 33  # filters in the table, for shares of the residual in the total variance from 0 to 1
_RANK = 4  # filters that all others are made of, to 1e-3
_PERIOD = 64  # pixels of the spectrum the filters are made from: the residual is correlated over 24
_REACH = 16  # pixels to either side; beyond, the filters are below 1e-3
_LEAST = 1e-3  # of the residual's spectrum, in units of its mean: the taps leave some frequencies out altogether
_BLOCK = 64  # pixels filtered at once: one product with a small matrix, which CPUs and GPUs do fastest


class ResidualFilter(nn.Module):
    """E[e | e + n] for a residual e of variance R and known correlation, and white noise n of variance v (Wiener 1949).

    Both may change along the spectrum, slowly next to the correlation's length: e + n is divided by sqrt(R + v), and
    the filter of the local share q = R / (R + v) is applied, between the table's: its transfer function is
    q S / (1 - q + q S), S the residual's spectrum of unit mean. Pixel by pixel, without the correlation, 1-4 % more of
    the error is left (docs/training.md).

    Args:
        taps: (T,) moving average of unit norm that makes the residual from white noise.
    """

    mix: Tensor
    left: Tensor
    blocks: Tensor

    def __init__(self, taps: Tensor) -> None:
        super().__init__()
        padded = torch.nn.functional.pad(taps.double(), (0, _PERIOD - len(taps)))
        spectrum = torch.fft.fft(padded).abs().square().clamp_min(_LEAST)
        q = torch.linspace(0, 1, _SHARES, dtype=torch.float64)[:, None]
        answer = q * spectrum / (1 - q + q * spectrum)
        rows = torch.fft.ifft(answer).real
        filters = torch.cat([rows[:, -_REACH:], rows[:, : _REACH + 1]], 1)
        u, s, vt = torch.linalg.svd(filters, full_matrices=False)
        self.register_buffer("mix", (u[:, :_RANK] * s[:_RANK]).float(), persistent=False)  # (shares, rank)
        self.register_buffer("left", ((1 - q) * answer).mean(1).float(), persistent=False)
        blocks = torch.zeros(_BLOCK + 2 * _REACH, _RANK, _BLOCK, dtype=torch.float64)
        for i in range(_BLOCK):  # the filters are symmetric
            blocks[i : i + 2 * _REACH + 1, :, i] = vt[:_RANK].T
        self.register_buffer("blocks", blocks.flatten(1).float(), persistent=False)

    @staticmethod
    def _between(table: Tensor, share: Tensor) -> Tensor:
        at = share * (_SHARES - 1)
        low = at.floor().clamp(0, _SHARES - 2).long()
        t = (at - low).reshape(*share.shape, *[1] * (table.ndim - 1))
        return (1 - t) * table[low] + t * table[low + 1]

    def variance(self, share: Tensor) -> Tensor:
        """Posterior variance of the residual over R + v, for shares q of any shape."""
        return self._between(self.left, share)

    def weights(self, share: Tensor) -> Tensor:
        """(..., L, rank) of what `mean` mixes, for shares (..., L)."""
        return self._between(self.mix, share)

    def mean(self, seen: Tensor, weights: Tensor) -> Tensor:
        """(n, ..., L) posterior mean of e / sqrt(R + v) from (e + n) / sqrt(R + v).

        Args:
            weights: (..., L, rank) of the shares, from `weights`.
        """
        length = seen.shape[-1]
        padded = torch.nn.functional.pad(seen, (_REACH, _REACH + -length % _BLOCK))
        windows = padded.unfold(-1, _BLOCK + 2 * _REACH, _BLOCK)
        every = (windows @ self.blocks).view(*windows.shape[:-1], _RANK, _BLOCK).transpose(-1, -2).flatten(-3, -2)
        return (every[..., :length, :] * weights).sum(-1)
