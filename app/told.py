"""Flags, trust, lines and the kind of star beside the answers of a look: made once for each, kept by content.

What takes longer than a page may, the kind of star with its 16 draws, is read by the process that samples.
"""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import streamlit as st

from app import lines_shown, resources
from app.shown import Answer, Look
from core import believed, findings, report
from core.metrics.flags import Flag
from core.metrics.lines import find_line
from core.reading import Reading

#: which line of core.metrics.lines is measured in which of app.styles.WINDOWS
MEASURED = {"Hβ": "H beta", "Mg b": "Mg b", "Na D": "Na D", "Hα": "H alpha", "Ca II triplet": "Ca II 8542"}

#: what stands beside the verdict of a look's `kind`, wherever it is shown
DOMAIN = (
    "Is this a star like those of the training? Outside where the mixture's chi-square over the whole spectrum is more "
    "than 5 sigma too large, or where its own answer misses a line by the audit's test. Of 96 simulated stars 2 were "
    "called outside; of 46 real ones kept out of everything 4 at S/N 10, 13 at 30 and 22 at 100, so with good data a "
    "real star is often outside. Inside, labels may still be wrong.")


@st.cache_resource(show_spinner=False, max_entries=128)
def _flags(name: str, _look: Look, _answer: Answer) -> tuple[Flag, ...]:
    return tuple(believed.flagged(lines_shown.samples(_look, _answer), _look.spectra)[0])


def kind(look: Look) -> Look:
    """The look, with the one verdict of every page on whether it is a star like those of the training, once known."""
    look, found = resources.read(look, {"kind": Reading(look.spectra, "kind")})
    return replace(look, kind=findings.kind_of(found["kind"])) if found else look


def told(look: Look) -> Look:
    """The look, its answers with flags; where one draws also the kind of star, and with that the answers' trust."""
    if any(answer.low is not None for answer in look.answers):
        look = kind(look)
    answers = []
    for answer in look.answers:
        flags = _flags(lines_shown.content(look, answer), look, answer)
        trust = None if answer.low is None or look.kind is None else \
            look.kind.by.share(lines_shown.samples(look, answer).spread[0])
        answers.append(replace(answer, flags=flags, trust=trust))
    return replace(look, answers=tuple(answers))


@st.cache_resource(show_spinner=False, max_entries=128)
def _measured(name: str, _look: Look, _answer: Answer) -> pd.DataFrame:
    lines = [find_line(name) for name in MEASURED.values()]
    truth = _look.star.truth
    return report.line_table(lines_shown.samples(_look, _answer), _look.spectra, None if truth is None else truth[None],
                             lines, own=lines_shown.before(_look), seed=_look.seed, rv_draws=0)


def lines(look: Look) -> pd.DataFrame:
    """`core.report.line_table` of every answer in the lines of MEASURED alone, without velocities: it is quick."""
    parts = [_measured(lines_shown.content(look, answer), look, answer) for answer in look.answers]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=list(report.LINE_COLUMNS))


def flag_words(flag: Flag, names: str) -> str:
    """A flag in a sentence."""
    what = "removed" if flag.strength > 0 else "in emission removed, or a line painted,"
    return f"{abs(flag.strength):.1f} σ at {flag.wavelength:.0f} Å {what} by {names}"


def together(look: Look) -> list[tuple[Flag, list[str]]]:
    """Flags of all methods, strongest first; what several methods removed at one place is one, with their names."""
    every = sorted(((flag, answer.method) for answer in look.answers for flag in answer.flags),
                   key=lambda pair: -abs(pair[0].strength))
    out: list[tuple[Flag, list[str]]] = []
    for flag, method in every:
        for known, methods in out:
            near = abs(known.wavelength - flag.wavelength) < 3 * (known.width + flag.width)
            if near and known.strength * flag.strength > 0:
                if method not in methods:
                    methods.append(method)
                break
        else:
            out.append((flag, [method]))
    return out
