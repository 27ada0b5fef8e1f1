"""The judge goes on where it was, refuses what it does not know, and its summary says what the rows say."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from core.metrics.table import rows_of
from core.pipeline import METHODS, reconstruct
from scripts import evaluate_judge, judge_pages
from scripts.judge_stars import SEED, SNR, simulated


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
    first = evaluate_judge.plan([asked], ["noisy", "savgol"], 4, tmp_path / "run")
    assert [t.method for t in first] == ["noisy", "savgol"]
    assert evaluate_judge._job(first[0]) > 0
    left = evaluate_judge.plan([asked], ["noisy", "savgol"], 4, tmp_path / "run")
    assert [t.method for t in left] == ["savgol"]
    assert not list((tmp_path / "run").glob("*.part"))


def test_an_unknown_method_is_refused_before_anything_is_computed(monkeypatch):
    monkeypatch.setattr(evaluate_judge, "samples_of", lambda args: pytest.fail("stars were made"))
    args = argparse.Namespace(methods="noisy,mixtur", draws=4, number=2, workers=1, stars=Path("x"), lamost=Path("x"))
    with pytest.raises(ValueError, match="mixture"):
        evaluate_judge.judge(args)


def test_slow_methods_are_asked_about_fewer_stars_and_for_fewer_draws(asked, tmp_path):
    pieces = evaluate_judge.plan([asked], ["noisy", "dps", "exact"], 32, tmp_path, slow=(2, 4))
    assert [(p.method, p.last, p.draws) for p in pieces] == [("noisy", 3, 32), ("dps", 2, 4), ("exact", 3, 32)]
    assert set(evaluate_judge.SLOW) < set(evaluate_judge.NETWORKS) < set(METHODS)


def test_draws_made_beforehand_are_measured_like_those_made_on_the_spot(asked, tmp_path):
    piece = evaluate_judge.plan([asked], ["wiener"], 4, tmp_path)[0]
    draws = reconstruct(asked.spectra, "wiener", 4, SEED).draws
    np.save(tmp_path / "drawn.npy", draws.astype(np.float32))
    here, failed = evaluate_judge.measured(piece)
    before, none = evaluate_judge.measured(replace(piece, drawn=tmp_path / "drawn.npy"))
    assert len(failed) == len(none) == 0
    assert list(here["quantity"]) == list(before["quantity"])
    same = here["quantity"].ne("RV")  # searched for: a last digit may move it
    np.testing.assert_allclose(before["mean"][same], here["mean"][same], rtol=1e-3, atol=1e-3)
    np.save(tmp_path / "drawn.npy", draws[:, ::-1].astype(np.float32))  # control: another star's draws
    other, _ = evaluate_judge.measured(replace(piece, drawn=tmp_path / "drawn.npy"))
    assert not np.allclose(other["mean"][same], here["mean"][same], rtol=1e-3, atol=1e-3, equal_nan=True)


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
