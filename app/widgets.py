"""Pickers, badges, facts and downloads: what a page is put together from."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go
import streamlit as st

from app import resources, state
from app.charts import style
from app.resources import Catalogue
from app.shown import Look

FITS = ["fits", "fit", "gz"]
_SHOWN = 3  # sentences at once: a folder of bad uploads must not push the star off the page

# Streamlit leaves room for reading; a screen of figures wants it for the figures. Facts are a table of two columns.
_STYLE = """<style>
.stMainBlockContainer {padding: 3.6rem 1.2rem .3rem}
.stMainBlockContainer [data-testid=stVerticalBlock] {gap: .45rem}
.stAlertContainer, [data-testid=stAlertContainer] {padding: .4rem .8rem; min-height: 0}
.facts {font-size: .8rem; line-height: 1.3; width: 100%; border-collapse: collapse}
.facts td {padding: .1rem 0; border: 0; vertical-align: top; text-align: left; font-weight: 400}
.facts td + td {text-align: right; font-variant-numeric: tabular-nums; overflow-wrap: anywhere}
.facts tr.rule > * {border-top: 1px solid rgba(153,153,153,.4); padding-top: .3rem}
.facts small {opacity: .75}
.origin {display: block; padding: .2rem .4rem; border: 1.5px solid currentColor; border-radius: .25rem;
  font-size: .75rem; text-align: center; margin: .15rem 0 .35rem}
.name {font-size: 1rem; font-weight: 600; overflow-wrap: anywhere}
</style>"""


_MARK = '<path d="M1 12h7l3 12 4-17 3 9h7" fill="none" stroke="{0}" stroke-width="2.2"/>'
_LOGO = ('<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 112 28">' + _MARK + '<text x="31" y="20" fill="{0}" '
         'font-family="sans-serif" font-size="18" font-weight="600">Trueline</text></svg>')
#: of the browser's tab; drawn here, because Streamlit's named icons are fetched from Google's servers
ICON = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 26 28">{_MARK.format("#0072B2")}</svg>'


def compact() -> None:
    """The page's own look."""
    st.html(_STYLE)
    st.logo(_LOGO.format("#56B4E9" if dark() else "#0072B2"), size="large")


def dark() -> bool:
    """True when the reader's page is dark."""
    return bool(st.context.theme.type == "dark")


def plain(text: str) -> str:
    """Text that Markdown leaves alone: a file's name or header must not become a link or a picture."""
    return re.sub(r"([\\`*_{}\[\]()<>#+!|$~:])", r"\\\1", text)


def problems(said: Sequence[str]) -> None:
    """Sentences about what went wrong: fact, then remedy."""
    for sentence in said[:_SHOWN]:
        st.error(plain(sentence))
    if len(said) > _SHOWN:
        st.error(f"{len(said) - _SHOWN} more could not be shown; mend these first.")


def bar() -> None:
    """The bar on every page: star, S/N, methods, seed, upload, wavelengths; it decides the choice of this run."""
    star, snr, methods, seed, more = st.columns([3.2, 2.6, 3.6, 0.9, 0.9], gap="small", vertical_alignment="bottom")
    drawer = more.popover("More", width="stretch")
    # the one widget that comes before the choice: what was uploaded decides which stars there are
    files = drawer.file_uploader("Your own spectra (LAMOST FITS; they stay on this machine)", FITS, key="files",
                                 accept_multiple_files=True)
    catalogue = resources.catalogue((file.name, file.getvalue()) for file in files)
    st.session_state["catalogue"] = catalogue
    stars, names = catalogue.stars, resources.methods()
    uploads = {key for key in stars if key.startswith("upload:")}
    state.begin(stars, names, resources.default(stars))
    if new := sorted(uploads - st.session_state.get("uploads", set())):
        state.pick(new[0], stars)
    st.session_state["uploads"] = uploads

    star.selectbox("Star", list(stars), key="star", format_func=lambda key: stars[key].label,
                   placeholder="No star: upload one", help="Type to search.")
    own = stars[st.session_state["star"]].own if st.session_state["star"] in stars else math.nan
    steps = state.steps(own, st.session_state["wanted"])
    if len(steps) > 1:
        snr.select_slider(
            "S/N (LAMOST's S/N_g)", steps, key="snr", on_change=state.remember_snr,
            format_func=lambda step: f"as observed, {own:.1f}" if step == state.OWN else f"{step:g}",
            help="A lower S/N is made from the star's own spectrum by adding noise like its own.")
    else:
        snr.text_input("S/N (LAMOST's S/N_g)", f"as observed, {own:.1f}: too low to degrade", disabled=True)
    methods.multiselect("Methods", names, key="methods", format_func=lambda name: style(name).name,
                        placeholder="None: only what was measured")
    seed.number_input("Seed", 0, state.MAX_SEED, key="seed", help="Of the added noise and of the methods' draws.")
    drawer.toggle("Wavelengths in air", key="air")
    _, said = state.finish()
    for sentence in said:
        st.warning(plain(sentence))
    problems(catalogue.problems)


def catalogue() -> Catalogue:
    """The stars of this run, for the pages."""
    found: Catalogue = st.session_state["catalogue"]
    return found


def plot(figure: go.Figure, key: str, name: str, alt: str) -> None:
    """A figure, with a vector file behind its camera button."""
    config = {"displaylogo": False, "modeBarButtonsToRemove": ["select2d", "lasso2d", "autoScale2d"],
              "toImageButtonOptions": {"format": "svg", "filename": f"{name.removesuffix('.csv')}_{key}"}}
    st.plotly_chart(figure, key=key, config=config, alt=alt)


def _rows(rows: Sequence[tuple[str, str]]) -> str:
    return "".join(f"<tr><td>{html.escape(name)}</td><td>{html.escape(value)}</td></tr>" for name, value in rows)


def facts(look: Look) -> None:
    """Who the star is, whether truth is known, and how it was measured."""
    star, known = look.star, look.star.facts

    def number(key: str, form: str, unit: str) -> str:
        value = known.get(key)
        return f"{value:{form}} {unit}" if isinstance(value, float) and math.isfinite(value) else ""

    badge = "<b>SIMULATED</b><br>truth known" if star.simulated else "<b>OBSERVED</b><br>truth unknown"
    blue, red = look.spectra.noise.scale
    whose = "true" if star.simulated else "pipeline"
    shown = f"{star.own:.1f}" + (f" → {look.snr:.4g}" if look.snr < star.own else "")
    rows = [
        ("Class", str(known.get("subclass") or known.get("class") or "")), ("Release", str(known.get("release") or "")),
        ("S/N_g", shown), (f"rv ({whose})", number("rv", "+.1f", "km/s")), ("Teff", number("teff", ".0f", "K")),
        ("log g", number("logg", ".2f", "dex")), ("[Fe/H]", number("feh", "+.2f", "dex")),
        ("σ true / quoted", f"{blue:.2f} blue, {red:.2f} red"),
        ("Dead pixels", f"{int((~look.spectra.measured).sum())} of {look.spectra.wave.size}"),
    ]
    st.html(f'<div class="name">{html.escape(star.name)}</div><div class="origin">{badge}</div>'
            f'<table class="facts">{_rows([row for row in rows if row[1]])}</table>')


def answers(look: Look) -> None:
    """Each method's chi-square, its error where truth is known, and whether it has an error bar."""
    if not look.answers:
        st.caption("No method chosen; add one in the bar above.")
        return
    truth = look.star.truth is not None
    body = ""
    for answer in look.answers:
        bar = "no error bar" if answer.low is None else "68 % band"
        rms = f"<td>{answer.rms:.3f}</td>" if answer.rms is not None else ""
        body += (f'<tr class="rule"><td>{html.escape(style(answer.method).name)}<br><small>{bar}</small></td>'
                 f"<td>{answer.chi2:.2f}</td>{rms}</tr>")
    head = ("<tr><td></td><td>chi2<br><small>per pixel</small></td>"
            + ("<td>rms − truth<br><small>[continuum]</small></td>" if truth else "") + "</tr>")
    st.html(f'<table class="facts">{head}{body}</table>')


def download(look: Look) -> None:
    """The shown spectra as a file."""
    st.download_button("CSV", look.csv, file_name=look.file, mime="text/csv", on_click="ignore", width="stretch",
                       icon=":material/download:", help="What is shown: wavelengths, flux, sigma, truth, each method.")


def sources(found: Catalogue, folders: Sequence[str]) -> None:
    """How many stars came from where, and which files were refused and why."""
    counts: dict[str, Any] = {}
    for star in found.stars.values():
        counts[star.source] = counts.get(star.source, 0) + 1
    st.markdown(", ".join(f"{source}: {count}" for source, count in counts.items()) or "No stars.")
    st.markdown("Folders named at start: " + (", ".join(plain(path) for path in folders) or "none") + ".")
    if len(found.refused):
        st.markdown("Refused:")
        st.dataframe(found.refused, hide_index=True)
