"""The frame: the table of pages, and the bar with the choice that all of them share."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

# `streamlit run app/main.py` puts app/ on the path, not the checkout: without an install, `core` would not be found,
# and with one, it must be the one beside this file.
if (root := str(Path(__file__).resolve().parent.parent)) not in sys.path:
    sys.path.insert(0, root)

import streamlit as st

from app import resources, widgets

COMMITTED = ("Bias", "Coverage", "Models and data")  #: pages of the committed tables, not of the star in the bar

st.set_page_config(page_title="Trueline", page_icon=widgets.ICON, layout="wide")
page = st.navigation([
    st.Page("views/star.py", title="Star", icon=":material/star:", default=True),
    st.Page("views/lines.py", title="Lines", icon=":material/show_chart:"),
    st.Page("views/labels.py", title="Labels", icon=":material/scatter_plot:"),
    st.Page("views/bias.py", title="Bias", icon=":material/straighten:"),
    st.Page("views/coverage.py", title="Coverage", icon=":material/target:"),
    st.Page("views/audit.py", title="Audit", icon=":material/fact_check:"),
    st.Page("views/about.py", title="Models and data", icon=":material/info:"),
], position="top")
widgets.compact()
widgets.follow_theme(widgets.dark())
try:
    resources.begin()
    widgets.bar()
    if page.title in COMMITTED:
        st.caption(f":small[The bar above is for pages Star, Lines, Labels and Audit; it changes nothing on page "
                   f"{page.title}.]")
    page.run()
    resources.finish()
except Exception:  # a fault of ours: said in a sentence on the page, told in full in the terminal
    logging.getLogger(__name__).exception("page %r", page.title)
    st.error("This view failed, which is a fault in Trueline; choose another star or method, and report what the "
             "terminal of the server says.")
finally:
    resources.wake()  # also where a slider broke the run off
