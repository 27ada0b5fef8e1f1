"""The judge goes on where it was, refuses what it does not know, and its summary says what the rows say."""

from __future__ import annotations

import argparse
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from core import networks
from core.metrics.table import rows_of
from core.pipeline import METHODS, reconstruct
from scripts import evaluate_judge, judge_pages
from scripts.exact_pages import of_the_mean
from scripts.judge_stars import SEED, SNR, Asked, simulated


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


def few(asked: Asked, stars: int, **change: object) -> Asked:
    """The first of some stars, as another sample may have them."""
    part = np.arange(stars)
    return replace(asked, spectra=asked.spectra.select(part), truth=asked.truth[part], labels=asked.labels[part],
                   **change)


def left(asked: Asked, folder: Path) -> list[tuple[str, int, int]]:
    return [(t.path.name, t.first, t.last) for t in evaluate_judge.plan([asked], ["noisy"], 4, folder)]


def test_a_piece_s_name_says_its_library_and_not_its_place_in_a_list(asked, tmp_path):
    other = few(asked, 3, sample="real", library="miles")
    forth = evaluate_judge.plan([asked, other], ["noisy"], 4, tmp_path)
    back = evaluate_judge.plan([other, asked], ["noisy"], 4, tmp_path)
    assert {p.path.name for p in forth} == {"simulated-all-20-noisy-0", "real-miles-20-noisy-0"}
    assert {p.path for p in back} == {p.path for p in forth}
    with pytest.raises(ValueError, match="leave it out"):
        few(asked, 3, library="mi-les")


def test_a_piece_of_other_stars_than_are_asked_about_now_is_asked_again(asked, tmp_path):
    two = few(asked, 2)
    evaluate_judge._job(evaluate_judge.plan([two], ["noisy"], 4, tmp_path)[0])
    assert left(two, tmp_path) == []
    assert left(asked, tmp_path) == [("simulated-all-20-noisy-0", 0, 3)]  # `--number 2`, then 3
    evaluate_judge._job(evaluate_judge.plan([asked], ["noisy"], 4, tmp_path)[0])
    assert left(asked, tmp_path) == []
    assert left(two, tmp_path) == [("simulated-all-20-noisy-0", 0, 2)]


def test_a_star_at_which_a_method_failed_has_been_asked_about(asked, tmp_path):
    evaluate_judge._job(evaluate_judge.plan([asked], ["noisy"], 4, tmp_path)[0])
    path = tmp_path / "simulated-all-20-noisy-0.table"
    table, gone = pd.read_parquet(path), asked.spectra.stars[1]
    table[table["star"].ne(gone)].to_parquet(path)
    assert left(asked, tmp_path)
    pd.DataFrame([(gone, "noisy", "why")], columns=["star", "method", "reason"]).to_parquet(path.with_suffix(".failed"))
    assert left(asked, tmp_path) == []


def test_a_piece_of_before_is_found_and_none_of_its_stars_counts_twice(asked, tmp_path, monkeypatch):
    """Pieces once had the sample's number where the library is now."""
    monkeypatch.setattr(evaluate_judge, "RESULTS", tmp_path)
    evaluate_judge._job(evaluate_judge.plan([asked], ["noisy"], 4, tmp_path)[0])
    for suffix in (".table", ".failed", ".json"):
        shutil.copy(tmp_path / f"simulated-all-20-noisy-0{suffix}", tmp_path / f"simulated-7-20-noisy-0{suffix}")
    newer = pd.read_parquet(tmp_path / "simulated-7-20-noisy-0.table")
    newer.assign(mean=3.0).to_parquet(tmp_path / "simulated-7-20-noisy-0.table")
    os.utime(tmp_path / "simulated-all-20-noisy-0.table", (1, 1))
    evaluate_judge.collect(["noisy"], tmp_path)
    table = pd.read_parquet(tmp_path / "judge.parquet")
    assert not table.duplicated(["star", "quantity"]).any()
    assert (table["mean"] == 3.0).all()  # the newer piece's
    (tmp_path / "simulated-all-20-noisy-0.table").unlink()
    assert left(asked, tmp_path) == []


def test_only_what_was_judged_now_is_replaced(asked, tmp_path, monkeypatch):
    """A checkout without ../shared judges simulated stars alone, and `--snr 20` those of one S/N."""
    monkeypatch.setattr(evaluate_judge, "RESULTS", tmp_path / "results")
    samples = [asked, few(asked, 3, sample="real", library="miles"), simulated(10.0, 2)]
    for name, asked_about in (("results", []), ("first", samples), ("second", samples[:1])):
        (tmp_path / name).mkdir()
        for piece in evaluate_judge.plan(asked_about, ["noisy", "savgol"], 4, tmp_path / name):
            evaluate_judge._job(piece)
    evaluate_judge.collect(["noisy", "savgol"], tmp_path / "first")
    before = {name: read(tmp_path / "results", name) for name in ("parquet", "csv")}
    again = tmp_path / "second" / "simulated-all-20-noisy-0.table"
    pd.read_parquet(again).assign(mean=3.0).to_parquet(again)
    evaluate_judge.collect(["noisy"], tmp_path / "second")
    for name, old in before.items():
        new, keys = read(tmp_path / "results", name), ["method", "sample", "snr"]
        pd.testing.assert_series_equal(new.groupby(keys).size(), old.groupby(keys).size())
    new = read(tmp_path / "results", "parquet")
    now = new["method"].eq("noisy") & new["sample"].eq("simulated") & new["snr"].eq(20)
    assert (new["mean"][now] == 3.0).all()
    assert not (new["mean"][~now] == 3.0).any()
    runs = json.loads((tmp_path / "results" / "judge.json").read_text())["runs"]
    assert [r["methods"] for r in runs] == [["noisy", "savgol"], ["noisy"]]  # rows of both runs are there
    assert runs[1]["judged"] == {"noisy": {"simulated": [20.0]}}


def read(folder: Path, kind: str) -> pd.DataFrame:
    if kind == "csv":
        return pd.read_csv(folder / "judge_summary.csv")
    return pd.read_parquet(folder / "judge.parquet").astype({n: str for n in ("star", "method", "quantity", "sample")})


def test_an_unknown_method_is_refused_before_anything_is_computed(monkeypatch):
    monkeypatch.setattr(evaluate_judge, "samples_of", lambda args: pytest.fail("stars were made"))
    args = argparse.Namespace(methods="noisy,mixtur", draws=4, number=2, workers=1, stars=Path("x"), lamost=Path("x"))
    with pytest.raises(ValueError, match="mixture"):
        evaluate_judge.judge(args)


def test_slow_methods_are_asked_about_fewer_stars_and_for_fewer_draws(asked, tmp_path):
    pieces = evaluate_judge.plan([asked], ["noisy", "dps", "exact"], 32, tmp_path, slow=(2, 4))
    assert [(p.method, p.last, p.draws) for p in pieces] == [("noisy", 3, 32), ("dps", 2, 4), ("exact", 3, 32)]
    assert set(evaluate_judge.SLOW) < set(evaluate_judge.NETWORKS) < {*METHODS, *networks.OPTIONAL}


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
    # the same error in dex of Teff
    parts.append(rows_of(names, "m", "Teff", "K", 20.0, 5000 * 10 ** (truth - 2), 5000 * 10 ** (draws - 2), 0))
    return pd.concat(parts).assign(sample="simulated")


def test_the_gates_let_the_good_pass_and_mark_the_bad(rng):
    widths = pd.Series(2.0, index=[*judge_pages._STRONG, "Teff"]) * ([1] * len(judge_pages._STRONG) + [2500])
    good = judge_pages.gates(evaluate_judge.card(table_of(0.0, 1.0, rng)), widths, "simulated").iloc[0]
    bad = judge_pages.gates(evaluate_judge.card(table_of(0.2, 1.0, rng)), widths, "simulated").iloc[0]
    narrow = judge_pages.gates(evaluate_judge.card(table_of(0.0, 0.5, rng)), widths, "simulated").iloc[0]
    gates = ["EW bias [%]", "Teff bias [dex]", "logg bias", "[Fe/H] bias"]
    assert not any(str(good[g]).endswith("x") for g in [*gates, "EWs inside"])
    assert all(str(bad[g]).endswith("x") for g in gates)
    assert str(narrow["EWs inside"]).endswith("x")


def test_teff_s_bias_is_in_dex_of_the_median_star(rng):
    rows = table_of(0.01, 1.0, rng)
    widths = judge_pages.sizes(rows)
    known = rows[rows["quantity"].eq("Teff")]
    assert widths["Teff"] == pytest.approx(known["truth"].median())
    assert widths["EW:H alpha"] == pytest.approx(rows["truth"][rows["quantity"].eq("EW:H alpha")].abs().mean())
    card = evaluate_judge.card(rows)
    shown = judge_pages.gates(card, widths, "simulated").iloc[0]["Teff bias [dex]"]
    odd = np.median(known["mean"] - known["truth"])
    assert float(shown.split()[0]) == pytest.approx(abs(odd) / known["truth"].median() / np.log(10), rel=0.05)
    assert judge_pages.gates(card, widths.drop("Teff"), "simulated").iloc[0]["Teff bias [dex]"] == "-"


def test_a_bias_is_marked_only_beyond_two_of_its_errors(rng):
    """A bias of .06 dex where .05 is allowed: of 400 stars of scatter .1 (error .006) within two errors, of .01 not."""
    card = evaluate_judge.card(table_of(0.0, 1.0, rng))
    widths = pd.Series(2.0, index=list(judge_pages._STRONG))
    for bias, scatter, mark in ((0.06, 0.1, "?"), (0.06, 0.01, "x"), (0.04, 0.1, "3")):
        told = judge_pages.gates(card.assign(median_bias=bias, scatter=scatter), widths, "simulated").iloc[0]
        assert told["logg bias"].startswith(f"{bias} +- ")
        assert told["logg bias"].endswith(mark) == (mark != "3")


@pytest.mark.parametrize(("share", "shown"), [(0.59, "0.59 x"), (0.60, "0.60 ."), (0.655, "0.66 ."), (0.66, "0.66"),
                                              (0.70, "0.70"), (0.71, "0.71 ."), (0.75, "0.75 ."), (0.76, "0.76 x")])
def test_intervals_tell_which_gate_they_miss(share, shown, rng):
    card = evaluate_judge.card(table_of(0.0, 1.0, rng)).assign(coverage=share)
    row = judge_pages.gates(card, pd.Series(2.0, index=list(judge_pages._STRONG)), "simulated").iloc[0]
    assert [row["EWs inside"], row["[Fe/H] inside"]] == [shown, shown]


def test_the_summary_s_bias_and_scatter_are_those_of_the_rows(rng):
    card = evaluate_judge.card(table_of(0.2, 1.0, rng)).set_index("quantity")
    assert card.loc["RV", "median_bias"] == pytest.approx(0.2, abs=4 * 1.25 * 0.1 / 20)
    assert card.loc["RV", "scatter"] == pytest.approx(0.1, rel=0.2)
    assert card.loc["RV", "stars"] == 400
    assert 20.0 in SNR


def test_few_draws_are_taken_off_an_error_and_a_point_estimate_keeps_its_own():
    rng = np.random.default_rng(5)
    truth, sigma, rows = 1.0, 0.3, []
    for method, n in (("few", 4), ("many", 400), ("point", 1)):
        for star in range(300):
            centre = rng.normal(truth, sigma, 50)  # posterior means of fifty pixels
            draws = rng.normal(centre, sigma, (n, 50)) if n > 1 else centre[None]
            key = {"sample": "simulated", "method": method, "star": star, "snr": 10.0}
            width = draws.std(axis=0, ddof=1) if n > 1 else np.zeros(50)
            rows += [{**key, "quantity": "rms", "mean": np.sqrt(np.mean((draws.mean(0) - truth) ** 2)), "n": 1},
                     {**key, "quantity": "width", "mean": np.sqrt(np.mean(width**2)), "n": 1},
                     {**key, "quantity": "Teff", "mean": 5000.0, "n": n}]
    table = pd.DataFrame(rows)
    raw, mended = (t[t["quantity"] == "rms"].groupby("method")["mean"].apply(lambda x: np.sqrt(np.mean(x**2)))
                   for t in (table, of_the_mean(table)))
    assert raw["few"] > 1.08 * raw["many"]  # the control: left in, they count
    assert mended["few"] == pytest.approx(mended["many"], rel=0.03)
    assert mended["point"] == pytest.approx(raw["point"])
