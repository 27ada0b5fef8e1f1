"""Depth and width of lines are those of closed forms; the error that photon noise gives is the scatter it gives."""

from __future__ import annotations

import numpy as np
import pytest

from core.data.grid import WAVE as GRID
from core.metrics.lines import (
    LINES,
    Line,
    bridged,
    depth,
    equivalent_width,
    find_line,
    fwhm,
    measurable,
    photon_error,
    photon_error_ve06,
)
from core.spectrum import Kernel

WAVE = GRID[(GRID > 5750.0) & (GRID < 6250.0)]  # the part that matters, so that thousands of spectra are quick
ROOMY = Line("roomy", 6000.0, (5980.0, 6020.0), (5940.0, 5970.0), (6030.0, 6060.0), "this test")
#: the band overlaps its blue side band, as that of the G band does
OVERLAP = Line("overlap", 6000.0, (5980.0, 6020.0), (5950.0, 5988.0), (6030.0, 6060.0), "this test")
FINE = np.geomspace(5930.0, 6070.0, 4000)
FLUX = (1 - 0.6 * np.exp(-0.5 * ((WAVE - 6000.3) / 2.5) ** 2)) * (1 + 2e-3 * (WAVE - 6000.0))
SIGMA = 0.04 * (1 + 0.5 * np.sin(WAVE / 3.0)) * np.where(WAVE < 5990.0, 1.5, 1.0)
N = 4000
#: relative standard error of a standard deviation from N spectra, times four
FOUR_SIGMA = 4 / np.sqrt(2 * N)


def gaussian(sigma: float, deep: float, slope: float = 0.0, level: float = 1.0) -> np.ndarray:
    return level * (1 + slope * (FINE - 6000.0)) * (1 - deep * np.exp(-0.5 * ((FINE - 6000.3) / sigma) ** 2))


def noisy(rng, kernel: Kernel) -> np.ndarray:
    return FLUX + SIGMA * kernel.colour(WAVE, rng.standard_normal((N, len(WAVE) + 2)))


@pytest.mark.parametrize("slope", [0.0, -3e-3, 4e-3])
@pytest.mark.parametrize(("sigma", "deep", "level"), [(1.5, 0.05, 1.0), (2.5, 0.6, 3e-17), (4.0, 0.9, 1e4)])
def test_a_gaussian_line_has_its_closed_form_depth_and_width(sigma, deep, level, slope):
    flux = gaussian(sigma, deep, slope, level)
    width = 2 * np.sqrt(2 * np.log(2)) * sigma
    np.testing.assert_allclose(depth(FINE, flux, ROOMY), deep, rtol=1e-3)
    np.testing.assert_allclose(fwhm(FINE, flux, ROOMY), width, rtol=1e-3)
    # ROOMY holds 5 sigma and so all of the line, up to 1e-6
    np.testing.assert_allclose(equivalent_width(FINE, flux, ROOMY), deep * sigma * np.sqrt(2 * np.pi), rtol=1e-3)
    if slope:  # the control: against the blue side's level alone all of it is wrong
        flat = flux / flux[np.searchsorted(FINE, 5955.0)]
        assert abs((1 - flat.min()) / deep - 1) > 0.01


def test_the_lowest_pixel_is_improved_upon_by_the_parabola():
    coarse = [np.geomspace(5930.0 + d, 6070.0 + d, 140) for d in np.linspace(0, 1, 7)]
    line = [1 - 0.6 * np.exp(-0.5 * ((wave - 6000.3) / 2.0) ** 2) for wave in coarse]
    ours = [abs(float(depth(w, f, ROOMY)) - 0.6) for w, f in zip(coarse, line, strict=True)]
    # half a pixel h off, the pixel is wrong by (h / sigma)^2 / 8 of the depth; the parabola leaves the fourth order,
    # interpolating u^4 / 8 at nodes -3/2, -1/2, 1/2 of a pixel: 9/128 (h / sigma)^4
    pixel = [abs(1 - f.min() - 0.6) for f in line]
    assert max(ours) < 0.6 * (140.0 / 139 / 2.0) ** 4 * 9 / 128
    assert max(pixel) > 4 * max(ours)  # the control: the pixel itself


def test_where_there_is_no_absorption_or_no_crossing_there_is_no_width():
    assert np.isnan(fwhm(FINE, gaussian(2.0, -0.4), ROOMY))
    assert np.isnan(fwhm(FINE, gaussian(2.0, 0.4) - 5.0, ROOMY))  # no positive continuum either
    assert np.isnan(equivalent_width(FINE, gaussian(2.0, 0.4) - 5.0, ROOMY))
    one_sided = Line("one-sided", 6000.0, ROOMY.band, (5940.0, 5955.0), (5955.0, 5970.0), "this test")
    assert np.isnan(fwhm(FINE, np.where(FINE < 5990.0, 1.0, 0.5), one_sided))  # falls and never rises again
    assert np.isfinite(fwhm(FINE, gaussian(2.0, 0.4), ROOMY))


def test_a_stack_of_draws_is_measured_at_once_and_each_as_if_alone(rng):
    flux = 1 - rng.uniform(0.2, 0.5, (5, 3, 1)) * np.exp(-0.5 * ((FINE - 6000) / rng.uniform(1, 3, (5, 3, 1))) ** 2)
    flux += 0.01 * rng.standard_normal(flux.shape)
    for measure in (depth, fwhm):
        got = measure(FINE, flux, ROOMY)
        np.testing.assert_allclose(got, [[measure(FINE, f, ROOMY) for f in part] for part in flux], rtol=1e-10)
        assert len(np.unique(got)) == 15  # the control
    sigma = rng.uniform(0.5, 1.5, flux.shape)
    sigma[rng.random(flux.shape) < 0.05] = np.inf
    alone = [[photon_error(FINE, f, s, ROOMY) for f, s in zip(*part, strict=True)]
             for part in zip(flux, sigma, strict=True)]
    np.testing.assert_allclose(photon_error(FINE, flux, sigma, ROOMY), alone, rtol=1e-10)


# ---------------------------------------------------------------------------------------------- photon noise


@pytest.mark.parametrize("line", [ROOMY, OVERLAP], ids=lambda line: line.name)
@pytest.mark.parametrize("rho", [0.0, 0.3, 0.6])
def test_the_error_is_the_scatter_that_white_and_correlated_noise_gives(rng, rho, line):
    kernel = Kernel(rho=(rho, rho), join=5995.0)
    scatter = equivalent_width(WAVE, noisy(rng, kernel), line).std()
    assert abs(photon_error(WAVE, FLUX, SIGMA, line, kernel.taps(WAVE)) / scatter - 1) < FOUR_SIGMA
    if rho:  # the control: correlated noise taken for white
        assert abs(photon_error(WAVE, FLUX, SIGMA, line) / scatter - 1) > FOUR_SIGMA
    # the control: a local continuum taken for known
    w = np.gradient(WAVE) * ((WAVE > line.band[0]) & (WAVE < line.band[1]))
    assert abs(np.sqrt(((w * SIGMA) ** 2).sum()) / scatter - 1) > FOUR_SIGMA


@pytest.mark.parametrize("rho", [0.0, 0.5])
def test_dead_pixels_are_bridged_and_the_error_says_so(rng, rho):
    kernel = Kernel(rho=(rho, rho))
    live = (np.abs(WAVE - 6004.0) > 3) & (np.abs(WAVE - 5946.0) > 5) & (np.abs(WAVE - 5970.0) > 2)
    scatter = equivalent_width(WAVE, bridged(noisy(rng, kernel), live), ROOMY).std()
    sigma = np.where(live, SIGMA, np.inf)
    assert abs(photon_error(WAVE, FLUX, sigma, ROOMY, kernel.taps(WAVE)) / scatter - 1) < FOUR_SIGMA
    assert abs(photon_error(WAVE, FLUX, SIGMA, ROOMY, kernel.taps(WAVE)) / scatter - 1) > FOUR_SIGMA  # the control


def test_the_published_estimate_is_larger_by_the_root_of_the_pixels(rng):
    """Vollmann & Eversberg take one pixel's error for that of the mean of all; why ours is used."""
    flat, sigma = np.ones_like(WAVE), np.full_like(WAVE, 0.02)
    pixels = 40.0 / (6000 * np.log(10) * 1e-4)
    ratio = photon_error_ve06(WAVE, flat, sigma, ROOMY) / photon_error(WAVE, flat, sigma, ROOMY)
    np.testing.assert_allclose(photon_error_ve06(WAVE, flat, sigma, ROOMY), np.sqrt(2) * 40 * 0.02, rtol=1e-6)
    assert 0.8 < ratio / np.sqrt(pixels) < 1.25


def test_bridges_are_straight_and_live_pixels_are_kept():
    flux, live = np.array([[9.0, 1.0, 9.0, 9.0, 4.0, 9.0]]), np.array([False, True, False, False, True, False])
    np.testing.assert_allclose(bridged(flux, live), [[1.0, 1.0, 2.0, 3.0, 4.0, 4.0]])
    np.testing.assert_array_equal(bridged(flux, np.ones(6, dtype=bool)), flux)


# ---------------------------------------------------------------------------------------------- bad input


def test_a_line_is_measurable_where_half_of_every_window_is_live():
    live = np.ones((4, len(GRID)), dtype=bool)
    line = LINES["H alpha"]
    for row, (low, high) in enumerate((line.blue, line.red, line.band), start=1):
        live[row, (GRID > low) & (GRID < low + 0.6 * (high - low))] = False
    assert measurable(live, GRID, line).tolist() == [True, False, False, False]
    assert measurable(live, GRID, LINES["H beta"]).all()
    assert not measurable(live[:, 300:], GRID[300:], LINES["Ca II H"]).any()


@pytest.mark.parametrize("window", ["blue", "red", "band"])
def test_a_window_wholly_masked_is_refused(window):
    low, high = getattr(ROOMY, window)
    sigma = np.where((WAVE > low - 2) & (WAVE < high + 2), np.inf, SIGMA)
    with pytest.raises(ValueError, match=f"nothing was measured in the {window}.* of roomy; leave this line out"):
        photon_error(WAVE, FLUX, np.array([SIGMA, sigma]), ROOMY)
    assert np.isfinite(photon_error(WAVE, FLUX, np.where(WAVE < 5900.0, np.inf, SIGMA), ROOMY))


@pytest.mark.parametrize("measure", [equivalent_width, depth, fwhm])
def test_a_flux_that_is_not_finite_is_refused_where_it_matters(measure):
    for at, refused in ((6001.0, True), (5945.0, True), (5800.0, False)):
        flux = np.where(np.abs(WAVE - at) < 1, np.nan, FLUX)
        if refused:
            with pytest.raises(ValueError, match="around roomy is not finite"):
                measure(WAVE, flux, ROOMY)
        else:
            assert np.isfinite(measure(WAVE, flux, ROOMY))


@pytest.mark.parametrize("bad", [np.nan, 0.0, -1.0])
def test_a_sigma_that_is_none_is_refused(bad):
    with pytest.raises(ValueError, match="sigma around roomy must be positive"):
        photon_error(WAVE, FLUX, np.where(np.abs(WAVE - 6000) < 1, bad, SIGMA), ROOMY)


@pytest.mark.parametrize(("wrong", "right"), [("Halpha", "H alpha"), ("ca ii k", "Ca II K"), ("Li6707", "Li 6708")])
def test_an_unknown_line_is_answered_with_the_nearest(wrong, right):
    with pytest.raises(ValueError, match=f"did you mean '{right}'"):
        find_line(wrong)
    assert find_line(right).name == right
