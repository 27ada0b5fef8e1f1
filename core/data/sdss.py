"""Spectra of SDSS, DESI and other surveys in and out, through specutils.Spectrum (optional extra)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from core.data import grid
from core.spectrum import Spectra


def _specutils() -> Any:
    """The specutils package, or what to do about its absence."""
    try:
        import specutils
    except ImportError as err:
        raise ImportError("specutils is not installed; run pip install 'trueline[specutils]'.") from err
    return specutils


def from_specutils(spectrum: Any, meta: pd.DataFrame | None = None) -> Spectra:
    """A specutils.Spectrum on grid.WAVE, in units of its continuum.

    Args:
        spectrum: flux (l,) or (B, l) in any unit, vacuum wavelengths (or frequencies) in any unit, an uncertainty of
            any kind, and maybe a mask (True = bad). Pixels that are masked, not finite, or whose uncertainty is 0 or
            not finite get ivar = 0.
        meta: B rows about the stars; else the ids "1", "2" and so on.

    Raises:
        ImportError: specutils is not installed.
        ValueError: no Spectrum, no uncertainty or one that is no variance, an axis that is not spectral, and all that
            grid.prepare refuses.
    """
    _specutils()
    from astropy import units
    from astropy.nddata import InverseVariance, StdDevUncertainty, VarianceUncertainty

    if not hasattr(spectrum, "spectral_axis"):
        raise ValueError(f"a {type(spectrum).__name__} is not a spectrum; give a specutils.Spectrum.")
    if not isinstance(spectrum.uncertainty, StdDevUncertainty | VarianceUncertainty | InverseVariance):
        raise ValueError(f"the spectrum's uncertainty is {type(spectrum.uncertainty).__name__}, so its noise is "
                         "unknown; give a StdDevUncertainty, VarianceUncertainty or InverseVariance.")
    try:
        wave = np.asarray(spectrum.spectral_axis.to_value(units.AA, equivalencies=units.spectral()), dtype=np.float64)
    except units.UnitConversionError as err:
        raise ValueError(f"the spectral axis is in {spectrum.spectral_axis.unit}, not a wavelength; "
                         "give wavelengths or frequencies.") from err
    flux = np.atleast_2d(np.asarray(spectrum.flux.value, dtype=np.float64))
    with np.errstate(divide="ignore", invalid="ignore"):
        quoted = spectrum.uncertainty.represent_as(InverseVariance)
        # an uncertainty may be in another unit than the flux (10^-17 cgs and cgs, say); without one it has the flux's
        scale = 1.0 if quoted.unit is None else quoted.unit.to(spectrum.flux.unit**-2)
        ivar = np.atleast_2d(np.asarray(quoted.array, dtype=np.float64)) * scale
    bad = np.zeros(flux.shape, bool) if spectrum.mask is None else np.atleast_2d(np.asarray(spectrum.mask, dtype=bool))
    ivar = np.where(bad | ~np.isfinite(ivar), 0.0, ivar)
    order = np.argsort(wave)  # frequencies rise where wavelengths fall
    if meta is None:
        meta = pd.DataFrame({"star": [str(i + 1) for i in range(len(flux))], "origin": "observed"})
    meta = meta.reset_index(drop=True).assign(flux_unit=spectrum.flux.unit.to_string())
    return grid.prepare(wave[order], flux[:, order], ivar[:, order], meta=meta)


def to_specutils(spectra: Spectra, row: int = 0) -> Any:
    """One row as a specutils.Spectrum in its own flux unit (continuum put back), with InverseVariance and a mask.

    Args:
        spectra: what to take it from; the flux unit is meta's column flux_unit, dimensionless without one.
        row: which one.

    Raises:
        ImportError: specutils is not installed.
        ValueError: there is no such row.
    """
    specutils = _specutils()
    from astropy import units
    from astropy.nddata import InverseVariance

    if not 0 <= row < len(spectra):
        raise ValueError(f"row {row} is not there; choose from 0 to {len(spectra) - 1}.")
    about = spectra.meta.iloc[row].to_dict()
    unit = units.Unit(about.get("flux_unit", ""))
    curve = spectra.continuum[row]
    return specutils.Spectrum(spectral_axis=spectra.wave * units.AA, flux=spectra.flux[row] * curve * unit,
                              uncertainty=InverseVariance(spectra.ivar[row] / curve**2, unit=unit**-2),
                              mask=~spectra.measured[row], meta=about)
