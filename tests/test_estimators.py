"""Labels come back far better than the prior knows them, from file as from memory, with errors that cover."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import save_file
from sklearn.exceptions import ConvergenceWarning

from core.data.grid import N_PIXELS, WAVE
from core.data.noise import NoiseModel
from core.data.reality import Reality
from core.data.simulator import Simulated, Simulator
from core.metrics.calibration import central_coverage
from core.models.estimators import LabelEstimator, MLPLabels, RidgeLabels, propagate
from core.models.payne import PayneFit, typical
from core.models.templates import NATIVE, Templates
from core.spectrum import Array, Kernel, Spectra

ROOT = Path(__file__).resolve().parents[1]
TRAIN = 480
pytestmark = pytest.mark.filterwarnings(f"ignore::{ConvergenceWarning.__module__}.{ConvergenceWarning.__name__}")


@pytest.fixture(scope="module")
def templates() -> Templates:
    return Templates()


@pytest.fixture(scope="module")
def stars(templates) -> Simulated:
    simulator = Simulator(templates, NATIVE, NoiseModel.load(), templates.emulator.nearest)
    return simulator.draw(TRAIN + 120, np.random.default_rng(1), snr=100.0)


def five(stars: Simulated) -> Array:
    return np.concatenate([stars.labels[:, 1:5], stars.spectra.meta[["rv"]].to_numpy()], axis=1)


@pytest.fixture(scope="module")
def fitted(stars) -> dict[type, LabelEstimator]:
    made = (RidgeLabels(), MLPLabels(members=2, epochs=120))
    return {type(e): e.fit(stars.truth[:TRAIN], five(stars)[:TRAIN]) for e in made}


@pytest.mark.parametrize("kind", [RidgeLabels, MLPLabels])
def test_labels_of_new_stars_come_back_far_better_than_the_prior_knows_them(kind, fitted, stars):
    truth = five(stars)
    error = fitted[kind].predict(stars.truth[TRAIN:]) - truth[TRAIN:]
    share = np.sqrt((error**2).mean(axis=0)) / truth.std(axis=0)
    assert (share[:3] < (0.35 if kind is RidgeLabels else 0.6)).all(), share  # 480 stars are few for a network
    assert (share < 0.8).all(), share
    mixed = fitted[kind].predict(np.roll(stars.truth[TRAIN:], 1, axis=0)) - truth[TRAIN:]  # the control: the wrong star
    assert (np.sqrt((mixed**2).mean(axis=0)) / truth.std(axis=0))[:3].min() > 0.8


@pytest.mark.parametrize("kind", [RidgeLabels, MLPLabels])
def test_the_quoted_scatter_is_that_of_new_stars(kind, fitted, stars):
    truth = five(stars)[TRAIN:]
    z = (fitted[kind].predict(stars.truth[TRAIN:]) - truth) / fitted[kind].scatter(stars.truth[TRAIN:])
    inside = (np.abs(z) < 2).mean()  # 95 % of a Gaussian, less where a few stars are far off
    assert 0.85 < inside <= 1.0
    assert (np.abs(z) < 0.4).mean() < 0.75  # the control: a scatter five times too large


@pytest.mark.parametrize("kind", [RidgeLabels, MLPLabels])
def test_an_estimator_from_its_file_predicts_the_same_to_the_bit(kind, fitted, stars, tmp_path):
    path = tmp_path / "e.safetensors"
    fitted[kind].save(path)
    for back in (kind.load(path), LabelEstimator.load(path)):
        assert type(back) is kind
        np.testing.assert_array_equal(back.predict(stars.truth[:9]), fitted[kind].predict(stars.truth[:9]))
        np.testing.assert_array_equal(back.covariance_, fitted[kind].covariance_)
        one, two = (propagate(e, stars.truth[None, :9], np.random.default_rng(4)) for e in (back, fitted[kind]))
        np.testing.assert_array_equal(one, two)
    other = MLPLabels if kind is RidgeLabels else RidgeLabels
    with pytest.raises(ValueError, match=f"not {other.__name__}; load it with {kind.__name__}"):
        other.load(path)


def test_another_grid_or_version_or_file_is_refused(fitted, stars, tmp_path, monkeypatch):
    path, ridge = tmp_path / "e.safetensors", fitted[RidgeLabels]
    ridge.save(path)
    with pytest.raises(ValueError, match="resample the spectra or fit it again"):
        RidgeLabels.load(path, WAVE * 1.0001)
    with pytest.raises(ValueError, match="put them on its grid"):
        ridge.predict(stars.truth[:, :-1])
    holed = stars.truth[:2].copy()
    holed[0, 5] = np.nan
    with pytest.raises(ValueError, match="fill its gaps first"):
        ridge.predict(holed)
    monkeypatch.setattr("core.models.estimators.VERSION", 99)
    with pytest.raises(ValueError, match="fit it again"):
        RidgeLabels.load(path)
    save_file({"x": np.zeros(3)}, path)
    for wrong in (path, tmp_path / "none.safetensors"):
        with pytest.raises(ValueError, match="holds no estimator"):
            RidgeLabels.load(wrong)
    with pytest.raises(ValueError, match="call fit or load first"):
        RidgeLabels().predict(stars.truth[:1])
    with pytest.raises(ValueError, match="at least 40 stars"):
        RidgeLabels().fit(stars.truth[:10], five(stars)[:10])
    with pytest.raises(ValueError, match="Teff positive"):
        RidgeLabels().fit(stars.truth[:50], -five(stars)[:50])
    with pytest.raises(ValueError, match="at least 1 pixel"):
        RidgeLabels(rebin=0)
    with pytest.raises(ValueError, match="give .draws, spectra, pixels."):
        propagate(ridge, stars.truth[:2], None)


def test_propagated_intervals_cover_the_truth_and_without_the_estimator_s_own_scatter_they_do_not(rng):
    """A linear-Gaussian world: x = labels A + own scatter, y = x + noise, exact draws of x given y."""
    n, pixels, draws, spread = 4000, 40, 60, 0.5
    a = rng.standard_normal((5, pixels))
    labels = np.array([5000.0, 3.0, 0.0, 0.0, 0.0]) + rng.standard_normal((n, 5)) * [300.0, 1.0, 0.5, 0.2, 50.0]
    z = np.c_[(np.log10(labels[:, 0]) - 3.7) / 0.03, labels[:, 1] - 3, labels[:, 2] / 0.5, labels[:, 3] / 0.2,
              labels[:, 4] / 50]
    x = z @ a + 4.0 * rng.standard_normal((n, pixels))
    ridge = RidgeLabels(np.arange(pixels) + 1.0, rebin=1).fit(x, labels)
    test = slice(-600, None)  # a part of the held-out fifth
    prior = np.cov(x[: n // 2].T)
    y = x[test] + spread * rng.standard_normal((600, pixels))
    gain = prior @ np.linalg.inv(prior + spread**2 * np.eye(pixels))
    root = np.linalg.cholesky((np.eye(pixels) - gain) @ prior + 1e-12 * np.eye(pixels))
    centre = x.mean(0) + (y - x.mean(0)) @ gain.T
    drawn = centre + rng.standard_normal((draws - 1, 600, pixels)) @ root.T

    def covered(generator: np.random.Generator | None) -> float:
        rank = (propagate(ridge, drawn, generator) < labels[test]).sum(axis=0)
        return float(((rank >= 10) & (rank < 50)).mean())

    error = np.sqrt(2 / 9 / 3000)
    assert abs(covered(rng) - 2 / 3) < 4 * error + 0.01  # the scatter itself is known to some per cent
    assert covered(None) < 2 / 3 - 20 * error  # the control


# -------------------------------------------------------------------------------- a scatter that follows the star


def uneven(n: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """Spectra (n, 40) known exactly, and labels that they tell well at one end and five times worse at the other."""
    z = rng.standard_normal((n, 5))
    x = 0.2 * z @ np.random.default_rng(8).standard_normal((5, 40)) + 1
    own = np.exp(0.8 * z[:, :1]) * rng.standard_t(3, (n, 5)) * 0.1
    inner = np.array([3.7, 3.0, 0.0, 0.0, 0.0]) + np.array([0.03, 1.0, 0.5, 0.2, 50.0]) * (z + own)
    return x, np.c_[10 ** inner[:, 0], inner[:, 1:]]


def held(draws: Array, truth: Array, part: Array) -> Array:
    """(5,) share of the truths of some stars in the central 68.27 % of draws (n, B, 5)."""
    rank = (draws < truth).sum(axis=0)[part]
    return np.array([central_coverage(rank[:, i], len(draws), [0.6827]).coverage[0] for i in range(5)])


def test_the_scatter_follows_the_star_and_one_covariance_for_all_or_half_of_it_does_not(rng):
    ridge = RidgeLabels(np.arange(40) + 1.0, rebin=1).fit(*uneven(12000, rng), held_out=0.4)
    x, truth = uneven(4000, rng)
    order = np.argsort(ridge.predict(x)[:, 0])
    ends = order[:1000], order[-1000:]  # where labels are told well, and badly
    error = np.sqrt(0.6827 * 0.3173 / 1000)
    drawn = propagate(ridge, np.broadcast_to(x, (64, *x.shape)), rng)
    for part in ends:
        assert np.abs(held(drawn, truth, part) - 0.6827).max() < 4 * error + 0.01
    wide = ridge.scatter(x)
    assert np.median(wide[ends[1], 1]) > 4 * np.median(wide[ends[0], 1])
    centre = ridge.predict(x)
    root = np.linalg.cholesky(ridge.covariance_)  # the first control: one Gaussian for all, set by the worst
    one = centre + np.r_[0.0, 1, 1, 1, 1] * (rng.standard_normal(drawn.shape) @ root.T)
    half = (drawn + centre) / 2  # the second: half the residuals
    assert (held(one, truth, ends[0])[1:] > 0.6827 + 8 * error).all()
    assert all((held(half, truth, part) < 0.6827 - 8 * error).all() for part in ends)


@pytest.mark.parametrize("name", ["ridge", "mlp"])
def test_committed_estimators_cover_the_labels_of_known_spectra_and_with_half_or_one_scatter_do_not(name, templates):
    """On new simulated stars; what the judge's own say is results/estimator_control.csv."""
    simulator = Simulator(templates, NATIVE, NoiseModel.load(), templates.emulator.nearest, Reality.load())
    snr = np.exp(np.random.default_rng(52).uniform(np.log(5), np.log(150), 400))
    new = simulator.draw(400, np.random.default_rng(53), snr)
    estimator, everyone = LabelEstimator.load(ROOT / "checkpoints" / f"{name}.safetensors"), np.arange(400)
    drawn = np.concatenate([propagate(estimator, np.broadcast_to(x, (32, 1, len(x))), np.random.default_rng(i))
                            for i, x in enumerate(new.truth)], axis=1)
    got, error = held(drawn, five(new), everyone)[:4], np.sqrt(0.6827 * 0.3173 / 400)
    assert np.abs(got - 0.6827).max() < 3.5 * error, got
    half = (drawn + estimator.predict(new.truth)) / 2
    assert (held(half, five(new), everyone)[:4] < 0.6827 - 6 * error).all()
    if name == "ridge":  # whose few far misses set the one covariance
        flat = np.sqrt(np.diag(estimator.covariance_))[1:3]
        one = np.random.default_rng(54).normal(estimator.predict(new.truth)[:, 1:3], flat, (32, 400, 2))
        assert (held(np.pad(one, ((0, 0), (0, 0), (0, 3))), five(new)[:, [1, 2, 3, 3, 3]], everyone)[:2] > 0.75).all()


def test_draws_of_labels_depend_on_the_generator_alone(fitted, stars):
    twice = [propagate(fitted[RidgeLabels], stars.truth[None, :5], np.random.default_rng(s)) for s in (1, 1, 2)]
    np.testing.assert_array_equal(twice[0], twice[1])
    assert (twice[0] != twice[2]).all()


# ------------------------------------------------------------------------------------------------- the emulator's fit


def own_stars(fit: PayneFit, kernel: Kernel, sigma: float, rng: np.random.Generator) -> tuple[Spectra, Array]:
    """Eight stars of the fit's own model under correlated noise with a gap, and their labels."""
    main = np.array([[5700, 4.4, -0.1, 0.05], [5200, 4.55, -0.6, 0.2], [6300, 4.2, 0.1, 0.0], [6000, 4.1, -1.2, 0.25],
                     [4800, 2.5, -0.2, 0.1], [4400, 1.5, -0.7, 0.25], [5000, 3.0, 0.0, 0.05], [8500, 4.0, -0.2, 0.0]])
    kind = np.array([0, 0, 0, 0, 1, 1, 1, 2])
    labels = fit.templates.emulator.nearest(typical(main, kind))
    velocity = rng.uniform(-150, 150, 8)
    clean = fit.model(labels, velocity, np.full(8, 1850.0)) * (1 + 0.1 * np.sin(np.arange(N_PIXELS) / 900))
    noise = kernel.scales(WAVE) * kernel.colour(WAVE, rng.standard_normal((8, N_PIXELS + 2)))
    ivar = np.full((8, N_PIXELS), sigma**-2.0)
    ivar[:, 1500:1560] = 0
    spectra = Spectra(WAVE, np.where(ivar > 0, clean + sigma * noise, 50.0), ivar, np.ones_like(clean),
                      pd.DataFrame(index=range(8)), kernel)
    return spectra, np.c_[labels[:, 1:5], velocity]


@pytest.fixture(scope="module")
def payne(templates) -> PayneFit:
    return PayneFit(templates)


def test_the_emulator_s_fit_finds_its_own_stars_within_the_hessian_s_error(payne, rng):
    spectra, truth = own_stars(payne, Kernel((0.9, 0.8), (0.5, 0.5)), 0.03, rng)
    fit = payne.predict(spectra)
    assert fit.converged.all()
    gap = fit.labels - truth
    chi = np.array([g @ np.linalg.solve(c, g) for g, c in zip(gap, fit.covariance, strict=True)])
    assert abs(chi.sum() - 40) < 4 * np.sqrt(80)
    assert abs(fit.chi_square.mean() - 1) < 4 * np.sqrt(2 / (8 * 3750))
    assert (np.abs(gap) / truth.std(axis=0) < 0.3).mean() > 0.9
    blind = PayneFit(payne.templates, correlated=False).predict(spectra)  # the control: noise taken for white
    wrong = np.array([g @ np.linalg.solve(c, g) for g, c in zip(blind.labels - truth, blind.covariance, strict=True)])
    assert wrong.sum() - 40 > 4 * np.sqrt(80)


def test_the_fit_refuses_another_grid(payne, stars):
    one = stars.spectra.select(0)
    short = replace(one, wave=one.wave[:-1], flux=one.flux[:, :-1], ivar=one.ivar[:, :-1],
                    continuum=one.continuum[:, :-1])
    with pytest.raises(ValueError, match="put them on the working grid"):
        payne.predict(short)
