"""Page Lines: every line window, and what each method makes of it, with its error and where it comes from."""

from __future__ import annotations

import streamlit as st

from app import charts_lines, focus, lines_shown, own_line, widgets

choice, ask = widgets.asked()
look = ask()
own, wrong = own_line.chosen()
wanted, unknown = focus.chosen()
widgets.problems([*widgets.said(), *look.problems, *wrong, *unknown])
widgets.patience(look)  # above: the figure is longer than a screen
panels = lines_shown.shown_lines(own, wanted)
how = (choice.air, widgets.dark(), choice.rest, wanted)
place, name, alt = st.empty(), look.file, f"Line windows of {look.star.name}: measured, truth, each method"
if not lines_shown.measured(look, own):  # what is there already is shown while the rest is measured
    widgets.plot(charts_lines.multiples(look, panels, None, *how), "first_multiples", name, alt, place)
with st.spinner("Measuring lines and velocities ..."):
    table = lines_shown.lines(look, own)
said = lines_shown.shares(table)
widgets.plot(charts_lines.multiples(look, panels, said, *how), "multiples", name, alt, place)

left, middle, right, *places = st.columns([2.6, 4.6, 1.6, 0.8, 0.8], vertical_alignment="bottom")
quantity = left.segmented_control("Quantity", lines_shown.QUANTITIES, default="EW", key="quantity") or "EW"
middle.caption(lines_shown.legend(look, said), help=lines_shown.HELP)
with right.popover("Your own line", icon=":material/add:", width="stretch"):
    own_line.form(own)
if look.answers:
    for where, (file, content, kind) in zip(places, lines_shown.files(look, table), strict=True):
        where.download_button(kind.upper(), content, file_name=file, on_click="ignore", width="stretch",
                              help="All lines and quantities, with errors, units and what each error is.")
    shown = lines_shown.sheet(table, quantity, lines_shown.reference_name(look))
    st.dataframe(lines_shown.styled(shown), width="stretch", height="content")
    st.caption(lines_shown.errors_said(table))
    st.caption(lines_shown.flags_said(table))
elif not choice.methods:
    st.caption("No method chosen; add one in the bar above.")
