"""Units of the continuum: one curve survives everything, and prepare multiplied back by it is the input."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.data.grid import LOGLAM, N_PIXELS, WAVE, continuum_curve, prepare

HBETA = 4862.68

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
