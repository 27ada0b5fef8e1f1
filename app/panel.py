"""The right-hand panel of page Star: who the star is, how it was measured, and how each answer fares."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence

import streamlit as st

from app import first, told
from app.shown import MENDED, SIGMA_SOURCE, Answer, Look
from app.styles import style
from core import believed

_LABELS = "From the mixture's posterior in closed form, in which labels ride along; page Labels has every method's."
_TRUST = (
    "The strip under the spectrum: 1 less the variance of a method's draws over the variance that the mixture would "
    "allow there by the rest of the star, had 21 pixels about it not been measured. At *data* what was measured there "
    "decides; at *prior* the method draws what stars usually have, whether or not this one has it.")
_NULL = "Tested against what this method does to stars of which nothing was removed."
_NOMINAL = "No null of this method was measured: tested against the noise alone, so fewer flags than there could be."


def rows(lines: Sequence[tuple[str, str, str]]) -> str:
    """Rows of a table: name, value, and what the pointer is told about it."""
    said = [f' class="more" title="{html.escape(more)}"' if more else "" for _, _, more in lines]
    return "".join(f"<tr{which}><td>{html.escape(name)}</td><td>{html.escape(value)}</td></tr>"
                   for which, (name, value, _) in zip(said, lines, strict=True) if value)


def _number(look: Look, key: str, form: str, unit: str) -> str:
    """A number of the star's file, empty where it has none."""
    value = look.star.facts.get(key)
    return f"{value:{form}} {unit}" if isinstance(value, float) and math.isfinite(value) else ""


def _known(look: Look, key: str, form: str) -> str:
    """What the file says of a label, for beside its name."""
    known = _number(look, key, form, "")
    return f" ({'true' if look.star.simulated else 'file'} {known.strip()})" if known else ""


def _label(look: Look, key: str, form: str, unit: str) -> str:
    """A label with its error; until it is known that, where something is waited for."""
    if look.kind is None:
        return "not yet known" if look.waiting else ""
    value, error = look.kind.by.label(key)
    return f"{value:{form}} ± {error:{form.lstrip('+')}} {unit}"


def _domain(look: Look) -> str:
    """The verdict and what it rests on, in the few letters that one line of the panel has on a screen 1280 wide."""
    if look.kind is None:
        return "not yet known" if look.waiting else ""
    score = look.kind.score
    if score.inside:
        return f"inside, misfit {score.misfit:+.1f} σ"
    if score.misfit > believed.OUTSIDE:
        return f"OUTSIDE, misfit {score.misfit:.0f} σ"
    return f"OUTSIDE, {len(score.flags)} flag{'s' * (len(score.flags) > 1)}"


def facts(look: Look) -> None:
    """Who the star is, whether truth is known, how it was measured, and whether its kind is known."""
    star = look.star
    badge = "<b>SIMULATED</b> truth known" if star.simulated else "<b>OBSERVED</b> truth unknown"
    blue, red = look.spectra.noise.scale
    line = first.planted(star)
    kind = " · ".join(str(star.facts.get(key) or "") for key in ("subclass", "release") if star.facts.get(key))
    verdict = None if look.kind is None else look.kind.score
    body = rows([
        ("Class", kind, ""), ("S/N_g", look.degraded, ""),
        ("Domain", _domain(look), "" if verdict is None else f"{verdict.words}. {told.DOMAIN}"),
        ("Teff" + _known(look, "teff", ".0f"), _label(look, "teff", ".0f", "K"), _LABELS),
        ("rv" + _known(look, "rv", "+.1f"), _label(look, "rv", "+.1f", "km/s"), _LABELS),
        ("Line put in", f"{line:.0f} Å" if math.isfinite(line) else "", "No star of any prior has it."),
        ("σ true / quoted", f"{blue:.2f} blue, {red:.2f} red" + ("" if star.simulated else f"; {SIGMA_SOURCE}"), ""),
        ("ivar mended", f"{star.mended} px" if star.mended else "", MENDED),
        ("Dead pixels", f"{int((~look.spectra.measured).sum())} of {look.spectra.wave.size}", ""),
    ])
    st.html(f'<div class="name">{html.escape(star.name)}</div><div class="origin">{badge}</div>'
            f'<table class="facts">{body}</table>')


def _flags(answer: Answer) -> str:
    """How many flags, and what they say to the pointer."""
    name = style(answer.method).name
    said = [told.flag_words(flag, name) for flag in answer.flags]
    why = _NULL if believed.has_null(answer.method) else _NOMINAL
    mark = f"▼ {len(said)} flag{'s' * (len(said) > 1)}" if said else "no flag"
    return f'<span class="flag" title="{html.escape("; ".join([*said, why]))}">{mark}</span>'


def no_answer(look: Look, chosen: Sequence[str]) -> str:
    """Why there is no answer at all, and what to do: `chosen` are the methods in the bar."""
    if look.waiting:
        return "The first answer is being made."
    if not chosen:
        return "No method chosen; add one in the bar above."
    if look.cancelled:
        rest = "" if len(look.cancelled) == len(chosen) else " or failed"
        return f"All answers were cancelled{rest}; ask again below."
    return "No chosen method has an answer; why is said above. Choose another in the bar."


def answers(look: Look, chosen: Sequence[str]) -> None:
    """Each method's flags, chi-square and distance from the reference, everywhere and in the lines, and error bar.

    Args:
        chosen: methods in the bar, also those without an answer.
    """
    if not look.answers:
        st.caption(no_answer(look, chosen))
        return
    to = "truth" if look.star.truth is not None else "own" if look.own is not None else ""
    head = '<td colspan="2">chi2 per pixel</td>' + (f'<td colspan="2">rms − {to}</td>' if to else "")
    halves = "<td>all</td><td>lines</td>" * (2 if to else 1)
    body = f'<tr>{head}</tr><tr class="small">{halves}</tr>'
    for answer in look.answers:
        numbers = [f"{answer.chi2:.2f}", f"{answer.chi2_lines:.2f}"]
        numbers += [f"{rms:.3f}" for rms in (answer.rms, answer.rms_lines) if rms is not None]
        name = html.escape(style(answer.method).name)
        body += (f'<tr class="rule"><th colspan="4">{name} <small>{answer.bar}</small>{_flags(answer)}</th></tr>'
                 "<tr>" + "".join(f"<td>{number}</td>" for number in numbers) + "</tr>")
    st.html(f'<table class="facts numbers">{body}</table>')
    live = look.spectra.measured[0]
    count, inside = int(live.sum()), int((live & look.lines).sum())
    said = (
        f"**chi2** is the mean of ((observed − method) / σ)². A method that is right has 1 within √(2/N): "
        f"± {math.sqrt(2 / max(count, 1)):.2f} over all {count} pixels, ± {math.sqrt(2 / max(inside, 1)):.2f} over the "
        f"{inside} of the zoomed lines. Below 1 it kept noise. Near 1 it may still have erased lines, which few pixels "
        "hold: look at *lines* and at the **flags** (▼), places where what is left over is no noise. ")
    if to:
        whom = "the truth" if to == "truth" else f"the star's {look.own_name}, which is noisy itself"
        said += f"**rms** is the root mean square difference from {whom}, in units of the continuum."
    st.caption(":small[1 is necessary, not sufficient]", help=said)
    if any(answer.trust is not None for answer in look.answers):
        st.caption(":small[data or prior?]", help=_TRUST)
