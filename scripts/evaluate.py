"""Measures what is claimed and writes the tables: `python -m scripts.evaluate reality|lamost|mixture|choice`."""

from __future__ import annotations

import argparse
from pathlib import Path

from scripts.evaluate_choice import choice
from scripts.evaluate_lamost import lamost_stars
from scripts.evaluate_mixture import mixture
from scripts.evaluate_reality import reality

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m scripts.evaluate", description=__doc__)
    parts = parser.add_subparsers(dest="part", required=True)
    defaults = argparse.ArgumentDefaultsHelpFormatter
    for name, run in (("reality", reality), ("choice", choice)):
        part = parts.add_parser(name, help=run.__doc__, formatter_class=defaults)
        part.add_argument("--stars", type=Path, default=ROOT.parent / "shared" / "stars",
                          help="folder with miles.npz, stelib.npz, mastar_hc.npz")
        part.set_defaults(run=run)
    part = parts.add_parser("lamost", help=lamost_stars.__doc__, formatter_class=defaults)
    part.add_argument("--lamost", type=Path, default=ROOT.parent / "shared" / "lamost", help="folder of its spectra")
    part.set_defaults(run=lamost_stars)
    part = parts.add_parser("mixture", help=mixture.__doc__, formatter_class=defaults)
    part.add_argument("--number", type=int, default=100, help="test stars at each S/N")
    part.add_argument("--checks-only", action="store_true", help="own truth and timing alone")
    part.set_defaults(run=mixture)
    args = parser.parse_args()
    for name in ("stars", "lamost"):
        if hasattr(args, name) and not getattr(args, name).exists():
            parser.error(f"{getattr(args, name)} is not there; name it with --{name}.")
    args.run(args)


if __name__ == "__main__":
    main()
