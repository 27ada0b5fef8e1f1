"""Real stars arrive in vacuum, masked where they were not measured, and a quarter is kept out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from core.data.grid import C_KMS, WAVE, air_to_vacuum
from core.data.real_stars import read
from core.spectrum import Spectra


@pytest.fixture(scope="module")
def stars(shared) -> dict[str, Spectra]:
    folder = shared / "stars"
    if not (folder / "miles.npz").exists():
        pytest.skip(f"needs real stars in {folder}, which are not here")
    return read(folder)


def test_all_three_libraries_are_there(stars):
    assert {name: len(s) for name, s in stars.items()} == {"miles": 738, "stelib": 192, "mastar": 49}
    for spectra in stars.values():
        assert spectra.meta["star"].is_unique
        assert np.all(spectra.flux[~spectra.measured] == 1.0)
        assert abs(np.median(spectra.flux[spectra.measured]) - 1) < 0.1  # in units of the curve


@pytest.mark.parametrize("name", ["miles", "stelib", "mastar"])
def test_held_out_are_the_numbers_divisible_by_four(stars, name):
    meta = stars[name].meta
    assert (meta["held_out"] == (meta["number"] % 4 == 0)).all()
    share, n = meta["held_out"].mean(), len(meta)
    assert abs(share - 0.25) < 3 * np.sqrt(0.25 * 0.75 / n)
    assert (meta["star"] == [f"{name}-{k}" for k in meta["number"]]).all()


def test_miles_numbers_and_labels_are_the_archive_s(stars, shared):
    with np.load(shared / "stars" / "miles.npz") as archive:
        number, labels = archive["star"], archive["labels"]
    meta = stars["miles"].meta
    np.testing.assert_array_equal(meta["number"], number)
    np.testing.assert_array_equal(meta[["teff", "logg", "feh"]], labels)


def test_miles_ends_before_7400_angstrom(stars):
    measured = stars["miles"].measured
    assert not measured[:, WAVE > 7400].any()
    assert measured[:, (WAVE > 3800) & (WAVE < 7390)].mean() > 0.99
    assert stars["mastar"].measured[:, WAVE > 8900].all()  # the control: it is MILES that ends, not the grid


@pytest.mark.parametrize("band", [(6870, 6960), (7170, 7330), (7600, 7710), (8110, 8350)])
def test_tellurics_are_masked_in_stelib_alone(stars, band):
    inside = (WAVE > band[0]) & (WAVE < band[1])
    assert not stars["stelib"].measured[:, inside].any()
    assert stars["mastar"].measured[:, inside].all()
    beside = (WAVE > 6700) & (WAVE < 6800)
    assert stars["stelib"].measured[:, beside].mean() > 0.8  # the control


def test_the_star_s_own_sodium_is_kept_in_stelib(stars):
    assert stars["stelib"].measured[:, (WAVE > 5885) & (WAVE < 5905)].mean() > 0.9


def velocity_of(spectra: Spectra, centre: float, rows: np.ndarray) -> np.ndarray:
    """km/s of the deepest point, by a parabola, of the lines about `centre` in the chosen stars."""
    near = np.flatnonzero(np.abs(WAVE - centre) < 8)
    low = near[0] + spectra.flux[rows][:, near].argmin(axis=1)
    y = np.stack([spectra.flux[rows, low + d] for d in (-1, 0, 1)])
    place = 0.5 * (y[0] - y[2]) / (y[0] - 2 * y[1] + y[2])
    return (WAVE[low] * 10 ** (1e-4 * place) / centre - 1) * C_KMS


@pytest.mark.parametrize("name", ["miles", "stelib", "mastar"])
@pytest.mark.parametrize("air", [6562.80, 4861.33])
def test_balmer_minima_lie_at_their_vacuum_wavelengths(stars, name, air):
    spectra = stars[name]
    centre = float(air_to_vacuum(air))
    rows = np.flatnonzero(spectra.flux[:, np.searchsorted(WAVE, centre)] < 0.75)  # absorption, well seen
    found = velocity_of(spectra, centre, rows)
    error = 1.25 * 1.48 * np.median(np.abs(found - np.median(found))) / np.sqrt(len(found))
    assert len(rows) >= 6
    assert abs(np.median(found)) < 15 + 4 * error  # libraries are at rest to some 10 km/s
    assert abs(np.median(found) + 83) > 15 + 4 * error  # the control: taken for air it lies 83 km/s lower


def test_sodium_lies_at_its_vacuum_wavelengths_in_cool_dwarfs(stars):
    meta = stars["miles"].meta
    rows = np.flatnonzero((meta["teff"] < 4600) & (meta["logg"] > 4.2))
    flux = stars["miles"].flux[rows].mean(0)
    near = np.abs(WAVE - 5894.6) < 12
    centre = ((1 - flux / flux[near].max()) * WAVE)[near].sum() / (1 - flux / flux[near].max())[near].sum()
    assert abs(centre - 5894.57) < 0.8  # between D2 5891.58 and D1 5897.56
    assert abs(centre - 5892.94) > 0.8  # the control: their middle in air


def test_a_folder_without_the_libraries_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="lacks a library of real stars .* name the folder with --stars"):
        read(tmp_path)
