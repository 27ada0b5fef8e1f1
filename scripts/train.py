"""Trains the networks: `python -m scripts.train denoiser ddpm --recipe cpu --budget 90m`; resumes where it was."""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
import time
import traceback
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from core import checkpoint
from core.data.pairs import from_folder
from core.models.mixture import Mixture
from core.models.network import PlainDDPM, modules_of
from core.models.precondition import Precondition
from core.models.samplers import ddim
from core.models.schedule import respaced
from core.models.unet import UNet
from core.training.feed import Bank, Feed
from core.training.loop import Run, TrainConfig, fit, settle
from core.training.repeats import members
from core.training.stars import RealStars
from core.training.tasks import DDPMTask, DenoiserTask, DnCNNTask, PairsTask, SupervisedTask, Task
from scripts.declare_noise import told

ROOT = Path(__file__).resolve().parents[1]
_TOLD = 3000  # noise maps of a training that its card tells the range of
_FIRST_KEPT = 10_000  # spectra seen at the first weights that --keep keeps
EPOCH = 20_000  #: spectra: what the literature calls an epoch (spec-DDPM has 20,000 pairs); here none is seen twice
DATA = ("library", "emulator", "reality", "noise", "mixture")  # checkpoints that the stars come from
NAMES = ("denoiser", "ddpm", "supervised", "supervised_ivar", "supervised_mixture", "dncnn", "dncnn_blind")


@dataclass(frozen=True)
class Recipe:
    """Numbers of a training: spectra a step, learning rate, average of the weights, seconds of a whole training."""

    batch: int
    rate: float
    average: float
    budget: float
    bank: int


#: measured: see docs/training.md
RECIPES = {"cpu": Recipe(16, 4e-4, 0.998, 5400.0, 20_000), "gpu": Recipe(256, 8e-4, 0.998, 1500.0, 600_000)}


def seconds(text: str) -> float:
    """'90m', '240s', '1.5h' or a number of seconds.

    Raises:
        ValueError: anything else.
    """
    found = re.fullmatch(r"([0-9.]+)([smh]?)", text)
    if not found:
        raise ValueError(f"{text!r} is no time; write 240s, 90m or 1.5h.")
    return float(found[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[found[2]]


def build(name: str, real: RealStars, clean: Tensor) -> Task:
    """The task of a network; `clean` (n, L) are stars that say where spectra lie and how far they spread."""
    centre = clean.mean(0)
    scale = float((clean - centre).square().mean().sqrt())
    if name == "denoiser":
        return DenoiserTask(real)
    if name == "ddpm":
        return DDPMTask(real, centre, scale)
    if name.startswith("supervised"):
        return SupervisedTask(real, name, centre, scale)
    if name.startswith("dncnn"):
        return DnCNNTask(real, not name.endswith("blind"))
    raise ValueError(f"no network is called {name!r}; known: {', '.join(NAMES)}.")


def samples(model: PlainDDPM, number: int, seed: int, steps: int = 100) -> Tensor:
    """(number, L) unconditional samples of a plain DDPM, for the report."""
    device = model.centre.device
    generator = torch.Generator(device).manual_seed(seed)

    def fresh(step: int) -> Tensor:
        return model.scale * torch.randn(number, len(model.centre), generator=generator, device=device)

    def denoise(x: Tensor, level: float) -> Tensor:
        return model(x, torch.full_like(x[..., :1], level * float(model.scale)))

    levels = respaced(model.alpha_bar.cpu(), steps)
    with torch.no_grad():
        return ddim(denoise, model.centre + levels[0] * fresh(-1), levels, fresh, eta=1.0)


def seed_after(seed: int, cards: Iterable[Mapping[str, Any]]) -> int:
    """A seed for a training that begins with the weights of others, from the hashes in their cards.

    With the first training's seed it would see the noise, and the stars, that its weights were made on once more.
    """
    past = [str(card["sha256"]) for card in cards]
    return int(hashlib.sha256(json.dumps([seed, past]).encode()).hexdigest()[:8], 16) if past else seed


def kept_seed(path: Path, otherwise: int) -> int:
    """The seed written in a JSON file of an earlier sitting: what is resumed goes on with its own."""
    return int(json.loads(path.read_text()).get("seed", otherwise)) if path.exists() else otherwise


def train(name: str, recipe: Recipe, args: argparse.Namespace, bank: Bank, real: RealStars) -> None:
    """One network, from where it was to the end of its budget or of this sitting."""
    device = bank.excess.device
    folder = args.folder / name
    task = build(name, real, bank.excess[: bank.count][:20_000].float() + 1.0)
    task.module.to(device).train()
    if args.pairs is not None and isinstance(task, PairsTask):
        task.repeats = members(args.pairs, device)
    resumed, seed = (folder / "state.safetensors").exists(), args.seed
    if resumed:  # the card may by now be the last sitting's own
        seed = kept_seed(folder / "config.json", seed)
    elif args.warm and (args.out / f"{name}.safetensors").exists():
        state, _, card_before = checkpoint.load(args.out / f"{name}.safetensors")
        checkpoint.fill(task.module, state, name)
        seed = seed_after(seed, [card_before])
    config = TrainConfig(budget=recipe.budget, rate=recipe.rate, average=recipe.average, seed=seed,
                         steps=args.steps or TrainConfig.steps)
    run = Run(task, config, folder, device)

    def source(step: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        bank.grow(wait=device.type == "cpu")
        return bank.sample(recipe.batch, generator)

    mark = [_FIRST_KEPT]

    def look(run: Run) -> None:
        at = int(run.progress * 50)
        if args.keep and run.step * recipe.batch >= mark[0]:  # for `evaluate learning`
            kept = folder / f"seen-{run.step * recipe.batch}.safetensors"
            checkpoint.save_state({"weights": modules_of(task.module)}, kept)
            mark[0] = 2 * run.step * recipe.batch
        if isinstance(task, DDPMTask) and at % 10 == 0:
            np.savez_compressed(folder / f"samples-{at:02d}.npz",
                                flux=samples(task.module, 16, 0).half().cpu().numpy())

    start = time.time()
    lines = fit(run, source, recipe.batch, look, args.pause)
    run.swap()
    settle(run, source)
    card = {"what": f"{name}: {type(task.module).__name__}", "licence": "MIT",
            "data_sha256": checkpoint.sha256(*(checkpoint.path_of(d) for d in DATA)),
            "spectra_seen": run.step * recipe.batch, "spectra_made": bank.seen, "steps": run.step,
            "hardware": checkpoint.hardware(device), "seconds": round(run.used),
            "losses": {k: round(v, 5) for k, v in (lines[-1] if lines else {}).items()},
            "recipe": {"name": args.recipe, "batch": recipe.batch, "rate": recipe.rate, "seed": seed,
                       "seed_of_stars": bank.feed.seed, "warm": args.warm}}
    if isinstance(task, PairsTask):
        seen = bank.sigma[: bank.count][:_TOLD].float()
        if task.repeats is not None:
            seen = torch.cat([seen, task.repeats.sigma])
            card["pairs"] = {"repeats": len(task.repeats.y), "share": 0.5}
        card["noise"] = told(seen.cpu().numpy(), "maps of the training itself")
    net = task.module.net
    config_of = {"unet": net.config.as_dict()} if isinstance(net, UNet) else {}
    checkpoint.save(modules_of(task.module), config_of, card, args.out / f"{name}.safetensors")
    run.swap()
    print(f"{name}: {run.step} steps, {run.step * recipe.batch} spectra in {run.used:.0f} s "
          f"({time.time() - start:.0f} s now), {card['losses']}", flush=True)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="+", metavar="NAME[:BUDGET]", help=f"of {', '.join(NAMES)}")
    parser.add_argument("--recipe", choices=RECIPES, default="gpu" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--budget", type=seconds, help="time for the whole training of each, such as 90m")
    parser.add_argument("--pause", type=seconds, help="end this sitting after so long; the next goes on")
    parser.add_argument("--steps", type=int, help="end after so many steps, whatever the time")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--workers", type=int, default=1, help="processes that simulate stars")
    parser.add_argument("--seed", type=int, default=0, help="of a training that begins; a resumed one keeps its own")
    parser.add_argument("--batch", type=int)
    parser.add_argument("--rate", type=float, help="highest learning rate")
    parser.add_argument("--warm", action="store_true",
                        help="begin with the weights of the checkpoint that is there, on other stars and noise")
    parser.add_argument("--keep", action="store_true", help="weights at each doubling of spectra seen, in --folder")
    parser.add_argument("--pairs", type=Path, metavar="FOLDER", help="of LAMOST files: stars observed twice are half "
                        "of each batch (supervised networks, DnCNN)")
    parser.add_argument("--folder", type=Path, default=ROOT / ".trueline" / "train", help="logs and states")
    parser.add_argument("--out", type=Path, default=checkpoint.FOLDER)
    args = parser.parse_args()
    wanted = [(n.partition(":")[0], n.partition(":")[2]) for n in args.names]
    for name, _ in wanted:
        if name not in NAMES:
            parser.error(f"no network is called {name!r}; known: {', '.join(NAMES)}")
        if args.pairs is not None and name in ("denoiser", "ddpm"):
            parser.error(f"{name} is not trained on pairs; leave out --pairs")
    try:
        args.pairs = None if args.pairs is None else from_folder(args.pairs)
    except ValueError as error:
        parser.error(str(error))
    auto = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(auto if args.device == "auto" else args.device)
    base = RECIPES[args.recipe]
    mixture = Mixture.load()
    precondition = Precondition(mixture).to(device)
    if device.type == "cuda":
        precondition.lay()
    real = RealStars(mixture, precondition).to(device)
    seen = args.folder / "chunks.json"  # how far the stream of stars was read: a resumed training sees new ones
    first = json.loads(seen.read_text())["next"] if seen.exists() else 0
    before = [args.out / f"{name}.safetensors" for name, _ in wanted] if args.warm and not seen.exists() else []
    stars = kept_seed(seen, seed_after(args.seed, [checkpoint.load(p)[2] for p in before if p.exists()]) + 1)
    seen.parent.mkdir(parents=True, exist_ok=True)
    seen.write_text(json.dumps({"next": first, "seed": stars}) + "\n")  # a killed training goes on with its stars
    with Feed(stars, 64, args.workers, first) as feed:
        bank = Bank(feed, base.bank, device)
        while bank.count < min(40 * base.batch, base.bank):
            bank.grow(wait=True)
        print(f"{bank.count} stars are ready", flush=True)
        failed = []
        for name, budget in wanted:
            spent = seconds(budget) if budget else args.budget or base.budget
            recipe = Recipe(args.batch or base.batch, args.rate or base.rate, base.average, spent, base.bank)
            try:
                train(name, recipe, args, bank, real)
            except (RuntimeError, ValueError):  # on a lent machine the others go on
                traceback.print_exc()
                failed.append(name)
            seen.write_text(json.dumps({"next": feed.next, "seed": stars}) + "\n")
    if failed:
        sys.exit(f"not trained: {', '.join(failed)}")


if __name__ == "__main__":
    main()
