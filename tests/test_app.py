"""The dashboard as its server runs it: what a first visit shows, every bundled star; and helpers for its kin."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from app import charts_star, first, resources, state
from app.styles import style
from core import pipeline
from core.data import library
from core.models.conditioning import Linear, Measured
from core.models.observation import Observation, Reconstructor
from core.models.posterior import DPS, check_stars
from core.question import OPTIONAL, UNCALIBRATED, UNDERTRAINED

ROOT = Path(__file__).resolve().parent.parent
STARS = sorted(file.name.removesuffix(".fits.gz") for file in library.BUNDLED.glob("*.fits.gz"))
METHODS = list(pipeline.METHODS)


@pytest.fixture(autouse=True)
def no_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRUELINE_FOLDER", raising=False)
    monkeypatch.setattr("sys.argv", ["main.py"])


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two draws of everything, in few steps: what is tested is the page."""
    monkeypatch.setattr(resources, "DRAWS", {"other": 2})
    monkeypatch.setattr(resources, "DPS_STEPS", 20)
    for name in ("pigdm", "mmps"):
        monkeypatch.setitem(pipeline.METHODS, name, partial(pipeline.METHODS[name], calls=14))  # with 8 they run away


@pytest.fixture
def fresh() -> Iterator[None]:
    st.cache_resource.clear()
    yield
    st.cache_resource.clear()


def opened(**query: str) -> AppTest:
    app = AppTest.from_file(str(ROOT / "app/main.py"), default_timeout=240)
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
    assert not [w for w in said(app).split("- ") if w.startswith("No answer")], said(app)
    return app


def said(app: AppTest) -> str:
    """What went wrong, as the page says it: in one place, whatever the number of sentences."""
    boxes = [str(w.value) for w in app.warning]
    boxes += [" ".join([e.label, *(str(m.value) for m in e.markdown)]) for e in app.expander]
    assert len(boxes) <= 1, boxes
    return "".join(boxes).replace("\\", "")


def figures(app: AppTest) -> int:
    return len(app.get("plotly_chart"))


# -------------------------------------------------------------------------------------------------- what a visitor sees


def test_a_first_visit_shows_a_simulated_star_at_low_snr_with_the_exact_posterior() -> None:
    app = healthy(opened())
    assert figures(app) == 2
    assert not said(app)
    assert app.multiselect(key="methods").value == list(state.usual(METHODS))
    assert "exact" in app.multiselect(key="methods").value
    there = set(state.LATER) - set(OPTIONAL)
    assert there < set(METHODS), "which take long or repeat what is shown, and are still to be had"
    assert app.select_slider(key="snr").value == state.FIRST_SNR
    spoken = words(app)
    assert "SIMULATED" in spoken
    assert "truth known" in spoken
    assert "OBSERVED" not in spoken
    assert "2011" not in spoken, "what is measured on real spectra is not said of a simulated one"
    assert "uncalibrated band" in spoken, "a rival that is half trained must not look like a posterior"
    assert spoken.count("68 % band") >= 2
    assert "1 is necessary, not sufficient" in spoken
    assert "Line put in" in spoken, "the star of a first visit holds a line that no prior has"
    assert app.session_state["star"] == first.star(app.session_state["catalogue"].stars)
    for told in ("Domain", "Teff", "flag"):
        assert told in spoken


def test_every_bundled_star_opens_and_is_called_simulated() -> None:
    app = opened()
    options = [key for key in app.session_state["catalogue"].stars if key.startswith("simulated:")]
    assert len(options) == len(STARS) > 0
    for key, method in zip(options, METHODS * len(options), strict=False):
        app.selectbox(key="star").set_value(key)
        app.multiselect(key="methods").set_value([method])
        app.run()
        assert figures(app) == 2
        assert "SIMULATED" in words(app)
        if method in ("pigdm", "mmps") and "ran away" in said(app):  # so few calls may: it is said, and not shown
            continue
        healthy(app)
        assert "rms" in words(app)
        assert app.query_params["star"] == key
        assert app.query_params["methods"] == method
        assert (f"not calibrated: {style(method).name}" in words(app)) == (method in UNCALIBRATED)
        assert (f"undertrained here: {style(method).name}" in words(app)) == (method in UNDERTRAINED)


def test_the_snr_slider_degrades_and_the_url_follows() -> None:
    app = healthy(opened(snr="own"))
    assert app.select_slider(key="snr").value == state.OWN
    healthy(app.select_slider(key="snr").set_value(5.0).run())
    assert app.query_params["snr"] == "5"
    assert "→ 5" in words(app)  # and, where it differs, what that measures


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
    for name in ("**exact**", "**DPS**", "**PiGDM**", "**MMPS**", "calibrated at no strength", "undertrained"):
        assert name in words(app)
    assert app.query_params["snr"] == "5"


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
    # the mixture stays: it says whether the star is of a known kind; a table of its own, for order would not come back
    monkeypatch.setattr(pipeline, "METHODS", {"mixture": pipeline.METHODS["mixture"], "brand_new": Drawing,
                                              "failing": Failing})
    app = opened()
    assert not app.exception
    assert figures(app) == 2
    assert "brand\\_new" in words(app) or "brand_new" in words(app)
    assert "68 % band" in words(app)
    assert said(app).count("not for me") == 1


class Guided(Drawing):
    """A sampler with a strength, which runs away at a large one."""

    def __init__(self, strength: float = 0.03, steps: int = 100) -> None:
        self.strength = strength

    def sample(self, observation: Observation, n: int, seed: int):
        drawn = super().sample(observation, n, seed) * (50.0 if self.strength > 0.1 else 1.0)
        check_stars(drawn, Measured.of(observation, Linear.same(drawn.shape[2]), drawn.dtype), DPS.remedy)
        return drawn


@pytest.fixture
def guided(monkeypatch: pytest.MonkeyPatch, fresh: None) -> None:
    monkeypatch.setitem(pipeline.METHODS, "dps", Guided)


def strengths(app: AppTest) -> list[float]:
    return [slider.value for slider in app.select_slider if slider.key == "strength"]


def test_the_strength_is_there_only_beside_dps_and_in_the_link(guided: None) -> None:
    app = healthy(opened(methods="wavelet"))
    assert not strengths(app)
    healthy(app.multiselect(key="methods").set_value(["wavelet", "dps"]).run())
    assert strengths(app) == [resources.strength()]
    assert "strength" not in app.query_params
    healthy(app.select_slider(key="strength").set_value(0.01).run())
    assert app.query_params["strength"] == "0.01"
    healthy(app.multiselect(key="methods").set_value(["wavelet"]).run())
    assert not strengths(app)
    assert "strength" not in app.query_params
    healthy(app.multiselect(key="methods").set_value(["dps"]).run())
    assert strengths(app) == [0.01], "the slider remembers what was wanted"


def test_a_strength_from_a_link_is_a_step_of_the_slider(guided: None) -> None:
    app = healthy(opened(methods="dps", strength="0.0123"))
    assert strengths(app) == [0.0123]
    assert app.query_params["strength"] == "0.0123"
    assert not said(app)
    assert not said(healthy(opened(methods="wavelet", strength="banana"))), "nobody is asked for it"


def test_draws_that_ran_away_are_a_sentence_and_no_curve(guided: None) -> None:
    app = opened(methods="wavelet,dps", strength="0.3")
    assert not app.exception
    assert "DPS: the draws ran away" in said(app)
    assert "smaller strength" in said(app)
    assert "uncalibrated" not in words(app)
    assert "uncalibrated band" in words(healthy(app.select_slider(key="strength").set_value(0.03).run()))


def test_a_fault_of_ours_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr(charts_star, "spectrum", broken)
    app = opened()
    assert not app.exception
    assert "fault in Trueline" in app.error[0].value
    assert "secret" not in words(app)


