"""One star and several methods' answers about it: the tables that page, script and export share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from core import believed, report
from core.metrics.flags import Flag
from core.metrics.lines import LINES, Line
from core.spectrum import Array, Samples, Spectra

FLAG_COLUMNS = ("star", "method", "wavelength", "width", "strength", "p_value", "equivalent_width")
CLOSED_DRAWS = 1000  #: of labels in closed form


def draws(answer: Samples) -> bool:
    """Do its draws differ, so that they say how uncertain it is?"""
    return bool(answer.spread.any())


def lines(answers: Sequence[Samples], spectra: Spectra, truth: Array | None = None, own: Spectra | None = None,
          seed: int = 0, more: Sequence[Line] = (), shares: Mapping[str, Array | None] | None = None,
          flags: Mapping[str, Sequence[Flag]] | None = None) -> pd.DataFrame:
    """`core.report.line_table` of every answer about one star, with the prior's share and the flags in each line.

    Args:
        answers: draws (n, 1, L) of each method; spectra: one star; truth: (L,) or None.
        own: the star before it was degraded, when no truth is known.
        seed: of the answers; more: lines of one's own, at rest, beside LINES.
        shares, flags: by method, (L,) and a list, where they are known already (`core.believed`).
    """
    parts = []
    for answer in answers:
        share = believed.trust(answer, spectra)[0] if shares is None else shares[answer.method]
        found = believed.flagged(answer, spectra)[0] if flags is None else flags[answer.method]
        parts.append(report.line_table(
            answer, spectra, None if truth is None else truth[None], [*LINES.values(), *more], own=own, seed=seed,
            prior_share=None if share is None else np.asarray(share)[None], flags=[found]))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=list(report.LINE_COLUMNS))


def label_draws(answers: Sequence[Samples], spectra: Spectra, seed: int = 0) -> dict[str, Array]:
    """(n, 5) draws of the labels of one star, by method: of each answer with draws, and of the mixture in closed form.

    A method without draws has no label with an error, and is left out.
    """
    out = {answer.method: report.labels_of(answer, spectra, seed=seed)[:, 0] for answer in answers if draws(answer)}
    return out | {report.CLOSED: report.closed_form(spectra, CLOSED_DRAWS, seed)[:, 0]}


def labels(drawn: Mapping[str, Array], spectra: Spectra) -> pd.DataFrame:
    """`core.report.label_table` of every method in `label_draws`; the reference is what the star's file says.

    That is the truth of a simulated star, and the pipeline's velocity of an observed one.
    """
    known = report.known_labels(spectra)
    return pd.concat([report.label_table(d[:, None], spectra, method, known) for method, d in drawn.items()],
                     ignore_index=True)


def flags_table(star: str, found: Mapping[str, Sequence[Flag]]) -> pd.DataFrame:
    """Flags by method, one row each: wavelength, width and equivalent width in vacuum Angstrom, strength in sigma."""
    return pd.DataFrame([(star, method, f.wavelength, f.width, f.strength, f.p_value, f.equivalent_width)
                         for method, some in found.items() for f in some], columns=list(FLAG_COLUMNS))
