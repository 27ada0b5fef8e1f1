"""Stars and answers, made once and kept: the only door from the page to core.pipeline."""

from __future__ import annotations

import hashlib
import os
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import CancelledError
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import streamlit as st

from app import state, visitors
from app.answers import Answers
from app.catalogue import Catalogue as Catalogue
from app.catalogue import catalogue as catalogue
from app.catalogue import default as default
from app.catalogue import folders as folders
from app.crew import Crashed, Inline, Job, Worker
from app.frames import Asked
from app.shown import Answer, Look, Star, Waiting, called
from app.styles import shifted
from app.summary import answer_of
from core.cache import Cache
from core.data import noise
from core.metrics import fidelity
from core.question import Question
from core.question import methods as known
from core.reading import Found, Reading
from core.spectrum import Array, Spectra

#: of each method unless asked otherwise; a filter repeats its one answer, so the page need not know which is which
DRAWS = {"other": 32, "supervised": 8, "supervised_ivar": 8, "supervised_mixture": 8, "dps": 8, "pigdm": 8, "mmps": 8}
DPS_STEPS = 50  #: of 1000
STRENGTH = 0.03  #: core.pipeline.dps's own, without loading it
_FEW = 4  # times fewer draws of what takes long, and at least two
_SUMMARIES = 96  # answers in memory
_QUIET = 5.0  # seconds after a run of a page in which nothing is made that nobody waits for
_APART = 0.5  # seconds between one star and the next that are prepared


def _inline() -> bool:
    """True where answers are made by the page itself (TRUELINE_WORKER=0) and not by a process beside it."""
    return os.environ.get("TRUELINE_WORKER", "1") == "0"


def methods() -> tuple[str, ...]:
    """The names of all methods, in the order of core.pipeline."""
    if _inline():
        from core import pipeline  # here: a page whose answers are kept does without PyTorch

        return tuple(pipeline.METHODS)
    return known()


@st.cache_resource(show_spinner=False)
def answers() -> Answers:
    """The one store of draws that all visitors share, with the process that makes them."""
    store = Answers(Cache())
    if _inline():
        store.maker = Inline()
        return store
    store.maker = Worker(store.keep, late=True)
    store.watch(visitors.here)
    return store


@st.cache_resource(show_spinner=False)
def _summaries() -> OrderedDict[tuple[str, str], Answer]:
    return OrderedDict()


def strength() -> float:
    """The guidance strength that DPS has unless told otherwise."""
    return STRENGTH


def _view(lines: fidelity.Mask, reference: Array | None) -> str:
    """A name for what an answer is compared with."""
    digest = hashlib.sha256(np.packbits(lines).tobytes())
    if reference is not None:
        digest.update(np.ascontiguousarray(reference).tobytes())
    return digest.hexdigest()


def _summary(question: Question, lines: fidelity.Mask, reference: Array | None, view: str, job: Job) -> Answer:
    """What the page shows of a finished job.

    Raises:
        ValueError: the method refused, or its draws ran away.
        Crashed: the process that makes answers died at it.
        CancelledError: everybody left.
    """
    samples, known, name = job.future.result(), _summaries(), (question.key, view)
    answer = known.get(name) or answer_of(samples, question, lines, reference)
    known[name] = answer
    while len(known) > _SUMMARIES:
        known.popitem(last=False)
    return answer


def question_of(spectra: Spectra, method: str, seed: int, guidance: float | None = None,
                draws: int | None = None) -> Question:
    """What a view asks of a method.

    Args:
        guidance: strength of DPS; draws: asked for by hand, a quarter of them (at least 2) where a method takes long.
    """
    number = DRAWS.get(method, DRAWS["other"])
    if draws is not None:
        number = max(draws // _FEW, 2) if method in DRAWS else draws
    settings: dict[str, float] = {}
    if method == "dps":
        settings = {"strength": strength() if guidance is None else guidance, "steps": DPS_STEPS}
    return Question(spectra, method, number, seed, settings)


@dataclass
class _Round:
    """What was asked for one look, and what came of it beside answers: who is waited for, what is said."""

    wait: bool
    waiting: list[Waiting] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def ask(self, name: str, question: Asked, taken: Callable[[Job], Any]) -> Any:
        """What `taken` makes of the finished job; None, and noted why, where there is none."""
        store, visit = answers(), visitors.visit()
        if question.key in visit.cancelled:
            self.cancelled.append(name)
            return None
        job = store.ask(question, visit.who)
        visit.asked.add(question.key)
        waiting = Waiting(name, question.draws if isinstance(question, Question) else 0, job)
        missing = f"No answer {'about' if isinstance(question, Reading) else 'from'} {called(name)}"
        if not self.wait and not job.future.done():
            self.waiting.append(waiting)
            return None
        try:
            return taken(job)
        except ValueError as error:
            self.problems.append(f"{missing}: {error}")
        except Crashed as error:
            self.problems.append(f"{missing}: {error}; choose another star or S/N, and come back in a minute.")
        except CancelledError:  # by everybody else, just now
            self.waiting.append(waiting)
        except BaseException:
            store.forget(question.key)  # a fault, not an answer: made anew the next time
            raise
        return None


def look(star: Star, snr: float | None, chosen: Iterable[str], seed: int, guidance: float | None = None,
         wait: bool = True, draws: int | None = None, spectra: Spectra | None = None) -> Look:
    """One star at an S/N_g (None: as observed) with the chosen methods' answers; what fails is said, not raised.

    Args:
        star: whose spectrum; seed: of the added noise and of the draws.
        chosen: names of methods.
        guidance: strength of DPS, None: the usual one.
        wait: for answers that are not there yet; else they are begun, and named in the look's `waiting`.
        draws: of each method, see `question_of`; None: as many as usual.
        spectra: one row, shown and asked about in place of the star's own at that S/N: with a line put in by hand.
    """
    problems: list[str] = []
    observed, shown, own = star.spectra, star.own, None
    if snr is not None:
        try:
            degraded = noise.degrade(observed, snr, seed)
        except ValueError as error:
            problems.append(f"Shown as observed: {error}")
        else:
            if star.truth is None:  # what it was before is the nearest to a reference that a real star has
                own = np.where(observed.measured[0], observed.flux[0], np.nan)
            observed, shown = degraded, snr
    spectra = observed if spectra is None else spectra
    lines = fidelity.in_windows(spectra.wave, shifted(star.velocity))
    reference = own if star.truth is None else star.truth
    visit, view, one = visitors.visit(), _view(lines, reference), _Round(wait, problems=problems)
    found: list[Answer] = []
    for method in (name for name in methods() if name in chosen):
        question = question_of(spectra, method, seed, guidance, draws)
        answer = one.ask(method, question, partial(_summary, question, lines, reference, view))
        if answer is not None:
            found.append(answer)
            problems += [f"{called(method)}: {warning}" for warning in answer.warnings]
    if answers().cache.problem:
        problems.append(answers().cache.problem)
    stale = tuple(old for wanted in one.waiting if (old := visit.last.get((star.key, wanted.method))) is not None)
    visit.saw(star.key, found)
    return Look(star, spectra, fidelity.error(spectra)[0], shown, float(noise.snr(spectra)[0]), lines, seed,
                tuple(found), tuple(problems), own, tuple(one.waiting), stale, tuple(one.cancelled))


def read(look: Look, asked: Mapping[str, Reading]) -> tuple[Look, dict[str, Found]]:
    """What can be read off a star beside its methods' answers, as far as it is there; the page never waits for it.

    Args:
        look: of the star; asked: by the name of what is wanted (app.shown.READINGS, OF).

    Returns:
        the look, with what is waited for, was cancelled or went wrong; and what is there, by name.
    """
    one = _Round(wait=False)
    there = {name: one.ask(name, reading, lambda job: job.future.result()) for name, reading in asked.items()}
    more = replace(look, waiting=(*look.waiting, *one.waiting), cancelled=(*look.cancelled, *one.cancelled),
                   problems=(*look.problems, *one.problems))
    return more, {name: found for name, found in there.items() if found is not None}


# ------------------------------------------------------------------------------------- who waits, and what is kept


def begin() -> None:
    """A run of the page begins."""
    visitors.visit().begin()
    _used()


def _used() -> None:
    if (maker := answers().maker) is not None:
        maker.quiet(_QUIET)


def wake() -> None:
    """A run of the page ended, or was broken off: what was asked is begun, by a process that starts with the first."""
    if (maker := answers().maker) is not None:
        maker.wake()


def finish() -> None:
    """A run of the page ended: what it did not ask for any longer is cancelled, unless another visitor wants it."""
    visit = visitors.visit()
    for key in visit.left():
        answers().leave(key, visit.who)
    _used()
    if not _inline():
        _prepared()


@st.cache_resource(show_spinner=False)
def _prepared() -> Thread:
    """Once a server, after its first page: the bundled stars' first views are made when nothing else is to do."""
    stars = [star for star in catalogue().stars.values() if star.source == "Simulated"]
    thread = Thread(target=prepare, args=(stars, answers(), _APART), daemon=True)
    thread.start()
    return thread


def prepare(stars: Iterable[Star], store: Answers, apart: float = 0.0) -> None:
    """Ask for what a first visit to each of these stars shows; what is kept on disk already costs nothing.

    Args:
        apart: seconds between one star and the next: the page's thread shares the interpreter with this one.
    """
    for star in stars:
        time.sleep(apart)
        snr = state.FIRST_SNR if star.own > state.FIRST_SNR else None
        spectra = star.spectra if snr is None else noise.degrade(star.spectra, snr, 0)
        for method in state.usual(methods()):
            if not store.cache.has((question := question_of(spectra, method, 0)).key):
                store.ask(question, "")
        if not store.cache.has((reading := Reading(spectra, "kind")).key):
            store.ask(reading, "")


def cancel(waiting: Waiting) -> None:
    """This visitor does not want the answer; it is not asked for again until `again`."""
    visit, key = visitors.visit(), waiting.job.question.key
    visit.cancelled[key] = waiting.method
    visit.asked.discard(key)
    answers().leave(key, visit.who)


def again(method: str) -> None:
    """This visitor wants the method's answers after all."""
    visit = visitors.visit()
    visit.cancelled = {key: other for key, other in visit.cancelled.items() if other != method}


def cache_state() -> tuple[int, int, Path, int]:
    """Of the kept answers: bytes taken, bytes allowed, the folder, and how many."""
    return answers().cache.state()


def clear_cache() -> None:
    """Forget every answer, in memory and on disk."""
    answers().clear()
    _summaries().clear()
