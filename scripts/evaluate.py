"""Measures what is claimed and writes the tables; without a part, every method through the judge and the audit."""

from __future__ import annotations

import argparse
from pathlib import Path

from core.pipeline import METHODS
from scripts.evaluate_audit import audit
from scripts.evaluate_causes import causes
from scripts.evaluate_choice import choice
from scripts.evaluate_cross import FOLDS, cross
from scripts.evaluate_domain import domain
from scripts.evaluate_floor import floor
from scripts.evaluate_gain import gain
from scripts.evaluate_good import good
from scripts.evaluate_judge import judge
from scripts.evaluate_labels import control, labels
from scripts.evaluate_laboratory import laboratory
from scripts.evaluate_lamost import lamost_stars
from scripts.evaluate_learning import learning
from scripts.evaluate_maps import MAPS, maps
from scripts.evaluate_mixture import mixture
from scripts.evaluate_parents import parents
from scripts.evaluate_reality import reality
from scripts.evaluate_remedies import remedies
from scripts.evaluate_samples import ddpm_samples
from scripts.evaluate_steps import steps
from scripts.evaluate_study import study
from scripts.evaluate_survival import survival
from scripts.evaluate_without import without
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
    out.add_argument("--nulls", type=int, default=400, help="other stars, on which the audit measures a method's null")
    out.add_argument("--snr", type=float, nargs="+", help="S/N to ask at; all without")
    out.add_argument("--draws", type=int, default=32, help="of each star, where a method draws")
    out.add_argument("--first", type=int, help="of the simulated stars at each S/N only the first so many")
    out.add_argument("--slow", type=int, default=100, help="simulated stars at each S/N of methods that take long")
    out.add_argument("--slow-draws", type=int, default=8, help="draws of such methods")
    out.add_argument("--workers", type=int, default=2, help="processes")
    out.add_argument("--pieces", type=Path, help="folder of finished pieces, of another machine perhaps")
    out.add_argument("--collect", action="store_true", help="finished pieces into the tables, no new ones")
    out.add_argument("--no-table", action="store_true", help="pieces alone, to be collected elsewhere")
    out.add_argument("--stars", type=Path, default=SHARED / "stars", help="libraries of real stars")
    out.add_argument("--lamost", type=Path, default=SHARED / "lamost", help="folder of LAMOST spectra")
    parts = out.add_subparsers(dest="part", metavar="part")
    for name, run in (("judge", judge), ("audit", audit), ("remedies", remedies), ("reality", reality),
                      ("lamost", lamost_stars), ("choice", choice), ("cross", cross), ("without", without),
                      ("parents", parents), ("gain", gain), ("floor", floor), ("labels", labels),
                      ("mixture", mixture), ("laboratory", laboratory), ("samples", ddpm_samples), ("causes", causes),
                      ("study", study), ("steps", steps), ("survival", survival), ("maps", maps),
                      ("learning", learning), ("estimators", control), ("domain", domain),
                      ("good", good)):
        part = parts.add_parser(name, help=run.__doc__, formatter_class=defaults)
        part.set_defaults(run=run)
        if name == "floor":
            part.add_argument("--floors", type=int, default=60, help="stars at each S/N, the first of them")
            part.add_argument("--minutes", type=float, default=60.0, help="after which no star is begun")
            part.add_argument("--colours", action="store_true", help="tell the curve of the data: the lower bound")
            part.add_argument("--understated", type=float, default=1.0, help="sigma is divided by it: the control")
        if name == "survival":
            part.add_argument("--lines-of", type=int, default=20, help="stars that lines are put into and taken from")
        if name == "maps":
            part.add_argument("--maps-of", type=int, default=20, help="stars under each noise map")
            part.add_argument("--maps", nargs="+", choices=MAPS, help="which; all without")
        if name == "learning":
            part.add_argument("--kept", type=Path, default=ROOT / ".trueline" / "train",
                              help="folder of trainings whose weights were kept on the way")
        if name == "mixture":
            part.add_argument("--stars-each", type=int, default=100, help="test stars at each S/N")
            part.add_argument("--checks-only", action="store_true", help="own truth and timing alone")
        if name in ("cross", "without", "gain", "causes"):
            part.add_argument("--asked", type=int, default={"gain": 30, "causes": 40}.get(name, 14),
                              help="stars asked about (of each fold or library)")
        if name in ("cross", "without"):
            part.add_argument("--simulated", type=int, default=5000, help="stars that each physics is fitted to")
        if name == "cross":
            part.add_argument("--folds", type=int, nargs="+", choices=FOLDS, default=FOLDS, help="asked about in turn")
        if name == "parents":
            part.add_argument("--every", type=int, default=5, help="of each library's held-out stars one in so many")
        if name == "gain":
            part.add_argument("--own", type=int, default=6000, help="draws of the mixture that Wiener is fitted to")
        if name == "samples":
            part.add_argument("--samples", type=int, default=300, help="of the DDPM")
        if name == "laboratory":
            part.add_argument("--stars-each", type=int, default=24, help="stars of the laboratory's prior at each S/N")
            part.add_argument("--costly", type=int, default=8, help="stars of DPS, PiGDM and MMPS, at S/N 10 alone")
    return out


def main() -> None:
    command = parser()
    args = command.parse_args()
    for part, option in (("reality", "stars"), ("choice", "stars"), ("cross", "stars"), ("without", "stars"),
                         ("parents", "stars"), ("lamost", "lamost")):
        folder = getattr(args, option)
        if args.part == part and not folder.exists():
            command.error(f"{folder} is not there; name it with --{option} before the part.")
    if args.part:
        args.run(args)
        return
    judge(args)
    audit(args)
    pages()


if __name__ == "__main__":
    main()
