"""Patterns of sky and air: learned, kept, and told from the star."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from test_mixture import small_mixture, stars_of

from core.data import lamost, sky
from core.data.grid import N_PIXELS, WAVE
from core.data.library import bundled
from core.models.observation import Observation
from core.spectrum import WHITE


def two_patterns() -> np.ndarray:
    rng = np.random.default_rng(1)
    return rng.standard_normal((2, N_PIXELS)) * (WAVE > 7000) * (rng.random(N_PIXELS) < 0.05)


def test_patterns_are_found_again_in_what_they_made(rng):
    truth = two_patterns()
    z = rng.standard_normal((200, 2)) @ truth + 0.3 * rng.standard_normal((200, N_PIXELS))
    z[:, 100:200] = np.nan
    z[rng.random(z.shape) < 0.05] = np.nan
    found = sky.learn(z, 2)
    on = np.abs(truth).sum(0) > 0
    inside = np.linalg.lstsq(found.T, truth.T, rcond=None)[0]
    assert np.mean((truth.T - found.T @ inside)[on] ** 2) < 0.05 * np.mean(truth[:, on] ** 2)
    ratio = np.sum(found**2) / np.sum(truth**2)
    assert 0.7 < ratio < 1.4
    assert np.abs(found[:, WAVE < sky.FROM]).max() < 1e-12


def test_too_few_stars_for_patterns_are_refused():
    with pytest.raises(ValueError, match="at least"):
        sky.learn(np.zeros((10, N_PIXELS)), 2)


def test_a_missing_file_says_how_to_make_one(tmp_path):
    with pytest.raises(ValueError, match="prepare sky"):
        sky.patterns(tmp_path / "none.safetensors")


def test_what_is_saved_comes_back(tmp_path):
    sky.save(two_patterns(), tmp_path / "s.safetensors")
    np.testing.assert_allclose(sky.patterns(tmp_path / "s.safetensors"), two_patterns(), rtol=1e-3)


def test_bundled_simulated_stars_have_no_sky_and_real_ones_do():
    spectra, _ = bundled()
    assert spectra.patterns.shape == (0, N_PIXELS)
    assert lamost._patterns("simulated", "observed").shape[0] == len(sky.patterns())


def sky_star(rng):
    """A star of the small mixture with sky on it: the truth, and the observation told of the patterns."""
    mixture = small_mixture()
    truth, _, question = stars_of(mixture, 1, 20.0, WHITE, rng)
    patterns = 6 * two_patterns()
    sigma = torch.where(question.live[0], question.ivar[0].clamp_min(1e-9).rsqrt(), 0.0)
    y = question.y + torch.tensor(np.array([1.5, -1.0]) @ patterns * sigma.numpy())
    return mixture, truth[0], replace(question, y=y, patterns=torch.tensor(patterns))


def test_a_told_pattern_is_taken_for_sky_and_not_for_the_star(rng):
    mixture, truth, question = sky_star(rng)
    told = mixture.posterior(question).moments()[0].numpy()
    untold = mixture.posterior(replace(question, patterns=torch.zeros(0, 0))).moments()[0].numpy()
    on = np.abs(two_patterns()).sum(0) > 0
    assert np.mean((told - truth)[on] ** 2) < 0.3 * np.mean((untold - truth)[on] ** 2)


def test_draws_and_moments_agree_when_there_is_sky(rng):
    mixture, _, question = sky_star(rng)
    posterior = mixture.posterior(question)
    mean, deviation = posterior.moments()
    draws = posterior.draw(2000, torch.Generator().manual_seed(1))
    assert float(((draws.mean(0) - mean) / (deviation / 2000**0.5)).abs().max()) < 6.0
    assert 0.97 < float((draws.std(0) / deviation).mean()) < 1.03


def test_a_star_of_no_known_kind_shows_as_a_misfit(rng):
    mixture = small_mixture()
    _, _, question = stars_of(mixture, 6, 30.0, WHITE, rng)
    own = [mixture.posterior(question.star(b)).misfit() for b in range(6)]
    assert max(own) < 5
    odd = question.y + 0.2 * torch.sin(torch.arange(N_PIXELS) / 7.0)
    strange = replace(question, y=odd)
    assert min(mixture.posterior(strange.star(b)).misfit() for b in range(6)) > 5


def test_patterns_on_another_grid_are_refused(rng):
    _, _, question = stars_of(small_mixture(), 1, 20.0, WHITE, rng)
    with pytest.raises(ValueError, match="patterns"):
        Observation(question.wave, question.y, question.ivar, question.keys, WHITE, torch.zeros(2, 10))
