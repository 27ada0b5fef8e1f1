"""What is asked of the study: filters of pages Bias and Coverage, held in the URL beside the shared choice."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import streamlit as st

NAMES = ("sample", "quantity", "judged", "plot", "point")  #: of the URL's parameters
#: methods to be had, but not at first: they crowd a figure and differ little from what it shows
LATER = ("savgol", "dps", "dps@0.01", "dps@0.1", "pigdm", "mmps")
FIRST_QUANTITY, FIRST_METHOD, FIRST_SNR = "EW:Mg b", "exact", 10.0
_HELD, _WRITTEN, _SAID, _PAGE = "filters", "filters_written", "filters_said", "filters_page"


@dataclass(frozen=True)
class Options:
    """What there is to choose from on one page, the first of each where nothing is asked."""

    samples: tuple[str, ...]
    quantities: tuple[str, ...]
    methods: tuple[str, ...]
    snrs: tuple[float, ...]
    plots: tuple[str, ...]
    whose: Mapping[str, tuple[str, ...]]  #: of points, by sample; of a figure that is not of samples by its name


@dataclass(frozen=True)
class Filters:
    """What is shown, and whose stars stand in the table.

    Args:
        sample: of the stars beside which the held-out real ones stand; quantity: or several, 'EW:'; methods: in the
            figure; plot: which figure.
        whose, method, snr: of the stars in the table, snr also of figures of one S/N; part: a bin's ends.
    """

    sample: str
    quantity: str
    methods: tuple[str, ...]
    plot: str
    whose: str
    method: str
    snr: float
    part: tuple[float, float] | None = None

    def but(self, **other: Any) -> Filters:
        """The same with something else."""
        return replace(self, **other)


def _whose(options: Options, sample: str, plot: str) -> tuple[str, ...]:
    return options.whose.get(plot) or options.whose[sample]


def query(filters: Filters) -> dict[str, str]:
    """The filters as URL parameters."""
    ends = () if filters.part is None else filters.part
    point = ",".join([filters.whose, filters.method, *(f"{number:g}" for number in (filters.snr, *ends))])
    return {"sample": filters.sample, "quantity": filters.quantity, "judged": ",".join(filters.methods) or "none",
            "plot": filters.plot, "point": point}


def point(text: str, separator: str = ",") -> tuple[str, str, tuple[float, ...]] | None:
    """(whose, method, numbers) of a point in the URL or under the pointer; None where it is none."""
    whose, _, rest = text.partition(separator)
    method, *numbers = rest.split(separator)
    try:
        found = tuple(float(number) for number in numbers[:3])
    except ValueError:
        return None
    return (whose, method, found) if found and all(map(math.isfinite, found)) and len(numbers) <= 3 else None


def parse(asked: Mapping[str, str], options: Options) -> tuple[Filters, list[str]]:
    """Filters from URL parameters that a stranger may have written, and sentences about what was not taken."""
    said: list[str] = []

    def one(name: str, among: Sequence[str], first: str, what: str) -> str:
        if asked.get(name, first) not in among:
            said.append(f"The link names a {what} that is not on this page; choose one above.")
        return asked[name] if asked.get(name) in among else first if first in among else among[0]

    sample = one("sample", options.samples, options.samples[0], "sample")
    plot = one("plot", options.plots, options.plots[0], "figure")
    quantity = one("quantity", options.quantities, FIRST_QUANTITY, "quantity")
    usual = tuple(name for name in options.methods if name not in LATER) or options.methods
    names = asked["judged"].split(",") if asked.get("judged") else list(usual)
    names = [] if names == ["none"] else names
    methods = tuple(name for name in options.methods if name in names)
    if unknown := set(names) - set(methods):
        said.append(f"The link names {len(unknown)} method(s) that the study does not have; choose above.")
        methods = methods or usual

    whose = _whose(options, sample, plot)
    found = point(asked["point"]) if "point" in asked else None
    named = found is not None and found[0] in whose and found[1] in options.methods and found[2][0] in options.snrs
    if "point" in asked and not named:
        said.append("The link's point is none of this page; choose whose stars are listed beside the figure.")
    near = min(options.snrs, key=lambda snr: abs(math.log(snr / FIRST_SNR)))
    first = next((name for name in (FIRST_METHOD, *methods) if name in options.methods), options.methods[0])
    last = "real" if "real" in whose else whose[0]
    if found is None or not named:
        return Filters(sample, quantity, methods, plot, last, first, near), said
    part = (found[2][1], found[2][2]) if len(found[2]) == 3 and found[2][1] < found[2][2] else None
    return Filters(sample, quantity, methods, plot, found[0], found[1], found[2][0], part), said


def begin(page: str, options: Options) -> None:
    """Before the widgets: take a new URL into the session, or what was chosen on the other page."""
    session = st.session_state
    asked = {name: st.query_params[name] for name in NAMES if name in st.query_params}
    # going to another page empties the URL: that is no new choice, and `finish` writes it again
    fresh = bool(asked) and asked != session.get(_WRITTEN)
    if not fresh and session.get(_PAGE) == page and "f_sample" in session:
        return
    session[_PAGE] = page
    filters, said = parse(asked if fresh else session.get(_HELD, {}), options)
    put(filters)
    session[_SAID] = (filters, said if fresh else [])


def put(filters: Filters) -> None:
    """Set the widgets, before they are made."""
    values = {"f_sample": filters.sample, "f_quantity": filters.quantity, "f_methods": list(filters.methods),
              "f_plot": filters.plot, "f_whose": filters.whose, "f_method": filters.method, "f_snr": filters.snr,
              "f_part": filters.part}
    for key, value in values.items():
        st.session_state[key] = value


def now(options: Options) -> Filters:
    """The filters as the widgets have them, mended where one choice has made another impossible."""
    s: Any = st.session_state
    whose = _whose(options, s["f_sample"] or options.samples[0], s["f_plot"])
    if s["f_whose"] not in whose:
        s["f_whose"], s["f_part"] = "real" if "real" in whose else whose[0], None
    return Filters(s["f_sample"] or options.samples[0], s["f_quantity"], tuple(s["f_methods"]), s["f_plot"],
                   s["f_whose"], s["f_method"], s["f_snr"], s["f_part"])


def finish(filters: Filters) -> list[str]:
    """After the widgets: write the URL; what the link got wrong, until another choice is made."""
    session = st.session_state
    written = query(filters)
    held = {name: st.query_params[name] for name in NAMES if name in st.query_params}
    if held != written:
        st.query_params.from_dict(st.query_params.to_dict() | written)
    session[_HELD] = session[_WRITTEN] = written
    about, said = session[_SAID]
    return list(said) if about == filters else []


def clicked(key: str, options: Options) -> None:
    """A point was clicked: its stars are wanted. What is drawn of no stars, or a click beside it, changes nothing."""
    points = st.session_state[key]["selection"]["points"]
    data = points[0].get("customdata") if points else None
    found = point(str(data[0] if isinstance(data, list) else data), "|") if data else None
    if found is None or found[1] not in options.methods:
        return
    numbers = found[2]
    if len(numbers) != 2 and numbers[0] not in options.snrs:  # of the audit two: a bin's ends, at the S/N chosen
        return
    st.session_state["f_whose"], st.session_state["f_method"] = found[:2]
    st.session_state["f_snr"] = st.session_state["f_snr"] if len(numbers) == 2 else numbers[0]
    st.session_state["f_part"] = (numbers[-2], numbers[-1]) if len(numbers) > 1 else None


def moved() -> None:
    """Another point was chosen by hand: a whole one."""
    st.session_state["f_part"] = None
