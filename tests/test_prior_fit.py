"""The prior: held-out stars are refused, real components hold what they were learned from, and disk changes nothing."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from test_mixture import WIDTH, small_mixture

from core.data.grid import N_PIXELS, WAVE
from core.data.instrument import MARGIN
from core.models.mixture import Mixture
from core.models.prior_fit import Recipe, build, join, moved, save
from core.models.real_components import real_components
from core.spectrum import Spectra


def test_a_held_out_star_among_the_training_ones_is_refused():
    one = np.ones((2, N_PIXELS))
    stars = Spectra(WAVE, one, one, one, pd.DataFrame({"star": ["a", "b"], "held_out": [False, True]}))
    with pytest.raises(ValueError, match="held-out stars"):
        build([stars], Recipe(), print)


def test_both_kinds_in_one_mixture_share_the_probability_as_told(rng):
    physics = small_mixture()
    stars = 1 + 0.01 * rng.standard_normal((40, WIDTH))
    real = real_components(stars, np.zeros_like(stars), (0, 9000), np.full(40, 5000.0))
    short = [(w, m, f[:8], r) for w, m, f, r in real]
    both = join(physics, short, share=0.25, unit_spread=0.0)
    weight = both.log_weight.exp()
    assert float(weight.sum()) == pytest.approx(1.0, abs=1e-5)
    assert float(weight[[k == "real" for k in both.kinds]].sum()) == pytest.approx(0.25, abs=1e-5)
    assert both.always == [3]


def test_a_saved_mixture_is_the_same_prior(tmp_path):
    mixture = small_mixture(scales=(0.5, 2.0), taps=torch.tensor([0.6, 0.8]))
    save(mixture, {"what": "test"}, tmp_path / "m.safetensors")
    again = Mixture.load(tmp_path / "m.safetensors", unit_spread=0.0)
    assert again.scales == mixture.scales
    assert torch.equal(again.taps, mixture.taps)
    assert again.kinds == mixture.kinds
    assert float((again.mean - mixture.mean).abs().max()) < 2e-3  # float16 of the basis
    assert float((again.factors - mixture.factors).abs().max()) < 1e-3
    torch.testing.assert_close(again.log_weight, mixture.log_weight)


def test_moved_stars_keep_their_lines_and_scatter_as_the_velocity_prior(rng):
    pixel = np.arange(WIDTH)
    star = 1 - 0.5 * np.exp(-0.5 * ((pixel - 2000) / 3.0) ** 2)
    out = moved(torch.tensor(np.tile(star, (300, 1)), dtype=torch.float32), seed=1).numpy()
    at = out.argmin(axis=1) + MARGIN - 2000
    assert np.abs(at).max() <= 8
    assert 0.4 < np.median(np.abs(at)) + 0.5 < 2.5  # median |v| of 34 km/s is half a pixel; places are whole pixels


def test_the_committed_prior_is_small_enough_and_holds_both_kinds():
    from core.models.mixture import MODEL_FILE

    assert MODEL_FILE.stat().st_size < 12e6
    kinds = Mixture.load().kinds
    assert {"physics", "real"} <= set(kinds)
