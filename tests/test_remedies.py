"""Remedies are compared as they should be: a misfit costs one threshold its lines, a scale by place gives them back."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.stats import binom

from scripts.evaluate_remedies import REMEDIES, Filtered, compared
from scripts.judge_pages import remedies

SHAPE = (2, 600)


def filtered(rng: np.random.Generator, number: int, signal: np.ndarray | float = 0.0) -> Filtered:
    """Residuals four times as wide as the noise in a tenth of the places; nothing explained by draws."""
    wide = np.where(np.arange(SHAPE[1]) < 60, 4.0, 1.0)
    score = wide * rng.standard_normal((number, *SHAPE)) - signal
    norm = np.ones((number, *SHAPE))
    return Filtered(score, norm, 0 * norm, np.ones(norm.shape, dtype=bool))


def test_a_scale_by_place_finds_what_one_threshold_loses_at_the_same_false_alarms(rng):
    signal, near = np.zeros((300, *SHAPE)), np.zeros((300, *SHAPE), dtype=bool)
    place = rng.integers(100, SHAPE[1], 300)
    strength = np.repeat([7.5, 12.0], 150)
    signal[np.arange(300), 0, place], near[np.arange(300), 0, place] = strength, True
    rows = pd.DataFrame({"strength": strength, "survival": np.zeros(300)})
    null, check, put = filtered(rng, 200), filtered(rng, 200), filtered(rng, 300, signal)
    found = {name: compared(null, check, put, rows, near, remedy) for name, remedy in REMEDIES.items()}
    for name in ("(a) scale by place and width", "(a) by local S/N: built", "the same, (d) generalized Pareto tail"):
        assert found[name]["flagged_5_10"] > 0.95, name
        assert found[name]["false_alarms"] <= binom.ppf(1 - 5e-4, 400, 0.02), name
    assert found["the same without draws"]["flagged_5_10"] < 0.05, "the control: the worst places set it"
    assert found["(c) scale by star"]["flagged_5_10"] < 0.05, "all stars are alike here"
    known = {"method": "mixture", "snr": 50.0, "limit_5_10": 0.9, "could_5_10": 0.9}
    page = remedies(pd.DataFrame([{"remedy": name, **known, **row} for name, row in found.items()]))
    assert list(page.columns) == ["remedy", "S/N 50", "false alarms [%]"]
    assert len(page) == len(REMEDIES) + 1
