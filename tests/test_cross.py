"""Cross-validation: compared star by star, nothing held out or asked is learned from, as many factors as asked for."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import multivariate_normal
from test_mixture import WIDTH, small_mixture

from core.data.grid import N_PIXELS, WAVE
from core.models.prior_fit import join
from core.spectrum import Spectra
from scripts import cross_fit
from scripts.cross_fit import compared, kept, some
from scripts.evaluate_cross import star_evidence
from scripts.evaluate_gain import gains, own_stars
from scripts.evaluate_parents import ratios
from scripts.evaluate_without import learning


def rows(variant: str, evidence: np.ndarray, mse: np.ndarray) -> pd.DataFrame:
    names = [f"s{i}" for i in range(len(mse))]
    return pd.DataFrame({"star": names, "snr": 10.0, "log_evidence": evidence, "covered": 0.7, "chi2": 1.0, "mse": mse,
                         "ew_inside": 7, "ew_lines": 10, "axis": "a", "variant": variant})


def test_a_difference_is_taken_star_by_star_so_that_the_stars_own_scatter_is_not_in_its_error(rng):
    evidence, mse = 5000 + 300 * rng.standard_normal(40), np.exp(rng.standard_normal(40))
    other = rows("other", evidence + 2 + 0.1 * rng.standard_normal(40), mse * 0.81)
    other = other.iloc[::-1]  # another order of stars is the same comparison
    table = compared(pd.concat([rows("shipped", evidence, mse), other]), "shipped").set_index("variant")
    assert table.loc["shipped", "d_evidence"] == 0
    assert abs(table.loc["other", "d_evidence"] - 2) < 4 * table.loc["other", "d_evidence_err"] < 0.1
    assert table.loc["other", "d_log_rms"] == pytest.approx(np.log(0.9))
    assert table.loc["other", "ew_coverage"] == pytest.approx(0.7)


def stars(numbers: list[int]) -> Spectra:
    one = np.ones((len(numbers), N_PIXELS))
    meta = pd.DataFrame({"star": [f"s{n}" for n in numbers], "number": numbers, "teff": 5000.0})
    return Spectra(WAVE, one, one, one, meta)


def test_neither_the_asked_stars_nor_the_library_left_out_are_learned_from():
    libraries = {"miles": stars([1, 2, 3, 5, 6, 7]), "stelib": stars([1, 2])}
    learned = learning(libraries, "stelib")
    assert list(learned) == ["miles"]
    assert list(learned["miles"].meta["number"]) == [2, 3, 6, 7]
    assert set(learning(libraries)) == {"miles", "stelib"}
    asked = some(libraries["miles"], libraries["miles"].meta["number"].to_numpy() % 4, 1, 9)
    assert list(asked.meta["number"]) == [1, 5]  # fewer than wanted: all, each once


def test_a_real_component_may_have_more_factors_than_physics(rng):
    physics = small_mixture()
    more = physics.factors.shape[1] + 5
    real = [(1.0, np.ones(WIDTH), 0.01 * rng.standard_normal((more, WIDTH)), np.full(WIDTH, 1e-4))]
    both = join(physics, real, 0.5, 0.0)
    assert both.used[-1] == more
    assert both.used[:-1] == physics.used


def test_a_finished_piece_is_not_made_again(tmp_path, monkeypatch):
    monkeypatch.setattr(cross_fit, "KEPT", tmp_path)
    first = kept("piece", lambda: pd.DataFrame({"a": [1, 2]}))
    again = kept("piece", lambda: pytest.fail("made twice"))
    pd.testing.assert_frame_equal(first, again)


def test_both_kinds_are_compared_with_each_parent_on_the_same_stars(rng):
    mse = {"both": np.exp(rng.standard_normal(60))}
    mse |= {"real": mse["both"] * 1.21, "physics": mse["both"] * 0.81}
    frames = [pd.DataFrame({"star": np.arange(60), "snr": 10.0, "prior": prior, "kind": "A", "mse": m})
              for prior, m in mse.items()]
    table = ratios(pd.concat(frames)).query("group == 'all'").set_index("parent")
    assert table.loc["real", "rms_ratio"] == pytest.approx(1 / 1.1)
    assert table.loc["physics", "typical_ratio"] == pytest.approx(1 / 0.9)
    assert table["rms_ratio_err"].max() < 1e-6  # the same ratio for every star: nothing to be unsure of
    assert table.loc["real", "better"] == 1
    assert table.loc["physics", "better"] == 0


def test_the_gain_over_wiener_of_the_median_and_of_the_mean_square_differ(rng):
    wiener = np.exp(rng.standard_normal(200))
    mixture = wiener * 0.25
    mixture[np.argmax(wiener)] = wiener.max()  # one star on which nothing is gained sets the mean square
    frames = [pd.DataFrame({"prior": "p", "method": m, "star": np.arange(200), "mse": v})
              for m, v in (("wiener", wiener), ("mixture", mixture))]
    row = gains(pd.concat(frames)).iloc[0]
    assert row["median_gain"] == pytest.approx(50, abs=0.5)
    assert row["rms_gain"] < 48
    assert row["star_gain"] == pytest.approx(50)


def test_stars_of_the_mixture_itself_are_as_noisy_as_told():
    seen, clean = own_stars(small_mixture(), 3, 1)
    z = (seen.flux - clean)[seen.measured] * np.sqrt(seen.ivar[seen.measured])
    scale = seen.noise.scales(WAVE)
    assert np.std(z) == pytest.approx(np.sqrt(np.mean(scale**2)), rel=0.1)


def test_the_evidence_of_a_star_is_the_normal_density_of_factors_and_variance(rng):
    factors, variance = rng.standard_normal((3, 20)), rng.uniform(0.5, 2.0, 20)
    gap = rng.standard_normal(20)
    evidence, chi2 = star_evidence(gap, variance, factors)
    covariance = factors.T @ factors + np.diag(variance)
    assert evidence == pytest.approx(multivariate_normal(np.zeros(20), covariance).logpdf(gap))
    assert chi2 == pytest.approx(gap @ np.linalg.solve(covariance, gap) / 20)
    assert evidence != pytest.approx(multivariate_normal(np.zeros(20), np.diag(variance)).logpdf(gap), abs=0.1)
