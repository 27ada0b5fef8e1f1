"""The server's side of the worker: it is started, told questions, listened to, and started anew when it dies."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import RLock, Thread
from typing import Any, Protocol

from app import frames, worker
from core.question import weights
from core.reading import Found
from core.spectrum import Samples

ROOT = Path(__file__).resolve().parent.parent
#: of methods that take long: seconds of the usual number of draws on two cores, until this server knows
SECONDS = {"mixture": 0.5, "exact": 4.0, "supervised": 6.0, "supervised_ivar": 6.0, "supervised_mixture": 6.0,
           "dps": 20.0, "pigdm": 9.0, "mmps": 50.0, "kind": 2.0, "closed": 0.5, "labels": 3.0}
_DEATHS, _WITHIN = 3, 60.0  # so many in so many seconds, and what was asked is given up

TURN, LOADING = "waits for its turn", "waits for the networks to be loaded"
COMMAND = (sys.executable, "-m", "app.worker")
#: threads that wait for each other must not spin: where page and browser want the cores too, spinning took four times
#: the sampling itself
ENVIRONMENT = {"OMP_WAIT_POLICY": "PASSIVE"}


class Crashed(RuntimeError):  # noqa: N818 (a name that says what happened)
    """The process that makes answers died, or failed by a fault of ours."""


@dataclass(eq=False)
class Job:
    """A question that was handed over.

    Args:
        question: which; future: its answer, Samples of a Question and Found of a Reading.
        seconds: that such a question took last.
        asked: time.monotonic() when it was handed over; begun: when it began, None before.
        calls, steps: of the sampler, done and in all; 0 of 0 before it has said so.
        rank: what has a lower one goes first.
        ended: time.monotonic() when it was done, or failed.
        idle: why it has not begun, in words.
    """

    question: frames.Asked
    seconds: float = 1.0
    rank: int = 0
    future: Future[Any] = field(default_factory=Future)
    asked: float = field(default_factory=time.monotonic)
    begun: float | None = None
    calls: int = 0
    steps: int = 0
    ended: float | None = None
    idle: str = TURN

    def end(self, answer: Samples | Found | None, error: BaseException | None = None) -> None:
        """Done, failed, or, with neither, cancelled; the first of these counts."""
        self.ended = self.ended or time.monotonic()
        with suppress(InvalidStateError):
            if error is not None:
                self.future.set_exception(error)
            elif answer is not None:
                self.future.set_result(answer)
            else:
                self.future.cancel()


class Maker(Protocol):
    """Who makes answers."""

    def ask(self, job: Job) -> None:
        """Begin it."""

    def cancel(self, job: Job) -> None:
        """Nobody wants it any longer."""

    def promote(self, job: Job, rank: int) -> None:
        """It is more urgent than it was."""

    def wake(self) -> None:
        """A page is shown: begin, where that was waited for."""

    def quiet(self, seconds: float) -> None:
        """A page is used: for so long make nothing that nobody waits for."""


class Inline:
    """Makes answers at once, in the thread that asks: where no process is wanted (TRUELINE_WORKER=0)."""

    def ask(self, job: Job) -> None:
        job.begun = time.monotonic()
        try:
            job.end(worker.made(job.question))
        except Exception as error:
            job.end(None, error)

    def cancel(self, job: Job) -> None:
        job.end(None)

    def promote(self, job: Job, rank: int) -> None:
        job.rank = rank

    def wake(self) -> None:
        pass

    def quiet(self, seconds: float) -> None:
        pass


class Worker:
    """Makes answers in a process of its own.

    Args:
        kept: told each question and its answer, before whoever asked.
        command: what starts it.
        warm: methods whose networks it loads at its start.
        late: the process is started by `wake` or `start`, and not by the first question: it loads PyTorch, and the
            first page wants the cores.
    """

    def __init__(self, kept: Callable[[frames.Asked, Samples | Found], None], command: Sequence[str] = COMMAND,
                 warm: Sequence[str] = worker.WARM, late: bool = False) -> None:
        self.kept, self.command, self.warm = kept, list(command), tuple(warm)
        self.seconds = dict(SECONDS)
        self._lock, self._numbers = RLock(), itertools.count()
        self._jobs: dict[int, Job] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self._weights: dict[str, str] = {}  # what its networks were loaded from
        self._deaths: list[float] = []
        self._ready, self._late = False, late

    @property
    def pid(self) -> int | None:
        """Of the process, None where there is none."""
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Start it now, rather than at the first question.

        Raises:
            OSError: it cannot be started.
        """
        with self._lock:
            if self._process is not None:
                return
            self._weights = {file: digest for method in self.warm for file, digest in weights(method).items()}
            process = subprocess.Popen(self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT,
                                       env=ENVIRONMENT | os.environ)
            self._process, self._ready, self._late = process, False, False
            Thread(target=self._listen, args=(process,), daemon=True).start()

    def ask(self, job: Job) -> None:
        job.seconds = self.seconds.get(job.question.method, 0.2)
        with self._lock:
            self._jobs[next(self._numbers)] = job
            if self._late:
                job.idle = LOADING
            else:
                self._hand_over(job)

    def wake(self) -> None:
        with self._lock:
            if not self._late:
                return
            self._late = False
            try:
                self.start()
                self._send_all()
            except OSError as error:  # as in `_hand_over`
                if self._process is None:
                    self._give_up(f"it cannot be started ({error})")

    def quiet(self, seconds: float) -> None:
        with suppress(OSError):
            self._write({"quiet": seconds})

    def _hand_over(self, job: Job) -> None:
        """Tell the process of a job, a new one where its networks are not those on disk any longer."""
        needed = job.question.needs
        try:
            if any(self._weights.get(file, digest) != digest for file, digest in needed.items()):
                self._end()
                self.start()
                self._send_all()
            else:
                self.start()
                self._send(job)
            self._weights |= needed
        except OSError as error:  # it died just now, and will be told again; or cannot be started at all
            if self._process is None:
                self._give_up(f"it cannot be started ({error})")

    def _number(self, job: Job) -> int | None:
        return next((number for number, other in self._jobs.items() if other is job), None)

    def _send(self, job: Job) -> None:
        head, arrays = frames.of_question(job.question)
        job.begun, job.calls, job.steps = None, 0, 0
        job.idle = TURN if self._ready else LOADING
        self._write({"ask": self._number(job), "rank": job.rank, **head}, arrays)

    def _send_all(self) -> None:
        self._jobs = {number: job for number, job in self._jobs.items() if not job.future.done()}
        for job in self._jobs.values():
            self._send(job)

    def _write(self, head: frames.Head, arrays: frames.Arrays | None = None) -> None:
        with self._lock:
            if self._process is not None and self._process.stdin is not None:
                frames.write(self._process.stdin, head, arrays)

    def cancel(self, job: Job) -> None:
        with self._lock, suppress(OSError):
            job.end(None)
            if (number := self._number(job)) is not None:
                self._write({"number": number, "cancel": True})

    def promote(self, job: Job, rank: int) -> None:
        with self._lock, suppress(OSError):
            job.rank = rank
            if (number := self._number(job)) is not None:
                self._write({"number": number, "rank": rank})

    def close(self) -> None:
        """End the process; what was asked is cancelled."""
        with self._lock:
            self._end()
            jobs, self._jobs = list(self._jobs.values()), {}
        for job in jobs:
            job.end(None)

    def _end(self) -> None:
        old = self._process
        self._process = None
        if old is not None:
            old.kill()
            old.wait()

    # ------------------------------------------------------------------------------------------------ what it says

    def _listen(self, process: subprocess.Popen[bytes]) -> None:
        stream = process.stdout
        while stream is not None and (message := frames.read(stream)) is not None:
            try:
                self._hear(*message)
            except Exception:  # a fault of ours in one answer must not end the listening
                traceback.print_exc()
        process.wait()
        with self._lock:
            if process is self._process:
                self._process = None
                self._mourn()

    def _hear(self, head: frames.Head, arrays: frames.Arrays) -> None:
        if "progress" in head:
            if (job := self._jobs.get(head["progress"])) is not None:
                job.begun = job.begun or time.monotonic()
                job.calls, job.steps = head["calls"], head["steps"]
            return
        if "ready" in head:
            with self._lock:
                self._ready = True
                for job in self._jobs.values():
                    job.idle = TURN
            return
        ending = next((word for word in ("done", "refused", "failed", "cancelled") if word in head), None)
        if ending is None:
            return
        with self._lock:
            found = self._jobs.pop(head[ending], None)
        if found is not None:
            self._settle(found, ending, head, arrays)

    def _settle(self, job: Job, ending: str, head: frames.Head, arrays: frames.Arrays) -> None:
        if ending == "done":
            question = job.question
            answer = frames.to_answer(question, head, arrays)
            if job.begun is not None and job.rank < worker.BACKGROUND:
                self.seconds[question.method] = time.monotonic() - job.begun
            self.kept(question, answer)
            job.end(answer)
        elif ending == "refused":
            job.end(None, ValueError(head["why"]))
        elif ending == "failed":
            job.end(None, Crashed(f"it failed ({head['why']}), which is a fault in Trueline; the terminal of the "
                                  "server says more"))
        else:
            job.end(None)

    def _mourn(self) -> None:
        """It died: what it was at is given up, lest it dies of it again; the rest is asked anew."""
        now = time.monotonic()
        self._deaths = [at for at in self._deaths if now - at < _WITHIN] + [now]
        if len(self._deaths) >= _DEATHS:
            self._give_up("the process that makes answers died again and again")
            return
        begun = [(job.begun, number) for number, job in self._jobs.items() if job.begun is not None]
        if begun:  # of several the last to begin: the others were waiting for it
            self._jobs.pop(max(begun)[1]).end(None, Crashed("the process that makes answers died at it and was started "
                                                            "anew"))
        try:
            self.start()
            self._send_all()
        except OSError as error:
            self._give_up(f"it cannot be started ({error})")

    def _give_up(self, why: str) -> None:
        jobs, self._jobs = list(self._jobs.values()), {}
        for job in jobs:
            job.end(None, Crashed(why))
