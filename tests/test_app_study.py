"""Pages Bias and Coverage: every sample and quantity, points that lead to their stars, nonsense in the link."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from streamlit.testing.v1 import AppTest

from app import filters, study, study_figures
from app import study_widgets as panel
from app.filters import Filters, Options
from app.study import Study
from core.figures.trends import SCORES

ROOT = Path(__file__).resolve().parent.parent
FEW = 8  #: stars of each sample and S/N of the small study


@pytest.fixture(autouse=True)
def no_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRUELINE_FOLDER", raising=False)
    monkeypatch.setattr("sys.argv", ["main.py"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The committed study, all of its quantities and methods, of few stars."""
    out = tmp_path_factory.mktemp("results")
    table = pd.read_parquet(study.RESULTS / "judge.parquet")
    table = table.astype({name: str for name in ("star", "method", "quantity", "unit", "sample")})
    drew = table[table["method"] == "exact"]
    stars = [list(part["star"].unique()[:FEW]) for _, part in drew.groupby(["sample", "snr"])]
    stars += [list(part["star"].unique()[:FEW]) for _, part in table[table["sample"] == "lamost"].groupby("snr")]
    table[table["star"].isin([name for some in stars for name in some])].to_parquet(out / "judge.parquet")
    more = pd.read_parquet(study.RESULTS / "study.parquet")
    groups = more.astype({"sample": str}).groupby(["sample", "snr"])
    some = [list(part["star"].unique()[: FEW // 2]) for _, part in groups]
    more[more["star"].isin([name for few in some for name in few])].to_parquet(out / "study.parquet")
    for name in ("judge_summary.csv", "audit.parquet", "floor_stars.parquet"):
        (out / name).write_bytes((study.RESULTS / name).read_bytes())
    return out


@pytest.fixture
def small(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    monkeypatch.setattr(study, "RESULTS", folder)
    return study.study()


def usual(held: Study, plots: tuple[str, ...] = (), **other: object) -> tuple[Filters, Options]:
    has = panel.options(held, plots)
    return filters.parse({}, has)[0].but(**other), has


def at(page: str, **query: str) -> AppTest:
    """The page as a link opens it."""
    app = AppTest.from_file(str(ROOT / "app/main.py"), default_timeout=60)
    app.switch_page(f"views/{page}.py")
    for key, value in ({"methods": "none"} | query).items():
        app.query_params[key] = value
    return healthy(app.run())


def healthy(app: AppTest) -> AppTest:
    assert not app.exception, [e.value for e in app.exception]
    assert not app.error, [e.value for e in app.error]
    return app


def said(app: AppTest) -> str:
    boxes = [*app.warning, *app.info, *(m for e in app.expander for m in e.markdown)]
    return " ".join(str(box.value) for box in boxes).replace("\\", "")


# -------------------------------------------------------------------------------------------------------- the figures


def test_every_quantity_of_every_sample_stands_beside_real_stars_or_says_that_it_does_not(small: Study) -> None:
    asked, has = usual(small)
    assert set(has.samples) == {"simulated", "real", "lamost"}
    assert len(has.quantities) > 30
    for sample in has.samples:
        for quantity in has.quantities:
            drawn = study_figures.bias(small, asked.but(sample=sample, quantity=quantity))
            shown = {name for sheet in drawn.sheets for name in sheet.samples}
            assert shown <= set(study.BESIDE[sample])
            missing = set(study.BESIDE[sample]) - shown
            assert len(drawn.said) >= len(missing), (sample, quantity, drawn.said)
            if shown and "real" not in shown:
                assert "how it is on real stars" in " ".join(drawn.said), (sample, quantity)


def test_without_real_stars_a_figure_says_so(small: Study) -> None:
    asked, _ = usual(small, quantity="[alpha/Fe]")
    drawn = study_figures.bias(small, asked)
    assert [sheet.samples for sheet in drawn.sheets] == [("simulated",)]
    assert "no truth is known of [α/Fe] here" in " ".join(drawn.said)
    assert not study_figures.bias(small, asked.but(quantity="EW:Mg b")).said


@pytest.mark.parametrize("plot", list(study_figures.PLOTS))
def test_every_figure_of_coverage_is_drawn_for_every_sample(small: Study, plot: str) -> None:
    asked, has = usual(small, tuple(panel.PLOTS), plot=plot)
    assert set(panel.PLOTS) == set(study_figures.PLOTS)
    for sample in has.samples:
        for quantity in ("EW:", "flux:", "EW:H alpha", "RV", "[Fe/H]"):
            drawn = study_figures.PLOTS[plot](small, asked.but(sample=sample, quantity=quantity))
            assert bool(drawn.sheets) == (plot != "tarp")
            if plot in ("tarp", "rho", "audit"):
                assert drawn.said
            elif sample == "simulated":
                assert {name for sheet in drawn.sheets for name in sheet.samples} >= {"real", "simulated"}


def test_a_figure_of_no_method_says_what_to_do(small: Study) -> None:
    for plots, make in (((), study_figures.bias), (("inside",), study_figures.inside)):
        drawn = make(small, usual(small, plots, methods=())[0])
        assert not drawn.sheets
        assert "choose another method" in " ".join(drawn.said)


def test_the_supervised_methods_stand_beside_the_judges_and_say_on_how_many_stars(small: Study, folder: Path) -> None:
    more, judge = (pd.read_parquet(folder / f"{name}.parquet") for name in ("study", "judge"))
    new = set(more["method"].unique()) - set(judge["method"].unique())
    assert {"dncnn", "supervised_ivar"} <= new < set(small.methods)
    assert "dncnn" not in small.drawing, "it answers once"
    assert "supervised_ivar" in small.drawing
    for plots, plot in (((), "bias"), (tuple(panel.PLOTS), "inside"), (tuple(panel.PLOTS), "levels")):
        asked, _ = usual(small, plots, plot=plot, sample="simulated", methods=("mixture", "supervised_ivar"))
        drawn = study_figures.drawn(small, asked)
        assert {p.method for sheet in drawn.sheets for q in sheet.panels for p in q.points} >= {"supervised_ivar"}
        assert f"supervised + ivar {FEW // 2}" in drawn.unlike
        assert f"the other methods {FEW}" in drawn.unlike
        assert not study_figures.drawn(small, asked.but(methods=("mixture", "wiener"))).unlike, "the control"
    row = study.numbers(small, "EW:Mg b", "simulated", "supervised_ivar", 10.0)
    table = study.stars(small, "EW:Mg b", "simulated", "supervised_ivar", 10.0)
    assert len(table) == FEW // 2
    assert row["bias"] == pytest.approx(table["error"].mean())
    assert 0 <= row["coverage"] <= 1
    assert set(study.numbers(small, "rms", "simulated", "dncnn", 10.0)) >= {"median"}
    assert "coverage" not in study.numbers(small, "EW:Mg b", "simulated", "dncnn", 10.0)


def test_a_method_of_both_tables_is_the_judges_and_without_the_study_the_rest_stands(
    small: Study, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    monkeypatch.setattr(study, "RESULTS", tmp_path)
    more = pd.read_parquet(folder / "study.parquet")
    pd.concat([more, more.assign(method="exact")]).to_parquet(tmp_path / "study.parquet")
    exact = [part.table[part.table["method"] == "exact"] for part in (small, study.study())]
    assert len(exact[0]) == len(exact[1]) > 0
    (tmp_path / "study.parquet").unlink()
    alone = study.study()
    assert "dncnn" not in alone.methods
    assert set(alone.methods) < set(small.methods)
    more.drop(columns="rank").to_parquet(tmp_path / "study.parquet")
    with pytest.raises(ValueError, match="study.parquet has no rank"):
        study.study()


# -------------------------------------------------------------------------------------------------- the stars behind it


def test_a_point_leads_to_as_many_stars_as_it_says_worst_first(small: Study) -> None:
    asked, has = usual(small)
    for panel_ in study_figures.bias(small, asked).sheets[0].panels:
        for points in panel_.points:
            for key, hover in zip(points.keys, points.hover, strict=True):
                sample, method, (snr,) = filters.point(key, "|")
                table = study.stars(small, asked.quantity, sample, method, snr)
                assert hover == f"S/N {snr:g}, {len(table)} stars"
                size = (table["z"] if table["z"].notna().any() else table["error"]).abs()
                assert (size.diff().dropna() <= 0).all()
                assert table["error"].to_numpy() == pytest.approx((table["mean"] - table["truth"]).to_numpy())
    assert has.snrs == small.snrs


def test_the_bars_of_a_histogram_share_out_all_stars(small: Study) -> None:
    edges = np.linspace(0, 1, 6)
    parts = [study.stars(small, "RV", "real", "exact", 10.0, ends) for ends in pairwise(edges)]
    whole = study.stars(small, "RV", "real", "exact", 10.0)
    assert sum(map(len, parts)) == len(whole) > 0
    assert set(pd.concat(parts)["star"]) == set(whole["star"])
    assert (parts[0]["z"] > 0).all(), "a truth at the lower end lies below the mean"


def test_scores_lead_to_stars_farthest_from_perfect_first(small: Study) -> None:
    for name in ("rms", "ssim", "chi2"):
        value = study.stars(small, name, "real", "mixture", 10.0)["value"]
        far = value if SCORES[name][2] is None else (value - SCORES[name][2]).abs()
        assert len(value) == FEW
        assert (far.diff().dropna() <= 1e-9).all()


def test_the_audit_leads_to_its_lines_and_rho_to_its_stars(small: Study) -> None:
    lines = study.audited(small, "put_in", "mixture", 10.0, (5.0, 7.0))
    assert lines["strength"].abs().between(5, 7).all()
    assert 0 < len(lines) < len(study.audited(small, "put_in", "mixture", 10.0, None))
    stars = study.floor_stars(small, "exact", 10.0)
    assert len(stars) > 0
    assert stars["ratio"].to_numpy() == pytest.approx((stars["rms"] / stars["floor"]).to_numpy())
    assert study.floor_stars(small, "savgol", 10.0).empty


def test_the_audit_says_at_which_snr_exact_was_and_that_its_network_is_not_recorded(small: Study) -> None:
    rows = small.audit
    assert "network" not in rows, "once it is recorded, say which"
    exact = rows[rows["method"] == "exact"]
    more = pd.concat([exact.assign(snr=10.0), exact.assign(snr=50.0)])
    assert study.audit_of(more).startswith("exact was audited at S/N 10, 50 only;")
    assert study.audit_of(rows[rows["method"] != "exact"]) == study.audit_of(pd.DataFrame()) == ""


def test_rho_is_that_of_the_committed_table() -> None:
    """The page takes off what few draws add, as the docs do: with the number of draws of a score it would not."""
    held = study.study()
    wanted = pd.read_csv(study.RESULTS / "rho.csv").query("quantity == 'spectrum'").set_index(["method", "snr"])["rho"]
    sheet = study_figures.rho(held, usual(held, tuple(panel.PLOTS), methods=("exact", "mixture"))[0]).sheets[0]
    for points in sheet.panels[0].points:
        for key, y in zip(points.keys, points.y, strict=True):
            _, method, (snr,) = filters.point(key, "|")
            assert y == pytest.approx(wanted[method, snr], rel=0.02), key


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch, small: Study) -> dict[str, object]:
    state: dict[str, object] = {"f_whose": "real", "f_method": "exact", "f_snr": 10.0, "f_part": None}
    monkeypatch.setattr(filters, "st", SimpleNamespace(session_state=state))
    return state


@pytest.mark.parametrize(("data", "wanted"), [
    ("simulated|mixture|20", ("simulated", "mixture", 20.0, None)),
    (["real|wiener|5|0.9|1"], ("real", "wiener", 5.0, (0.9, 1.0))),
    ("put_in|pca|5|6", ("put_in", "pca", 10.0, (5.0, 6.0))),  # of the audit: a bin's ends, at the S/N chosen
    ("real|nobody|5", None), ("real|exact|7", None), ("real|exact|nan", None), ("", None), ("|||", None), (None, None),
])
def test_a_click_chooses_its_stars_and_nonsense_nothing(
    session: dict[str, object], small: Study, data: object, wanted: tuple[object, ...] | None
) -> None:
    session["figure"] = {"selection": {"points": [{"customdata": data}] if data is not None else []}}
    filters.clicked("figure", panel.options(small, ()))
    found = tuple(session[f"f_{name}"] for name in ("whose", "method", "snr", "part"))
    assert found == (wanted or ("real", "exact", 10.0, None))


# ------------------------------------------------------------------------------------------------------------ the link

NONSENSE = {"sample": ["", "martians", "real,real"], "quantity": ["banana", "EW:", "<b>"],
            "judged": ["x", ",", "exact,y"], "plot": ["../etc", ""],
            "point": ["", "real", "real,exact", "real,exact,7", "real,exact,nan", "a,b,c,d,e,f,g",
                      "simulated,dps,1e400", "lamost,exact,10"]}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, all_ in NONSENSE.items() for value in all_])
def test_nonsense_in_the_link_is_said_and_the_rest_is_kept(small: Study, name: str, value: str) -> None:
    has = panel.options(small, ())
    good = {"sample": "simulated", "quantity": "RV", "judged": "mixture,exact", "plot": "bias",
            "point": "real,exact,20"}
    asked, told = filters.parse(good | {name: value}, has)
    assert told or (name, value) == ("judged", ""), (name, value)
    assert asked.sample in has.samples
    assert asked.quantity in has.quantities
    assert set(asked.methods) <= set(has.methods)
    assert asked.whose in has.whose[asked.sample]
    assert asked.method in has.methods
    assert asked.snr in has.snrs
    kept = filters.query(asked)
    assert all(kept[other] == good[other] for other in good if other not in (name, "point"))


def test_a_link_comes_back_as_it_was_written(small: Study) -> None:
    has = panel.options(small, tuple(panel.PLOTS))
    for other in ({}, {"sample": "lamost", "whose": "lamost", "snr": 5.0}, {"methods": ()}, {"part": (0.25, 0.5)},
                  {"plot": "audit", "whose": "put_in", "part": (5.0, 6.0)}, {"quantity": "EW:"}):
        asked = filters.parse({}, has)[0].but(**other)
        assert filters.parse(filters.query(asked), has) == (asked, [])


# ----------------------------------------------------------------------------------------------------------- the pages


@pytest.mark.parametrize(("view", "idle"), [("bias", True), ("coverage", True), ("about", True), ("lines", False)])
def test_a_page_of_the_committed_study_says_that_the_bar_changes_nothing(small: Study, view: str, idle: bool) -> None:
    app = AppTest.from_file(str(ROOT / "app/main.py"), default_timeout=60)
    app.query_params["methods"] = "none"
    app.switch_page(f"views/{view}.py").run()
    assert not app.exception
    assert any("changes nothing on page" in caption.value for caption in app.caption) == idle


def test_page_bias_shows_every_sample_and_the_url_follows(small: Study) -> None:
    app = at("bias")
    assert len(app.get("plotly_chart")) == 1
    assert not said(app)
    assert app.query_params["sample"] == "simulated"
    assert app.query_params["methods"] == "none", "the shared choice stays beside it"
    for sample in ("real", "lamost", "simulated"):
        app.session_state["f_sample"] = sample
        healthy(app.run())
        assert app.query_params["sample"] == sample
        assert len(app.get("plotly_chart")) == 1
        assert len(app.dataframe) == 1
    healthy(app.selectbox(key="f_quantity").set_value("rms").run())
    assert app.query_params["quantity"] == "rms"
    healthy(app.selectbox(key="f_method").set_value("wavelet").run())
    assert app.query_params["point"] == "real,wavelet,10"
    assert len(app.dataframe[0].value) == FEW


@pytest.mark.parametrize(("query", "wanted"), [
    ({"quantity": "RV"}, ["Truth [km/s]", "Mean [km/s]", "16 % [km/s]", "84 % [km/s]", "z [σ]"]),
    ({"quantity": "EW:Mg b"}, ["Truth [Å]", "Mean [Å]", "z [σ]"]), ({"quantity": "rms"}, ["Value [continuum]"]),
    ({"quantity": "EW:Mg b", "point": "real,wavelet,10"}, ["Truth [Å]", "Error [Å]"]),
])
def test_columns_of_the_stars_have_their_units(small: Study, query: dict[str, str], wanted: list[str]) -> None:
    shown = json.loads(at("bias", **query).dataframe[0].proto.columns)
    labels = [column["label"] for column in shown.values() if "label" in column]
    assert set(wanted) <= set(labels), labels
    assert not [label for label in labels if label.split(" [")[0] in panel._MEASURED.values() and "[" not in label]


def test_every_column_there_is_has_words_over_it(small: Study) -> None:
    tables = [study.stars(small, "EW:", "real", "exact", 10.0), study.stars(small, "rms", "real", "exact", 10.0),
              study.floor_stars(small, "exact", 10.0), study.audited(small, "put_in", "mixture", 10.0, None),
              study.audited(small, "take_out", "mixture", 10.0, None)]
    assert all(len(table) for table in tables)
    assert {name for table in tables for name in table} <= set(panel.headers("EW:"))


@pytest.mark.parametrize("plot", list(panel.PLOTS))
def test_page_coverage_shows_every_figure_from_its_link(small: Study, plot: str) -> None:
    app = at("coverage", plot=plot, quantity="RV")
    assert app.query_params["plot"] == plot
    assert app.query_params["quantity"] == "RV"
    assert len(app.get("plotly_chart")) == {"tarp": 0, "rho": 2, "audit": 2}.get(plot, 1)
    assert ("TARP is not among the figures" in said(app)) == (plot == "tarp")


def test_the_choice_goes_along_to_the_other_page(small: Study) -> None:
    app = at("bias", quantity="[Fe/H]", sample="lamost")
    assert "no truth is known of [Fe/H]" in said(app)
    healthy(app.switch_page("views/coverage.py").run())
    assert app.query_params["quantity"] == "[Fe/H]"
    assert app.query_params["sample"] == "lamost"


def test_nonsense_in_the_link_of_a_page_is_a_sentence(small: Study) -> None:
    app = at("coverage", sample="martians", quantity="banana", judged="x", plot="y", point="z", snr="-3")
    assert said(app).count("The link") >= 4
    assert len(app.get("plotly_chart")) == 1


def test_no_study_is_a_sentence_and_the_rest_works(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(study, "RESULTS", tmp_path)
    for page in ("bias", "coverage"):
        app = at(page)
        assert not app.get("plotly_chart")
        assert "is not there; make it by" in said(app)
        assert "page Star works without it" in said(app)
    (tmp_path / "judge.parquet").write_bytes(b"PAR1 and then nothing")
    assert "cannot be read" in said(at("bias"))
    pd.DataFrame({"star": ["a"]}).to_parquet(tmp_path / "judge.parquet")
    assert "has no method, quantity" in said(at("bias"))
