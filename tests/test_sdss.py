"""Spectra of other surveys come in and go out through specutils without loss."""

from __future__ import annotations

import sys

import numpy as np
import pandas as pd
import pytest

from core.data import grid
from core.data.sdss import from_specutils, to_specutils

specutils = pytest.importorskip("specutils", reason="needs the extra: pip install 'trueline[specutils]'")
units = pytest.importorskip("astropy.units")
nddata = pytest.importorskip("astropy.nddata")

WAVE = 10 ** (3.56 + 1e-4 * np.arange(4100))  # SDSS's own pixels, which are LAMOST's too
CGS = units.Unit("1e-17 erg / (s cm2 Angstrom)")


@pytest.fixture
def flux(rng):
    return 20 + rng.standard_normal(WAVE.size)


def spectrum(flux, uncertainty=None, wave=WAVE * units.AA, **more):
    uncertainty = nddata.InverseVariance(np.full(flux.shape, 4.0)) if uncertainty is None else uncertainty
    return specutils.Spectrum(spectral_axis=wave, flux=flux * CGS, uncertainty=uncertainty, **more)


def physical(spectra):
    return spectra.flux * spectra.continuum, spectra.ivar / spectra.continuum**2


@pytest.mark.parametrize("kind", ["StdDevUncertainty", "VarianceUncertainty", "InverseVariance"])
def test_every_kind_of_uncertainty_gives_the_same_ivar(flux, kind):
    value = {"StdDevUncertainty": 0.5, "VarianceUncertainty": 0.25, "InverseVariance": 4.0}[kind]
    got = from_specutils(spectrum(flux, getattr(nddata, kind)(np.full(flux.shape, value))))
    np.testing.assert_allclose(physical(got)[1], 4.0)
    np.testing.assert_allclose(physical(got)[0][0], flux[100:100 + grid.N_PIXELS])


def test_an_uncertainty_in_another_unit_than_the_flux_is_converted(flux):
    sigma = nddata.StdDevUncertainty(np.full(flux.shape, 0.5e-17), unit=units.erg / units.s / units.cm**2 / units.AA)
    np.testing.assert_allclose(physical(from_specutils(spectrum(flux, sigma)))[1], 4.0)


def test_wavelengths_in_any_unit_and_frequencies_give_the_same(flux):
    expected = from_specutils(spectrum(flux))
    axes = [WAVE / 10 * units.nm, WAVE / 1e4 * units.um]
    frequency = (WAVE * units.AA).to(units.THz, equivalencies=units.spectral())
    inputs = [spectrum(flux, wave=axis) for axis in (*axes, frequency)]
    inputs.append(spectrum(flux[::-1], wave=frequency[::-1]))
    for given in inputs:
        np.testing.assert_allclose(from_specutils(given).flux, expected.flux, rtol=1e-9)


def test_masked_pixels_and_impossible_uncertainties_are_not_measured(flux):
    sigma = np.full(flux.shape, 0.5)
    sigma[200], sigma[201], sigma[202] = 0, np.inf, np.nan
    flux[203] = np.nan
    mask = np.zeros(flux.shape, bool)
    mask[204] = True
    got = from_specutils(spectrum(flux, nddata.StdDevUncertainty(sigma), mask=mask))
    assert list(np.flatnonzero(~got.measured[0]) + 100) == [200, 201, 202, 203, 204]


def test_out_and_in_again_changes_nothing(flux):
    mask = np.arange(WAVE.size) % 500 == 250
    first = from_specutils(spectrum(flux, mask=mask), meta=pd.DataFrame({"star": ["a"], "ra": [12.5]}))
    out = to_specutils(first)
    assert out.flux.unit == CGS
    assert out.meta["ra"] == 12.5
    again = from_specutils(out)
    np.testing.assert_allclose(again.flux, first.flux, rtol=1e-12)
    np.testing.assert_allclose(again.ivar, first.ivar, rtol=1e-12)
    np.testing.assert_array_equal(again.measured, first.measured)


def test_many_spectra_on_one_axis_come_as_rows(flux):
    got = from_specutils(spectrum(np.stack([flux, 2 * flux])))
    assert list(got.meta.star) == ["1", "2"]
    np.testing.assert_allclose(got.continuum[1], 2 * got.continuum[0], rtol=0.01)


def test_what_has_no_noise_or_no_wavelength_is_refused(flux):
    bare = specutils.Spectrum(spectral_axis=WAVE * units.AA, flux=flux * CGS)
    with pytest.raises(ValueError, match="NoneType, so its noise is unknown"):
        from_specutils(bare)
    with pytest.raises(ValueError, match="a ndarray is not a spectrum"):
        from_specutils(flux)
    with pytest.raises(ValueError, match="not a wavelength"):
        from_specutils(spectrum(flux, wave=np.arange(1.0, WAVE.size + 1) * units.pix))
    with pytest.raises(ValueError, match="none lies in"):
        from_specutils(spectrum(flux, wave=WAVE * 1e4 * units.AA))
    with pytest.raises(ValueError, match="row 3 is not there"):
        to_specutils(from_specutils(spectrum(flux)), 3)


def test_without_specutils_the_way_to_install_it_is_said(flux, monkeypatch):
    given = spectrum(flux)
    monkeypatch.setitem(sys.modules, "specutils", None)
    with pytest.raises(ImportError, match="pip install"):
        from_specutils(given)
