"""The laboratory's judge finds what is wrong, and its committed table says what the docs say."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from scripts.evaluate_laboratory import DRAWS, REFERENCE, TABLE, closed_form, judged, methods, star, summary


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return pd.read_csv(TABLE).set_index(["method", "snr"])


def test_a_star_is_the_same_each_time_and_no_other() -> None:
    truth, y, sigma = star(10.0, 3)
    again, other = star(10.0, 3), star(10.0, 4)
    assert torch.equal(truth, again[0])
    assert torch.equal(y, again[1])
    assert not torch.equal(truth, other[0])
    live = torch.isfinite(sigma)
    z = ((y - truth) / sigma)[live]
    assert abs(float(z.std()) - 1) < 4 / np.sqrt(2 * len(z))
    assert (y[~live] == 1).all()


def test_closed_form_draws_are_judged_right_and_wrong_ones_wrong() -> None:
    truth, y, sigma = star(10.0, 0)
    live = torch.isfinite(sigma[0])
    reference, draws = closed_form(y, sigma, REFERENCE, 1), closed_form(y, sigma, DRAWS, 2)
    middle = draws.mean(0)
    right, narrow = (judged(middle + f * (draws - middle), truth, reference, live) for f in (1.0, 0.8))
    assert right["width"] == pytest.approx(1, abs=0.05)
    assert narrow["width"] == pytest.approx(0.8, abs=0.05)
    assert narrow["coverage"] < right["coverage"] - 0.05
    assert narrow["mse"] == pytest.approx(right["mse"])


def test_a_diverged_sampler_is_counted_and_not_averaged() -> None:
    good = {"mse": 1e-4, "off2": 1e-6, "var": 1e-4, "width": 1.0, "width_box": 1.0, "coverage": 0.68,
            "coverage_live": 0.68, "coverage_ew": 0.7}
    key = {"snr": 10.0, "calls": 1}
    rows = pd.DataFrame([{"method": "closed form", "star": 0, **key, **good}, {"method": "a", "star": 0, **key, **good},
                         {"method": "a", "star": 1, **key, "diverged": 1.0}])
    a = summary(rows).set_index("method").loc["a"]
    assert a["diverged"] == 0.5
    assert a["rms"] == pytest.approx(0.01)


def test_the_committed_table_holds_every_method(table: pd.DataFrame) -> None:
    for snr in table.index.get_level_values("snr").unique():
        assert set(methods(snr)) <= {m for m, s in table.index if s == snr}


def test_balanced_levels_are_right_and_first_order_is_not(table: pd.DataFrame) -> None:
    for snr in (5.0, 10.0, 30.0, 100.0):
        row = table.loc["start at y, balanced to 0.01, 9", snr]
        assert abs(row["width"] - 1) < 0.015 + 3 * row["width_se"]
        assert abs(row["width_box"] - 1) < 0.015 + 3 * row["width_box_se"]
        assert table.loc["start at y, first order, geometric to .02, 10", snr]["width"] < 0.8
        assert table.loc["start at y, Heun's ODE, 19", snr]["width"] < 1e-3


def test_dps_is_calibrated_at_no_strength(table: pd.DataFrame) -> None:
    dps = table[[m.startswith("DPS") for m, _ in table.index]]
    assert len(dps) == 16
    assert not ((abs(dps["width"] - 1) < 0.1) & (dps["mean_off"] < 0.2) & (abs(dps["coverage"] - 22 / 32) < 0.05)).any()
