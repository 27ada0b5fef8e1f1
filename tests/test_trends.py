"""What is followed along S/N, sheets set together, errors against the floor: right on planted numbers."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from core.figures import compose, interactive, paper, sheets, together, trends
from core.figures.against_floor import against_floor, squared_errors
from core.figures.rows import of_sample
from core.figures.sheets import Sheet

STARS, DRAWS = 600, 32


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    """Posteriors of the right width, of half of it, and one answer; real stars scatter three times as much."""
    rng, rows = np.random.default_rng(3), []
    for sample, size in (("simulated", 1.0), ("real", 3.0)):
        for snr in (5.0, 20.0):
            truth = rng.normal(0, 3, STARS)
            for method, width, n in (("exact", 1.0, DRAWS), ("wiener", 0.5, DRAWS), ("savgol", 0.0, 1)):
                middle = truth + size * rng.standard_normal(STARS)
                draws = middle + width * size * rng.standard_normal((n, STARS))
                rows.append(pd.DataFrame({
                    "star": [f"{sample}-{i}" for i in range(STARS)], "sample": sample, "method": method,
                    "quantity": "EW:Mg b", "unit": "Angstrom", "snr": snr, "truth": truth, "mean": draws.mean(0),
                    "std": draws.std(0, ddof=1) if n > 1 else np.nan,
                    "rank": (draws < truth).sum(0) if n > 1 else np.nan, "n": n}))
    scores = [rows[0].assign(quantity="rms", truth=np.nan, mean=np.linspace(0.01, 0.03, STARS), rank=np.nan, n=1)]
    return pd.concat([*rows, *scores], ignore_index=True)


def test_a_posterior_of_the_right_width_holds_68_per_cent_and_one_half_as_wide_is_found(table: pd.DataFrame) -> None:
    found = trends.inside(table, "EW:Mg b").set_index(["sample", "method", "snr"])
    assert set(found.index.get_level_values("method")) == {"exact", "wiener"}, "one answer has no interval"
    for key, row in found.iterrows():
        off = abs(row["inside"] - trends.LEVEL) / row["error"]
        # errors of middle and draws are independent here: the pair is sqrt(2) and sqrt(1.25) wide over 1 and 1/2
        assert (off < 4) if key[1] == "exact" else (off > 8), (key, row["inside"])
        assert row["stars"] == STARS


def test_a_score_is_its_median_and_bars_hold_68_per_cent_of_the_stars(table: pd.DataFrame) -> None:
    row = trends.score(table, "rms").iloc[0]
    assert row["median"] == pytest.approx(0.02)
    assert row["high"] - row["low"] == pytest.approx(0.02 * 0.6826, rel=1e-3)


def both(table: pd.DataFrame) -> Sheet:
    parts = [compose.bias_and_scatter(of_sample(table, name), "EW:Mg b") for name in ("simulated", "real")]
    return together.beside(parts, ["Simulated", "Real"])


def test_what_stands_beside_each_other_shares_its_axes(table: pd.DataFrame) -> None:
    sheet = both(table)
    assert [[panel.title for panel in row if panel] for row in sheet.rows] == [["Simulated", "Real"], ["", ""]]
    for left, right in sheet.rows:
        assert left.y_range == right.y_range
        assert left.x_range == right.x_range
        assert left.y_text
        assert not right.y_text
        for panel in (left, right):
            low, high = panel.y_range
            assert all(((points.y > low) & (points.y < high)).all() for points in panel.points)
    alone = compose.bias_and_scatter(of_sample(table, "simulated"), "EW:Mg b").rows[0][0]
    assert alone.y_range != sheet.rows[0][0].y_range, "alone it would have looked as large as the other"
    assert sheet.samples == ("simulated", "real")


def test_what_stands_under_each_other_says_whose_it_is(table: pd.DataFrame) -> None:
    parts = [compose.pit(table, "EW:Mg b", ["exact", "wiener"], sample=name) for name in ("simulated", "real")]
    sheet = together.stacked(parts, ["Simulated", "Real"])
    assert [row[0].note.splitlines()[0] for row in sheet.rows] == ["Simulated", "Real"]
    assert sheet.rows[0][0].y_range == sheet.rows[1][0].y_range
    assert sheet.height == sum(part.height for part in parts)


def test_sheets_that_do_not_fit_are_refused(table: pd.DataFrame) -> None:
    bias = compose.bias_and_scatter(table, "EW:Mg b")
    with pytest.raises(ValueError, match="as many rows each"):
        together.beside([bias, trends.inside_curve(table, "EW:Mg b")], ["a", "b"])
    with pytest.raises(ValueError, match="one title for each"):
        together.beside([bias], [])
    with pytest.raises(ValueError, match="rows and columns each"):
        together.stacked([bias, both(table)], ["a", "b"])


@pytest.mark.parametrize("name", ["bias", "inside", "score"])
def test_every_point_says_whose_stars_it_is(table: pd.DataFrame, name: str) -> None:
    sheet = {"bias": lambda: both(table), "inside": lambda: trends.inside_curve(table, "EW:Mg b"),
             "score": lambda: trends.score_curve(table, "rms")}[name]()
    for panel in sheet.panels:
        for points in panel.points:
            assert len(points.keys) == len(points.x)
            assert {key.split("|")[1] for key in points.keys} == {points.method}
            assert [float(key.split("|")[2]) for key in points.keys] == pytest.approx(points.x, rel=0.2)
    traces = [trace for trace in interactive.draw(sheet).data if trace.customdata is not None]
    assert {key for trace in traces for key in trace.customdata} == {k for p in sheet.panels for q in p.points
                                                                     for k in q.keys}
    paper.draw(sheet)


def test_bars_of_ranks_and_pit_say_their_bin(table: pd.DataFrame) -> None:
    for sheet in (compose.pit(table, "EW:Mg b"), compose.rank_check(table, "EW:Mg b", bins=11)):
        for bars in (bars for panel in sheet.panels for bars in panel.bars):
            ends = np.array([[float(end) for end in key.split("|")[3:]] for key in bars.keys])
            assert ends[:, 0] == pytest.approx(bars.edges[:-1], abs=1e-5)
            assert ends[:, 1] == pytest.approx(bars.edges[1:], abs=1e-5)


def test_few_draws_are_taken_off_an_error_against_the_floor() -> None:
    def row(quantity: str, **more: float) -> dict[str, object]:
        return {"star": "a", "method": "exact", "snr": 10.0, "quantity": quantity, "truth": np.nan, "std": np.nan,
                "n": 1} | more

    rows = pd.DataFrame([row("rms", mean=0.05), row("width", mean=0.12), row("RV", mean=3.0, truth=1.0, std=2.0, n=16)])
    found = squared_errors(rows).set_index("quantity")
    assert found.loc["rms", "extra"] == pytest.approx(0.12**2 / 16), "a score is of as many draws as what stands beside"
    assert found.loc["RV", "mse"] == pytest.approx(4.0)
    assert found.loc["RV", "extra"] == pytest.approx(4.0 / 16)
    stars = pd.DataFrame({"star": ["a", "b"], "snr": 10.0, "ok": True, "width:all": [0.0016, 0.0016]})
    out = against_floor(stars, found.reset_index()).set_index("star")
    assert out.loc["a", "rms:exact"] == pytest.approx(np.sqrt(0.05**2 - 0.12**2 / 16))
    assert out.loc["a", "rms_floor"] == pytest.approx(0.04)
    assert np.isnan(out.loc["b", "rms:exact"])


def test_a_key_is_short_and_comes_back() -> None:
    assert sheets.point("real", "exact", 10.0) == "real|exact|10"
    assert sheets.point("real", "exact", 10.0, 0.9, 1.0) == "real|exact|10|0.9|1"
