"""Page Labels: what each method's draws say of the star itself, and whether it is a star that they know."""

from __future__ import annotations

import streamlit as st

from app import charts_labels, labels_shown, lines_shown, told, widgets

choice, ask = widgets.asked()
look, found = labels_shown.labels(ask())
widgets.problems([*widgets.said(), *look.problems])
widgets.patience(look)  # above: the figures are longer than a screen
st.markdown(labels_shown.verdict(found), help=told.DOMAIN)
if found.draws:
    known = labels_shown.known(look)
    shown = labels_shown.sheet(found, labels_shown.reference_name(look))
    st.dataframe(lines_shown.styled(shown), width="stretch", height="content")
    words, *places = st.columns([8, 0.8, 0.8], vertical_alignment="center")
    words.caption(labels_shown.FAILINGS, help=labels_shown.HELP)
    for place, (name, content, kind) in zip(places, labels_shown.files(look, found), strict=True):
        place.download_button(kind.upper(), content, file_name=name, on_click="ignore", width="stretch",
                              help="All labels with errors, units and what each error is.")
    left, right = st.columns([1.15, 1], gap="small")
    with left:
        widgets.plot(charts_labels.corner(found, known, dark=widgets.dark()), key="corner", name=look.file,
                     alt="Draws of Teff, log g, [Fe/H], [alpha/Fe] and velocity against each other, by method")
    with right:
        widgets.plot(charts_labels.kiel(found, labels_shown.training(), known, dark=widgets.dark()), key="kiel",
                     name=look.file, alt="Effective temperature and surface gravity among the training stars")
else:
    st.info(labels_shown.none_yet(look))
