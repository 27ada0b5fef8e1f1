"""Which rows of a result table a figure asks for, and what is said when they are not there."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from core.figures.style import ordered

KEYS = ["sample", "method", "snr"]
Methods = Sequence[str] | None


def need(table: pd.DataFrame, columns: Sequence[str], what: str = "table") -> None:
    """Raises ValueError unless the table has rows and these columns."""
    if missing := [c for c in columns if c not in table]:
        raise ValueError(f"the {what} has no column {', '.join(missing)}; it must have {', '.join(columns)}.")
    if table.empty:
        raise ValueError(f"the {what} has no rows; give at least one star.")


def chosen(table: pd.DataFrame, methods: Methods, what: str = "table") -> pd.DataFrame:
    """Rows of some methods, of all for None.

    Raises:
        ValueError: no method asked for, or one that the table does not hold.
    """
    if methods is None:
        return table
    known = ordered(table["method"].unique().tolist())
    if not methods or isinstance(methods, str):
        raise ValueError(f"methods is {methods!r}; give a list of some of {', '.join(known)}, or None for all.")
    for method in methods:
        if method not in known:
            raise ValueError(f"the {what} holds no method {method!r}; it has {', '.join(known)}.")
    return table[table["method"].isin(list(methods))]


def select(table: pd.DataFrame, quantity: str, columns: Sequence[str], methods: Methods = None) -> pd.DataFrame:
    """Rows of one quantity, or of all that begin so where the name ends in a colon ('EW:'), with finite `columns`.

    Raises:
        ValueError: columns missing, a quantity or method that the table does not hold (the nearest is given), or none
            of its rows finite in `columns`.
    """
    need(table, ["star", *KEYS, "quantity", "truth", *columns])
    names = table["quantity"].astype(str)
    rows = table[names.str.startswith(quantity) if quantity.endswith(":") else names == quantity]
    if rows.empty:
        known = sorted(set(names))
        near = difflib.get_close_matches(quantity, known, n=1, cutoff=0.0)[0]
        shown = ", ".join(known[:20]) + (", ..." if len(known) > 20 else "")
        raise ValueError(f"the table holds no quantity {quantity!r}; did you mean {near!r}? It has {shown}.")
    rows = chosen(rows, methods, f"table of {quantity}")
    whole = rows[np.isfinite(rows[list(columns)].to_numpy(np.float64)).all(axis=1)]
    if whole.empty:
        raise ValueError(f"{quantity!r} has no row with {' and '.join(columns)}; a score without a truth has no bias, "
                         "and a method that answers once has no rank: choose another quantity, or methods that draw.")
    return whole


def nearest_snr(table: pd.DataFrame, snr: float | None) -> float:
    """The S/N asked for; for None the one nearest to 10.

    Raises:
        ValueError: a S/N that the table does not hold.
    """
    known = np.unique(table["snr"].to_numpy(np.float64))
    if snr is None:
        return float(known[np.abs(np.log(known / 10)).argmin()])
    if not np.isclose(known, snr).any():
        raise ValueError(f"the table holds no S/N {snr:g}; it has {', '.join(f'{s:g}' for s in known)}.")
    return float(known[np.isclose(known, snr)][0])


def at_snr(table: pd.DataFrame, snr: float | None) -> pd.DataFrame:
    """Rows of one S/N, as `nearest_snr` finds it."""
    return table[np.isclose(table["snr"].astype(float), nearest_snr(table, snr))]


def of_sample(table: pd.DataFrame, sample: str) -> pd.DataFrame:
    """Rows of 'simulated' or 'real' stars.

    Raises:
        ValueError: a sample that the table does not hold.
    """
    need(table, ["sample"])
    if not (table["sample"] == sample).any():
        raise ValueError(f"the table holds no sample {sample!r}; it has {', '.join(sorted(set(table['sample'])))}.")
    return table[table["sample"] == sample]


def samples(rows: pd.DataFrame) -> tuple[str, ...]:
    """Whose stars these are, simulated ones first."""
    return tuple(sorted(rows["sample"].unique(), reverse=True))


def groups(rows: pd.DataFrame, keys: list[str]) -> Iterator[tuple[dict[str, Any], pd.DataFrame]]:
    """Each group with its keys; methods in the order of the legends, simulated stars first, the rest rising."""
    order = {m: i for i, m in enumerate(ordered(rows["method"].unique().tolist()))}
    found = [(dict(zip(keys, key, strict=True)), group) for key, group in rows.groupby(keys, dropna=False)]
    yield from sorted(found, key=lambda item: (order[item[0]["method"]], item[0].get("sample", "") == "real"))
