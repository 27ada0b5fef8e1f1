"""Measures what is claimed and writes the tables; without a part, every method through the judge and the audit."""

from __future__ import annotations

import argparse
from pathlib import Path

from core.pipeline import METHODS
from scripts.evaluate_audit import audit
from scripts.evaluate_choice import choice
from scripts.evaluate_judge import judge
from scripts.evaluate_labels import labels
from scripts.evaluate_lamost import lamost_stars
from scripts.evaluate_mixture import mixture
from scripts.evaluate_reality import reality
from scripts.judge_pages import pages

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"


def parser() -> argparse.ArgumentParser:
    """The command line."""
    defaults = argparse.ArgumentDefaultsHelpFormatter
    out = argparse.ArgumentParser(prog="python -m scripts.evaluate", description=__doc__, formatter_class=defaults)
    out.add_argument("--methods", help=f"comma-separated, of {','.join(METHODS)}; all without")
    out.add_argument("--number", type=int, default=400, help="simulated stars at each S/N")
    out.add_argument("--real", type=int, default=60, help="held-out stars of each library of real ones, at each S/N")
    out.add_argument("--audited", type=int, default=20, help="stars of each experiment of the audit at each S/N")
    out.add_argument("--draws", type=int, default=32, help="of each star, where a method draws")
    out.add_argument("--workers", type=int, default=2, help="processes")
    out.add_argument("--stars", type=Path, default=SHARED / "stars", help="libraries of real stars")
    out.add_argument("--lamost", type=Path, default=SHARED / "lamost", help="folder of LAMOST spectra")
    parts = out.add_subparsers(dest="part", metavar="part")
    for name, run in (("judge", judge), ("audit", audit), ("reality", reality), ("lamost", lamost_stars),
                      ("choice", choice), ("labels", labels), ("mixture", mixture)):
        part = parts.add_parser(name, help=run.__doc__, formatter_class=defaults)
        part.set_defaults(run=run)
        if name == "mixture":
            part.add_argument("--stars-each", type=int, default=100, help="test stars at each S/N")
            part.add_argument("--checks-only", action="store_true", help="own truth and timing alone")
    return out


def main() -> None:
    command = parser()
    args = command.parse_args()
    for part, folder in (("reality", args.stars), ("choice", args.stars), ("lamost", args.lamost)):
        if args.part == part and not folder.exists():
            command.error(f"{folder} is not there; name it with --{folder.name} before the part.")
    if args.part:
        args.run(args)
        return
    judge(args)
    audit(args)
    pages()


if __name__ == "__main__":
    main()
