"""The residual's report card: scale and correlation recovered within their errors, and a false claim found."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from core.metrics.honesty import Posterior, claimed, posterior_of, report, white
from core.spectrum import Kernel, Spectra

WAVE = 10 ** (np.log10(3800.0) + 1e-4 * np.arange(3840))  # about 1900 pixels in each arm, as LAMOST's grid
TRUTH = 1.0 + 0.3 * np.sin(WAVE / 50.0)
LAMOST = Kernel((0.74, 0.60), (0.10, 0.05))
STARS = 240


def observed(rng: np.random.Generator, noise: Kernel, stars: int = STARS, wave: np.ndarray = WAVE) -> Spectra:
    """Stars whose quoted sigma rises along the spectrum; a twentieth of the pixels is dead."""
    sigma = np.broadcast_to(np.linspace(0.03, 0.1, len(wave)), (stars, len(wave)))
    live = rng.random(sigma.shape) > 0.05
    n = noise.scales(wave) * sigma * noise.colour(wave, rng.standard_normal((stars, len(wave) + 2)))
    flux = np.where(live, np.interp(wave, WAVE, TRUTH) + n, 77.0)
    return Spectra(wave, flux, live / sigma**2, np.ones_like(flux), pd.DataFrame(index=range(stars)), noise)


def truth_of(spectra: Spectra) -> np.ndarray:
    return np.broadcast_to(np.interp(spectra.wave, WAVE, TRUTH), spectra.flux.shape)


def pulls(table: pd.DataFrame, arm: str, column: str, expected: float) -> tuple[float, float, int]:
    part = table[table["arm"] == arm]
    pull = ((part[column] - expected) / part[f"{column}_err"]).to_numpy()
    return float(pull.mean()), float(np.sqrt((pull**2).mean())), len(pull)


def p_is_uniform(p: pd.Series) -> bool:
    """Shares below .05 and .5 within 4.5 binomial errors."""
    return all(abs((p < a).mean() - a) < 4.5 * np.sqrt(a * (1 - a) / len(p)) for a in (0.05, 0.5))


@pytest.mark.parametrize("noise", [LAMOST, Kernel((0.9, 0.8), (0.5, 0.3))])
def test_scale_and_correlation_are_recovered_within_their_errors(rng: np.random.Generator, noise: Kernel) -> None:
    spectra = observed(rng, noise)
    table = report(spectra, truth_of(spectra))
    for i, arm in enumerate(("blue", "red")):
        rho1, rho2 = claimed(noise, arm)
        true = {"s": noise.scale[i], "s_robust": noise.scale[i], "rho1": rho1, "rho2": rho2, "chi_square": 1.0}
        for column, value in true.items():
            mean, rms, n = pulls(table, arm, column, value)
            # a square root or ratio of means is off by about its squared error, .05 of the error itself here
            assert abs(mean) < 4.5 / np.sqrt(n) + 0.05, (arm, column)
            assert abs(rms - 1) < 4.5 / np.sqrt(2 * n), (arm, column)
    assert p_is_uniform(white(spectra, truth_of(spectra))["p_value"])


def test_errors_that_forget_the_neighbours_would_be_too_small(rng: np.random.Generator) -> None:
    spectra = observed(rng, Kernel((1.0, 1.0), (0.7, 0.7)))
    table = report(spectra, truth_of(spectra))
    naive = ((table["s"] - 1) / np.sqrt(0.5 / table["pixels"])).to_numpy()
    ours = ((table["s"] - 1) / table["s_err"]).to_numpy()
    scatter = 4.5 / np.sqrt(2 * len(table))
    assert np.sqrt((naive**2).mean()) > 1 + scatter, "control"
    assert abs(np.sqrt((ours**2).mean()) - 1) < scatter


@pytest.mark.parametrize("claim", [Kernel(), Kernel((0.74, 0.60)), Kernel((0.68, 0.66), (0.10, 0.05))])
def test_a_false_claim_is_rejected(rng: np.random.Generator, claim: Kernel) -> None:
    spectra = observed(rng, LAMOST)
    mean = truth_of(spectra)
    assert not p_is_uniform(white(spectra.with_noise(claim), mean)["p_value"])
    if claim == Kernel():
        assert (white(spectra.with_noise(claim), mean)["p_value"] < 1e-6).all(), "unit scale: for each star alone"
    said, known = report(spectra.with_noise(claim), mean), report(spectra, mean)
    assert np.allclose(said["s"], known["s"]), "what is measured does not depend on what is claimed"
    assert np.allclose(said["rho1"], known["rho1"])


def conjugate(rng: np.random.Generator, noise: Kernel, stars: int = 300) -> tuple[Spectra, np.ndarray, np.ndarray]:
    """Stars drawn from a smooth Gaussian prior, their exact posterior mean (B, L) and covariance (L, L)."""
    wave = np.linspace(5750.0, 6050.0, 300)
    sigma = np.linspace(0.05, 0.08, 300)
    P = 0.1**2 * np.exp(-0.5 * ((wave[:, None] - wave) / 3.0) ** 2)
    rows = noise.scales(wave)[:, None] * sigma[:, None] * noise.colour(wave, np.eye(302)).T
    N = rows @ rows.T
    x = np.linalg.cholesky(P + 1e-10 * np.eye(300)) @ rng.standard_normal((300, stars))
    y = (x + rows @ rng.standard_normal((302, stars))).T
    gain = np.linalg.solve(N + P, P).T
    ivar = np.broadcast_to(1 / sigma**2, y.shape)
    spectra = Spectra(wave, y, ivar, np.ones_like(y), pd.DataFrame(index=range(stars)), noise)
    return spectra, y @ gain.T, P - gain @ P


def lags(V: np.ndarray, stars: int) -> np.ndarray:
    out = np.zeros((3, stars, len(V)))
    for k in range(3):
        out[k, :, : len(V) - k] = np.diagonal(V, k)
    return out


@pytest.mark.parametrize("noise", [Kernel(), LAMOST])
def test_what_the_fit_absorbed_is_given_back_and_ignoring_it_fails(rng: np.random.Generator, noise: Kernel) -> None:
    spectra, mean, V = conjugate(rng, noise)
    exact = lags(V, len(spectra))
    full, scale, none = (report(spectra, Posterior(mean, c)) for c in (exact, exact[:1], None))

    def off(table: pd.DataFrame, arm: str, column: str, true: float) -> float:
        """Mean over stars against the truth, in its standard errors."""
        part = table.loc[table["arm"] == arm, column]
        return float((part.mean() - true) / part.sem())

    for i, arm in enumerate(("blue", "red")):
        rho1, rho2 = claimed(noise, arm)
        assert abs(off(full, arm, "chi_square", 1.0)) < 4.5
        assert abs(off(scale, arm, "chi_square", 1.0)) < 4.5, "variances suffice for the scale"
        assert off(none, arm, "chi_square", 1.0) < -15, "control: taking the residual for the noise"
        assert off(none, arm, "s", noise.scale[i]) < -15
        for column, true in (("rho1", rho1), ("rho2", rho2)):
            # rho is a ratio, biased by its squared relative error: some 1 / 150 pixels
            bias = 2 / 150 / full.loc[full["arm"] == arm, column].sem()
            assert abs(off(full, arm, column, true)) < 4.5 + bias
            assert off(scale, arm, column, true) < -10, "control: variances alone do not mend the correlation"
    rms = pulls(full, "blue", "s", noise.scale[0])[1]
    assert 0.8 < rms < 1.2, "the fit is no exact projection, so its errors hold to a fifth"


def test_draws_of_the_posterior_give_its_covariance(rng: np.random.Generator) -> None:
    spectra, mean, V = conjugate(rng, LAMOST, stars=60)
    root = np.linalg.cholesky(V + 1e-10 * np.eye(len(V)))
    draws = mean + rng.standard_normal((16, *mean.shape)) @ root.T
    table = report(spectra, posterior_of(draws))
    for column, true in (("chi_square", 1.0), ("rho1", None)):
        for arm in ("blue", "red"):
            part = table.loc[table["arm"] == arm, column]
            expected = claimed(LAMOST, arm)[0] if true is None else true
            assert abs(part.mean() - expected) < 4.5 * part.sem() + 2 / 150, (column, arm)


def test_a_copy_of_the_observation_and_an_erased_line_are_no_white_residual(rng: np.random.Generator) -> None:
    spectra = observed(rng, LAMOST, stars=4)
    half = 0.5 * (spectra.flux + truth_of(spectra))
    assert (white(spectra, half)["p_value"] < 1e-6).all()
    erased = truth_of(spectra) + 0.4 * np.exp(-0.5 * ((spectra.wave - 5000.0) / 8.0) ** 2)
    p = white(spectra, erased)
    assert (p.loc[p["arm"] == "blue", "p_value"] < 1e-3).all()
    assert (p.loc[p["arm"] == "red", "p_value"] > 1e-4).all()


def test_an_arm_without_pixels_has_no_figures_and_its_neighbour_keeps_its_own(rng: np.random.Generator) -> None:
    spectra = observed(rng, LAMOST, stars=2)
    ivar = spectra.ivar.copy()
    ivar[0, spectra.wave > 5900.0] = 0
    cut = Spectra(WAVE, spectra.flux, ivar, spectra.continuum, spectra.meta, LAMOST)
    table, whole = report(cut, truth_of(cut)), report(spectra, truth_of(spectra))
    assert table["arm"].tolist() == ["blue", "red"] * 2
    assert table.loc[1, ["s", "s_err", "s_robust", "rho1", "rho2", "chi_square"]].isna().all()
    assert table.loc[1, "pixels"] == 0
    pd.testing.assert_frame_equal(table.drop(1), whole.drop(1))
    assert np.isnan(white(cut, truth_of(cut)).loc[1, "p_value"])


def test_bad_input_is_refused(rng: np.random.Generator) -> None:
    spectra = observed(rng, LAMOST, stars=2)
    mean = truth_of(spectra)
    with pytest.raises(ValueError, match="mean has shape"):
        report(spectra, mean[0])
    with pytest.raises(ValueError, match="covariance has shape"):
        report(spectra, Posterior(mean, mean))
    with pytest.raises(ValueError, match="not negative"):
        report(spectra, Posterior(mean, -np.ones((1, *mean.shape))))
    with pytest.raises(ValueError, match="must be finite"):
        white(spectra, np.where(mean > 1, np.nan, mean))
    with pytest.raises(ValueError, match="two draws"):
        posterior_of(mean[None])
