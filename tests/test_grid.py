"""The grid: pixels that agree are not touched, others keep flux and variance; air, vacuum and Doppler shifts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.data import grid
from core.data.grid import LOGLAM, N_PIXELS, WAVE, air_to_vacuum, resample, vacuum_to_air

LAMOST = 10.0 ** (3.5682 + 1e-4 * np.arange(3909))


def test_the_grid_is_the_one_the_architecture_names():
    assert WAVE.shape == (3840,)
    np.testing.assert_allclose(np.log10(WAVE), 3.57 + 1e-4 * np.arange(3840), atol=1e-12)
    assert WAVE[0] == pytest.approx(3715.35, abs=0.01)
    assert WAVE[-1] == pytest.approx(8993.2, abs=0.3)


def test_the_curve_is_made_of_cubic_b_splines_bit_for_bit():
    from scipy.interpolate import BSpline

    inner = np.linspace(0, N_PIXELS - 1, 10)
    knots = np.concatenate([[0] * 3, inner, [N_PIXELS - 1] * 3])
    for position in (np.arange(N_PIXELS, dtype=float), np.array([-3.0, 0.0, inner[1], 17.3, 3838.9, 3839.0, 5000.0])):
        wanted = BSpline.design_matrix(np.clip(position, 0, N_PIXELS - 1), knots, 3).toarray()
        np.testing.assert_array_equal(grid._curve_basis(position), wanted)


# ------------------------------------------------------------------------------------------------ aligned or resampled


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize(("first", "last"), [(0, 3909), (300, 3909), (0, 2000), (1000, 1500)])
def test_aligned_input_is_a_slice_bit_for_bit(rng, dtype, first, last):
    wave = LAMOST[first:last].astype(dtype)
    flux, ivar = rng.uniform(1, 2, (2, wave.size)), rng.uniform(1, 2, (2, wave.size))
    f, i = grid.onto_grid(wave, flux, ivar)
    low, high = max(first - 18, 0), min(last - 18, N_PIXELS)
    skip = max(18 - first, 0)
    np.testing.assert_array_equal(f[:, low:high], flux[:, skip : skip + high - low])
    np.testing.assert_array_equal(i[:, low:high], ivar[:, skip : skip + high - low])
    assert (np.delete(i, np.s_[low:high], axis=1) == 0).all()


def test_input_a_tenth_of_a_pixel_off_is_not_taken_for_aligned(rng):
    wave = 10.0 ** (LOGLAM + 1e-5)
    flux = rng.uniform(1, 2, (1, N_PIXELS))
    f, _ = grid.onto_grid(wave, flux, np.ones_like(flux))
    np.testing.assert_allclose(f[0, 1:-1], 0.9 * flux[0, 1:-1] + 0.1 * flux[0, :-2], rtol=1e-6)


def edges(wave: np.ndarray) -> np.ndarray:
    log = np.log(wave)
    middle = (log[1:] + log[:-1]) / 2
    return np.concatenate([[2 * log[0] - middle[0]], middle, [2 * log[-1] - middle[-1]]])


@pytest.mark.parametrize("step", [0.4, 0.8, 1.7, 5.0])
def test_resampling_conserves_the_flux_in_every_band(rng, step):
    wave = np.arange(3600.0, 9200.0, step)
    flux = rng.uniform(0, 2, wave.size)
    f, i = resample(wave, flux, np.ones_like(flux))
    assert (i > 0).all()
    got = np.concatenate([[0], np.cumsum(f * np.diff(edges(WAVE)))])
    cumulative = np.interp(edges(WAVE), edges(wave), np.concatenate([[0], np.cumsum(flux * np.diff(edges(wave)))]))
    np.testing.assert_allclose(got, cumulative - cumulative[0], atol=1e-12)


def test_a_constant_stays_constant_also_where_a_pixel_is_not_wholly_covered():
    wave = 10.0 ** (LOGLAM + 4e-5)
    alive = np.ones((1, N_PIXELS))
    alive[0, 2000] = 0
    f, i = resample(wave, np.full((1, N_PIXELS), 3.0), alive, onto=10.0 ** (LOGLAM + 3.95e-5))
    np.testing.assert_allclose(f[i > 0], 3.0, rtol=1e-12)  # .5 % of a dead or missing neighbour does not dim it
    assert (i > 0).sum() == N_PIXELS - 1


def test_variance_is_propagated_and_neglecting_the_weights_is_found(rng):
    wave = np.arange(5000.0, 5200.0, 0.8)
    onto = WAVE[(WAVE > 5010) & (WAVE < 5190)]
    ivar = rng.uniform(0.5, 4, wave.size)
    trials = 4000
    noise = rng.standard_normal((trials, wave.size)) / np.sqrt(ivar)
    f, i = resample(wave, noise, np.broadcast_to(ivar, noise.shape), onto)
    ratio = f.var(axis=0) * i[0]
    error = np.sqrt(2 / trials)
    assert np.abs(ratio - 1).max() < 5 * error
    naive = f.var(axis=0) * np.interp(onto, wave, ivar)  # the control: interpolated ivar
    assert np.abs(naive - 1).max() > 5 * error


def test_a_dead_pixel_kills_what_it_covers_and_only_that(rng):
    wave = 10.0 ** (LOGLAM + 3e-5)
    flux, ivar = rng.uniform(1, 2, N_PIXELS), np.ones(N_PIXELS)
    ivar[700] = 0
    flux_bad = np.where(ivar > 0, flux, 1e30)
    f, i = resample(wave, flux_bad, ivar)
    dead = np.flatnonzero(i[1:-1] == 0) + 1
    np.testing.assert_array_equal(dead, [700, 701])
    clean = resample(wave, flux, np.ones(N_PIXELS))[0]
    live = i > 0
    np.testing.assert_allclose(f[live], clean[live])
    assert i[0] == 0  # covered by 70 % only


def test_what_the_input_does_not_reach_is_dead(rng):
    for wave in (np.arange(5000.0, 6000.0, 1.0), LAMOST[1000:1500]):
        _, i = grid.onto_grid(wave, np.ones((1, wave.size)), np.ones((1, wave.size)))
        inside = (wave[0] * 1.0003 < WAVE) & (wave[-1] * 0.9997 > WAVE)
        outside = (wave[0] * 0.9997 > WAVE) | (wave[-1] * 1.0003 < WAVE)
        assert (i[0, inside] > 0).all()
        assert (i[0, outside] == 0).all()


# ------------------------------------------------------------------------------------------------ air and vacuum


@pytest.mark.parametrize(("air", "vacuum"), [
    (6562.80, 6564.61),  # H alpha, SDSS' line list
    (4861.33, 4862.69),  # H beta
    (5889.95, 5891.58),  # Na D2, NIST
    (5895.92, 5897.56),  # Na D1
    (8542.09, 8544.44),  # Ca II
    (3933.66, 3934.78),  # Ca K
])
def test_air_and_vacuum_agree_with_published_lines(air, vacuum):
    assert air_to_vacuum(air) == pytest.approx(vacuum, abs=0.015)
    assert vacuum_to_air(vacuum) == pytest.approx(air, abs=0.015)


@given(st.floats(3000, 11000))
def test_air_and_vacuum_are_exact_inverses(wave):
    assert float(vacuum_to_air(air_to_vacuum(wave))) == pytest.approx(wave, rel=1e-14)
    assert float(air_to_vacuum(vacuum_to_air(wave))) == pytest.approx(wave, rel=1e-14)


@given(st.floats(-600, 600))
def test_a_doppler_shift_is_undone_by_its_opposite(velocity):
    np.testing.assert_allclose(grid.doppler(grid.doppler(WAVE, velocity), -velocity), WAVE, rtol=1e-13)
    assert np.sign(grid.doppler(5000.0, velocity) - 5000.0) == np.sign(velocity) or abs(velocity) < 1e-6
