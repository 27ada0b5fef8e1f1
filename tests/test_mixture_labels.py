"""Labels that ride along in the mixture: right on stars that the mixture made, and wide enough."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from test_mixture import WIDTH, small_mixture, stars_of

from core.models.mixture_labels import MixtureLabels, fit_labels
from core.spectrum import WHITE

SLOPE = np.random.default_rng(5).standard_normal((8, 4)) * np.array([0.01, 0.1, 0.1, 0.03])
SCATTER = np.array([0.002, 0.02, 0.02, 0.01])


def labelled(n: int, rng: np.random.Generator) -> tuple[torch.Tensor, np.ndarray]:
    """Stars of the small mixture at rest, with labels linear in their scores."""
    mixture = small_mixture()
    j = rng.choice(3, n, p=[0.5, 0.3, 0.2])
    t = rng.standard_normal((n, 8))
    rest = 0.002 * rng.standard_normal((n, WIDTH))
    x = mixture.mean[j].numpy() + np.einsum("nk,nkl->nl", t, mixture.factors[j].numpy()) + rest
    inner = np.array([3.75, 4.0, -0.3, 0.1]) + t @ SLOPE + SCATTER * rng.standard_normal((n, 4))
    labels = inner.copy()
    labels[:, 0] = 10 ** inner[:, 0]
    return torch.tensor(x, dtype=torch.float32), labels


@pytest.fixture(scope="module")
def learned() -> MixtureLabels:
    stars = labelled(1500, np.random.default_rng(1))
    return fit_labels(small_mixture(), stars, stars)


def test_slopes_and_scatter_are_found_again(learned):
    for j in range(3):
        assert np.abs(learned.slope[j].numpy() - SLOPE).max() < 0.02
        got = np.sqrt(np.diag(learned.scatter[j].numpy()))
        np.testing.assert_allclose(got, SCATTER, rtol=0.2)


def test_intervals_of_labels_hold_the_truth_and_narrower_ones_do_not(learned):
    rng, mixture = np.random.default_rng(7), small_mixture()
    inside = narrow = 0
    stars, labels = labelled(60, rng)
    _, _, question = stars_of(mixture, 1, 20.0, WHITE, rng)
    for x, truth in zip(stars, labels, strict=True):
        clean = x[12 : 12 + question.y.shape[1]].double()
        sigma = torch.where(question.ivar > 0, question.ivar.clamp_min(1e-9).rsqrt(), 0.0)
        y = clean + sigma * torch.tensor(rng.standard_normal(question.y.shape))
        draws = learned.draw(mixture.posterior(replace(question, y=y)), 400, rng)[:, :4]
        middle = draws.mean(0)
        for factor in (1.0, 0.6):
            low, high = np.quantile(middle + factor * (draws - middle), (0.1587, 0.8413), axis=0)
            hits = int(((truth > low) & (truth < high)).sum())
            inside, narrow = (inside + hits, narrow) if factor == 1.0 else (inside, narrow + hits)
    # 240 numbers, those of a star tied by its scores: the error of the share is at most .06
    assert abs(inside / 240 - 0.683) < 3 * 0.06
    assert narrow / 240 < 0.683 - 3 * 0.06 + 0.05


def test_what_is_saved_comes_back_and_a_missing_file_names_its_command(learned, tmp_path):
    learned.save(tmp_path / "l.safetensors")
    again = MixtureLabels.load(tmp_path / "l.safetensors")
    torch.testing.assert_close(again.slope, learned.slope)
    with pytest.raises(ValueError, match="prepare labels"):
        MixtureLabels.load(tmp_path / "none.safetensors")


def test_stars_without_any_labels_are_refused():
    stars, labels = labelled(120, np.random.default_rng(2))
    with pytest.raises(ValueError, match="labels"):
        fit_labels(small_mixture(), (stars, np.full_like(labels, np.nan)), (stars, labels))
