"""The line one came for: clicked on page Star, the first window of page Lines, held in the URL."""

from __future__ import annotations

import streamlit as st

from core.metrics.lines import LINES

NAME = "window"  #: of the URL's parameter: a line's name
_SESSION, _ASKED, _GO = "focus", "focus_asked", "focus_go"


def clicked(key: str) -> None:
    """A point of the figure of this key was clicked: the window of the line that its customdata names is wanted."""
    points = st.session_state[key]["selection"]["points"]
    data = points[0].get("customdata") if points else None
    named = str(data[0] if isinstance(data, list) and data else data)
    if named in LINES:
        st.session_state[_SESSION] = st.session_state[_ASKED] = named
        st.session_state[_GO] = True


def follow() -> None:
    """Go to page Lines where a line was clicked: a click's own function may not leave the page."""
    if st.session_state.pop(_GO, False):
        st.switch_page("views/lines.py")


def chosen() -> tuple[str, list[str]]:
    """Name of the line of this run, empty for none, and a sentence about a link whose line is none."""
    asked = st.query_params.get(NAME)
    if asked is not None and asked != st.session_state.get(_ASKED):
        st.session_state[_ASKED] = st.session_state[_SESSION] = asked
    name = st.session_state.get(_SESSION, "")
    if name and name not in LINES:
        return "", ["The link names a line that has no window; all that have one are below."]
    if name and st.query_params.get(NAME) != name:
        st.query_params[NAME] = name
    return name, []
