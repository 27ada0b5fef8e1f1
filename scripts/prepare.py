"""Rebuilds every number that ships with Trueline from its sources: `python -m scripts.prepare noise|stars`."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from core.data import lamost
from core.data.bundled import make_stars
from core.data.library import BUNDLED
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
    kernel = adopted_kernel(measured[measured["residual"] == "own"])
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
    _into_docs(ROOT / "docs" / "noise.md", measured, proper, results)
    fit_model(everything, kernel).save(MODEL_FILE)
    print(f"wrote {MODEL_FILE} and results/noise*.csv")


def _markdown(table: pd.DataFrame) -> str:
    """A small table as Markdown."""
    rows = [table.columns, ["---"] * table.shape[1], *table.values]
    return "\n".join("| " + " | ".join(map(str, row)) + " |" for row in rows)


def _into_docs(page: Path, measured: pd.DataFrame, proper: pd.DataFrame, results: Path) -> None:
    """Put the tables between their marks on the page, so that text and numbers come from one run."""
    def with_error(frame: pd.DataFrame, name: str, digits: int = 2) -> list[str]:
        return [f"{v:.{digits}f} +- {e:.{digits}f}" for v, e in zip(frame[name], frame[f"{name}_err"], strict=True)]

    clean = measured[measured["pixels"] == "clean"]
    main = pd.DataFrame({"residual": clean["residual"], "region [Angstrom]": clean["region"],
                         "S/N": [f"{a:.0f}-{b:.0f}" for a, b in zip(clean["snr_low"], clean["snr_high"], strict=True)],
                         "stars": clean["stars"], **{k: with_error(clean, k) for k in ("s2", "rho1", "rho2")}})
    numbers = {k: with_error(proper, k) for k in ("s", "rho1", "rho2")}
    zero = pd.DataFrame({"region [Angstrom]": proper["region"], **numbers})
    parts = {"table": main, "proper": zero, "shared": pd.read_csv(results / "noise_shared.csv"),
             "windows": pd.read_csv(results / "line_windows.csv")}
    text = page.read_text()
    for mark, frame in parts.items():
        start = text.index(f"<!-- {mark} -->") + len(f"<!-- {mark} -->")
        stop = text.index("<!-- end -->", start)
        text = text[:start] + "\n" + _markdown(frame) + "\n" + text[stop:]
    page.write_text(text)


def stars(args: argparse.Namespace) -> None:
    """Write the dozen bundled simulated stars."""
    make_stars(args.library, BUNDLED)
    print(f"wrote {len(list(BUNDLED.glob('*.fits.gz')))} stars to {BUNDLED}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m scripts.prepare", description=__doc__)
    parts = parser.add_subparsers(dest="part", required=True)
    shared = ROOT.parent / "shared"
    for name, run in (("noise", noise), ("stars", stars)):
        part = parts.add_parser(name, help=run.__doc__)
        part.add_argument("--library", type=Path, default=shared / "library" / "synspec.npz",
                          help="the synthetic library")
        if name == "noise":
            part.add_argument("--lamost", type=Path, default=shared / "lamost",
                              help="folder of LAMOST spectra of one plate")
        part.set_defaults(run=run)
    args = parser.parse_args()
    for source in (args.library, getattr(args, "lamost", args.library)):
        if not source.exists():
            parser.error(f"{source} is not there; name it with --library or --lamost.")
    args.run(args)


if __name__ == "__main__":
    main()
