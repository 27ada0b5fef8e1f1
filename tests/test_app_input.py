"""What strangers hand the dashboard: links, uploads, folders; each bad one is a sentence, and the star stays."""

from __future__ import annotations

import gzip
import math
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from streamlit.testing.v1 import AppTest
from test_app import METHODS, STARS, figures, fresh, healthy, no_folder, opened, said, small, words

from app import first, picker, resources, state
from core.data import library

__all__ = ["fresh", "no_folder", "small"]  # fixtures


# ------------------------------------------------------------------------------------------------- nonsense from a URL


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ({"star": "../../etc/passwd"}, "star that is not here"),
        ({"star": "<script>alert(1)</script>"}, "star that is not here"),
        ({"star": "upload:0123456789ab"}, "upload it again"),
        ({"snr": "banana"}, "not a number"),
        ({"snr": "nan"}, "not a number"),
        ({"snr": "-5"}, "it is 9"),
        ({"snr": "1e400"}, "not a number"),
        ({"snr": "99999"}, "as observed"),
        ({"methods": "magic"}, "does not have"),
        ({"methods": "noisy,noisy,magic"}, "does not have"),
        ({"methods": ""}, "does not have"),
        ({"seed": "-1"}, "not a whole number"),
        ({"seed": "9" * 4000}, "not a whole number"),
        ({"seed": "²"}, "not a whole number"),
        ({"wave": "water"}, "neither vacuum nor air"),
        ({"frame": "mine"}, "neither observed nor rest"),
        ({"draws": "1000000000"}, "none of 8, 16"),
        ({"draws": "nan"}, "none of 8, 16"),
        ({"methods": "dps", "strength": "banana"}, "0 to 10"),
        ({"methods": "dps", "strength": "nan"}, "0 to 10"),
        ({"methods": "dps", "strength": "-1"}, "0 to 10"),
        ({"methods": "dps", "strength": "1e400"}, "0 to 10"),
    ],
)
def test_nonsense_in_the_url_is_a_sentence_and_the_page_is_whole(query: dict[str, str], sentence: str) -> None:
    app = healthy(opened(**query))
    assert figures(app) == 2
    assert sentence in said(app)
    assert "script>" not in said(app)
    app.number_input(key="seed").set_value(3)
    assert not said(healthy(app.run())), "the sentence goes once something else was chosen"


def test_a_link_wrong_all_over_takes_one_line() -> None:
    app = healthy(opened(star="x", snr="nan", methods="magic", seed="-1", wave="water"))
    assert not app.warning
    assert len(app.expander) == 1
    assert "(and 4 more)" in app.expander[0].label
    assert app.select_slider(key="snr").value == state.FIRST_SNR
    for part in ("not here", "not a number", "does not have", "whole number", "neither vacuum"):
        assert part in said(app)


def test_parameters_of_others_do_no_harm() -> None:
    app = healthy(opened(utm_source="mail"))
    assert not said(app)
    assert "utm_source" not in app.query_params


def test_a_link_opens_what_it_was_made_from() -> None:
    stars = resources.catalogue().stars
    for choice in (
        state.Choice(next(iter(stars)), None, (), 5, True),
        state.Choice(resources.default(stars), 12.25, (METHODS[-1],), 0, False),
        state.Choice(resources.default(stars), None, ("dps",), 0, False, 0.02),
        state.Choice(resources.default(stars), 9.0, ("mixture",), 3, True, None, 128, True),
    ):
        again, said = state.parse(state.query(choice), stars, METHODS, resources.default(stars))
        assert again == choice
        assert not said


def test_a_choice_that_streamlit_forgot_on_the_way_to_a_page_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    stars = resources.catalogue().stars
    written = state.query(state.Choice("simulated:SIM02", 8.0, ("wavelet",), 3, True, None, 64))
    for kept in ({}, {"star": "simulated:SIM02"}):
        session: dict[str, object] = {state._WRITTEN: written, "wanted": 8.0, "guidance": None, **kept}
        fake = SimpleNamespace(session_state=session, query_params=SimpleNamespace(to_dict=dict))
        monkeypatch.setattr(state, "st", fake)
        state.begin(stars, METHODS, None)
        assert (session["star"], session["snr"], session["methods"]) == ("simulated:SIM02", 8.0, ["wavelet"])
        assert (session["seed"], session["air"], session["draws"]) == (3, True, 64)


def test_the_first_visit_has_the_supervised_method_where_there_is_one_else_a_filter() -> None:
    without = [name for name in METHODS if name != state.LEARNED]
    assert state.usual(without) == ("wavelet", "mixture", "exact")
    assert set(state.usual([*without, state.LEARNED])) == {"supervised", "mixture", "exact"}


def test_the_first_star_is_the_one_with_a_line_put_in_or_ones_own() -> None:
    from dataclasses import replace as changed

    stars = resources.catalogue().stars
    key = first.star(stars)
    assert first.planted(stars[key]) == 6301.0
    assert "put in" in stars[key].facts["designation"]
    assert sum(math.isfinite(first.planted(star)) for star in stars.values()) == 1
    others = {name: star for name, star in stars.items() if name != key}
    assert first.star(others) == resources.default(others)
    meta = stars[key].among.meta.assign(origin="observed")
    real = changed(stars[key], key="folder:1", source="Folder", among=changed(stars[key].among, meta=meta), truth=None)
    assert math.isnan(first.planted(real)), "a header of a real file claims nothing"
    assert first.star(stars | {"folder:1": real}) == "folder:1"
    assert first.star({}) is None


def test_filters_leave_the_stars_that_meet_all_of_them() -> None:
    stars = resources.catalogue().stars
    assert picker.kept(stars, [], [], [], 0, math.inf) == list(stars)
    cool = picker.kept(stars, ["K", "M"], [], [], 0, math.inf)
    assert cool
    assert all(stars[key].facts["subclass"][0] in "KM" for key in cool)
    some = picker.kept(stars, ["K", "M"], ["Simulated"], ["Trueline"], 0, 15)
    assert set(some) < set(cool)
    assert all(stars[key].own <= 15 for key in some)
    assert not picker.kept(stars, [], ["Folder"], [], 0, math.inf)


def test_a_star_that_a_filter_hides_stays_while_it_is_shown() -> None:
    app = opened(methods="noisy", snr="own")
    shown = app.session_state["star"]
    app.multiselect(key="only_types").set_value(["M"])
    healthy(app.run())
    assert app.session_state["star"] == shown
    assert len(app.selectbox(key="star").options) == 2


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
        ("table.csv", b"wavelength,flux\n4000,1\n"),
        ("picture", b"\x89PNG\r\n\x1a\n"),
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
    healthy(app)
    assert name in said(app)
    assert "Traceback" not in words(app)
    assert all("](java" not in part.value for part in [*app.warning, *app.markdown])
    assert figures(app) == 2
    assert app.session_state["star"] == before
    assert app.select_slider(key="snr").set_value(6.0).run().query_params["snr"] == "6"


def test_a_good_upload_is_shown_at_once_beside_a_bad_one_and_leaves_with_its_file() -> None:
    app = upload(opened(), ("mine.fits.gz", bundled_bytes()), ("bad.fits", b"no"))
    assert "bad.fits" in said(app)
    assert app.session_state["star"].startswith("upload:")
    assert "SIMULATED" in words(app), "a simulated file says so also when uploaded"
    assert figures(app) == 2
    healthy(upload(app))
    assert app.session_state["star"].startswith("simulated:")


@pytest.mark.parametrize("view", ["star", "bias"])
def test_a_failed_upload_is_said_first_whatever_else_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, view: str
) -> None:
    monkeypatch.setenv("TRUELINE_FOLDER", str(tmp_path / "nowhere"))
    app = opened(star="simulated:nobody", seed="banana", methods="none")
    assert "The link" in said(app).split("(and")[0]
    assert "nowhere" in said(app)
    upload(app, ("bad.fits", b"no"))
    app.switch_page(f"views/{view}.py").run()
    first = said(app).split("(and")[0]
    assert "bad.fits" in first
    assert "The link" not in first


def test_many_bad_uploads_do_not_bury_the_page() -> None:
    app = upload(opened(), *[(f"{i}.fits", b"no %d" % i) for i in range(9)])
    assert "(and 8 more)" in app.expander[0].label
    assert said(app).count("is not a FITS file") == 10, "the first in the line, all in what it opens to"


def test_a_second_visitor_does_not_see_the_upload_of_the_first() -> None:
    upload(opened(), ("mine.fits.gz", bundled_bytes()))
    assert not [key for key in opened().session_state["catalogue"].stars if key.startswith("upload:")]


# ----------------------------------------------------------------------------------------------- folders named at start


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
    assert kind in said(healthy(app))
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
    assert "1 of 2 files" in said(app)
    shutil.copy(library.BUNDLED / f"{STARS[1]}.fits.gz", tmp_path)
    assert len([key for key in app.run().session_state["catalogue"].stars if key.startswith("folder:")]) == 2
    app.switch_page("views/about.py").run()
    refused = [frame.value for frame in app.dataframe if "file" in frame.value and "reason" in frame.value]
    assert "bad.fits" in refused[0]["file"][0]


def test_a_real_star_is_never_called_simulated(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for file in sorted((shared / "lamost").glob("*.fits.gz"))[5:8]:
        shutil.copy(file, tmp_path)
    monkeypatch.setenv("TRUELINE_FOLDER", str(tmp_path))
    app = healthy(opened(snr="own"))
    stars = app.session_state["catalogue"].stars
    real = [star for key, star in stars.items() if key.startswith("folder:")]
    assert len(real) == 3
    assert [star.own for star in real] == sorted((star.own for star in real), reverse=True)
    assert all(star.facts["subclass"] in star.label and star.facts["star"] in star.label for star in real)
    assert app.session_state["star"] == resources.default(stars)
    assert app.session_state["star"].startswith("folder:"), "a first look at one's own folder is at one's own star"
    spoken = words(app)
    for words_of_it in ("OBSERVED", "truth unknown", "(file ", "measured on one 2011 plate", "ivar mended"):
        assert words_of_it in spoken
    assert "SIMULATED" not in spoken
    assert "rms" not in spoken


def test_the_first_real_star_is_one_that_can_fall_and_is_still_good() -> None:
    from dataclasses import replace as changed

    bundled = next(iter(resources.catalogue().stars.values()))
    meta = bundled.among.meta.assign(origin="observed")
    real = changed(bundled, source="Folder", among=changed(bundled.among, meta=meta))
    def first(*own: float) -> str | None:
        return resources.default({f"folder:{n:g}": changed(real, key=f"folder:{n:g}", own=n) for n in own})
    assert first(5.0, 29.0, 38.0, 90.0) == "folder:29"
    assert first(5.0, 18.0, 90.0) == "folder:18"
    assert first(math.nan) is None or first(math.nan) == "folder:nan"
    assert resources.default({"a": bundled, "folder:7": changed(real, key="folder:7", own=7.0)}) == "folder:7"
    assert not state.parse({}, {"folder:7": changed(real, key="folder:7", own=7.0)}, METHODS, "folder:7")[0].snr


def test_lists_that_streamlit_forgot_are_taken_back_and_those_changed_by_hand_are_not() -> None:
    app = healthy(opened(methods="wavelet,savgol", draws="16"))
    star = app.session_state["star"]
    app.session_state["methods"], app.session_state["draws"] = [], state.DRAWS[0]  # as it was seen to forget
    healthy(app.run())
    assert app.session_state["choice"].methods == ("savgol", "wavelet")
    assert (app.session_state["star"], app.session_state["draws"]) == (star, 16)
    app.multiselect(key="methods").set_value([])  # the control: by hand, alone
    healthy(app.run())
    assert app.session_state["choice"].methods == ()
    app.multiselect(key="methods").set_value(["wavelet"])
    app.selectbox(key="draws").set_value(state.DRAWS[0])
    healthy(app.run())
    assert app.session_state["choice"].methods == ("wavelet",)
    assert app.session_state["choice"].draws == state.DRAWS[0]
