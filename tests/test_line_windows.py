"""The pilot survey's tenfold dips are undone exactly where they are, and nothing else is touched."""

from __future__ import annotations

import numpy as np
import pytest

from core.data import lamost
from core.data.lamost_write import LAMOST_WAVE
from core.data.line_windows import WINDOWS, undo_line_windows
from core.data.noise import NoiseModel

CENTRES = np.array([np.mean(w) for w in WINDOWS])


def a_map(rng, target: float = 30.0) -> np.ndarray:
    """An inverse variance as LAMOST quotes it, sky lines, gaps and jitter in it, without dips, (3840,) on WAVE."""
    sigma = NoiseModel.load().draw([target], rng)[0]
    return np.where(np.isfinite(sigma), sigma**-2.0, 0.0)


WAVE = LAMOST_WAVE[18 : 18 + 3840]


def dips(shift: int) -> np.ndarray:
    """The pixels of the windows, all moved by `shift` pixels."""
    inside = np.zeros(WAVE.size, dtype=bool)
    for low, high in WINDOWS:
        inside[np.abs(WAVE - low).argmin() + shift : np.abs(WAVE - high).argmin() + 1 + shift] = True
    return inside


@pytest.mark.parametrize("shift", [0, 1, -1, 3, -4])
@pytest.mark.parametrize("target", [5.0, 30.0, 150.0])
def test_planted_tenfold_dips_are_undone_exactly_wherever_they_all_sit(rng, shift, target):
    truth = a_map(rng, target)
    planted = np.where(dips(shift), truth / 10, truth)
    mended, count = undo_line_windows(WAVE, planted)
    np.testing.assert_allclose(mended, truth, rtol=1e-12)
    assert count == (dips(shift) & (truth > 0)).sum()


def test_wavelengths_in_single_precision_move_no_edge(rng):
    truth = a_map(rng)
    mended, _ = undo_line_windows(WAVE.astype(np.float32).astype(float), np.where(dips(2), truth / 10, truth))
    np.testing.assert_allclose(mended, truth, rtol=1e-12)


def test_a_map_without_dips_is_untouched(rng):
    for target in (1.5, 5.0, 30.0, 300.0):
        for _ in range(20):
            truth = a_map(rng, target)
            mended, count = undo_line_windows(WAVE, truth)
            assert count == 0
            np.testing.assert_array_equal(mended, truth)


@pytest.mark.parametrize("factor", [3.0, 5.0, 20.0, 100.0, 0.1])
def test_dips_of_another_depth_are_not_taken_for_these(rng, factor):
    truth = a_map(rng)
    planted = np.where(dips(0), truth / factor, truth)
    mended, count = undo_line_windows(WAVE, planted)
    assert count == 0
    np.testing.assert_array_equal(mended, planted)


def test_dips_elsewhere_or_beyond_reach_are_not_taken_for_these(rng):
    truth = a_map(rng)
    for shift in (7, 30, -100):
        planted = np.where(dips(shift), truth / 10, truth)
        np.testing.assert_array_equal(undo_line_windows(WAVE, planted)[0], planted)


def test_dips_partly_dead_are_mended_and_dead_pixels_stay_dead(rng):
    truth = a_map(rng)
    truth[np.abs(WAVE - CENTRES[1]) < 40] = 0
    truth[np.abs(WAVE - 5172).argmin()] = 0
    mended, _ = undo_line_windows(WAVE, np.where(dips(0), truth / 10, truth))
    np.testing.assert_allclose(mended, truth, rtol=1e-12)


def test_the_input_is_not_changed(rng):
    planted = np.where(dips(0), a_map(rng) / 10, 1.0)
    for given in (planted, np.ones(WAVE.size)):  # one with dips, one without
        before = given.copy()
        answer, _ = undo_line_windows(WAVE, given)
        assert not np.shares_memory(answer, given)
        np.testing.assert_array_equal(given, before)


@pytest.mark.parametrize("part", [slice(2500, 3000), slice(0, 2), slice(0, 300)])
def test_a_stretch_without_enough_windows_is_left_as_it_is(rng, part):
    planted = np.where(dips(0), a_map(rng) / 10, 1.0)[part]
    mended, count = undo_line_windows(WAVE[part], planted)
    assert count == 0
    np.testing.assert_array_equal(mended, planted)


def test_every_pilot_spectrum_is_mended_and_no_other_one(shared):
    spectra, _ = lamost.read_folder(shared / "lamost", progress=False)
    quoted, _ = lamost.read_folder(shared / "lamost", progress=False, mend=False)
    pilot = (spectra.meta["release"] == "pilot").to_numpy()
    assert (pilot.sum(), (~pilot).sum()) == (132, 3)
    mended = spectra.meta["ivar_mended"].to_numpy()
    assert (mended[pilot] > 50).all()
    assert (mended[~pilot] == 0).all()
    np.testing.assert_array_equal(spectra.ivar[~pilot], quoted.ivar[~pilot])
    # what was undone was there: a mended map is continuous over the edges of H beta, the quoted one falls by ten
    low, _ = WINDOWS[5]

    def fall(s) -> np.ndarray:
        log = np.log10(np.where(s.measured, s.ivar, np.nan))[pilot]
        within, before = (np.abs(s.wave - low - d) < 3 for d in (5, -5))
        return np.nanmedian(log[:, within], axis=1) - np.nanmedian(log[:, before], axis=1)

    assert abs(np.nanmedian(fall(spectra))) < 0.1
    assert abs(np.nanmedian(fall(quoted)) + 1) < 0.1  # the control
