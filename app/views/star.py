"""Page Star: one star as measured and as each method has it, what of it is data, residuals, lines, facts."""

from __future__ import annotations

from functools import partial

import streamlit as st

from app import charts_star, charts_windows, export, focus, panel, told, widgets

focus.follow()
choice, ask = widgets.asked()
look = told.told(ask())
said = [*widgets.said(), *look.problems]
widgets.problems(said)
dark = widgets.dark()
with st.container(key="look"):
    left, right = st.columns([4.9, 1], gap="small")
with right:
    above, below = st.container(), st.container()
with below:
    widgets.patience(look)  # first: that something is being made is seen before the figures are drawn
with left:
    # what stands above or below takes its room from the spectrum: the lines below stay in sight
    height = charts_star.height(look, widgets.SAID_HEIGHT if said else 0)
    widgets.plot(charts_star.spectrum(look, choice.air, dark, height, choice.rest), key="spectrum", name=look.file,
                 on_select=partial(focus.clicked, "spectrum"),
                 alt=f"Spectrum of {look.star.name}: measured, truth if known, each method, trust, residuals in sigma")
    widgets.plot(charts_windows.windows(look, choice.air, dark, choice.rest, told.lines(look)), key="windows",
                 name=look.file, on_select=partial(focus.clicked, "windows"),
                 alt="Hβ, Mg b, Na D, Hα and Ca II triplet, with EW and depth of each method")
with above:
    panel.facts(look)
    panel.answers(look, choice.methods)
    widgets.download(look)
    export.menu(look, choice)
