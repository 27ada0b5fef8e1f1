"""What is read off a star: the same numbers through a pipe and off the disk, under a name that tells all apart."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from app import frames
from core import believed, domain, findings, question, reading, report
from core.cache import Cache, packed, unpacked
from core.data import library
from core.reading import Found, Reading
from core.spectrum import Samples, Spectra


@pytest.fixture(scope="module")
def star() -> Spectra:
    return library.bundled()[0].select([4])


def draws(star: Spectra, method: str = "mixture") -> Samples:
    flux = np.where(star.measured, star.flux, 1.0)
    return Samples(star.wave, flux + np.linspace(-0.01, 0.01, 3)[:, None, None], method)


def through_the_pipe(asked: Reading, folder: Path) -> Found:
    """As the worker is asked and answers, and as the cache keeps it."""
    with (folder / "pipe").open("wb") as pipe:
        frames.write(pipe, *frames.of_question(asked))
    with (folder / "pipe").open("rb") as pipe:
        message = frames.read(pipe)
    assert message is not None
    again = frames.to_question(*message)
    assert isinstance(again, Reading)
    assert again.key == asked.key
    with (folder / "pipe").open("wb") as pipe:
        frames.write(pipe, *frames.of_answer(findings.find(again)))
    with (folder / "pipe").open("rb") as pipe:
        message = frames.read(pipe)
    assert message is not None
    answer = frames.to_answer(asked, *message)
    assert isinstance(answer, Found)
    store = Cache(folder / "cache")
    store.put(asked.key, answer)
    kept = store.get(asked.key)
    assert isinstance(kept, Found)
    assert kept.method == asked.method
    for name, array in answer.numbers.items():
        assert np.array_equal(kept.numbers[name], array)
        assert kept.numbers[name].dtype == np.float64
    return kept


@pytest.mark.parametrize("foreign", [False, True])
def test_a_kind_read_elsewhere_is_the_verdict_made_here(star: Spectra, tmp_path: Path, foreign: bool) -> None:
    flux = star.flux + (0.6 * np.exp(-0.5 * ((star.wave - 5500.0) / 12.0) ** 2) if foreign else 0.0)
    one = replace(star, flux=flux)
    found = findings.kind_of(through_the_pipe(Reading(one, "kind"), tmp_path))
    score, by = domain.score(one), believed.by_mixture(one)
    assert found.score == score
    assert bool(score.flags) == foreign
    assert found.by.label("teff") == by.label("teff")
    assert np.array_equal(found.by.variance, by.variance)
    answer = draws(one)
    assert np.array_equal(found.by.share(answer.spread[0]), believed.trust(answer, one)[0])


def test_labels_read_elsewhere_are_those_made_here(star: Spectra, tmp_path: Path) -> None:
    closed = through_the_pipe(Reading(star, "closed", 3), tmp_path).numbers["draws"]
    assert np.array_equal(closed, report.closed_form(star, len(closed), 3)[:, 0])
    asked = Reading(star, "labels", 3, draws(star))
    assert np.array_equal(through_the_pipe(asked, tmp_path).numbers["draws"],
                          report.labels_of(draws(star), star, seed=3)[:, 0])


def test_the_name_of_a_reading_changes_with_all_it_hangs_on(
    star: Spectra, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    other = draws(star)
    moved = Samples(other.wave, other.draws + 1e-6, other.method)
    some = [Reading(star, "kind"), Reading(star, "closed"), Reading(star, "closed", 1),
            Reading(replace(star, ivar=2 * star.ivar), "kind"), Reading(star, "labels", 0, draws(star)),
            Reading(star, "labels", 1, draws(star)), Reading(star, "labels", 0, draws(star, "exact")),
            Reading(star, "labels", 0, moved)]
    keys = {asked.key for asked in some}
    assert len(keys) == len(some)
    assert Reading(replace(star), "kind").key in keys
    monkeypatch.setattr(question.hashes, "FOLDER", tmp_path)
    assert not keys & {Reading(star, asked.method, 0, asked.samples).key for asked in some}, "no checkpoints there"
    monkeypatch.undo()
    monkeypatch.setattr(reading, "_code", lambda: "other code")
    assert Reading(star, "kind").key not in keys


def test_what_cannot_be_read_is_refused(star: Spectra) -> None:
    with pytest.raises(ValueError, match="ask for kind or closed or labels"):
        Reading(star, "colour")
    with pytest.raises(ValueError, match="give `samples`"):
        Reading(star, "labels")
    with pytest.raises(ValueError, match="leave out `samples`"):
        Reading(star, "kind", samples=draws(star))
    damaged = bytearray(packed(Found("kind", {"misfit": np.ones(400)})))
    damaged[-1] ^= 1
    with pytest.raises(ValueError, match="made anew"):
        unpacked(bytes(damaged))
