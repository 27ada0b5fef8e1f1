"""What page Labels shows of a look: labels and their draws, the domain, the training stars; by content kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import pandas as pd

from app import lines_shown, resources, told
from app.lines_shown import cell, samples
from app.shown import OF, Look
from app.styles import style
from core import domain, report, star_tables
from core.data import synthetic
from core.reading import Reading
from core.spectrum import Array

NAMES = {"Teff": "Teff [K]", "logg": "log g [dex]", "[Fe/H]": "[Fe/H] [dex]", "[alpha/Fe]": "[α/Fe] [dex]",
         "RV": "RV [km/s]"}  #: quantity -> as it stands on an axis
_DIGITS = {"Teff": 0, "RV": 1}
#: what is known to be wrong with them (docs/judge.md), said wherever they are shown
FAILINGS = (
    "**On real stars labels fail for every method**: the scale is the simulator's, not a survey's, and of held-out "
    "library stars the mixture's 68 % interval of [Fe/H], read by the ridge, holds 74 % at S/N 5 and 37 % at S/N 100; "
    "in closed form 81 %, but odd and hot stars are off by thousands of kelvin (docs/judge.md).")
HELP = (
    "**Sample propagation**: each draw of the spectrum goes through a ridge regression learned on clean simulated "
    "stars, whose own error is added; RV is measured in each draw. **Closed form**: labels ride along in the mixture "
    "as pixels that nobody measured; no spectrum is drawn. A method without draws has no error, and no label here. "
    "In brackets: value less what the star's file says, in units of the error; coloured beyond 2.")


@dataclass(frozen=True)
class Labels:
    """Labels of one look.

    Args:
        table: core.star_tables.labels; draws: (n, 5) by method, of those that are there; kind: the domain score, None
            until it is known.
        bare: names of methods without draws, which have none.
    """

    table: pd.DataFrame
    draws: Mapping[str, Array] = field(repr=False)
    kind: domain.Score | None
    bare: tuple[str, ...] = ()


def labels(look: Look) -> tuple[Look, Labels]:
    """Labels of every answer with draws, and in closed form: the script's numbers, read by the process that samples.

    Returns:
        the look with what is waited for, was cancelled or went wrong; and the labels that are there.
    """
    asked = {OF + a.method: Reading(look.spectra, "labels", look.seed, samples(look, a)) for a in look.answers
             if a.low is not None}
    look = told.kind(look)
    look, found = resources.read(look, asked | {"closed": Reading(look.spectra, "closed", look.seed)})
    drawn = {report.CLOSED if name == "closed" else name.removeprefix(OF): its.numbers["draws"]
             for name, its in found.items()}
    table = star_tables.labels(drawn, look.spectra) if drawn else pd.DataFrame(columns=list(report.LABEL_COLUMNS))
    bare = tuple(style(a.method).name for a in look.answers if a.low is None)
    return look, Labels(table, drawn, None if look.kind is None else look.kind.score, bare)


def none_yet(look: Look) -> str:
    """Why there are no labels at all."""
    return ("Labels are being read off the star; they stand here as they come." if look.waiting else
            "No labels are known of this star; ask for them again above, or choose another star or S/N.")


@lru_cache(maxsize=1)
def training() -> Array:
    """(N, 3) Teff [K], log g, [Fe/H] of the synthetic stars that the simulator interpolates between."""
    return np.asarray(synthetic.load().labels[:, 1:4], dtype=np.float64)


def called(method: str) -> str:
    """A method's name on this page."""
    return "mixture, closed form" if method == report.CLOSED else style(method).name


def sheet(found: Labels, reference: str) -> pd.DataFrame:
    """One row a method, a label's value and residual beside each other, for the eye."""
    rows = {called(str(method)): mine.set_index("quantity") for method, mine in found.table.groupby("method",
                                                                                                    sort=False)}
    out = pd.DataFrame(index=pd.Index(rows, name="method"))
    for name, axis in NAMES.items():
        out[axis] = [cell(mine.loc[name], _DIGITS.get(name, 2)) if name in mine.index else "none"
                     for mine in rows.values()]
    out["error is"] = [str(mine["error_is"].iloc[0]) for mine in rows.values()]
    known = found.table.groupby("quantity", sort=False)["reference"].first()
    if known.notna().any():
        out.loc[reference] = ""
        for name, axis in NAMES.items():
            out.loc[reference, axis] = "" if pd.isna(known[name]) else f"{known[name]:.4g}"
    return out


def reference_name(look: Look) -> str:
    """Whose labels the residuals are against."""
    return "truth (simulated)" if look.star.simulated else "LAMOST's pipeline"


def files(look: Look, found: Labels) -> list[tuple[str, str, str]]:
    """The table for others' programs: file name, content and kind, as ECSV and CSV."""
    return lines_shown.files(look, found.table, "labels", domain=_domain(found), reference=reference_name(look))


def known(look: Look) -> Array:
    """(5,) labels that the star's file gives, NaN where it gives none."""
    return report.known_labels(look.spectra)[0]


def _domain(found: Labels) -> str:
    return "not known yet" if found.kind is None else found.kind.words


def verdict(found: Labels) -> str:
    """The domain score in a sentence, and which methods have no labels."""
    bare = f" · without draws, so without labels: {', '.join(found.bare)}" if found.bare else ""
    return f"Domain {_domain(found)}{bare}"
