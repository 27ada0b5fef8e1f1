"""Filters, figures and tables of stars of pages Bias and Coverage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from app import export, filters, study, widgets
from app.filters import Filters, Options
from app.study import Study
from app.study_figures import TITLES, Drawn
from app.styles import style
from core.figures import interactive, sheets
from core.figures.style import named
from core.figures.trends import SCORES

PLOTS = {"inside": "Inside 68 % against S/N", "levels": "Coverage at every level", "pit": "PIT", "ranks": "SBC ranks",
         "tarp": "TARP", "rho": "Error over the Bayes floor", "audit": "Audit: lines put in and taken out"}
_SAMPLES = {"simulated": "Simulated | real", "real": "Held-out real", "lamost": "LAMOST | real"}
_WHOSE = {"simulated": "simulated", "real": "held-out real", "lamost": "LAMOST", "put_in": "put in",
          "take_out": "taken out"}
_SAMPLES_HELP = (
    "Simulated stars have a truth, and say nothing certain about real ones: beside them always stand stars of MILES, "
    "STELIB and MaStar that were kept out of everything, with LAMOST's noise put on. LAMOST: spectra of S/N above 40 "
    "with noise added, judged against themselves, whose own noise is in the figure.")
_COLUMNS = {"star": "Star", "quantity": "Of", "z": "z [σ]", "floor": "Floor [continuum]", "rms": "rms [continuum]",
            "ratio": "rms / floor", "line": "Line", "wavelength": "At [Å]", "strength": "Strength [σ]",
            "survival": "Left [share of EW]", "painted": "Painted [share of EW]", "found": "Found [σ]",
            "flagged": "Flagged", "limit": "Limit [share flagged]"}
_MEASURED = {"truth": "Truth", "mean": "Mean", "q16": "16 %", "q84": "84 %", "error": "Error", "value": "Value"}
_UNLIKE_HELP = (
    "Slow methods were asked about the first stars of a sample only. Between methods on different stars part of a "
    "difference is one of the stars; their error bars are wider for it. docs/study.md compares them on the same ones.")
_SAID_HEIGHT = 44  # pixels that it takes
_DRAWN = ("q16", "q84", "z")  # what a method that answers once has not; its error stands there instead


def options(held: Study, plots: Sequence[str]) -> Options:
    """What page Bias (no `plots`) or page Coverage can show."""
    drawn = bool(plots)
    quantities = [name for name in held.quantities if not (drawn and name in SCORES)]
    samples = tuple(name for name in study.BESIDE if name in held.samples) or held.samples
    whose = {name: tuple(s for s in study.BESIDE.get(name, (name,)) if s in held.samples) for name in samples}
    return Options(samples, (*study.POOLED, *quantities) if drawn else tuple(quantities),
                   held.drawing if drawn else held.methods, held.snrs, tuple(plots) or ("bias",),
                   whose | {"rho": ("simulated", "real"), "audit": ("put_in", "take_out")})


def bar(page: str, has: Options) -> Filters:
    """The row of filters; what they are in this run."""
    filters.begin(page, has)
    several = len(has.plots) > 1
    row = st.container(key="filters")
    places = iter(row.columns([2.4, 2.0, 2.0, 1.6] if several else [2.4, 2.2, 1.6, 1.8], gap="small",
                              vertical_alignment="bottom"))
    next(places).segmented_control("Stars", has.samples, key="f_sample", format_func=_SAMPLES.__getitem__,
                                   help=_SAMPLES_HELP)
    if several:
        next(places).selectbox("Figure", has.plots, key="f_plot", format_func=PLOTS.__getitem__,
                               on_change=filters.moved)
    next(places).selectbox("Quantity", has.quantities, key="f_quantity", format_func=spoken, on_change=filters.moved)
    shown = st.session_state["f_methods"]
    next(places).popover(f"Methods of the study: {len(shown)} of {len(has.methods)}", width="stretch").pills(
        "In the figure", has.methods, key="f_methods", selection_mode="multi",
        format_func=lambda name: style(name).name)
    return filters.now(has)


def spoken(quantity: str) -> str:
    """A quantity as a reader says it, with its unit."""
    name = (SCORES[quantity][0] if quantity in SCORES else named(quantity)[0]).replace("T_eff", "Teff")
    return name[0].upper() + name[1:] + in_unit(quantity)


def in_unit(quantity: str) -> str:
    """A quantity's unit in brackets, for behind a name; empty where it has none."""
    unit = (SCORES[quantity] if quantity in SCORES else named(quantity))[1].replace("Angstrom", "Å")
    return f" [{unit}]" if unit else ""


def headers(quantity: str) -> dict[str, str]:
    """What stands over each column of the stars behind a point of this quantity."""
    return _COLUMNS | {name: said + in_unit(quantity) for name, said in _MEASURED.items()}


def said(asked: Filters, drawn: Drawn) -> None:
    """What the link got wrong and what the figure lacks, in one place."""
    widgets.problems([*widgets.said(), *filters.finish(asked), *(drawn.said if drawn.sheets else ())])


def figures(drawn: Drawn, asked: Filters, has: Options) -> None:
    """The figures; a click on a point chooses its stars."""
    if not drawn.sheets:
        st.info(widgets.plain(" ".join(drawn.said)))
        return
    unlike(drawn)
    for i, (place, sheet) in enumerate(zip(st.columns(len(drawn.sheets)), drawn.sheets, strict=True)):
        key = f"figure-{i}-{'-'.join(map(str, (asked.plot, asked.quantity, asked.sample, asked.snr, *asked.methods)))}"
        figure = interactive.draw(sheet, widgets.dark())
        figure.update_layout(clickmode="event+select", dragmode="zoom")
        if drawn.unlike and figure.layout.height:  # so that the axis stays in sight
            figure.update_layout(height=figure.layout.height - _SAID_HEIGHT)
        if not asked.part:
            mark(figure, sheets.point(asked.whose, asked.method, asked.snr))
        name = export.file_name("-".join([asked.plot, asked.quantity, *[str(i + 1)] * (len(drawn.sheets) > 1)]))
        widgets.plot(figure, key=key, name=name, parent=place, on_select=partial(filters.clicked, key, has),
                     alt=f"{PLOTS.get(asked.plot, 'Bias and scatter')} of {spoken(asked.quantity)}, by method; the "
                         "same numbers are in the files of results/")


def unlike(drawn: Drawn) -> None:
    """Which methods stand on fewer stars, over the figures: nobody may compare them with the others unknowingly."""
    if drawn.unlike:
        st.caption(f":small[**Not of the same stars.** {drawn.unlike}]", help=_UNLIKE_HELP)


def mark(figure: go.Figure, key: str) -> None:
    """Show which point's stars are listed."""
    for trace in figure.data:
        if trace.customdata is not None and len(set(trace.customdata)) > 1:  # of a whole curve none is the one
            trace.selectedpoints = [i for i, its in enumerate(trace.customdata) if its == key]


def point(asked: Filters, has: Options) -> Filters:
    """Whose stars are listed: chosen by hand here, or by a click on the figure."""
    whose = has.whose.get(asked.plot) or has.whose[asked.sample]
    places = st.columns([1.25, 1.1, 0.8], gap="small")
    places[0].selectbox("Stars of", whose, key="f_whose", format_func=_WHOSE.__getitem__, on_change=filters.moved)
    places[1].selectbox("Method", has.methods, key="f_method", format_func=lambda name: style(name).name,
                        on_change=filters.moved)
    places[2].selectbox("S/N", has.snrs, key="f_snr", format_func=lambda snr: f"{snr:g}", on_change=filters.moved)
    return filters.now(has)


def files(drawn: Drawn, asked: Filters, table: pd.DataFrame) -> None:
    """The stars as a file, and each figure for a paper."""
    places = st.columns([1, *[1] * len(drawn.sheets)], gap="small")
    parts = ["stars", asked.plot, asked.quantity, asked.whose, asked.method, f"{asked.snr:g}"]
    places[0].download_button("Stars", table.to_csv(index=False, float_format="%.6g").encode(), mime="text/csv",
                              file_name=f"{export.file_name('-'.join(parts))}.csv", icon=":material/download:",
                              on_click="ignore", width="stretch", help="These stars as a CSV file, all columns")
    for i, (place, sheet) in enumerate(zip(places[1:], drawn.sheets, strict=True)):
        with place:
            export.figure_menu(sheet, f"{asked.plot}-{asked.quantity}-{i + 1}")


def stars(held: Study, asked: Filters, drawn: Drawn) -> None:
    """The stars behind the point, worst first; they and the figures as files."""
    about: dict[str, float] = {}
    if asked.plot == "audit":
        table = study.audited(held, asked.whose, asked.method, asked.snr, asked.part)
        bin_ = "" if asked.part is None else f" of {asked.part[0]:g}-{asked.part[1]:g} σ"
        line = f"**{len(table)} lines**{bin_}, {table['star'].nunique()} simulated stars."
    elif asked.plot == "rho" and asked.whose == "simulated":
        table = study.floor_stars(held, asked.method, asked.snr)
        line = f"**{len(table)} stars** with a floor; rms and floor in units of the continuum."
    else:
        quantity = "rms" if asked.plot == "rho" else asked.quantity
        table = study.stars(held, quantity, asked.whose, asked.method, asked.snr, asked.part)
        about = study.numbers(held, quantity, asked.whose, asked.method, asked.snr)
        bin_ = "" if asked.part is None else f", truth at {asked.part[0]:g}-{asked.part[1]:g} of the posterior"
        line = f"**{table['star'].nunique()} stars**, {TITLES[asked.whose].lower()}{bin_}."
    whole = " All stars of this point:" if asked.part is not None and about else ""
    st.markdown(f":small[{line}{whole}{sentence(about, asked.quantity)}]",
                help="Worst first: by z = (mean - truth) / std of the draws; of methods that answer once by the error.")
    if table.empty:
        st.info("No stars here: this method was not asked about them. Choose another method, S/N or sample.")
        files(drawn, asked, table)
        return
    once = "z" in table and not table["z"].notna().any()
    hidden, over = _DRAWN if once else ("error",), headers(asked.quantity)
    shown = {name: st.column_config.NumberColumn(over[name], format="%.3g") if table[name].dtype.kind == "f" else
             st.column_config.Column(over[name], width=105 if name == "star" else None)
             for name in table if name not in hidden}
    st.dataframe(table[list(shown)], hide_index=True, height=255, column_config=shown, key="stars")
    files(drawn, asked, table)


def sentence(about: Mapping[str, float], quantity: str) -> str:
    """The summary's numbers of one point with their errors, those that there are."""
    def has(*names: str) -> bool:
        return all(pd.notna(about.get(name)) for name in names)

    unit = named(quantity)[1].replace("Angstrom", "Å")
    parts = []
    if has("bias", "bias_err"):
        parts.append(f"Bias {about['bias']:+.3g} ± {about['bias_err']:.2g} {unit}".replace("-", "−"))
    if has("scatter"):
        parts.append(f"scatter {about['scatter']:.3g} {unit}")
    if has("coverage", "coverage_err"):
        parts.append(f"inside 68 %: {about['coverage']:.2f} ± {about['coverage_err']:.2f}")
    if has("chi_square", "chi_square_expected"):
        parts.append(f"(error / σ)² {about['chi_square']:.2f}, {about['chi_square_expected']:.2f} wanted")
    if has("p_value"):
        parts.append("uniform ranks: p " + (f"= {about['p_value']:.2g}" if about["p_value"] >= 0.001 else "< 0.001"))
    if has("median"):
        parts.append(f"median {about['median']:.3g}")
    return f" {'; '.join(part.strip() for part in parts)}." if parts else ""
