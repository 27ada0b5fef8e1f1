"""The emulator's stars on the working grid with its margins, ready for the simulator (NumPy out)."""

from __future__ import annotations

import numpy as np
import torch

from core.data.instrument import WIDE
from core.data.synthetic import broaden
from core.models.emulator import Emulator
from core.spectrum import Array

NATIVE = 2400.0  #: lambda/FWHM of the templates: above LAMOST's 2200, and blurred enough to be sampled by 1e-4 dex


class Templates:
    """labels (n, 28) -> flux / continuum (n, 3864) at R = 2400 and true continuum (n, 3864), both on WIDE, at rest.

    Args:
        emulator: labels to principal components; the committed one by default.
    """

    def __init__(self, emulator: Emulator | None = None) -> None:
        self.emulator = Emulator.load() if emulator is None else emulator
        fine, coarse = self.emulator.loglam.numpy(), self.emulator.loglam_continuum.numpy()
        at = np.log10(WIDE)

        def onto(rows: Array, grid: Array) -> Array:
            return np.array([np.interp(at, grid, row) for row in np.atleast_2d(rows)], dtype=np.float32)

        step = float(fine[1] - fine[0])
        self._mean = onto(broaden(self.emulator.mean.numpy(), step, NATIVE), fine)
        self._basis = onto(broaden(self.emulator.basis.numpy(), step, NATIVE), fine)
        self._level_mean = onto(self.emulator.continuum_mean.numpy(), coarse)
        self._level_basis = onto(self.emulator.continuum_basis.numpy(), coarse)

    def __call__(self, labels: Array) -> tuple[Array, Array]:
        with torch.inference_mode():
            flux, level = (c.numpy() for c in self.emulator.coefficients(torch.as_tensor(labels)))
        lines = np.maximum(self._mean + flux @ self._basis, 0.0)
        return lines.astype(np.float64), np.exp(self._level_mean + level @ self._level_basis).astype(np.float64)
