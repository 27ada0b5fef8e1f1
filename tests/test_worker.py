"""The process that samples: it says how far it is, lets go, takes turns, dies with the server and is started anew."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from app import crew, frames
from app.answers import Answers
from app.crew import Crashed, Job, Worker
from core import question
from core.cache import Cache, packed, unpacked
from core.question import Question
from core.reading import Reading
from core.spectrum import Kernel, Spectra

ROOT = Path(__file__).resolve().parent.parent
TOYS = (sys.executable, "-m", "tests.toy_worker")
LONG = {"steps": 400, "pause": 0.05}  # 20 s, unless it is cancelled


def star(value: float = 1.0) -> Spectra:
    flux = np.full((1, 30), value)
    return Spectra(np.linspace(4000.0, 5000.0, 30), flux, np.ones_like(flux), np.ones_like(flux),
                   pd.DataFrame({"star": ["A"]}), Kernel((0.9, 0.8), (0.1, 0.2)), np.ones((1, 30)))


def until(true: Callable[[], object], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never came to be"
        time.sleep(0.01)


@pytest.fixture(scope="module")
def one() -> Iterator[Worker]:
    """One worker for all tests: its start takes seconds."""
    worker = Worker(lambda *_: None, TOYS)
    yield worker
    worker.close()


def asked(worker: Worker, method: str, value: float = 1.0, rank: int = 0, draws: int = 3, seed: int = 0,
          **settings: float) -> Job:
    job = Job(Question(star(value), method, draws, seed, settings), rank=rank)
    worker.ask(job)
    return job


# -------------------------------------------------------------------------------------------------------- messages


def test_a_question_comes_through_the_pipe_as_it_was(tmp_path: Path) -> None:
    first = Question(star(1.25), "exact", 7, 3, {"calls": 9})
    with (tmp_path / "pipe").open("wb") as pipe:
        frames.write(pipe, *frames.of_question(first))
        frames.write(pipe, {"number": 1})
    with (tmp_path / "pipe").open("rb") as pipe:
        message = frames.read(pipe)
        assert message is not None
        again = frames.to_question(*message)
        assert frames.read(pipe) == ({"number": 1}, {})
        assert frames.read(pipe) is None
    assert again.key == first.key
    assert (again.method, again.draws, again.seed, again.settings) == ("exact", 7, 3, {"calls": 9})
    (tmp_path / "pipe").write_bytes((tmp_path / "pipe").read_bytes()[:-1])
    with (tmp_path / "pipe").open("rb") as pipe:
        frames.read(pipe)
        assert frames.read(pipe) is None, "half a message is none"


# ---------------------------------------------------------------------------------------------------- one at a time


def test_an_answer_comes_with_progress_on_the_way(one: Worker) -> None:
    job = asked(one, "exact", 2.0, seed=4, steps=8, pause=0.15)
    heard: set[tuple[int, int]] = set()
    until(lambda: heard.add((job.calls, job.steps)) or job.future.done())
    assert {steps for _, steps in heard} == {0, 8}
    assert len(heard) >= 5, heard
    assert job.begun is not None
    samples = job.future.result()
    assert samples.method == "exact"
    assert np.allclose(samples.draws[:, 0, 0], 6 + np.linspace(0, 0.1, 3), atol=1e-6)
    assert samples.origin["seed"] == 4
    assert np.array_equal(samples.draws, samples.draws.astype(np.float32)), "rounded, as a cached one is"
    assert one.seconds["exact"] >= 1.2, "and it is known now how long it takes"


def test_a_warning_travels_with_its_draws_and_is_kept_with_them(one: Worker) -> None:
    warned, other = (asked(one, name).future.result(30.0) for name in ("supervised", "savgol"))
    assert warned.origin["warnings"] == ["this star is not as those that I know."]
    assert unpacked(packed(warned)).origin["warnings"] == warned.origin["warnings"]
    assert "warnings" not in other.origin


def test_a_refusal_is_its_sentence_and_a_fault_is_not_told_in_full(one: Worker) -> None:
    with pytest.raises(ValueError, match="not for me; choose another"):
        asked(one, "wavelet").future.result(30)
    with pytest.raises(Crashed, match="fault in Trueline") as error:
        asked(one, "pca").future.result(30)
    assert "secret" not in str(error.value)
    assert asked(one, "savgol").future.result(30).method == "savgol"


def test_what_is_quick_does_not_wait_for_what_is_slow(one: Worker) -> None:
    slow = asked(one, "mmps", rank=3, **LONG)
    until(lambda: slow.calls > 1)
    middle = asked(one, "exact", rank=2, **LONG)
    until(lambda: middle.calls > 1)
    begun = time.monotonic()
    assert asked(one, "savgol").future.result(30)
    assert time.monotonic() - begun < 3
    stood = slow.calls
    assert not middle.future.done()
    one.cancel(middle)
    until(lambda: slow.calls > stood + 2)  # and the slow one goes on where it was
    one.cancel(slow)


def test_what_is_cancelled_stops_and_the_next_begins(one: Worker) -> None:
    first, second = asked(one, "exact", rank=2, **LONG), asked(one, "exact", 3.0, rank=2, **LONG)
    third = asked(one, "exact", 4.0, rank=2)
    until(lambda: first.calls > 1)
    assert second.begun is None, "one at a time"
    one.cancel(second)
    one.cancel(first)
    with pytest.raises(CancelledError):
        first.future.result(0)
    begun = time.monotonic()
    third.future.result(30)
    assert time.monotonic() - begun < 5
    assert second.begun is None


def test_what_nobody_waited_for_can_become_urgent(one: Worker) -> None:
    begun = asked(one, "exact", rank=2, **LONG)
    until(lambda: begun.calls > 0)
    later = asked(one, "exact", 5.0, rank=12)
    time.sleep(0.2)
    assert later.begun is None
    one.promote(later, 1)
    later.future.result(30)
    assert not begun.future.done()
    one.cancel(begun)


def test_what_nobody_waits_for_stands_still_while_a_page_is_used(one: Worker) -> None:
    background = asked(one, "exact", 6.0, rank=12, **LONG)
    until(lambda: background.calls > 1)
    one.quiet(1.5)
    time.sleep(0.3)
    stood, later = background.calls, asked(one, "exact", 7.0, rank=12)
    assert asked(one, "savgol").future.result(30), "what somebody waits for is made meanwhile"
    assert background.calls == stood
    assert later.begun is None
    until(lambda: background.calls > stood + 2)
    one.quiet(60.0)
    one.cancel(background)
    one.promote(later, 1)
    assert later.future.result(30), "somebody waits for it now"
    one.quiet(0.0)


def test_a_late_worker_starts_when_a_page_is_shown_and_then_makes_what_was_asked() -> None:
    worker = Worker(lambda *_: None, TOYS, late=True)
    job, gone = asked(worker, "savgol"), asked(worker, "exact")
    worker.cancel(gone)
    assert worker.pid is None
    assert job.idle == crew.LOADING
    worker.wake()
    assert job.future.result(60).method == "savgol"
    pid = worker.pid
    worker.wake()
    assert asked(worker, "savgol", 2.0).future.result(30)
    assert worker.pid == pid
    worker.close()
    missing = Worker(lambda *_: None, ("/no/such/python",), late=True)
    job = asked(missing, "exact")
    missing.wake()
    with pytest.raises(Crashed, match="cannot be started"):
        job.future.result(5)


# ------------------------------------------------------------------------------------------------------ life and death


def test_a_worker_that_dies_is_a_sentence_and_the_rest_is_asked_anew(one: Worker) -> None:
    slow = asked(one, "mmps", rank=3, steps=40, pause=0.05)
    until(lambda: slow.calls > 1)
    pid = one.pid
    with pytest.raises(Crashed, match="died at it"):
        asked(one, "wiener").future.result(60)
    assert slow.future.result(60).method == "mmps", "it was not at fault, and is made from the beginning"
    assert one.pid not in (None, pid)
    os.kill(int(one.pid or 0), signal.SIGKILL)
    assert asked(one, "savgol").future.result(60), "nobody was at fault"


def test_a_worker_that_dies_again_and_again_is_not_asked_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    worker = Worker(lambda *_: None, (sys.executable, "-c", "raise SystemExit(3)"))
    job = asked(worker, "exact")
    with pytest.raises(Crashed, match="again and again"):
        job.future.result(30)
    worker.close()
    missing = Worker(lambda *_: None, ("/no/such/python",))
    with pytest.raises(Crashed, match="cannot be started"):
        asked(missing, "exact").future.result(5)


def test_other_weights_on_disk_are_other_networks(
    one: Worker, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("mixture", "denoiser"):
        for ending in ("safetensors", "json"):
            (tmp_path / f"{name}.{ending}").write_text("{}")
    monkeypatch.setattr(question.hashes, "FOLDER", tmp_path)
    monkeypatch.setattr(one, "_weights", {})
    asked(one, "exact").future.result(60)
    pid = one.pid
    asked(one, "exact").future.result(60)
    assert one.pid == pid
    (tmp_path / "denoiser.safetensors").write_text("trained for longer")
    asked(one, "savgol").future.result(60)
    assert one.pid == pid, "what does not hang on it is not disturbed"
    asked(one, "exact").future.result(60)
    assert one.pid != pid


_SERVER = """
import sys, time
from app.crew import Worker
worker = Worker(lambda *_: None, [sys.executable, "-m", "tests.toy_worker"])
worker.start()
print(worker.pid, flush=True)
time.sleep(60)
"""


def test_the_worker_dies_with_the_server_however_that_ends() -> None:
    with subprocess.Popen([sys.executable, "-c", _SERVER], cwd=ROOT, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        pid = int(server.stdout.readline())
        assert alive(pid)
        server.kill()
    until(lambda: not alive(pid))


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


# --------------------------------------------------------------------------------------------------- visitors together


@pytest.fixture
def shared_answers(one: Worker, tmp_path: Path) -> Answers:
    store = Answers(Cache(tmp_path / "cache"))
    one.kept, store.maker = store.keep, one
    return store


def test_visitors_share_what_they_ask_and_get_it_from_disk_after_a_restart(
    shared_answers: Answers, tmp_path: Path
) -> None:
    ask = Question(star(), "exact", 3, 0)
    job = shared_answers.ask(ask, "one")
    assert shared_answers.ask(Question(star(), "exact", 3, 0), "two") is job
    fresh = job.future.result(30)
    assert shared_answers.ask(ask, "three") is job
    assert shared_answers.cache.state()[3] == 1
    later = Answers(Cache(tmp_path / "cache"))  # and nobody to make anything
    kept = later.ask(ask, "four").future.result(0)
    assert np.array_equal(kept.draws, fresh.draws)
    with pytest.raises(RuntimeError, match="nobody"):
        later.ask(Question(star(), "exact", 3, 1), "four")
    shared_answers.clear()
    assert shared_answers.ask(ask, "one") is not job


def test_what_is_read_off_a_star_is_made_there_kept_and_refused_like_draws(
    shared_answers: Answers, tmp_path: Path
) -> None:
    found = shared_answers.ask(Reading(star(2.0), "closed"), "one").future.result(30)
    assert np.array_equal(found.numbers["draws"], star(2.0).flux)
    assert found.numbers["none"].shape == (0, 5)
    later = Answers(Cache(tmp_path / "cache"))  # and nobody to make anything
    kept = later.ask(Reading(star(2.0), "closed"), "two").future.result(0)
    assert np.array_equal(kept.numbers["draws"], found.numbers["draws"])
    with pytest.raises(ValueError, match="cannot be read; choose another"):
        shared_answers.ask(Reading(star(-1.0), "kind"), "one").future.result(30)


def test_a_question_ends_when_the_last_visitor_leaves_and_leaves_nothing_behind(shared_answers: Answers) -> None:
    ask = Question(star(), "exact", 3, 0, LONG)
    job = shared_answers.ask(ask, "one")
    shared_answers.ask(ask, "two")
    until(lambda: job.calls > 0)
    shared_answers.leave(ask.key, "one")
    assert not job.future.done(), "another still waits for it"
    shared_answers.sweep(lambda who: who != "two")  # whose tab was closed
    assert job.future.cancelled()
    quick = shared_answers.ask(Question(star(), "savgol"), "three")
    assert quick.future.result(30)
    assert shared_answers.cache.get(ask.key) is None, "nothing is kept that is not whole"
    again = shared_answers.ask(ask, "three")
    assert again is not job
    shared_answers.leave(ask.key, "three")


def test_the_supervised_methods_go_behind_the_exact_posterior(shared_answers: Answers) -> None:
    slow = {"steps": 30, "pause": 0.05}
    asked = {method: shared_answers.ask(Question(star(), method, 3, 0, slow), "one")
             for method in ("supervised", "mixture", "exact", "dncnn", "mmps", "wavelet")}
    for job in asked.values():
        shared_answers.maker.cancel(job)
    ranks = {method: job.rank for method, job in asked.items()}
    assert ranks == {"wavelet": 0, "mixture": 1, "dncnn": 1, "exact": 2, "supervised": 3, "mmps": 3}


def test_what_the_server_asks_by_itself_is_cancelled_by_nobody_and_comes_last(shared_answers: Answers) -> None:
    ask = Question(star(), "exact", 3, 0, {"steps": 30, "pause": 0.05})
    background = shared_answers.ask(ask, "")
    assert shared_answers.ask(ask, "one").rank == crew.worker.RANK["exact"], "unless somebody waits for it"
    shared_answers.leave(ask.key, "one")
    shared_answers.sweep(lambda who: False)
    assert background.future.result(30)


def test_a_refusal_is_kept_and_a_crash_for_a_minute(shared_answers: Answers, monkeypatch: pytest.MonkeyPatch) -> None:
    refused = shared_answers.ask(Question(star(), "wavelet"), "one")
    crashed = shared_answers.ask(Question(star(), "pca"), "one")
    until(lambda: refused.future.done() and crashed.future.done())
    assert shared_answers.ask(Question(star(), "wavelet"), "one") is refused
    assert shared_answers.ask(Question(star(), "pca"), "one") is crashed, "lest a page asks it for ever"
    monkeypatch.setattr("app.answers._GRACE", 0.0)
    assert shared_answers.ask(Question(star(), "pca"), "one") is not crashed
    assert shared_answers.ask(Question(star(), "wavelet"), "one") is refused


def test_old_answers_make_room(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("app.answers.KEPT", 3)
    monkeypatch.setenv("TRUELINE_CACHE", str(tmp_path))
    store = Answers(Cache())

    class Instant(crew.Inline):
        def ask(self, job: Job) -> None:
            job.end(crew.Samples(job.question.spectra.wave, np.ones((1, 1, 30)), job.question.method))

    store.maker = Instant()
    jobs = [store.ask(Question(star(), "savgol", seed=seed), "one") for seed in range(9)]
    assert len(store._jobs) <= 4
    assert store.ask(Question(star(), "savgol", seed=8), "one") is jobs[8]
