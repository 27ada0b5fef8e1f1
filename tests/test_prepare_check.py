"""What `prepare --check` prints is what was measured, and a figure that is missed is called missed."""

from __future__ import annotations

import shutil

import pandas as pd
import pytest

from scripts.prepare_check import RESULTS, figures


@pytest.fixture
def copy(tmp_path):
    for name in ("emulator", "reality_gap", "mixture", "mixture_checks"):
        shutil.copy(RESULTS / f"{name}.csv", tmp_path)
    return tmp_path


def test_every_figure_of_the_stars_is_there(copy):
    table = figures(copy)
    for word in ("emulator", "EWs inside", "mixture / Wiener", "velocity known", "ms a star", "own truth"):
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


def test_a_missing_table_names_the_command_that_makes_it(copy):
    (copy / "mixture.csv").unlink()
    with pytest.raises(ValueError, match="scripts.evaluate"):
        figures(copy)
