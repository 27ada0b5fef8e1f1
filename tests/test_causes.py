"""Causes of an error are told apart: planted ratios come back, and no difference is called none."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from scripts.evaluate_causes import USUAL, compared, physics


def rows(cause: str, factor: float, rng: np.random.Generator, stars: int = 200) -> pd.DataFrame:
    square = factor**2 * np.exp(rng.normal(-9, 0.5, stars))
    return pd.DataFrame({"cause": cause, "snr": 20.0, "star": [f"s{i}" for i in range(stars)],
                         "mse_all": square, "mse_lines": square, "var_all": np.exp(-9.0), "var_lines": np.exp(-9.0)})


@pytest.mark.parametrize("factor", [1.0, 0.8, 1.3])
def test_a_planted_ratio_of_errors_comes_back_within_its_error(factor: float) -> None:
    rng = np.random.default_rng(3)
    table = compared(pd.concat([rows(USUAL, 1.0, rng), rows("other", factor, rng)])).set_index("cause")
    off = np.log(table.loc["other", "all"] / factor) / (table.loc["other", "all_err"] / table.loc["other", "all"])
    assert abs(off) < 4
    assert table.loc[USUAL, "all"] == pytest.approx(1)
    assert table.loc["other", "all_err"] == pytest.approx(np.sqrt(2) * 0.25 / np.sqrt(200), rel=0.25)


def test_control_a_worse_cause_is_not_taken_for_an_equal_one() -> None:
    rng = np.random.default_rng(4)
    table = compared(pd.concat([rows(USUAL, 1.0, rng), rows("other", 1.2, rng)])).set_index("cause")
    assert table.loc["other", "all"] - 4 * table.loc["other", "all_err"] > 1


def test_the_prior_of_physics_holds_no_real_star_and_is_a_prior() -> None:
    prior = physics()
    assert set(prior.kinds) == {"physics"}
    assert float(prior.log_weight.exp().sum()) == pytest.approx(1, abs=1e-5)
