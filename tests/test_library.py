"""The bundled stars are a dozen and one more, say that they are simulated, and their truth fits as their noise says."""

from __future__ import annotations

import gzip

import numpy as np
import pytest
from astropy.io import fits

from core.data import lamost
from core.data.library import BUNDLED, bundled, folder
from core.data.noise import LAMOST_NOISE, snr
from core.spectrum import ARM_JOIN, LABELS, WHITE, Kernel, Spectra


@pytest.fixture(scope="module")
def stars() -> tuple[Spectra, np.ndarray]:
    return bundled()


def test_there_are_thirteen_each_with_its_truth_and_labels(stars):
    spectra, truth = stars
    assert len(spectra) == len(set(spectra.stars)) == 13
    assert truth.shape == spectra.flux.shape
    assert np.isfinite(truth).all()
    assert (truth > 0).all()
    assert set(LABELS) <= set(spectra.meta.columns)
    assert spectra.meta[list(LABELS)].notna().all(axis=None)
    assert spectra.meta["teff"].between(4000, 10000).all()
    assert spectra.meta["teff"].max() - spectra.meta["teff"].min() > 4000
    assert 0.95 < np.median(truth) < 1.05  # in units of the continuum


def test_one_star_says_that_a_line_was_put_in_and_has_it_in_its_truth(stars):
    from core.data.bundled import PLANTED

    spectra, truth = stars
    told = spectra.meta["planted"].to_numpy(dtype=float)
    assert [row for row in range(len(told)) if np.isfinite(told[row])] == list(PLANTED)
    for row, (wavelength, depth, _) in PLANTED.items():
        assert told[row] == wavelength
        assert "put in" in spectra.meta["designation"][row]
        near = np.argmin(np.abs(spectra.wave - wavelength))
        level = np.median(truth[:, near - 20 : near + 21], axis=1)
        lack = 1 - truth[:, near] / level
        assert abs(lack[row] - depth) < 0.05
        assert np.delete(lack, row).max() < depth / 2, "the control: no other star has it"


def test_none_can_pass_as_an_observation(stars):
    spectra, _ = stars
    assert (spectra.meta["origin"] == "simulated").all()
    assert (spectra.meta["layout"] == "coadd").all()
    assert (spectra.meta["ivar_mended"] == 0).all()
    for file in sorted(BUNDLED.glob("*.fits.gz")):
        with fits.open(file) as hdus:
            assert hdus[0].header["ORIGIN"] == "TRUELINE"
            assert "simulated" in str(hdus[0].header["COMMENT"]).lower()
            assert "SIMULATED" in hdus[0].header["DESIG"]
            assert {h.name for h in hdus} >= {"COADD", "TRUTH"}


def test_files_are_small_and_hold_no_time_of_their_making(stars):
    files = sorted(BUNDLED.glob("*.fits.gz"))
    assert sum(f.stat().st_size for f in files) < 1e6
    for file in files:
        with gzip.open(file) as inner:
            inner.read()
            assert inner.mtime == 0


def test_the_header_s_s_n_is_that_of_the_flux_and_they_run_from_poor_to_good(stars):
    spectra, _ = stars
    np.testing.assert_allclose(snr(spectra), spectra.meta["snr_g"], rtol=0.005)
    assert snr(spectra).min() < 12
    assert snr(spectra).max() > 60


def fits_the_noise(spectra: Spectra, truth: np.ndarray, kernel: Kernel, sigmas: float = 5.0) -> bool:
    """True when (flux - truth) / sigma has the kernel's variance and lag-1 correlation in each star's arms."""
    z = np.where(spectra.measured, (spectra.flux - truth) * np.sqrt(spectra.ivar), np.nan)
    right = []
    for arm, inside in enumerate((spectra.wave < ARM_JOIN, spectra.wave >= ARM_JOIN)):
        part, s, rho = z[:, inside], kernel.scale[arm], kernel.rho[arm]
        n = np.isfinite(part).sum(axis=1)
        variance = np.nanmean(part**2, axis=1)
        pair = part[:, 1:] * part[:, :-1]
        lag1 = np.nanmean(pair, axis=1)
        # K's own correlations make squares correlated by rho^2 (Bartlett)
        right += list(np.abs(variance - s**2) < sigmas * s**2 * np.sqrt(2 * (1 + 2 * rho**2) / n))
        error = s**2 * np.sqrt((1 + 3 * rho**2) / np.isfinite(pair).sum(axis=1))
        right += list(np.abs(lag1 - rho * s**2) < sigmas * error)
        every = np.sqrt(2 * (1 + 2 * rho**2) / n.sum())  # all stars at once: tighter
        right += [abs((variance * n).sum() / n.sum() / s**2 - 1) < sigmas * every + 0.01]  # .74 is rounded, .6 %
        right += [abs(np.nanmean(pair) / s**2 - rho) < sigmas * every + 0.005]
    return bool(np.all(right))


def test_the_truth_fits_each_star_as_its_stated_noise_says(stars):
    spectra, truth = stars
    assert spectra.noise == LAMOST_NOISE
    assert fits_the_noise(spectra, truth, LAMOST_NOISE)


@pytest.mark.parametrize("wrong", [WHITE, Kernel(LAMOST_NOISE.scale), Kernel((1.0, 1.0), LAMOST_NOISE.rho),
                                   Kernel((0.78, 0.60), LAMOST_NOISE.rho), Kernel((0.60, 0.74), (0.05, 0.10))])
def test_a_wrong_statement_about_their_noise_is_found(stars, wrong):
    assert not fits_the_noise(*stars, wrong)


def test_the_truth_of_another_star_does_not_fit(stars):
    spectra, truth = stars
    assert not fits_the_noise(spectra, np.roll(truth, 1, axis=0), LAMOST_NOISE)


def test_a_broken_or_missing_bundle_is_refused_with_a_remedy(tmp_path):
    with pytest.raises(ValueError, match="holds no FITS file"):
        bundled(tmp_path)
    with pytest.raises(ValueError, match="cannot be read"):
        bundled(tmp_path / "nowhere")
    (tmp_path / "star.fits.gz").write_bytes(b"\x1f\x8bnothing")
    with pytest.raises(ValueError, match="is broken .* reinstall"):
        bundled(tmp_path)


def test_a_folder_keeps_what_can_be_read_and_says_what_it_refused(tmp_path):
    for file in sorted(BUNDLED.glob("*.fits.gz"))[:2]:
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "zz.fits").write_bytes(b"nothing")
    spectra, refused = folder(tmp_path, progress=False)
    assert len(spectra) == 2
    assert refused["file"].str.endswith("zz.fits").tolist() == [True]
    for file in tmp_path.glob("sim*"):
        file.unlink()
    with pytest.raises(ValueError, match="none of the 1 FITS files"):
        folder(tmp_path, progress=False)


def test_an_observation_holds_no_truth(tmp_path, stars):
    from core.data.lamost_write import LAMOST_WAVE, write

    write(tmp_path / "x.fits", np.ones(LAMOST_WAVE.size), np.ones(LAMOST_WAVE.size))
    with pytest.raises(ValueError, match="holds no truth"):
        lamost.read_truth(tmp_path / "x.fits")


def test_the_committed_stars_are_what_the_command_makes(stars, tmp_path):
    from core.data.bundled import WANTED, make_stars
    from core.data.noise import NoiseModel
    from core.data.reality import Reality
    from core.data.simulator import Simulator
    from core.models.templates import NATIVE, Templates

    templates = Templates()
    simulator = Simulator(templates, NATIVE, NoiseModel.load(), templates.emulator.nearest, Reality.load())
    make_stars(simulator, tmp_path)
    again, truth = bundled(tmp_path)
    np.testing.assert_allclose(again.flux, stars[0].flux, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(again.measured, stars[0].measured)
    np.testing.assert_allclose(truth, stars[1], rtol=1e-4)
    # the S/N wanted is that of the continuum; lines take the flux's below it
    wanted = np.array([row[-1] for row in WANTED])
    assert (snr(again) < 1.05 * wanted).all()
    assert (snr(again) > 0.65 * wanted).all()
