"""Stars without a browser: `python -m scripts.reconstruct FILE... --method exact --draws 32 --seed 0 --out DIR`.

The same numbers as the page: lines, labels and flags as ECSV, spectra with quantiles as FITS, provenance as JSON, in a
folder for each star. Finished stars are not made again. Bad files are refused by a line in DIR/report.csv.
"""

from __future__ import annotations

import argparse
import ast
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from core import batch


def _settings(given: Sequence[str]) -> dict[str, dict[str, Any]]:
    """METHOD.NAME=VALUE as settings by method."""
    out: dict[str, dict[str, Any]] = {}
    for text in given:
        left, equals, value = text.partition("=")
        method, dot, name = left.partition(".")
        if not (equals and dot and method and name):
            raise ValueError(f"--set {text} is not METHOD.NAME=VALUE, as in dps.strength=0.03.")
        try:
            out.setdefault(method, {})[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError) as error:
            raise ValueError(f"--set {text}: {value!r} is not a number, True or False.") from error
    return out


def _share(text: str) -> tuple[int, int]:
    """I/N as numbers."""
    first, _, of = text.partition("/")
    if not (first.isdigit() and of.isdigit() and 1 <= int(first) <= int(of)):
        raise ValueError(f"--part {text} is not I/N with I from 1 to N, as in 3/16.")
    return int(first), int(of)


def main(arguments: Sequence[str] | None = None) -> int:
    """0 when every star is there, 1 when files were refused or a method failed, 2 for a command that makes no sense."""
    parser = argparse.ArgumentParser(prog="python -m scripts.reconstruct", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="LAMOST FITS, or folders of them")
    parser.add_argument("--method", default="exact", help="one or more, with commas (default: %(default)s)")
    parser.add_argument("--draws", type=int, default=32, help="of each method (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of draws and of added noise (default: %(default)s)")
    parser.add_argument("--snr", type=float, help="degrade better stars to this S/N_g first, as the page does")
    parser.add_argument("--set", action="append", default=[], metavar="METHOD.NAME=VALUE", help="as dps.strength=0.03")
    parser.add_argument("--keep-draws", action="store_true", help="write the draws into the FITS file")
    parser.add_argument("--out", type=Path, required=True, help="folder for the results")
    parser.add_argument("--workers", type=int, default=1, help="processes side by side (default: %(default)s)")
    parser.add_argument("--part", default="1/1", metavar="I/N", help="the I-th of N shares, for jobs of a cluster")
    given = parser.parse_args(arguments)
    try:
        part, of = _share(given.part)
        order = batch.Order(tuple(dict.fromkeys(name for name in given.method.split(",") if name)), given.draws,
                            given.seed, given.snr, _settings(given.set), given.keep_draws)
        todo = batch.jobs(batch.fits_files(given.files), given.out)[part - 1 :: of]
        given.out.mkdir(parents=True, exist_ok=True)
        if given.workers > 1:
            # spawned: a fork of a process that has run PyTorch may hang
            threads = max(1, (os.cpu_count() or 1) // given.workers)
            with ProcessPoolExecutor(given.workers, get_context("spawn"), torch.set_num_threads, (threads,)) as pool:
                report = batch.run(todo, order, pool.map)
        else:
            report = batch.run(todo, order)
        report.to_csv(given.out / ("report.csv" if of == 1 else f"report-{part}-of-{of}.csv"), index=False)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    print(", ".join(f"{count} {state}" for state, count in report["state"].value_counts().items()), "in", given.out)
    wrong = report[report["reason"] != ""]
    for row in wrong.itertuples():
        print(f"{row.file}: {row.reason}", file=sys.stderr)
    return int(len(wrong) > 0)


if __name__ == "__main__":
    sys.exit(main())
