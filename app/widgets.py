"""Pickers, badges, facts and downloads: what a page is put together from."""

from __future__ import annotations

import html
import math
import re
import textwrap
import time
from collections.abc import Callable, Sequence
from typing import Any

import plotly.graph_objects as go
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from app import resources, state
from app.resources import Catalogue
from app.shown import MENDED, SIGMA_SOURCE, UNCALIBRATED, Look
from app.styles import style

_METHODS_HELP = (
    "The exact posterior takes some seconds for a new star or S/N; DPS, PiGDM and MMPS take ten seconds to a minute. "
    "An answer once made is kept until the server stops. DPS is calibrated at no strength.")
_UNCALIBRATED_HELP = (
    "DPS is calibrated at no strength: at its best its draws are 1.7 times too wide, and yet their 68 % band holds the "
    "truth in 54 % of pixels. PiGDM's draws are 1.6 times too wide (docs/laboratory.md).")
_STRENGTH_HELP = (
    "How hard DPS is pulled to the observation. 0 ignores it; above 0.1 the draws run away. No strength gives both the "
    "right mean and the right width.")
SAID_HEIGHT = 46  #: pixels that `problems` takes, its gap included
_LONG = 150  # letters of a sentence that fit one line of the page

# Streamlit leaves room for reading; a screen of figures wants it for the figures. Facts are a table of two columns.
_STYLE = """<style>
.stMainBlockContainer {padding: 3.6rem 1.2rem .3rem}
.stMainBlockContainer [data-testid=stVerticalBlock] {gap: .45rem}
.stAlertContainer, [data-testid=stAlertContainer] {padding: .4rem .8rem; min-height: 0}
.facts {font-size: .8rem; line-height: 1.3; width: 100%; border-collapse: collapse}
.facts td {padding: .1rem 0; border: 0; vertical-align: top; text-align: left; font-weight: 400}
.facts td + td {text-align: right; font-variant-numeric: tabular-nums; overflow-wrap: anywhere}
.facts tr.rule > * {border-top: 1px solid rgba(153,153,153,.4); padding-top: .3rem}
.facts small, .facts .small {opacity: .75; font-size: .72rem; font-weight: 400}
.facts th {padding: .1rem 0; border: 0; text-align: left; font-weight: 400}
.facts tr.more td:first-child {text-decoration: underline dotted; text-underline-offset: .15rem; cursor: help}
.facts td:first-child {white-space: nowrap; padding-right: .4rem}
.facts.numbers {table-layout: fixed; line-height: 1.12}
.facts.numbers td {padding: .03rem 0}
.facts.numbers tr.rule > * {padding-top: .15rem}
.facts.numbers td {text-align: right; font-variant-numeric: tabular-nums}
.st-key-said details {background: rgba(255,196,0,.14); border-color: transparent}
.st-key-said summary {padding: .3rem .8rem; min-height: 0}
@media (max-width: 1000px) {
  .st-key-bar [data-testid=stHorizontalBlock], .st-key-look [data-testid=stHorizontalBlock] {flex-wrap: wrap}
  .st-key-bar [data-testid=stColumn] {min-width: 12rem}
  .st-key-look [data-testid=stColumn] {min-width: 100%}
}
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
    """Sentences about what went wrong: fact, then remedy; one line however many, so that the star stays in sight."""
    if not said:
        return
    if len(said) == 1 and len(said[0]) <= _LONG:
        st.warning(plain(said[0]))
        return
    more = f" **(and {len(said) - 1} more)**" if len(said) > 1 else ""
    box = st.container(key="said").expander(plain(textwrap.shorten(said[0], _LONG, placeholder=" ...")) + more,
                                            icon=":material/warning:")
    box.markdown("\n".join(f"- {plain(sentence)}" for sentence in said))


def _columns(row: DeltaGenerator) -> Sequence[DeltaGenerator]:
    """Room for star, S/N, methods, strength, upload and more; the strength's only where its method is chosen."""
    asked = st.session_state.get("methods", st.query_params.get("methods", "").split(","))
    guided = state.GUIDED in asked
    places = row.columns([2.9, 1.9, 3, 1.8, 1.25, 1.05] if guided else [3.6, 2.4, 3.2, 1.1, 1], gap="small",
                         vertical_alignment="bottom")
    return places if guided else [*places[:3], places[2], *places[3:]]


def bar() -> None:
    """The bar on every page: star, S/N, methods, upload, more; it decides the choice of this run."""
    row = st.container(key="bar")
    star, snr, methods, guidance, upload, more = _columns(row)
    # the one widget that comes before the choice: what was uploaded decides which stars there are
    files = upload.popover("Upload", icon=":material/upload:", width="stretch").file_uploader(
        "Your own spectra: LAMOST low resolution, .fits or .fits.gz; they stay on this machine", key="files",
        accept_multiple_files=True)  # of any extension: core says what is wrong with a file, the browser would not
    catalogue = resources.catalogue((file.name, file.getvalue()) for file in files)
    st.session_state["catalogue"] = catalogue
    stars, names = catalogue.stars, resources.methods()
    uploads = {key for key in stars if key.startswith("upload:")}
    state.begin(stars, names, resources.default(stars))
    if new := [key for key in stars if key in uploads - st.session_state.get("uploads", set())]:
        state.pick(new[0], stars)
    st.session_state["uploads"] = uploads

    star.selectbox("Star", list(stars), key="star", format_func=lambda key: stars[key].label,
                   placeholder="No star: upload one",
                   help="Type to search by designation, class, S/N or obsid. Best data first.")
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
                        placeholder="None: only what was measured", help=_METHODS_HELP)
    if state.GUIDED in st.session_state["methods"]:
        usual = resources.strength()
        st.session_state["strength"] = usual if (asked := st.session_state["guidance"]) is None else asked
        guidance.select_slider("DPS strength", state.strengths(usual), key="strength", format_func=lambda s: f"{s:g}",
                               on_change=state.remember_strength, help=_STRENGTH_HELP)
    drawer = more.popover("More", width="stretch")
    drawer.number_input("Seed", 0, state.MAX_SEED, key="seed", help="Of the added noise and of the methods' draws.")
    drawer.toggle("Wavelengths in air", key="air")
    _, said = state.finish()
    st.session_state["said"] = [*said, *catalogue.problems]


def said() -> list[str]:
    """What the bar could not do in this run, for the pages to show with their own."""
    sentences: list[str] = st.session_state["said"]
    return sentences


def catalogue() -> Catalogue:
    """The stars of this run, for the pages."""
    found: Catalogue = st.session_state["catalogue"]
    return found


def plot(figure: go.Figure, key: str, name: str, alt: str, parent: DeltaGenerator | None = None,
         on_select: Callable[[], None] | None = None) -> None:
    """A figure, with a vector file behind its camera button; `on_select` is called when a point is clicked."""
    config = {"displaylogo": False, "modeBarButtonsToRemove": ["select2d", "lasso2d", "autoScale2d"],
              "toImageButtonOptions": {"format": "svg", "filename": f"{name.removesuffix('.csv')}_{key}"}}
    place = parent or st
    if on_select is None:
        place.plotly_chart(figure, key=key, config=config, alt=alt)
    else:
        place.plotly_chart(figure, key=key, config=config, alt=alt, on_select=on_select, selection_mode="points")


def _rows(rows: Sequence[tuple[str, str, str]]) -> str:
    """Rows of a table: name, value, and what the pointer is told about it."""
    told = [f' class="more" title="{html.escape(more)}"' if more else "" for _, _, more in rows]
    return "".join(f"<tr{which}><td>{html.escape(name)}</td><td>{html.escape(value)}</td></tr>"
                   for which, (name, value, _) in zip(told, rows, strict=True))


def facts(look: Look) -> None:
    """Who the star is, whether truth is known, and how it was measured."""
    star, known = look.star, look.star.facts

    def number(key: str, form: str, unit: str) -> str:
        value = known.get(key)
        return f"{value:{form}} {unit}" if isinstance(value, float) and math.isfinite(value) else ""

    badge = "<b>SIMULATED</b> truth known" if star.simulated else "<b>OBSERVED</b> truth unknown"
    blue, red = look.spectra.noise.scale
    whose = "true" if star.simulated else "pipeline"
    source = "" if star.simulated else f"; {SIGMA_SOURCE}"
    rows = [
        ("Class", str(known.get("subclass") or known.get("class") or ""), ""),
        ("Release", str(known.get("release") or ""), ""), ("S/N_g", look.degraded, ""),
        (f"rv ({whose})", number("rv", "+.1f", "km/s"), ""), ("Teff", number("teff", ".0f", "K"), ""),
        ("log g", number("logg", ".2f", "dex"), ""), ("[Fe/H]", number("feh", "+.2f", "dex"), ""),
        ("σ true / quoted", f"{blue:.2f} blue, {red:.2f} red{source}", ""),
        ("ivar mended", f"{star.mended} px" if star.mended else "", MENDED),
        ("Dead pixels", f"{int((~look.spectra.measured).sum())} of {look.spectra.wave.size}", ""),
    ]
    st.html(f'<div class="name">{html.escape(star.name)}</div><div class="origin">{badge}</div>'
            f'<table class="facts">{_rows([row for row in rows if row[1]])}</table>')


def answers(look: Look) -> None:
    """Each method's chi-square and distance from the reference, everywhere and in the lines, and its error bar."""
    if not look.answers:
        st.caption("No method chosen; add one in the bar above.")
        return
    to = "truth" if look.star.truth is not None else "own" if look.own is not None else ""
    head = '<td colspan="2">chi2 per pixel</td>' + (f'<td colspan="2">rms − {to}</td>' if to else "")
    halves = "<td>all</td><td>lines</td>" * (2 if to else 1)
    body = f'<tr>{head}</tr><tr class="small">{halves}</tr>'
    for answer in look.answers:
        numbers = [f"{answer.chi2:.2f}", f"{answer.chi2_lines:.2f}"]
        numbers += [f"{rms:.3f}" for rms in (answer.rms, answer.rms_lines) if rms is not None]
        name = html.escape(style(answer.method).name)
        body += (f'<tr class="rule"><th colspan="4">{name} <small>{answer.bar}</small></th></tr>'
                 "<tr>" + "".join(f"<td>{number}</td>" for number in numbers) + "</tr>")
    st.html(f'<table class="facts numbers">{body}</table>')
    live = look.spectra.measured[0]
    count, inside = int(live.sum()), int((live & look.lines).sum())
    said = (
        f"**chi2** is the mean of ((observed − method) / σ)². A method that is right has 1 within √(2/N): "
        f"± {math.sqrt(2 / max(count, 1)):.2f} over all {count} pixels, ± {math.sqrt(2 / max(inside, 1)):.2f} over the "
        f"{inside} of the zoomed lines. Below 1 it kept noise. Near 1 it may still have erased lines, which few pixels "
        "hold: look at *lines*. ")
    if to:
        whom = "the truth" if to == "truth" else f"the star's {look.own_name}, which is noisy itself"
        said += f"**rms** is the root mean square difference from {whom}, in units of the continuum."
    st.caption(":small[1 is necessary, not sufficient]", help=said)


def patience(look: Look) -> None:
    """How far the answers are that are still being made; runs the page again when one is there.

    Each turn of the wait is a place where Streamlit lets go for a slider that was moved.
    """
    now = {waiting.future for waiting in look.waiting}
    for left in st.session_state.get("asked", set()) - now:
        left.cancel()  # what has not begun will not; what has is kept for a second look
    st.session_state["asked"] = now
    if wrong := [style(answer.method).name for answer in look.answers if answer.method in UNCALIBRATED]:
        said = "DPS calibrated at no strength" if "DPS" in wrong else "PiGDM is not calibrated"
        st.caption(f":small[{said}]", help=_UNCALIBRATED_HELP)
    if not look.waiting:
        return
    places = [st.empty() for _ in look.waiting]
    begun = [waiting.since for waiting in look.waiting]
    while not any(waiting.future.done() for waiting in look.waiting):
        for i, (waiting, place) in enumerate(zip(look.waiting, places, strict=True)):
            name, gone = style(waiting.method).name, time.monotonic() - begun[i]
            words = f"{name}: {waiting.draws} draws, about {waiting.seconds:.0f} s; {gone:.0f} s gone"
            if not waiting.future.running():
                begun[i], gone, words = time.monotonic(), 0.0, f"{name}: waits until another star's draws are made"
            elif gone > 1.5 * waiting.seconds:
                words += ", longer than expected"
            place.progress(min(gone / waiting.seconds, 0.97), words)
        time.sleep(0.2)
    st.rerun()


def download(look: Look) -> None:
    """The shown spectra as a file."""
    st.download_button("CSV", look.csv, file_name=look.file, mime="text/csv", on_click="ignore", width="stretch",
                       icon=":material/download:", help="What is shown, pixel by pixel, and a header.")


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
