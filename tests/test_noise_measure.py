"""The measurement of LAMOST's noise recovers a scale and a correlation that were put in, and the table is its own."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from core.data import lamost
from core.data.grid import N_PIXELS, WAVE
from core.data.line_windows import WINDOWS
from core.data.noise import MODEL_FILE, NoiseModel, add_noise, snr
from core.data.noise_fit import _gap_statistics as gap_statistics
from core.data.noise_measure import (
    ARM,
    REGIONS,
    adopted_kernel,
    line_window_table,
    noise_proper,
    per_star,
    pixel_classes,
    residuals,
    split_common,
    table,
    template_space,
)
from core.spectrum import Kernel, Spectra

RESULTS = MODEL_FILE.parents[1] / "results"
PUT_IN = Kernel(scale=(0.8, 0.65), rho=(0.1, 0.3))
STARS = 40


def plate(rng, stars: int = STARS, ratio: float = 30.0) -> Spectra:
    """Featureless stars of one plate with noise as PUT_IN says and a quoted sigma that is smooth; the ids are fixed."""
    sigma = rng.uniform(0.7, 1.4, (stars, 1)) / ratio * (1 + 0.3 * np.sin(WAVE / 400))
    ivar = sigma**-2
    ivar[rng.random(ivar.shape) < 0.02] = 0
    names = pd.DataFrame({"star": [f"p{i}" for i in range(stars)], "rv": 0.0})
    flat = Spectra(WAVE, np.ones_like(ivar), ivar, np.ones_like(ivar), names, PUT_IN)
    return add_noise(flat, ivar, seed=4)


def whitened(spectra: Spectra, pattern: np.ndarray | float = 0.0) -> np.ndarray:
    return np.where(spectra.measured, (spectra.flux - 1) / spectra.sigma + pattern, np.nan)


def shared_pattern(rng, stars: int = STARS) -> np.ndarray:
    """Sky residuals of a plate: narrow spikes at the same pixels of each star, of a strength of its own."""
    spikes = np.convolve(rng.standard_normal(N_PIXELS + 4), [0.3, 0.8, 1.0, 0.8, 0.3], "valid")
    return rng.uniform(0.5, 1.5, (stars, 1)) * spikes


def found(spectra: Spectra, z: np.ndarray) -> pd.DataFrame:
    measured = table(per_star(spectra, z), resamples=60)
    return measured[measured["pixels"] == "clean"]


def recovered(measured: pd.DataFrame, sigmas: float = 5.0) -> bool:
    """True when every region states the s^2 and rho put in, within its bootstrap errors (and 2 % and .01 of bias).

    Of the 2 %, split_common takes .8: one number fitted in each 128 pixels.
    """
    right = []
    for _, row in measured.iterrows():
        red = ARM[row["region"]] == "red"
        right += [abs(row["s2"] - PUT_IN.scale[red] ** 2) < sigmas * row["s2_err"] + 0.02 * PUT_IN.scale[red] ** 2,
                  abs(row["rho1"] - PUT_IN.rho[red]) < sigmas * row["rho1_err"] + 0.01]
    return len(measured) > 0 and all(right)


def test_scale_and_correlation_are_recovered_within_their_errors(rng):
    spectra = plate(rng)
    measured = found(spectra, whitened(spectra))
    assert set(measured["region"]) == set(REGIONS)
    assert recovered(measured)
    assert (measured["s2_err"] < 0.03).all()
    # the controls: quoted sigmas 10 % off, and noise whose neighbours were averaged
    assert not recovered(found(spectra, 1.1 * whitened(spectra)))
    z = np.nan_to_num(whitened(spectra))
    assert not recovered(found(spectra, 0.9 * z + 0.2 * np.roll(z, 1, axis=1)))


def test_a_pattern_that_the_plate_shares_is_told_apart_and_without_that_the_answer_is_wrong(rng):
    spectra = plate(rng)
    z = whitened(spectra, shared_pattern(rng))
    assert not recovered(found(spectra, z))  # the control
    shared, own = split_common(z)
    assert recovered(found(spectra, own))
    truth = z - whitened(spectra)
    live = np.isfinite(z)
    explained = 1 - np.mean((shared - truth)[live] ** 2) / np.mean(truth[live] ** 2)
    assert explained > 0.95


def test_where_the_plate_shares_nothing_almost_nothing_is_taken(rng):
    spectra = plate(rng)
    z = whitened(spectra)
    shared, own = split_common(z)
    live = np.isfinite(z)
    # one number fitted in each block of 128 pixels: 1/128 of the variance, in the mean
    assert np.mean(shared[live] ** 2) / np.mean(z[live] ** 2) == pytest.approx(1 / 128, rel=0.2)
    assert recovered(found(spectra, own))


def test_a_star_is_not_taken_out_of_itself(rng):
    z = rng.standard_normal((20, N_PIXELS))
    z[4, 1000:1010] += 8.0  # a line of one star alone
    _, own = split_common(z)
    assert own[4, 1000:1010].mean() > 7.0


def test_few_stars_cannot_tell_what_a_plate_shares():
    with pytest.raises(ValueError, match="at least 20"):
        split_common(np.zeros((19, N_PIXELS)))


def test_a_misfit_that_grows_with_s_n_is_extrapolated_away(rng):
    parts = []
    for ratio in (5.0, 10.0, 20.0, 40.0, 80.0):
        spectra = plate(rng, stars=12, ratio=ratio)
        misfit = 0.01 * np.sin(np.arange(N_PIXELS) / 1.3) / np.where(spectra.measured, spectra.sigma, 1.0)
        parts.append(per_star(spectra, whitened(spectra, misfit)))
        parts[-1]["star"] = parts[-1]["star"] + f" {ratio}"
    proper = noise_proper(pd.concat(parts, ignore_index=True), resamples=40)
    red = (proper["arm"] == "red").to_numpy().astype(int)
    assert (np.abs(proper["s"] - np.array(PUT_IN.scale)[red]) < 5 * proper["s_err"] + 0.01).all()
    assert (np.abs(proper["rho1"] - np.array(PUT_IN.rho)[red]) < 5 * proper["rho1_err"] + 0.02).all()
    assert not recovered(found(spectra, whitened(spectra, misfit)))  # the control: the best stars alone


def test_sky_lines_and_telluric_bands_are_told_apart_and_dead_pixels_are_in_no_class(rng):
    spectra = plate(rng, 2)
    sigma = np.where(spectra.measured, spectra.sigma, 1.0)
    sigma[:, 3300:3305] *= 3
    ivar = np.where(spectra.measured, sigma**-2, 0.0)
    classes = pixel_classes(Spectra(WAVE, spectra.flux, ivar, spectra.continuum, spectra.meta))
    assert (classes["sky"][:, 3300:3305] == spectra.measured[:, 3300:3305]).all()
    total = sum(mask.astype(int) for mask in classes.values())
    np.testing.assert_array_equal(total, spectra.measured)
    band = (WAVE > 7600) & (WAVE < 7700)
    assert (classes["telluric"][:, band] == spectra.measured[:, band]).all()
    assert classes["clean"].mean() > 0.75


def test_the_adopted_kernel_is_the_mean_over_stars_of_clean_pixels_below_s_n_60():
    rows = [("3800-4500", "clean", 12.0, 30, 0.64, 0.10), ("4500-5700", "clean", 25.0, 10, 0.36, 0.30),
            ("4500-5700", "clean", 200.0, 99, 9.0, 0.69), ("6100-6800", "clean", 60.0, 5, 0.25, 0.20),
            ("7000-8900", "sky", 25.0, 50, 9.0, 0.69)]
    frame = pd.DataFrame(rows, columns=["region", "pixels", "snr_high", "stars", "s2", "rho1"])
    np.testing.assert_allclose(adopted_kernel(frame), [np.sqrt(0.57), 0.5, 0.15, 0.20])
    assert adopted_kernel(frame, below=300.0)[0] > 1  # the control: with the template's misfits


def test_a_tenfold_dip_that_is_not_real_shows_in_second_differences(rng):
    right = plate(rng, 40)
    dips = sum(((low < WAVE) & (high > WAVE)).astype(int) for low, high in WINDOWS)
    quoted = Spectra(WAVE, right.flux, right.ivar / np.where(dips > 0, 10, 1), right.continuum, right.meta)
    answer = line_window_table(quoted, right)
    ratio = answer["mended"] / answer["beside"]
    assert abs(ratio.mean() - 1) < 5 * ratio.std() / np.sqrt(len(ratio))
    assert ratio.std() < 0.3  # some 400 pixels a window: a robust variance is good to 20 %, its sides to half of that
    np.testing.assert_allclose(answer["quoted"] * 10, answer["mended"], atol=0.0015 * 10, rtol=0.02)


# ------------------------------------------------------------------------------------------------ on the real plate


@pytest.fixture(scope="module")
def pilot(shared) -> Spectra:
    spectra, _ = lamost.read_folder(shared / "lamost", progress=False)
    return spectra.select((spectra.meta["release"] == "pilot").to_numpy())


@pytest.fixture(scope="module")
def space(shared) -> tuple[np.ndarray, np.ndarray]:
    if not (shared / "library" / "synspec.npz").exists():
        pytest.skip(f"needs the synthetic library in {shared}/library, which is not here")
    return template_space(shared / "library" / "synspec.npz")


def test_the_committed_table_is_what_the_command_makes(pilot, space):
    committed = pd.read_csv(RESULTS / "noise.csv")
    z = residuals(pilot, *space)
    own = split_common(z)[1]
    for name, part in (("all", z), ("own", own)):
        again = table(per_star(pilot, part), resamples=2)
        before = committed[committed["residual"] == name].reset_index(drop=True)
        pd.testing.assert_frame_equal(again[["region", "pixels", "stars"]], before[["region", "pixels", "stars"]])
        for column in ("z_variance", "s2", "rho1", "rho2", "rho3"):
            np.testing.assert_allclose(again[column], before[column], atol=2e-3)


def test_noise_put_on_templates_is_recovered_through_the_whole_measurement(pilot, space, rng):
    mean, factors = space
    some = pilot.select(slice(0, 30))
    truth = mean + rng.standard_normal((len(some), len(factors))) @ factors
    still = Spectra(WAVE, truth, some.ivar, some.continuum, some.meta.assign(rv=0.0), PUT_IN)
    seen = add_noise(still, some.ivar, seed=5)
    z = residuals(seen, mean, factors)
    measured, off = (m[m["snr_high"] <= 60] for m in (found(seen, z), found(seen, 1.1 * z)))
    assert recovered(measured)
    assert not recovered(off)  # the control


def test_the_model_file_was_fitted_to_these_spectra(shared):
    everything, _ = lamost.read_folder(shared / "lamost", progress=False)
    committed = NoiseModel.load()
    for name, value in gap_statistics(everything.measured, snr(everything)).items():
        np.testing.assert_allclose(getattr(committed, name), value, rtol=1e-5, atol=1e-6)
    live = everything.measured & (committed.photon > 0)
    log = np.log(np.where(live, everything.continuum**2 / np.where(live, everything.ivar, 1.0), 1.0)
                 / (committed.photon * everything.continuum + committed.sky))
    left = [row[ok] - np.median(row[ok]) for row, ok in zip(log, live, strict=True)]  # less each fibre's own factor
    assert np.median(np.abs(np.concatenate(left))) < 0.12  # the modes and the jitter are within this
    other = [a - np.median(a) for a in (np.log(1 / everything.ivar[b][ok]) for b, ok in enumerate(live))]
    assert np.median(np.abs(np.concatenate(other))) > 0.3  # the control: without P and S
