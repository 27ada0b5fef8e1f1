"""Measures LAMOST's noise on real spectra and writes its tables, its page and its model (a part of scripts.prepare)."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from core.data import lamost
from core.data.noise import MODEL_FILE, snr
from core.data.noise_fit import fit_model
from core.data.noise_measure import (
    adopted_kernel,
    line_window_table,
    noise_proper,
    per_star,
    residuals,
    split_common,
    table,
    template_space,
)
from scripts.pages import DOCS, fill, with_error

ROOT = Path(__file__).resolve().parents[1]


def noise(args: argparse.Namespace) -> None:
    """Measure scale and correlation of LAMOST's noise, fit the sigma-map model, write tables and model."""
    everything, refused = lamost.read_folder(args.lamost)
    for _, row in refused.iterrows():
        print("refused:", row["reason"])
    pilot = (everything.meta["release"] == "pilot").to_numpy()
    spectra = everything.select(pilot)  # one plate, one spectrograph, one night: what they share can be told apart
    print(f"{len(spectra)} spectra of plate B6212; measuring residuals")
    z = residuals(spectra, *template_space(args.library))
    shared, own = split_common(z)
    frames = []
    for name, part in (("all", z), ("own", own)):
        measured = table(per_star(spectra, part))
        measured.insert(0, "residual", name)
        frames.append(measured)
    measured = pd.concat(frames)
    power = per_star(spectra, shared)[["region", "pixels", "star", "power"]]
    proper = noise_proper(per_star(spectra, own))
    kernel = adopted_kernel(proper)
    print(proper.round(3).to_string(), "\nadopted (s blue, s red, rho blue, rho red):", np.round(kernel, 3))
    print(power.groupby(["region", "pixels"])["power"].median().round(2).to_string())

    results = ROOT / "results"
    measured.round(4).to_csv(results / "noise.csv", index=False)
    proper.round(4).to_csv(results / "noise_extrapolated.csv", index=False)
    shares = power.groupby(["region", "pixels"], as_index=False)["power"].median()
    shares.round(3).to_csv(results / "noise_shared.csv", index=False)
    quoted = lamost.read_folder(args.lamost, mend=False)[0].select(pilot)
    faint = snr(spectra) < 15  # where noise, not the lines' own curvature, makes the second differences
    windows = line_window_table(quoted.select(faint), spectra.select(faint))
    windows.round(3).to_csv(results / "line_windows.csv", index=False)
    _into_docs(DOCS / "noise.md", measured, proper, results)
    fit_model(everything, kernel).save(MODEL_FILE)
    print(f"wrote {MODEL_FILE} and results/noise*.csv")


def _into_docs(page: Path, measured: pd.DataFrame, proper: pd.DataFrame, results: Path) -> None:
    """Put the tables between their marks on the page, so that text and numbers come from one run."""
    clean = measured[measured["pixels"] == "clean"]
    main = pd.DataFrame({"residual": clean["residual"], "region [Angstrom]": clean["region"],
                         "S/N": [f"{a:.0f}-{b:.0f}" for a, b in zip(clean["snr_low"], clean["snr_high"], strict=True)],
                         "stars": clean["stars"], **{k: with_error(clean, k) for k in ("s2", "rho1", "rho2")}})
    numbers = {k: with_error(proper, k) for k in ("s", "rho1", "rho2")}
    zero = pd.DataFrame({"region [Angstrom]": proper["region"], **numbers})
    parts = {"table": main, "proper": zero, "shared": pd.read_csv(results / "noise_shared.csv"),
             "windows": pd.read_csv(results / "line_windows.csv")}
    fill(page, parts)
