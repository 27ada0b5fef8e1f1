"""The process that samples and reads: `python -m app.worker` takes questions by its standard input until it is closed.

PyTorch and the networks live here, once, and not in the server: threads would starve the page for the interpreter's
lock. One thing is made at a time. What is quick goes first, also before what has begun: a sampler that tells its
progress is a place where something quicker can be made in between.
"""

from __future__ import annotations

import math
import os
import signal
import sys
import threading
import time
import traceback
from dataclasses import dataclass, field
from functools import partial
from typing import Any, BinaryIO

from app import frames
from core import progress
from core.cache import rounded
from core.reading import Found, Reading
from core.spectrum import Samples

#: of a question: what has a lower one goes first; filters are there at once
RANK = {"noisy": 0, "savgol": 0, "wavelet": 0, "pca": 0, "wiener": 0, "mixture": 1, "dncnn": 1, "dncnn_blind": 1,
        "exact": 2, "kind": 1, "closed": 1, "labels": 1}
SLOW = 3  #: rank of every other method
BACKGROUND = 10  #: rank of what nobody waits for
WARM = ("mixture", "exact")  #: methods that are loaded before anybody asks
_APART = 0.1  # seconds between two reports of one question


def made(question: frames.Asked) -> Samples | Found:
    """The answer, in this process; the same number for number as a cached one.

    Raises:
        ValueError: the method refuses, its draws ran away, or the star is none that can be read.
    """
    if isinstance(question, Reading):
        from core import findings

        return findings.find(question)
    from core import pipeline  # here: the server, which reads this file too, does without PyTorch

    return rounded(pipeline.reconstruct(question.spectra, question.method, question.draws, question.seed,
                                        **question.settings))


@dataclass
class _Asked:
    number: int
    rank: int
    question: frames.Asked = field(repr=False)
    cancelled: bool = False
    told: float = 0.0
    steps: int = 0


class Desk:
    """Questions that wait, and the answering of them, most urgent first.

    Args:
        out: where messages go.
    """

    def __init__(self, out: BinaryIO) -> None:
        self.out = out
        self._asked: dict[int, _Asked] = {}  # those that wait, those that are being made
        self._begun: set[int] = set()
        self._news = threading.Condition()
        self._quiet = 0.0  # time.monotonic() until which nothing is made that nobody waits for
        self._writing = threading.Lock()

    def tell(self, arrays: frames.Arrays | None = None, **head: Any) -> None:
        """Send a message."""
        with self._writing:
            frames.write(self.out, head, arrays)

    def take(self, head: frames.Head, arrays: frames.Arrays) -> None:
        """Note a message: a question, another rank of one, that one is not wanted any longer, or that a page is used.

        Then what nobody waits for stands still for so many seconds: the page has the cores to itself.
        """
        with self._news:
            if "quiet" in head:
                self._quiet = time.monotonic() + head["quiet"]
            elif "ask" in head:
                number = head["ask"]
                self._asked[number] = _Asked(number, head["rank"], frames.to_question(head, arrays))
            elif (asked := self._asked.get(head["number"])) is not None:
                asked.rank = head.get("rank", asked.rank)
                asked.cancelled |= bool(head.get("cancel"))
            self._news.notify()

    def _waiting(self, below: float = math.inf) -> list[_Asked]:
        """Those that have not begun and may, of a rank lower than `below`."""
        below = min(below, BACKGROUND) if time.monotonic() < self._quiet else below
        return [asked for number, asked in self._asked.items() if number not in self._begun and asked.rank < below]

    def next(self, below: float = math.inf) -> _Asked | None:
        """The most urgent question that has not begun, of a rank lower than `below`."""
        with self._news:
            if not (waiting := self._waiting(below)):
                return None
            best = min(waiting, key=lambda asked: (asked.rank, asked.number))
            self._begun.add(best.number)
            return best

    def rest(self) -> None:
        """Until there is news."""
        with self._news:
            while not self._waiting():
                left = self._quiet - time.monotonic()
                self._news.wait(left if left > 0 else None)

    def _stands(self, asked: _Asked) -> bool:
        """Wait where nobody waits for it and a page is used, until there is news; False where it may go on."""
        with self._news:
            left = self._quiet - time.monotonic()
            if asked.rank < BACKGROUND or left <= 0 or asked.cancelled:
                return False
            if not self._waiting(asked.rank):
                self._news.wait(left)
            return True

    def answer(self, asked: _Asked) -> None:
        """Make an answer and send it, or why there is none."""
        number = asked.number
        try:
            self._heard(asked, 0, 0)
            with progress.heard_by(partial(self._heard, asked)):
                head, arrays = frames.of_answer(made(asked.question))
            self.tell(arrays, done=number, **head)
        except progress.Cancelled:
            self.tell(cancelled=number)
        except ValueError as error:
            self.tell(refused=number, why=str(error))
        except Exception as error:  # a fault of ours must not take the others' answers with it
            traceback.print_exc()
            self.tell(failed=number, why=type(error).__name__)
        finally:
            with self._news:
                self._begun.discard(number)
                del self._asked[number]

    def _heard(self, asked: _Asked, done: int, steps: int) -> None:
        """On the way of one answer: what is more urgent is made here, and who left is heard."""
        while not asked.cancelled and steps:
            if (urgent := self.next(below=asked.rank)) is not None:
                self.answer(urgent)
            elif not self._stands(asked):
                break
        if asked.cancelled:
            raise progress.Cancelled
        now = time.monotonic()
        if now > asked.told + _APART or steps != asked.steps:
            asked.told, asked.steps = now, steps
            self.tell(progress=asked.number, calls=done, steps=steps)


def _listen(desk: Desk, stream: BinaryIO) -> None:
    while (message := frames.read(stream)) is not None:
        desk.take(*message)
    os._exit(0)  # the server is gone, and nobody is left to answer


def main(warm: tuple[str, ...] = WARM) -> None:
    """Answer until the server is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the server's, and ends this process through its input
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not come between messages
    if hasattr(os, "nice"):
        os.nice(5)  # the page comes first
    desk = Desk(out)
    threading.Thread(target=_listen, args=(desk, sys.stdin.buffer), daemon=True).start()
    from core import pipeline

    desk.tell(ready=os.getpid())
    for method in warm:
        while (asked := desk.next()) is not None:
            desk.answer(asked)
        try:
            pipeline.build(method)
        except ValueError:  # a checkpoint is missing or damaged: said to whoever asks for its method
            traceback.print_exc()
    while True:
        desk.rest()
        if (asked := desk.next()) is not None:
            desk.answer(asked)


if __name__ == "__main__":
    main()
