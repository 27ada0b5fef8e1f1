"""Downloads: any figure at a journal's width, and the whole star; nothing is made before it is asked for."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import urlencode

import streamlit as st

from app import state
from app.shown import Look
from app.state import Choice
from core.cache import rounded
from core.figures.sheets import Sheet
from core.figures.style import WIDTHS
from core.metrics.planted import ByHand, plant
from core.request import Asked, Request, file_words
from core.spectrum import Samples

if TYPE_CHECKING:
    from core.bundle import Bundle

#: kind of file -> what the browser is told it is
KINDS = {"pdf": "application/pdf", "svg": "image/svg+xml", "png": "image/png"}


def file_name(text: str) -> str:
    """Letters, digits and . + - of a text: what every system takes as a file's name."""
    return re.sub(r"[^A-Za-z0-9.+-]+", "_", text).strip("_") or "trueline"


def _widths(key: str) -> tuple[str, int]:
    """The journal and the number of columns chosen."""
    left, right = st.columns(2)
    journal = left.selectbox("Journal", list(WIDTHS), key=f"{key}_journal",
                             help="Column widths as each journal gives them; type of 6.5-7.5 pt at that width.")
    columns = right.radio("Columns", (1, 2), key=f"{key}_columns", horizontal=True,
                          format_func=lambda n: f"{n} ({WIDTHS[journal][n - 1]:.0f} mm)")
    return str(journal), int(columns or 1)


def _encoded(sheet: Sheet, kind: str, journal: str, columns: int) -> bytes:
    from core.figures import paper  # here: Matplotlib is nobody's before somebody exports

    return paper.encoded(sheet, kind, journal, columns)


def _buttons(sheet: Sheet, name: str, key: str, journal: str, columns: int) -> None:
    for place, (kind, mime) in zip(st.columns(len(KINDS)), KINDS.items(), strict=True):
        place.download_button(kind.upper(), partial(_encoded, sheet, kind, journal, columns), key=f"{key}_{kind}",
                              file_name=f"{file_name(name)}.{kind}", mime=mime, on_click="ignore", width="stretch")


def figure_menu(sheet: Sheet, name: str) -> None:
    """A small menu that gives a figure as PDF, SVG (vector, fonts embedded or drawn) or PNG at a journal's width.

    Args:
        sheet: what is drawn, as on the screen; name: of the file, and of the menu's widgets: once a page.
    """
    key = f"figure_{file_name(name)}"
    with st.popover("Figure", icon=":material/download:", help="This figure for a paper"):
        _buttons(sheet, name, key, *_widths(key))


def request_of(look: Look, choice: Choice, journal: str = "AAS", line: ByHand | None = None) -> Request:
    """What a script must be told to make what is shown."""
    asked = tuple(Asked(a.method, a.draws, dict(a.settings)) for a in look.answers)
    url = urlencode(state.query(choice) | ({} if line is None else {"inject": line.text}))
    snr = look.snr if look.snr < look.star.own else None
    file = file_words(str(look.star.facts.get("file") or look.star.name))
    return Request(file, snr, asked, look.seed, line, choice.air, choice.rest, journal, url=url)


def bundle_of(look: Look, choice: Choice, journal: str = "AAS", line: ByHand | None = None) -> Bundle:
    """The star as it is shown, in the hands of what the script uses.

    Args:
        line: one that was put in by hand: the look has it.
    """
    from core.bundle import Bundle  # here: until somebody exports, the server does without PyTorch

    answers = tuple(rounded(Samples(look.spectra.wave, a.drawn[:, None], a.method, {"settings": dict(a.settings)}))
                    for a in look.answers)
    truth = look.star.truth
    if truth is not None and line is not None:
        truth = truth + plant(look.spectra, line).change
    return Bundle(request_of(look, choice, journal, line), look.star.spectra, look.spectra, answers, truth)


@st.cache_resource(show_spinner=False)
def _seconds() -> dict[str, float]:
    """How long the last zip took on this server."""
    return {"zip": 15.0}


def _zip(look: Look, choice: Choice, journal: str, line: ByHand | None) -> bytes:
    begun = time.monotonic()
    out = bundle_of(look, choice, journal, line).zipped(datetime.now(UTC).strftime("%Y-%m-%d"))
    _seconds()["zip"] = time.monotonic() - begun
    return out


def figure(look: Look, choice: Choice, journal: str, line: ByHand | None, name: str, kind: str, columns: int) -> bytes:
    """A figure of the star as it is shown (core.bundle.FIGURES), as a file."""
    return bundle_of(look, choice, journal, line).figure(name, kind, columns)


def menu(look: Look, choice: Choice, line: ByHand | None = None) -> None:
    """A menu that gives a star's figures at a journal's width, and all of it as a zip; made when a button is pressed.

    Args:
        look: what is shown; choice: of the bar; line: one put in by hand, where the look has it.
    """
    with st.popover("Export", icon=":material/download:", help="Figures for a paper; the whole star as a zip"):
        if not look.answers:
            st.caption("No answer is there yet; choose a method, or wait for those that are being made.")
            return
        if look.waiting:
            st.caption("Answers that are still being made will not be in it.")
        name = st.segmented_control("Figure", ["spectrum", "lines"], default="spectrum", key="export_figure",
                                    format_func=str.capitalize) or "spectrum"
        journal, columns = _widths("export")
        stem = look.file.removesuffix(".csv")
        for place, (kind, mime) in zip(st.columns(len(KINDS)), KINDS.items(), strict=True):
            place.download_button(kind.upper(), partial(figure, look, choice, journal, line, name, kind, columns),
                                  key=f"export_{kind}", file_name=f"{stem}_{name}.{kind}", mime=mime,
                                  on_click="ignore", width="stretch")
        st.download_button("The whole star (.zip)", partial(_zip, look, choice, journal, line), key="export_zip",
                           file_name=f"{stem}.zip", mime="application/zip", on_click="ignore", width="stretch",
                           icon=":material/folder_zip:",
                           help="Figures, spectra with quantiles, all draws, lines, flags, and where they come from.")
        st.caption(f"The zip is made when you press it: about {_seconds()['zip']:.0f} s. A script makes the same:")
        st.code(request_of(look, choice, journal, line).command, language="sh", wrap_lines=True)
