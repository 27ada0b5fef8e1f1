"""A line of the reader's own: typed into a form, checked, held in the URL."""

from __future__ import annotations

import math
from collections.abc import Sequence

import streamlit as st

from core.data.grid import WAVE
from core.metrics.lines import Line

NAME = "line"  #: of the URL's parameter: seven numbers with commas
FIELDS = ("centre", "band from", "band to", "blue from", "blue to", "red from", "red to")
EXAMPLE = (6709.66, 6706.0, 6713.3, 6687.85, 6701.85, 6724.86, 6736.86)  #: lithium, narrower than the list's
MOST = 400.0  #: Angstrom from the first side band to the last: beyond, no straight line is a continuum
_LEAST = 3.0  # Angstrom of a window: two pixels in the red
_SESSION, _ASKED = "own_line", "own_line_asked"


def line_of(numbers: Sequence[float]) -> Line:
    """The line that seven numbers (FIELDS) describe; vacuum Angstrom at rest.

    Raises:
        ValueError: not seven numbers, outside the spectra, windows empty, crossed, or on the wrong side of the line.
    """
    if len(numbers) != len(FIELDS) or not all(math.isfinite(n) for n in numbers):
        raise ValueError(f"A line is {len(FIELDS)} numbers: {', '.join(FIELDS)}; give all of them.")
    centre, *ends = numbers
    band, blue, red = ((ends[i], ends[i + 1]) for i in (0, 2, 4))
    first, last = float(WAVE[0]), float(WAVE[-1])
    if min(ends) < first or max(ends) > last:
        raise ValueError(f"The line needs {min(ends):.0f}-{max(ends):.0f} Angstrom and spectra have "
                         f"{first:.0f}-{last:.0f}; move its bands inside.")
    for name, (low, high) in (("band", band), ("blue side band", blue), ("red side band", red)):
        if high - low < _LEAST:
            raise ValueError(f"The {name} goes from {low:g} to {high:g} Angstrom; make it at least {_LEAST:g} wide, "
                             "the smaller number first.")
    if not band[0] <= centre <= band[1]:
        raise ValueError(f"The centre {centre:g} is not inside the band {band[0]:g}-{band[1]:g}; move one of them.")
    if not blue[1] <= centre <= red[0]:
        raise ValueError("The blue side band must end, and the red one begin, on its side of the centre; move them.")
    if max(ends) - min(ends) > MOST:
        raise ValueError(f"Band and side bands span {max(ends) - min(ends):.0f} Angstrom; keep within {MOST:g}, or no "
                         "straight line between the side bands is a continuum.")
    return Line(f"own {centre:.1f}", centre, band, blue, red, "the reader's own")


def written(line: Line) -> str:
    """The line as the URL has it."""
    return ",".join(f"{n:g}" if n == round(n, 2) else f"{n:.2f}" for n in
                    (line.centre, *line.band, *line.blue, *line.red))


def read(text: str) -> Line:
    """The line of a URL that a stranger may have written.

    Raises:
        ValueError: as `line_of`.
    """
    parts = text.split(",") if len(text) < 200 else []
    try:
        numbers = [float(part) for part in parts]
    except ValueError:
        numbers = []
    return line_of(numbers)


def chosen() -> tuple[Line | None, list[str]]:
    """The line of this run, and a sentence about a link whose line is none; kept while one goes to other pages."""
    asked = st.query_params.get(NAME)
    if asked is not None and asked != st.session_state.get(_ASKED):
        st.session_state[_ASKED] = st.session_state[_SESSION] = asked
    text = st.session_state.get(_SESSION, "")
    if not text:
        return None, []
    try:
        line = read(text)
    except ValueError as error:
        return None, [f"The link's own line cannot be measured: {error}"]
    keep(line)
    return line, []


def keep(line: Line | None) -> None:
    """This line from now on, or none; in the session and the URL."""
    text = "" if line is None else written(line)
    st.session_state[_SESSION] = st.session_state[_ASKED] = text
    if not text:
        st.query_params.pop(NAME, None)
    elif st.query_params.get(NAME) != text:
        st.query_params[NAME] = text


def form(line: Line | None) -> None:
    """The seven numbers to be typed, and what is wrong with them."""
    now = EXAMPLE if line is None else (line.centre, *line.band, *line.blue, *line.red)
    with st.form("own_line_form", border=False):
        st.caption("Vacuum Angstrom at rest. The continuum is a straight line between the two side bands.")
        rows = [st.columns(3) for _ in range(3)]
        places = [rows[0][0], rows[0][1], rows[0][2], rows[1][0], rows[1][1], rows[2][0], rows[2][1]]
        numbers = [place.number_input(name, value=float(value), step=0.5, format="%.2f", key=f"own_{name}")
                   for place, name, value in zip(places, FIELDS, now, strict=True)]
        if st.form_submit_button("Measure it", type="primary"):
            try:
                keep(line_of(numbers))
            except ValueError as error:
                st.warning(str(error))
            else:
                st.rerun()
    if line is not None and st.button("Remove it", key="own_remove"):
        keep(None)
        st.rerun()
