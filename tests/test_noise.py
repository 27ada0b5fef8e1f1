"""Noise put on spectra has the variance and correlation it says, and drawn noise maps look like LAMOST's."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from core.data import noise
from core.data.grid import N_PIXELS, WAVE
from core.data.noise import MODEL_FILE, add_noise, degrade, snr
from core.spectrum import WHITE, Kernel, Spectra

RESULTS = MODEL_FILE.parents[1] / "results"
KERNEL = Kernel(scale=(0.8, 0.6), rho=(0.2, 0.5))
BLUE, RED = WAVE[1:-1] < 5890, WAVE[1:-1] > 5910  # pairs of pixels within one arm


def clean(stars: int = 24, ratio: float = 100.0, kernel: Kernel = KERNEL) -> Spectra:
    """Featureless stars with a noise map that changes from pixel to pixel, and dead pixels."""
    sigma = (1 + 0.5 * np.sin(np.arange(N_PIXELS) / 7)) / ratio * np.ones((stars, 1))
    ivar = sigma**-2
    ivar[:, :60], ivar[:, 2500:2520], ivar[:, 3000::97] = 0, 0, 0
    names = pd.DataFrame({"star": [f"s{i}" for i in range(stars)]})
    return Spectra(WAVE, np.ones_like(ivar), ivar, np.ones_like(ivar), names, kernel)


def judged(flux: np.ndarray, sigma: np.ndarray) -> dict[str, tuple[float, float]]:
    """(s^2, its error), (rho, its error) of flux - 1 in units of sigma, per arm."""
    z = np.where(np.isfinite(sigma), (flux - 1) / sigma, np.nan)[:, 1:-1]
    out = {}
    for arm, inside in (("blue", BLUE), ("red", RED)):
        part = z[:, inside]
        pair = part[:, 1:] * part[:, :-1]
        n, s2 = np.isfinite(part).sum(), float(np.nanmean(part**2))
        out[f"s2 {arm}"] = (s2, s2 * np.sqrt(2 * (1 + 2 * 0.5**2) / n))  # correlation makes squares correlated by rho^2
        out[f"rho {arm}"] = (float(np.nanmean(pair)) / s2, np.sqrt(1.5 / n))
    return out


def agrees(found: dict[str, tuple[float, float]], kernel: Kernel, sigmas: float = 5.0) -> bool:
    expected = {"s2 blue": kernel.scale[0] ** 2, "s2 red": kernel.scale[1] ** 2, "rho blue": kernel.rho[0],
                "rho red": kernel.rho[1]}
    return all(abs(found[k][0] - v) < sigmas * found[k][1] for k, v in expected.items())


# ------------------------------------------------------------------------------------------------ noise put on


def test_added_noise_has_the_stated_scale_and_correlation_in_each_arm():
    stars = clean()
    seen = add_noise(stars, stars.ivar, seed=1)
    assert agrees(judged(seen.flux, stars.sigma), KERNEL)
    assert seen.noise == KERNEL
    for wrong in (WHITE, Kernel((0.8, 0.6)), Kernel((0.8, 0.63), (0.2, 0.5)), Kernel((0.6, 0.8), (0.5, 0.2))):
        assert not agrees(judged(add_noise(stars, stars.ivar, 1, wrong).flux, stars.sigma), KERNEL)  # the controls


def test_dead_pixels_get_no_noise_and_sit_on_the_curve():
    stars = clean(2)
    seen = add_noise(stars, stars.ivar, seed=1)
    assert (seen.flux[~stars.measured] == 1).all()
    np.testing.assert_array_equal(seen.ivar, stars.ivar)
    one_map = add_noise(stars, stars.ivar[0], seed=1)
    np.testing.assert_array_equal(one_map.flux, seen.flux)
    with pytest.raises(ValueError, match="negative"):
        add_noise(stars, -stars.ivar, seed=1)


def test_noise_of_one_seed_repeats_and_of_another_does_not():
    stars = clean(2)
    np.testing.assert_array_equal(add_noise(stars, stars.ivar, 3).flux, add_noise(stars, stars.ivar, 3).flux)
    a, b = (add_noise(stars, stars.ivar, s).flux[stars.measured] - 1 for s in (3, 4))
    assert abs(np.corrcoef(a, b)[0, 1]) < 5 * np.sqrt(1.5 / a.size)


@pytest.mark.parametrize("put", [lambda s: add_noise(s, s.ivar, 5), lambda s: degrade(s, 20.0, 5)])
def test_a_star_s_noise_does_not_know_its_neighbours(put):
    stars = clean(5)
    batch = put(stars)
    np.testing.assert_array_equal(put(stars.select(3)).flux[0], batch.flux[3])
    np.testing.assert_array_equal(put(stars.select([4, 3, 0])).flux, batch.flux[[4, 3, 0]])
    assert np.abs(batch.flux[3] - batch.flux[2]).max() > 0.01  # the control: two stars have two noises


def test_no_stars_get_no_noise():
    assert add_noise(clean().select([]), clean(1).ivar[0], 1).flux.shape == (0, N_PIXELS)
    assert len(degrade(clean().select([]), 10.0)) == 0


# ------------------------------------------------------------------------------------------------ degraded


def test_s_n_is_the_median_of_live_pixels_in_the_g_window():
    stars = clean(1)
    inside = (WAVE > 4100) & (WAVE < 5300)
    assert snr(stars)[0] == pytest.approx(np.median((stars.flux / stars.sigma)[0, inside]))
    dead = replace(stars, ivar=np.where(inside, 0.0, stars.ivar))
    assert np.isnan(snr(dead)[0])
    with pytest.raises(ValueError, match="unknown; leave it out"):
        degrade(dead, 5.0)


@pytest.mark.parametrize("target", [60.0, 10.0, 1.5])
def test_a_degraded_star_has_the_wanted_s_n_and_noise_of_the_right_variance_and_correlation(target):
    stars = clean()
    observed = add_noise(stars, stars.ivar, seed=1)
    seen = degrade(observed, target, seed=2)
    np.testing.assert_allclose(snr(replace(seen, flux=observed.flux)), target)  # the map is scaled exactly
    # of the noisy flux the median over pixels of uneven quality is some per cent too high where the noise is as large
    # as their differences; so is the survey's own number
    assert np.abs(snr(seen) / target - 1).max() < 0.02 + 0.3 / target
    assert agrees(judged(seen.flux, seen.sigma), KERNEL)

    factor = (snr(observed) / target)[:, None]
    sigma = np.where(observed.measured, observed.sigma, 0)
    z = noise.white_noise(stars.stars, 2, "degrade", N_PIXELS + 2)
    coloured = KERNEL.scales(WAVE) * sigma * KERNEL.colour(WAVE, z)
    np.testing.assert_allclose(seen.flux, observed.flux + coloured * np.sqrt(factor**2 - 1), atol=1e-12)
    forgot = observed.flux + coloured * factor  # the controls: the noise that is already there forgotten; white
    white = observed.flux + KERNEL.scales(WAVE) * sigma * np.sqrt(factor**2 - 1) * z[:, 1:-1]
    unscaled = observed.flux + sigma * np.sqrt(factor**2 - 1) * KERNEL.colour(WAVE, z)
    assert not agrees(judged(forgot, seen.sigma), KERNEL) or target < 20  # else it is too little
    assert not agrees(judged(white, seen.sigma), KERNEL)
    assert not agrees(judged(unscaled, seen.sigma), KERNEL)


def test_dead_pixels_stay_dead_and_untouched_when_a_star_is_degraded():
    stars = clean(3)
    seen = degrade(stars, 10.0, seed=2)
    np.testing.assert_array_equal(seen.measured, stars.measured)
    np.testing.assert_array_equal(seen.flux[~stars.measured], stars.flux[~stars.measured])
    np.testing.assert_array_equal(seen.continuum, stars.continuum)


def test_each_star_may_have_its_own_target_and_its_own_s_n_changes_nothing():
    stars = clean(3)
    own = snr(stars)
    seen = degrade(stars, [own[0], 50.0, 5.0], seed=1)
    np.testing.assert_array_equal(seen.flux[0], stars.flux[0])
    np.testing.assert_array_equal(seen.ivar[0], stars.ivar[0])
    np.testing.assert_allclose(stars.ivar[1:, 100] / seen.ivar[1:, 100], (own[1:] / [50, 5]) ** 2)


def test_degrading_twice_wants_two_seeds():
    stars = clean()
    start = add_noise(stars, stars.ivar, 1)
    two = degrade(degrade(start, 60.0, seed=2), 20.0, seed=3)
    assert agrees(judged(two.flux, two.sigma), KERNEL)
    same = degrade(degrade(start, 60.0, seed=2), 20.0, seed=2)  # the control, and the trap that the docstring names
    assert not agrees(judged(same.flux, same.sigma), KERNEL)


@pytest.mark.parametrize(("target", "message"), [(0.0, "positive"), (-1.0, "positive"), (np.nan, "positive"),
                                                 (np.inf, "positive"), (1000.0, "ask for at most")])
def test_a_target_that_cannot_be_is_refused(target, message):
    with pytest.raises(ValueError, match=message):
        degrade(clean(2), target)
