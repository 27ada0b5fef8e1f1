"""Page Models and data: what is proved and what is not, what the pages show, what ships, where data come from."""

from __future__ import annotations

import streamlit as st

from app import about_widgets as panel
from app import cards, proved, resources, widgets, words

widgets.problems(widgets.said())
found = widgets.catalogue()
truth, gap, seen, methods, models, data = st.tabs(
    ["What is proved", "Reality gap", "What you see", "Methods", "Models", "Data and cache"])
with truth:
    left, right = st.columns([1.35, 1], gap="large")
    with left, st.spinner("Reading the study ..."):
        sentences = proved.proved() or ["results/ holds none of the tables; take them from the repository."]
    left.markdown("\n".join(["##### Measured, with numbers from the committed tables", *(f"- {s}" for s in sentences)]))
    right.markdown(f"##### Not proved\n{words.NOT_PROVED}")
with gap:
    panel.reality_gap(proved.reality_gap)
with seen:
    st.markdown(words.SEEN)
with methods:
    st.markdown(words.METHODS)
with models:
    panel.models(cards.models(), cards.card)
with data:
    left, right = st.columns(2, gap="large")
    with left:
        st.markdown(f"##### Data and licences\n{words.DATA}")
        st.markdown("##### How to cite")
        st.code(cards.text("CITATION.cff") or "CITATION.cff is not here; see the repository.", language="yaml")
    with right:
        st.markdown("##### Where the spectra come from\nYour own come by upload, or from folders named at the start:")
        st.code("streamlit run app/main.py -- --folder PATH\nTRUELINE_FOLDER=PATH make app", language="sh")
        widgets.sources(found, resources.folders())
        st.markdown("##### Kept answers")
        panel.kept()
