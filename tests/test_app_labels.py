"""Page Labels: every method that draws, with errors; the domain; known failings said; files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import streamlit as st
from astropy.table import Table
from streamlit.testing.v1 import AppTest
from test_app import ROOT, healthy, no_folder, small, words

from app import charts_labels, labels_shown, panel, resources, told
from app.shown import Look
from core import domain, findings, report
from core.metrics.flags import Flag

__all__ = ["no_folder", "small"]  # fixtures of every test here


def opened(**query: str) -> AppTest:
    app = AppTest.from_file(str(ROOT / "app/main.py"), default_timeout=120)
    for key, value in query.items():
        app.query_params[key] = value
    return app.switch_page("views/labels.py").run()


@pytest.fixture(scope="module")
def look(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Look]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRUELINE_WORKER", "0")
        patch.setenv("TRUELINE_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(resources, "DRAWS", {"other": 8})
        star = next(s for s in resources.catalogue().stars.values() if s.facts["star"] == "SIM06")
        yield resources.look(star, None, ["savgol", "mixture"], 0)


@pytest.mark.parametrize("methods", ["noisy,savgol,wavelet,pca", "wiener,mixture", "exact,dps"])
def test_every_method_that_draws_has_labels_and_the_others_are_named(methods: str) -> None:
    app = healthy(opened(star="simulated:SIM06", snr="20", methods=methods))
    assert len(app.get("plotly_chart")) == 2
    shown: pd.DataFrame = app.dataframe[0].value
    assert "mixture, closed form" in shown.index
    assert ("wavelet" not in shown.index) or "wavelet" not in methods
    assert len(shown) == 2 + (0 if "savgol" in methods else 2), "methods, closed form, truth"
    spoken = words(app)
    assert "real stars labels fail" in spoken
    assert "Domain inside" in spoken
    assert ("without labels: noisy, Savitzky-Golay, wavelet, PCA" in spoken) == ("savgol" in methods)


def test_no_method_still_gives_the_closed_form() -> None:
    app = opened(star="simulated:SIM06", snr="20", methods="none")
    assert not app.exception
    assert list(app.dataframe[0].value.index) == ["mixture, closed form", "truth (simulated)"]


def test_labels_have_units_errors_and_what_the_error_is(look: Look) -> None:
    _, found = labels_shown.labels(look)
    assert set(found.table["method"]) == {"mixture", report.CLOSED}
    assert set(found.table["quantity"]) == set(labels_shown.NAMES)
    assert (found.table[["minus", "plus"]] > 0).all().all()
    ridge = found.table[(found.table["method"] == "mixture") & (found.table["quantity"] == "Teff")].iloc[0]
    assert "estimator's own error" in ridge["error_is"]
    assert found.bare == ("Savitzky-Golay",)
    name, content, _ = labels_shown.files(look, found)[0]
    assert name.endswith("_labels.ecsv")
    assert Table.read(content, format="ascii.ecsv").meta["domain"].startswith("inside")


def test_a_foreign_star_is_called_outside_with_the_place(look: Look) -> None:
    flag = Flag(5500.0, 9.0, -12.0, 1e-9, -3.0)
    found = replace(labels_shown.labels(look)[1], kind=domain.Score(9.0, (flag,)))
    said = labels_shown.verdict(found)
    assert "outside" in said
    assert "5500" in said
    assert "9.0 sigma" in said


def test_star_and_labels_give_one_verdict(look: Look) -> None:
    assert labels_shown.labels(look)[1].kind == told.told(look).kind.score
    flux = look.spectra.flux.copy()
    flux[0] += 0.6 * np.exp(-0.5 * ((look.spectra.wave - 5500.0) / 12.0) ** 2)
    foreign = told.told(replace(look, spectra=replace(look.spectra, flux=flux)))
    assert not foreign.kind.score.inside
    with pytest.MonkeyPatch.context() as patch:
        said: list[str] = []
        patch.setattr(st, "html", said.append)
        for one in (told.told(look), foreign):
            panel.facts(one)
    assert [">OUTSIDE, " in words for words in said] == [False, True]
    assert ">inside, misfit " in said[0]
    assert abs(foreign.kind.score.flags[0].wavelength - 5500.0) < 24.0


@pytest.mark.parametrize(("misfit", "flags", "wanted"), [
    (0.24, 0, "inside, misfit +0.2 σ"), (-1.06, 0, "inside, misfit -1.1 σ"), (0.2, 1, "OUTSIDE, 1 flag"),
    (4.9, 12, "OUTSIDE, 12 flags"), (9.4, 0, "OUTSIDE, misfit 9 σ"), (131.2, 3, "OUTSIDE, misfit 131 σ")])
def test_the_verdict_in_the_panel_says_what_it_rests_on(
    look: Look, monkeypatch: pytest.MonkeyPatch, misfit: float, flags: int, wanted: str
) -> None:
    score = domain.Score(misfit, (Flag(5500.0, 9.0, -12.0, 1e-9, -3.0),) * flags)
    kind = findings.Kind(score, told.told(look).kind.by)
    said: list[str] = []
    monkeypatch.setattr(st, "html", said.append)
    panel.facts(replace(look, kind=kind))
    assert f">{wanted}<" in said[0]


def test_the_corner_shows_every_pair_and_the_kiel_diagram_every_method(look: Look) -> None:
    (_, found), known = labels_shown.labels(look), labels_shown.known(look)
    figure = charts_labels.corner(found, known)
    assert len(figure.data) == 15 * len(found.draws)
    diagonal = [t for t in figure.data if t.mode == "lines"]
    for trace in diagonal:
        area = np.trapezoid(trace.y, trace.x)
        assert 0.9 < area <= 1.001, "a distribution has the area 1, but for what the axis leaves out"
    assert [a for a in figure.layout if a.startswith("xaxis")].__len__() == 15
    kiel = charts_labels.kiel(found, labels_shown.training(), known)
    assert [t.name for t in kiel.data] == ["training stars", "mixture", "mixture, closed form", "truth"]
    assert len(kiel.data[0].x) > 1500
    assert kiel.layout.yaxis.autorange == "reversed"
    unknown = charts_labels.kiel(found, labels_shown.training(), np.full(5, np.nan))
    assert "truth" not in [t.name for t in unknown.data], "no truth is drawn where none is known"
