"""Classical filters: the noisy spectrum itself, Savitzky-Golay, wavelet shrinkage with the noise map."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pywt
import torch
from scipy.signal import savgol_coeffs
from torch import Tensor

from core.models.observation import Observation, PointEstimate

Array = npt.NDArray[np.float64]


def bridge(y: Array, live: npt.NDArray[np.bool_]) -> Array:
    """y with each dead stretch replaced by the straight line between its live neighbours, (B, L)."""
    pixels = np.arange(y.shape[1])
    return np.array([np.interp(pixels, pixels[ok], row[ok]) for row, ok in zip(y, live, strict=True)])


class Noisy(PointEstimate):
    """The observation as it came, dead stretches bridged by a straight line: the zero point of every comparison."""

    def estimate(self, observation: Observation) -> Tensor:
        y, live = observation.y.double().numpy(), observation.live.numpy()
        return torch.from_numpy(np.where(live, y, bridge(y, live)))


class SavitzkyGolay(PointEstimate):
    """Local polynomial least squares (Savitzky & Golay 1964), blind to the noise map as it is used in practice.

    Dead pixels are bridged by a straight line first, since the filter itself knows no weights.

    Args:
        window: odd number of pixels.
        order: degree of the polynomial, below window.

    Raises:
        ValueError: window even or not above order.
    """

    def __init__(self, window: int = 11, order: int = 3) -> None:
        if window % 2 == 0 or order < 0 or window <= order:
            raise ValueError(f"Savitzky-Golay window {window}, order {order}: give an odd window above the order.")
        self.coefficients = savgol_coeffs(window, order)

    def estimate(self, observation: Observation) -> Tensor:
        y = bridge(observation.y.double().numpy(), observation.live.numpy())
        half = len(self.coefficients) // 2
        if y.shape[1] <= half:
            raise ValueError(f"spectrum of {y.shape[1]} pixels is shorter than the filter; use a smaller window.")
        padded = np.pad(y, ((0, 0), (half, half)), mode="reflect", reflect_type="odd")  # keeps a slope at the ends
        windows = np.lib.stride_tricks.sliding_window_view(padded, len(self.coefficients), axis=1)
        return torch.from_numpy(windows @ self.coefficients[::-1])


class Wavelet(PointEstimate):
    """Wavelet shrinkage with thresholds from the noise map.

    A stationary (shift-invariant) transform (Coifman & Donoho 1995), hard thresholds of `strength` times each
    coefficient's own standard deviation, which follows from ivar, scale and correlation of the noise through the
    filter's impulse responses: var_j(i) = sum_l (g_j * k)(i - l)^2 s^2 sigma_l^2. Dead pixels are bridged and given the
    variance of the live ones about them.

    Args:
        wavelet: name in PyWavelets.
        levels: octaves that are thresholded.
        strength: threshold in standard deviations.

    Raises:
        ValueError: unknown wavelet, levels < 1, strength < 0.
    """

    def __init__(self, wavelet: str = "sym8", levels: int = 5, strength: float = 3.0) -> None:
        if wavelet not in pywt.wavelist(kind="discrete"):
            raise ValueError(f"wavelet {wavelet!r} is unknown; sym8, db4 and coif3 are usual choices.")
        if levels < 1 or strength < 0:
            raise ValueError(f"levels {levels}, strength {strength}: give at least one level and a strength >= 0.")
        self.wavelet, self.levels, self.strength = wavelet, levels, strength

    def _variances(self, sigma2: Array, side: float) -> list[Array]:
        """Variance of each level's detail coefficients (coarsest first), each like sigma2 (B, L).

        Args:
            sigma2: variance of the noise in each pixel.
            side: side over centre weight of K.
        """
        length = sigma2.shape[1]
        impulse = np.zeros(length)
        impulse[length // 2] = 1.0
        details = [d for _, d in pywt.swt(impulse, self.wavelet, level=self.levels, norm=True)]
        out = []
        for d in details:
            coloured = d + side * (np.roll(d, 1) + np.roll(d, -1))
            power = np.fft.rfft(coloured**2 / (1 + 2 * side**2))
            spread = np.fft.irfft(np.fft.rfft(sigma2, axis=1) * power, n=length, axis=1)
            out.append(np.maximum(np.roll(spread, -(length // 2), axis=1), 0.0))
        return out

    def estimate(self, observation: Observation) -> Tensor:
        y, live = observation.y.double().numpy(), observation.live.numpy()
        wave = observation.wave.numpy()
        sigma = np.where(live, observation.sigma.double().numpy(), 0.0) * observation.noise.scales(wave)
        sigma = bridge(sigma, live)
        # the transform is periodic: mirror the ends as far as its longest filter reaches, lest they see each other
        block, reach = 2**self.levels, (pywt.Wavelet(self.wavelet).dec_len - 1) * (2**self.levels - 1)
        widths = ((0, 0), (reach, reach + (-(y.shape[1] + 2 * reach)) % block))
        flux = np.pad(bridge(y, live), widths, mode="symmetric")
        sigma2 = np.pad(sigma, widths, mode="symmetric") ** 2
        centre, side = observation.noise.taps(np.pad(wave, widths[1], mode="edge"))
        arms = [(side / centre == a, self._variances(sigma2, float(a))) for a in np.unique(side / centre)]
        variances = [np.select([arm for arm, _ in arms], level) for level in zip(*(v for _, v in arms), strict=True)]
        coefficients = pywt.swt(flux, self.wavelet, level=self.levels, norm=True, axis=1, trim_approx=True)
        kept = [coefficients[0]]
        for detail, variance in zip(coefficients[1:], variances, strict=True):
            kept.append(np.where(np.abs(detail) > self.strength * np.sqrt(variance), detail, 0.0))
        clean = pywt.iswt(kept, self.wavelet, norm=True, axis=1)
        return torch.from_numpy(np.ascontiguousarray(clean[:, reach : reach + y.shape[1]]))
