"""Judges what an unconditional model draws: are they stars, and stars of its own? A table with controls, a gallery.

`python -m scripts.evaluate_samples FILE` for samples already on disk (.npy, or a folder of them, (n, 3840) in units of
the continuum); `samples(draw)` for a model.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

from core.data.grid import N_PIXELS, WAVE
from core.data.instrument import MARGIN
from core.data.noise import NoiseModel
from core.data.reality import Reality
from core.data.simulator import Simulator
from core.figures.style import BLUE, GREY, RC, width
from core.metrics.samples import copying, energy, features, one_by_one
from core.models.mixture import Mixture
from core.models.precondition import Precondition
from core.models.templates import NATIVE, Templates
from core.networks import ddpm
from core.spectrum import Array
from core.training.feed import chunk
from core.training.stars import RealStars
from core.training.tasks import DDPMTask
from scripts.pages import DOCS, fill
from scripts.train import samples as unconditional

ROOT = Path(__file__).resolve().parents[1]
TABLE, GALLERY = ROOT / "results" / "ddpm_samples.csv", ROOT / "docs" / "ddpm_gallery.png"
SEED = 20261126  # of the stars compared with; no training uses it
SHOWN = 16
_LOOKED = 4000  # training spectra looked through for copies, and as many held-out stars: memory
_BATCH = 250  # stars the simulator makes at a time: memory

#: (number, seed) -> spectra (number, 3840) in units of the continuum
Draw = Callable[[int, int], Array]


def simulated(number: int, seed: int) -> Array:
    """(number, 3840) clean stars at rest with reality factors: the `Draw` of a model trained on such."""
    templates = Templates()
    simulator = Simulator(templates, NATIVE, NoiseModel.load(), templates.emulator.nearest, Reality.load())
    rng = np.random.default_rng(seed)
    parts = [simulator.rest(min(_BATCH, number - i), rng)[0] for i in range(0, number, _BATCH)]
    return np.concatenate(parts)[:, MARGIN:-MARGIN]


def as_trained(number: int, seed: int) -> Array:
    """(number, 3840) stars as the DDPM is shown them: moved, real components among them, in uncertain units."""
    mixture = Mixture.load()
    task = DDPMTask(RealStars(mixture, Precondition(mixture)))
    chunks = [chunk(seed, i, min(_BATCH, number - i * _BATCH)).excess for i in range(-(-number // _BATCH))]
    clean = torch.from_numpy(np.concatenate(chunks)).float() + 1.0
    with torch.no_grad():
        return np.asarray(task.stars(clean, torch.Generator().manual_seed(seed)).double().numpy())


def of_the_ddpm(number: int, seed: int) -> Array:
    """(number, 3840) samples of the committed DDPM, ancestral, respaced to 100 steps."""
    parts = [unconditional(ddpm(), min(50, number - i), seed + i) for i in range(0, number, 50)]
    return np.asarray(torch.cat(parts).double().cpu().numpy())


def ddpm_samples(args: argparse.Namespace) -> None:
    """Are the DDPM's samples stars? Writes results/ddpm_samples.csv and docs/ddpm_gallery.png."""
    out = samples(of_the_ddpm, args.samples, as_trained, as_trained(_LOOKED, 1))
    short = out[out["test"] != "feature"].drop(columns=["width", "invalid"]).round(4)
    fill(DOCS / "training.md", {"samples": short})
    print(short.to_string(index=False))


def judged(what: str, spectra: Array, reference: Array, training: Array, held_out: Array, seed: int) -> pd.DataFrame:
    """One set of spectra: rows of what, n, test, quantity, samples, reference, width, p, invalid.

    The row of test `energy` holds the energy coefficient against `reference` and that of the same spectra dealt at
    random; of `copying` the median distance to the nearest training spectrum and to the nearest held-out star (rms
    [continuum]); of `feature` medians and the ratio of widths.
    """
    mine, theirs = features(WAVE, spectra), features(WAVE, reference)
    whole = energy(mine, theirs, np.random.default_rng(seed))
    near = copying(spectra, training, held_out, np.random.default_rng(seed))
    rows = [{"test": "energy", "quantity": "coefficient", "samples": whole.coefficient, "reference": whole.null,
             "p": whole.p},
            {"test": "copying", "quantity": "median distance", "samples": float(np.median(near.nearest)),
             "reference": float(np.median(near.held)), "p": near.p}]
    single = one_by_one(mine, theirs).rename(columns={"feature": "quantity"}).assign(test="feature")
    columns = ["test", "quantity", "samples", "reference", "width", "p", "invalid"]
    table = pd.concat([pd.DataFrame(rows), single], ignore_index=True)[columns]
    return table.assign(what=what, n=len(spectra))[["what", "n", *columns]]


def judge_samples(drawn: Array, reference: Draw = simulated, training: Array | None = None, seed: int = SEED
                  ) -> pd.DataFrame:
    """The samples and three controls: other stars must pass both tests, noise fail `energy`, copies fail `copying`.

    Args:
        drawn: (n, 3840) by the model; reference: what it should draw, of the very distribution it was trained on
            (velocities, unit and real components included, or perfect samples fail both tests); training: (N, 3840)
            what it learned from, of which 4000 are looked through. Where None, so many stars of the reference that
            the model never saw: then nothing can be found but by the controls.
    """
    number, rng = len(drawn), np.random.default_rng(seed)
    stars, others = reference(number, seed), reference(number, seed + 1)
    known = reference(_LOOKED, seed + 2) if training is None else training[rng.permutation(len(training))[:_LOOKED]]
    held = reference(len(known), seed + 3)
    # the right mean, and the right variance in each pixel: what a network of the wrong prediction type tends to draw
    noise = stars.mean(axis=0) + stars.std(axis=0) * rng.standard_normal(stars.shape)
    sets = {"samples": drawn, "control: other stars": others, "control: noise": noise,
            "control: copies": known[rng.permutation(len(known))[:number]]}
    return pd.concat([judged(what, spectra, stars, known, held, seed) for what, spectra in sets.items()],
                     ignore_index=True)


def gallery(drawn: Array, stars: Array, path: Path = GALLERY, name: str = "drawn by the DDPM") -> None:
    """16 samples beside 16 simulated stars, the deepest absorption in the blue below; each 1 above the next."""
    with matplotlib.rc_context(RC):
        figure = Figure(figsize=(width("AAS", 2) / 25.4, 8.4), layout="constrained")
        panels = figure.subplots(1, 2, sharex=True, sharey=True)
        for ax, rows, colour, title in zip(panels, (drawn, stars), (BLUE, GREY), (name, "simulated"), strict=True):
            shown = rows[:SHOWN]
            for i, row in enumerate(shown[np.argsort(shown[:, WAVE < 4600].mean(axis=1))]):
                ax.plot(WAVE, row + i, color=colour, linewidth=0.4, rasterized=True)
            ax.set(title=title, xlabel="vacuum wavelength [Å]", xlim=(WAVE[0], WAVE[-1]), ylim=(0, SHOWN + 0.8))
            ax.set_yticks(np.arange(1, SHOWN + 1), [""] * SHOWN)  # the continuum of each
        panels[0].set_ylabel("flux / continuum: ticks are 1 of each star, their distance is 1 too")
        figure.savefig(path, dpi=150, metadata={})


def samples(draw: Draw, number: int = 500, reference: Draw = simulated, training: Array | None = None,
            seed: int = SEED, table: Path = TABLE, picture: Path = GALLERY) -> pd.DataFrame:
    """Draw, judge and show: writes results/ddpm_samples.csv and docs/ddpm_gallery.png.

    Args:
        draw: of the model; the others as `judge_samples`.

    Raises:
        ValueError: samples of another shape or not finite.
    """
    drawn = np.asarray(draw(number, seed), dtype=np.float64)
    if drawn.shape != (number, N_PIXELS):
        raise ValueError(f"the model drew {drawn.shape} and not ({number}, {N_PIXELS}); give spectra on the grid.")
    out = judge_samples(drawn, reference, training, seed)
    out.to_csv(table, index=False, float_format="%.5g")
    gallery(drawn, reference(SHOWN, seed), picture)
    return out


def read(path: Path) -> Array:
    """(n, 3840) of an .npy file, or of all in a folder.

    Raises:
        ValueError: no such file, or no spectra on the grid.
    """
    files = sorted(path.glob("*.npy")) if path.is_dir() else [path]
    try:
        rows = np.concatenate([np.atleast_2d(np.load(file, allow_pickle=False)) for file in files])
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} holds no samples ({error}); give an .npy file of (n, {N_PIXELS}), or a folder of "
                         "them.") from error
    if rows.shape[1:] != (N_PIXELS,):
        raise ValueError(f"{path} holds {rows.shape} and not (n, {N_PIXELS}); put the samples on the grid.")
    return rows


def main() -> None:
    defaults = argparse.ArgumentDefaultsHelpFormatter
    command = argparse.ArgumentParser(prog="python -m scripts.evaluate_samples", description=__doc__,
                                      formatter_class=defaults)
    command.add_argument("samples", type=Path, help=".npy file or folder of them, (n, 3840) in units of the continuum")
    command.add_argument("--training", type=Path, help="what the model learned from, likewise; or other stars")
    command.add_argument("--table", type=Path, default=TABLE, help="where the table goes")
    command.add_argument("--gallery", type=Path, default=GALLERY, help="where the picture goes")
    args = command.parse_args()
    try:
        drawn = read(args.samples)
        training = None if args.training is None else read(args.training)
        out = samples(lambda n, seed: drawn, len(drawn), training=training, table=args.table, picture=args.gallery)
    except ValueError as error:
        command.error(str(error))
    print(out[out["test"] != "feature"].round(4).to_string(index=False))
    single = out[(out["what"] == "samples") & (out["test"] == "feature")]
    print("\nwhere they differ most:\n" + single.nsmallest(8, "p").round(4).to_string(index=False))


if __name__ == "__main__":
    main()
