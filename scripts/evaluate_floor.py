"""The Bayes floor of the judge's simulated stars, star by star, between its two bounds; and rho of what was judged."""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from core.data.noise import NoiseModel
from core.data.population import draw_labels
from core.data.reality import Reality
from core.data.simulator import Simulated, Simulator
from core.metrics.fidelity import Mask, in_windows
from core.metrics.floor import Chain, bracket, chain
from core.metrics.guide import Guide, Question
from core.metrics.lines import LINES, equivalent_width, measurable
from core.models.any_star import AnyKind
from core.models.star_model import N_PARAMETERS, RV, population_log_density
from core.models.templates import NATIVE, Templates
from core.spectrum import Array
from scripts.floor_tables import tables
from scripts.judge_origin import keep, record
from scripts.judge_stars import SEED, SNR

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "results"
WORK = ROOT / ".trueline" / "floor"  # a line a finished star: a killed run goes on from them
LABELS = ("Teff", "logg", "[Fe/H]", "[alpha/Fe]", "RV")
_METHODS = ("mixture", "wiener", "pca", "wavelet")  # whose labels are first guesses, in this order
_POINTS, _WALKERS = 400, 20


@dataclass(frozen=True, eq=False)
class Truth:
    """(L,) wave [Angstrom] and clean flux, and labels (5,): the fit to be judged against."""

    wave: Array
    flux: Array
    labels: Array


def simulator() -> Simulator:
    """The judge's, as in scripts.judge_stars.simulated."""
    templates = Templates()
    return Simulator(templates, NATIVE, NoiseModel.load(), templates.emulator.nearest, Reality.load())


def guesses() -> pd.DataFrame:
    """First guesses from the data alone, labels and velocity as the judge measured them; indexed by method and star."""
    want = [("sample", "==", "simulated"), ("quantity", "in", list(LABELS))]
    rows = pd.read_parquet(RESULTS / "judge.parquet", filters=want)
    rows = rows[["star", "method", "quantity", "mean"]].astype({"star": str, "method": str, "quantity": str})
    return rows.pivot(index=["method", "star"], columns="quantity", values="mean")[list(LABELS)]


def around(guess: Array, question: Question, at: float, rng: np.random.Generator) -> Array:
    """(n, 42) states about guessed labels and velocity (5,), as wide as the guess may be wrong."""
    first = question.centre[0].copy()
    first[:4], first[RV], first[RV + 1 :] = guess[:4], guess[4], 0.0
    first[6] = 1.5 if first[0] < 6500 else 2.5
    density = [population_log_density(kind, *first[None, :3].T)[0] for kind in range(len(question.scale))]
    kind = int(np.argmax(density))
    ball = np.r_[300.0, 0.4, 0.3, 0.12, 0.12, 0.12, 0.4, np.full(20, 0.08), 3 + 60 / at, np.ones(N_PARAMETERS - RV - 1)]
    ball = np.minimum(question.scale[kind], ball)
    states = first + ball * rng.standard_normal((_POINTS, N_PARAMETERS))
    return np.c_[states, np.full(_POINTS, float(kind))]


def guided(question: Question, starts: list[Array], at: float, rng: np.random.Generator) -> tuple[Guide, int, float]:
    """The first start whose posterior fits the data; which it was, and its misfit [deviations of chi-square]."""
    best: tuple[Guide, int, float] | None = None
    pixels = int((question.whiten(np.ones((1, len(question.y)))) != 0).sum())
    for number, guess in enumerate(starts):
        try:
            guide = Guide(question, around(guess, question, at, rng), rng)
        except np.linalg.LinAlgError:
            continue
        chi2 = -2 * np.max(guide.marginal.log_likelihood(question.spectra(guide.cloud[:16]))) - guide.marginal.log_det
        misfit = float((chi2 - pixels) / np.sqrt(2 * pixels))
        if best is None or misfit < best[2]:
            best = guide, number, misfit
        if misfit < 4.0 and guide.misfits[-1] < 1.1:
            break
    if best is None:
        raise ValueError("no start of this star came to a posterior; leave it out.")
    return best


def row_of(model: AnyKind, free: Chain, told: Chain, linear: Array, truth: Truth, live: Mask) -> dict[str, float]:
    """What both groups of walkers say of one star: of mean squares, labels and widths the floor with its bounds.

    Args:
        linear: (L,) variance of the linear nuisances, the same for every walker.
    """
    out: dict[str, float] = {}
    flux = bracket(free.means, told.means, truth.flux)
    for name, use in {"all": live, "lines": live & in_windows(truth.wave, [x.band for x in LINES.values()])}.items():
        width = (flux.width + linear)[use]
        out |= {f"lower:{name}": float((flux.lower + linear)[use].mean()), f"width:{name}": float(width.mean()),
                f"error:{name}": float(flux.error[use].mean()), f"z2:{name}": float((flux.error[use] / width).mean())}

    def labels(states: Array) -> Array:
        flat = states.reshape(-1, states.shape[-1])
        return np.c_[model.labels(flat)[:, 1:5], flat[:, RV]].reshape(*states.shape[:2], len(LABELS))

    a, b = labels(free.states), labels(told.states)
    numbers: dict[str, tuple[Array, Array, Array]] = {
        name: (a[..., k], b[..., k], truth.labels[k]) for k, name in enumerate(LABELS)}
    for name, line in LINES.items():
        if measurable(live[None], truth.wave, line)[0]:
            widths = [equivalent_width(truth.wave, x, line) for x in (free.draws, told.draws, truth.flux)]
            numbers[f"EW:{name}"] = (widths[0], widths[1], widths[2])
    for name, (mine, others, true) in numbers.items():
        got = bracket(mine, others, true)
        rank = (mine < true).mean() + 0.5 * (mine == true).mean()
        out |= {f"lower:{name}": float(got.lower), f"width:{name}": float(got.width),
                f"error:{name}": float(got.error), f"rank:{name}": float(rank)}
    least = bracket(a, b, truth.labels).ess
    return out | {"ess": least, "taken_free": free.taken, "taken_told": told.taken}


class Stars:
    """The judge's stars at one S/N, with the parameters that made them."""

    def __init__(self, model: AnyKind, source: Simulator, at: float, number: int) -> None:
        self.at, self.model = at, model
        self.stars: Simulated = source.draw(number, np.random.default_rng([SEED, int(at)]), at)
        #: labels before they were moved into the templates' domain, where the prior has its density
        self.raw = draw_labels(number, np.random.default_rng([SEED, int(at)]))

    def truth(self, i: int, rng: np.random.Generator) -> Array:
        """(42,) the state that made star i; an element that was clipped is drawn again from beyond its edge."""
        labels, nuisances = self.raw[i].copy(), self.stars.nuisances
        assert nuisances is not None
        scatter, size = labels[8:], 0.08 * np.where(np.arange(20) == 1, 1.4, 1.0)
        edge = np.where(np.arange(20) == 1, 0.238, 0.17)
        beyond = np.flatnonzero(np.abs(scatter) >= edge - 1e-9)
        for k in beyond:
            x = 0.0
            while abs(x) < edge[k]:
                x = size[k] * rng.standard_normal()
            scatter[k] = np.sign(scatter[k]) * abs(x)
        velocity = float(self.stars.spectra.meta["rv"].iloc[i])
        return np.r_[self.model.models[int(labels[0])].start(labels, velocity, nuisances[i]), labels[0]]

    def floor(self, i: int, first: pd.DataFrame, wrong: float = 1.0, colours: bool = False) -> dict[str, object]:
        """Star i's row; `wrong` divides sigma, the control; `colours` tells the curve of the data.

        Raises:
            ValueError: no start came to a posterior.
        """
        begin, rng = time.time(), np.random.default_rng([SEED, int(self.at), i])
        name, spectra = f"simulated-{int(self.at)}-{i}", self.stars.spectra.select([i])
        question = self.model.question(spectra, rng, wrong, colours)
        state = self.truth(i, rng)
        shifted = np.r_[state[:4], state[RV]] + np.r_[150, 0.2, 0.15, 0.05, 3.0] * rng.standard_normal(5)
        starts = [first.loc[(m, name)].to_numpy(float) for m in _METHODS if (m, name) in first.index]
        starts = [s for s in starts if np.isfinite(s).all()]
        # with a wrong sigma nothing fits, and further starts are no help
        guide, number, misfit = guided(question, [*starts, shifted] if wrong == 1.0 else starts[:1], self.at, rng)
        free = chain(guide, guide.cloud[:_WALKERS], rng)
        told = chain(guide, np.repeat(state[None], _WALKERS, 0), rng, 10, 4, (30, 4))
        clean = question.spectra(np.r_[state[None], free.states[-1]])
        height = guide.exact(np.r_[state[None], free.states[-1]], clean)
        linear = guide.marginal.restore(clean[:1], np.zeros((1, guide.marginal.k)))[2]
        labels = np.r_[self.stars.labels[i, 1:5], state[RV]]
        truth = Truth(spectra.wave, self.stars.truth[i], labels)
        return {"star": name, "snr": self.at, "kind": int(state[-1]), "start": number,
                "shifted": number == len(starts), "misfit": misfit, "fit": guide.misfits[-1],
                "height": float(height[0] - height[1:].mean()), "spread": float(height[1:].std()),
                **row_of(self.model, free, told, linear, truth, spectra.measured[0]), "seconds": time.time() - begin}


def floor(args: argparse.Namespace) -> None:
    """The Bayes floor of the judge's simulated stars, and rho; writes results/floor* and rho.csv."""
    torch.set_num_threads(1)
    WORK.mkdir(parents=True, exist_ok=True)
    wrong = args.understated
    name = "colours" if args.colours else "stars"
    # stars of before and of now go into one table
    keep(record("floor", _WALKERS, False), WORK / "origin.json", any(WORK.glob("*.jsonl")))
    log = WORK / (f"{name}.jsonl" if wrong == 1.0 else f"control-{wrong:g}.jsonl")
    done = {json.loads(line)["star"] for line in log.read_text().splitlines()} if log.exists() else set()
    source, first, end = simulator(), guesses(), time.time() + 60 * args.minutes
    model = AnyKind(source)
    bins = [Stars(model, source, at, args.number) for at in SNR]
    for i in range(min(args.floors, args.number)):
        for stars in bins:
            name = f"simulated-{int(stars.at)}-{i}"
            if name in done or time.time() > end:
                continue
            try:
                row = stars.floor(i, first, wrong, args.colours)
            except (ValueError, np.linalg.LinAlgError) as error:
                row = {"star": name, "snr": stars.at, "failed": str(error)}
            with log.open("a") as file:
                file.write(json.dumps(row) + "\n")
    tables(WORK, RESULTS)
    if (WORK / "origin.json").exists():
        (RESULTS / "floor_stars.json").write_text((WORK / "origin.json").read_text())
