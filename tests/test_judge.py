"""The judge goes on where it was, refuses what it does not know, and its summary says what the rows say."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from core.metrics.table import rows_of
from scripts import evaluate_judge, judge_pages
from scripts.judge_stars import SNR, simulated


@pytest.fixture(scope="module")
def asked():
    return simulated(20.0, 3)


def test_simulated_test_stars_are_the_same_every_time_and_no_two_alike(asked):
    again = simulated(20.0, 3)
    np.testing.assert_array_equal(asked.truth, again.truth)
    assert len(set(asked.spectra.stars)) == 3
    other = simulated(30.0, 3)
    assert not set(other.spectra.stars) & set(asked.spectra.stars)
    assert np.abs(other.labels - asked.labels).min() > 0 or not np.allclose(other.truth, asked.truth)


def test_a_killed_run_goes_on_where_it_was(asked, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluate_judge, "WORK", tmp_path)
    (tmp_path / "run").mkdir()
    first = evaluate_judge.plan([asked], ["noisy", "savgol"], 4, "run")
    assert [t[1] for t in first] == ["noisy", "savgol"]
    assert evaluate_judge._job(first[0]) > 0
    left = evaluate_judge.plan([asked], ["noisy", "savgol"], 4, "run")
    assert [t[1] for t in left] == ["savgol"]
    assert not list((tmp_path / "run").glob("*.part"))


def test_an_unknown_method_is_refused_before_anything_is_computed(monkeypatch):
    monkeypatch.setattr(evaluate_judge, "samples_of", lambda args: pytest.fail("stars were made"))
    args = argparse.Namespace(methods="noisy,mixtur", draws=4, number=2, workers=1, stars=Path("x"), lamost=Path("x"))
    with pytest.raises(ValueError, match="mixture"):
        evaluate_judge.judge(args)


def table_of(gap: float, width: float, rng: np.random.Generator) -> pd.DataFrame:
    """Four hundred stars whose draws are off by `gap` and `width` times as wide as they should be."""
    truth = 2 + 0.5 * rng.standard_normal(400)
    middle = truth + gap + 0.1 * rng.standard_normal(400)
    draws = middle + width * 0.1 * rng.standard_normal((32, 400))
    names = [str(i) for i in range(400)]
    parts = [rows_of(names, "m", q, "1", 20.0, truth, draws, 0) for q in (*judge_pages._STRONG, "RV", "logg", "[Fe/H]")]
    return pd.concat(parts).assign(sample="simulated")


def test_the_gates_let_the_good_pass_and_mark_the_bad(rng):
    widths = pd.Series(2.0, index=list(judge_pages._STRONG))
    good = judge_pages.gates(evaluate_judge.card(table_of(0.0, 1.0, rng)), widths, "simulated").iloc[0]
    bad = judge_pages.gates(evaluate_judge.card(table_of(0.2, 1.0, rng)), widths, "simulated").iloc[0]
    narrow = judge_pages.gates(evaluate_judge.card(table_of(0.0, 0.5, rng)), widths, "simulated").iloc[0]
    gates = ["EW bias [%]", "logg bias", "[Fe/H] bias"]
    assert not any(str(good[g]).endswith("x") for g in [*gates, "EWs inside"])
    assert all(str(bad[g]).endswith("x") for g in gates)
    assert str(narrow["EWs inside"]).endswith("x")


def test_the_summary_s_bias_and_scatter_are_those_of_the_rows(rng):
    card = evaluate_judge.card(table_of(0.2, 1.0, rng)).set_index("quantity")
    assert card.loc["RV", "median_bias"] == pytest.approx(0.2, abs=4 * 1.25 * 0.1 / 20)
    assert card.loc["RV", "scatter"] == pytest.approx(0.1, rel=0.2)
    assert card.loc["RV", "stars"] == 400
    assert 20.0 in SNR
