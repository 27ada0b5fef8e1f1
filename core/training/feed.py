"""Spectra for training, simulated in worker processes while the network learns."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from functools import lru_cache
from itertools import islice
from multiprocessing import get_context
from types import TracebackType

import numpy as np
import torch
from torch import Tensor

from core.data.dataset import OPEN, Batch, batch
from core.data.grid import N_PIXELS
from core.data.noise import NoiseModel
from core.data.reality import Reality
from core.data.simulator import Simulator
from core.models.templates import NATIVE, Templates

_A_TIME = 2  # chunks taken in at one step: more would keep the network waiting
_AHEAD = 3  # chunks a worker is asked for before they are wanted
#: Share of stars that keep the noise map of their own brightness. An observation always has its own (a red star is
#: noisy in the blue), so most of what is learned should have it too. The rest are crossed for breadth: the maps are
#: those of one plate's response, and a star behind much dust or from another plate has one that does not go with it.
#: Stars drawn from real components (core.training.stars.REAL of a batch) have no map of their own: theirs are crossed.
OWN = 0.8


@lru_cache(maxsize=1)
def simulator() -> Simulator:
    """The simulator of training, made once a process."""
    torch.set_num_threads(1)
    templates = Templates()
    return Simulator(templates, NATIVE, NoiseModel.load(), templates.emulator.nearest, Reality.load(),
                     open_fraction=OPEN)


def chunk(seed: int, number: int, size: int) -> Batch:
    """Worker: chunk `number` of an endless, seeded list of chunks."""
    return batch(simulator(), size, np.random.default_rng([seed, number]))


class Feed:
    """Chunks of simulated stars, in order, made ahead of time by worker processes.

    Args:
        seed: decides all of them; chunk: spectra in each; workers: processes; first: the chunk to begin with.
    """

    def __init__(self, seed: int, chunk: int, workers: int, first: int = 0) -> None:
        self.seed, self.chunk, self.next = seed, chunk, first
        # spawn: a forked child of a process that holds a GPU or threads may hang
        self.pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"))
        self.waiting: deque[Future[Batch]] = deque()
        for _ in range(_AHEAD * workers):
            self._ask()

    def _ask(self) -> None:
        self.waiting.append(self.pool.submit(chunk, self.seed, self.next, self.chunk))
        self.next += 1

    def take(self) -> Batch:
        """The next chunk, waited for."""
        out = self.waiting.popleft().result()
        self._ask()
        return out

    def ready(self) -> Iterator[Batch]:
        """The chunks that are finished, none waited for."""
        while self.waiting and self.waiting[0].done():
            yield self.take()

    def __enter__(self) -> Feed:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.pool.shutdown(wait=False, cancel_futures=True)


class Bank:
    """Spectra kept on the device and drawn from again and again, for a network that learns faster than they are made.

    It grows while it is used; each use puts other noise, another unit and another level on the star.

    Args:
        feed: where they come from; capacity: spectra held at most, the oldest make room.
    """

    def __init__(self, feed: Feed, capacity: int, device: torch.device) -> None:
        self.feed, self.count, self.seen = feed, 0, 0
        self.excess = torch.zeros(capacity, N_PIXELS, dtype=torch.float16, device=device)
        self.sigma = torch.zeros_like(self.excess)

    def grow(self, wait: bool = False) -> None:
        """Take in what the workers have finished; with `wait`, at least one chunk."""
        chunks = [self.feed.take()] if wait else islice(self.feed.ready(), _A_TIME)
        for made in chunks:
            at = (self.seen + torch.arange(len(made.excess))) % len(self.excess)
            self.excess[at] = torch.from_numpy(made.excess).to(self.excess.device)
            self.sigma[at] = torch.from_numpy(made.sigma).to(self.excess.device)
            self.seen += len(at)
        self.count = min(self.seen, len(self.excess))

    def sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """n clean spectra and n noise maps, float32: a share OWN with the map of the star itself, else of any star."""
        star, other = torch.randint(self.count, (2, n), generator=generator, device=generator.device)
        own = torch.rand(n, generator=generator, device=generator.device) < OWN
        noise = torch.where(own, star, other)
        return self.excess[star].float() + 1.0, self.sigma[noise].float()
