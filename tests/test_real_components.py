"""Real components: as wide as stars they were not learned from, and as correlated."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter1d

from core.models.real_components import autocorrelation, real_components, residual_variance, taps_of

WIDTH = 600


def family(n: int, rng: np.random.Generator) -> np.ndarray:
    """Stars with many weak directions, of which a few dozen stars teach only some: as real ones."""
    strength = 0.02 / np.arange(1, 201)[:, None] ** 0.5
    directions = np.random.default_rng(9).standard_normal((200, WIDTH)) * strength
    return 1 + rng.standard_normal((n, 200)) @ directions / 5


def test_the_residual_is_that_of_stars_that_were_not_learned_from(rng):
    stars, new = family(120, rng), family(400, rng)
    _, mean, factors, residual = real_components(stars, np.zeros_like(stars), (), np.zeros(120))[0]
    gap = new - mean
    precision = 1 / (0.006**2 + 0.005**2)
    scores = np.linalg.solve(precision * factors @ factors.T + np.eye(len(factors)), precision * factors @ gap.T)
    left = gap - scores.T @ factors
    # stars were left out a fifth at a time: what is measured is for four fifths of them, a little too much
    assert 1.0 < residual.mean() / (left**2).mean() < 1.3
    basis = np.linalg.qr(factors.T)[0].T
    in_sample = stars - mean - (stars - mean) @ basis.T @ basis
    assert (in_sample**2).mean() < 0.6 * (left**2).mean()  # control: the stars themselves say too little


def test_one_component_for_all_and_one_for_each_cell_with_enough_stars(rng):
    stars = family(60, rng)
    groups = np.repeat([4000.0, 6000.0, 9000.0], [30, 25, 5])
    parts = real_components(stars, np.zeros_like(stars), (0, 5000, 8000, 1e5), groups)
    assert [len(f) for _, _, f, _ in parts] == [30, 15, 12]  # five stars are too few for a cell of their own
    assert parts[0][0] == 0.5


def test_what_a_completion_did_not_know_is_residual(rng):
    stars = family(60, rng)
    variance = np.zeros_like(stars)
    variance[:, 300:] = 0.01
    without, with_ = (real_components(stars, v, (), np.zeros(60))[0][3] for v in (np.zeros_like(stars), variance))
    np.testing.assert_allclose(with_ - without, variance[0], atol=1e-12)


def test_a_few_odd_stars_do_not_set_the_width_for_all(rng):
    residual = rng.standard_normal((200, WIDTH))
    odd = residual.copy()
    odd[:6] *= 30
    assert residual_variance(odd).mean() < 1.5 * residual_variance(residual).mean()
    assert (odd**2).mean() > 10 * (residual**2).mean()  # control: a plain mean square would be


def test_taps_bring_the_correlation_of_the_residual_back(rng):
    smooth = gaussian_filter1d(rng.standard_normal((400, WIDTH)), 1.3, axis=1)
    correlation = autocorrelation(smooth, np.ones(smooth.shape, dtype=bool))
    taps = taps_of(correlation).double().numpy()
    again = np.correlate(taps, taps, "full")[len(taps) - 1 :]
    assert np.sum(taps**2) == pytest.approx(1.0, abs=1e-6)
    want = np.exp(-np.arange(6) ** 2 / (4 * 1.3**2))
    np.testing.assert_allclose(correlation[:6], want, atol=0.03)
    np.testing.assert_allclose(again[:6], want, atol=0.12)  # the taper takes a little off
    white = taps_of(autocorrelation(rng.standard_normal((400, WIDTH)), np.ones(smooth.shape, dtype=bool)))
    assert torch.argmax(white) == len(white) // 2  # control: white noise asks for one tap
    assert float(white.max()) > 0.97


def test_pixels_that_were_not_measured_do_not_count(rng):
    smooth = gaussian_filter1d(rng.standard_normal((200, WIDTH)), 1.3, axis=1)
    seen = np.ones(smooth.shape, dtype=bool)
    seen[:, 300:] = False
    spoiled = np.where(seen, smooth, rng.standard_normal(smooth.shape))
    np.testing.assert_allclose(autocorrelation(spoiled, seen), autocorrelation(smooth[:, :300], seen[:, :300]))


def test_factors_are_the_leading_principal_directions_and_as_many_as_asked(rng):
    from core.models.real_components import _factors

    stars = family(60, rng)
    _, factors = _factors(stars, 12)
    _, scale, rows = np.linalg.svd(stars - stars.mean(axis=0), full_matrices=False)
    lead = rows[:12] * scale[:12, None] / np.sqrt(60)
    np.testing.assert_allclose(factors.T @ factors, lead.T @ lead, atol=1e-10 * float(scale[0]) ** 2)
    with pytest.raises(AssertionError):  # the control: one factor less is another covariance
        np.testing.assert_allclose(factors[:11].T @ factors[:11], lead.T @ lead, atol=1e-10 * float(scale[0]) ** 2)
    few = real_components(stars, np.zeros_like(stars), (), np.full(60, 5000.0), (12, 6))
    assert [len(f) for _, _, f, _ in few] == [12]  # no edges: the component of all stars alone
