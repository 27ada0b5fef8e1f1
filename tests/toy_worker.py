"""A worker whose methods are toys, for the tests of workers: `python -m tests.toy_worker`."""

from __future__ import annotations

import os
import time

import numpy as np

from app import worker
from core import findings, pipeline, progress
from core.models.observation import Observation, Reconstructor
from core.reading import Found, Reading


class Toy(Reconstructor):
    """So many steps of so many seconds, told one by one; then draws that say when they were made."""

    draws_differ = True

    def __init__(self, steps: int = 5, pause: float = 0.02) -> None:
        self.steps, self.pause = steps, pause

    def sample(self, observation: Observation, n: int, seed: int):
        progress.expect(self.steps)
        for _ in range(self.steps):
            time.sleep(self.pause)
            progress.tick()
        return observation.y + observation.y.new_tensor(np.linspace(0, 0.1, n) + seed)[:, None, None]


class Warned(Toy):
    def warnings(self, observation: Observation) -> list[str]:
        return ["this star is not as those that I know."]


class Refusing(Toy):
    def sample(self, observation: Observation, n: int, seed: int):
        raise ValueError("this star is not for me; choose another")


class Faulty(Toy):
    def sample(self, observation: Observation, n: int, seed: int):
        print("what a library prints must not come between messages", flush=True)
        raise RuntimeError("secret detail")


class Deadly(Toy):
    def sample(self, observation: Observation, n: int, seed: int):
        progress.expect(1)
        time.sleep(0.1)
        os._exit(7)


#: by the names of the real ones, whose ranks they take
TOYS = {"savgol": Toy, "exact": Toy, "mmps": Toy, "supervised": Warned, "wavelet": Refusing, "pca": Faulty,
        "wiener": Deadly}


def find(reading: Reading) -> Found:
    if reading.spectra.flux[0, 0] < 0:
        raise ValueError("this star cannot be read; choose another")
    return Found(reading.method, {"draws": reading.spectra.flux, "none": np.empty((0, 5))})


if __name__ == "__main__":
    findings.find = find
    pipeline.METHODS.clear()
    pipeline.METHODS.update(TOYS)
    worker.main(("exact",))
