"""The measurement of LAMOST's noise recovers a scale and a correlation that were put in, and the table is its own."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.ndimage import gaussian_filter1d

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
from core.data.noise_measure import _intercepts as intercepts
from core.spectrum import WHITE, Kernel, Spectra

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


def test_a_pixel_is_sky_when_its_sigma_is_a_fifth_above_its_surroundings(rng):
    sigma = np.full((1, N_PIXELS), 0.05)
    at = np.array([600, 1200, 1700, 3100, 3300])
    for factor, sky in ((1.1, False), (1.3, True)):
        sigma[:, at] = 0.05 * factor
        classes = pixel_classes(Spectra(WAVE, np.ones_like(sigma), sigma**-2, np.ones_like(sigma), pd.DataFrame([{}])))
        assert (classes["sky"][0, at] == sky).all()
        assert (classes["clean"][0, at] != sky).all()
        assert classes["sky"].sum() == sky * len(at)


def test_the_adopted_kernel_is_the_mean_over_each_arm_s_regions_of_what_is_extrapolated():
    rows = [("3800-4500", "blue", 0.8, 0.10), ("4500-5700", "blue", 0.6, 0.30),
            ("6100-6800", "red", 0.5, -0.20), ("7000-8900", "red", 0.7, 0.10)]
    frame = pd.DataFrame(rows, columns=["region", "arm", "s", "rho1"])
    np.testing.assert_allclose(adopted_kernel(frame), [0.7, 0.6, 0.20, 0.0])  # a negative rho is none
    np.testing.assert_allclose(adopted_kernel(frame[:3]), [0.7, 0.5, 0.20, 0.0])


def star_table(rng, s2: float = 0.09, rho: float = 0.2, stars: int = 60) -> pd.DataFrame:
    """What per_star would say of stars of one region, with a misfit that grows as (S/N)^2 and scatter."""
    ratio = rng.uniform(5, 60, stars)
    rest = {lag: s2 * c + 0.2 * (ratio / 60) ** 2 + 0.04 * s2 * rng.standard_normal(stars)
            for lag, c in ((1, 1 - rho), (2, 1.0), (5, 1.0))}
    about = {"region": "3800-4500", "pixels": "clean", "snr": ratio}
    return pd.DataFrame(about | {f"d{k}": v for k, v in rest.items()})


def test_the_errors_of_what_is_extrapolated_are_its_scatter(rng):
    many = pd.concat([noise_proper(star_table(rng), resamples=40) for _ in range(50)])
    for name, put in (("s", 0.3), ("rho1", 0.2), ("rho2", 0.0)):
        stated, scatter = many[f"{name}_err"].mean(), many[name].std()
        assert 1 / 1.5 < stated / scatter < 1.5
        assert abs(many[name].mean() - put) < 5 * scatter / np.sqrt(len(many)) + 0.01
    # s_err follows from the error of s^2: it is the scatter of the roots of the same resamples
    frame, again = star_table(rng), np.random.default_rng(0)
    roots = [np.sqrt(intercepts(frame.iloc[again.integers(0, 60, 60)])[0]) for _ in range(400)]
    assert noise_proper(frame)["s_err"][0] == pytest.approx(np.std(roots), rel=0.05)


def drawn_from_templates(rng, factors: np.ndarray, mean: np.ndarray, stars: int = 20) -> Spectra:
    """Stars that the templates hold, at velocities of some 200 km/s and S/N 20, with noise of variance .6."""
    rv = rng.choice([-200.0, -120.0, 120.0, 200.0], stars)
    rest = mean + rng.standard_normal((stars, len(factors))) @ factors
    flux = np.array([np.interp(WAVE / (1 + v / 299792.458), WAVE, f) for v, f in zip(rv, rest, strict=True)])
    sigma = np.full(flux.shape, 0.05)
    seen = flux + np.sqrt(0.6) * sigma * rng.standard_normal(flux.shape)
    return Spectra(WAVE, seen, sigma**-2, np.ones_like(flux), pd.DataFrame({"rv": rv}))


def test_residuals_at_any_velocity_have_the_noise_s_variance_after_what_the_fit_absorbed(rng):
    factors = 0.3 * gaussian_filter1d(rng.standard_normal((150, N_PIXELS)), 4, axis=1)
    mean = 1 + gaussian_filter1d(rng.standard_normal(N_PIXELS), 4)
    spectra = drawn_from_templates(rng, factors, mean)

    def chi2(s: Spectra, keep: float = 1.0) -> float:
        inside = slice(20, -20)  # a shift of 200 km/s moves three pixels over the edge
        return float(np.mean(residuals(s, mean, factors)[:, inside] ** 2)) * keep / 0.6

    error = 5 * np.sqrt(2 / spectra.flux.size)
    assert abs(chi2(spectra) - 1) < error + 0.005  # .5 %: model error and slow prior, stated
    assert chi2(spectra, 1 - 170 / N_PIXELS) < 1 - error - 0.005  # the control: some 170 numbers of each star forgotten
    for wrong in (-spectra.meta["rv"], 0.0):  # the controls: the sign of the velocity, and no velocity
        assert chi2(Spectra(WAVE, spectra.flux, spectra.ivar, spectra.continuum, spectra.meta.assign(rv=wrong))) > 1.5


def test_a_tenfold_dip_that_is_not_real_shows_in_second_differences(rng):
    right = plate(rng, 40)
    dips = sum(((low < WAVE) & (high > WAVE)).astype(int) for low, high in WINDOWS)
    quoted = Spectra(WAVE, right.flux, right.ivar / np.where(dips > 0, 10, 1), right.continuum, right.meta)
    answer = line_window_table(quoted, right)
    ratio = answer["mended"] / answer["beside"]
    assert abs(ratio.mean() - 1) < 5 * ratio.std() / np.sqrt(len(ratio))
    assert ratio.std() < 0.3  # some 400 pixels a window: a robust variance is good to 20 %, its sides to half of that
    np.testing.assert_allclose(answer["quoted"] * 10, answer["mended"], atol=0.0015 * 10, rtol=0.02)


def test_second_differences_of_white_noise_of_the_quoted_sigma_have_variance_one(rng):
    ivar = np.full((200, N_PIXELS), 400.0)
    flat = Spectra(WAVE, np.ones_like(ivar), ivar, np.ones_like(ivar), pd.DataFrame(index=range(200)), WHITE)
    answer = line_window_table(flat, add_noise(flat, ivar, seed=2))
    for column in ("mended", "beside"):
        assert abs(answer[column].mean() - 1) < 5 * answer[column].std() / np.sqrt(len(answer)) < 0.15
    assert (answer["quoted"] == 0).all()  # the control: no noise


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


@pytest.fixture(scope="module")
def chain(pilot, space) -> dict[str, np.ndarray]:
    """The residuals of the plate, what it shares, and what is each star's own."""
    z = residuals(pilot, *space)
    shared, own = split_common(z)
    return {"all": z, "shared": shared, "own": own}


def test_the_committed_table_is_what_the_command_makes(pilot, chain):
    committed = pd.read_csv(RESULTS / "noise.csv")
    for name in ("all", "own"):
        part = chain[name]
        again = table(per_star(pilot, part), resamples=2)
        before = committed[committed["residual"] == name].reset_index(drop=True)
        pd.testing.assert_frame_equal(again[["region", "pixels", "stars"]], before[["region", "pixels", "stars"]])
        for column in ("z_variance", "s2", "rho1", "rho2", "rho3"):
            np.testing.assert_allclose(again[column], before[column], atol=2e-3)


def test_the_other_committed_tables_are_what_the_command_makes(pilot, chain, shared):
    power = per_star(pilot, chain["shared"])
    faint = snr(pilot) < 15
    quoted, _ = lamost.read_folder(shared / "lamost", progress=False, mend=False)
    quoted = quoted.select((quoted.meta["release"] == "pilot").to_numpy())
    made = {"noise_extrapolated": noise_proper(per_star(pilot, chain["own"])),
            "noise_shared": power.groupby(["region", "pixels"], as_index=False)["power"].median(),
            "line_windows": line_window_table(quoted.select(faint), pilot.select(faint))}
    for name, again in made.items():
        before = pd.read_csv(RESULTS / f"{name}.csv")
        atol = 6e-5 if name == "noise_extrapolated" else 6e-4  # the digits they are rounded to
        pd.testing.assert_frame_equal(again, before, check_dtype=False, rtol=2e-2, atol=atol)


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
