"""SSIM in one dimension is Wang's formula in an explicit loop, counts live pixels alone, and sees an erased line."""

from __future__ import annotations

import numpy as np
import pytest

from core.metrics.similarity import ssim

PIXELS = 120


def by_loop(x: np.ndarray, y: np.ndarray, live: np.ndarray, where: np.ndarray, data_range: float, sigma: float = 1.5
            ) -> float:
    """Equation 13 of Wang et al. 2004, pixel by pixel."""
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    scores = []
    for i in range(len(x)):
        if not (live[i] and where[i]):
            continue
        js = [j for j in range(i - 5, i + 6) if 0 <= j < len(x) and live[j]]
        w = np.array([np.exp(-((j - i) ** 2) / (2 * sigma**2)) for j in js])
        w = w / w.sum()
        a, b = x[js], y[js]
        ma, mb = w @ a, w @ b
        va, vb, ab = w @ (a - ma) ** 2, w @ (b - mb) ** 2, w @ ((a - ma) * (b - mb))
        scores.append((2 * ma * mb + c1) * (2 * ab + c2) / ((ma**2 + mb**2 + c1) * (va + vb + c2)))
    return float(np.mean(scores))


@pytest.mark.parametrize("data_range", [1.0, 0.3])
def test_it_is_the_published_formula(rng: np.random.Generator, data_range: float) -> None:
    truth = 1 + 0.1 * rng.standard_normal((2, PIXELS))
    model = truth + 0.05 * rng.standard_normal((3, 2, PIXELS))
    live = rng.random((2, PIXELS)) > 0.2
    where = np.arange(PIXELS) % 50 < 30
    got = ssim(np.where(live, model, np.nan), truth, live, where, data_range)
    assert got.shape == (3, 2)
    want = [[by_loop(m, t, on, where, data_range) for m, t, on in zip(row, truth, live, strict=True)] for row in model]
    np.testing.assert_allclose(got, want, rtol=1e-9)
    other = by_loop(model[0, 0], truth[0], live[0], where, data_range, sigma=2.0)
    assert abs(got[0, 0] / other - 1) > 1e-3  # the control: another window is told apart


def test_the_truth_is_similar_to_itself_and_nothing_is_nowhere(rng: np.random.Generator) -> None:
    truth = 1 + 0.1 * rng.standard_normal((2, PIXELS))
    on = np.ones((2, PIXELS), dtype=bool)
    np.testing.assert_allclose(ssim(truth, truth, on), 1.0, rtol=1e-12)
    assert np.isnan(ssim(truth, truth, ~on)).all()
    assert (ssim(truth + 0.05 * rng.standard_normal(truth.shape), truth, on) < 0.99).all()


def test_a_truth_that_is_not_known_where_pixels_count_is_refused() -> None:
    truth, on = np.ones((2, PIXELS)), np.ones((2, PIXELS), dtype=bool)
    truth[1, 7:9] = np.nan
    with pytest.raises(ValueError, match="truth is not finite in 2 pixels that count; leave them out of measured"):
        ssim(np.ones((3, 2, PIXELS)), truth, on, np.arange(PIXELS) > 50)
    on[1, 7:9] = False
    assert (ssim(np.ones((3, 2, PIXELS)), truth, on) == 1).all()


def test_an_erased_line_is_seen_in_its_window_and_hardly_outside() -> None:
    place = np.arange(PIXELS)
    truth = 1 - 0.4 * np.exp(-0.5 * ((place - 60) / 2.0) ** 2)
    near = np.abs(place - 60) < 8
    assert ssim(np.ones(PIXELS), truth, True, near) < 0.5
    assert ssim(np.ones(PIXELS), truth, True, np.abs(place - 60) > 20) == pytest.approx(1.0)


def test_a_range_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="positive span"):
        ssim(np.ones(9), np.ones(9), True, data_range=0.0)
