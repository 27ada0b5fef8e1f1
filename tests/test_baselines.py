"""The classical filters do what their papers say, and the wavelet's thresholds are the noise map's."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import pywt
from scipy.signal import savgol_filter

from core.data.grid import N_PIXELS, WAVE
from core.data.noise import add_noise
from core.models.baselines import SavitzkyGolay, Wavelet, bridge
from core.pipeline import reconstruct
from core.spectrum import WHITE, Kernel, Spectra

PIXELS = np.arange(N_PIXELS)
UNEVEN = np.where(PIXELS % 1200 < 600, 0.02, 0.08) * (1 + 0.3 * np.sin(PIXELS / 200))
COLOURED = Kernel(scale=(0.8, 0.6), rho=(0.1, 0.5))


def noise_only(stars: int, kernel: Kernel = COLOURED, sigma: np.ndarray = UNEVEN) -> Spectra:
    ivar = np.broadcast_to(sigma**-2.0, (stars, N_PIXELS))
    names = pd.DataFrame({"star": [f"b{i}" for i in range(stars)]})
    flat = Spectra(WAVE, np.ones((stars, N_PIXELS)), ivar, np.ones((stars, N_PIXELS)), names, kernel)
    return add_noise(flat, ivar, seed=6)


def test_the_noisy_method_is_the_spectrum_itself_with_straight_bridges():
    spectra = noise_only(1)
    ivar = np.array(spectra.ivar)
    ivar[0, 100:110], ivar[0, :5] = 0, 0
    gap = Spectra(WAVE, spectra.flux, ivar, spectra.continuum, spectra.meta)
    answer = reconstruct(gap, "noisy").draws[0, 0]
    live = gap.measured[0]
    np.testing.assert_array_equal(answer[live], spectra.flux[0, live])
    np.testing.assert_allclose(np.diff(answer[99:111]), (answer[110] - answer[99]) / 11)
    np.testing.assert_array_equal(answer[:5], answer[5])
    np.testing.assert_array_equal(bridge(spectra.flux, gap.measured)[0], answer)


@pytest.mark.parametrize(("window", "order"), [(11, 3), (5, 2), (31, 4), (3, 1), (7, 0)])
def test_savitzky_golay_is_scipy_s_filter_inside(window, order):
    spectra = noise_only(2)
    half = window // 2
    mine = reconstruct(spectra, "savgol", window=window, order=order).draws[0]
    scipys = savgol_filter(spectra.flux, window, order, axis=1)
    np.testing.assert_allclose(mine[:, half:-half], scipys[:, half:-half], atol=1e-12)
    assert np.abs(mine[:, half:-half] - spectra.flux[:, half:-half]).max() > 0.01  # the control


def test_savitzky_golay_keeps_a_straight_line_to_the_ends_and_a_cubic_inside():
    x = np.linspace(-1, 1, N_PIXELS)
    for power, part in ((1, slice(None)), (3, slice(5, -5))):
        flux = (2 + x**power)[None]
        spectra = Spectra(WAVE, flux, np.ones_like(flux), np.ones_like(flux), pd.DataFrame({"star": ["a"]}))
        np.testing.assert_allclose(reconstruct(spectra, "savgol").draws[0][:, part], flux[:, part], atol=1e-9)


@pytest.mark.parametrize("settings", [{"window": 10}, {"window": 3, "order": 3}, {"order": -1}, {"window": -5}])
def test_savitzky_golay_settings_that_cannot_be_are_refused(settings):
    with pytest.raises(ValueError, match="give an odd window above the order"):
        SavitzkyGolay(**settings)


def test_a_window_longer_than_the_spectrum_is_refused():
    spectra = noise_only(1)
    short = Spectra(WAVE[:40], spectra.flux[:, :40], spectra.ivar[:, :40], spectra.continuum[:, :40], spectra.meta)
    with pytest.raises(ValueError, match="shorter than the filter"):
        reconstruct(short, "savgol", window=101)
    assert np.isfinite(reconstruct(short, "wavelet").draws).all()


# ------------------------------------------------------------------------------------------------ wavelet


def kept(spectra: Spectra, pretend: Kernel | None = None, factor: float = 1.0) -> np.ndarray:
    """(levels, arms x quality) share of detail coefficients of pure noise that exceed a threshold of 3."""
    kernel = spectra.noise if pretend is None else pretend
    sigma2 = (factor * kernel.scales(WAVE) / np.sqrt(spectra.ivar[:1])) ** 2
    centre, side = kernel.taps(WAVE)
    method = Wavelet()
    details = pywt.swt(spectra.flux - 1, "sym8", level=5, norm=True, axis=1, trim_approx=True)[1:]
    variances = {a: method._variances(sigma2, float(a)) for a in np.unique(side / centre)}
    inside = (PIXELS > 500) & (PIXELS < N_PIXELS - 500)
    shares = []
    for level, detail in enumerate(details):
        variance = sum(np.where(side / centre == a, v[level], 0) for a, v in variances.items())
        over = np.abs(detail) > 3 * np.sqrt(variance)
        shares.append([over[:, inside & arm & quality].mean() for arm in (WAVE < 5800, WAVE > 6000)
                       for quality in (UNEVEN < 0.03, UNEVEN > 0.05)])
    return np.array(shares)


EXPECTED = 0.0027  # of a normal distribution beyond 3 standard deviations


def test_as_many_coefficients_of_uneven_coloured_noise_survive_as_the_threshold_says():
    share = kept(noise_only(600))
    # coefficients of level j are alike over 2^j pixels; two thirds of 350-500 pixels in each cell
    independent = 600 * 350 / 2.0 ** np.arange(5, 0, -1)[:, None]
    error = np.sqrt(EXPECTED / independent)
    assert (np.abs(share - EXPECTED) < 5 * error + 0.1 * EXPECTED).all()
    for wrong in ({"factor": 2.0}, {"factor": 0.5}, {"pretend": Kernel(COLOURED.scale)}, {"pretend": WHITE}):
        control = kept(noise_only(600), **wrong)
        assert not (np.abs(control - EXPECTED) < 5 * error + 0.1 * EXPECTED).all()


def test_pure_noise_is_taken_out_at_the_ends_too():
    spectra = noise_only(200, sigma=np.full(N_PIXELS, 0.05))
    error = (reconstruct(spectra, "wavelet").draws[0] - 1) / (COLOURED.scales(WAVE) * 0.05)
    rms = np.sqrt((error**2).mean(axis=0))
    middle = rms[600:-600].mean()
    assert middle < 0.35  # white noise would leave 1 / sqrt(32) = .18 and the false coefficients
    assert rms[:200].mean() < 1.35 * middle
    assert rms[-200:].mean() < 1.6 * middle  # rho is .5 there


def test_the_two_ends_do_not_see_each_other():
    spectra = noise_only(1)
    other = np.array(spectra.flux)
    other[0, -100:] += 2.0
    changed = Spectra(WAVE, other, spectra.ivar, spectra.continuum, spectra.meta, spectra.noise)
    a, b = (reconstruct(s, "wavelet").draws[0, 0] for s in (spectra, changed))
    np.testing.assert_allclose(a[:1500], b[:1500], atol=1e-12)
    assert np.abs(a - b)[-100:].max() > 1  # the control


def with_line(depth_in_sigma: float) -> tuple[float, float]:
    """Depth kept of a line of 3 pixels (sigma), by rms over stars of what is lost, in the good half of the pixels."""
    spectra = noise_only(40)
    at = 900 + 1200 * np.arange(2)  # in the bad half
    at = np.concatenate([at - 600, at])
    line = np.exp(-0.5 * ((PIXELS[:, None] - at) / 3.0) ** 2) * (depth_in_sigma * COLOURED.scales(WAVE) * UNEVEN)[at]
    seen = Spectra(WAVE, spectra.flux - line.sum(1), spectra.ivar, spectra.continuum, spectra.meta, COLOURED)
    answer = reconstruct(seen, "wavelet").draws[0]
    share = (1 - answer[:, at]) / line.sum(1)[at]
    return float(share.mean()), float(share.std() / np.sqrt(share.size))


def test_a_line_of_20_sigma_is_kept_and_one_of_half_a_sigma_is_not():
    strong, error = with_line(20.0)
    assert abs(strong - 1) < 5 * error + 0.02
    weak, _ = with_line(0.5)
    assert weak < 0.6  # the control: not everything is kept


def test_thresholds_follow_the_noise_map():
    """A wiggle of one height is signal where the noise is small, and noise where it is large."""
    sigma = np.where(PIXELS < 1920, 0.01, 0.2)
    wiggle = 0.08 * np.sin(PIXELS / 2.0)[None]
    flux = 1 + wiggle
    spectra = Spectra(WAVE, flux, (sigma**-2.0)[None], np.ones_like(flux), pd.DataFrame({"star": ["a"]}))
    left = (reconstruct(spectra, "wavelet").draws[0] - 1).std(axis=0)
    answer = reconstruct(spectra, "wavelet").draws[0, 0] - 1
    assert answer[300:1500].std() > 0.9 * wiggle[0, 300:1500].std()
    assert answer[2300:3500].std() < 0.1 * wiggle[0, 2300:3500].std()
    assert left.shape == (N_PIXELS,)


def test_no_threshold_gives_the_spectrum_back_and_a_huge_one_only_the_slow_part():
    spectra = noise_only(2)
    np.testing.assert_allclose(reconstruct(spectra, "wavelet", strength=0.0).draws[0], spectra.flux, atol=1e-10)
    slow = reconstruct(spectra, "wavelet", strength=1e6).draws[0]
    assert np.abs(np.diff(slow)).max() < 0.02


@pytest.mark.parametrize("settings", [{"wavelet": "sym99"}, {"wavelet": "gaus1"}, {"levels": 0}, {"strength": -1.0}])
def test_wavelet_settings_that_cannot_be_are_refused(settings):
    with pytest.raises(ValueError, match="usual choices|give at least one level"):
        Wavelet(**settings)
