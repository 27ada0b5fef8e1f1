"""Residual, chi-square and rms error: right for the truth, and wrong for what is wrong."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from core.metrics.fidelity import bias, chi_square, error, in_windows, mae, mse, residual, rms_error
from core.spectrum import Kernel, Spectra

PIXELS = 4000
WAVE = np.linspace(4000.0, 8000.0, PIXELS)
TRUTH = 1.0 + 0.3 * np.sin(WAVE / 50.0)


def observed(rng: np.random.Generator, noise: Kernel, stars: int = 3) -> Spectra:
    """Stars with white noise of `noise.scale` times a quoted sigma that rises along the spectrum; a tenth is dead."""
    sigma = np.linspace(0.05, 0.2, PIXELS)
    live = rng.random((stars, PIXELS)) > 0.1
    flux = TRUTH + noise.scales(WAVE) * sigma * rng.standard_normal((stars, PIXELS))
    ones = np.ones((stars, PIXELS))
    return Spectra(WAVE, np.where(live, flux, 77.0), live / sigma**2, ones, pd.DataFrame(index=range(stars)), noise)


@pytest.mark.parametrize("scale", [(1.0, 1.0), (0.77, 0.6)])
def test_the_truth_has_chi_square_one_whatever_the_noise_scale(
    rng: np.random.Generator, scale: tuple[float, float]
) -> None:
    spectra = observed(rng, Kernel(scale))
    # variance of a mean of n squared normals is 2 / n
    tolerance = 4.5 * np.sqrt(2 / spectra.measured.sum(-1).min())
    assert np.abs(chi_square(np.broadcast_to(TRUTH, spectra.flux.shape), spectra) - 1).max() < tolerance


def test_a_scale_left_out_is_seen(rng: np.random.Generator) -> None:
    spectra = observed(rng, Kernel((0.77, 0.6))).with_noise(Kernel())
    assert (chi_square(np.broadcast_to(TRUTH, spectra.flux.shape), spectra) < 0.7).all()


def test_the_observation_itself_has_chi_square_zero_and_a_wrong_model_more_than_one(rng: np.random.Generator) -> None:
    spectra = observed(rng, Kernel())
    assert (chi_square(spectra.flux, spectra) == 0).all()
    assert (chi_square(np.broadcast_to(TRUTH + 0.1, spectra.flux.shape), spectra) > 1.3).all()


def test_dead_pixels_do_not_count(rng: np.random.Generator) -> None:
    spectra = observed(rng, Kernel())
    model = np.where(spectra.measured, TRUTH, 1e9)
    assert np.isnan(residual(model, spectra)[~spectra.measured]).all()
    assert (chi_square(model, spectra) < 1.2).all()
    assert np.isinf(error(spectra)[~spectra.measured]).all()
    assert np.allclose(rms_error(model, TRUTH, spectra.measured), 0)


def test_draws_are_judged_one_by_one(rng: np.random.Generator) -> None:
    spectra = observed(rng, Kernel())
    draws = np.stack([spectra.flux, np.broadcast_to(TRUTH, spectra.flux.shape)])
    both = chi_square(draws, spectra)
    assert both.shape == (2, 3)
    assert (both[0] == 0).all()
    assert np.array_equal(both[1], chi_square(draws[1], spectra))


def test_a_star_with_no_live_pixel_has_no_chi_square() -> None:
    ones = np.ones((1, PIXELS))
    spectra = Spectra(WAVE, ones, 0 * ones, ones, pd.DataFrame(index=[0]))
    assert np.isnan(chi_square(ones, spectra)).all()
    assert np.isnan(rms_error(ones, ones, spectra.measured)).all()


def test_rms_error_is_that_of_the_difference() -> None:
    truth = np.zeros((2, 4))
    model = np.array([[3.0, -3.0, 3.0, 9.0], [0.0, 0.0, 0.0, 0.0]])
    assert np.allclose(rms_error(model, truth, [[True, True, True, False], [True] * 4]), [3.0, 0.0])


def test_another_shape_is_refused(rng: np.random.Generator) -> None:
    with pytest.raises(ValueError, match="must end in"):
        residual(TRUTH, observed(rng, Kernel()))


def test_an_erased_line_is_seen_inside_its_window_and_hardly_elsewhere(rng: np.random.Generator) -> None:
    window = (5590.0, 5610.0)
    inside = in_windows(WAVE, [window])
    line = 0.4 * np.exp(-0.5 * ((WAVE - 5600.0) / 4.0) ** 2)
    clean = observed(rng, Kernel())
    spectra = Spectra(WAVE, clean.flux - line, clean.ivar, clean.continuum, clean.meta, clean.noise)
    shape = spectra.flux.shape
    kept, erased = np.broadcast_to(TRUTH - line, shape), np.broadcast_to(TRUTH, shape)
    scatter = np.sqrt(2 / (spectra.measured & inside).sum(-1).min())
    assert (np.abs(chi_square(kept, spectra, inside) - 1) < 4.5 * scatter).all(), "control: the line kept is right"
    assert (chi_square(erased, spectra, inside) > 1 + 4.5 * scatter).all()
    assert (chi_square(erased, spectra) < 1.15).all(), "over all pixels the eraser looks right, which is the point"
    assert np.allclose(rms_error(erased, kept, inside & spectra.measured) ** 2,
                       [(line[live & inside] ** 2).mean() for live in spectra.measured])


def test_windows_hold_their_ends_may_overlap_and_may_be_none() -> None:
    assert in_windows([1.0, 2.0, 3.0, 4.0], [(2.0, 3.0), (3.0, 3.5)]).tolist() == [False, True, True, False]
    assert not in_windows(WAVE, []).any()
    ones = np.ones((1, PIXELS))
    spectra = Spectra(WAVE, ones, ones, ones, pd.DataFrame(index=[0]))
    assert np.isnan(chi_square(ones, spectra, in_windows(WAVE, []))).all()


def test_bias_squared_and_absolute_errors_are_those_of_the_live_pixels_asked_about() -> None:
    truth, measured = np.zeros((2, 4)), np.array([[True, True, True, False], [True] * 4])
    model = np.array([[[3.0, -3.0, 1.5, np.nan], [1.0, 1.0, 1.0, -3.0]]])
    assert np.allclose(bias(model, truth, measured), [[0.5, 0.0]])
    assert np.allclose(mae(model, truth, measured), [[2.5, 1.5]])
    assert np.allclose(mse(model, truth, measured), [[6.75, 3.0]])
    assert np.allclose(mse(model, truth, measured), rms_error(model, truth, measured) ** 2)
    window = in_windows(np.arange(4.0), [(1.0, 2.0)])
    assert np.allclose(bias(model, truth, measured, window), [[-0.75, 1.0]])
    assert np.allclose(mae(model, truth, measured, window), [[2.25, 1.0]])
    assert np.allclose(mse(model, truth, measured, window), [[5.625, 1.0]])
    assert all(np.isnan(f(model, truth, measured, False)).all() for f in (bias, mae, mse))


def test_noise_has_no_bias_and_an_erased_line_has_the_line_s(rng: np.random.Generator) -> None:
    noisy = TRUTH + 0.1 * rng.standard_normal((5, PIXELS))
    assert np.abs(bias(noisy, TRUTH, True)).max() < 4.5 * 0.1 / np.sqrt(PIXELS)
    line = 0.4 * np.exp(-0.5 * ((WAVE - 5600.0) / 4.0) ** 2)
    assert bias(TRUTH, TRUTH - line, True) == pytest.approx(line.mean())
    assert bias(TRUTH, TRUTH - line, True, in_windows(WAVE, [(5590.0, 5610.0)])) > 0.1


def test_a_truth_that_is_not_finite_is_refused_where_it_counts_and_nowhere_else() -> None:
    truth = np.array([1.0, np.nan])
    for measure in (bias, mae, mse):
        with pytest.raises(ValueError, match="not finite in 1 pixels"):
            measure([1.0, 1.0], truth, True)
        assert measure([1.0, 1.0], truth, [True, False]) == 0
