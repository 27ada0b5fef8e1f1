"""Injected velocities come back within their own error, by both methods, and never a wrong number without a flag."""

from __future__ import annotations

import numpy as np
import pytest

from core.data.grid import STEP, WAVE, doppler
from core.data.instrument import WIDE
from core.metrics.velocity import chi_square_velocity, cross_correlation, pixels_of, velocity_of
from core.spectrum import Kernel

N = 200
FOUR_MEAN, FOUR_RMS = 4 / np.sqrt(N), 4 / np.sqrt(2 * N)  # four standard errors of a mean and of an rms of N pulls


def star(seed: int, velocity: float = 0.0, wave: np.ndarray = WAVE, lines: int = 60) -> np.ndarray:
    """A spectrum of Gaussian lines, none narrower than LAMOST's, moved exactly."""
    g = np.random.default_rng(seed)
    centre, deep, width = g.uniform(3750, 8950, lines), g.uniform(0.05, 0.4, lines), g.uniform(1.05, 2.0, lines) * STEP
    at = np.log10(wave)[:, None] - np.log10(doppler(centre, velocity))
    return 1 - (deep * np.exp(-0.5 * (at / width) ** 2)).sum(1)


TEMPLATES = np.array([star(seed, 0.0, WIDE) for seed in (1, 2, 3)])


@pytest.fixture(scope="module")
def observed() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Velocities, clean spectra of template 1 under a smooth curve, their sigma; some pixels dead in each."""
    rng = np.random.default_rng(20261)
    velocity = rng.uniform(-400, 400, N)
    curve = 1 + 0.2 * np.outer(rng.standard_normal(N), np.linspace(-1, 1, len(WAVE)))
    flux = np.array([star(2, v) for v in velocity]) * curve
    sigma = np.broadcast_to(rng.uniform(0.04, 0.15, (N, 1)) * np.linspace(1.5, 0.7, len(WAVE)), flux.shape)
    return velocity, flux, np.where(rng.random(flux.shape) < 0.02, np.inf, sigma)


def noise(rng, sigma: np.ndarray, kernel: Kernel) -> np.ndarray:
    return np.where(np.isfinite(sigma), sigma, 0.0) * kernel.colour(WAVE, rng.standard_normal((N, len(WAVE) + 2)))


def passes(rv, error, truth) -> bool:
    """Mean and rms of the pulls are 0 and 1 within four standard errors."""
    pull = (rv - truth) / error
    return bool(abs(pull.mean()) < FOUR_MEAN and abs(np.sqrt((pull**2).mean()) - 1) < FOUR_RMS)


def test_chi_square_recovers_injected_velocities_within_its_own_error(rng, observed):
    truth, flux, sigma = observed
    y = flux + noise(rng, sigma, Kernel())
    found = chi_square_velocity(WAVE, y, sigma**-2, TEMPLATES, WIDE)
    assert (found.which == 1).all()
    assert passes(found.rv, found.error, truth)
    live = np.isfinite(sigma).sum(1) - 5  # four of the curve, one of the velocity
    assert abs((found.chi2 / live).mean() - 1) < 4 * np.sqrt(2 / live.mean() / N)
    misled = chi_square_velocity(WAVE, y, (1.5 * sigma) ** -2, TEMPLATES[1:2], WIDE)
    assert not passes(misled.rv, misled.error, truth)  # the control: sigma mis-stated


def test_cross_correlation_recovers_injected_velocities_within_its_own_error(rng, observed):
    truth, flux, sigma = observed
    y = flux + noise(rng, sigma, Kernel())
    rv, error = cross_correlation(WAVE, y, sigma**-2, TEMPLATES[1], WIDE)
    assert passes(rv, error, truth)
    assert not passes(rv, error / 1.5, truth)  # the control
    # Zucker's error comes from the scatter, so a sigma mis-stated throughout does not mislead it
    again = cross_correlation(WAVE, y[:20], (1.5 * sigma[:20]) ** -2, TEMPLATES[1], WIDE)
    np.testing.assert_allclose(again, (rv[:20], error[:20]), rtol=1e-2)


def test_correlated_noise_widens_the_error_by_what_it_does(rng, observed):
    truth, flux, sigma = observed
    kernel = Kernel(rho=(0.35, 0.5))
    y = flux + noise(rng, sigma, kernel)
    found = chi_square_velocity(WAVE, y, sigma**-2, TEMPLATES[1:2], WIDE, taps=kernel.taps(WAVE))
    assert passes(found.rv, found.error, truth)
    white = chi_square_velocity(WAVE, y, sigma**-2, TEMPLATES[1:2], WIDE)
    assert not passes(white.rv, white.error, truth)  # the control
    np.testing.assert_array_equal(white.rv, found.rv)


@pytest.mark.parametrize("wide", [True, False])
def test_without_noise_the_velocity_is_exact_to_a_twentieth_of_a_kilometre(wide):
    truth = np.linspace(-400, 400, 17)
    y = np.array([star(2, v) for v in truth])
    templates, wave = (TEMPLATES, WIDE) if wide else (TEMPLATES[:, 12:-12], None)
    ivar = np.full_like(y, 1e4)
    assert np.abs(chi_square_velocity(WAVE, y, ivar, templates, wave).rv - truth).max() < 0.05
    assert np.abs(cross_correlation(WAVE, y, ivar, templates[1], wave)[0] - truth).max() < 0.05
    # the control: a classical Doppler shift, v / c for ln(wavelength), is off by more at these speeds
    assert np.abs(299792.458 * np.expm1(np.log(10) * STEP * pixels_of(truth, STEP)) - truth).max() > 0.05


def test_velocities_and_pixels_are_those_of_the_models():
    search = pytest.importorskip("core.models.velocity_search")
    v = np.linspace(-500, 500, 11)
    np.testing.assert_allclose(pixels_of(v, STEP), search.pixels_of(v).numpy(), rtol=1e-12)
    np.testing.assert_allclose(velocity_of(pixels_of(v, STEP), STEP), v, atol=1e-9)
    np.testing.assert_allclose(doppler(WAVE[5], 300.0), 10 ** (np.log10(WAVE[5]) + STEP * pixels_of(300.0, STEP)))


def test_a_minimum_at_the_edge_of_the_range_is_flagged_not_answered():
    y = np.array([star(2, v) for v in (0.0, 499.0, -560.0)])
    ivar = np.full_like(y, 1e4)
    found = chi_square_velocity(WAVE, y, ivar, TEMPLATES, WIDE)
    rv, error = cross_correlation(WAVE, y, ivar, TEMPLATES[1], WIDE)
    for value in (found.rv, found.error, rv, error):
        assert np.isfinite(value).tolist() == [True, False, False]
    upside_down = cross_correlation(WAVE, 2 - y[:1], ivar[:1], TEMPLATES[1], WIDE)[0]
    assert np.isnan(upside_down) or abs(upside_down) > 50  # anticorrelated where it would be at rest
    reach = chi_square_velocity(WAVE, y[:1], ivar[:1], TEMPLATES, WIDE, reach=100.0).rv
    np.testing.assert_allclose(reach, 0.0, atol=0.05)


def test_a_star_does_not_know_its_neighbours_and_keeps_its_shape(rng, observed):
    _, flux, sigma = observed
    y = (flux + noise(rng, sigma, Kernel()))[:6]
    stack = chi_square_velocity(WAVE, y.reshape(2, 3, -1), sigma[:6].reshape(2, 3, -1) ** -2, TEMPLATES, WIDE)
    assert stack.rv.shape == stack.error.shape == stack.chi2.shape == stack.which.shape == (2, 3)
    alone = chi_square_velocity(WAVE, y[4], sigma[4] ** -2, TEMPLATES, WIDE)
    assert alone.rv.shape == ()
    np.testing.assert_allclose(stack.rv[1, 1], alone.rv, atol=1e-5)
    assert len(np.unique(stack.rv)) == 6  # the control
    junk = np.where(np.isfinite(sigma[4]), y[4], np.nan)  # what lies in a dead pixel is not looked at
    np.testing.assert_array_equal(chi_square_velocity(WAVE, junk, sigma[4] ** -2, TEMPLATES, WIDE).rv, alone.rv)


def _with(flux=None, ivar=None, wave=WAVE, templates=TEMPLATES, template_wave=WIDE, **settings):
    y = star(2) if flux is None else flux
    return chi_square_velocity(wave, y, np.ones_like(y) if ivar is None else ivar, templates, template_wave, **settings)


@pytest.mark.parametrize(("settings", "message"), [
    ({"ivar": np.zeros(len(WAVE))}, "no live pixel"),
    ({"flux": np.where(WAVE > 6000, np.nan, 1.0)}, "not finite"),
    ({"ivar": -np.ones(len(WAVE))}, "negative"),
    ({"ivar": np.ones(7)}, "must have one shape"),
    ({"wave": np.linspace(3715, 8993, len(WAVE))}, "not constant in log wavelength"),
    ({"template_wave": WIDE * 10**(0.4 * STEP)}, "another grid"),
    ({"template_wave": np.geomspace(WIDE[0], 7000.0, len(WIDE))}, "another grid"),
    ({"template_wave": WIDE * 10**0.5}, "cover none"),
    ({"template_wave": None}, "another grid"),
    ({"templates": np.full_like(TEMPLATES, np.nan)}, "not finite"),
    ({"basis": np.ones((2, 9))}, "basis has shape"),
    ({"reach": 0.0}, "reach is"),
])  # fmt: skip
def test_bad_input_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        _with(**settings)
    assert np.isfinite(_with().rv)
