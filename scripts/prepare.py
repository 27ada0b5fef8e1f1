"""Rebuilds every number that ships: `python -m scripts.prepare noise|library|prior|sky|labels|stars`."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from core.data import hashes, lamost, real_stars, synthetic
from core.data import sky as sky_data
from core.data.bundled import make_stars
from core.data.grid import WAVE
from core.data.library import BUNDLED
from core.data.noise import NoiseModel
from core.data.reality import Reality
from core.data.simulator import Simulator
from core.models import emulator
from core.models.gaussian import GaussianPrior
from core.models.mixture import Mixture
from core.models.prior_fit import Recipe, build, moved, save
from core.models.sky_fit import fit_sky
from core.models.templates import NATIVE, Templates
from scripts.prepare_check import figures, speed
from scripts.prepare_labels import labels
from scripts.prepare_noise import noise

ROOT = Path(__file__).resolve().parents[1]


def stars(_: argparse.Namespace) -> None:
    """Write the bundled simulated stars."""
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


def sky(args: argparse.Namespace) -> None:
    """Measure the patterns that sky and air leave in LAMOST spectra, with the mixture's answer taken off."""
    if not sky_data.FILE.exists():  # reading LAMOST's spectra asks for it
        sky_data.save(np.zeros((0, len(WAVE))))
    everything, _ = lamost.read_folder(args.lamost)
    plate = everything.select((everything.meta["release"] == "pilot").to_numpy())
    patterns = fit_sky(Mixture.load(), plate)
    sky_data.save(patterns)
    print(f"wrote {len(patterns)} patterns; rms in sigma: {np.sqrt((patterns**2).mean(axis=1)).round(3)}")


_REAL = "real stars: folder with miles.npz, stelib.npz, mastar_hc.npz, or the wheel of sdss_mangadap 4.5.0"
#: part -> what runs it, and the sources it reads: option, place under ../shared, what it is
PARTS: dict[str, tuple[Callable[[argparse.Namespace], None], tuple[tuple[str, str, str], ...]]] = {
    "noise": (noise, (("library", "library/synspec.npz", "synthetic library"),
                      ("lamost", "lamost", "folder of LAMOST spectra of one plate"))),
    "library": (library, (("library", "library/synspec.npz", "synthetic library"),)),
    "prior": (prior, (("stars", "stars", _REAL),)),
    "sky": (sky, (("lamost", "lamost", "folder of LAMOST spectra of one plate"),)),
    "labels": (labels, (("stars", "stars", _REAL),)),
    "stars": (stars, ()),
}  # fmt: skip


def listed() -> list[Path]:
    """The committed files that have no card with their own hash: the list of hashes answers for them."""
    out = []
    for file in sorted(hashes.FOLDER.glob("*.safetensors")):
        card = file.with_suffix(".json")
        if not card.exists():
            out.append(file)
        elif "sha256" not in json.loads(card.read_text()):
            out += [file, card]
    return out


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m scripts.prepare", description=__doc__)
    parser.add_argument("--check", action="store_true", help="print the figures wanted and measured, and stop")
    parser.add_argument("--sums", action="store_true", help=f"write checkpoints/{hashes.LIST} of the files as they lie "
                        "there, and stop: after taking files of another branch, never to silence a refusal")
    parts = parser.add_subparsers(dest="part", metavar="part", help="which; all of them, in this order, without")
    for name, (run, sources) in PARTS.items():
        part = parts.add_parser(name, help=run.__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
        for option, place, what in sources:
            part.add_argument(f"--{option}", type=Path, default=ROOT.parent / "shared" / place, help=what)
    args = parser.parse_args()
    if args.check:
        print(pd.concat([figures(), speed()]).to_string(index=False))
        return
    if args.sums:
        hashes.record(*listed())
        return
    for name in [args.part] if args.part else PARTS:
        run, sources = PARTS[name]
        for option, place, what in sources:
            given = getattr(args, option, ROOT.parent / "shared" / place)
            if not given.exists():
                parser.error(f"{given} ({what}) is not there; name it with {name} --{option}.")
            setattr(args, option, given)
        run(args)
        for option, _, _ in sources:
            delattr(args, option)


if __name__ == "__main__":
    main()
