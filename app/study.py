"""The committed study: its tables read once, and the stars behind any point of its figures."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import streamlit as st

from core.figures import series, trends
from core.figures.against_floor import against_floor, squared_errors
from core.figures.style import ordered
from core.figures.trends import SCORES

RESULTS = Path(__file__).resolve().parent.parent / "results"
#: Whose stars stand in the figures: what is asked for, and the held-out real ones that are never left out.
BESIDE = {"simulated": ("simulated", "real"), "real": ("real",), "lamost": ("lamost", "real")}
POOLED = ("EW:", "flux:")  #: quantities that are judged together too
LABELS = ("RV", "Teff", "logg", "[Fe/H]", "[alpha/Fe]")
_REMEDY = "make it by `python -m scripts.evaluate`, or take the one of the repository"
_TEXTS = ("star", "method", "quantity", "unit", "sample")


@dataclass(frozen=True, eq=False)
class Study:
    """The judge's tables, and the supervised methods' of the study (docs/study.md), which stand on fewer stars.

    Args:
        table: results/judge.parquet and, of methods that it lacks, study.parquet, texts as categories; summary:
            judge_summary.csv; audit: audit.parquet and floor: floor_stars.parquet, without rows where the file is not
            there.
        drawing: methods that drew more than once; folder, stamps: of the files, by which it is kept.
    """

    table: pd.DataFrame
    summary: pd.DataFrame
    audit: pd.DataFrame
    floor: pd.DataFrame
    methods: tuple[str, ...]
    drawing: tuple[str, ...]
    samples: tuple[str, ...]
    quantities: tuple[str, ...]
    snrs: tuple[float, ...]
    folder: str
    stamps: tuple[int, ...]


@st.cache_resource(show_spinner="Reading the study ...", max_entries=2)
def read_of(folder: str, stamps: tuple[int, ...]) -> Study:
    """The study of a folder whose files have these time stamps, read once; raises as `study`."""
    table, summary, audit, floor, more = (_table(Path(folder) / name) for name in _FILES)
    table = _whole(table, f"{folder}/{_FILES[0]}")
    if len(more):
        table = _joined(table, _whole(more, f"{folder}/{_FILES[-1]}"))
    quantities = [str(name) for name in table["quantity"].cat.categories]
    first = [name for name in quantities if name.startswith("EW:")] + [name for name in LABELS if name in quantities]
    rest = [name for name in quantities if name.startswith("flux:")] + [name for name in SCORES if name in quantities]
    methods = ordered([str(name) for name in table["method"].unique()])
    drew = {str(name) for name in table.loc[table["n"] > 1, "method"].unique()}
    return Study(table, summary, audit, floor, tuple(methods), tuple(name for name in methods if name in drew),
                 tuple(str(name) for name in table["sample"].unique()), (*first, *rest),
                 tuple(float(snr) for snr in np.unique(table["snr"])), folder, stamps)


_FILES = ("judge.parquet", "judge_summary.csv", "audit.parquet", "floor_stars.parquet", "study.parquet")


def _whole(table: pd.DataFrame, path: str) -> pd.DataFrame:
    """The table with its texts as categories.

    Raises:
        ValueError: it lacks a column.
    """
    if missing := [name for name in (*_TEXTS, "snr", "truth", "mean", "std", "rank", "n") if name not in table]:
        raise ValueError(f"the study's table {path} has no {', '.join(missing)}; {_REMEDY}.")
    return table.astype({name: "category" for name in _TEXTS})


def _joined(table: pd.DataFrame, more: pd.DataFrame) -> pd.DataFrame:
    """Both, the second's rows of methods that the first has not; still as categories, which texts would undo."""
    more = more[~more["method"].isin(table["method"].cat.categories)]
    for name in _TEXTS:
        every = table[name].cat.categories.union(more[name].cat.categories, sort=False)
        table, more = (part.assign(**{name: part[name].cat.set_categories(every)}) for part in (table, more))
    return pd.concat([table, more[list(table)]], ignore_index=True)


def _table(path: Path) -> pd.DataFrame:
    """A table, without rows where it is not there but may be missing.

    Raises:
        ValueError: the judge's table is missing, or a file is not what its name says.
    """
    if not path.exists():
        if path.name == _FILES[0]:
            raise ValueError(f"the study's table {path} is not there; {_REMEDY}.")
        return pd.DataFrame()
    try:
        return pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)
    except (OSError, ValueError) as error:  # pyarrow's and pandas' own are ValueErrors
        raise ValueError(f"the study's table {path} cannot be read; {_REMEDY}.") from error


def study() -> Study:
    """The study, read anew when a file of it has changed.

    Raises:
        ValueError: no judge's table, or one that cannot be read.
    """
    stamps = [(RESULTS / name).stat().st_mtime_ns if (RESULTS / name).exists() else 0 for name in _FILES]
    return read_of(str(RESULTS), tuple(stamps))


def rows(held: Study, quantity: str, samples: Sequence[str], snr: float | None = None,
         drawn: bool = False) -> pd.DataFrame:
    """Rows of one quantity, or of all that begin so where it ends in a colon; texts as texts, which figures want.

    Args:
        samples: whose stars; snr: one alone; drawn: only of methods that drew more than once.
    """
    table = held.table
    pooled = quantity.endswith(":")
    names = [name for name in held.quantities if name == quantity or (pooled and name.startswith(quantity))]
    keep = table["quantity"].isin(names) & table["sample"].isin(samples)
    if snr is not None:
        keep &= np.isclose(table["snr"], snr)
    if drawn:
        keep &= table["n"] > 1
    return table[keep].astype({name: str for name in _TEXTS} | {"snr": float})


def stars(held: Study, quantity: str, sample: str, method: str, snr: float,
          part: tuple[float, float] | None = None) -> pd.DataFrame:
    """The stars behind a point, worst first.

    Args:
        part: only those whose truth lies at such a place of its posterior (rank over draws), as a bar of ranks holds.

    Returns:
        star, (line, where several are pooled), truth, mean, q16, q84, error = mean - truth and z = error / std (NaN for
        methods that answer once); of a score of the whole spectrum star and value.
    """
    found = rows(held, quantity, [sample], snr)
    found = found[found["method"] == method]
    if part is not None:
        place = (found["rank"] + 0.5) / (found["n"] + 1)
        found = found[(place >= part[0]) & (place <= part[1])]
    if quantity in SCORES:
        perfect = SCORES[quantity][2]
        far = found["mean"] if perfect is None else (found["mean"] - perfect).abs()
        return found.assign(far=far, value=found["mean"]).sort_values("far", ascending=False)[["star", "value"]]
    found = found[found["truth"].notna() & found["mean"].notna()]
    error = found["mean"] - found["truth"]
    drew = found["n"] > 1
    found = found.assign(error=error, z=np.where(drew & (found["std"] > 0), error / found["std"], np.nan))
    order = found["z"].abs() if drew.any() else error.abs()
    columns = ["star", *(["quantity"] if quantity in POOLED else []), "truth", "mean", "q16", "q84", "error", "z"]
    return found.loc[order.sort_values(ascending=False, na_position="last").index, columns]


@st.cache_resource(show_spinner=False, max_entries=2)
def _against_floor(folder: str, stamps: tuple[int, ...]) -> pd.DataFrame:
    held = read_of(folder, stamps)
    mine = held.table[(held.table["sample"] == "simulated") & held.table["star"].isin(held.floor["star"])
                      & held.table["method"].isin(held.drawing)].astype({"star": str, "method": str, "snr": float})
    key = ["star", "method", "snr"]
    draws = mine.groupby(key)["n"].max()  # a score says 1, the quantities beside it how many draws it is of
    scores = mine[mine["quantity"].isin(["rms", "width"])].drop(columns="n").join(draws, on=key)
    return against_floor(held.floor, squared_errors(scores))


def floor(held: Study) -> pd.DataFrame:
    """The floor of each simulated star that has one, and each drawing method's error of the whole spectrum."""
    return _against_floor(held.folder, held.stamps)


def floor_counts(held: Study) -> pd.DataFrame:
    """`counts` of the simulated stars that have a floor."""
    table = floor(held)
    names = {name: name.removeprefix("rms:") for name in table if name.startswith("rms:")}
    wide = table[table["ok"]].groupby("snr")[list(names)].count().rename(columns=names)
    long = wide.melt(ignore_index=False, var_name="method", value_name="stars").reset_index()
    return long[long["stars"] > 0].assign(sample="simulated")


def floor_stars(held: Study, method: str, snr: float) -> pd.DataFrame:
    """Stars with a floor at one S/N, worst first: star, floor, rms, ratio."""
    table = floor(held)
    name = f"rms:{method}"
    if name not in table:
        return pd.DataFrame(columns=["star", "floor", "rms", "ratio"])
    table = table[table["ok"] & np.isclose(table["snr"], snr) & table[name].notna()]
    out = pd.DataFrame({"star": table["star"], "floor": table["rms_floor"], "rms": table[name],
                        "ratio": table[name] / table["rms_floor"]})
    return out.sort_values("ratio", ascending=False)


def audit_of(rows: pd.DataFrame, method: str = "exact") -> str:
    """At which S/N the audit has a method with a network, and of which network, in a sentence; empty without rows."""
    mine = rows[rows["method"] == method] if len(rows) else rows
    if mine.empty:
        return ""
    at = ", ".join(f"{snr:g}" for snr in sorted(mine["snr"].unique()))
    return (f"{method} was audited at S/N {at} only; with which network its table does not record (docs/judge.md says "
            "it), and it need not be the one that answers on page Star.")


def audited(held: Study, experiment: str, method: str, snr: float, part: tuple[float, float] | None) -> pd.DataFrame:
    """Lines of an experiment of the audit, worst first, with what is left or painted of each and its flag."""
    table = held.audit
    share = {"put_in": "survival", "take_out": "painted"}[experiment]
    table = table[(table["experiment"].str.replace(" ", "_") == experiment) & (table["method"] == method)
                  & np.isclose(table["snr"], snr)]
    if part is not None:
        table = table[table["strength"].abs().between(*part)]
    far = (table[share] - (1.0 if experiment == "put_in" else 0.0)).abs()
    return table.loc[far.sort_values(ascending=False).index, ["star", "line", "wavelength", "strength", share, "found",
                                                              "flagged", "limit"]]


def numbers(held: Study, quantity: str, sample: str, method: str, snr: float) -> dict[str, float]:
    """The summary's row of one point, by column; of a method that it lacks what the figures have; empty without."""
    table = held.summary
    mine = table if table.empty else table[
        (table["quantity"] == quantity) & (table["sample"] == sample) & (table["method"] == method)
        & np.isclose(table["snr"], snr)]
    if mine.empty and (table.empty or method not in set(table["method"])):
        mine = _figured(rows(held, quantity, [sample], snr), quantity, method)
    return {} if mine.empty else {str(k): float(v) for k, v in mine.iloc[0].items() if isinstance(v, float | int)}


def _figured(table: pd.DataFrame, quantity: str, method: str) -> pd.DataFrame:
    """One row by the summary's names, without rows where there is nothing to tell."""
    out = pd.DataFrame()
    if method not in set(table["method"]):
        return out
    if quantity in SCORES:
        return trends.score(table, quantity, [method])
    with suppress(ValueError):  # no truth is known
        out = series.bias_and_scatter(table, quantity, [method])
    with suppress(ValueError):  # one answer has no interval
        share = trends.inside(table, quantity, [method])
        out = out.assign(coverage=share["inside"].to_numpy(), coverage_err=share["error"].to_numpy())
    return out


def counts(held: Study, quantity: str, samples: Sequence[str], snr: float | None = None,
           drawn: bool = False) -> pd.DataFrame:
    """How many stars each method stands on: sample, method, snr, stars; arguments as of `rows`."""
    table = rows(held, quantity, samples, snr, drawn)
    table = table[table["mean"].notna() & (table["truth"].notna() | (quantity in SCORES))]
    return table.groupby(["sample", "method", "snr"])["star"].nunique().rename("stars").reset_index()
