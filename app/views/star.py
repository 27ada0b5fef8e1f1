"""Page Star: one star as measured and as each method has it, its residuals, its lines, its facts."""

from __future__ import annotations

import streamlit as st

from app import charts, resources, state, widgets

choice = state.chosen()
stars = widgets.catalogue().stars
if choice.star is None:
    st.info("There is no star to show; upload a LAMOST FITS file, or start the server with `-- --folder PATH`.")
    st.stop()

look = resources.look(stars[choice.star], choice.snr, choice.methods, choice.seed)
widgets.problems(look.problems)
dark = widgets.dark()
left, right = st.columns([5.2, 1], gap="small")
with left:
    widgets.plot(charts.spectrum(look, air=choice.air, dark=dark), key="spectrum", name=look.file,
                 alt=f"Spectrum of {look.star.name}: measured, truth where known, each method, residuals in sigma")
    widgets.plot(charts.windows(look, air=choice.air, dark=dark), key="windows", name=look.file,
                 alt="The same around H-beta, Mg b, Na D, H-alpha and the Ca II triplet")
with right:
    widgets.facts(look)
    widgets.answers(look)
    widgets.download(look)
