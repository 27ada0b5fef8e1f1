"""Draws the figures of the docs from committed numbers: `python -m scripts.figures noise --lamost ../shared/lamost`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import numpy as np

from core.data import lamost
from core.data.grid import WAVE
from core.data.noise import NoiseModel, snr
from core.data.noise_measure import residuals, split_common, template_space

ROOT = Path(__file__).resolve().parents[1]
STYLE: dict[Any, Any] = {"font.size": 8, "axes.spines.top": False, "axes.spines.right": False,
                         "axes.linewidth": 0.6, "lines.linewidth": 0.6}


def noise(args: argparse.Namespace) -> None:
    """docs/noise_maps.png and noise_residual.png: drawn against real sigma maps; what a plate's residuals share."""
    spectra, _ = lamost.read_folder(args.lamost)
    own = snr(spectra)
    model, rng = NoiseModel.load(), np.random.default_rng(1)
    figure, axes = plt.subplots(3, 1, figsize=(7.1, 6.5), sharex=True, layout="constrained")
    for axis, target in zip(axes, (8, 20, 50), strict=True):
        for row in np.argsort(np.abs(own - target))[:6]:
            axis.semilogy(WAVE, np.where(spectra.measured[row], spectra.sigma[row], np.nan), color="#999999")
        for sigma in model.draw(np.full(3, own[np.argsort(np.abs(own - target))[:6]].mean()), rng):
            axis.semilogy(WAVE, np.where(np.isfinite(sigma), sigma, np.nan), color="#0072B2", alpha=0.8)
        axis.set_ylabel("Quoted sigma / continuum")
        axis.set_title(f"S/N_g {target}: six real spectra (grey), three drawn (blue)", loc="left", fontsize=8)
    axes[-1].set_xlabel("Wavelength (vacuum) [Angstrom]")
    figure.savefig(ROOT / "docs" / "noise_maps.png", dpi=150)

    pilot = spectra.select((spectra.meta["release"] == "pilot").to_numpy())
    z = residuals(pilot, *template_space(args.library))
    shared, alone = split_common(z)
    order = np.argsort(snr(pilot))
    figure, axes = plt.subplots(3, 1, figsize=(7.1, 6.0), sharex=True, sharey=True, layout="constrained")
    inside = (WAVE > 7000) & (WAVE < 8000)
    for axis, place in zip(axes, (0.15, 0.5, 0.9), strict=True):
        row = order[int(place * len(order))]
        axis.plot(WAVE[inside], z[row, inside], color="#999999", label="(observed - template) / quoted sigma")
        axis.plot(WAVE[inside], np.where(np.isfinite(z[row]), shared[row], np.nan)[inside], color="#D55E00", ls="--",
                  label="what the other half of the plate shares")
        axis.plot(WAVE[inside], alone[row, inside] - 8, color="#0072B2", label="left over (shifted by -8)")
        axis.set_title(f"{pilot.meta['subclass'][row]}, S/N_g {snr(pilot)[row]:.0f}", loc="left", fontsize=8)
        axis.set_ylabel("Residual [sigma]")
    axes[0].legend(fontsize=7, frameon=False, ncols=3, loc="lower left")
    axes[-1].set_xlabel("Wavelength (vacuum) [Angstrom]")
    axes[0].set_ylim(-17, 8)
    figure.savefig(ROOT / "docs" / "noise_residual.png", dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m scripts.figures", description=__doc__)
    parts = parser.add_subparsers(dest="part", required=True)
    shared = ROOT.parent / "shared"
    part = parts.add_parser("noise", help=noise.__doc__)
    part.add_argument("--library", type=Path, default=shared / "library" / "synspec.npz")
    part.add_argument("--lamost", type=Path, default=shared / "lamost")
    part.set_defaults(run=noise)
    args = parser.parse_args()
    matplotlib.use("Agg")
    with plt.rc_context(STYLE):
        args.run(args)


if __name__ == "__main__":
    main()
