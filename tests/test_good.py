"""The table on very good spectra: ratios are of the same stars, free of the draws' own error, and harm is seen."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from scripts.evaluate_good import compared


def judged(method: str, rms: list[float], n: int, width: float) -> pd.DataFrame:
    """A judge's rows of three stars."""
    rows = []
    for star, value in enumerate(rms):
        at = {"sample": "simulated", "star": f"s{star}", "method": method, "snr": 200.0, "n": n}
        extra = value**2 + (width**2 / n if n > 1 else 0.0)
        rows += [at | {"quantity": "rms", "mean": np.sqrt(extra)}, at | {"quantity": "width", "mean": width},
                 at | {"quantity": "chi2", "mean": 1.0}]
        rows += [at | {"quantity": "flux:5000", "mean": 1.0, "truth": 1.0, "rank": rank} for rank in range(n + 1)]
    return pd.DataFrame(rows)


def test_ratios_are_of_the_truth_and_not_of_the_number_of_draws():
    rows = pd.concat([judged("noisy", [2.0, 4.0, 6.0], 1, 0.0), judged("mixture", [1.0, 2.0, 3.0], 8, 1.0),
                      judged("exact", [0.5, 1.0, 1.5], 8, 0.5)])
    out = compared(rows).set_index("method")
    assert out["over_noisy"].to_dict() == pytest.approx({"noisy": 1.0, "mixture": 0.5, "exact": 0.25})
    assert out.loc["exact", "over_mixture"] == pytest.approx(0.5)
    assert out.loc["exact", "rms"] == pytest.approx(1.0)
    assert out.loc["exact", "pixels"] == pytest.approx(0.683, abs=0.06)  # every rank once
    assert np.isnan(out.loc["noisy", "pixels"])


def test_one_star_that_is_harmed_is_not_hidden_by_the_others():
    rows = pd.concat([judged("noisy", [1.0, 1.0, 1.0], 1, 0.0), judged("exact", [0.1, 0.1, 1.5], 8, 0.1)])
    out = compared(rows).set_index("method")
    assert out.loc["exact", "over_noisy"] < 1
    assert out.loc["exact", "worst"] == pytest.approx(1.5)
