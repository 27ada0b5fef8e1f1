"""Page Audit: a line put in by hand, and what each method does with it; beside it, what it did with many others."""

from __future__ import annotations

import streamlit as st

from app import audited, export, put_in, widgets
from core.figures import interactive

choice, ask = widgets.asked()
line, wrong = put_in.chosen()
plain = ask()
planted, refused = audited.put(plain.spectra, line)
seen = plain if planted is None else ask(spectra=planted.spectra)
widgets.problems([*widgets.said(), *plain.problems, *wrong, *([refused] if refused else [])])
put_in.form(line)

left, right = st.columns([2.5, 1], gap="medium")
with left:
    if planted is not None:
        found = audited.audited(plain, seen, planted, choice.air, choice.rest)
        st.markdown(audited.headline(found))
        if both := audited.blend(plain.star, line):
            st.caption(both)
        if found.verdicts:
            widgets.plot(interactive.draw(found.sheet, dark=widgets.dark()), key="put_in_window", name=plain.file,
                         alt=f"The line at {line.wavelength:.1f} Angstrom: each method's answer with and without it")
            st.dataframe(audited.table(found), width="stretch", height="content", row_height=28)
            st.caption(audited.unknown(found), help=audited.HELP)
            places = st.columns([1, 1, 4])
            with places[0]:
                export.figure_menu(found.sheet, f"line {line.text}")
            with places[1]:
                export.menu(seen, choice, line)
        elif not choice.methods:
            st.info("No method is chosen; add one in the bar above, and see what it does with the line.")
    widgets.patience(audited.together(plain, seen))
with right:
    experiment = st.segmented_control("Audit of many lines", ["put_in", "take_out"], default="put_in",
                                      format_func={"put_in": "put in", "take_out": "taken out"}.__getitem__,
                                      key="experiment") or "put_in"
    curves = audited.curves(plain, experiment, choice.methods)
    st.caption(curves.said)
    if curves.sheet is not None:
        widgets.plot(interactive.draw(curves.sheet, dark=widgets.dark()), key="audit_curves", name="audit.csv",
                     alt="Share of lines kept and flag rate against strength, beside the matched filter's limit")
        export.figure_menu(curves.sheet, f"audit {experiment}")
