"""Downloads: any figure at a journal's width, and the whole star; nothing is made before it is asked for."""

from __future__ import annotations

import re
from functools import partial

import streamlit as st

from core.figures import paper
from core.figures.sheets import Sheet
from core.figures.style import WIDTHS

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


def _buttons(sheet: Sheet, name: str, key: str, journal: str, columns: int) -> None:
    for place, (kind, mime) in zip(st.columns(len(KINDS)), KINDS.items(), strict=True):
        place.download_button(kind.upper(), partial(paper.encoded, sheet, kind, journal, columns), key=f"{key}_{kind}",
                              file_name=f"{file_name(name)}.{kind}", mime=mime, on_click="ignore", width="stretch")


def figure_menu(sheet: Sheet, name: str) -> None:
    """A small menu that gives a figure as PDF, SVG (vector, fonts embedded or drawn) or PNG at a journal's width.

    Args:
        sheet: what is drawn, as on the screen; name: of the file, and of the menu's widgets: once a page.
    """
    key = f"figure_{file_name(name)}"
    with st.popover("Figure", icon=":material/download:", help="This figure for a paper"):
        _buttons(sheet, name, key, *_widths(key))
