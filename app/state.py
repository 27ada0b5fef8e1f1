"""What the user chose: one choice for all pages, kept in the session and held in the URL."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import streamlit as st

from app import filters
from app.shown import Star

FIRST_SNR = 9.0  #: of a first visit: where a filter's answer looks believable and is not
OWN = math.inf  #: the slider's last step: as observed
LADDER = (5, 6, 7, 8, 9, 10, 12, 14, 16, 18, 20, 25, 30, 35, 40, 50, 60, 70, 80, 100, 125, 150, 200, 250, 300, 400, 500)
MAX_SEED = 2**31 - 1
LEARNED, FILTER = "supervised", "wavelet"  #: of a first visit: the one of the literature, else a filter
DRAWS = (8, 16, 32, 64, 128)  #: of the choice
USUAL_DRAWS = 32
#: methods to be had, but not at first: they repeat what the page shows anyway, crowd it, or take long
LATER = ("noisy", "savgol", "pca", "wiener", "dncnn", "dncnn_blind", "supervised", "supervised_ivar",
         "supervised_mixture", "dps", "pigdm", "mmps")
GUIDED = "dps"  #: the method that has a guidance strength
STRENGTHS = (0.0, 0.001, 0.003, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.3, 1.0)  #: of the slider
MAX_STRENGTH = 10.0

#: parameters of one page, held in the URL beside the choice (app.own_line, app.focus, app.put_in)
OTHERS = frozenset({"line", "window", "inject", *filters.NAMES})

_WRITTEN, _SAID = "_written", "_said"
_WIDGETS = ("star", "methods", "seed", "air", "draws", "rest")  # keys of the bar's


@dataclass(frozen=True)
class Choice:
    """What is to be shown.

    Args:
        star: key in the catalogue, None where there is no star at all.
        snr: S/N_g wanted, None: as observed.
        methods: names in core.pipeline.METHODS.
        seed: of the added noise and of the draws.
        air: wavelengths in air instead of vacuum.
        strength: guidance of DPS; None: the usual one, or DPS is not chosen.
        draws: of every method that draws.
        rest: wavelengths in the star's own frame instead of the observed one.
    """

    star: str | None
    snr: float | None
    methods: tuple[str, ...]
    seed: int = 0
    air: bool = False
    strength: float | None = None
    draws: int = USUAL_DRAWS
    rest: bool = False

    @property
    def number(self) -> int | None:
        """Draws as `resources.look` is asked for them: None for the usual number of each method."""
        return None if self.draws == USUAL_DRAWS else self.draws


def usual(methods: Sequence[str]) -> tuple[str, ...]:
    """The methods of a first visit: the supervised one where there is one, else a filter, beside those that draw."""
    without = FILTER if LEARNED in methods else LEARNED
    return tuple(name for name in methods if name not in (set(LATER) - {LEARNED}) | {without})


def steps(own: float, wanted: float | None) -> list[float]:
    """The S/N slider's steps for a star of S/N `own`: about 15 % apart from 5 up, the one wanted, OWN at the end."""
    below = {float(step) for step in LADDER if step < own}
    if wanted is not None and wanted < own:
        below.add(wanted)
    return [*sorted(below), OWN]


def strengths(usual_one: float) -> list[float]:
    """The guidance slider's steps, the usual one and the one wanted among them."""
    wanted = st.session_state["guidance"]
    return sorted({*STRENGTHS, usual_one, usual_one if wanted is None else wanted})


def query(choice: Choice) -> dict[str, str]:
    """The choice as URL parameters."""
    out = {"star": choice.star or "", "snr": "own" if choice.snr is None else f"{choice.snr:g}",
           "methods": ",".join(choice.methods) or "none", "seed": str(choice.seed)}
    out |= {"draws": str(choice.draws)} if choice.draws != USUAL_DRAWS else {}
    out |= {"wave": "air"} if choice.air else {}
    out |= {"frame": "rest"} if choice.rest else {}
    return out | ({} if choice.strength is None else {"strength": f"{choice.strength:g}"})


def parse(asked: Mapping[str, str], stars: Mapping[str, Star], methods: Sequence[str],
          first: str | None) -> tuple[Choice, list[str]]:
    """A choice from URL parameters that a stranger may have written, and sentences about what was not taken from them.

    Args:
        asked: the URL's parameters.
        stars: the catalogue.
        methods: all names there are.
        first: key of the star to fall back to.
    """
    said: list[str] = []
    star = asked.get("star", first)
    if star not in stars:
        if star and star.startswith("upload:"):
            said.append("The link names an upload, which stays in the tab where it was made; upload it again.")
        elif star:
            said.append("The link names a star that is not here; pick one, or start the server with its folder.")
        star = first
    own = stars[star].own if star else math.nan

    first_snr = FIRST_SNR if own > FIRST_SNR else None
    snr: float | None = None if "snr" in asked else first_snr
    if asked.get("snr", "own") != "own":
        try:
            snr = round(float(asked["snr"]), 2)
        except ValueError:
            snr = math.nan
        if not (math.isfinite(snr) and snr >= 1):
            instead = f"{first_snr:g}; choose another by the slider" if first_snr else "the star's own"
            said.append(f"The link's S/N is not a number of at least 1; it is {instead}.")
            snr = first_snr
        elif not snr < own:
            said.append(f"The link asks for S/N {snr:g}, and this star has {own:.1f}; it is shown as observed.")
            snr = None

    names = asked["methods"].split(",") if "methods" in asked else list(usual(methods))
    names = [] if names == ["none"] else names
    chosen = tuple(name for name in methods if name in names)
    if unknown := set(names) - set(chosen):
        said.append(f"The link names {len(unknown)} method(s) that Trueline does not have; choose in the bar.")
        chosen = chosen or usual(methods)

    seed = _whole(asked.get("seed", "0"))
    if not 0 <= seed <= MAX_SEED:
        said.append(f"The link's seed is not a whole number from 0 to {MAX_SEED}; it is 0.")
        seed = 0
    if asked.get("wave", "vacuum") not in ("vacuum", "air"):
        said.append("The link's wavelengths are neither vacuum nor air; they are shown in vacuum.")
    if asked.get("frame", "observed") not in ("observed", "rest"):
        said.append("The link's frame is neither observed nor rest; wavelengths are shown as observed.")
    draws = _whole(asked.get("draws", str(USUAL_DRAWS)))
    if draws not in DRAWS:
        said.append(f"The link's number of draws is none of {', '.join(map(str, DRAWS))}; it is {USUAL_DRAWS}.")
        draws = USUAL_DRAWS
    strength: float | None = None
    if GUIDED in chosen and "strength" in asked:
        try:
            strength = float(f"{float(asked['strength']):.4g}")
        except ValueError:
            strength = math.nan
        if not 0 <= strength <= MAX_STRENGTH:  # NaN too
            said.append(f"The link's DPS strength is not a number from 0 to {MAX_STRENGTH:g}; it is the usual one.")
            strength = None
    return Choice(star, snr, chosen, seed, asked.get("wave") == "air", strength, draws,
                  asked.get("frame") == "rest"), said


def _whole(text: str) -> int:
    """A short whole number of a link, -1 where it is none."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 10 else -1


def begin(stars: Mapping[str, Star], methods: Sequence[str], first: str | None) -> None:
    """Before the widgets: take a new URL into the session, and mend what no longer fits (a star that is gone)."""
    session = st.session_state
    asked = {name: value for name, value in st.query_params.to_dict().items() if name not in OTHERS}
    # Streamlit forgets its widgets where a run is broken off by going to another page: the choice is what was written
    lost = _WRITTEN in session and any(key not in session for key in _WIDGETS)
    asked = asked or dict(session[_WRITTEN]) if lost else asked
    # going to another page empties the URL: that is no new choice, and `finish` writes it again
    if _WRITTEN not in session or lost or (asked and asked != session[_WRITTEN]):
        choice, said = parse(asked, stars, methods, first)
        session["star"], session["wanted"], session["methods"] = choice.star, choice.snr, list(choice.methods)
        session["seed"], session["air"], session["guidance"] = choice.seed, choice.air, choice.strength
        session["draws"], session["rest"] = choice.draws, choice.rest
        session[_SAID] = (choice, said)
    elif "choice" in session:
        _take_back(session["choice"])
    if session["star"] not in stars:
        session["star"] = first
    own = stars[session["star"]].own if session["star"] in stars else math.nan
    session["snr"] = session["wanted"] if session["wanted"] in steps(own, session["wanted"]) else OWN


def _take_back(before: Choice) -> None:
    """Put the bar back to the last run's choice where its lists fell back to what they would be without one.

    Streamlit 1.67 has been seen to forget the lists that nobody had touched, star, methods and draws together, where a
    slider moved while a fragment of the page looked how far an answer is; why, was not found. Methods that are all gone
    in the same run as the star or the number of draws were not taken off by hand.
    """
    session = st.session_state
    others = session["star"] != before.star or (session["draws"] != before.draws and session["draws"] == DRAWS[0])
    if before.methods and not session["methods"] and others:
        session["star"], session["methods"], session["draws"] = before.star, list(before.methods), before.draws


def remember_snr() -> None:
    """The slider was moved: this S/N is wanted for every star that can have it."""
    st.session_state["wanted"] = None if st.session_state["snr"] == OWN else st.session_state["snr"]


def remember_strength() -> None:
    """The guidance slider was moved: it forgets when DPS is taken off, and this does not."""
    st.session_state["guidance"] = st.session_state["strength"]


def finish() -> tuple[Choice, list[str]]:
    """After the widgets: the choice, also written to the URL; what the link got wrong, until another is made."""
    session: Any = st.session_state
    snr = None if session["snr"] == OWN else session["snr"]
    strength = session["guidance"] if GUIDED in session["methods"] else None
    choice = Choice(session["star"], snr, tuple(session["methods"]), session["seed"], session["air"], strength,
                    session["draws"], session["rest"])
    written = query(choice)
    others = {name: value for name, value in st.query_params.to_dict().items() if name in OTHERS}
    if written != session.get(_WRITTEN) or written | others != st.query_params.to_dict():
        st.query_params.from_dict(written | others)
        session[_WRITTEN] = written
    session["choice"] = choice
    about, said = session[_SAID]
    return choice, said if about == choice else []


def chosen() -> Choice:
    """The choice of this run, for the pages."""
    choice: Choice = st.session_state["choice"]
    return choice


def pick(star: str, stars: Mapping[str, Star]) -> None:
    """Show this star, as observed unless an S/N was chosen that it can have; before the widgets are made."""
    st.session_state["star"] = star
    wanted = st.session_state["wanted"]
    st.session_state["snr"] = wanted if wanted in steps(stars[star].own, wanted) else OWN
