"""Answers by what was asked: quick ones made at once, others by threads beside the page; kept for all visitors."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from threading import Lock, Thread

from app.shown import Answer

#: of methods that are made beside the page: how long so many draws take on one busy core, until this server knows
SECONDS = {"exact": 3.0, "dps": 20.0, "pigdm": 9.0, "mmps": 50.0}
SHORT = 5.0  #: seconds; what takes longer has a queue of its own
KEPT = 256  #: answers in memory

Key = tuple[str, str, int, int, tuple[tuple[str, float], ...]]  #: content, method, seed, draws, settings

_Queue = SimpleQueue[tuple[str, Future[Answer], Callable[[], Answer]]]


class Answers:
    """Answers by what was asked: quick ones made at once, those in SECONDS by threads beside the page.

    What takes long has one thread of its own, lest others queue behind it. A refusal is kept too. Whoever gets
    an answer must not write into it.
    """

    def __init__(self) -> None:
        self.kept: dict[Key, tuple[Future[Answer], float]] = {}
        self._lock, self.seconds = Lock(), dict(SECONDS)
        self._short, self._long = _Queue(), _Queue()
        for queue in (self._short, self._short, self._long):
            Thread(target=self._serve, args=(queue,), daemon=True).start()  # unlike an executor's: a server may stop

    def ask(self, key: Key, work: Callable[[], Answer]) -> tuple[Future[Answer], float]:
        """The answer's future, and when it was first asked for."""
        with self._lock:
            if key in self.kept and not self.kept[key][0].cancelled():
                self.kept[key] = self.kept.pop(key)
                return self.kept[key]
            done = [old for old, (future, _) in self.kept.items() if future.done()]
            for old in done[:max(0, len(self.kept) - KEPT)]:
                del self.kept[old]
            entry = self.kept[key] = Future[Answer](), time.monotonic()
        if key[1] in SECONDS:
            (self._short if SECONDS[key[1]] <= SHORT else self._long).put((key[1], entry[0], work))
        else:
            self._make(key[1], entry[0], work)
        return entry

    def _make(self, method: str, future: Future[Answer], work: Callable[[], Answer]) -> None:
        begun = time.monotonic()
        try:
            if future.set_running_or_notify_cancel():
                future.set_result(work())
                self.seconds[method] = time.monotonic() - begun
        except BaseException as error:  # whoever waits for it must not wait forever
            future.set_exception(error)

    def _serve(self, queue: _Queue) -> None:
        while True:
            self._make(*queue.get())
