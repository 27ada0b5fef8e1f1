"""What `prepare --check` prints is what was measured, and a figure that is missed is called missed."""

from __future__ import annotations

import shutil
import time

import pandas as pd
import pytest

from scripts import prepare_check
from scripts.prepare_check import RESULTS, figures, speed


@pytest.fixture
def copy(tmp_path):
    for name in ("emulator", "reality_gap", "reality_stars", "reality_parents", "mixture", "mixture_checks"):
        shutil.copy(RESULTS / f"{name}.csv", tmp_path)
    return tmp_path


def test_every_figure_of_the_stars_is_there(copy):
    table = figures(copy)
    for word in ("emulator", "velocity known", "ms a star", "own truth", "best rival", "EWs inside",
                 "both / real.*white", "both / physics.*LAMOST", "mixture / Wiener"):
        assert table["figure"].str.contains(word).any(), word


def test_a_figure_that_is_missed_is_called_missed(copy):
    gap = pd.read_csv(copy / "reality_gap.csv")
    gap["ew_coverage"] = 0.70
    gap.to_csv(copy / "reality_gap.csv", index=False)
    table = figures(copy)
    assert (table["met"][table["figure"].str.contains("EWs inside")] == "yes").all()
    gap["ew_coverage"] = 0.50
    gap.to_csv(copy / "reality_gap.csv", index=False)
    table = figures(copy)
    assert (table["met"][table["figure"].str.contains("EWs inside")] == "NO").all()


def test_both_kinds_of_prior_above_a_parent_are_called_missed_beyond_the_error_alone(copy):
    """In white noise the error is that of the ratio, star by star, not of the two rms."""
    stars = pd.read_csv(copy / "reality_stars.csv")
    both, white = stars["prior"].eq("both"), stars["noise"].eq("white")
    real = stars[white & stars["prior"].eq("real")].set_index(["snr", "star"])["mse"]
    keys = pd.MultiIndex.from_frame(stars.loc[both & white, ["snr", "star"]])
    for factor, met in ((1.0, "yes"), (1.05**2, "NO"), (0.95**2, "yes")):
        stars.loc[both & white, "mse"] = factor * real.loc[keys].to_numpy()
        stars.to_csv(copy / "reality_stars.csv", index=False)
        table = figures(copy)
        mine = table[table["figure"].str.contains("both / real") & table["figure"].str.contains("white")]
        assert len(mine) == 8
        assert (mine["met"] == met).all()
    lamost = pd.read_csv(copy / "reality_parents.csv").assign(rms_ratio=1.05)
    for error, met in ((0.01, "NO"), (0.06, "yes")):
        lamost.assign(rms_ratio_err=error).to_csv(copy / "reality_parents.csv", index=False)
        table = figures(copy)
        mine = table[table["figure"].str.contains("both / ") & table["figure"].str.contains("LAMOST")]
        assert len(mine) == 12
        assert (mine["met"] == met).all()
        assert (mine["wanted"] == "<= 1 within the error").all()


def test_an_emulator_that_a_rival_beats_is_called_missed(copy):
    table = pd.read_csv(copy / "emulator.csv")
    table.loc[table["method"].eq("nearest neighbour"), "median_abs"] = 1e-4
    assert (figures()["met"][figures()["figure"].str.contains("best rival")] == "yes").all()
    table.to_csv(copy / "emulator.csv", index=False)
    assert (figures(copy)["met"][figures(copy)["figure"].str.contains("best rival")] == "NO").all()


def test_the_simulator_s_speed_is_measured_now(monkeypatch):
    row = speed(0.1).iloc[0]
    assert row["wanted"] == ">= 200"
    assert float(row["measured"]) > 20
    draw = prepare_check.Simulator.draw

    def slow(self, n, rng):
        time.sleep(1.0 if n == 100 else 0.0)
        return draw(self, n, rng)

    monkeypatch.setattr(prepare_check.Simulator, "draw", slow)  # the control: below a hundred a second
    assert speed(0.1).iloc[0]["met"] == "NO"


def test_a_missing_table_names_the_command_that_makes_it(copy):
    (copy / "mixture.csv").unlink()
    with pytest.raises(ValueError, match="scripts.evaluate"):
        figures(copy)
