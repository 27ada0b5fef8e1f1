"""A line that the reader puts in by hand: typed into a form, checked, held in the URL."""

from __future__ import annotations

import streamlit as st

from core.metrics.planted import MOST, UNITS, WIDTHS, ByHand

NAME = "inject"  #: of the URL's parameter: WAVELENGTH,STRENGTH,UNIT,FWHM
#: of a first visit: strong enough to be found, where stars have little of their own, and far from the line that the
#: first star already has (core.data.bundled.PLANTED)
FIRST = ByHand(6810.0, 8.0, "sigma", 6.0)
SIGNS = {"absorption": 1.0, "emission": -1.0}
SHORT = {"sigma": "σ, matched filter", "ew": "EW [Angstrom]", "depth": "depth [continuum]"}
_SESSION, _ASKED = "put_in", "put_in_asked"


def chosen() -> tuple[ByHand, list[str]]:
    """The line of this run, and a sentence about a link whose line is none; kept while one goes to other pages."""
    asked = st.query_params.get(NAME)
    if asked is not None and asked != st.session_state.get(_ASKED):
        st.session_state[_ASKED] = st.session_state[_SESSION] = asked
    line, said = FIRST, list[str]()
    try:
        line = ByHand.parse(st.session_state.get(_SESSION, FIRST.text))
    except ValueError as error:
        said.append(f"The link's line cannot be put in: {error}")
    keep(line)
    return line, said


def keep(line: ByHand) -> None:
    """This line from now on; in the session and the URL."""
    st.session_state[_SESSION] = st.session_state[_ASKED] = line.text
    if st.query_params.get(NAME) != line.text:
        st.query_params[NAME] = line.text


def form(line: ByHand) -> None:
    """What to put in, in one row, and what is wrong with it."""
    with st.form("put_in_form", border=False):
        places = st.columns([1.7, 2.1, 1.2, 1.7, 1.4, 1.0], vertical_alignment="bottom")
        wavelength = places[0].number_input("Wavelength [Angstrom]", value=line.wavelength, step=5.0,
                                            format="%.2f", key="put_in_wavelength",
                                            help="In vacuum, in the observer's frame: not moved with the star.")
        sign = places[1].segmented_control("Kind", list(SIGNS), key="put_in_sign", width="stretch",
                                           default="emission" if line.strength < 0 else "absorption")
        strength = places[2].number_input("Strength", 0.0, value=abs(line.strength), step=0.5, format="%.3g",
                                          key="put_in_strength", help="0 puts nothing in: the control.")
        unit = places[3].selectbox("in", list(UNITS), list(UNITS).index(line.unit), format_func=SHORT.__getitem__,
                                   key="put_in_unit", help="; ".join(f"{SHORT[u]}: {UNITS[u]}, at most {MOST[u]:g}"
                                                                     for u in UNITS))
        fwhm = places[4].number_input("FWHM [Angstrom]", value=line.fwhm, step=0.5, format="%.2f", key="put_in_fwhm",
                                      help=f"Full width at half maximum, {WIDTHS[0]:g} to {WIDTHS[1]:g}; the "
                                           "instrument's own is 2.4 pixels, 2 to 5 Angstrom.")
        if places[5].form_submit_button("Put it in", type="primary", width="stretch"):
            try:
                new = ByHand(float(wavelength), SIGNS[sign or "absorption"] * float(strength), str(unit), float(fwhm))
            except ValueError as error:
                st.warning(str(error))
            else:
                if new.text != line.text:
                    keep(new)
                    st.rerun()
