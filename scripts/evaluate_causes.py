"""Whose fault is the exact posterior's distance from the floor: steps, prior, velocity or network; on stars of its own.

Stars are of another seed than the judge's: nothing is explained, or chosen, on what is judged.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from core.data.grid import WAVE
from core.metrics.fidelity import in_windows
from core.metrics.lines import LINES
from core.models.mixture import Mixture
from core.models.mixture_sampler import MixtureSampler
from core.models.network import Preconditioned, Told, true_noise
from core.models.noise_map import NoiseMap
from core.models.observation import Observation
from core.models.precondition import Precondition
from core.networks import denoiser
from core.spectrum import Array, Spectra
from scripts.cross_fit import kept
from scripts.evaluate_remedies import stars_with_truth
from scripts.pages import DOCS, fill, with_error

ROOT = Path(__file__).resolve().parents[1]
_SNR, _DRAWS = (20.0, 50.0, 100.0), 16
USUAL = "as it is: 9 calls"


@cache
def physics() -> Mixture:
    """The committed mixture without its components of real stars: a sharper prior, for simulated stars alone."""
    whole = Mixture.load()
    which = [i for i, kind in enumerate(whole.kinds) if kind == "physics"]
    weight = whole.log_weight[which]
    return Mixture(weight - weight.logsumexp(0), whole.mean[which], whole.factors[which], whole.residual[which],
                   ["physics"] * len(which), whole.unit_spread, whole.taps, whole.scales)


@cache
def on(prior: str) -> Preconditioned:
    """The committed network on top of another mixture, or ("none") an untrained one on the committed mixture."""
    if prior == "none":
        return Preconditioned(precondition=denoiser().precondition).eval()
    net = Preconditioned(denoiser().net.config, Precondition(physics()))
    net.load_state_dict(denoiser().state_dict())
    return net.eval()


def one_call(observation: Observation) -> Array:
    """(1, 1, L) the network's answer at the observation itself: no sampler in it."""
    y, sigma = true_noise(observation)
    told = Told(denoiser(), observation)
    rho = torch.tensor(observation.noise.rho, dtype=torch.float32)
    return np.asarray(told(y[None], torch.where(torch.isfinite(sigma), sigma, torch.inf), rho).double())


def told_velocity(observation: Observation, rv: float) -> Array:
    """(n, 1, L) draws of the mixture at the true velocity [km/s], which nobody is told."""
    posterior = Mixture.load().over(observation, _likely(observation), [rv])
    return np.asarray(posterior.draw(_DRAWS, torch.Generator().manual_seed(1)).double())[:, None]


def _likely(observation: Observation) -> list[int]:
    mixture = Mixture.load()
    keep, _ = mixture.search.candidates(observation)
    return keep + [j for j in mixture.always if j not in keep]


#: name -> draws (n, 1, L) about one observed star of true velocity rv
CAUSES: dict[str, Callable[[Observation, float], Array]] = {
    USUAL: lambda o, rv: np.asarray(NoiseMap(denoiser()).sample(o, _DRAWS, 0)),
    "16 calls": lambda o, rv: np.asarray(NoiseMap(denoiser(), 16, 0.02).sample(o, _DRAWS, 0)),
    "one call, no sampler": lambda o, rv: one_call(o),
    "no network": lambda o, rv: np.asarray(NoiseMap(on("none")).sample(o, _DRAWS, 0)),
    "network, prior of physics alone": lambda o, rv: np.asarray(NoiseMap(on("physics")).sample(o, _DRAWS, 0)),
    "mixture": lambda o, rv: np.asarray(MixtureSampler().sample(o, _DRAWS, 0)),
    "mixture of physics alone": lambda o, rv: np.asarray(MixtureSampler(mixture=physics()).sample(o, _DRAWS, 0)),
    "mixture, velocity told": told_velocity,
}


def _scores(draws: Array, truth: Array, live: npt.NDArray[np.bool_]) -> dict[str, float]:
    """Square error of the mean (less what so few draws add) and variance, in all pixels and those of lines."""
    out: dict[str, float] = {}
    lines = in_windows(WAVE, [line.band for line in LINES.values()])
    n = len(draws)
    variance = draws.var(0, ddof=1)[0] if n > 1 else np.full(len(WAVE), np.nan)
    square = (draws.mean(0)[0] - truth) ** 2 - (variance / n if n > 1 else 0.0)
    for name, where in (("all", live), ("lines", live & lines)):
        out |= {f"mse_{name}": float(square[where].mean()), f"var_{name}": float(variance[where].mean())}
    return out


def asked(name: str, snr: float, number: int) -> pd.DataFrame:
    """One cause at one S/N: a row a star."""
    spectra, truth = stars_with_truth(snr, number, "causes")
    rows = []
    with torch.inference_mode():
        for b in range(number):
            one: Spectra = spectra.select([b])
            draws = CAUSES[name](Observation.of(one), float(one.meta["rv"].iloc[0]))
            rows.append({"cause": name, "snr": snr, "star": one.stars[0],
                         **_scores(draws, truth[b], one.measured[0])})
    return pd.DataFrame(rows)


def compared(rows: pd.DataFrame) -> pd.DataFrame:
    """By cause and S/N: geometric mean over stars of the error over the usual one's, with its standard error, and z2.

    Args:
        rows: of `asked`, the usual one among them, the same stars in each.
    """
    out = []
    for (cause, snr), part in rows.groupby(["cause", "snr"], sort=False):
        base = rows[(rows["cause"] == USUAL) & (rows["snr"] == snr)].set_index("star").loc[part["star"]]
        row: dict[str, object] = {"cause": cause, "snr": snr, "stars": len(part)}
        for name in ("all", "lines"):
            least = 1e-12  # few draws may take more off a star's square error than it is
            gap = 0.5 * np.log(part[f"mse_{name}"].clip(lower=least).to_numpy()
                               / base[f"mse_{name}"].clip(lower=least).to_numpy())
            row |= {name: float(np.exp(gap.mean())), f"{name}_err": float(gap.std(ddof=1) / np.sqrt(len(gap)))}
        row["z2"] = float(part["mse_all"].median() / part["var_all"].median())
        out.append(row)
    return pd.DataFrame(out)


def causes(args: argparse.Namespace) -> None:
    """Whose fault the exact posterior's distance from the floor is; writes results/exact_causes.csv."""
    torch.set_num_threads(1)
    rows = pd.concat([kept(f"causes-{i}-{snr:g}-{args.asked}", asked, name, snr, args.asked)
                      for snr in (args.snr or _SNR) for i, name in enumerate(CAUSES)], ignore_index=True)
    table = compared(rows)
    table.round(4).to_csv(ROOT / "results" / "exact_causes.csv", index=False)
    shown = table.assign(all=with_error(table, "all", 3), lines=with_error(table, "lines", 3))
    fill(DOCS / "results.md", {"exact-causes": shown[["cause", "snr", "stars", "all", "lines", "z2"]].assign(
        z2=["-" if np.isnan(z) else f"{z:.2f}" for z in table["z2"]])})
    print(shown.to_string())
