"""The mixture against Wiener on simulated stars of the synthetic prior alone, and on its own truth; and its timing."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from core.data.grid import WAVE
from core.data.noise import NoiseModel
from core.data.simulator import Simulated, Simulator
from core.models.gaussian import GaussianPrior, Wiener
from core.models.mixture import Mixture, shifted
from core.models.mixture_fit import fit_components
from core.models.observation import Observation
from core.models.prior_fit import Recipe, as_mixture, moved, simulate
from core.models.templates import NATIVE, Templates
from core.models.velocity_search import pixels_of
from core.spectrum import WHITE, star_seed
from scripts.pages import DOCS, fill

ROOT = Path(__file__).resolve().parents[1]
SNR = (5.0, 10.0, 20.0, 50.0)
_TEST_SEED = 424242  # of the test stars; the prior's own are Recipe.seed and the next


def _rows(prior: Mixture, wiener: Wiener, stars: Simulated, snr: float) -> list[dict[str, object]]:
    """Squared errors and coverage of each star under Wiener, the mixture, and the mixture told the velocity."""
    question = Observation.of(stars.spectra)
    out = []
    for b, key in enumerate(question.keys):
        star, live = question.star(b), question.live[b]
        truth = torch.tensor(stars.truth[b], dtype=torch.float32)
        speed = float(stars.spectra.meta["rv"][b])
        posterior = prior.posterior(star)
        told = prior._over(star, [(j, speed) for j in sorted(set(posterior.component))])
        answers: dict[str, tuple[torch.Tensor, torch.Tensor | None]] = {
            "mixture": posterior.moments(), "mixture, velocity known": told.moments()}
        centre, _, noise = wiener.posterior(star)
        smooth = wiener.prior.mean + centre @ wiener.factors
        answers["wiener"] = (smooth + wiener.prior.residual * noise.solve(star.y[0].float() - smooth), None)
        for name, (mean, deviation) in answers.items():
            error = (mean - truth)[live]
            row: dict[str, object] = {"method": name, "snr": snr, "star": key, "mse": float((error**2).mean())}
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
    share = prior.log_weight.double().exp().numpy()
    for i in range(n):
        j = int(rng.choice(len(share), p=share / share.sum()))
        v = float(np.clip(rng.choice([50.0, 180.0], p=[0.92, 0.08]) * rng.standard_normal(), -480, 480))
        t = torch.tensor(rng.standard_normal(prior.factors.shape[1]), dtype=torch.float32)
        shift = float(pixels_of(v))
        e = torch.tensor(rng.standard_normal(3840), dtype=torch.float32)
        rest = e * shifted(prior.residual[j], round(shift)).sqrt()
        truth = shifted(prior.mean[j] + t @ prior.factors[j], shift) + rest
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


def mixture(args: argparse.Namespace) -> None:
    """Mixture against Wiener on the synthetic prior; own truth; timing. Writes results/mixture*.csv."""
    torch.set_num_threads(1)
    recipe = Recipe()
    clean = simulate(recipe.stars, recipe.seed)
    prior = as_mixture(fit_components(clean, recipe.components, 60, 250, recipe.seed), "physics", 0.3)
    wiener = Wiener(prior=GaussianPrior.fit(moved(torch.from_numpy(clean), recipe.seed), 300))
    print("priors fitted to the synthetic library alone", flush=True)
    templates = Templates()
    simulator = Simulator(templates, NATIVE, NoiseModel.load(), templates.emulator.nearest)
    rows = []
    for snr in SNR:
        stars = simulator.draw(args.number, np.random.default_rng([_TEST_SEED, int(snr)]), snr)
        rows += _rows(prior, wiener, stars, snr)
        print(f"S/N {snr:.0f} done", flush=True)
    frame = pd.DataFrame(rows)
    table = frame.groupby(["snr", "method"], sort=False).agg(
        stars=("mse", "size"), rms=("mse", lambda m: float(np.sqrt(m.mean()))),
        median_rms=("mse", lambda m: float(np.sqrt(m.median()))), coverage=("covered", "mean"),
        rv_mad=("rv_error", lambda e: 1.4826 * float(np.nanmedian(np.abs(e)))),
        rv_sigma=("rv_sigma", "median")).reset_index()
    table.round(5).to_csv(ROOT / "results" / "mixture.csv", index=False)
    print(table.round(4).to_string(), flush=True)

    whole = Mixture.load()
    hits, total = own_truth(Mixture.load(unit_spread=0.0), 100, 5)
    torch.set_num_threads(2)
    checks = [{"check": "own truth: 68.27 % intervals cover", "value": hits / total,
               "note": f"{total} projections of 100 stars; binomial error {np.sqrt(0.6827 * 0.3173 / total):.3f}"}]
    for name, kernel in (("white", WHITE), ("LAMOST", NoiseModel.load().noise)):
        for snr in (5.0, 10.0, 50.0):
            stars = simulator.draw(12, np.random.default_rng(int(snr)), snr, kernel=kernel)
            question = Observation.of(stars.spectra)
            spent = []
            for b in range(12):
                start = time.perf_counter()
                posterior = whole.posterior(question.star(b))
                posterior.moments()
                posterior.draw(100, torch.Generator().manual_seed(b))
                spent.append(time.perf_counter() - start)
            checks.append({"check": f"ms a star, {name} noise, S/N {snr:.0f}",
                           "value": 1e3 * float(np.median(spent[2:])),
                           "note": f"posterior, moments and 100 draws, 2 threads; slowest {1e3 * max(spent[2:]):.0f}"})
    fill(DOCS / "results.md", {"mixture": table.round(4), "mixture-checks": pd.DataFrame(checks).round(3)})
    pd.DataFrame(checks).round(3).to_csv(ROOT / "results" / "mixture_checks.csv", index=False)
    print(pd.DataFrame(checks).to_string())
