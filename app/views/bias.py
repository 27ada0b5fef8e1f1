"""Page Bias: how far each method lies from the truth against S/N, and the stars behind every point."""

from __future__ import annotations

import streamlit as st

from app import study, study_figures, widgets
from app import study_widgets as panel

try:
    held = study.study()
except ValueError as error:
    widgets.problems([str(error)])
    st.info("There is no study to show; page Star works without it.")
    st.stop()

has = panel.options(held, ())
asked = panel.bar("bias", has)
with st.spinner("Drawing the study ..."):
    drawn = study_figures.drawn(held, asked)
panel.said(asked, drawn)
left, right = st.columns([2.05, 1], gap="medium")
with left:
    panel.figures(drawn, asked, has)
with right:
    panel.stars(held, panel.point(asked, has), drawn)
