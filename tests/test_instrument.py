"""Velocity, rotation, line-spread function, dust and calibration do what their formulas say, to stated accuracy."""

from __future__ import annotations

import numpy as np
import pytest

from core.data.grid import C_KMS, N_PIXELS, STEP, WAVE, doppler
from core.data.instrument import MARGIN, WIDE, calibration, extinction, lsf_sigma, observe
from core.spectrum import ARM_JOIN

NATIVE = 2400.0
PIXEL = C_KMS * STEP * np.log(10)  # 69 km/s
AT = np.arange(len(WIDE), dtype=float)
VELOCITIES = np.array([-400.0, -233.3, -71.2, -12.0, -1.0, 0.0, 0.4, 7.7, 34.5, 69.0, 150.1, 288.8, 400.0])


def line(centre: float, sigma: float, depth: float = 0.5) -> np.ndarray:
    """One absorption line on WIDE, in pixels."""
    return 1 - depth * np.exp(-0.5 * ((AT - centre) / sigma) ** 2)


def seen(templates: np.ndarray, velocity=0.0, vsini=0.0, blue=NATIVE, red=NATIVE) -> np.ndarray:
    rows = np.atleast_2d(templates)
    each = (np.broadcast_to(np.asarray(a, float), len(rows)) for a in (velocity, vsini, blue, red))
    return observe(rows, *each, NATIVE)


def moments(flux: np.ndarray, near: float, reach: int = 60) -> tuple[float, float, float]:
    """Area [pixels], centroid and variance of one line about `near`."""
    part = slice(int(near) - reach, int(near) + reach + 1)
    depth, at = 1 - flux[part], AT[part]
    area = depth.sum()
    centre = (depth * at).sum() / area
    return float(area), float(centre), float((depth * (at - centre) ** 2).sum() / area)


def test_the_working_grid_lies_inside_the_wide_one():
    np.testing.assert_allclose(WIDE[MARGIN:-MARGIN], WAVE, rtol=1e-13)
    assert len(WIDE) == N_PIXELS + 2 * MARGIN
    assert MARGIN * PIXEL > 500


@pytest.mark.parametrize("sigma", [1.2, 1.5, 4.0])
def test_a_shift_is_right_to_a_tenth_of_a_kilometre_per_second(sigma):
    shifted = seen(np.tile(line(1930.3, sigma), (len(VELOCITIES), 1)), VELOCITIES)
    centre = np.array([moments(row, 1930.3)[1] for row in shifted])
    wave = np.exp(np.interp(centre, AT, np.log(WIDE)))
    rest = np.exp(np.interp(1930.3, AT, np.log(WIDE)))
    want = np.array([doppler(rest, v) for v in VELOCITIES])
    assert np.abs((wave - want) / rest * C_KMS).max() < 0.1
    wrong = np.array([doppler(rest, -v) for v in VELOCITIES])  # the control: the other sign
    assert np.abs((wave - wrong) / rest * C_KMS).max() > 700


def test_the_sharpest_line_a_template_can_hold_shifts_to_a_fortieth_of_a_pixel():
    """At R = 2400 a lone line is .77 pixels wide, more than the grid can carry: its place is good to 1.5 km/s."""
    sharp = lsf_sigma(NATIVE)
    shifted = seen(np.tile(line(1930.3, float(sharp)), (len(VELOCITIES), 1)), VELOCITIES)
    want = np.log10((1 + VELOCITIES / C_KMS) / (1 - VELOCITIES / C_KMS)) / 2 / STEP
    error = np.array([moments(row, 1930.3)[1] for row in shifted]) - 1930.3 - want
    assert np.abs(error * PIXEL).max() < 1.5
    assert np.abs(error * PIXEL)[VELOCITIES == 0.0] < 0.01


def test_a_whole_spectrum_shifts_as_one_by_cross_correlation(rng):
    centres, depths = rng.uniform(30, len(WIDE) - 30, 250), rng.uniform(0.02, 0.3, 250)

    def crowd(shift: float) -> np.ndarray:
        lines = depths[:, None] * np.exp(-0.5 * ((AT - centres[:, None] - shift) / 1.0) ** 2)
        return np.exp(-lines.sum(0))

    shifted = seen(np.tile(crowd(0.0), (len(VELOCITIES), 1)), VELOCITIES)[:, 40:-40]
    for velocity, row in zip(VELOCITIES, shifted, strict=True):
        pixels = np.log10(np.sqrt((1 + velocity / C_KMS) / (1 - velocity / C_KMS))) / STEP
        misfit = [((row - crowd(pixels + d)[40:-40]) ** 2).sum() for d in (-0.1, 0.0, 0.1)]
        vertex = 0.05 * (misfit[0] - misfit[2]) / (misfit[0] - 2 * misfit[1] + misfit[2])
        assert abs(vertex * PIXEL) < 0.1
        assert np.abs(row - crowd(pixels)[40:-40]).max() < 2e-3
    assert np.abs(shifted[0] - crowd(-5.0)[40:-40]).max() > 0.1  # the control: .8 pixels off is far off


@pytest.mark.parametrize("velocity", [500.1, -501.0, 1e4, np.nan, np.inf])
def test_a_velocity_out_of_range_is_refused_also_when_only_one_star_has_it(velocity):
    with pytest.raises(ValueError, match="give one inside"):
        seen(np.ones((3, len(WIDE))), [0.0, velocity, 3.0])
    assert np.isfinite(seen(np.ones((2, len(WIDE))), [500.0, -500.0])).all()


def test_a_resolution_above_the_templates_is_refused():
    with pytest.raises(ValueError, match="2500 is above the templates' 2400"):
        seen(np.ones((1, len(WIDE))), blue=2500.0)


def test_a_flat_spectrum_stays_flat_and_its_ends_repeat():
    level = np.full((1, len(WIDE)), 0.7)
    np.testing.assert_allclose(seen(level, 333.0, 100.0, 1500, 1900), level, atol=1e-12)
    ends = np.where(AT < 1000, 0.9, 0.6) + 0.1 * np.exp(-0.5 * ((AT - 1000) / 300) ** 2)
    moved = seen(ends, 480.0)[0]
    np.testing.assert_allclose(moved[:5], ends[0], atol=2e-3)  # the far padding's step rings below .2 %


@pytest.mark.parametrize("resolution", [1400.0, 1800.0, 2200.0])
def test_the_line_spread_function_adds_its_variance_in_quadrature(resolution):
    own = 2.0
    area, centre, variance = moments(seen(line(2000.0, own), blue=resolution, red=resolution)[0], 2000.0)
    extra = lsf_sigma(resolution) ** 2 - lsf_sigma(NATIVE) ** 2
    np.testing.assert_allclose([area, centre], [0.5 * own * np.sqrt(2 * np.pi), 2000.0], rtol=1e-7)
    np.testing.assert_allclose(variance, own**2 + extra, rtol=1e-6)
    linear = (own + lsf_sigma(resolution) - lsf_sigma(NATIVE)) ** 2  # the control: widths added, not variances
    assert abs(variance - linear) > 0.05


def test_the_resolution_runs_from_blue_to_red_along_log_wavelength():
    for at in (200.0, 1900.0, 3600.0):
        _, _, variance = moments(seen(line(at, 2.0), blue=1500.0, red=2100.0)[0], at)
        ramp = at / (len(WIDE) - 1)
        mixed = (1 - ramp) * lsf_sigma(1500.0) ** 2 + ramp * lsf_sigma(2100.0) ** 2
        # the ramp also tilts the line within itself by its slope, a part in 1e3 of the variance
        np.testing.assert_allclose(variance, 4.0 + mixed - lsf_sigma(NATIVE) ** 2, rtol=2e-3)
    swapped = moments(seen(line(200.0, 2.0), blue=2100.0, red=1500.0)[0], 200.0)[2]  # the control: the ends swapped
    assert abs(swapped - moments(seen(line(200.0, 2.0), blue=1500.0, red=2100.0)[0], 200.0)[2]) > 0.3


def test_lsf_sigma_is_the_gaussian_whose_fwhm_is_lambda_over_r():
    sigma_angstrom = lsf_sigma(1800.0) * STEP * np.log(10) * 5000.0
    np.testing.assert_allclose(sigma_angstrom, 5000.0 / 1800.0 / 2.3548200, rtol=1e-6)


@pytest.mark.parametrize("vsini", [20.0, 100.0, 250.0])
def test_rotation_keeps_the_area_and_widens_by_a_quarter_of_vsini_squared(vsini):
    area, centre, variance = moments(seen(line(2000.0, 2.0), vsini=vsini)[0], 2000.0)
    np.testing.assert_allclose([area, centre], [np.sqrt(2 * np.pi), 2000.0], rtol=1e-6)
    extra = (vsini / PIXEL) ** 2 / 4  # of the profile 2 sqrt(1 - x^2) / pi, no limb darkening
    np.testing.assert_allclose(variance - 4.0, extra, rtol=1e-4)
    assert abs(variance - 4.0 - extra * 0.8) > 0.1 * extra  # the control: v^2 / 5, the fully darkened disk


def test_rotation_has_the_shape_of_its_integral():
    vsini, sigma = 250.0, 1.2
    x = np.linspace(-1, 1, 4001)[1:-1]
    weight = np.sqrt(1 - x**2)
    weight /= weight.sum()
    want = 1 - 0.5 * (weight[:, None] * np.exp(
        -0.5 * ((AT[1960:2041] - 2000.0 - x[:, None] * vsini / PIXEL) / sigma) ** 2)).sum(0)
    np.testing.assert_allclose(seen(line(2000.0, sigma), vsini=vsini)[0, 1960:2041], want, atol=1e-4)


# ---------------------------------------------------------------------------------------------- dust, calibration


def absorbed(e_bv: float, wave: float, r_v: float = 3.1) -> float:
    """A(lambda) [mag]."""
    return float(np.interp(wave, WIDE, -2.5 * np.log10(extinction(np.array([e_bv]), r_v)[0])))


@pytest.mark.parametrize(("x", "ratio"), [(2.27, 1.337), (1.82, 1.000), (1.43, 0.751), (1.11, 0.479)])
def test_extinction_is_that_of_ccm89_table_3(x, ratio):
    """A(lambda) / A(V) of B, V, R, I for R_V = 3.1: the measured bands, which the polynomials follow to 1.1 %."""
    assert abs(absorbed(1.0, 1e4 / x) / 3.1 / ratio - 1) < 0.011


@pytest.mark.parametrize(("wave", "magnitudes"), [(4000.0, 1.4645557), (8000.0, 0.59748901)])
def test_extinction_is_that_of_another_implementation_of_ccm89(wave, magnitudes):
    """The package `extinction` (Barbary 2016) for A(V) = 1 and R_V = 3.1, from its documentation."""
    assert abs(absorbed(1.0 / 3.1, wave) - magnitudes) < 1e-6
    assert abs(absorbed(1.0 / 3.1, wave, 2.5) * 3.1 / 2.5 - magnitudes) > 0.02  # the control: another R_V


def test_extinction_at_5495_is_r_v_times_the_colour_excess():
    for e_bv, r_v in ((0.1, 3.1), (0.5, 3.1), (0.3, 5.0)):
        assert abs(absorbed(e_bv, 1e4 / 1.82, r_v) - r_v * e_bv) < 1e-4
    assert abs(absorbed(0.5, 5495.0) - 0.5) > 1.0  # the control: E(B - V) is not A(V)
    assert np.all(extinction(np.array([0.0])) == 1.0)
    assert np.all(np.diff(extinction(np.array([0.2]))[0]) > 0)  # it reddens


def test_calibration_is_positive_smooth_and_of_the_stated_size(rng):
    n = 4000
    log = np.log(calibration(n, rng, smooth=0.05, step=0.02))
    order = np.arange(1, 9)
    for pixel, step in ((0, 0.0), (len(WIDE) - 1, 0.02)):  # at the ends every cosine is +-1
        want = 0.05**2 * (1.0 / order**2).sum() + step**2
        assert abs(log[:, pixel].var() / want - 1) < 4 * np.sqrt(2 / n)
        assert abs(log[:, pixel].mean()) < 4 * np.sqrt(want / n)
    assert abs(log[:, 0].var() / (0.05**2 * 8) - 1) > 4 * np.sqrt(2 / n)  # the control: cosines all of one size


def test_the_arms_join_by_a_step_of_the_stated_size(rng):
    n = 4000
    log = np.log(calibration(n, rng, smooth=0.0, step=0.02))
    low, high = np.searchsorted(WIDE, [ARM_JOIN - 300, ARM_JOIN + 300])
    assert np.abs(log[:, low]).max() < 1e-4
    assert abs(log[:, high].var() / 0.02**2 - 1) < 4 * np.sqrt(2 / n)
    assert np.all(calibration(3, rng, 0.0, 0.0) == 1.0)
