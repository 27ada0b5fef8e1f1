"""Page Lines: every line with its error and where it is from; a line of one's own that the link holds; files."""

from __future__ import annotations

import io
from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import streamlit as st
from astropy.table import Table
from streamlit.testing.v1 import AppTest
from test_app import ROOT, healthy, no_folder, said, small, words

from app import charts_lines, focus, lines_shown, own_line, resources
from app.shown import Look
from app.styles import style
from core import pipeline
from core.metrics.lines import LINES, Line

__all__ = ["no_folder", "small"]  # fixtures of every test here


def opened(**query: str) -> AppTest:
    app = AppTest.from_file(str(ROOT / "app/main.py"), default_timeout=280)
    for key, value in query.items():
        app.query_params[key] = value
    return app.switch_page("views/lines.py").run()


@pytest.fixture(scope="module")
def look(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Look]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRUELINE_WORKER", "0")
        patch.setenv("TRUELINE_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(resources, "DRAWS", {"other": 8})
        star = next(s for s in resources.catalogue().stars.values() if s.facts["star"] == "SIM02")
        yield resources.look(star, 7.0, ["noisy", "savgol", "mixture"], 0)


def sheet(app: AppTest) -> pd.DataFrame:
    return app.dataframe[0].value


@pytest.mark.parametrize("methods", [list(pipeline.METHODS)[i::3] for i in range(3)], ids=",".join)
def test_every_method_has_a_row_for_every_measured_line(methods: list[str]) -> None:
    app = opened(star="simulated:SIM02", snr="9", methods=",".join(methods))
    assert not app.exception
    assert not app.error
    shown = sheet(app)
    assert len(shown) > 12
    assert set(shown.index) <= set(LINES)
    assert not shown.isna().any().any()
    for method in methods:  # in so few steps a guided sampler may run away: it is said, and has no column
        columns = [column for column in shown.columns if column.startswith(f"{style(method).name} [")]
        assert columns or f"No answer from {style(method).name}" in said(app)
    assert "photon noise" in words(app)
    assert "draws" in words(app)


def test_a_method_that_no_one_chose_leaves_the_panels_and_says_what_to_do() -> None:
    app = opened(star="simulated:SIM02", methods="none")
    assert not app.exception
    assert len(app.get("plotly_chart")) == 1
    assert "add one in the bar" in words(app)


def test_a_residual_is_coloured_beyond_two_sigma_only() -> None:
    assert [lines_shown.is_far(text) for text in ("3.1 ± 0.2 (+2.1σ)", "3.1 ± 0.2 (-2.1σ)", "3.1 ± 0.2 (+1.9σ)",
                                                  "prior (80%)", "", "1.0 (no error)")] == [True, True] + 4 * [False]


def test_the_reference_is_named_for_what_it_is(look: Look) -> None:
    assert lines_shown.reference_name(look) == "truth"
    table = lines_shown.lines(look)
    assert table["reference"].notna().all() | (table["quantity"] == "FWHM").any()
    real = Look(SimpleNamespace(truth=None, own=30.0), look.spectra, look.error, 9.0, 9.0, look.lines, 0, (),
                own=look.spectra.flux[0])
    assert "not truth" in lines_shown.reference_name(real)
    none = Look(SimpleNamespace(truth=None, own=30.0), look.spectra, look.error, 9.0, 9.0, look.lines, 0, ())
    assert lines_shown.reference_name(none) == ""


def test_no_draws_no_claim_of_data_or_prior(look: Look) -> None:
    table = lines_shown.lines(look)
    bare = table[table["method"].isin(["noisy", "savgol"])]
    assert bare["prior_share"].isna().all()
    drawn = table[(table["method"] == "mixture") & (table["quantity"] != "RV")]
    assert drawn["prior_share"].between(0, 1).all()
    assert {lines_shown.source(x).split(" ")[0] for x in (0.1, 0.5, 0.9)} == {"data", "both", "prior"}
    assert {method for method, _, _ in lines_shown.shares(table).values()} == {"mixture"}


def test_the_table_comes_out_as_files_that_astropy_and_pandas_read(look: Look) -> None:
    table = lines_shown.lines(look)
    (ecsv_name, ecsv, _), (csv_name, csv, _) = lines_shown.files(look, table)
    assert (ecsv_name[-11:], csv_name[-10:]) == ("_lines.ecsv", "_lines.csv")
    back = Table.read(ecsv, format="ascii.ecsv")
    assert back.meta["star"] == look.star.name
    np.testing.assert_allclose(np.asarray(back["value"]), table["value"])
    np.testing.assert_allclose(pd.read_csv(io.StringIO(csv))["value"], table["value"])
    assert set(back["unit"]) == {"Angstrom", "1", "km/s"}


def test_panels_shade_the_bands_where_the_star_has_them_in_vacuum_and_air(look: Look) -> None:
    said = lines_shown.shares(lines_shown.lines(look))
    vacuum, air = (charts_lines.multiples(look, list(LINES.values()), said, air=a) for a in (False, True))
    assert len([a for a in vacuum.layout.annotations if "<b>" in a.text]) == len(LINES)
    centres = [[s.x0 for s in figure.layout.shapes if s.type == "line"] for figure in (vacuum, air)]
    assert len(centres[0]) == len(LINES)
    shift = np.array(centres[0]) - np.array(centres[1])
    assert ((shift > 1.0) & (shift < 2.6)).all(), "air is 1.1 to 2.5 Angstrom below vacuum"
    assert "(air)" in air.layout.annotations[-2].text
    rest = charts_lines.multiples(look, list(LINES.values()), None, rest=True)
    here = [s.x0 for s in rest.layout.shapes if s.type == "line"]
    np.testing.assert_allclose(here, [line.centre for line in LINES.values()], atol=0.02)
    assert "being measured" in rest.layout.annotations[0].text


# ------------------------------------------------------------------------------------------------ the line one came for


@pytest.mark.parametrize(("point", "wanted"), [
    ({"customdata": "H alpha"}, "H alpha"), ({"customdata": ["Na D"]}, "Na D"), ({"customdata": "nobody"}, None),
    ({"customdata": []}, None), ({"x": 5000.0}, None), (None, None)])
def test_a_click_on_a_line_leads_to_it_and_any_other_nowhere(
    monkeypatch: pytest.MonkeyPatch, point: dict[str, object] | None, wanted: str | None
) -> None:
    gone: list[str] = []
    session = {"spectrum": {"selection": {"points": [] if point is None else [point]}}}
    monkeypatch.setattr(focus, "st", SimpleNamespace(session_state=session, query_params={}, switch_page=gone.append))
    focus.clicked("spectrum")
    focus.follow()
    focus.follow()
    assert gone == ([] if wanted is None else ["views/lines.py"]), "once"
    assert focus.chosen() == (wanted or "", [])


def test_the_window_of_the_link_stands_first_in_a_frame_and_nonsense_is_said(look: Look) -> None:
    panels = lines_shown.shown_lines(own_line.read(GOOD), "Mg b")
    assert [line.name for line in panels[:2]] == ["Mg b", "own 6500.0"]
    assert len({line.name for line in panels}) == len(panels) == len(LINES) + 1
    figures = [charts_lines.multiples(look, panels, None, wanted=wanted) for wanted in ("Mg b", "")]
    assert figures[0].layout.annotations[0].text.startswith("▸ <b>Mg b</b>")
    assert len(figures[0].layout.shapes) == len(figures[1].layout.shapes) + 1
    app = healthy(opened(star="simulated:SIM02", snr="9", methods="none", window="Mg b"))
    assert app.query_params["window"] in ("Mg b", ["Mg b"])
    app = opened(star="simulated:SIM02", snr="9", methods="none", window="<script>")
    assert not app.exception
    assert "names a line that has no window" in said(app)


# ------------------------------------------------------------------------------------------------- a line of one's own

GOOD = "6500.0,6490,6510,6470,6485,6515,6530"


def test_a_line_of_ones_own_is_measured_and_the_link_holds_it() -> None:
    app = healthy(opened(star="simulated:SIM02", snr="9", methods="mixture", line=GOOD))
    assert "own 6500.0" in sheet(app).index
    assert own_line.read(app.query_params["line"][0] if isinstance(app.query_params["line"], list)
                         else app.query_params["line"]).centre == 6500
    app.number_input(key="own_centre").set_value(6501.5)
    next(b for b in app.button if b.label == "Measure it").click()
    app.run()
    assert "own 6501.5" in sheet(app).index
    assert "6501.5" in str(app.query_params["line"])
    app.button(key="own_remove").click()
    app.run()
    assert not any(name.startswith("own") for name in sheet(app).index)
    assert "line" not in app.query_params


def test_a_line_that_cannot_be_measured_is_refused_in_the_form_and_the_old_one_stays() -> None:
    app = healthy(opened(star="simulated:SIM02", snr="9", methods="savgol", line=GOOD))
    app.number_input(key="own_band to").set_value(6400.0)
    next(b for b in app.button if b.label == "Measure it").click()
    app.run()
    assert not app.exception
    assert "smaller number first" in " ".join(str(w.value) for w in app.warning)
    assert "own 6500.0" in sheet(app).index


@pytest.mark.parametrize("text", ["", "nonsense", "1,2,3", "<script>", "nan,1,2,3,4,5,6", "9" * 500,
                                  "6500,6490,6510,6470,6485,6515,99999", "6600,6490,6510,6470,6485,6515,6530",
                                  "6500,6490,6510,6515,6530,6470,6485", "6500,6499,6501,6470,6485,6515,6530",
                                  "5000,4990,5010,4000,4100,6000,6100", "inf,6490,6510,6470,6485,6515,6530"])
def test_a_strangers_line_is_refused_in_a_plain_sentence(text: str) -> None:
    with pytest.raises(ValueError, match=r"[;.] |; ") as refusal:
        own_line.read(text)
    assert len(str(refusal.value)) < 220
    assert "<" not in str(refusal.value)


def test_nonsense_in_the_link_is_said_and_the_page_goes_on() -> None:
    app = opened(star="simulated:SIM02", snr="9", methods="savgol", line="javascript:alert(1)")
    assert not app.exception
    assert "own line cannot be measured" in said(app)
    assert len(sheet(app)) > 12


def test_a_line_survives_its_own_writing() -> None:
    line = own_line.read(GOOD)
    assert own_line.read(own_line.written(line)) == line
    assert isinstance(line, Line)


def test_tables_are_made_once_and_anew_for_another_seed(look: Look, monkeypatch: pytest.MonkeyPatch) -> None:
    first = lines_shown.lines(look)
    made = []
    monkeypatch.setattr(lines_shown.star_tables, "lines", lambda *a, **k: made.append(1) or first.iloc[:0])
    pd.testing.assert_frame_equal(lines_shown.lines(look), first)
    assert not made
    other = resources.look(look.star, 7.0, ["mixture"], 5)
    lines_shown.lines(other)
    assert made
    st.cache_resource.clear()
