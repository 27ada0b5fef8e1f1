"""Page Audit: a line put in by hand is kept or flagged, nothing put in changes nothing, nonsense is said."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from app import audited, export, first, put_in, resources
from app.audited import Audited
from core import bundle
from core.figures import paper
from core.metrics.planted import ByHand

ROOT = Path(__file__).resolve().parent.parent
STAR = "simulated:SIM12"
STRONG = ByHand(6300.0, 25.0, "sigma", 6.0)  # five times what the filter needs, where no star has a line


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Answers made here and now, few draws, nothing kept from other tests."""
    monkeypatch.delenv("TRUELINE_FOLDER", raising=False)
    monkeypatch.setenv("TRUELINE_WORKER", "0")
    monkeypatch.setenv("TRUELINE_CACHE", str(tmp_path))
    monkeypatch.setattr("sys.argv", ["main.py"])
    monkeypatch.setattr(resources, "DRAWS", {"other": 4})
    st.cache_resource.clear()
    yield
    st.cache_resource.clear()


def opened(line: str | None, methods: str = "wavelet,mixture") -> AppTest:
    app = AppTest.from_file(str(ROOT / "app/main.py"), default_timeout=120)
    asked = {"star": STAR, "snr": "9", "methods": "none", "seed": "0"} | ({} if line is None else {"inject": line})
    for name, value in asked.items():
        app.query_params[name] = value
    app.run()
    app.multiselect(key="methods").set_value(methods.split(",") if methods else [])
    app.switch_page("views/audit.py").run()
    assert not app.exception, [e.value for e in app.exception]
    assert not app.error, [e.value for e in app.error]
    return app


def rows(app: AppTest) -> pd.DataFrame:
    return app.dataframe[0].value


def words(app: AppTest) -> str:
    return " ".join(str(part.value) for part in [*app.markdown, *app.caption, *app.warning, *app.info])


def put(line: ByHand, methods: tuple[str, ...] = ("wavelet", "mixture")) -> Audited:
    star = resources.catalogue().stars[STAR]
    plain = resources.look(star, 9.0, methods, 0)
    planted, refused = audited.put(plain.spectra, line)
    assert planted is not None, refused
    return audited.audited(plain, resources.look(star, 9.0, methods, 0, spectra=planted.spectra), planted)


# ------------------------------------------------------------------------------------------- what the methods do


def test_a_strong_line_that_no_star_has_is_kept_or_flagged_by_the_mixture_and_the_page_says_which() -> None:
    app = opened(STRONG.text)
    told = rows(app).loc["mixture"]
    assert "keeps it" in told["What it does"] or "is flagged" in told["What it does"]
    assert "25.0 σ" in words(app)
    assert "over 99 %" in words(app), "a filter would find it"
    assert len(app.get("plotly_chart")) == 2
    assert app.query_params["inject"] == STRONG.text, "the link holds the line"
    share = float(told["Share kept [%]"].split(" ± ")[0])
    assert f"{told['EW kept [Å]']}".startswith("+")
    assert 0 < share < 110


def test_nothing_put_in_changes_nothing() -> None:
    found = put(replace(STRONG, strength=0.0))
    for answer, before, v in zip(found.star.answers, found.without, found.verdicts, strict=True):
        assert np.array_equal(answer.draws, before), answer.method
        assert v.kept == 0
        assert v.flag is None
    assert found.limit < 0.02, "the filter finds nothing but its false alarms"
    app = opened(replace(STRONG, strength=0.0).text)
    assert set(rows(app)["What it does"]) == {"nothing to keep"}
    assert "the control" in words(app)
    strong = put(STRONG)
    assert not np.array_equal(strong.star.answers[1].draws, strong.without[1]), "a line is seen by the same comparison"


def test_a_method_that_copies_keeps_it_all_and_is_never_flagged() -> None:
    found = put(STRONG, ("noisy",))
    assert np.isclose(found.verdicts[0].share, 1.0)
    assert found.verdicts[0].flag is None
    assert found.verdicts[0].error is None


def test_emission_is_kept_or_flagged_as_emission() -> None:
    v = put(replace(STRONG, strength=-25.0)).verdicts[1]
    assert v.share >= audited.KEPT or (v.flag is not None and v.flag.strength < 0)


# ------------------------------------------------------------------------------------------- the page


@pytest.mark.parametrize(("line", "said"), [
    ("<script>", "cannot be put in"), ("6300,8,sigma,1e9", "cannot be put in"), ("2000,8,sigma,4", "lies outside"),
    ("7600,8,sigma,4", "were not measured"), ("", "cannot be put in"),
])
def test_a_link_with_nonsense_is_answered_in_a_sentence(line: str, said: str) -> None:
    app = opened(line, "wavelet")
    assert said in words(app).replace("\\", ""), words(app)
    assert len(app.get("plotly_chart")) >= 1, "the audit of many lines stays"


def test_a_line_typed_in_is_put_in_and_lands_in_the_link() -> None:
    app = opened(STRONG.text, "wavelet")
    app.number_input(key="put_in_wavelength").set_value(6700.0)
    app.segmented_control(key="put_in_sign").set_value("emission")
    app.selectbox(key="put_in_unit").set_value("depth")
    app.number_input(key="put_in_strength").set_value(0.5)
    next(b for b in app.button if b.label == "Put it in").click()
    app.run()
    assert app.query_params["inject"] == "6700,-0.5,depth,6"
    assert "**Emission** at 6700.0" in words(app)


def test_without_a_method_the_page_says_what_to_do() -> None:
    assert "add one in the bar" in words(opened(STRONG.text, ""))


def test_a_method_of_which_nothing_is_known_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audited.believed, "has_null", lambda method: method != "wavelet")
    said = words(opened(STRONG.text))
    assert "Of wavelet nothing is known" in said, said
    table = audited._lines()
    assert table is not None
    monkeypatch.setattr(audited, "_lines", lambda: table[table["method"] != "wavelet"])
    assert "Nothing is known at this S/N of wavelet" in words(opened(STRONG.text))


def test_a_committed_curve_of_exact_says_that_it_may_be_of_another_network() -> None:
    look = resources.look(resources.catalogue().stars[STAR], 9.0, (), 0)
    assert "exact was audited at S/N" in audited.curves(look, "put_in", ("mixture", "exact")).said
    assert "exact was audited" not in audited.curves(look, "put_in", ("mixture",)).said


def test_a_first_visit_has_a_line_put_in() -> None:
    app = opened(None, "wavelet")
    assert app.query_params["inject"] == put_in.FIRST.text
    assert "8.0 σ" in words(app)


def test_a_line_on_one_that_the_star_already_has_is_said_and_the_first_visit_s_is_not() -> None:
    stars = resources.catalogue().stars
    key = first.star(stars)
    assert key is not None
    star, at = stars[key], first.planted(stars[key])
    assert not audited.blend(star, put_in.FIRST)
    assert f"already has a line at {at:.0f} Å" in audited.blend(star, replace(STRONG, wavelength=at + 17.0))
    assert not audited.blend(star, replace(STRONG, wavelength=at + 19.0)), "three times a FWHM of 6 are 18"
    assert not audited.blend(stars[STAR], replace(STRONG, wavelength=at)), "another star has no such line"


# ------------------------------------------------------------------------------------------- export


def test_nothing_is_exported_before_a_button_is_pressed(monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(*_: object) -> bytes:
        raise AssertionError("made at a rerun")

    monkeypatch.setattr(bundle.Bundle, "zipped", asked)
    monkeypatch.setattr(paper, "encoded", asked)
    app = opened(STRONG.text, "wavelet")
    labels = [button.proto.label for button in app.get("download_button")]
    assert {"PDF", "SVG", "PNG", "The whole star (.zip)"} <= set(labels)
    assert "s. A script makes the same" in words(app), "how long it takes is said before"
    command = app.code[0].value
    assert "scripts.export core/data/stars/sim-12.fits.gz --snr 9" in command
    assert f"--line {STRONG.text}" in command
    look = resources.look(resources.catalogue().stars[STAR], 9.0, ("wavelet",), 0)
    with pytest.raises(AssertionError, match="made at a rerun"):
        export.figure(look, app.session_state["choice"], "AAS", None, "lines", "pdf", 1)
