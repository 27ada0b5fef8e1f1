"""The study's figures as sheets: what is asked beside held-out real stars, and in words what cannot be drawn."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import pandas as pd
import streamlit as st

from app import study
from app.filters import Filters
from app.study import Study
from app.styles import style
from core.figures import compose, together, trends
from core.figures.sheets import Sheet
from core.figures.style import named

TITLES = {"simulated": "Simulated stars", "real": "Held-out real stars", "lamost": "LAMOST against itself"}
_TARP = ("TARP is not among the figures: it wants every draw of all quantities of a star at once, and the judge's "
         "table keeps mean, quantiles and the truth's rank of each alone. It is tested on planted failures "
         "(tests/test_calibration.py); nothing is claimed here. Of one quantity at a time, ranks say as much.")
_TALL = 100.0  # of what stands under each other [mm]: so that it fits a screen 720 high
_BINS = 11  # of ranks: 32 draws have 33
_SAME = 0.95  # share of the stars from which a method stands on the same as the others
_AT_ONE = ("levels", "pit", "ranks")  # figures of one S/N
_NO_REAL = "Nothing on this figure says how it is on real stars."


@dataclass(frozen=True)
class Drawn:
    """Figures to show beside each other, sentences about what they lack, and one on methods that have fewer stars."""

    sheets: tuple[Sheet, ...]
    said: tuple[str, ...] = ()
    unlike: str = ""


def _each(held: Study, filters: Filters, snr: float | None, drawn: bool,
          make: Callable[[pd.DataFrame, list[str]], Sheet]) -> tuple[dict[str, Sheet], list[str]]:
    """A sheet for each sample that has one, and why another has none."""
    sheets: dict[str, Sheet] = {}
    said: list[str] = []
    every = study.rows(held, filters.quantity, study.BESIDE[filters.sample], snr, drawn)
    for sample in study.BESIDE[filters.sample]:
        mine = every[every["sample"] == sample]
        there = [method for method in filters.methods if method in set(mine["method"])]
        try:
            if not there:
                raise ValueError(f"none of the chosen methods has answers for {named(filters.quantity)[0]} here"
                                 f"{' with draws' if drawn else ''}; choose another method, quantity or S/N.")
            if filters.quantity not in trends.SCORES and not mine["truth"].notna().any():
                raise ValueError(f"no truth is known of {named(filters.quantity)[0]} here; choose another quantity.")
            sheets[sample] = make(mine, there)
        except ValueError as error:
            said.append(f"{TITLES[sample]}: {error}")
    if "real" not in sheets and sheets:
        said.append(_NO_REAL)
    return sheets, said


def _beside(sheets: dict[str, Sheet], said: Sequence[str]) -> Drawn:
    if not sheets:
        return Drawn((), tuple(said))
    titles = [f"{TITLES[sample]}{counted(sheet)}" for sample, sheet in sheets.items()]
    return Drawn((together.beside(list(sheets.values()), titles),), tuple(said))


def counted(sheet: Sheet) -> str:
    """How many stars a sheet's points stand for, from the texts under the pointer."""
    found = {int(n) for panel in sheet.panels for p in panel.points for text in p.hover
             for n in re.findall(r"(\d+) stars", text)}
    return f", {span(found)} at each S/N" if found else ""


def span(numbers: set[int]) -> str:
    """One number, or the least and the most."""
    return f"{min(numbers)}" if len(numbers) == 1 else f"{min(numbers)}-{max(numbers)}"


def bias(held: Study, filters: Filters) -> Drawn:
    """Bias and scatter of a quantity against S/N; of a score of the whole spectrum the median star."""
    def make(rows: pd.DataFrame, methods: list[str]) -> Sheet:
        if filters.quantity in trends.SCORES:
            return trends.score_curve(rows, filters.quantity, methods)
        return compose.bias_and_scatter(rows, filters.quantity, methods)

    return _beside(*_each(held, filters, None, False, make))


def inside(held: Study, filters: Filters) -> Drawn:
    """Share of truths inside the 68 % against S/N."""
    return _beside(*_each(held, filters, None, True,
                          lambda rows, methods: trends.inside_curve(rows, filters.quantity, methods)))


def levels(held: Study, filters: Filters) -> Drawn:
    """Coverage at every level, at one S/N."""
    return _beside(*_each(held, filters, filters.snr, True,
                          lambda rows, methods: compose.coverage(rows, filters.quantity, methods)))


def _ranked(held: Study, filters: Filters, composer: Callable[..., Sheet], tall: float) -> Drawn:
    """A column for each method, one sample over the other; only of methods that both have."""
    found: dict[str, set[str]] = {}

    def make(rows: pd.DataFrame, methods: list[str]) -> Sheet:
        sample = str(rows["sample"].iloc[0])
        sheet = composer(rows, filters.quantity, methods, sample=sample)
        found[sample] = set(sheet.methods)
        return sheet

    sheets, said = _each(held, filters, filters.snr, True, make)
    if both := set.intersection(*found.values()) if found else set():
        if left := set.union(*found.values()) - both:
            said.append(f"Left out, for one of the samples lacks it: {', '.join(style(m).name for m in sorted(left))}.")
            kept = tuple(method for method in filters.methods if method in both)
            sheets, _ = _each(held, filters.but(methods=kept), filters.snr, True, make)
        whole = together.stacked(list(sheets.values()), [sample.capitalize() for sample in sheets])
        return Drawn((replace(whole, height=min(whole.height, tall)),), tuple(said))
    return _beside({}, said)


def pit(held: Study, filters: Filters) -> Drawn:
    """Where the truth lies in its posterior, at one S/N."""
    return _ranked(held, filters, compose.pit, _TALL)


def sbc(held: Study, filters: Filters) -> Drawn:
    """Ranks of the truth among the draws, and their ECDF's departure from uniform, at one S/N."""
    return _ranked(held, filters, partial(compose.rank_check, bins=_BINS), _TALL)


def tarp(_held: Study, _filters: Filters) -> Drawn:
    """Nothing: the table does not hold what it wants."""
    return Drawn((), (_TARP,))


def rho(held: Study, filters: Filters) -> Drawn:
    """Error over the Bayes floor's; beside it the error of real stars, which have no floor."""
    if held.floor.empty:
        return Drawn((), ("results/floor_stars.parquet is not there; make it by `python -m scripts.evaluate floor`.",))
    table = study.floor(held)
    there = [method for method in filters.methods if f"rms:{method}" in table]
    real = filters.but(sample="real", quantity="rms", methods=tuple(there))
    try:
        left = compose.rho_curve(table, there)
    except ValueError as error:
        return Drawn((), (f"rho: {error}",))
    right = bias(held, real)
    titled = [together.beside([left], [TITLES["simulated"]]), *right.sheets]
    titled = [replace(sheet, height=max(sheet.height for sheet in titled)) for sheet in titled]
    said = (f"A floor is known of simulated stars alone, {table.groupby('snr')['ok'].sum().max()} at each S/N at most; "
            "of held-out real ones stands the error itself.")
    return Drawn(tuple(titled), (said, *right.said))


def audit(held: Study, filters: Filters) -> Drawn:
    """Lines put in and taken out, at one S/N."""
    if held.audit.empty:
        return Drawn((), ("results/audit.parquet is not there; make it by `python -m scripts.evaluate`.",))
    mine = held.audit[held.audit["snr"] == filters.snr]
    there = [method for method in filters.methods if method in set(mine["method"])]
    if not there:
        return Drawn((), ("The audit was not run with these methods at this S/N; choose others.",))
    names = {"put_in": "A line that no star has, put in", "take_out": "A line taken out"}
    sheets = tuple(together.beside([compose.audit_curves(mine, name, there)], [title])
                   for name, title in names.items())
    said = (f"The audit was made on {mine['star'].nunique()} simulated stars at this S/N and on no real one. "
            f"{_NO_REAL}", *([study.audit_of(held.audit)] if "exact" in there else []))
    return Drawn(sheets, said)


PLOTS: dict[str, Callable[[Study, Filters], Drawn]] = {
    "inside": inside, "levels": levels, "pit": pit, "ranks": sbc, "tarp": tarp, "rho": rho, "audit": audit}


def unlike(held: Study, filters: Filters) -> str:
    """Which methods of the figure stand on fewer stars than the others, and on how many; empty where none does."""
    if filters.plot in ("tarp", "audit"):
        return ""
    table = study.floor_counts(held) if filters.plot == "rho" else study.counts(
        held, filters.quantity, study.BESIDE[filters.sample], filters.snr if filters.plot in _AT_ONE else None,
        filters.plot in PLOTS)
    table = table[table["method"].isin(filters.methods)]
    said = [_fewer(sample, mine, filters.methods) for sample in TITLES
            if len(mine := table[table["sample"] == sample])]
    return " ".join(sentence for sentence in said if sentence)


def _fewer(sample: str, table: pd.DataFrame, methods: Sequence[str]) -> str:
    """A sentence about one sample."""
    wide = table.pivot(index="method", columns="snr", values="stars").reindex(list(methods)).fillna(0).astype(int)
    short = (wide < _SAME * wide.max()).any(axis=1)
    if not short.any():
        return ""

    def stars(rows: pd.DataFrame) -> str:
        there = rows.max() > 0
        if not there.any():
            return "none"
        at = "" if there.all() else f" (S/N {', '.join(f'{snr:g}' for snr in wide.columns[there])} alone)"
        return f"{span({int(n) for n in rows.to_numpy().ravel() if n})}{at}"

    few = [f"{style(method).name} {stars(wide.loc[[method]])}" for method in wide.index[short]]
    rest = f"; the other methods {stars(wide[~short])}{' at each S/N' * (len(wide.columns) > 1)}"
    return f"{TITLES[sample]}: {', '.join(few)}{rest if (~short).any() else ''}."


@st.cache_resource(show_spinner=False, max_entries=128)
def _kept(folder: str, stamps: tuple[int, ...], filters: Filters) -> Drawn:
    held = study.read_of(folder, stamps)
    found = PLOTS.get(filters.plot, bias)(held, filters)
    return replace(found, unlike=unlike(held, filters) if found.sheets else "")


def drawn(held: Study, filters: Filters) -> Drawn:
    """The page's figures, kept: another point of the same figure is not drawn anew."""
    return _kept(held.folder, held.stamps, filters.but(whose="", method="", part=None))
