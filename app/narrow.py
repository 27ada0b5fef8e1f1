"""Whose error bars the study found too narrow for such a star: cool ones, which shares over all stars do not show."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pandas as pd

from app.shown import Look, called

COOL = 4700.0  #: K; results/exact_kinds.csv names its kind of stars by it
_LIMIT = 1.3  # z2 from which it is said; with few draws a right posterior has 1.06 to 1.12


@lru_cache(maxsize=1)
def _kinds() -> pd.DataFrame:
    from app import study  # here: with SciPy's statistics, which a first page does without

    table = pd.read_csv(study.RESULTS / "exact_kinds.csv")
    return table[table["kind"] == f"below {COOL:.0f} K"]


def too_narrow(look: Look) -> tuple[str, str] | None:
    """What is said of a cool star's error bars, in short and in full; None where there is nothing to say.

    How cool it is, the mixture tells; what was found of such stars, the study at the S/N nearest in the logarithm.
    """
    if look.kind is None or look.kind.by.label("teff")[0] >= COOL:
        return None
    try:
        rows = _kinds()
    except OSError:  # without results/ nothing is known
        return None
    away = np.log(rows["snr"] / look.measured).abs()
    rows = rows[np.isclose(away, away.min())]
    found = {row.method: row for row in rows.itertuples() if row.z2 > _LIMIT}
    mine = [found[answer.method] for answer in look.answers if answer.method in found and answer.low is not None]
    if not mine:
        return None
    names = [called(row.method) for row in mine]
    spans = ", ".join(f"{called(row.method)} {np.sqrt(row.z2):.1f} times" for row in mine)
    return (f"error bars too narrow here: {', '.join(names)}",
            f"Of simulated stars below {COOL:.0f} K at S/N {mine[0].snr:.0f} ({mine[0].stars} of them) the pooled "
            f"error is larger than the error bars say: {spans}. A few such stars are far off, most are not: of the "
            f"pixels {', '.join(f'{called(row.method)} has {100 * row.pixels:.0f} %' for row in mine)} inside 68 % "
            "(docs/results.md, \"By kind of simulated star\").")
