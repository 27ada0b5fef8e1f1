"""The report page of the trainings: loss curves and what the DDPM drew on the way, from results/training."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from core.data.grid import WAVE
from core.figures.style import BLUE, GREY, RC, width

ROOT = Path(__file__).resolve().parents[1]
LOGS = ROOT / "results" / "training"
VERMILLION = "#D55E00"


def log(name: str) -> dict[str, np.ndarray]:
    """Columns of a training's JSON-lines log."""
    lines = [json.loads(line) for line in (LOGS / f"{name}.jsonl").read_text().splitlines()]
    return {key: np.array([line[key] for line in lines]) for key in lines[0]}


def curves(path: Path = ROOT / "docs" / "training_loss.png") -> None:
    """The denoiser's gain over the mixture, and the losses of the others, against spectra seen."""
    with matplotlib.rc_context(RC):
        figure = Figure(figsize=(width("AAS", 2) / 25.4, 2.8), layout="constrained")
        left, right = figure.subplots(1, 2)
        first, second = log("denoiser"), log("denoiser_second")
        left.semilogx(first["seen"], first["gain"], color=BLUE, label="first piece, unit .02-.3")
        left.semilogx(first["seen"][-1] + second["seen"], second["gain"], color=VERMILLION, ls="--",
                      label="second piece, unit .1-.3")
        third, before = log("denoiser_third"), first["seen"][-1] + second["seen"][-1]
        left.semilogx(before + third["seen"], third["gain"], color="black", ls=":", label="third, on a better mixture")
        left.axhline(1.0, color=GREY, lw=0.6)
        left.set(xlabel="spectra seen", ylabel="squared error / the mixture's", title="noise-map denoiser")
        left.legend(frameon=False)
        for name, dash in (("ddpm", "-"), ("supervised", "--"), ("supervised_ivar", ":")):
            lines = log(name)
            right.loglog(lines["seen"], lines["loss"], ls=dash, label=name)
        right.set(xlabel="spectra seen", ylabel="mean square of eps - eps(x, t)", title="plain networks")
        right.legend(frameon=False)
        figure.savefig(path, dpi=150, metadata={})


def on_the_way(path: Path = ROOT / "docs" / "training_samples.png") -> None:
    """Four of the sixteen samples the DDPM drew after 20, 30, 40 and 50 epochs, from the same noise."""
    files = sorted(LOGS.glob("ddpm-epoch-*.npz"))
    with matplotlib.rc_context(RC):
        figure = Figure(figsize=(width("AAS", 2) / 25.4, 5.0), layout="constrained")
        panels = figure.subplots(2, 2, sharex=True, sharey=True).ravel()
        for ax, file in zip(panels, files, strict=True):
            for i, row in enumerate(np.load(file, allow_pickle=False)["flux"][:4].astype(float)):
                ax.plot(WAVE, row + i, color=BLUE, lw=0.4, rasterized=True)
            ax.set_title(f"after {int(file.stem[-2:])} epochs of the fifty", loc="left")
        for ax in panels[2:]:
            ax.set_xlabel("Wavelength (vacuum) [Angstrom]")
        panels[0].set(ylim=(0, 5.2), ylabel="flux / continuum, shifted by 1")
        figure.savefig(path, dpi=150, metadata={})


def training(args: argparse.Namespace) -> None:
    """docs/training_loss.png and training_samples.png."""
    curves()
    on_the_way()
