"""The dashboard as its server runs it: every page, every bundled star, nonsense from URLs and uploads."""

from __future__ import annotations

import gzip
import math
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from app import charts, resources, state
from app.shown import Answer, Look
from core import pipeline
from core.data import library, noise
from core.models.observation import Observation, Reconstructor

ROOT = Path(__file__).resolve().parent.parent
STARS = sorted(file.name.removesuffix(".fits.gz") for file in library.BUNDLED.glob("*.fits.gz"))
METHODS = list(pipeline.METHODS)


@pytest.fixture(autouse=True)
def no_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRUELINE_FOLDER", raising=False)
    monkeypatch.setattr("sys.argv", ["main.py"])


def opened(**query: str) -> AppTest:
    app = AppTest.from_file(str(ROOT / "app/main.py"), default_timeout=60)
    for key, value in query.items():
        app.query_params[key] = value
    return app.run()


def words(app: AppTest) -> str:
    """All that the page says, in one string."""
    parts = [*app.markdown, *app.html, *app.caption, *app.warning, *app.error, *app.info]
    return " ".join(str(part.value if hasattr(part, "value") else part.proto.body) for part in parts)


def healthy(app: AppTest) -> AppTest:
    assert not app.exception, [e.value for e in app.exception]
    assert not app.error, [e.value for e in app.error]
    return app


def figures(app: AppTest) -> int:
    return len(app.get("plotly_chart"))


# -------------------------------------------------------------------------------------------------- what a visitor sees


def test_a_first_visit_shows_a_simulated_star_at_low_snr_with_every_method() -> None:
    app = healthy(opened())
    assert figures(app) == 2
    assert not app.warning
    assert app.multiselect(key="methods").value == METHODS
    assert app.select_slider(key="snr").value == state.FIRST_SNR
    said = words(app)
    assert "SIMULATED" in said
    assert "truth known" in said
    assert "OBSERVED" not in said
    assert said.count("no error bar") == len(METHODS), "a filter must say that it has no uncertainty"


def test_every_bundled_star_opens_and_is_called_simulated() -> None:
    app = opened()
    options = [key for key in app.session_state["catalogue"].stars if key.startswith("simulated:")]
    assert len(options) == len(STARS) > 0
    for key, method in zip(options, METHODS * len(options), strict=False):
        app.selectbox(key="star").set_value(key)
        app.multiselect(key="methods").set_value([method])
        healthy(app.run())
        assert figures(app) == 2
        assert "SIMULATED" in words(app)
        assert "rms" in words(app)
        assert app.query_params["star"] == key
        assert app.query_params["methods"] == method


def test_the_snr_slider_degrades_and_the_url_follows() -> None:
    app = healthy(opened(snr="own"))
    assert app.select_slider(key="snr").value == state.OWN
    healthy(app.select_slider(key="snr").set_value(5.0).run())
    assert app.query_params["snr"] == "5"
    assert "→ 5<" in words(app)


def test_an_snr_out_of_reach_comes_back_with_a_star_that_has_it() -> None:
    app = opened(snr="40")
    best = app.session_state["star"]
    poor = min(app.session_state["catalogue"].stars.values(), key=lambda star: star.own)
    healthy(app.selectbox(key="star").set_value(poor.key).run())
    assert app.select_slider(key="snr").value == state.OWN
    healthy(app.selectbox(key="star").set_value(best).run())
    assert app.select_slider(key="snr").value == 40


def test_no_method_still_shows_the_star_and_says_what_to_do() -> None:
    app = healthy(opened(methods="none"))
    assert figures(app) == 2
    assert "add one in the bar" in words(app)
    assert app.query_params["methods"] == "none"


def test_air_and_seed_are_part_of_the_link() -> None:
    app = healthy(opened(wave="air", seed="7"))
    assert app.toggle(key="air").value is True
    assert app.number_input(key="seed").value == 7
    assert app.query_params["wave"] == "air"
    assert app.query_params["seed"] == "7"


def test_about_opens_and_keeps_the_choice() -> None:
    app = healthy(opened(snr="5"))
    healthy(app.switch_page("views/about.py").run())
    assert "What it does not show" in words(app)
    assert app.query_params["snr"] == "5"


# ------------------------------------------------------------------------------------------------- nonsense from a URL


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ({"star": "../../etc/passwd"}, "star that is not here"),
        ({"star": "<script>alert(1)</script>"}, "star that is not here"),
        ({"star": "upload:0123456789ab"}, "upload it again"),
        ({"snr": "banana"}, "not a number"),
        ({"snr": "nan"}, "not a number"),
        ({"snr": "-3"}, "not a number"),
        ({"snr": "1e400"}, "not a number"),
        ({"snr": "99999"}, "as observed"),
        ({"methods": "magic"}, "does not have"),
        ({"methods": "noisy,noisy,magic"}, "does not have"),
        ({"methods": ""}, "does not have"),
        ({"seed": "-1"}, "not a whole number"),
        ({"seed": "9" * 4000}, "not a whole number"),
        ({"seed": "²"}, "not a whole number"),
        ({"wave": "water"}, "neither vacuum nor air"),
    ],
)
def test_nonsense_in_the_url_is_a_sentence_and_the_page_is_whole(query: dict[str, str], sentence: str) -> None:
    app = healthy(opened(**query))
    assert figures(app) == 2
    assert len(app.warning) == 1
    assert sentence in app.warning[0].value.replace("\\", "")
    assert "script>" not in app.warning[0].value
    app.number_input(key="seed").set_value(3)
    assert not healthy(app.run()).warning, "the sentence goes once something else was chosen"


def test_parameters_of_others_do_no_harm() -> None:
    app = healthy(opened(utm_source="mail"))
    assert not app.warning
    assert "utm_source" not in app.query_params


def test_a_link_opens_what_it_was_made_from() -> None:
    stars = resources.catalogue().stars
    for choice in (
        state.Choice(next(iter(stars)), None, (), 5, True),
        state.Choice(resources.default(stars), 12.25, (METHODS[-1],), 0, False),
    ):
        again, said = state.parse(state.query(choice), stars, METHODS, resources.default(stars))
        assert again == choice
        assert not said


def test_the_sliders_steps_end_with_the_star_as_it_is() -> None:
    assert state.steps(12.5, None) == [5, 6, 7, 8, 9, 10, 12, state.OWN]
    assert state.steps(12.5, 6.4) == [5, 6, 6.4, 7, 8, 9, 10, 12, state.OWN]
    assert state.steps(12.5, 80.0) == state.steps(12.5, None)
    assert state.steps(4.0, None) == state.steps(math.nan, 9.0) == [state.OWN]


# ---------------------------------------------------------------------------------------------------------- uploads


def upload(app: AppTest, *files: tuple[str, bytes]) -> AppTest:
    app.file_uploader(key="files").set_value([(name, data, "application/octet-stream") for name, data in files])
    return app.run()


def bundled_bytes() -> bytes:
    return (library.BUNDLED / f"{STARS[0]}.fits.gz").read_bytes()


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("cut.fits.gz", bundled_bytes()[:4000]),
        ("words.fits", b"this is no FITS file at all"),
        ("empty.fits", b""),
        ("zeros.fits", bytes(2880 * 4)),
        ("bomb.fits.gz", gzip.compress(bytes(70 * 2**20), 1)),
        ("head.fits", gzip.decompress(bundled_bytes())[:2880]),
        ("[x](javascript:alert(1)).fits", b"SIMPLE  ="),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_bad_upload_is_one_sentence_and_the_star_stays(name: str, data: bytes) -> None:
    app = opened()
    before = app.session_state["star"]
    upload(app, (name, data))
    assert not app.exception
    assert len(app.error) == 1
    assert name in app.error[0].value.replace("\\", "")
    assert "Traceback" not in words(app)
    assert "](java" not in app.error[0].value
    assert figures(app) == 2
    assert app.session_state["star"] == before
    assert app.select_slider(key="snr").set_value(6.0).run().query_params["snr"] == "6"


def test_a_good_upload_is_shown_at_once_beside_a_bad_one_and_leaves_with_its_file() -> None:
    app = upload(opened(), ("mine.fits.gz", bundled_bytes()), ("bad.fits", b"no"))
    assert len(app.error) == 1
    assert app.session_state["star"].startswith("upload:")
    assert "SIMULATED" in words(app), "a simulated file says so also when uploaded"
    assert figures(app) == 2
    healthy(upload(app))
    assert app.session_state["star"].startswith("simulated:")


def test_many_bad_uploads_do_not_bury_the_page() -> None:
    app = upload(opened(), *[(f"{i}.fits", b"no %d" % i) for i in range(9)])
    assert len(app.error) == 4
    assert "6 more" in app.error[-1].value


def test_a_second_visitor_does_not_see_the_upload_of_the_first() -> None:
    upload(opened(), ("mine.fits.gz", bundled_bytes()))
    assert not [key for key in opened().session_state["catalogue"].stars if key.startswith("upload:")]


# ----------------------------------------------------------------------------------------------- folders named at start


@pytest.fixture
def fresh() -> Iterator[None]:
    st.cache_resource.clear()
    yield
    st.cache_resource.clear()


@pytest.mark.parametrize("kind", ["missing", "empty", "file"])
def test_a_folder_that_cannot_be_read_is_a_sentence_and_the_bundled_stars_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    folder = tmp_path / kind
    if kind == "empty":
        folder.mkdir()
    elif kind == "file":
        folder.write_text("x")
    monkeypatch.setenv("TRUELINE_FOLDER", str(folder))
    app = opened()
    assert not app.exception
    assert len(app.error) == 1
    assert kind in app.error[0].value
    assert figures(app) == 2


def test_a_folder_is_read_bad_files_are_named_and_a_new_file_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fresh: None
) -> None:
    shutil.copy(library.BUNDLED / f"{STARS[0]}.fits.gz", tmp_path)
    (tmp_path / "bad.fits").write_bytes(b"no")
    monkeypatch.setattr("sys.argv", ["main.py", "--folder", str(tmp_path)])
    app = opened()
    assert [key for key in app.session_state["catalogue"].stars if key.startswith("folder:")] == ["folder:SIM01"]
    assert app.session_state["catalogue"].stars["folder:SIM01"].truth is not None
    assert len(app.error) == 1
    assert "1 of 2 files" in app.error[0].value
    shutil.copy(library.BUNDLED / f"{STARS[1]}.fits.gz", tmp_path)
    assert len([key for key in app.run().session_state["catalogue"].stars if key.startswith("folder:")]) == 2
    app.switch_page("views/about.py").run()
    assert "bad.fits" in app.dataframe[0].value["file"][0]


def test_a_real_star_is_never_called_simulated(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for file in sorted((shared / "lamost").glob("*.fits.gz"))[5:8]:
        shutil.copy(file, tmp_path)
    monkeypatch.setenv("TRUELINE_FOLDER", str(tmp_path))
    app = opened()
    real = [key for key in app.session_state["catalogue"].stars if key.startswith("folder:")]
    assert len(real) == 3
    healthy(app.selectbox(key="star").set_value(real[0]).run())
    assert figures(app) == 2
    said = words(app)
    assert "OBSERVED" in said
    assert "truth unknown" in said
    assert "SIMULATED" not in said
    assert "rms" not in said
    assert "pipeline" in said


# ---------------------------------------------------------------------------------------------- answers and figures


def a_look(snr: float | None = 8.0, methods: list[str] = METHODS) -> Look:
    stars = resources.catalogue().stars
    return resources.look(stars[str(resources.default(stars))], snr, methods, 3)


def test_a_look_is_what_core_says_it_is() -> None:
    look = a_look()
    assert np.isclose(noise.snr(look.spectra)[0], 8.0, rtol=0.2)
    for answer in look.answers:
        expected = pipeline.reconstruct(look.spectra, answer.method, seed=3).mean[0]
        assert np.array_equal(answer.flux, expected)
        assert np.isclose(answer.chi2, np.nanmean(answer.residual**2))
        assert answer.low is None
        assert answer.rms is not None


class Drawing(Reconstructor):
    """A method that draws, as later ones do."""

    draws_differ = True

    def sample(self, observation: Observation, n: int, seed: int):
        return observation.y + observation.y.new_tensor(np.linspace(-0.1, 0.1, n))[:, None, None]


class Failing(Drawing):
    """A method that refuses."""

    def sample(self, observation: Observation, n: int, seed: int):
        raise ValueError("this star is not for me; choose another")


def test_a_new_method_appears_by_itself_with_its_band_and_a_failing_one_fails_alone(
    monkeypatch: pytest.MonkeyPatch, fresh: None
) -> None:
    monkeypatch.setitem(pipeline.METHODS, "brand_new", Drawing)
    monkeypatch.setitem(pipeline.METHODS, "failing", Failing)
    app = opened()
    assert not app.exception
    assert figures(app) == 2
    assert "brand\\_new" in words(app) or "brand_new" in words(app)
    assert "68 % band" in words(app)
    assert [e.value for e in app.error if "not for me" in e.value] == [app.error[0].value]
    assert len(app.error) == 1


def test_a_fault_of_ours_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr(charts, "spectrum", broken)
    app = opened()
    assert not app.exception
    assert "fault in Trueline" in app.error[0].value
    assert "secret" not in words(app)


def test_figures_draw_nothing_across_what_was_not_measured_and_hatch_it() -> None:
    look = a_look()
    dead = ~look.spectra.measured[0]
    assert dead.any()
    figure = charts.spectrum(look)
    names = {trace.name: trace for trace in figure.data}
    assert np.array_equal(np.isnan(names["observed ± 1σ"].y), dead)
    hatch = names["not measured"]
    left, right = np.array(hatch.x[::5], dtype=float), np.array(hatch.x[2::5], dtype=float)
    inside = ((look.spectra.wave[:, None] > left) & (look.spectra.wave[:, None] < right)).any(1)
    assert np.array_equal(inside, dead)
    assert hatch.fillpattern.shape == "/"


def test_figures_carry_full_axis_names_fixed_colours_and_no_unnamed_method() -> None:
    look = a_look()
    for air, medium in ((False, "vacuum"), (True, "air")):
        for figure in (charts.spectrum(look, air=air), charts.windows(look, air=air, dark=True)):
            titles = {axis.title.text for axis in [*figure.select_xaxes(), *figure.select_yaxes()]}
            assert f"Wavelength ({medium}) [Angstrom]" in titles
            assert "Flux / continuum" in titles
    shown = {trace.name: trace for trace in charts.spectrum(look).data if trace.showlegend}
    assert len([name for name in shown if "no error bar" in name]) == len(METHODS)
    looks = [(shown[f"{charts.style(m).name} (no error bar)"].line.color, charts.style(m).dash) for m in METHODS]
    assert len(set(looks)) == len(METHODS)
    assert charts.style("never seen").name == "never seen"


def test_only_residuals_beyond_two_sigma_are_coloured() -> None:
    for trace in charts.spectrum(a_look()).data:
        if trace.yaxis == "y2" and trace.mode == "markers":
            assert (np.abs(trace.y) > 2).all()


def test_outliers_do_not_set_the_scale() -> None:
    look = a_look()
    flux = look.spectra.flux.copy()
    flux[0, np.flatnonzero(look.spectra.measured[0])[::400]] = 500.0
    wild = replace(look, spectra=replace(look.spectra, flux=flux))
    assert charts.spectrum(wild).layout.yaxis.range[1] < 3


def test_a_star_without_methods_or_rv_or_with_a_band_draws() -> None:
    look = a_look()
    charts.windows(a_look(methods=[]))
    charts.spectrum(a_look(methods=[]))
    meta = look.spectra.meta.drop(columns="rv")
    charts.windows(replace(look, star=replace(look.star, among=replace(look.star.among, meta=pd.concat([meta] * len(
        look.star.among), ignore_index=True)))))
    flux = look.answers[0].flux
    wide = Answer("exact", flux, flux - 0.1, flux + 0.1, look.answers[0].residual, 1.0, 0.1)
    names = [trace.name for trace in charts.spectrum(replace(look, answers=(wide,))).data]
    assert "exact (68 % band)" in names


def test_the_csv_says_what_it_is_and_holds_what_is_shown(tmp_path: Path) -> None:
    look = a_look()
    text = look.csv()
    head = [line for line in text.splitlines() if line.startswith("#")]
    assert any("SIMULATED" in line for line in head)
    assert any("seed: 3" in line for line in head)
    assert any("without an uncertainty" in line and all(m in line for m in METHODS) for line in head)
    (tmp_path / look.file).write_text(text)
    table = pd.read_csv(tmp_path / look.file, comment="#")
    assert len(table) == look.spectra.wave.size
    assert table["flux"].isna().sum() == (~look.spectra.measured).sum()
    for column, expected in [("truth", look.star.truth), *((a.method, a.flux) for a in look.answers)]:
        assert np.allclose(table[column], expected, rtol=1e-5, atol=1e-6)
    assert np.allclose(table["wavelength_vacuum"], look.spectra.wave, rtol=1e-5)
