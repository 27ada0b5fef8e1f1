"""Pickers, badges, facts and downloads: what a page is put together from."""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import plotly.graph_objects as go
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from app import first, narrow, picker, resources, state
from app.resources import Catalogue
from app.shown import Look, called
from app.state import Choice
from app.styles import style
from core.question import UNCALIBRATED, UNDERTRAINED

_METHODS_HELP = (
    "The exact posterior takes some seconds for a new star or S/N; DPS, PiGDM and MMPS take ten seconds to a minute. "
    "An answer once made is kept on disk. DPS is calibrated at no strength.")
_UNCALIBRATED_HELP = (
    "DPS is calibrated at no strength: at its best its draws are 1.7 times too wide, and yet their 68 % band holds the "
    "truth in 54 % of pixels. PiGDM's draws are 1.6 times too wide (docs/laboratory.md). Nobody has shown that those "
    "of the supervised methods spread as a posterior does.")
_UNDERTRAINED_HELP = (
    "Methods of the literature, made anew here, with weights of 20 to 40 s of a GPU each; their losses were still "
    "falling. That one loses here shows that it is not finished, not that it is worse (docs/study.md).")
_STRENGTH_HELP = (
    "How hard DPS is pulled to the observation. 0 ignores it; above 0.1 the draws run away. No strength gives both the "
    "right mean and the right width.")
_DRAWS_HELP = (
    "Of each method that draws; a quarter of them of supervised, DPS, PiGDM and MMPS, which take long. Few draws tell "
    "an error bar roughly: 8 to a quarter, 32 to an eighth, 128 to a sixteenth of itself.")
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
.flag {float: right; cursor: help; font-variant-numeric: tabular-nums}
.facts.numbers td {text-align: right; font-variant-numeric: tabular-nums}
[class*=st-key-waiting_] button {padding: 0 .3rem; min-height: 1.4rem}
[class*=st-key-waiting_] {flex-wrap: nowrap}
[class*=st-key-waiting_] [data-testid=stProgress] p {font-size: .75rem; line-height: 1.15}
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


#: dark letters on chips and buttons, whose blue is light on a dark page
_DARK = "<style>.stMultiSelect [data-tag] *, [data-testid=stBaseButton-primaryFormSubmit] * {color: #181715}</style>"
_MARK = '<path d="M1 12h7l3 12 4-17 3 9h7" fill="none" stroke="{0}" stroke-width="2.2"/>'
_LOGO = ('<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 112 28">' + _MARK + '<text x="31" y="20" fill="{0}" '
         'font-family="sans-serif" font-size="18" font-weight="600">Trueline</text></svg>')
#: of the browser's tab; drawn here, because Streamlit's named icons are fetched from Google's servers
ICON = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 26 28">{_MARK.format("#0072B2")}</svg>'


def compact() -> None:
    """The page's own look."""
    st.html(_STYLE + (_DARK if dark() else ""))
    st.logo(_LOGO.format("#56B4E9" if dark() else "#0072B2"), size="large")


def dark() -> bool:
    """True when the reader's page is dark."""
    return bool(st.context.theme.type == "dark")


@st.fragment(run_every=2)
def follow_theme(drawn_dark: bool) -> None:
    """Run the page again when the reader's system turned dark or light since: figures are drawn in the page's ink."""
    if dark() != drawn_dark:
        st.rerun()


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
    """Room for star, filter, S/N, methods, strength, draws, upload and more; the strength's only where it is chosen."""
    asked = st.session_state.get("methods", st.query_params.get("methods", "").split(","))
    guided = state.GUIDED in asked
    places = row.columns([2.2, 1.2, 1.6, 2.6, 1.5, 0.8, 1.3, 1.1] if guided else
                         [2.7, 1.2, 1.8, 3.2, 0.8, 1.3, 1.1], gap="small", vertical_alignment="bottom")
    return places if guided else [*places[:4], places[3], *places[4:]]


def _snr(place: DeltaGenerator, own: float) -> None:
    """The S/N slider, or why there is none."""
    steps = state.steps(own, st.session_state["wanted"])
    if len(steps) > 1:
        place.select_slider(
            "S/N (LAMOST's S/N_g)", steps, key="snr", on_change=state.remember_snr,
            format_func=lambda step: f"as observed, {own:.1f}" if step == state.OWN else f"{step:g}",
            help="A lower S/N is made from the star's own spectrum by adding noise like its own.")
    else:
        place.text_input("S/N (LAMOST's S/N_g)", f"as observed, {own:.1f}: too low to degrade", disabled=True)


def _more(drawer: DeltaGenerator) -> None:
    """What is chosen less often."""
    drawer.number_input("Seed", 0, state.MAX_SEED, key="seed", help="Of the added noise and of the methods' draws.")
    drawer.toggle("Wavelengths in air", key="air")
    drawer.toggle("Wavelengths in the star's rest frame", key="rest", help="By the velocity that its file gives.")
    drawer.caption("Light or dark follows your system.")


def bar() -> None:
    """The bar on every page: star, filter, S/N, methods, draws, upload, more; it decides the choice of this run."""
    row = st.container(key="bar")
    star, only, snr, methods, guidance, draws, upload, more = _columns(row)
    # the one widget that comes before the choice: what was uploaded decides which stars there are
    files = upload.popover("Upload", icon=":material/upload:", width="stretch").file_uploader(
        "Your own spectra: LAMOST low resolution, .fits or .fits.gz; they stay on this machine", key="files",
        accept_multiple_files=True)  # of any extension: core says what is wrong with a file, the browser would not
    catalogue = resources.catalogue((file.name, file.getvalue()) for file in files)
    st.session_state["catalogue"] = catalogue
    stars, names = catalogue.stars, resources.methods()
    uploads = {key for key in stars if key.startswith("upload:")}
    state.begin(stars, names, first.star(stars))
    if new := [key for key in stars if key in uploads - st.session_state.get("uploads", set())]:
        state.pick(new[0], stars)
    st.session_state["uploads"] = uploads

    star.selectbox("Star", picker.stars_in_list(stars, only, st.session_state["star"]), key="star",
                   format_func=lambda key: stars[key].label, placeholder="No star: upload one",
                   help="Type to search by designation, class, S/N or obsid. Best data first.")
    _snr(snr, stars[st.session_state["star"]].own if st.session_state["star"] in stars else math.nan)
    methods.multiselect("Methods", names, key="methods", format_func=lambda name: style(name).name,
                        placeholder="None: only what was measured", help=_METHODS_HELP)
    if state.GUIDED in st.session_state["methods"]:
        usual = resources.strength()
        st.session_state["strength"] = usual if (asked := st.session_state["guidance"]) is None else asked
        guidance.select_slider("DPS strength", state.strengths(usual), key="strength", format_func=lambda s: f"{s:g}",
                               on_change=state.remember_strength, help=_STRENGTH_HELP)
    draws.selectbox("Draws", state.DRAWS, key="draws", help=_DRAWS_HELP)
    _more(more.popover("More", width="stretch"))
    _, said = state.finish()
    # first what was just tried: behind the first sentence the others are folded up
    st.session_state["said"] = [*catalogue.failed, *said, *catalogue.problems]


def asked() -> tuple[Choice, Callable[..., Look]]:
    """The choice of this run, and what asks its methods about its star; with no star the page ends in what to do."""
    choice = state.chosen()
    if choice.star is None:
        problems(said())
        st.info("There is no star to show; upload a LAMOST FITS file, or start the server with `-- --folder PATH`.")
        st.stop()
    return choice, partial(resources.look, catalogue().stars[choice.star], choice.snr, choice.methods, choice.seed,
                           choice.strength, wait=False, draws=choice.number)


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


def patience(look: Look) -> None:
    """How far the answers are that are still being made, with a way to do without; the page runs again for each."""
    said = {why: f"{what}: {', '.join(wrong)}" for methods, what, why in (
        (UNCALIBRATED, "not calibrated", _UNCALIBRATED_HELP), (UNDERTRAINED, "undertrained here", _UNDERTRAINED_HELP))
        if (wrong := [style(answer.method).name for answer in look.answers if answer.method in methods])}
    if (cool := narrow.too_narrow(look)) is not None:
        said = {cool[1]: cool[0], **said}
    if said:
        st.caption(f":small[{' · '.join(said.values())}]", help="\n\n".join(said))
    for method in look.cancelled:
        st.button(f"{called(method)}: cancelled. Ask again", key=f"again_{method}", on_click=resources.again,
                  args=(method,), width="stretch", icon=":material/refresh:")
    if look.waiting:
        _progress(look)


@st.fragment(run_every=0.3)
def _progress(look: Look) -> None:
    """A row for each answer that is waited for: how far it is, and a small button that does without.

    A fragment: it looks again by itself while the page lets go of a slider at any time.
    """
    for waiting in look.waiting:
        if waiting.done:
            st.rerun()
        name = called(waiting.method)
        with st.container(key=f"waiting_{waiting.method}", horizontal=True, vertical_alignment="center", gap="small"):
            st.progress(min(waiting.share, 1.0), f"{name}: {waiting.words}")
            cancelled = st.button("✕", key=f"cancel_{waiting.method}", type="tertiary", help=f"Cancel {name}")
        if cancelled:
            resources.cancel(waiting)
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
