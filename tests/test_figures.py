"""Figures: they draw what is in the table, both coats the same, and the page's files are what a journal wants."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from app.styles import STYLES as SCREEN
from core.figures import compose, interactive, paper, series, series_lines, style
from core.figures.sheets import Sheet
from core.metrics.false_alarms import limit

STARS, SNR = 400, (5.0, 20.0)
#: method -> bias, scatter of mean - truth, width of the draws in units of that scatter, draws
PLAN = {"savgol": (-0.3, 0.5, 0.0, 1), "mixture": (0.0, 0.4, 1.0, 64), "wiener": (0.0, 0.4, 0.8, 32)}


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    rng, rows = np.random.default_rng(7), []
    for sample, stars in (("simulated", STARS), ("real", 100)):
        for snr in SNR:
            for method, (bias, scatter, width, n) in PLAN.items():
                for quantity, unit, size in (("EW:H alpha", "Angstrom", 1.0), ("EW:Mg b", "Angstrom", 1.0),
                                             ("Teff", "K", 100.0)):
                    truth, error = rng.uniform(1, 5, stars), scatter * 5 / snr
                    mean = truth + bias + error * rng.standard_normal(stars)
                    draws = mean + width * error * rng.standard_normal((n, stars))
                    drew = n > 1
                    rows.append(pd.DataFrame({
                        "star": [f"{sample} {i}" for i in range(stars)], "sample": sample, "method": method,
                        "quantity": quantity, "unit": unit, "snr": snr, "truth": size * truth, "mean": size * mean,
                        "std": size * draws.std(0, ddof=1) if drew else np.nan,
                        "rank": (draws < truth).sum(0) if drew else np.nan, "n": n}))
    score = rows[0].assign(quantity="ssim", unit="", truth=np.nan, mean=0.9, rank=np.nan, n=0)
    return pd.concat([*rows, score], ignore_index=True)


@pytest.fixture(scope="module")
def audit() -> pd.DataFrame:
    rng, rows = np.random.default_rng(8), []
    for method, kept in (("mixture", 1.0), ("savgol", 0.5)):
        strength = rng.uniform(1, 20, 2000) * rng.choice([-1, 1], 2000)
        power = limit(strength, 4000.0)
        rows.append(pd.DataFrame({
            "method": method, "snr": 10.0, "experiment": "put_in", "strength": strength, "limit": power,
            "survival": kept + 0.1 * rng.standard_normal(2000), "flagged": rng.random(2000) < kept * power}))
    return pd.concat([*rows, pd.DataFrame({"method": ["mixture"], "snr": [10.0], "experiment": ["nothing"]})])


@pytest.fixture(scope="module")
def floor() -> pd.DataFrame:
    rms = np.random.default_rng(9).uniform(0.8, 1.2, 200)
    ok = np.arange(200) % 10 > 0
    return pd.DataFrame({"star": np.arange(200).astype(str), "snr": np.repeat(SNR, 100), "ok": ok,
                         "rms_floor": np.where(ok, rms, np.nan), "rms:mixture": 1.03 * rms, "rms:noisy": 3 * rms})


@pytest.fixture(scope="module")
def sheets(table: pd.DataFrame, audit: pd.DataFrame, floor: pd.DataFrame) -> dict[str, Sheet]:
    return {"bias": compose.bias_and_scatter(table, "Teff"), "coverage": compose.coverage(table, "EW:"),
            "difference": compose.coverage(table, "Teff", snr=20, difference=True), "pit": compose.pit(table, "EW:"),
            "ranks": compose.rank_check(table, "EW:Mg b"), "ew": compose.ew_scatter(table, "H alpha"),
            "audit": compose.audit_curves(audit), "rho": compose.rho_curve(floor)}


def test_bias_and_scatter_are_recovered_within_their_errors(table: pd.DataFrame) -> None:
    rows = series.bias_and_scatter(table, "EW:H alpha")
    assert len(rows) == len(PLAN) * len(SNR) * 2
    true_bias = rows["method"].map({m: p[0] for m, p in PLAN.items()})
    true_scatter = rows["method"].map({m: p[1] for m, p in PLAN.items()}) * 5 / rows["snr"]
    for column, true in (("bias", true_bias), ("scatter", true_scatter)):
        pull = (rows[column] - true) / rows[f"{column}_err"]
        assert (pull.abs() < 4).all()
        assert 0.3 < (pull**2).mean() < 2.5
    assert rows["gate"].iloc[0] == pytest.approx(0.05 * 3, rel=0.05)
    assert set(rows["stars"]) == {STARS, 100}


def test_perfect_ranks_stay_inside_and_a_fifth_too_narrow_does_not(table: pd.DataFrame) -> None:
    simulated = table[(table["sample"] == "simulated") & (table["quantity"] == "Teff")]
    for make, value in ((series.coverage_curve, "coverage"), (series.rank_ecdf, "difference")):
        rows = make(simulated, "Teff")
        rows["out"] = (rows[value] < rows["low"] - 1e-12) | (rows[value] > rows["high"] + 1e-12)
        out = rows.groupby(["method", "snr"])["out"].any()
        assert not out["mixture"].any()
        assert out["wiener"].all()
    pit = series.pit_histogram(simulated, "Teff")
    pit["out"] = ~pit["density"].between(pit["band_low"], pit["band_high"])
    assert pit.groupby("method")["out"].any().to_dict() == {"mixture": False, "wiener": True}
    np.testing.assert_allclose(pit.groupby(["method", "snr"])["density"].mean(), 1.0)
    p = series.rank_ecdf(simulated, "Teff").groupby("method")["p_value"].max()
    assert p["mixture"] > 0.05 > p["wiener"]


def test_pooled_lines_count_stars_and_not_rows(table: pd.DataFrame) -> None:
    pooled, one = series.coverage_curve(table, "EW:"), series.coverage_curve(table, "EW:Mg b")
    assert (pooled["stars"].to_numpy() == one["stars"].to_numpy()).all()
    assert series.rank_ecdf(table, "EW:")["p_value"].isna().all()
    assert series.rank_histogram(table, "EW:Mg b").groupby(["sample", "method", "snr"])["count"].sum().max() == STARS


def test_audit_curves_know_what_survives_and_what_is_flagged(audit: pd.DataFrame) -> None:
    rows = series_lines.audit_curves(audit)
    assert rows.groupby("method")["lines"].sum().to_dict() == {"mixture": 2000, "savgol": 2000}
    for method, kept in (("mixture", 1.0), ("savgol", 0.5)):
        part = rows[rows["method"] == method]
        assert (((part["share"] - kept) / part["share_err"]).abs() < 4).all()
        error = np.sqrt(part["limit"] * (1 - part["limit"] * kept) * kept / part["lines"]) + 1e-2
        assert ((part["flagged"] - kept * part["limit"]).abs() < 4 * error).all()
        assert part["flagged"].between(part["flagged_low"], part["flagged_high"]).all()


def test_rho_leaves_out_stars_without_a_floor(floor: pd.DataFrame) -> None:
    rows = series_lines.rho_curve(floor)
    assert rows.loc[rows["method"] == "mixture", "rho"].tolist() == pytest.approx([1.03, 1.03])
    assert set(rows["used"]) == {90}
    assert set(rows["failed"]) == {10}
    assert rows.equals(series_lines.rho_curve(floor))


def test_both_coats_draw_the_same_numbers(sheets: dict[str, Sheet]) -> None:
    for name, sheet in sheets.items():
        page, screen = paper.draw(sheet), interactive.draw(sheet)
        drawn = [trace for trace in screen.data if trace.x is not None and trace.x[0] is not None]
        for number, (ax, panel) in enumerate(zip(page.axes, sheet.panels, strict=True), start=1):
            assert panel.points or panel.bars, name
            on_screen = [t for t in drawn if t.xaxis == ("x" if number == 1 else f"x{number}")]
            on_page = {(to_hex(line.get_color()) if line.get_linestyle() != "None" else
                        to_hex(line.get_markeredgecolor()), *np.round(line.get_xydata().ravel(), 9))
                       for line in ax.lines}
            for trace in (t for t in on_screen if t.type == "scatter" and t.fill is None):
                xy = np.round(np.column_stack([trace.x, trace.y]).ravel(), 9)
                colour = trace.marker.color or trace.line.color
                assert (colour.lower(), *xy) in on_page, (name, trace.name)
            assert sum(t.type == "bar" for t in on_screen) == len(panel.bars)
            outlines = {tuple(np.round(p.get_data().values, 9)) for p in ax.patches}
            for trace in (t for t in on_screen if t.type == "bar"):
                assert tuple(np.round(trace.y, 9)) in outlines
            if panel.y_range:
                assert ax.get_ylim() == pytest.approx(panel.y_range)


def test_the_numbers_drawn_are_those_of_the_series(table: pd.DataFrame) -> None:
    rows = series.bias_and_scatter(table, "Teff")
    upper, lower = compose.bias_and_scatter(table, "Teff").panels
    for panel, column in ((upper, "bias"), (lower, "scatter")):
        for points in panel.points:
            mine = rows[(rows["method"] == points.method) & ((rows["sample"] == "real") == points.real)]
            np.testing.assert_array_equal(points.y, mine[column])
            np.testing.assert_array_equal(points.error[0], mine[f"{column}_err"])


def test_simulated_stars_are_filled_and_real_ones_open(sheets: dict[str, Sheet]) -> None:
    screen = [t for t in interactive.draw(sheets["bias"]).data if t.name == "mixture"]
    assert sorted({t.marker.symbol for t in screen}) == ["triangle-down", "triangle-down-open"]
    lines = [line for line in paper.draw(sheets["bias"]).axes[0].lines if line.get_marker() == "v"]
    assert {to_hex(line.get_markerfacecolor()) for line in lines} == {"#56b4e9", "#ffffff"}


@pytest.mark.parametrize(("journal", "columns", "mm"), [
    ("AAS", 1, 85.1), ("MNRAS", 1, 85.8), ("A&A", 1, 88.0), ("RAA", 1, 84.0), ("A&A", 2, 180.0)])
def test_a_pdf_has_the_journals_width_and_its_fonts(
        sheets: dict[str, Sheet], tmp_path: Path, journal: str, columns: int, mm: float) -> None:
    data = paper.save(paper.draw(sheets["rho"]), tmp_path / "rho.pdf", journal, columns).read_bytes()
    box = re.search(rb"/MediaBox \[ ?0 0 ([\d.]+) ", data)
    assert box is not None
    assert float(box[1]) / 72 * 25.4 == pytest.approx(mm, abs=0.1)
    assert b"/FontFile2" in data
    assert b"/Type3" not in data
    assert b"/Subtype /Image" not in data


@pytest.mark.parametrize("kind", ["pdf", "svg", "png"])
def test_the_same_table_gives_the_same_bytes(sheets: dict[str, Sheet], tmp_path: Path, kind: str) -> None:
    files = [paper.save(paper.draw(sheets["audit"]), tmp_path / f"{i}.{kind}", "AAS").read_bytes() for i in (1, 2)]
    assert files[0] == files[1]
    assert b"CreationDate" not in files[0]


def test_another_process_writes_the_same_bytes(sheets: dict[str, Sheet], floor: pd.DataFrame, tmp_path: Path) -> None:
    floor.to_parquet(tmp_path / "floor.parquet")
    here = paper.save(paper.draw(sheets["rho"]), tmp_path / "here.pdf", "AAS")
    code = ("import pandas as pd, sys; from core.figures import compose, paper; "
            "floor = pd.read_parquet(sys.argv[1] + '/floor.parquet'); "
            "paper.save(paper.draw(compose.rho_curve(floor)), sys.argv[1] + '/there.pdf', 'AAS'); "
            "assert 'torch' not in sys.modules and 'streamlit' not in sys.modules")
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, timeout=60,
                   cwd=Path(__file__).parent.parent, env={**os.environ, "PYTHONHASHSEED": "1"})
    assert here.read_bytes() == (tmp_path / "there.pdf").read_bytes()


def test_page_and_screen_agree_and_colour_never_stands_alone() -> None:
    assert {m: (s.name, s.colour, s.dash) for m, s in style.STYLES.items()} == {
        m: (s.name, s.colour, s.dash) for m, s in SCREEN.items()}
    for shape in ("marker", "sign"):
        assert len({getattr(s, shape) for s in style.STYLES.values()}) == len(style.STYLES)
    assert all(s.dash in style.DASHES for s in style.STYLES.values())
    assert style.named("EW:H alpha") == ("EW of Hα", "Angstrom")
    assert style.ordered(["new", "exact", "noisy"]) == ["noisy", "exact", "new"]
    assert style.style("new").name == "new"


@pytest.mark.parametrize(("ask", "said"), [
    (lambda t: compose.bias_and_scatter(t, "EW:H alfa"), "no quantity 'EW:H alfa'; did you mean 'EW:H alpha'"),
    (lambda t: compose.bias_and_scatter(t, "ssim"), "a score without a truth has no bias"),
    (lambda t: compose.bias_and_scatter(t, "Teff", ["dncnn"]), "no method 'dncnn'; it has savgol, wiener, mixture"),
    (lambda t: compose.bias_and_scatter(t, "Teff", []), "give a list of some of"),
    (lambda t: compose.bias_and_scatter(t.drop(columns="truth"), "Teff"), "no column truth"),
    (lambda t: compose.bias_and_scatter(t[:0], "Teff"), "no rows"),
    (lambda t: compose.coverage(t, "Teff", ["savgol"]), "methods that draw"),
    (lambda t: compose.coverage(t, "Teff", snr=7), "no S/N 7; it has 5, 20"),
    (lambda t: compose.pit(t, "Teff", sample="imagined"), "no sample 'imagined'; it has real, simulated"),
    (lambda t: compose.pit(t, "Teff", bins=0), "0 bins hold nothing"),
    (lambda t: compose.rank_check(t.assign(n=t["n"] + (t.index % 2)), "Teff", ["mixture"]), "one number of draws"),
    (lambda t: compose.ew_scatter(t, "Na D"), "no quantity 'EW:Na D'"),
    (lambda t: compose.audit_curves(t), "no column experiment"),
    (lambda t: compose.rho_curve(t), "no column ok, rms_floor"),
])
def test_what_is_not_there_is_refused_with_a_remedy(
        table: pd.DataFrame, ask: Callable[[pd.DataFrame], object], said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        ask(table)


def test_wrong_experiments_edges_journals_and_files_are_refused(
        audit: pd.DataFrame, floor: pd.DataFrame, sheets: dict[str, Sheet], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no curves of experiment 'take_out'; the audit has nothing, put_in"):
        series_lines.audit_curves(audit, "take_out")
    with pytest.raises(ValueError, match="do not rise"):
        series_lines.audit_curves(audit, edges=(3, 2))
    with pytest.raises(ValueError, match="no line of the audit has a strength of 30-40"):
        series_lines.audit_curves(audit, edges=(30, 40))
    with pytest.raises(ValueError, match="no method 'dps'"):
        series_lines.rho_curve(floor, ["dps"])
    with pytest.raises(ValueError, match="two stars whose floor held"):
        series_lines.rho_curve(floor.assign(ok=False))
    with pytest.raises(ValueError, match="give 1 or 2 of AAS, MNRAS"):
        paper.save(paper.draw(sheets["rho"]), tmp_path / "a.pdf", "Nature")
    with pytest.raises(ValueError, match="no kind that can be written"):
        paper.save(paper.draw(sheets["rho"]), tmp_path / "a.jpg", "AAS")
