"""Equivalent widths are those of closed-form lines, and of specutils, for whole stacks; bands are in vacuum."""

from __future__ import annotations

import numpy as np
import pytest

from core.data.grid import WAVE, air_to_vacuum, vacuum_to_air
from core.metrics.lines import LINES, Line, equivalent_width

#: a line with room: +-5 sigma in the band, side bands beyond
ROOMY = Line("roomy", 6000.0, (5980.0, 6020.0), (5940.0, 5970.0), (6030.0, 6060.0), "this test")


def gauss(centre: float, sigma: float, depth: float) -> np.ndarray:
    return depth * np.exp(-0.5 * ((WAVE - centre) / sigma) ** 2)


def area(sigma: float, depth: float) -> float:
    return depth * sigma * np.sqrt(2 * np.pi)


@pytest.mark.parametrize("sigma", [1.5, 2.5, 4.0])
@pytest.mark.parametrize("depth", [0.02, 0.5, 0.9, -0.3])
def test_a_gaussian_line_has_its_closed_form_width(sigma, depth):
    got = equivalent_width(WAVE, 1 - gauss(6000.3, sigma, depth), ROOMY)
    np.testing.assert_allclose(got, area(sigma, depth), rtol=1e-3)
    assert abs(got / area(sigma, depth) - 1.002) > 1e-3  # the control: .2 % off would be seen


@pytest.mark.parametrize("slope", [-2e-3, 1e-3, 4e-3])
@pytest.mark.parametrize("level", [1.0, 3e-17])
def test_a_sloped_continuum_of_any_unit_changes_nothing(slope, level):
    continuum = level * (1 + slope * (WAVE - 6000.0))
    got = equivalent_width(WAVE, continuum * (1 - gauss(6000.3, 2.5, 0.5)), ROOMY)
    np.testing.assert_allclose(got, area(2.5, 0.5), rtol=1e-3)
    flat = 1 - continuum * (1 - gauss(6000.3, 2.5, 0.5)) / continuum[np.searchsorted(WAVE, 5955.0)]
    inside = (WAVE > 5980) & (WAVE < 6020)  # the control: the blue side's level alone
    assert abs((flat * np.gradient(WAVE))[inside].sum() / area(2.5, 0.5) - 1) > 0.05


def test_emission_is_negative_and_nothing_is_nothing():
    assert equivalent_width(WAVE, 1 + gauss(6000.0, 2.0, 0.5), ROOMY) < 0
    assert abs(equivalent_width(WAVE, np.full_like(WAVE, 7.0), ROOMY)) < 1e-10


@pytest.mark.parametrize("name", list(LINES))
def test_a_flat_spectrum_has_no_width_in_any_line_and_a_box_has_the_band_s(name):
    line = LINES[name]
    assert abs(equivalent_width(WAVE, np.ones_like(WAVE), line)) < 1e-10
    middle = (line.band[0] + line.band[1]) / 2
    flux = 1 - gauss(middle, 1.5, 0.4)
    assert equivalent_width(WAVE, flux, line) == pytest.approx(area(1.5, 0.4), rel=5e-3)


def test_it_agrees_with_specutils_on_a_flat_continuum():
    specutils = pytest.importorskip("specutils")
    from astropy import units as u
    from specutils.analysis import equivalent_width as theirs

    for line in (ROOMY, LINES["H alpha"], LINES["Ca II 8542"]):
        middle = (line.band[0] + line.band[1]) / 2
        flux = 1 - gauss(middle, 2.0, 0.6) - gauss(middle + 2, 1.5, 0.1)
        spectrum = specutils.Spectrum(flux=flux * u.dimensionless_unscaled, spectral_axis=WAVE * u.AA)
        region = specutils.SpectralRegion(line.band[0] * u.AA, line.band[1] * u.AA)
        want = theirs(spectrum, continuum=1, regions=region).to_value(u.AA)
        np.testing.assert_allclose(equivalent_width(WAVE, flux, line), want, rtol=2e-3)
        assert abs(equivalent_width(WAVE, 1 - 1.01 * (1 - flux), line) / want - 1) > 5e-3  # the control


def test_a_whole_stack_is_measured_at_once_and_each_as_if_alone(rng):
    flux = 1 + 0.1 * rng.standard_normal((3, 4, len(WAVE)))
    got = equivalent_width(WAVE, flux, LINES["H beta"])
    assert got.shape == (3, 4)
    assert equivalent_width(WAVE, flux[0, 0], LINES["H beta"]).shape == ()
    alone = [[equivalent_width(WAVE, row, LINES["H beta"]) for row in part] for part in flux]
    np.testing.assert_allclose(got, alone, rtol=1e-10)
    assert len(np.unique(got)) == 12  # the control


def test_the_width_of_a_mean_is_not_the_mean_of_widths(rng):
    """Why it is taken of every draw: the local continuum divides."""
    flux = (1 - gauss(6000.0, 2.0, 0.5)) * (1 + 0.2 * rng.standard_normal((400, 1)) * (WAVE > 5975))
    each = equivalent_width(WAVE, flux, ROOMY)
    difference = each - equivalent_width(WAVE, flux.mean(0), ROOMY)
    # to first order the two agree, so what is left is of second order: 2 % of the band
    assert abs(difference.mean()) > 0.1


def test_pixels_count_by_their_share_of_the_band():
    """A band's edge moved by a tenth of a pixel moves the width by that, not by a whole pixel's or nothing."""
    flux = np.where((WAVE > 5975) & (WAVE < 6025), 0.5, 1.0)
    width = [float(equivalent_width(WAVE, flux, Line("box", 6000.0, (5990.0, 6010.0 + d), ROOMY.blue, ROOMY.red, "")))
             for d in (0.0, 0.138, 0.276)]
    np.testing.assert_allclose(width, 0.5 * (20 + np.array([0.0, 0.138, 0.276])), rtol=1e-9)


@pytest.mark.parametrize(("name", "part"), [
    ("Ca II 8662", slice(None, 3600)),  # ends before it
    ("Ca II K", slice(300, None)),  # begins after it
    ("H alpha", slice(None, int(np.searchsorted(WAVE, 6605.0)))),  # cuts the red side band
])  # fmt: skip
def test_a_line_outside_the_spectrum_is_refused(name, part):
    with pytest.raises(ValueError, match=f"{name} needs .* leave this line out"):
        equivalent_width(WAVE[part], np.ones_like(WAVE[part]), LINES[name])
    assert np.isfinite(equivalent_width(WAVE[part], np.ones_like(WAVE[part]), LINES["H beta"]))


# ---------------------------------------------------------------------------------------------- the table


@pytest.mark.parametrize(("name", "vacuum"), [
    ("H alpha", 6564.61), ("H beta", 4862.68), ("H gamma", 4341.68), ("H delta", 4102.89), ("Ca II K", 3934.78),
    ("Ca II H", 3969.59), ("Li 6708", 6709.66),
    ("Ca II 8498", 8500.36), ("Ca II 8542", 8544.44), ("Ca II 8662", 8664.52),
])  # fmt: skip
def test_centres_are_in_vacuum(name, vacuum):
    """Vacuum wavelengths as SDSS and NIST list them, to .02 Angstrom."""
    assert abs(LINES[name].centre - vacuum) < 0.02
    assert abs(vacuum_to_air(LINES[name].centre) - vacuum) > 1.0  # the control: in air it lies an Angstrom or two below


#: band, blue and red side band as published, in air
PUBLISHED = {
    "Ca II K": (3927.7, 3939.7, 3903.0, 3923.0, 4000.0, 4020.0),
    "Ca II H": (3962.0, 3976.0, 3903.0, 3923.0, 4000.0, 4020.0),  # this project's band, Ca II K's sides
    "H delta": (4083.5, 4122.25, 4041.6, 4079.75, 4128.5, 4161.0),
    "Ca 4227": (4222.25, 4234.75, 4211.0, 4219.75, 4241.0, 4251.0),
    "G band": (4281.375, 4316.375, 4266.375, 4282.625, 4318.875, 4335.125),
    "H gamma": (4319.75, 4363.5, 4283.5, 4319.75, 4367.25, 4419.75),
    "Fe 4383": (4369.125, 4420.375, 4359.125, 4370.375, 4442.875, 4455.375),
    "H beta": (4847.875, 4876.625, 4827.875, 4847.875, 4876.625, 4891.625),
    "Mg b": (5160.125, 5192.625, 5142.625, 5161.375, 5191.375, 5206.375),
    "Fe 5270": (5245.65, 5285.65, 5233.15, 5248.15, 5285.65, 5318.15),
    "Fe 5335": (5312.125, 5352.125, 5304.625, 5315.875, 5353.375, 5363.375),
    "Fe 5406": (5387.5, 5415.0, 5376.25, 5387.5, 5415.0, 5425.0),
    "Na D": (5876.875, 5909.375, 5860.625, 5875.625, 5922.125, 5948.125),
    "H alpha": (6548.0, 6578.0, 6520.0, 6540.0, 6590.0, 6610.0),
    "Li 6708": (6702.5, 6713.0, 6686.0, 6700.0, 6723.0, 6735.0),  # this project's
    "Ca II 8498": (8484.0, 8513.0, 8474.0, 8484.0, 8563.0, 8577.0),
    "Ca II 8542": (8522.0, 8562.0, 8474.0, 8484.0, 8563.0, 8577.0),
    "Ca II 8662": (8642.0, 8682.0, 8619.0, 8642.0, 8700.0, 8725.0),
}


@pytest.mark.parametrize("name", list(LINES))
def test_bands_are_the_published_ones_in_vacuum(name):
    line = LINES[name]
    got = np.array([*line.band, *line.blue, *line.red])
    np.testing.assert_allclose(got, air_to_vacuum(np.array(PUBLISHED[name])), rtol=0, atol=0.0051)  # two decimals
    assert np.abs(got - PUBLISHED[name]).min() > 1.0  # the control: they are not in air


@pytest.mark.parametrize("name", list(LINES))
def test_every_line_is_in_order_on_the_grid_and_has_a_source(name):
    line = LINES[name]
    assert line.name == name
    assert line.source
    assert line.band[0] < line.centre < line.band[1]
    for low, high in (line.band, line.blue, line.red):
        assert WAVE[0] < low < high < WAVE[-1]
    assert line.blue[0] < line.band[0]
    assert line.red[1] > line.band[1]
