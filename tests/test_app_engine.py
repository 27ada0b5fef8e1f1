"""The page while answers are made elsewhere: what waits, what was seen last, what is cancelled, what is not there."""

from __future__ import annotations

import shutil
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_app import fresh, healthy, no_folder, opened, said, small, words

from app import crew, resources, state, visitors
from app.answers import Answers
from app.crew import Crashed, Job
from app.shown import Star
from core import checkpoint, networks
from core.cache import Cache, rounded
from core.data import hashes
from core.reading import Found, Reading
from core.spectrum import Samples

__all__ = ["fresh", "no_folder", "small"]  # fixtures
USUAL = dict(resources.DRAWS)  # which `small` makes fewer


class Later(crew.Inline):
    """A maker that makes when it is told to."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []

    def ask(self, job: Job) -> None:
        self.jobs.append(job)

    def make(self, job: Job, **origin: object) -> None:
        question = job.question
        if isinstance(question, Reading):
            job.end(read(question))
            return
        draws = question.spectra.flux + np.linspace(-0.1, 0.1, question.draws)[:, None, None]
        job.end(rounded(Samples(question.spectra.wave, draws, question.method, origin)))


def read(asked: Reading) -> Found:
    """Numbers of the right shapes, at once."""
    if asked.method == "kind":
        return Found("kind", {"misfit": np.array([0.5]), "flags": np.empty((0, 5)), "labels": np.arange(5.0),
                              "errors": np.ones(5), "variance": np.ones(asked.spectra.wave.size)})
    return Found(asked.method, {"draws": np.array([5800.0, 4.4, -0.1, 0.0, 5.0]) + np.linspace(-1, 1, 9)[:, None]})


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fresh: None) -> Later:
    """Answers come when the test says so, to a visitor who has not been here before."""
    store, maker = Answers(Cache(tmp_path / "cache")), Later()
    store.maker = maker
    monkeypatch.setattr(resources, "answers", lambda: store)
    monkeypatch.setattr(visitors, "_NOBODY", visitors.Visit("script"))
    return maker


def a_star() -> Star:
    stars = resources.catalogue().stars
    return stars[str(resources.default(stars))]


def look(*methods: str, snr: float = 9.0, star: Star | None = None) -> resources.Look:
    return resources.look(a_star() if star is None else star, snr, methods, 0, wait=False)


# ----------------------------------------------------------------------------------------------------- while it is made


def test_what_is_not_there_waits_and_what_was_seen_last_stands_in(later: Later) -> None:
    first = look("exact")
    assert not first.answers
    assert not first.stale
    (waiting,) = first.waiting
    assert (waiting.method, waiting.done, waiting.share, waiting.left) == ("exact", False, 0.0, None)
    assert waiting.words == "waits for its turn, then about 1 s"
    waiting.job.begun = time.monotonic() - 0.5
    assert waiting.words == f"{waiting.draws} draws, 1 s left"
    waiting.job.begun = time.monotonic() - 90.0
    assert "longer than usual, 90 s so far" in waiting.words
    waiting.job.begun, waiting.job.calls, waiting.job.steps = waiting.job.asked - 2.0, 4, 10
    assert waiting.share == 0.4
    assert 2.9 < (waiting.left or 0.0) < 60.0
    assert "4 of 10 calls" in waiting.words
    later.make(waiting.job)
    assert waiting.done
    (seen,) = look("exact").answers
    moved = look("exact", snr=8.0)
    assert moved.stale == (seen,)
    assert not look("exact", snr=8.0, star=replace(a_star(), key="another")).stale, "never another star's"
    later.make(moved.waiting[0].job)
    assert not look("exact", snr=8.0).stale
    assert not np.array_equal(look("exact", snr=8.0).answers[0].flux, seen.flux)


def test_a_slider_moved_on_cancels_what_it_left_unless_another_visitor_waits(
    later: Later, monkeypatch: pytest.MonkeyPatch
) -> None:
    resources.begin()
    look("exact", "mixture")
    resources.finish()
    mixture, exact = later.jobs
    other = visitors.Visit("other")
    with monkeypatch.context() as as_other:
        as_other.setattr(visitors, "visit", lambda: other)
        resources.begin()
        look("mixture")
        resources.finish()
    assert len(later.jobs) == 2, "they wait for the same"
    resources.begin()
    look("exact", snr=8.0)  # and this run is broken off by the next move of the slider
    resources.begin()
    look("exact", snr=7.0)
    resources.finish()
    assert exact.future.cancelled()
    assert later.jobs[2].future.cancelled()
    assert not mixture.future.done()
    assert not later.jobs[3].future.done()
    resources.answers().sweep(lambda who: who != "other")  # whose tab was closed
    assert mixture.future.cancelled()
    assert not later.jobs[3].future.done()


def test_what_was_cancelled_by_hand_is_not_asked_again_by_itself(later: Later) -> None:
    (waiting,) = look("exact").waiting
    resources.cancel(waiting)
    assert waiting.job.future.cancelled()
    after = look("exact")
    assert after.cancelled == ("exact",)
    assert not after.waiting
    assert not after.problems
    assert len(later.jobs) == 1
    assert look("exact", snr=8.0).waiting, "another question is another matter"
    resources.again("exact")
    assert look("exact").waiting
    assert not look("exact").cancelled


def test_the_page_shows_progress_cancels_and_asks_again(later: Later) -> None:
    app = healthy(opened(methods="exact"))
    assert len(app.get("progress")) == 1
    assert not said(app)
    assert "The first answer is being made" in words(app)
    healthy(app.button(key="cancel_exact").click().run())
    assert not app.get("progress")
    assert later.jobs[0].future.cancelled()
    assert "All answers were cancelled; ask again below" in words(app)
    assert "No method chosen" not in words(app), "one is"
    healthy(app.button(key="again_exact").click().run())
    assert len(app.get("progress")) == 1
    later.make(later.jobs[1])
    healthy(app.run())
    assert "68 % band" in words(app)
    assert len(app.get("progress")) == 1, "and what kind of star it is"
    assert "not yet known" in words(app)
    healthy(app.button(key="cancel_kind").click().run())
    assert "domain and trust: cancelled" in app.button(key="again_kind").label
    healthy(app.button(key="again_kind").click().run())
    later.make(later.jobs[-1])
    healthy(app.run())
    assert not app.get("progress")
    assert "inside, misfit +0.5 σ" in words(app)


def test_labels_are_read_while_the_page_is_whole_and_stand_as_they_come(later: Later) -> None:
    app = opened(methods="exact")
    later.make(later.jobs[0])
    app = healthy(app.switch_page("views/labels.py").run())
    wanted = {job.question.method: job for job in later.jobs[1:]}
    assert set(wanted) == {"kind", "labels", "closed"}
    assert not any(job.future.cancelled() for job in later.jobs)
    assert len(app.get("progress")) == 3
    assert "they stand here as they come" in words(app)
    later.make(wanted["closed"])
    healthy(app.run())
    assert app.dataframe[0].value.index[0] == "mixture, closed form"
    assert "exact" not in app.dataframe[0].value.index
    assert "Domain not known yet" in words(app)
    wanted["kind"].end(None, Crashed("the process that makes answers died at it and was started anew"))
    later.make(wanted["labels"])
    app.run()
    assert not app.exception
    assert "No answer about domain and trust: the process that makes answers died" in said(app)
    assert list(app.dataframe[0].value.index)[:2] == ["exact", "mixture, closed form"]
    assert not app.get("progress")


def test_what_a_method_was_not_made_for_is_a_sentence_on_the_page_and_in_the_file(later: Later) -> None:
    app = healthy(opened(methods="supervised,exact"))
    for job in list(later.jobs):
        later.make(job, **({"warnings": ["outside the noise, not to be trusted."]} if job.question.method != "exact"
                           else {}))
    assert not said(app)
    assert "supervised: outside the noise, not to be trusted." in said(healthy(app.run()))
    assert "exact: outside" not in said(app)
    assert "uncalibrated band" in words(app)
    assert "not calibrated: supervised · undertrained here: supervised" in words(app)
    shown = look("supervised", "exact", star=resources.catalogue().stars[app.selectbox(key="star").value])
    assert "# supervised: outside the noise, not to be trusted.\n" in shown.csv()
    healthy(app.multiselect(key="methods").set_value(["exact"]).run())
    assert not said(app)
    assert "undertrained" not in words(app)


def test_why_there_is_no_answer_is_what_happened(later: Later) -> None:
    app = opened(methods="exact,mixture")
    later.jobs[0].end(None, ValueError("this star is not for me"))
    app.run()
    assert "The first answer is being made" in words(app)
    app.button(key="cancel_exact").click().run()
    assert "All answers were cancelled or failed; ask again below" in words(app)
    healthy(app.multiselect(key="methods").set_value([]).run())
    assert "No method chosen; add one" in words(app)
    app.multiselect(key="methods").set_value(["mixture"]).run()
    assert "No chosen method has an answer; why is said above" in words(app)
    assert "not for me" in said(app)


def test_a_crash_is_a_sentence_and_the_rest_goes_on(later: Later) -> None:
    look("exact", "mixture")
    later.jobs[0].end(None, Crashed("the process that makes answers died at it and was started anew"))
    later.make(later.jobs[1])
    shown = look("exact", "mixture")
    assert [answer.method for answer in shown.answers] in (["exact"], ["mixture"])
    assert len(shown.problems) == 1
    assert "died at it" in shown.problems[0]
    assert shown.problems[0].count(". ") == 0


# ------------------------------------------------------------------------------------------------------ what is asked


def test_draws_asked_for_by_hand_are_fewer_where_a_method_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "DRAWS", USUAL)
    spectra = a_star().spectra
    for method, draws, expected in (("exact", None, 32), ("mmps", None, 8), ("exact", 64, 64), ("mmps", 64, 16),
                                    ("supervised", None, 8),
                                    ("dps", 4, 2), ("exact", 2, 2)):
        assert resources.question_of(spectra, method, 0, draws=draws).draws == expected


def test_spectra_with_a_line_put_in_by_hand_are_shown_and_asked_about(later: Later) -> None:
    plain = look("exact")
    flux = plain.spectra.flux.copy()
    flux[0, 2000:2004] -= 0.5
    changed = resources.look(a_star(), 9.0, ["exact"], 0, wait=False, spectra=replace(plain.spectra, flux=flux))
    assert np.array_equal(changed.spectra.flux, flux)
    assert changed.snr == 9.0
    assert changed.waiting[0].job is not plain.waiting[0].job


def test_the_strength_of_dps_is_the_pipelines_own() -> None:
    from inspect import signature

    assert resources.strength() == signature(networks.dps).parameters["strength"].default


def test_first_views_of_bundled_stars_are_made_beforehand_and_then_need_nobody(later: Later) -> None:
    stars = [star for star in resources.catalogue().stars.values() if star.source == "Simulated"]
    resources.prepare(stars, resources.answers())
    usual = state.usual(resources.methods())
    assert len(later.jobs) == len(stars) * (len(usual) + 1), "each method, and what kind of star it is"
    assert min(job.rank for job in later.jobs) >= crew.worker.BACKGROUND
    for job in later.jobs:
        later.make(job)
        resources.answers().keep(job.question, job.future.result())
    count = len(later.jobs)
    shown = resources.look(a_star(), state.FIRST_SNR, usual, 0, wait=False)
    assert [answer.method for answer in shown.answers] == list(usual)
    assert len(later.jobs) == count
    taken, limit, folder, entries = resources.cache_state()
    assert 0 < taken < limit
    assert entries == count
    assert folder.is_dir()
    resources.clear_cache()
    assert resources.cache_state()[3] == 0
    assert resources.look(a_star(), state.FIRST_SNR, usual, 0, wait=False).waiting


# --------------------------------------------------------------------------------------------------- what is not there


@pytest.mark.parametrize("harm", ["missing", "changed"])
def test_a_checkpoint_missing_or_damaged_is_a_sentence_and_other_methods_go_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fresh: None, harm: str
) -> None:
    for file in checkpoint.FOLDER.iterdir():
        if file.stem in ("denoiser", "mixture", "ddpm", "SHA256SUMS"):
            shutil.copy(file, tmp_path)
    weights = tmp_path / "denoiser.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x00")
    if harm == "missing":
        weights.unlink()
    before = resources.question_of(a_star().spectra, "exact", 0).key
    monkeypatch.setattr(checkpoint, "FOLDER", tmp_path)
    monkeypatch.setattr(hashes, "FOLDER", tmp_path)
    networks.denoiser.cache_clear()
    try:
        app = opened(methods="wavelet,exact")
        assert not app.exception
        assert not app.error
        for part in ("No answer from exact", "denoiser", "cannot be read" if harm == "missing" else "hash"):
            assert part in said(app)
        assert "No answer from wavelet" not in said(app)
        assert "no error bar" in words(app), "the wavelet is there"
        assert "Traceback" not in words(app)
        assert resources.question_of(a_star().spectra, "exact", 0).key != before
    finally:
        networks.denoiser.cache_clear()


def test_a_cache_folder_that_cannot_be_used_is_a_sentence_and_the_page_is_whole(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fresh: None
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TRUELINE_CACHE", str(tmp_path / "file" / "cache"))
    app = healthy(opened(methods="wavelet"))
    assert "Answers are not kept" in said(app)
    assert "no error bar" in words(app)
