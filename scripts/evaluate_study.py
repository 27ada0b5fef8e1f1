"""The study of the supervised rivals: the new methods through the judge, beside its finished rows of the others."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pandas as pd

from core.pipeline import METHODS
from scripts import study_pages, study_tables
from scripts.evaluate_judge import RESULTS, WORK, gathered, plan, run, samples_of, slim, without
from scripts.judge_origin import filed

#: methods that the judge's own table does not hold; `dps` there has the strength .03
NEW = ("dncnn", "supervised_ivar", "supervised", "supervised_mixture", "dncnn_blind", "dps@0.01", "dps@0.1")
TABLE, ORIGIN = RESULTS / "study.parquet", RESULTS / "study.json"
FOLDER = WORK / "study"


def study(args: argparse.Namespace) -> None:
    """Supervised networks and DnCNN beside all others on the judge's stars; writes results/study*, docs/study.md."""
    wanted = args.methods.split(",") if args.methods else [m for m in NEW if m.partition("@")[0] in METHODS]
    folder = args.pieces or FOLDER
    if not args.collect:
        folder.mkdir(parents=True, exist_ok=True)
        run(plan(samples_of(args), wanted, args.slow_draws, folder, (args.slow, args.slow_draws)), args.workers, folder)
    if not args.no_table:
        collect(folder, wanted)
        tables()
        study_pages.pages()


def collect(folder: Path, methods: list[str]) -> None:
    """Finished pieces into results/study.parquet; rows of other methods, samples and S/N stay.

    Raises:
        ValueError: neither pieces nor a table of before, or pieces that do not belong together.
    """
    files = [f for f in sorted(folder.glob("*.table")) if f.name.split("-")[3] in {filed(m) for m in methods}]
    if not files and not TABLE.exists():
        raise ValueError(f"{folder} holds no piece of {', '.join(methods)}; leave out --collect to make them.")
    if not files:
        return
    table, failed, origins = gathered(files, methods)
    told = json.loads(ORIGIN.read_text()) if ORIGIN.exists() else {}
    lost = {m: sorted(part["star"]) for m, part in failed.groupby("method")}
    told |= {m: o | {"failed": lost.get(m, [])} for m, o in origins.items()}
    ORIGIN.write_text(json.dumps(told, indent=1) + "\n")
    table = slim(table)
    if TABLE.exists():
        table = pd.concat([without(pd.read_parquet(TABLE), table), table], ignore_index=True)
    for name in ("star", "method", "quantity", "unit", "sample"):
        table[name] = table[name].astype("category")
    table.to_parquet(TABLE, compression="zstd", compression_level=19)


def rows() -> pd.DataFrame:
    """The judge's rows and the study's."""
    parts = [pd.read_parquet(RESULTS / "judge.parquet"), pd.read_parquet(TABLE)]
    names = ("star", "method", "quantity", "unit", "sample")
    kept = without(parts[0].astype(dict.fromkeys(names, str)), parts[1].astype(dict.fromkeys(names, str)))
    return pd.concat([kept, parts[1].astype(dict.fromkeys(names, str))], ignore_index=True)


def tables() -> None:
    """results/study_errors.csv, study_bias.csv and study_coverage.csv from the rows that are there."""
    every = rows()
    for name, make in (("errors", study_tables.errors), ("bias", study_tables.biases),
                       ("coverage", study_tables.coverage)):
        parts = [make(part).assign(sample=sample) for sample in ("simulated", "real")
                 if len(part := study_tables.common(every, sample))]
        pd.concat(parts, ignore_index=True).to_csv(RESULTS / f"study_{name}.csv", index=False, float_format="%.5g")
