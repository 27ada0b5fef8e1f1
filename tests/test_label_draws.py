"""Label intervals come apart into the draws' part and the estimator's own: each fault is found in its own place."""

from __future__ import annotations

import numpy as np
import pytest

from scripts.label_draws import decomposed


def asked(rng: np.random.Generator, wide: float, scatter: float, stars: int = 2000, n: int = 16) -> dict[str, float]:
    """Draws `wide` times too wide around a posterior of width 1, an estimator that errs by 1 and says `scatter`."""
    clean = rng.standard_normal(stars)
    labels = clean + rng.standard_normal(stars)
    read = wide * rng.standard_normal((n, stars))
    return decomposed(read, read + scatter * rng.standard_normal((n, stars)), clean, labels)


def test_right_draws_and_a_right_scatter_give_683_and_each_fault_shows_where_it_is(rng):
    right = asked(rng, 1.0, 1.0)
    for name in ("spectrum", "published"):
        assert abs(right[name] - 0.6827) < 4 * right[f"{name}_err"]
    assert right["width"] == pytest.approx(1, rel=0.1)
    wide = asked(rng, 1.5, 1.0)  # controls: draws too wide show in both ...
    assert min(wide["spectrum"], wide["published"]) > 0.75 - 0.02
    blurred = asked(rng, 1.0, 2.0)  # ... and too much scatter in what is published alone
    assert abs(blurred["spectrum"] - 0.6827) < 4 * blurred["spectrum_err"]
    assert blurred["published"] > 0.8
