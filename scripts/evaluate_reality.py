"""The reality gap as numbers: held-out real stars with noise put on, under each kind of prior."""

from __future__ import annotations

import argparse
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from core.data import real_stars
from core.data.grid import WAVE, continuum_curve
from core.data.noise import NoiseModel
from core.metrics.fidelity import Mask
from core.metrics.lines import LINES, equivalent_width
from core.models.mixture import Mixture
from core.models.observation import Observation
from core.models.prior_fit import Recipe, synthetic_of
from core.spectrum import WHITE, Array, Spectra, star_seed
from scripts.pages import DOCS, fill, with_error

ROOT = Path(__file__).resolve().parents[1]
WHITE_SNR, LAMOST_SNR = (10.0, 20.0, 50.0, 100.0), (5.0, 10.0, 20.0, 30.0, 50.0, 100.0)
_DRAWS = 64
FLAGGED = 5.0  # misfit beyond which a star is said to be of no kind that the prior knows


def prior_of(kind: str, unit_spread: float) -> Mixture:
    """"both": the committed mixture; "physics" (with reality) or "real": its components of that kind alone."""
    whole = Mixture.load(unit_spread=unit_spread)
    if kind == "both":
        return whole
    use = torch.tensor([k == kind for k in whole.kinds])
    weight = whole.log_weight[use] - torch.logsumexp(whole.log_weight[use], 0)
    kinds = [k for k in whole.kinds if k == kind]
    return Mixture(weight, whole.mean[use], whole.factors[use], whole.residual[use], kinds, unit_spread,
                   whole.taps, whole.scales)


def observed(stars: Spectra, snr: float, noise: str) -> Spectra:
    """Held-out stars with noise put on; `continuum` is what the truth must be divided by to be in its units."""
    generators = [np.random.default_rng(star_seed(s, int(snr), f"reality-{noise}")) for s in stars.stars]
    if noise == "white":  # in units of the clean star's curve, as in the first look
        y = stars.flux + np.array([g.standard_normal(len(WAVE)) for g in generators]) / snr
        ivar = np.where(stars.measured, snr**2, 0.0)
        return Spectra(WAVE, np.where(stars.measured, y, 1.0), ivar, np.ones_like(y), stars.meta, WHITE)
    model = NoiseModel.load()
    pairs = zip(generators, stars.continuum, strict=True)
    sigma = np.concatenate([model.draw([snr], g, curve=c[None]) for g, c in pairs])
    level = stars.continuum / np.median(stars.continuum, axis=1, keepdims=True)
    live = np.isfinite(sigma) & stars.measured
    deviation = np.where(live, sigma, 0.0) * level
    z = np.array([g.standard_normal(len(WAVE) + 2) for g in generators])
    y = stars.flux * level + model.noise.scales(WAVE) * deviation * model.noise.colour(WAVE, z)
    ivar = np.where(live, 1.0 / np.where(live, deviation, 1.0) ** 2, 0.0)
    curve = continuum_curve(y, ivar)
    return Spectra(WAVE, np.where(live, y / curve, 1.0), ivar * curve**2, curve / level, stars.meta, model.noise)


def widths_inside(draws: Array, truth: Array, live: Mask) -> dict[str, bool]:
    """Line by line: does the true equivalent width lie within the central 68 % of the draws' (n, L)?"""
    out = {}
    for line in LINES.values():
        low, high = np.searchsorted(WAVE, (min(line.blue[0], line.band[0]), max(line.red[1], line.band[1])))
        if live[low:high].all():
            q = np.quantile(equivalent_width(WAVE, draws, line), (0.16, 0.84))
            out[line.name] = bool(q[0] <= float(equivalent_width(WAVE, truth, line)) <= q[1])
    return out


def rows_of(task: tuple[Mixture | str, str, float, Spectra]) -> pd.DataFrame:
    """Worker: one row per star for one prior, noise and S/N."""
    torch.set_num_threads(1)
    prior, noise, snr, stars = task
    mixture = prior_of(prior, 0.0 if noise == "white" else 0.3) if isinstance(prior, str) else prior
    seen = observed(stars, snr, noise)
    question = Observation.of(seen)
    rows = []
    for b in range(len(stars)):
        posterior = mixture.posterior(question.star(b))
        mean, deviation = (x.numpy().astype(float) for x in posterior.moments())
        truth = stars.flux[b] / seen.continuum[b]
        live = stars.measured[b]  # also pixels that only the noise map lacks: gaps count
        z = (mean - truth)[live] / deviation[live]
        generator = torch.Generator().manual_seed(star_seed(stars.stars[b], int(snr), "reality-draws"))
        draws = posterior.draw(_DRAWS, generator).numpy().astype(float)
        inside = widths_inside(draws, truth, live)
        real = sum(float(w) for j, w in zip(posterior.component, posterior.log_weight.exp(), strict=True)
                   if mixture.kinds[j] == "real")
        square = np.where(live, (mean - truth) ** 2, np.nan)
        blocks = [np.mean(square[k & live]) if (k & live).any() else np.nan for k in _blocks()]
        rows.append({"star": stars.stars[b], "noise": noise, "snr": snr, "mse": np.mean((mean - truth)[live] ** 2),
                     "covered": np.mean(np.abs(z) < 1), "chi2": np.mean(z**2), "ew_inside": sum(inside.values()),
                     "ew_lines": len(inside),
                     "misfit": posterior.misfit(), "width": np.sqrt(np.mean(deviation[live] ** 2)), "real_weight": real,
                     **{f"block{i}": v for i, v in enumerate(blocks)}})
    return pd.DataFrame(rows)


def _blocks() -> list[np.ndarray]:
    """Masks of twelve equal ranges of log wavelength."""
    return [(np.arange(len(WAVE)) * 12 // len(WAVE)) == i for i in range(12)]


def kind_of(meta: pd.DataFrame) -> np.ndarray:
    """Type of each star by its literature labels; "unknown" without."""
    teff, logg, feh = (meta[k].to_numpy(float) for k in ("teff", "logg", "feh"))
    kind = np.select([np.isnan(teff), teff < 3950, teff > 12000, feh < -1.5, teff > 7500, logg < 3.5],
                     ["unknown", "M", "O and B", "metal-poor", "A", "FGK giant"], "FGK dwarf")
    return np.asarray(kind)


def summary(rows: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """By prior, noise, S/N and group: rms with its bootstrap error, coverage of pixels and EWs, chi-square, width."""
    rng = np.random.default_rng(seed)
    out = []
    groups = {"all": rows["kind"] != "", "in domain": ~rows["kind"].isin(["unknown", "M", "O and B"]),
              **{k: rows["kind"] == k for k in sorted(set(rows["kind"]))}}
    for group, use in groups.items():
        for (prior, noise, snr), part in rows[use].groupby(["prior", "noise", "snr"], sort=False):
            again = [np.sqrt(part["mse"].sample(frac=1, replace=True, random_state=int(rng.integers(2**31))).mean())
                     for _ in range(200)]
            out.append({"prior": prior, "noise": noise, "snr": snr, "group": group, "stars": len(part),
                        "rms": np.sqrt(part["mse"].mean()), "rms_err": np.std(again),
                        "median_rms": np.sqrt(part["mse"].median()), "pixel_coverage": part["covered"].mean(),
                        "ew_coverage": part["ew_inside"].sum() / max(part["ew_lines"].sum(), 1),
                        "chi2": part["chi2"].mean(), "median_chi2": part["chi2"].median(),
                        "width": part["width"].mean(),
                        "real_weight": part["real_weight"].mean(), "flagged": (part["misfit"] > FLAGGED).mean(),
                        "rms_kept": np.sqrt(part["mse"][part["misfit"] <= FLAGGED].mean())})
    return pd.DataFrame(out)


def reality(args: argparse.Namespace) -> None:
    """Held-out real stars under each kind of prior; writes results/reality_gap.csv and reality_stars.csv."""
    torch.set_num_threads(1)
    libraries = real_stars.read(args.stars)
    held = {name: s.select(s.meta["held_out"].to_numpy()) for name, s in libraries.items()}
    miles = held["miles"]
    synthetic = synthetic_of(Recipe(), 0.0)
    every = [miles.select(slice(i, None, 4)) for i in range(4)]
    tasks: list[tuple[str, tuple[Mixture | str, str, float, Spectra]]] = []
    for snr in WHITE_SNR:
        for name in ("synthetic", "physics", "real", "both") if snr in (10.0, 50.0) else ("physics", "real", "both"):
            for part in every:
                tasks.append((name, (synthetic if name == "synthetic" else name, "white", snr, part)))
    for snr in LAMOST_SNR:
        for part in [*every, held["stelib"], held["mastar"]]:
            tasks.append(("both", ("both", "LAMOST", snr, part)))
    frames = []
    with ProcessPoolExecutor(2) as pool:
        for (name, _), frame in zip(tasks, pool.map(rows_of, [t for _, t in tasks]), strict=True):
            frames.append(frame.assign(prior=name))
            print(f"{len(frames)} of {len(tasks)}: {name} {frame['noise'][0]} S/N {frame['snr'][0]:.0f}", flush=True)
    rows = pd.concat(frames)
    meta = pd.concat([s.meta for s in held.values()])
    rows["kind"] = rows["star"].map(dict(zip(meta["star"], kind_of(meta), strict=True)))
    rows.round(6).to_csv(ROOT / "results" / "reality_stars.csv", index=False)
    table = summary(rows)
    table.round(5).to_csv(ROOT / "results" / "reality_gap.csv", index=False)
    page(table)
    print(table[table["group"].isin(["all", "in domain"])].round(4).to_string())


def page(table: pd.DataFrame) -> None:
    """The tables of docs/results.md."""
    def short(part: pd.DataFrame, *names: str) -> pd.DataFrame:
        out = part[list(names)].copy()
        out["snr"] = out["snr"].map("{:.0f}".format)
        out["rms"] = with_error(part, "rms", 4)
        for name in ("pixel_coverage", "ew_coverage", "chi2", "median_chi2", "real_weight", "flagged"):
            if name in out:
                out[name] = part[name].map("{:.2f}".format)
        return out

    white = table[(table["noise"] == "white") & table["group"].isin(["all", "in domain"])]
    lamost = table[(table["noise"] == "LAMOST") & (table["prior"] == "both")]
    names = ("prior", "group", "stars", "snr", "rms", "pixel_coverage", "ew_coverage", "median_chi2", "real_weight",
             "flagged")
    fill(DOCS / "results.md", {
        "reality-white": short(white, *names),
        "reality-lamost": short(lamost[lamost["group"].isin(["all", "in domain"])], *names[1:]),
        "reality-kinds": short(lamost[lamost["snr"].isin([10.0, 50.0]) & ~lamost["group"].isin(["all", "in domain"])],
                               *names[1:])})
