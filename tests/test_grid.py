"""The grid: pixels that agree are not touched, others keep flux and variance, and one curve survives everything."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.data import grid
from core.data.grid import LOGLAM, N_PIXELS, WAVE, air_to_vacuum, continuum_curve, prepare, resample, vacuum_to_air

LAMOST = 10.0 ** (3.5682 + 1e-4 * np.arange(3909))
HBETA, HALPHA = 4862.68, 6564.61


def test_the_grid_is_the_one_the_architecture_names():
    assert WAVE.shape == (3840,)
    np.testing.assert_allclose(np.log10(WAVE), 3.57 + 1e-4 * np.arange(3840), atol=1e-12)
    assert WAVE[0] == pytest.approx(3715.35, abs=0.01)
    assert WAVE[-1] == pytest.approx(8993.2, abs=0.3)


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


# ----------------------------------------------------------------------------------------- units of the continuum


def line(centre: float, depth: float, width: float) -> np.ndarray:
    """depth times a Lorentz profile of half width `width` [Angstrom]."""
    return depth / (1 + ((WAVE - centre) / width) ** 2)


def smooth(tilt: float = -1.0) -> np.ndarray:
    return 300.0 * (WAVE / 6000) ** tilt * np.exp(-0.5 * ((WAVE - 6500) / 4000) ** 2)


def observed(rng, truth: np.ndarray, snr: float) -> tuple[np.ndarray, np.ndarray]:
    sigma = np.full((1, N_PIXELS), np.median(truth) / snr)
    return truth + sigma * rng.standard_normal(sigma.shape), sigma**-2


def worst(curve: np.ndarray, truth: np.ndarray, where=slice(None)) -> float:
    return float(np.abs(np.log(curve / truth))[..., where].max())


@pytest.mark.parametrize("snr", [300, 30, 10, 1.5])
def test_a_smooth_star_is_followed_as_well_as_its_noise_allows(rng, snr):
    # 12 numbers from 3840 pixels: error sqrt(12 / 3840) / snr in the mean, some 2.5 times that at the ends; 1 % bias
    bound = 5 * 2.5 * np.sqrt(12 / N_PIXELS) / snr + 0.01
    for tilt in (-4.0, 0.0, 3.0):
        truth = smooth(tilt)
        sigma = truth[None] / snr
        curve = continuum_curve(truth + sigma * rng.standard_normal(sigma.shape), sigma**-2)
        assert (curve > 0).all()
        assert worst(curve, truth) < bound
        assert worst(curve * 1.5, truth) > bound or snr < 2  # the control


def test_the_curve_is_smooth(rng):
    noisy = observed(rng, smooth(), 3)
    log = np.log(continuum_curve(*noisy)[0])
    assert np.abs(np.diff(log)).max() < 3e-3  # no step: ten per cent takes at least 30 pixels
    assert np.abs(np.diff(np.log(np.abs(noisy[0][0])))).max() > 3e-3  # the control: the flux itself


@settings(max_examples=10, deadline=None)
@given(st.floats(-20, 20))
def test_the_curve_scales_with_the_flux(power):
    rng, k = np.random.default_rng(1), 10.0**power
    flux, ivar = observed(rng, smooth(), 10)
    np.testing.assert_allclose(continuum_curve(k * flux, ivar / k**2), k * continuum_curve(flux, ivar), rtol=1e-8)


def test_a_curve_does_not_know_its_neighbours(rng):
    flux, ivar = observed(rng, np.stack([smooth(t) for t in (-2.0, 0.0, 2.0)]), 8)
    ivar = np.broadcast_to(ivar, flux.shape)
    np.testing.assert_allclose(continuum_curve(flux, ivar)[1], continuum_curve(flux[1:2], ivar[1:2])[0], rtol=1e-10)


def gap(first: int, last: int) -> np.ndarray:
    out = np.ones((1, N_PIXELS))
    out[:, first:last] = 0
    return out


@pytest.mark.parametrize(("mask", "bound_inside"), [
    (gap(0, 400), 0.30), (gap(3500, 3840), 0.30), (gap(1500, 2500), 0.10), (gap(0, 1900), 1.5), (gap(100, 101), 0.05)])
def test_masked_edges_and_a_gap_of_1000_pixels_are_bridged(rng, mask, bound_inside):
    flux, ivar = observed(rng, smooth(), 50)
    bad = np.where(mask > 0, flux, -1e6)  # what lies there must not matter
    curve = continuum_curve(bad, ivar * mask)
    np.testing.assert_array_equal(curve, continuum_curve(np.where(mask > 0, flux, 0.0), ivar * mask))
    assert worst(curve, smooth(), mask[0] > 0) < 0.05
    assert worst(curve, smooth(), mask[0] == 0) < bound_inside


def test_zero_flux_ends_do_not_drag_the_middle(rng):
    flux, ivar = observed(rng, smooth(), 50)
    flux[:, :150], flux[:, -100:] = 0.0, 0.0  # measured, and nothing there
    curve = continuum_curve(flux, ivar)
    assert (curve > 0).all()
    assert np.isfinite(curve).all()
    assert worst(curve, smooth(), slice(500, 3400)) < 0.10


def test_strong_emission_lines_do_not_drag_the_curve(rng):
    lines = sum(20 * np.exp(-0.5 * ((WAVE - c) / 4.0) ** 2) for c in (4862.7, 5008.2, 6564.6))
    curve = continuum_curve(*observed(rng, smooth() * (1 + lines), 50))
    assert worst(curve, smooth()) < 0.06
    mean = (smooth() * (1 + lines)).reshape(-1, 32).mean(1)
    assert np.abs(np.log(mean / smooth().reshape(-1, 32).mean(1))).max() > 1  # the control: a running mean is dragged


def test_broad_balmer_lines_of_an_a_star_are_not_divided_out(rng):
    centres = [6564.6, 4862.7, 4341.7, 4102.9, 3971.2, 3890.2]
    lines = np.prod([1 - line(c, 0.7, 14.0) for c in centres], axis=0)
    curve = continuum_curve(*observed(rng, smooth(-2.0) * lines, 50))[0]
    kept = (smooth(-2.0) * lines / curve)[np.abs(WAVE - HBETA).argmin()]
    beside = (smooth(-2.0) * lines / curve)[[np.abs(WAVE - HBETA - d).argmin() for d in (-120.0, 120.0)]].mean()
    assert 1 - kept / beside > 0.60  # of .70 less the neighbours' wings: what is left of the depth of H beta
    local = np.convolve(smooth(-2.0) * lines, np.ones(65) / 65, "same")  # the control: a curve that follows the line
    follows = (smooth(-2.0) * lines / local)[[np.abs(WAVE - HBETA - d).argmin() for d in (0.0, -120.0, 120.0)]]
    assert 1 - follows[0] / follows[1:].mean() < 0.60


def test_the_curve_of_a_faint_star_is_unbiased_where_it_is_measured(rng):
    flux, ivar = observed(rng, np.broadcast_to(smooth(), (60, N_PIXELS)), 1.5)
    flux = smooth() + rng.standard_normal((60, N_PIXELS)) / np.sqrt(ivar)
    log = np.log(continuum_curve(flux, np.broadcast_to(ivar, flux.shape)) / smooth())[:, 300:3500].mean(1)
    assert abs(log.mean()) < 5 * log.std() / np.sqrt(60) + 0.01  # 1 %: the asymmetric weights, stated


@pytest.mark.parametrize(("flux", "ivar", "fact"), [(1.0, 0.0, "ivar = 0 in every pixel"), (-1.0, 1.0, "not positive"),
                                                    (0.0, 1.0, "not positive")])
def test_a_spectrum_without_a_star_is_refused(flux, ivar, fact):
    with pytest.raises(ValueError, match=fact) as caught:
        continuum_curve(np.full((1, N_PIXELS), flux), np.full((1, N_PIXELS), ivar))
    assert caught.match("leave it out")


# ------------------------------------------------------------------------------------------------ prepare


def test_prepare_multiplied_back_is_the_input(rng):
    flux, ivar = observed(rng, smooth(), 20)
    ivar = ivar * gap(1500, 1600)
    made = prepare(WAVE, flux, ivar, {"star": "x"})
    live = ivar > 0
    np.testing.assert_allclose((made.flux * made.continuum)[live], flux[live], rtol=1e-13)
    np.testing.assert_allclose((made.ivar / made.continuum**2)[live], ivar[live], rtol=1e-13)
    np.testing.assert_array_equal(made.measured, live)
    assert (made.flux[~live] == 1).all()
    assert made.stars == ["x"]


def test_prepare_takes_one_spectrum_or_many_and_gives_nameless_stars_a_number(rng):
    flux, ivar = observed(rng, smooth(), 20)
    assert prepare(WAVE, flux[0], ivar[0]).stars == ["0"]
    both = prepare(WAVE, np.repeat(flux, 2, 0), np.repeat(ivar, 2, 0), pd.DataFrame({"star": ["a", "b"]}, index=[7, 9]))
    assert both.stars == ["a", "b"]


def test_what_is_not_finite_is_not_measured(rng):
    flux, ivar = observed(rng, smooth(), 20)
    flux[0, 5], ivar[0, 6], ivar[0, 7] = np.nan, np.nan, np.inf
    made = prepare(WAVE, flux, ivar)
    assert np.flatnonzero(~made.measured[0]).tolist() == [5, 6, 7]


ONES = np.ones(N_PIXELS)


@pytest.mark.parametrize(("wave", "flux", "ivar", "meta", "message"), [
    (WAVE[None], ONES, ONES, None, "disagree; give"),
    (WAVE[:-1], ONES, ONES, None, "disagree; give"),
    (WAVE, ONES, ONES[:-1], None, "disagree; give"),
    (WAVE, np.ones((1, 1, N_PIXELS)), np.ones((1, 1, N_PIXELS)), None, "disagree; give"),
    (WAVE[::-1], ONES, ONES, None, "do not rise.*sort them"),
    (np.where(WAVE == WAVE[4], WAVE[5], WAVE), ONES, ONES, None, "do not rise.*drop duplicates"),
    (np.where(WAVE == WAVE[4], np.nan, WAVE), ONES, ONES, None, "do not rise"),
    (WAVE[:1], ONES[:1], ONES[:1], None, "do not rise"),
    (WAVE / 10, ONES, ONES, None, "371.5.*Convert to Angstrom"),
    (WAVE / 1e4, ONES, ONES, None, "Convert to Angstrom"),
    (LOGLAM, ONES, ONES, None, "Convert to Angstrom"),
    (np.linspace(0, 9000, N_PIXELS), ONES, ONES, None, "Convert to Angstrom"),
    (np.linspace(-5, 9000, N_PIXELS), ONES, ONES, None, "Convert to Angstrom"),
    (np.linspace(9100, 9900, N_PIXELS), ONES, ONES, None, "none lies in 3715-8993"),
    (WAVE, ONES, np.where(WAVE < 4000, -1.0, 1.0), None, "negative in .* pixels; 0 marks"),
    (WAVE, ONES, 0 * ONES, None, "ivar = 0 in every pixel"),
    (WAVE, np.nan * ONES, ONES, None, "ivar = 0 in every pixel"),
    (WAVE, -ONES, ONES, None, "not positive"),
    (WAVE, ONES, ONES, pd.DataFrame({"star": ["a", "b"]}), "meta must be a DataFrame of 1 rows"),
])
def test_prepare_refuses_what_it_cannot_use(wave, flux, ivar, meta, message):
    with pytest.raises(ValueError, match=message):
        prepare(wave, flux, ivar, meta)
