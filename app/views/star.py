"""Page Star: one star as measured and as each method has it, its residuals, its lines, its facts."""

from __future__ import annotations

import streamlit as st

from app import charts, resources, state, widgets

choice = state.chosen()
stars = widgets.catalogue().stars
if choice.star is None:
    widgets.problems(widgets.said())
    st.info("There is no star to show; upload a LAMOST FITS file, or start the server with `-- --folder PATH`.")
    st.stop()

look = resources.look(stars[choice.star], choice.snr, choice.methods, choice.seed, choice.strength, wait=False)
said = [*widgets.said(), *look.problems]
widgets.problems(said)
dark = widgets.dark()
with st.container(key="look"):
    left, right = st.columns([4.9, 1], gap="small")
with left:
    # a sentence above takes its room from the spectrum: the lines below stay in sight
    height = charts.HEIGHT - (widgets.SAID_HEIGHT if said else 0)
    widgets.plot(charts.spectrum(look, air=choice.air, dark=dark, height=height), key="spectrum", name=look.file,
                 alt=f"Spectrum of {look.star.name}: measured, truth where known, each method, residuals in sigma")
    widgets.plot(charts.windows(look, air=choice.air, dark=dark), key="windows", name=look.file,
                 alt="The same around H-beta, Mg b, Na D, H-alpha and the Ca II triplet")
with right:
    widgets.facts(look)
    widgets.answers(look)
    widgets.download(look)
    widgets.patience(look)
