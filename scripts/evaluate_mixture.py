"""The mixture against Wiener on simulated stars of the synthetic prior alone, and on its own truth; and its timing."""

from __future__ import annotations

import argparse
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from core.data.grid import WAVE, continuum_curve
from core.data.noise import NoiseModel
from core.data.simulator import Simulated, Simulator
from core.models.gaussian import GaussianPrior, Wiener
from core.models.mixture import Mixture
from core.models.mixture_fit import fit_components
from core.models.observation import Observation
from core.models.prior_fit import Recipe, as_mixture, moved, simulate
from core.models.templates import NATIVE, Templates
from core.spectrum import WHITE, Spectra, star_seed
from scripts.pages import DOCS, fill

ROOT = Path(__file__).resolve().parents[1]
SNR = (5.0, 10.0, 20.0, 50.0)
UNITS = {"clean curve": 0.0, "noisy curve": 0.3}  # whose units the spectra are in, and the prior's unit_spread then
_TEST_SEED = 424242  # of the test stars; the prior's own are Recipe.seed and the next


def in_clean_units(stars: Simulated) -> tuple[Spectra, np.ndarray]:
    """The same stars in units of the curve through the *clean* star, which no observer knows; and the truth."""
    s = stars.spectra
    clean = stars.truth * s.continuum
    curve = continuum_curve(clean, np.full_like(clean, 1e6))
    ratio = s.continuum / curve
    flux = np.where(s.measured, s.flux * ratio, 1.0)
    return replace(s, flux=flux, ivar=s.ivar / ratio**2, continuum=curve), clean / curve


def _job(task: tuple[Mixture, GaussianPrior, str, float, int]) -> list[dict[str, object]]:
    """Worker: squared errors and coverage of each star under Wiener, the mixture, and the mixture told the velocity."""
    torch.set_num_threads(1)
    prior, gaussian, units, snr, number = task
    templates = Templates()
    simulator = Simulator(templates, NATIVE, NoiseModel.load(), templates.emulator.nearest)
    stars = simulator.draw(number, np.random.default_rng([_TEST_SEED, int(snr)]), snr)
    spectra, clean = in_clean_units(stars) if units == "clean curve" else (stars.spectra, stars.truth)
    wiener = Wiener(UNITS[units], gaussian)
    return [{"units": units, "snr": snr, **row} for row in scores(prior, wiener, spectra, clean)]


def scores(prior: Mixture, wiener: Wiener, spectra: Spectra, clean: np.ndarray) -> list[dict[str, object]]:
    """Rows of the stars (n, L) whose clean spectra (n, L) and velocities (`rv`) are known, one for each method."""
    question = Observation.of(spectra)
    out = []
    for b, key in enumerate(question.keys):
        star, live = question.star(b), question.live[b]
        truth, y = torch.tensor(clean[b], dtype=torch.float32), star.y[0].float()
        speed = float(spectra.meta["rv"][b])
        posterior = prior.posterior(star)
        told = prior.over(star, sorted(set(posterior.component)), [speed])
        answers: dict[str, tuple[torch.Tensor, torch.Tensor | None]] = {
            "mixture": posterior.moments(), "mixture, velocity known": told.moments()}
        centre, _, noise = wiener.posterior(star)
        gap = y - wiener.prior.mean - centre @ wiener.factors
        answers["wiener"] = (y - noise.open(gap[:, None])[:, 0], None)
        for name, (mean, deviation) in answers.items():
            error = (mean - truth)[live]
            row: dict[str, object] = {"method": name, "star": key, "mse": float((error**2).mean())}
            if deviation is not None:
                row["covered"] = float((error.abs() < deviation[live]).float().mean())
            if name == "mixture":
                v, dv = posterior.velocity_moments()
                row |= {"rv_error": v - speed, "rv_sigma": dv}
            out.append(row)
    return out


def own_truth(prior: Mixture, n: int, seed: int) -> tuple[int, int]:
    """Of 10 random projections of n stars drawn from the mixture: how many its 68.27 % intervals cover, of all."""
    rng, model = np.random.default_rng(seed), NoiseModel.load()
    hits = 0
    for i in range(n):
        truth, _ = prior.prior_draw(rng)
        sigma = model.draw([float(np.exp(rng.uniform(np.log(5), np.log(100))))], rng)
        live = np.isfinite(sigma)
        sigma = np.where(live, sigma, 0.0)
        white = model.noise.colour(WAVE, rng.standard_normal((1, 3842)))
        y = truth.numpy() + model.noise.scales(WAVE) * sigma * white
        ivar = np.where(live, 1 / np.where(live, sigma, 1.0) ** 2, 0.0)
        flux = torch.tensor(np.where(live, y, 1.0))
        star = Observation(torch.tensor(WAVE), flux, torch.tensor(ivar), (str(i),), model.noise)
        draws = prior.posterior(star).draw(100, torch.Generator().manual_seed(star_seed(i, seed, "own-truth")))
        along = torch.tensor(rng.standard_normal((10, 3840)), dtype=torch.float32)
        low, high = torch.quantile(draws @ along.T, torch.tensor([0.15865, 0.84135]), dim=0)
        at = truth @ along.T
        hits += int(((at > low) & (at < high)).sum())
    return hits, 10 * n


def checks() -> pd.DataFrame:
    """Coverage of the committed mixture's own truth, and seconds a star (run it on a quiet machine)."""
    hits, total = own_truth(Mixture.load(unit_spread=0.0), 100, 5)
    rows: list[dict[str, object]] = [
        {"check": "own truth: 68.27 % intervals cover", "value": hits / total,
         "note": f"{total} projections of 100 stars; binomial error {np.sqrt(0.6827 * 0.3173 / total):.3f}"}]
    whole, templates = Mixture.load(), Templates()
    simulator = Simulator(templates, NATIVE, NoiseModel.load(), templates.emulator.nearest)
    for name, kernel in (("white", WHITE), ("LAMOST", NoiseModel.load().noise)):
        for snr in (5.0, 10.0, 50.0):
            stars = simulator.draw(22, np.random.default_rng(int(snr)), snr, kernel=kernel)
            question = Observation.of(stars.spectra)
            spent = []
            for b in range(22):
                start = time.perf_counter()
                posterior = whole.posterior(question.star(b))
                posterior.moments()
                posterior.draw(100, torch.Generator().manual_seed(b))
                spent.append(time.perf_counter() - start)
            rows.append({"check": f"ms a star, {name} noise, S/N {snr:.0f}", "value": 1e3 * float(np.median(spent[2:])),
                         "note": f"posterior, moments, 100 draws; 1 thread; slowest of 20 {1e3 * max(spent[2:]):.0f}"})
    return pd.DataFrame(rows).round(3)


def mixture(args: argparse.Namespace) -> None:
    """Mixture against Wiener on the synthetic prior; own truth; timing. Writes results/mixture*.csv."""
    torch.set_num_threads(1)
    if not args.checks_only:
        recipe = Recipe()
        clean = simulate(recipe.stars, recipe.seed)
        fitted = fit_components(clean, recipe.components, 60, 250, recipe.seed)
        gaussian = GaussianPrior.fit(moved(torch.from_numpy(clean), recipe.seed), 300)
        print("priors fitted to the synthetic library alone", flush=True)
        tasks = [(as_mixture(fitted, "physics", spread), gaussian, units, snr, args.stars_each)
                 for units, spread in UNITS.items() for snr in SNR]
        with ProcessPoolExecutor(2) as pool:
            frame = pd.DataFrame([row for rows in pool.map(_job, tasks) for row in rows])
        table = frame.groupby(["units", "snr", "method"], sort=False).agg(
            stars=("mse", "size"), rms=("mse", lambda m: float(np.sqrt(m.mean()))),
            median_rms=("mse", lambda m: float(np.sqrt(m.median()))), coverage=("covered", "mean"),
            rv_mad=("rv_error", lambda e: 1.4826 * float(np.nanmedian(np.abs(e)))),
            rv_sigma=("rv_sigma", "median")).reset_index()
        table.round(5).to_csv(ROOT / "results" / "mixture.csv", index=False)
        fill(DOCS / "results.md", {"mixture": table.round(4)})
        print(table.round(4).to_string(), flush=True)
    measured = checks()
    fill(DOCS / "results.md", {"mixture-checks": measured})
    measured.to_csv(ROOT / "results" / "mixture_checks.csv", index=False)
    print(measured.to_string())
