"""What is planted in residuals with missing data is found again; where nothing was measured, nothing is claimed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from core.data.population import LABEL_NAMES, draw_labels
from core.data.reality import Reality, fit_reality, label_features
from core.spectrum import Array

N, L, K = 160, 400, 3
NEVER = slice(350, 370)  # pixels that no star has


def planted(rng: np.random.Generator) -> dict[str, Array]:
    """Residuals: intercept and slope in Teff, K smooth factors, noise that differs, a third of the pixels missing."""
    at = np.linspace(0, 1, L)
    labels = rng.uniform((4500, 2.0, -1.0), (6500, 4.8, 0.3), (N, 3))
    features = label_features(*labels.T)
    mean = np.zeros((7, L))
    mean[0], mean[1] = 0.02 * np.sin(9 * at), 0.03 * np.cos(7 * at)
    factors = np.array([0.02, 0.015, 0.01])[:, None] * np.array([np.sin((i + 2) * 6 * at + i) for i in range(K)])
    sigma = 0.01 * np.exp(0.7 * rng.standard_normal((N, 1)))
    residual = features @ mean + rng.standard_normal((N, K)) @ factors + sigma * rng.standard_normal((N, L))
    weight = np.broadcast_to(sigma**-2.0, (N, L)).copy()
    for row in weight:  # a block of its own for each star, as libraries end where they end
        start = rng.integers(0, L)
        row[start : start + L // 3] = 0.0
    weight[:, NEVER] = 0.0
    return {"features": features, "mean": mean, "factors": factors, "weight": weight,
            "residual": np.where(weight > 0, residual, 5.0)}  # whatever stands there means nothing


def lost(found: Array, factors: Array) -> float:
    """Share of the planted factors' variance that the found ones do not span, over pixels that somebody has."""
    keep = np.ones(L, dtype=bool)
    keep[NEVER] = False
    basis = np.linalg.svd(found[:, keep], full_matrices=False)[2]
    rest = factors[:, keep] - factors[:, keep] @ basis.T @ basis
    return float((rest**2).sum() / (factors[:, keep] ** 2).sum())


@pytest.fixture(scope="module")
def world() -> dict[str, Array]:
    return planted(np.random.default_rng(77))


@pytest.fixture(scope="module")
def fitted(world) -> Reality:
    return fit_reality(world["residual"], world["weight"], world["features"], K)


def test_the_planted_factors_are_spanned_better_than_by_a_mean_filled_svd(world, fitted):
    live = world["weight"] > 0
    mean = np.where(live, world["residual"], 0.0).sum(0) / np.maximum(live.sum(0), 1)
    gap = np.where(live, world["residual"] - mean, 0.0)
    naive = np.linalg.svd(gap, full_matrices=False)[2][:K]
    assert lost(fitted.factors, world["factors"]) < 0.05
    assert lost(fitted.factors, world["factors"]) < 0.5 * lost(naive, world["factors"])  # the control


def test_the_planted_mean_and_its_slope_are_recovered(world, fitted):
    keep = np.ones(L, dtype=bool)
    keep[NEVER] = False
    per_pixel = (world["factors"] ** 2).sum(0)[keep] + 0.01**2  # variance of one star about the mean
    stars = (world["weight"] > 0).sum(0)[keep]
    error = (world["features"] @ (fitted.mean - world["mean"]))[:, keep]
    # least squares of 7 features has a mean squared error of 7 variances over the number of stars
    expected = 7 * per_pixel / stars
    assert (error**2).mean() < 1.5 * expected.mean()
    constant = (world["features"] @ world["mean"])[:, keep]  # the control: no slope learned
    assert ((constant - constant.mean(0)) ** 2).mean() > 3 * expected.mean()


def test_the_covariance_of_draws_is_that_of_the_planted_factors(world, fitted):
    keep = np.ones(L, dtype=bool)
    keep[NEVER] = False
    got = (fitted.factors**2).sum(0)[keep].mean()
    want = (world["factors"] ** 2).sum(0)[keep].mean()
    assert abs(got / want - 1) < 4 * np.sqrt(2 / N) * 0.7  # each factor's size is known to sqrt(2 / N)
    assert fitted.spread[keep].mean() < 0.01  # the stars' own noise is not learned as theirs


def test_nothing_is_claimed_where_nothing_was_measured(fitted):
    inside = slice(NEVER.start, NEVER.stop)
    assert np.abs(fitted.factors[:, inside]).max() < 1e-12
    assert np.abs(fitted.mean[:, inside]).max() < 1e-12
    assert np.abs(fitted.factors[:, 345]).max() > 1e-3  # the control: beside the gap there is something


def test_a_pixel_that_few_stars_have_is_shrunk_and_does_not_blow_up(world):
    weight = world["weight"].copy()
    weight[2:, :10] = 0.0
    fit = fit_reality(world["residual"], weight, world["features"], K)
    assert np.abs(fit.factors[:, :10]).max() < 0.03  # below the largest planted loading, .02, and its noise
    assert np.isfinite(fit.mean).all()


def test_stars_without_labels_count_for_the_intercept_alone(world):
    features = world["features"].copy()
    features[::4] = np.nan
    fit = fit_reality(world["residual"], world["weight"], features, K)
    assert np.isfinite(fit.mean).all()
    assert lost(fit.factors, world["factors"]) < 0.15


def test_no_factors_leave_the_mean_alone(world):
    fit = fit_reality(world["residual"], world["weight"], world["features"], 0)
    assert fit.factors.shape == (0, L)
    labels = draw_labels(4, np.random.default_rng(0))
    a, b = (fit(labels, np.random.default_rng(s)) for s in (1, 2))
    np.testing.assert_array_equal(a, b)


def test_draws_have_the_stated_mean_and_covariance(fitted):
    n = 4000
    labels = np.tile(draw_labels(1, np.random.default_rng(5)), (n, 1))
    draws = fitted(labels, np.random.default_rng(6))
    want = label_features(labels[:1, 1], labels[:1, 2], labels[:1, 3])[0] @ fitted.mean
    size = np.sqrt((fitted.factors**2).sum(0))
    assert np.abs(draws.mean(0) - want).max() < 4.5 * size.max() / np.sqrt(n)
    at = [20, 120, 300]
    for i in at:
        assert abs(draws[:, i].var() / size[i] ** 2 - 1) < 4 * np.sqrt(2 / n)
        assert abs(draws[:, i].var() / (0.85 * size[i]) ** 2 - 1) > 4 * np.sqrt(2 / n)  # the control: 15 % narrower
    np.testing.assert_array_equal(fitted(labels, np.random.default_rng(6)), draws)


# ---------------------------------------------------------------------------------------------- features, files


def test_features_are_bounded_outside_the_library(rng):
    wild = label_features(*rng.uniform((10, -9, -9), (1e6, 20, 9), (500, 3)).T)
    edge = label_features(*rng.uniform((3950, 0, -2.5), (12000, 5, 0.5), (5000, 3)).T)
    assert wild.shape == (500, 7)
    assert np.abs(wild).max() <= np.abs(label_features(*np.array([[12000, 0, -2.5], [12000, 5, 0.5]]).T)).max() + 1e-9
    assert np.all(wild[:, 0] == 1)
    assert np.abs(edge).max() < 20
    np.testing.assert_array_equal(label_features(np.array([9e4]), np.array([4.0]), np.array([0.0])),
                                  label_features(np.array([12000.0]), np.array([4.0]), np.array([0.0])))


def test_saved_numbers_come_back_to_float16(fitted, tmp_path):
    fitted.save(tmp_path / "r.safetensors")
    back = Reality.load(tmp_path / "r.safetensors")
    for name in ("mean", "factors", "spread"):
        np.testing.assert_allclose(getattr(back, name), getattr(fitted, name), rtol=1e-3, atol=1e-7)
    assert back(draw_labels(3, np.random.default_rng(0)), np.random.default_rng(1)).shape == (3, L)
    assert len(LABEL_NAMES) == 28


@pytest.mark.parametrize("content", ["missing", "nonsense", "empty", "other arrays", "too many arrays"])
def test_a_file_that_is_no_reality_is_refused_with_the_remedy(content, tmp_path: Path):
    path = tmp_path / "reality.safetensors"
    numbers = {name: np.zeros((2, 3), dtype=np.float16) for name in ("mean", "factors", "spread")}
    if content == "nonsense":
        path.write_bytes(b"these are no tensors, and long enough to be read")
    elif content == "empty":
        path.touch()
    elif content == "other arrays":
        save_file({"weights": numbers["mean"]}, path)
    elif content == "too many arrays":
        save_file({**numbers, "more": numbers["mean"]}, path)
    with pytest.raises(ValueError, match=r"holds no reality .*; run `python -m scripts\.prepare prior`"):
        Reality.load(path)
