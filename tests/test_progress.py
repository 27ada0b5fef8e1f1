"""Samplers tell how far they are, stop where they are told to, and draw the same whether or not anybody listens."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from core import progress
from core.data import library, noise
from core.pipeline import reconstruct
from core.spectrum import Spectra

SETTINGS: dict[str, dict[str, float]] = {"mixture": {}, "exact": {}, "dps": {"steps": 4}, "pigdm": {"calls": 14},
                                         "mmps": {"calls": 14}, "supervised": {"steps": 4}}


@pytest.fixture(scope="module")
def star() -> Spectra:
    stars, _ = library.bundled()
    return noise.degrade(stars.select([int(np.argmax(noise.snr(stars)))]), 12.0, 0)


@pytest.mark.parametrize("method", ["mixture", "exact", "dps", "pigdm", "supervised"])
def test_a_listener_hears_every_step_to_the_end_and_changes_no_number(
    star: Spectra, method: str, unchecked: None
) -> None:
    told: list[tuple[int, int]] = []
    with progress.heard_by(lambda done, steps: told.append((done, steps))):
        heard = reconstruct(star, method, 1, **SETTINGS[method])
    assert np.array_equal(heard.draws, reconstruct(star, method, 1, **SETTINGS[method]).draws)
    done, steps = zip(*told, strict=True)
    assert set(steps) == {steps[0]}
    assert done[0] == 0
    assert done[-1] == steps[0] > 0
    assert all(a <= b for a, b in pairwise(done))


@pytest.mark.parametrize("method", list(SETTINGS))
def test_a_listener_stops_a_sampler_on_its_way(star: Spectra, method: str, unchecked: None) -> None:
    heard: list[int] = []

    def stop(done: int, steps: int) -> None:
        heard.append(done)
        if len(heard) == 3 or done == steps:
            raise progress.Cancelled

    with pytest.raises(progress.Cancelled), progress.heard_by(stop):
        reconstruct(star, method, 1, **SETTINGS[method])
    assert len(heard) <= 3, "and at once"


def test_an_inner_sampling_tells_its_own_listener_and_the_outer_goes_on() -> None:
    outer: list[tuple[int, int]] = []
    inner: list[tuple[int, int]] = []
    with progress.heard_by(lambda *steps: outer.append(steps)):
        progress.expect(2)
        with progress.heard_by(lambda *steps: inner.append(steps)):
            progress.expect(9)
            progress.tick(4)
        progress.tick()
    progress.tick()  # nobody listens any longer
    assert outer == [(0, 2), (1, 2)]
    assert inner == [(0, 9), (4, 9)]
