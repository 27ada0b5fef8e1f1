"""Every sampler's own error: stars of a mixture whose posterior is known, LAMOST's noise maps, no network."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from core.data.grid import WAVE
from core.data.noise import NoiseModel
from core.metrics.lines import equivalent_width, find_line
from core.models.balance import BALANCED, Plan
from core.models.conditioning import MMPS, PiGDM, Product
from core.models.observation import Observation
from core.models.oracle import DiagonalMixture
from core.models.posterior import DPS, Diffusion
from core.models.samplers import Diverged, ancestral, heun, multistep
from core.models.schedule import geometric, karras
from core.spectrum import star_seed
from scripts.pages import DOCS, fill

ROOT = Path(__file__).resolve().parents[1]
TABLE = ROOT / "results" / "laboratory.csv"
PAGE = DOCS / "laboratory.md"
SNR = (5.0, 10.0, 30.0, 100.0)
DPS_SNR = 10.0  # the costly ones are measured at this one alone
STRENGTHS = (0.001, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.03, 0.1)
LINES = ("Ca 4227", "H beta", "Mg b", "Fe 5270", "Na D", "H alpha", "Ca II 8542")
DRAWS = 31  # 32 equally likely ranks of the truth, of which 22 count as inside: .6875
REFERENCE = 512  # closed-form draws, whose own scatter is then small
BOX = 25  # pixels: a width of line indices, where the residual averages out
_Draw = Callable[[Tensor, Tensor, int, int], Tensor]  # (y, sigma, draws, seed)


@lru_cache(maxsize=1)
def _priors() -> tuple[DiagonalMixture, DiagonalMixture]:
    """One asked at stars' maps, one at flat maps: what each remembers of its maps does not crowd out the other's."""
    return DiagonalMixture.committed(), DiagonalMixture.committed()


def star(snr: float, number: int) -> tuple[Tensor, Tensor, Tensor]:
    """Truth (1, L), what was observed (1, L) and its true noise (1, L), infinite where dead."""
    model = NoiseModel.load()
    rng = np.random.default_rng([77, int(snr), number])
    sigma = torch.tensor(model.draw(snr, rng) * model.noise.scales(WAVE), dtype=torch.float32)
    g = torch.Generator().manual_seed(star_seed(number, int(snr), "laboratory"))
    truth = _priors()[0].draw(1, g)
    z = torch.randn(truth.shape, generator=g)
    return truth, torch.where(torch.isfinite(sigma), truth + torch.nan_to_num(sigma, posinf=0.0) * z, 1.0), sigma


def start_at_y(levels: Sequence[float], sampler: Callable[..., Tensor], last_draw: bool = False) -> _Draw:
    """Draws (n, L) by a sampler started at the observation; by option the last answer is itself a draw."""

    def draw(y: Tensor, sigma: Tensor, n: int, seed: int) -> Tensor:
        prior, g = _priors()[0], torch.Generator().manual_seed(seed)
        size = torch.nan_to_num(sigma, posinf=0.0)
        seen = y

        def denoise(x: Tensor, tau: float) -> Tensor:
            nonlocal seen
            seen = x
            return prior(x, tau * sigma)

        x = sampler(denoise, y.expand(n, 1, -1), levels, lambda i: size * torch.randn(n, 1, len(WAVE), generator=g))
        if last_draw:
            x = x + prior.moments(seen[0], levels[-1] * sigma)[1] * torch.randn(x.shape, generator=g)
        return x[:, 0]

    return draw


def reconstructor(make: Callable[[], Diffusion | DPS]) -> _Draw:
    """Draws (n, L) by a method that takes an Observation."""

    def draw(y: Tensor, sigma: Tensor, n: int, seed: int) -> Tensor:
        asked = Observation(torch.as_tensor(WAVE), y.double(), sigma.double() ** -2, ("star",))
        method = make()
        method.checked = False  # how far a method goes is what is measured: only what stops it on its way is left out
        return method.sample(asked, n, seed)[:, 0].float()

    return draw


def closed_form(y: Tensor, sigma: Tensor, n: int, seed: int) -> Tensor:
    return _priors()[0].posterior_draws(y[0], sigma[0], n, torch.Generator().manual_seed(seed))


def planned(plan: Plan) -> _Draw:
    return start_at_y(plan.levels, partial(multistep, pull=plan.pull), last_draw=True)


def methods(snr: float) -> dict[str, tuple[int, _Draw]]:
    """Name -> network calls and what draws; the costly ones at DPS_SNR alone."""
    out: dict[str, tuple[int, _Draw]] = {"closed form": (0, closed_form)}
    for n in (6, 8, 10, 12, 16, 20, 40):
        out[f"start at y, second order, geometric to .02, {n}"] = n, start_at_y(geometric(1, 0.02, n), multistep)
    for n in (10, 20, 40):
        out[f"start at y, second order, geometric to .02, last a draw, {n}"] = n, start_at_y(
            geometric(1, 0.02, n), multistep, last_draw=True)
        out[f"start at y, first order, geometric to .02, {n}"] = n, start_at_y(geometric(1, 0.02, n), ancestral)
    out["start at y, second order, Karras to .01, last a draw, 10"] = 10, start_at_y(
        karras(1, 0.01, 10), multistep, last_draw=True)
    for n, last in ((8, 0.02), (8, 0.01), (9, 0.01), (10, 0.02), (10, 0.01), (12, 0.01)):
        out[f"start at y, balanced to {last}, {n}"] = n, planned(BALANCED[n, last])
    out["start at y, Heun's ODE, 19"] = 19, start_at_y(geometric(1, 0.02, 10), heun)
    flat = _priors()[1]
    for n in (10, 20):
        levels = karras(10.0, 1e-3, n)
        out[f"product, {n}"] = n + 1, reconstructor(partial(Diffusion, flat, Product, levels=levels))
    if snr == DPS_SNR:
        levels = karras(10.0, 1e-3, 20)
        out["PiGDM, deviation 1, 20"] = 21, reconstructor(partial(Diffusion, flat, PiGDM, levels=levels))
        small = partial(PiGDM, spread=0.1)
        out["PiGDM, deviation .1, 20"] = 21, reconstructor(partial(Diffusion, flat, small, levels=levels))
        for k in (1, 3, 10):
            one = partial(MMPS, iterations=k)
            out[f"MMPS, {k} iterations, 20"] = 21, reconstructor(partial(Diffusion, flat, one, levels=levels))
        for zeta in STRENGTHS:
            out[f"DPS, zeta {zeta:g} over the norm"] = 100, reconstructor(partial(DPS, flat, zeta))
            out[f"DPS, zeta {zeta / 60:.2g}"] = 100, reconstructor(partial(DPS, flat, zeta / 60, normed=False))
    return out


def judged(draws: Tensor, truth: Tensor, reference: Tensor, live: Tensor) -> dict[str, float]:
    """One star's numbers: errors, widths beside the closed form's, and how often the truth is inside."""
    widths = {}
    for name, size in (("width", 1), ("width_box", BOX)):
        whole = len(WAVE) // size * size
        own, known = (d[:, :whole].unflatten(1, (-1, size)).mean(-1).double().var(0) for d in (draws, reference))
        widths[name] = float((own.mean() / known.mean()).sqrt())
    rank = (draws < truth).sum(0)
    share = ((rank >= 5) & (rank < 27)).float()
    inside = []
    for line in map(find_line, LINES):
        of_draws, true = (equivalent_width(WAVE, a.double().numpy(), line) for a in (draws, truth))
        inside.append(5 <= int((of_draws < true).sum()) < 27)
    mean_gap = draws.mean(0) - reference.mean(0)
    return {"mse": float(((draws.mean(0) - truth[0]) ** 2).mean()), "off2": float((mean_gap**2).mean()),
            "var": float(reference.var(0).mean()), **widths, "coverage": float(share.mean()),
            "coverage_live": float(share[live].mean()), "coverage_ew": float(np.mean(inside))}


def _job(task: tuple[float, int, str]) -> list[dict[str, object]]:
    """Worker: one star through the methods whose name begins so."""
    snr, number, which = task
    torch.set_num_threads(1)
    rows: list[dict[str, object]] = []
    truth, y, sigma = star(snr, number)
    reference = _priors()[0].posterior_draws(y[0], sigma[0], REFERENCE, torch.Generator().manual_seed(number))
    for name, (calls, draw) in methods(snr).items():
        if not name.startswith(which):
            continue
        row: dict[str, object] = {"method": name, "snr": snr, "calls": calls, "star": number}
        try:
            row |= judged(draw(y, sigma, DRAWS, 1000 + number), truth, reference, torch.isfinite(sigma[0]))
        except Diverged:
            row["diverged"] = 1.0
        rows.append(row)
    return rows


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """One row for each method and S/N, with errors of the mean over stars."""
    out = []
    exact = rows[rows["method"] == "closed form"].set_index(["snr", "star"])["mse"]
    for (snr, name), part in rows.groupby(["snr", "method"], sort=False):
        good = part[part["mse"].notna()]
        n = max(len(good), 1)
        out.append({
            "method": name, "snr": snr, "calls": part["calls"].iloc[0], "rms": good["mse"].mean() ** 0.5,
            "rms_closed_form": exact.reindex(pd.MultiIndex.from_product([[snr], part["star"]])).mean() ** 0.5,
            "mean_off": (good["off2"] / good["var"]).mean() ** 0.5, "width": good["width"].mean(),
            "width_se": good["width"].std() / n**0.5, "width_box": good["width_box"].mean(),
            "width_box_se": good["width_box"].std() / n**0.5, "coverage": good["coverage"].mean(),
            "coverage_se": good["coverage"].std() / n**0.5, "coverage_ew": good["coverage_ew"].mean(),
            "diverged": 1 - len(good) / len(part), "stars": len(part), "draws": DRAWS})
    return pd.DataFrame(out)


def pages(table: pd.DataFrame) -> None:
    """Put the table's two halves on the docs' page: widths of what starts at y, and the rest at S/N 10."""
    started = table[table["method"].str.startswith(("closed", "start", "product"))]
    cells = started.assign(cell=[f"{w - 1:+.1%} / {b - 1:+.1%}".replace("%", "") for w, b in
                                 zip(started["width"], started["width_box"], strict=True)])
    widths = cells.pivot(index="method", columns="snr", values="cell").reindex(started["method"].unique())
    scatter = started.groupby("snr")[["width_se", "width_box_se"]].median()
    widths.loc["standard error, about"] = [f"{100 * a:.1f} / {100 * b:.1f}" for a, b in scatter.to_numpy()]
    widths.columns = [f"S/N {s:.0f}" for s in widths.columns]
    few = ("closed form", "start at y, balanced to 0.01, 9", "product, 20", "PiGDM", "MMPS", "DPS")
    rest = table[(table["snr"] == DPS_SNR) & table["method"].str.startswith(few)]
    shown = pd.DataFrame({
        "method": rest["method"], "calls": rest["calls"], "rms": [f"{v:.4f}" for v in rest["rms"]],
        "rms of closed form": [f"{v:.4f}" for v in rest["rms_closed_form"]],
        "mean off [posterior widths]": [f"{v:.2f}" for v in rest["mean_off"]],
        "width": [f"{v:.2f}" for v in rest["width"]], "of boxes": [f"{v:.2f}" for v in rest["width_box"]],
        "pixels inside": [f"{v:.2f}" for v in rest["coverage"]], "EW inside": [f"{v:.2f}" for v in rest["coverage_ew"]],
        "diverged": [f"{v:.0%}" for v in rest["diverged"]]})
    fill(PAGE, {"laboratory widths": widths.reset_index(), "laboratory conditions": shown})


def laboratory(args: argparse.Namespace) -> None:
    """Every sampler's own error on a prior whose posterior is known: no network in it."""
    tasks = [(snr, i, group) for group in ("closed", "start", "product") for snr in SNR for i in range(args.stars_each)]
    tasks += [(DPS_SNR, i, group) for group in ("PiGDM", "MMPS", "DPS") for i in range(args.costly)]
    rows: list[dict[str, object]] = []
    tasks.reverse()  # the longest first
    with ProcessPoolExecutor(args.workers) as pool:
        for done in pool.map(_job, tasks):
            rows += done
    every = pd.DataFrame(rows)
    every["order"] = every["method"].map({m: k for k, m in enumerate(methods(DPS_SNR))})
    table = summary(every.sort_values(["snr", "order", "star"]))
    TABLE.parent.mkdir(exist_ok=True)
    table.to_csv(TABLE, index=False, float_format="%.4g")
    pages(table)
    print(table.to_string(index=False))
