"""Rebuilds every number that ships from its sources: `python -m scripts.prepare noise|library|prior|stars`."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch

from core.data import real_stars, synthetic
from core.data.bundled import make_stars
from core.data.library import BUNDLED
from core.data.noise import NoiseModel
from core.data.reality import Reality
from core.data.simulator import Simulator
from core.models import emulator
from core.models.gaussian import GaussianPrior
from core.models.prior_fit import Recipe, build, moved, save
from core.models.templates import NATIVE, Templates
from scripts.prepare_noise import noise

ROOT = Path(__file__).resolve().parents[1]


def stars(_: argparse.Namespace) -> None:
    """Write the dozen bundled simulated stars."""
    templates = Templates()
    reality = Reality.load()
    make_stars(Simulator(templates, NATIVE, NoiseModel.load(), templates.emulator.nearest, reality), BUNDLED)
    print(f"wrote {len(list(BUNDLED.glob('*.fits.gz')))} stars to {BUNDLED}")


def library(args: argparse.Namespace) -> None:
    """Pack the synthetic library and fit its emulator; write its held-out errors."""
    print(synthetic.pack(args.library))
    packed = synthetic.load()
    parameters = emulator.fit(packed)
    emulator.save(parameters, packed)
    table = emulator.evaluate_split(packed, parameters, args.library)
    table.to_csv(ROOT / "results" / "emulator.csv", index=False)
    print(table[table["region"] == "all"].to_string())


def prior(args: argparse.Namespace) -> None:
    """Fit the stellar prior (reality, mixture, Gaussian) to the packed library and real training stars."""
    torch.set_num_threads(1)  # many small factorisations: a second thread only waits
    start = time.time()
    recipe = Recipe()
    libraries = [s.select(~s.meta["held_out"].to_numpy()) for s in real_stars.read(args.stars).values()]
    reality, mixture, simulated = build(libraries, recipe, lambda text: print(f"{time.time() - start:5.0f} s  {text}"))
    reality.save()
    save(mixture, {"what": "stellar prior: mixture of factor analysers", "recipe": asdict(recipe),
                   "real_stars": int(sum(len(s) for s in libraries)), "seconds": round(time.time() - start)})
    GaussianPrior.fit(moved(simulated, recipe.seed), 300).save()
    print(f"{time.time() - start:5.0f} s  wrote the prior to checkpoints/")


#: part -> what runs it, and the sources it reads: option, place under ../shared, what it is
PARTS: dict[str, tuple[Callable[[argparse.Namespace], None], tuple[tuple[str, str, str], ...]]] = {
    "noise": (noise, (("library", "library/synspec.npz", "synthetic library"),
                      ("lamost", "lamost", "folder of LAMOST spectra of one plate"))),
    "library": (library, (("library", "library/synspec.npz", "synthetic library"),)),
    "prior": (prior, (("stars", "stars", "folder with miles.npz, stelib.npz, mastar_hc.npz"),)),
    "stars": (stars, ()),
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m scripts.prepare", description=__doc__)
    parts = parser.add_subparsers(dest="part", required=True)
    for name, (run, sources) in PARTS.items():
        part = parts.add_parser(name, help=run.__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
        for option, place, what in sources:
            part.add_argument(f"--{option}", type=Path, default=ROOT.parent / "shared" / place, help=what)
    args = parser.parse_args()
    run, sources = PARTS[args.part]
    for option, _, what in sources:
        if not getattr(args, option).exists():
            parser.error(f"{getattr(args, option)} ({what}) is not there; name it with --{option}.")
    run(args)


if __name__ == "__main__":
    main()
