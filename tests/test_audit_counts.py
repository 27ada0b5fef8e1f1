"""The audit's counts are those of the rows, and their intervals know that lines of one star go together."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from scripts.audit_counts import by_star, counts, exact, shown_counts


def audited(caught: bool) -> pd.DataFrame:
    """Four lines put in, of which two are removed, and four taken out, of which two come back, on two stars each."""
    rows = [("nothing", f"s{i}", "", 0.0, np.nan, np.nan, False) for i in range(20)]
    rows += [("put in", f"s{i % 2}", "1", 7.0, 0.1 if i < 2 else 0.9, np.nan, caught) for i in range(4)]
    rows += [("put in", "s9", "1", 12.0, 0.1, np.nan, False), ("take out", "s9", "Mg b", 4.0, np.nan, 0.9, False)]
    rows += [("take out", f"s{i % 2}", "H alpha" if i else "Mg b", -20.0, np.nan, 0.3 if i < 2 else 0.1, caught)
             for i in range(4)]
    table = pd.DataFrame(rows, columns=["experiment", "star", "line", "strength", "survival", "painted", "flagged"])
    return table.assign(method="exact", snr=10.0)


def test_counts_are_those_of_the_rows_and_a_blind_flag_is_seen():
    row = counts(audited(True)).iloc[0]
    assert (row["alarms"], row["alarms_of"]) == (0, 20)
    assert (row["removed"], row["removed_of"], row["caught"], row["caught_of"]) == (2, 4, 2, 2)
    assert (row["painted"], row["painted_of"], row["h_alpha"], row["seen"], row["seen_of"]) == (2, 4, 1, 2, 2)
    blind = counts(audited(False)).iloc[0]  # the control
    assert (blind["caught"], blind["seen"], blind["seen_high"]) == (0, 0, pytest.approx(0.842, abs=0.001))
    assert shown_counts(counts(audited(False)))["of these flagged "].iloc[0].startswith("0 of 2 (0.00-")


def test_intervals_hold_the_truth_as_often_as_they_say():
    assert exact(6, 9) == (pytest.approx(0.299, abs=0.001), pytest.approx(0.925, abs=0.001))
    rng = np.random.default_rng(1)
    star, found = pd.Series(np.repeat(np.arange(40), 5)), {"alone": 0, "by star": 0}
    for _ in range(100):
        hit = pd.Series(np.repeat(rng.random(40) < 0.6, 5))  # lines of one star all share its fate
        low, high = by_star(hit, star)
        found["by star"] += low <= 0.6 <= high
        low, high = exact(int(hit.sum()), len(hit))
        found["alone"] += low <= 0.6 <= high
    assert found["by star"] >= 87
    assert found["alone"] < 80  # the control: lines taken for independent promise too much
