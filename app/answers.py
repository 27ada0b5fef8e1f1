"""Answers by what was asked: in memory, on disk, or being made; for all visitors at once, each of whom may leave."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from threading import RLock, Thread

from app.crew import Crashed, Job, Maker
from app.frames import Asked
from app.worker import BACKGROUND, RANK, SLOW
from core.cache import Cache
from core.reading import Found
from core.spectrum import Samples

KEPT = 48  #: finished questions in memory; of 32 draws each takes 1 MB
_GRACE = 60.0  # seconds until a question that a process died of is asked again
_SWEEP = 1.0  # seconds between looks for visitors that left


class Answers:
    """Answers by question.

    A question is made once, whoever asks for it, and as long as anybody wants it. A refusal is kept too. Whoever gets
    an answer must not write into it.

    Args:
        cache: where answers are kept beyond this server's life.
    """

    def __init__(self, cache: Cache) -> None:
        self.cache = cache
        self.maker: Maker | None = None
        self._jobs: OrderedDict[str, Job] = OrderedDict()
        self._wanted: dict[str, set[str]] = {}  # of what is being made: by whom
        self._lock = RLock()

    def keep(self, question: Asked, answer: Samples | Found) -> None:
        """An answer was made: on disk first, then on the page."""
        self.cache.put(question.key, answer)

    def ask(self, question: Asked, who: str) -> Job:
        """The job of a question: done where it was answered before, else begun.

        Args:
            who: wants it; "" for nobody in particular: it is made when nothing else is to do.
        """
        key, rank = question.key, RANK.get(question.method, SLOW) + (0 if who else BACKGROUND)
        with self._lock:
            if (job := self._known(key)) is not None:
                if not job.future.done():
                    self._wanted[key].add(who)
                    if rank < job.rank and self.maker is not None:
                        self.maker.promote(job, rank)
                return job
        if (answer := self.cache.get(key)) is not None:
            job = Job(question)
            job.end(answer)
            return self._remember(key, job)
        if self.maker is None:
            raise RuntimeError("nobody is here to make answers; give Answers a maker first.")
        with self._lock:
            if (known := self._known(key)) is not None:  # another visitor was quicker
                self._wanted.setdefault(key, set()).add(who)
                return known
            job = self._remember(key, Job(question, rank=rank))
            self._wanted[key] = {who}
            self.maker.ask(job)
            return job

    def _known(self, key: str) -> Job | None:
        job = self._jobs.get(key)
        if job is None:
            return None
        if job.future.done():
            gone = time.monotonic() - (job.ended or 0.0)
            if job.future.cancelled() or (isinstance(job.future.exception(), Crashed) and gone > _GRACE):
                del self._jobs[key]
                return None
            self._wanted.pop(key, None)
        self._jobs.move_to_end(key)
        return job

    def _remember(self, key: str, job: Job) -> Job:
        with self._lock:
            self._jobs[key] = job
            done = [old for old, other in self._jobs.items() if other.future.done()]
            for old in done[: max(0, len(self._jobs) - KEPT)]:
                del self._jobs[old]
                self._wanted.pop(old, None)
        return job

    def leave(self, key: str, who: str) -> None:
        """Somebody does not want it any longer; what nobody wants is cancelled."""
        with self._lock:
            wanted, job = self._wanted.get(key, set()), self._jobs.get(key)
            wanted.discard(who)
            if job is None or job.future.done() or wanted or self.maker is None:
                return
            self._wanted.pop(key, None)
            self.maker.cancel(job)

    def forget(self, key: str) -> None:
        """Have it made anew when it is asked for again: after a crash."""
        with self._lock:
            if (job := self._jobs.get(key)) is not None and job.future.done():
                del self._jobs[key]

    def clear(self) -> None:
        """Forget every answer, in memory and on disk."""
        with self._lock:
            for key in [key for key, job in self._jobs.items() if job.future.done()]:
                del self._jobs[key]
        self.cache.clear()

    def sweep(self, here: Callable[[str], bool]) -> None:
        """Visitors that are not here any longer want nothing."""
        with self._lock:
            waiting = [(key, who) for key, whoever in self._wanted.items() for who in whoever if who]
        for key, who in waiting:
            if not here(who):
                self.leave(key, who)

    def watch(self, here: Callable[[str], bool]) -> None:
        """Sweep every second, beside the page, for as long as the server lives."""

        def forever() -> None:
            while True:
                time.sleep(_SWEEP)
                self.sweep(here)

        Thread(target=forever, daemon=True).start()
