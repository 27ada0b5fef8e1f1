"""What an answer costs: network calls, seconds and memory of each method, beside what a user would run today.

`python -m scripts.benchmark --methods exact,dps,mixture` writes results/benchmark.csv and benchmark_scaling.csv. Each
row is measured in a process of its own, after one star answered to warm up; short ones three times, for the median.
`python -m scripts.benchmark app` measures the dashboard instead (scripts/benchmark_app.py).

Today's way is lucidrains' denoising-diffusion-pytorch (`pip install 'trueline[benchmark]'`): its Unet1D of dim 64 with
its own sampler of 1000 steps at 3840 pixels. It is the unconditional draw alone; guidance by an observation costs it
more. Its weights do not matter for time. Five steps are timed and their median taken 1000 times; more draws than four
are timed as four and multiplied. Its package imports torchvision for images, which need not be there or fit this torch,
so only its one-dimensional module is imported, as it is, with the accelerate and ema-pytorch that it asks for.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import multiprocessing
import os
import platform
import resource
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from core.data.grid import N_PIXELS
from core.models.denoiser import Denoiser
from core.pipeline import METHODS, reconstruct
from core.spectrum import Spectra
from scripts.judge_stars import simulated

ROOT = Path(__file__).resolve().parents[1]
TABLE, SCALING = ROOT / "results" / "benchmark.csv", ROOT / "results" / "benchmark_scaling.csv"
DRAWS, STARS = (1, 16, 100), (1, 2, 4, 8)
AMONG = 16  # draws of each star where the number of stars varies
TODAY = "lucidrains Unet1D, 1000 steps"
_PACKAGE, _STEPS, _TIMED, _AT_ONCE = "denoising_diffusion_pytorch", 1000, 5, 4
_SHORT = 5.0  # seconds below which a row is timed three times, for its median


@dataclass
class Calls:
    """Forward passes so far: of networks and of denoisers (outermost ones), and the spectra that went through them."""

    network: int = 0
    through_network: int = 0
    denoiser: int = 0
    through_denoiser: int = 0


@contextmanager
def counted() -> Iterator[Calls]:
    """Counts calls of every module while it lasts.

    A network is a module with parameters that is no Denoiser, called by no other such module: the U-Net, not its
    layers. A Denoiser called by a Denoiser (a posterior one by its prior's) counts once.
    """
    calls, inside = Calls(), {"network": 0, "denoiser": 0}

    def kind(module: nn.Module) -> str:
        if isinstance(module, Denoiser):
            return "denoiser"
        return "network" if next(module.parameters(), None) is not None else ""

    def enter(module: nn.Module, _: Any) -> None:
        if kind(module):
            inside[kind(module)] += 1

    def leave(module: nn.Module, _: Any, out: Any) -> None:
        what = kind(module)
        if not what:
            return
        inside[what] -= 1
        if inside[what] == 0 and isinstance(out, torch.Tensor):
            # a denoiser's answer is (..., B, L), a network's (N, channels, [1,] L)
            rows = out.numel() // out.shape[-1] if what == "denoiser" else len(out)
            setattr(calls, what, getattr(calls, what) + 1)
            setattr(calls, f"through_{what}", getattr(calls, f"through_{what}") + rows)

    hooks = (nn.modules.module.register_module_forward_pre_hook(enter),
             nn.modules.module.register_module_forward_hook(leave, always_call=True))
    try:
        yield calls
    finally:
        for hook in hooks:
            hook.remove()


def memory() -> tuple[float, float]:
    """Memory this process holds now and at most so far [MB]."""
    try:
        lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        now, most = (int(lines[key].split()[0]) / 1024 for key in ("VmRSS", "VmHWM"))
        return now, most
    except (OSError, KeyError):
        # elsewhere the peak alone, in KB or on a Mac in bytes. On Linux ru_maxrss would also count the parent's.
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 1024)
        return most, most


def _timed(work: Callable[[], object]) -> float:
    """Seconds it takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def one(method: str, spectra: Spectra, draws: int, threads: int) -> dict[str, Any]:
    """A row: the method's answer to all these stars at once, in this process."""
    torch.set_num_threads(threads)
    reconstruct(spectra.select(0), method, 1, seed=1)
    before, _ = memory()
    with counted() as calls:
        spent = [_timed(lambda: reconstruct(spectra, method, draws))]
    while len(spent) < 3 and sum(spent) < _SHORT:
        spent.append(_timed(lambda: reconstruct(spectra, method, draws)))
    seconds = float(np.median(spent))
    answers = draws * len(spectra)
    return {"method": method, "stars": len(spectra), "draws": draws, "seconds": seconds,
            "seconds_per_star": seconds / len(spectra), "network_calls": calls.network,
            "network_calls_per_draw": calls.through_network / answers, "denoiser_calls": calls.denoiser,
            "denoiser_calls_per_draw": calls.through_denoiser / answers, "before_mb": before, "peak_mb": memory()[1],
            "how": "measured"}


def todays() -> ModuleType:
    """The one-dimensional module of denoising-diffusion-pytorch, without its package's __init__ (see above).

    Raises:
        ImportError: it is not installed, or something that it needs is not.
    """
    found = importlib.util.find_spec(_PACKAGE)
    if found is None:
        raise ImportError(f"{_PACKAGE} is not installed; `pip install 'trueline[benchmark]'`")
    bare = ModuleType(_PACKAGE)
    bare.__path__ = list(found.submodule_search_locations or ())
    sys.modules[_PACKAGE] = bare
    return importlib.import_module(f"{_PACKAGE}.{_PACKAGE}_1d")


def today(draws: int, threads: int) -> dict[str, Any]:
    """A row: that many draws of one star in today's way, in this process.

    Raises:
        ImportError: as `todays`.
    """
    torch.set_num_threads(threads)
    module = todays()
    torch.manual_seed(0)
    diffusion = module.GaussianDiffusion1D(module.Unet1D(dim=64, channels=1), seq_length=N_PIXELS, timesteps=_STEPS)
    batch = min(draws, _AT_ONCE)
    x = torch.randn(batch, 1, N_PIXELS)
    before, _ = memory()
    x, _ = diffusion.p_sample(x, _STEPS - 1)  # the first step of all warms up
    steps = range(_STEPS - 2, _STEPS - 2 - _TIMED, -1)
    spent = [_timed(partial(diffusion.p_sample, x, step)) for step in steps]
    seconds = float(np.median(spent)) * _STEPS * draws / batch
    return {"method": TODAY, "stars": 1, "draws": draws, "seconds": seconds, "seconds_per_star": seconds,
            "network_calls": _STEPS * -(-draws // batch), "network_calls_per_draw": float(_STEPS),
            "before_mb": before, "peak_mb": memory()[1],
            "how": f"median of {_TIMED} steps of a batch of {batch}, times {_STEPS * draws / batch:g}"}


def alone(work: Callable[..., dict[str, Any]], *args: Any) -> dict[str, Any]:
    """The work's row, from a fresh process: its peak is its own."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, *args).result()


def rows_of(method: str, stars: Spectra, threads: int, limit: float) -> list[dict[str, Any]]:
    """One star with 1, 16 and 100 draws, then 2, 4 and 8 stars with 16; what would take above `limit` is multiplied."""
    rows: list[dict[str, Any]] = []
    plan = [(1, n) for n in DRAWS] + [(b, AMONG) for b in STARS[1:]]
    for number, draws in plan:
        if rows:
            last = [row for row in rows if row["how"] == "measured"][-1]
            factor = number * draws / (last["stars"] * last["draws"])
            if last["seconds"] * factor > limit:
                rows.append({"method": method, "stars": number, "draws": draws, "seconds": last["seconds"] * factor,
                             "seconds_per_star": last["seconds"] * factor / number,
                             "how": f"{last['stars']} stars x {last['draws']} draws, times {factor:g}"})
                continue
        rows.append(alone(one, method, stars.select(np.arange(number)), draws, threads))
        print(pd.DataFrame(rows[-1:]).round(3).to_string(index=False, header=len(rows) == 1), flush=True)
    return rows


def scaling(table: pd.DataFrame) -> pd.DataFrame:
    """How seconds grow, over measured rows of each method: with draws of one star, and with stars of 16 draws.

    Returns:
        method, along, slope (of log seconds on log number: 1 = linear, below it a fixed cost weighs), fixed and each
        (of seconds = fixed + each * number, least squares of relative errors), off (largest relative departure from
        that line), growth_mb (by how much the peak rises from the fewest to the most).
    """
    rows = []
    measured = table[table["how"] == "measured"]
    for method, its in measured.groupby("method", sort=False):
        for along, part in (("draws", its[its["stars"] == 1]), ("stars", its[its["draws"] == AMONG])):
            n, seconds = part[along].to_numpy(float), part["seconds"].to_numpy(float)
            if len(n) < 3:
                continue
            design = np.stack([np.ones_like(n), n], axis=1)
            fixed, each = np.linalg.lstsq(design / seconds[:, None], np.ones_like(n), rcond=None)[0]
            peak = part.sort_values(along)["peak_mb"]
            rows.append({"method": method, "along": along, "slope": np.polyfit(np.log(n), np.log(seconds), 1)[0],
                         "fixed": fixed, "each": each, "off": float(np.abs((fixed + each * n) / seconds - 1).max()),
                         "growth_mb": peak.iloc[-1] - peak.iloc[0]})
    return pd.DataFrame(rows, columns=["method", "along", "slope", "fixed", "each", "off", "growth_mb"])


def against(table: pd.DataFrame) -> pd.DataFrame:
    """The table with `times_less`: today's seconds over the method's, for the same draws of one star."""
    todays_ = table[table["method"] == TODAY].set_index("draws")["seconds"]
    return table.assign(times_less=table["draws"].map(todays_) / table["seconds_per_star"])


def main() -> None:
    if sys.argv[1:2] == ["app"]:
        from scripts import benchmark_app  # here: it wants a browser, and this does not

        raise SystemExit(benchmark_app.main(sys.argv[2:]))
    command = argparse.ArgumentParser(prog="python -m scripts.benchmark", description=__doc__,
                                      formatter_class=argparse.RawDescriptionHelpFormatter)
    command.add_argument("--methods", default=",".join(METHODS), help="comma-separated (default: %(default)s)")
    command.add_argument("--threads", type=int, default=torch.get_num_threads(), help="default: %(default)s")
    command.add_argument("--snr", type=float, default=20.0, help="of the stars asked about (default: %(default)s)")
    command.add_argument("--limit", type=float, default=300.0,
                         help="seconds; longer rows are multiplied from shorter ones (default: %(default)s)")
    command.add_argument("--table", type=Path, default=TABLE, help="where it goes (default: %(default)s)")
    args = command.parse_args()
    methods = args.methods.split(",")
    if unknown := [m for m in methods if m not in METHODS]:
        command.error(f"{', '.join(unknown)} unknown; known are {', '.join(METHODS)}.")
    busy = os.getloadavg()[0]
    if busy > 0.5:
        print(f"others keep {busy:.1f} cores busy; the seconds want a quiet machine.", flush=True)
    stars = simulated(args.snr, max(STARS)).spectra
    rows: list[dict[str, Any]] = []
    try:
        for draws in DRAWS:
            rows.append(alone(today, draws, args.threads))
            print(pd.DataFrame(rows[-1:]).round(3).to_string(index=False, header=len(rows) == 1), flush=True)
    except ImportError as error:
        print(f"today's way is left out: {error}", flush=True)
    for method in methods:
        rows += rows_of(method, stars, args.threads, args.limit)
    table = against(pd.DataFrame(rows)).assign(
        snr=args.snr, threads=args.threads, load_before=busy, hardware=f"{os.cpu_count()} cores, {platform.machine()}",
        torch=torch.__version__)
    table.round(4).to_csv(args.table, index=False)
    grown = scaling(table)
    grown.round(4).to_csv(args.table.with_name(args.table.stem + "_scaling.csv"), index=False)
    print(table[["method", "stars", "draws", "seconds", "times_less", "how"]].round(3).to_string(index=False))
    print(grown.round(3).to_string(index=False))


if __name__ == "__main__":
    main()
