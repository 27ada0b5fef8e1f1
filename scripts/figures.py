"""Draws the figures of the docs: `python -m scripts.figures noise|gallery|reality|judge|study|training`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from core.data import lamost
from core.data.grid import WAVE
from core.data.noise import NoiseModel, snr
from core.data.noise_measure import residuals, split_common, template_space
from core.data.reality import Reality
from core.data.simulator import Simulator
from core.figures import compose, paper
from core.figures.against_floor import against_floor
from core.models.templates import NATIVE, Templates
from scripts.floor_tables import judged
from scripts.study_pictures import study
from scripts.training_report import training

ROOT = Path(__file__).resolve().parents[1]
STYLE: dict[Any, Any] = {"font.size": 8, "axes.spines.top": False, "axes.spines.right": False,
                         "axes.linewidth": 0.6, "lines.linewidth": 0.6}
GREY, BLUE, RED, SKY, GREEN = "#999999", "#0072B2", "#D55E00", "#56B4E9", "#009E73"


def noise(args: argparse.Namespace) -> None:
    """docs/noise_maps.png and noise_residual.png: drawn against real sigma maps; what a plate's residuals share."""
    spectra, _ = lamost.read_folder(args.lamost)
    own = snr(spectra)
    model, rng = NoiseModel.load(), np.random.default_rng(1)
    figure, axes = plt.subplots(3, 1, figsize=(7.1, 6.5), sharex=True, layout="constrained")
    for axis, target in zip(axes, (8, 20, 50), strict=True):
        near = np.argsort(np.abs(own - target))[:6]
        for row in near:
            axis.semilogy(WAVE, np.where(spectra.measured[row], spectra.sigma[row], np.nan), color=GREY)
        for sigma in model.draw(np.full(3, own[near].mean()), rng):
            axis.semilogy(WAVE, np.where(np.isfinite(sigma), sigma, np.nan), color=BLUE, alpha=0.8)
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
        axis.plot(WAVE[inside], z[row, inside], color=GREY, label="(observed - template) / quoted sigma")
        axis.plot(WAVE[inside], np.where(np.isfinite(z[row]), shared[row], np.nan)[inside], color=RED, ls="--",
                  label="what the other half of the plate shares")
        axis.plot(WAVE[inside], alone[row, inside] - 8, color=BLUE, label="left over (shifted by -8)")
        axis.set_title(f"{pilot.meta['subclass'][row]}, S/N_g {snr(pilot)[row]:.0f}", loc="left", fontsize=8)
        axis.set_ylabel("Residual [sigma]")
    axes[0].legend(fontsize=7, frameon=False, ncols=3, loc="lower left")
    axes[-1].set_xlabel("Wavelength (vacuum) [Angstrom]")
    axes[0].set_ylim(-17, 8)
    figure.savefig(ROOT / "docs" / "noise_residual.png", dpi=150)


def gallery(args: argparse.Namespace) -> None:
    """docs/gallery.png: simulated stars beside real LAMOST spectra of like class and S/N."""
    spectra, _ = lamost.read_folder(args.lamost)
    own = snr(spectra)
    templates = Templates()
    simulator = Simulator(templates, NATIVE, NoiseModel.load(), templates.emulator.nearest, Reality.load())
    rng = np.random.default_rng(3)
    pool = simulator.draw(400, rng, snr=20.0)
    teff = pool.labels[:, 1]
    figure, axes = plt.subplots(4, 2, figsize=(7.1, 7.5), sharex=True, layout="constrained")
    for (left, right), (letter, low, high) in zip(
            axes, (("A", 7500, 9500), ("F", 6000, 7200), ("G", 5200, 5900), ("K", 4000, 5000)), strict=True):
        rows = np.flatnonzero(spectra.meta["subclass"].str.startswith(letter))
        row = rows[np.argmin(np.abs(own[rows] - 20))]
        pick = np.flatnonzero((teff > low) & (teff < high))[0]
        for axis, flux, live, title in (
                (left, spectra.flux[row], spectra.measured[row],
                 f"LAMOST {spectra.meta['subclass'][row]}, S/N {own[row]:.0f}"),
                (right, pool.spectra.flux[pick], pool.spectra.measured[pick], f"simulated {teff[pick]:.0f} K, S/N 20")):
            axis.plot(WAVE, np.where(live, flux, np.nan), color=GREY if axis is left else BLUE)
            axis.set_ylim(0.3, 1.5)
            axis.set_title(title, loc="left", fontsize=8)
        left.set_ylabel("Flux / continuum")
    for axis in axes[-1]:
        axis.set_xlabel("Wavelength (vacuum) [Angstrom]")
    figure.savefig(ROOT / "docs" / "gallery.png", dpi=150)


def reality(_: argparse.Namespace) -> None:
    """docs/reality_gap.png: held-out real stars under each prior by S/N, and where reality still leaves the model."""
    table = pd.read_csv(ROOT / "results" / "reality_gap.csv")
    rows = pd.read_csv(ROOT / "results" / "reality_stars.csv")
    looks = {"synthetic": (RED, "--", "s"), "physics": ("#E69F00", "-.", "^"), "real": (GREEN, ":", "o"),
             "both": (BLUE, "-", "D")}
    figure, axes = plt.subplots(1, 3, figsize=(7.1, 2.6), layout="constrained")
    part = table[(table["noise"] == "white") & (table["group"] == "in domain")]
    for name, (colour, dash, marker) in looks.items():
        mine = part[part["prior"] == name]
        axes[0].errorbar(mine["snr"], mine["rms"], mine["rms_err"], color=colour, ls=dash, marker=marker, ms=3,
                         label=name)
        axes[1].plot(mine["snr"], mine["pixel_coverage"], color=colour, ls=dash, marker=marker, ms=3)
    axes[0].set(xscale="log", yscale="log", xlabel="S/N per pixel (white)", ylabel="rms error [continuum]")
    axes[0].legend(frameon=False, fontsize=7, loc="lower left")
    axes[1].axhspan(0.62, 0.74, color="0.9")
    axes[1].set(xscale="log", ylim=(0, 1), xlabel="S/N per pixel (white)", ylabel="Truth inside the 68 % interval")
    edges = WAVE[[i * len(WAVE) // 12 for i in range(12)]]
    use = rows[(rows["noise"] == "LAMOST") & (rows["prior"] == "both") & (rows["snr"] == 50)]
    kinds = (("FGK dwarf", BLUE, "D"), ("FGK giant", RED, "s"), ("A", GREEN, "o"), ("M", "0.3", "^"))
    for kind, colour, marker in kinds:
        blocks = use.loc[use["kind"] == kind, [f"block{i}" for i in range(12)]]
        axes[2].plot(edges, np.sqrt(blocks.median()), color=colour, marker=marker, ms=3, label=kind)
    axes[2].set(yscale="log", xlabel="Wavelength [Angstrom]", ylabel="Median rms, S/N_g 50")
    axes[2].legend(frameon=False, fontsize=7)
    figure.savefig(ROOT / "docs" / "reality_gap.png", dpi=150)


def judge(_: argparse.Namespace) -> None:
    """docs/judge_*.png and .pdf: bias and scatter, coverage, ranks, EW scatter, audit curves and rho, from results/."""
    table = pd.read_parquet(ROOT / "results" / "judge.parquet").astype(
        {name: str for name in ("star", "method", "quantity", "unit", "sample")})
    lines = pd.read_parquet(ROOT / "results" / "audit.parquet")
    table = table[table["sample"] != "lamost"]
    drawn = ["wiener", "mixture", "exact"]
    sheets = {f"bias_{name}": compose.bias_and_scatter(table, quantity) for name, quantity in
              (("teff", "Teff"), ("logg", "logg"), ("feh", "[Fe/H]"), ("rv", "RV"), ("mgb", "EW:Mg b"))}
    sheets |= {f"coverage_{name}": compose.coverage(table, quantity, drawn) for name, quantity in
               (("ew", "EW:"), ("pixels", "flux:"), ("feh", "[Fe/H]"))}
    sheets |= {"ranks_mgb": compose.rank_check(table, "EW:Mg b", drawn), "pit_feh": compose.pit(table, "[Fe/H]", drawn),
               "ew_mgb": compose.ew_scatter(table, "Mg b", snr=20.0)}
    sheets |= {f"audit_{name}": compose.audit_curves(lines, name) for name in ("put_in", "take_out")}
    floor = pd.read_parquet(ROOT / "results" / "floor_stars.parquet")
    sheets |= {"rho": compose.rho_curve(against_floor(floor, judged(ROOT / "results" / "judge.parquet")))}
    for name, sheet in sheets.items():
        figure = paper.draw(sheet)
        for kind in ("png", "pdf"):
            paper.save(figure, ROOT / "docs" / f"judge_{name}.{kind}", "AAS")
        plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m scripts.figures", description=__doc__)
    parts = parser.add_subparsers(dest="part", required=True)
    shared = ROOT.parent / "shared"
    for name, run in (("noise", noise), ("gallery", gallery), ("reality", reality),
                      ("judge", judge), ("study", study), ("training", training)):
        part = parts.add_parser(name, help=run.__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
        part.add_argument("--library", type=Path, default=shared / "library" / "synspec.npz", help="synthetic library")
        part.add_argument("--lamost", type=Path, default=shared / "lamost", help="folder of LAMOST spectra")
        part.set_defaults(run=run)
    args = parser.parse_args()
    matplotlib.use("Agg")
    with plt.rc_context(STYLE):
        args.run(args)


if __name__ == "__main__":
    main()
