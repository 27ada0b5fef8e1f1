"""What page Lines shows of a look: the table of lines, by content kept, and its files."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
import pandas as pd
import streamlit as st

from app.shown import Answer, Look
from app.styles import style
from core import star_tables
from core.metrics.lines import LINES, Line
from core.spectrum import Samples, Spectra

_MOST = 128  # tables of one answer in memory
QUANTITIES = ("EW", "depth", "FWHM", "RV")
FAR = 2.0  #: sigma from which a residual is coloured
#: share of the prior up to which a line is called data, and from which it is called prior
DATA, PRIOR = 1 / 3, 2 / 3
#: whose share of the prior stands over a line's panel: the first of these that draws
SPEAKERS = ("exact", "mixture", "mmps", "wiener")
HELP = (
    "Shaded: the band that is integrated over; bars at the foot: the two side bands whose straight line is the local "
    "continuum; dotted: the centre. **EW** and **FWHM** in Angstrom, absorption positive; **depth** below the local "
    "continuum. FWHM of a blend (G band, Mg b, Fe) is that of its deepest part. **RV** is of the whole spectrum. "
    "*Prior* is the draws' variance over what the rest of the star would allow there: 0 % is all data, 100 % is all "
    "prior. In brackets: value less reference, in units of the error. **Photon noise** is what the pixels' noise does "
    "to a measurement; it knows nothing of what a filter did.")
_COLOURED = "color: #D55E00; font-weight: 600"


def samples(look: Look, answer: Answer) -> Samples:
    """An answer as core has it."""
    return Samples(look.spectra.wave, answer.drawn[:, None], answer.method)


def before(look: Look) -> Spectra | None:
    """The star's own spectrum where it is the reference: of a degraded star whose truth nobody knows."""
    return look.star.spectra if look.own is not None else None


def content(look: Look, answer: Answer | None, *more: object) -> str:
    """A name for what is shown of an answer, that changes whenever it would."""
    digest = hashlib.sha256(f"{look.spectra.stars} {look.spectra.noise} {look.seed} {more}".encode())
    arrays = [look.spectra.flux, look.spectra.ivar, look.star.truth, look.own, None if answer is None else answer.drawn]
    for array in arrays:
        digest.update(b"-" if array is None else np.ascontiguousarray(array).tobytes())
    return digest.hexdigest() + (answer.method if answer is not None else "")


@st.cache_resource(show_spinner=False)
def _kept() -> OrderedDict[str, pd.DataFrame]:
    """Rows by content, the last asked for at the end; nobody may write into them."""
    return OrderedDict()


def _names(look: Look, own: Line | None) -> list[str]:
    return [content(look, answer, own) for answer in look.answers]


def measured(look: Look, own: Line | None = None) -> bool:
    """Is there nothing to be measured any more, so that `lines` answers at once?"""
    return all(name in _kept() for name in _names(look, own))


def lines(look: Look, own: Line | None = None) -> pd.DataFrame:
    """`core.star_tables.lines` of every answer of a look: the script's numbers, made once."""
    kept, parts = _kept(), []
    for name, answer in zip(_names(look, own), look.answers, strict=True):
        rows = kept.get(name)
        if rows is None:
            rows = star_tables.lines([samples(look, answer)], look.spectra, look.star.truth, before(look), look.seed,
                                     () if own is None else (own,))
        kept[name] = rows
        kept.move_to_end(name)
        parts.append(rows)
    while len(kept) > _MOST:
        kept.popitem(last=False)
    return pd.concat(parts, ignore_index=True) if parts else star_tables.lines([], look.spectra)


def reference_name(look: Look) -> str:
    """What residuals are against, named as what it is; empty where there is nothing."""
    return "truth" if look.star.truth is not None else look.own_name if look.own is not None else ""


def cell(row: pd.Series, digits: int | None = None) -> str:
    """value, errors and residual in one cell, with as many digits as the error wants unless told."""
    wide = max(row["plus"], row["minus"]) if np.isfinite(row["plus"]) else np.nan
    if digits is None:
        digits = int(np.clip(1 - np.floor(np.log10(wide)), 0, 3)) if np.isfinite(wide) and wide > 0 else 2
    far = f" ({row['residual']:+.1f}σ)" if np.isfinite(row["residual"]) else ""
    if not np.isfinite(wide):
        return f"{row['value']:.{digits}f} (no error)"
    up, down = f"{row['plus']:.{digits}f}", f"{row['minus']:.{digits}f}"
    return f"{row['value']:.{digits}f} " + (f"± {up}" if up == down else f"+{up} −{down}") + far


def is_far(text: str) -> bool:
    """Does a cell end in a residual beyond FAR sigma?"""
    return text.endswith("σ)") and abs(float(text.rpartition("(")[2][:-2])) > FAR


def source(share: float) -> str:
    """Whether a line is data or prior, in words, and how much of it is prior."""
    if not np.isfinite(share):
        return "no draws: not known"
    word = "data" if share <= DATA else "prior" if share >= PRIOR else "both"
    return f"{word} ({share:.0%})" if word == "prior" else f"{word} ({share:.0%} prior)"


def said_of(row: pd.Series) -> str:
    """Data or prior, and whether something in the line is flagged, for one cell."""
    words = source(row["prior_share"]) if np.isfinite(row["prior_share"]) else ""
    return f"{words} ⚑" if row["flags"] else words


def sheet(table: pd.DataFrame, quantity: str, reference: str) -> pd.DataFrame:
    """One row a line, the columns of each method beside each other, for the eye."""
    rows = table[table["quantity"] == quantity]
    names = list(dict.fromkeys(rows["line"]))
    out = pd.DataFrame(index=pd.Index(names, name="line"))
    unit = "" if rows.empty or rows["unit"].iloc[0] == "1" else f" [{rows['unit'].iloc[0]}]"
    if reference:
        known = rows.groupby("line", sort=False)["reference"].first().reindex(names)
        out[reference] = ["not whole" if pd.isna(value) else f"{value:.2f}" for value in known]
    for method in dict.fromkeys(rows["method"]):
        mine, called = rows[rows["method"] == method].set_index("line"), style(method).name
        out[f"{called}{unit}"] = [cell(mine.loc[name]) if name in mine.index else "none" for name in names]
        words = [said_of(mine.loc[name]) if name in mine.index else "" for name in names]
        if any(words):
            out[f"{called}: where from"] = words
    return out


def styled(shown: pd.DataFrame) -> pd.io.formats.style.Styler:
    """A sheet, coloured where a residual is beyond FAR sigma only."""
    return shown.style.map(lambda text: _COLOURED if is_far(text) else "")


def flags_said(table: pd.DataFrame) -> str:
    """Every flag inside a line, by method, in a sentence; empty where there is none."""
    rows = table[(table["quantity"] == "EW") & (table["flags"] != "")]
    said = [f"{row.line}, {style(row.method).name}: {row.flags} Å" for row in rows.itertuples()]
    return "⚑ " + " · ".join(said) if said else ""


def errors_said(table: pd.DataFrame) -> str:
    """Which error each method's is, in a sentence."""
    said = []
    for method, rows in table.groupby("method", sort=False):
        kinds = rows.loc[rows["quantity"] == "EW", "error_is"]
        said.append(f"{style(str(method)).name}: {kinds.mode().iloc[0] if len(kinds) else 'none'}")
    return "; ".join(said)


def shares(table: pd.DataFrame) -> dict[str, tuple[str, float, bool]]:
    """By line: the method that speaks for it, its share of the prior, and whether anything in it is flagged.

    The first of SPEAKERS that draws speaks; methods that are not calibrated do not.
    """
    rows = table[table["quantity"] == "EW"]
    out = {}
    for name, mine in rows.groupby("line", sort=False):
        drawn = mine[mine["prior_share"].notna()].set_index("method", drop=False)
        speaker = next((drawn.loc[name] for name in SPEAKERS if name in drawn.index), None)
        out[str(name)] = ("" if speaker is None else str(speaker["method"]),
                          float("nan") if speaker is None else float(speaker["prior_share"]),
                          bool((mine["flags"] != "").any()))
    return out


def shown_lines(own: Line | None, wanted: str = "") -> Sequence[Line]:
    """All lines that have a panel: first the one that was asked for by name, then the reader's own, then the rest."""
    first = [LINES[wanted]] if wanted in LINES else []
    return [*first, *([] if own is None else [own]), *(line for line in LINES.values() if line.name != wanted)]


def legend(look: Look, said: dict[str, tuple[str, float, bool]]) -> str:
    """What panels and table are about, in a line: whose draws, against what, at which velocity."""
    speakers = {method for method, _, _ in said.values() if method}
    who = f"data or prior: by the draws of {style(speakers.pop()).name}" if speakers else "no calibrated draws here"
    against = reference_name(look)
    whose = "true" if look.star.simulated else "pipeline's"
    return " · ".join([who, f"residual: against {against}" if against else "no truth: no residual",
                       f"bands at the {whose} velocity, {look.star.velocity:+.0f} km/s"])


def files(look: Look, table: pd.DataFrame, what: str = "lines", **more: str) -> list[tuple[str, str, str]]:
    """A table for others' programs: file name, content and kind, as ECSV and CSV; `more` into the header."""
    from core import products  # here: astropy's tables are page Lines' alone

    stem = f"{look.file.removesuffix('.csv')}_{what}"
    head = {"star": look.star.name, "origin": "simulated" if look.star.simulated else "observed", "seed": look.seed,
            "snr_g": look.snr, "wavelengths": "vacuum, observed frame",
            "reference": reference_name(look) or "none", **more}
    return [(f"{stem}.ecsv", products.ecsv(table, head), "ecsv"), (f"{stem}.csv", table.to_csv(index=False), "csv")]
