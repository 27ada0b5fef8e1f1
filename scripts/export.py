"""A star for a paper without a browser: the zip, or the figure, that the page gives, byte for byte but for the date."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import torch

from core.bundle import FIGURES, bundle
from core.figures.paper import METADATA
from core.figures.style import WIDTHS
from core.metrics.planted import ByHand
from core.request import Asked, Request, file_words


def main(arguments: Sequence[str] | None = None) -> int:
    """0, or 2 for a command that makes no sense."""
    parser = argparse.ArgumentParser(prog="python -m scripts.export", description=__doc__)
    parser.add_argument("file", help="LAMOST FITS, as core/data/stars/sim-12.fits.gz")
    parser.add_argument("--ask", action="append", metavar="METHOD,draws=N,NAME=VALUE",
                        help="a method; once for each (default: exact,draws=16)")
    parser.add_argument("--snr", type=float, help="degrade the star to this S/N_g first")
    parser.add_argument("--seed", type=int, default=0, help="of the added noise and of the draws")
    parser.add_argument("--line", metavar="WAVELENGTH,STRENGTH,UNIT,FWHM", help="put a line in first")
    parser.add_argument("--air", action="store_true", help="wavelengths of the figures in air")
    parser.add_argument("--rest", action="store_true", help="wavelengths of the figures in the star's rest frame")
    parser.add_argument("--journal", choices=list(WIDTHS), default="AAS", help="its column widths")
    parser.add_argument("--columns", type=int, choices=(1, 2), default=2, help="of a single figure")
    parser.add_argument("--threads", type=int, help="of PyTorch: the last digits of a network's answer depend on them")
    parser.add_argument("--out", type=Path, default=Path("trueline.zip"),
                        help=f"a .zip of everything, or a figure: NAME.{'|'.join(METADATA)} with NAME one of "
                             f"{', '.join(FIGURES)} (default: %(default)s)")
    given = parser.parse_args(arguments)
    kind = given.out.suffix.removeprefix(".")
    try:
        if kind != "zip" and (kind not in METADATA or given.out.stem not in FIGURES):
            raise ValueError(f"--out {given.out.name} is neither a .zip nor {' or '.join(FIGURES)} as "
                             f"{', '.join(METADATA)}; rename it.")
        if given.threads is not None:
            torch.set_num_threads(given.threads)
        line = None if given.line is None else ByHand.parse(given.line)
        asked = tuple(Asked.parse(text) for text in given.ask or ["exact,draws=16"])
        star = bundle(Request(file_words(given.file), given.snr, asked, given.seed, line, given.air, given.rest,
                              given.journal, given.threads), given.file)
        made = datetime.now(UTC).strftime("%Y-%m-%d")
        given.out.write_bytes(star.zipped(made) if kind == "zip" else
                              star.figure(given.out.stem, kind, given.columns))
    except (OSError, ValueError) as error:
        parser.error(str(error))
    print(given.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
