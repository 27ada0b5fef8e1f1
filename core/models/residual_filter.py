"""What data say about a correlated residual, pixel by pixel: Wiener filters from a table."""

from __future__ import annotations

import torch
from torch import Tensor, nn

_SHARES = 9  # filters, for shares of the residual in the total variance from 0 to 1; what is between is linear
_PERIOD = 64  # pixels of the spectrum the filters are made from: the residual is correlated over 24
_REACH = 16  # pixels to either side; beyond, the filters are below 1e-3
_LEAST = 1e-3  # of the residual's spectrum, in units of its mean: the taps leave some frequencies out altogether


class ResidualFilter(nn.Module):
    """E[e | e + n] for a residual e of variance R and known correlation, and white noise n of variance v (Wiener 1949).

    Both may change along the spectrum, slowly next to the correlation's length: e + n is divided by sqrt(R + v), and
    the filter of the local share q = R / (R + v) is applied, between the table's: its transfer function is
    q S / (1 - q + q S), S the residual's spectrum of unit mean. Pixel by pixel, without the correlation, 1-4 % more of
    the error is left (docs/training.md).

    Args:
        taps: (T,) moving average of unit norm that makes the residual from white noise.
    """

    filters: Tensor
    left: Tensor

    def __init__(self, taps: Tensor) -> None:
        super().__init__()
        padded = torch.nn.functional.pad(taps.double(), (0, _PERIOD - len(taps)))
        spectrum = torch.fft.fft(padded).abs().square().clamp_min(_LEAST)
        q = torch.linspace(0, 1, _SHARES, dtype=torch.float64)[:, None]
        answer = q * spectrum / (1 - q + q * spectrum)
        rows = torch.fft.ifft(answer).real
        self.register_buffer("filters", torch.cat([rows[:, -_REACH:], rows[:, : _REACH + 1]], 1).float(),
                             persistent=False)
        self.register_buffer("left", ((1 - q) * answer).mean(1).float(), persistent=False)

    def place(self, share: Tensor) -> tuple[Tensor, Tensor]:
        """Number of the filter below a share q (any shape) and how far q is to the next one, in 0-1."""
        at = share * (_SHARES - 1)
        low = at.floor().clamp(0, _SHARES - 2).long()
        return low, at - low

    def variance(self, place: tuple[Tensor, Tensor]) -> Tensor:
        """Posterior variance of the residual over R + v, for places (any shape)."""
        low, t = place
        return (1 - t) * self.left[low] + t * self.left[low + 1]

    def mean(self, seen: Tensor, place: tuple[Tensor, Tensor]) -> Tensor:
        """(n, ..., L) posterior mean of e / sqrt(R + v) from (e + n) / sqrt(R + v); places are (..., L)."""
        low, t = place
        every = torch.nn.functional.conv1d(seen.reshape(-1, 1, seen.shape[-1]), self.filters[:, None],
                                           padding=_REACH).view(*seen.shape[:-1], _SHARES, seen.shape[-1])
        at = low.expand(seen.shape)[..., None, :]
        below, above = (every.gather(-2, at + i)[..., 0, :] for i in (0, 1))
        return (1 - t) * below + t * above
