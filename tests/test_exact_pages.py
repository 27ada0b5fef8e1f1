"""The exact posterior's tables: what they count is what was planted, and a right posterior is not accused."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from scripts import exact_kinds, exact_pages, floor_tables, shares


def judged(rng: np.random.Generator, claimed: dict[str, float], stars: int = 200, n: int = 16) -> pd.DataFrame:
    """Rows of simulated stars, half of them cool, whose pixels err by 1; `claimed`: what is claimed of cool and others.

    Every second star is a dwarf. The mixture claims 1 of all.
    """
    out = []
    for method, said in (("exact", claimed), ("mixture", {"cool": 1.0, "other": 1.0})):
        for i in range(stars):
            cool, dwarf = i % 4 < 2, i % 2 == 0
            teff, logg = (4300.0 if cool else 6000.0), (4.5 if dwarf else 2.0)
            width = said["cool" if cool else "other"]
            truth = rng.standard_normal(12)
            draws = width * rng.standard_normal((n, 12))  # the answer is 0, the error 1 whatever is claimed
            key = {"sample": "simulated", "method": method, "star": f"s{i}", "snr": 20.0}
            rms = np.sqrt(np.mean((draws.mean(0) - truth) ** 2))
            rows = [("rms", np.nan, rms, np.nan, np.nan, 1), ("width", np.nan, width, np.nan, np.nan, 1),
                    ("Teff", teff, teff, 10.0, n // 2, n), ("logg", logg, logg, 0.1, n // 2, n)]
            rows += [(f"{kind}:{j}", truth[p], draws[:, p].mean(), draws[:, p].std(ddof=1),
                      (draws[:, p] < truth[p]).sum(), n) for kind, j, p in
                     [("flux", j, j) for j in range(6)] + [("EW", j, 6 + j) for j in range(6)]]
            names = ("quantity", "truth", "mean", "std", "rank", "n")
            out += [key | dict(zip(names, row, strict=True)) for row in rows]
    return pd.DataFrame(out)


def test_the_overconfident_kind_is_found_and_a_right_posterior_is_not_accused(rng):
    right = exact_kinds.by_kind(judged(rng, {"cool": 1.0, "other": 1.0}))
    assert ((right["z2"] - (1 + 1 / 16)).abs() < 4 * right["z2_err"]).all()
    assert ((right["pixels"] - 0.6827).abs() < 4 * right["pixels_err"]).all()
    wrong = exact_kinds.by_kind(judged(rng, {"cool": 0.5, "other": 1.0})).query("method == 'exact'").set_index("kind")
    assert list(wrong["stars"]) == [100, 50, 50, 100]
    for kind in ("below 4700 K", "of these dwarfs", "of these giants"):  # the control
        assert wrong.loc[kind, "z2"] > 3
        assert wrong.loc[kind, "pixels"] < 0.55
    other = wrong.loc["all other stars"]
    assert abs(other["z2"] - (1 + 1 / 16)) < 4 * other["z2_err"]
    assert wrong.loc["below 4700 K", "of_square_error"] + other["of_square_error"] == pytest.approx(1)


def test_the_worst_stars_are_those_of_largest_error_and_compared_with_the_mixture_s(rng):
    rows = judged(rng, {"cool": 1.0, "other": 1.0})
    of = rows["star"].isin([f"s{i}" for i in range(0, 12)]) & rows["method"].eq("exact") & rows["quantity"].eq("rms")
    rows.loc[of, "mean"] = 9.0
    rows.loc[of & rows["star"].eq("s5"), "mean"] = 10.0
    floor = pd.DataFrame({"star": ["s5", "s7", "s100"], "ok": [True, True, False], "width:all": 0.25, "error:all": 1.0})
    first = exact_kinds.worst(rows, floor).iloc[0]
    assert (first["of"], first["worse"], first["better"]) == (10, 10, 0)
    assert (first["star"], first["rms"], first["floor"], first["reached"]) == ("s5", 10.0, 0.5, 1.0)
    calm = exact_kinds.worst(judged(rng, {"cool": 1.0, "other": 1.0}), floor).iloc[0]  # the control
    assert calm["of_square_error"] < 0.2 < first["of_square_error"]


def test_a_share_s_error_counts_stars_and_not_rows(rng):
    def rows(together: bool) -> pd.DataFrame:
        """Forty quantities of 100 stars, all of a star at one place of their posteriors, or each at its own."""
        u = np.repeat(rng.random((100, 1)), 40, axis=1) if together else rng.random((100, 40))
        rank = rng.binomial(16, u)
        return pd.DataFrame({"star": np.repeat(np.arange(100), 40), "rank": rank.ravel(), "n": 16, "truth": 0.0,
                             "std": 1.0})

    again = [shares.share(rows(True)) for _ in range(60)]
    scatter, told = np.std([value for value, _, _ in again]), np.mean([error for _, error, _ in again])
    assert told == pytest.approx(scatter, rel=0.3)
    alone = shares.share(rows(False))
    assert alone[1] < told / 3  # the control: rows that do not go together say more
    assert shares.share(rows(False).assign(std=0.0))[2] == 0


def test_a_coverage_s_distance_from_right_is_in_errors_by_star_and_a_wrong_one_is_far_off(rng):
    for claimed, low, high in ((1.0, 0.0, 4.0), (1.4, 6.0, 99.0), (0.7, 6.0, 99.0)):  # the last two are the controls
        row = exact_pages.coverages(judged(rng, {"cool": claimed, "other": claimed}), ("exact",)).iloc[0]
        assert (row["draws"], row["rv_draws"], row["stars"]) == (16, 0, 200)
        for what in ("pixels", "EW"):
            assert low <= abs(row[what] - shares.CENTRAL) / row[f"{what}_err"] < high
    shown = exact_pages.shown_coverages(exact_pages.coverages(judged(rng, {"cool": 1.0, "other": 1.0})))
    assert list(shown["method"]) == ["exact", "mixture"]


def test_ranks_that_are_not_uniform_are_counted_beside_what_chance_gives():
    p = [0.5] * 98 + [0.009, 0.001]
    rows = pd.DataFrame({"method": "exact", "sample": "simulated", "quantity": ["EW:a"] * 100, "p_value": p})
    even = exact_pages.uniform(rows).iloc[0]
    assert (even["asked"], even["below_01"], even["by_chance"]) == (100, 2, 1.0)
    assert exact_pages.uniform(rows.assign(p_value=0.5)).iloc[0]["below_01"] == 0  # the control


def test_real_stars_that_only_others_were_asked_about_are_left_out(rng):
    rows = judged(rng, {"cool": 1.0, "other": 1.0})
    few = rows[~(rows["method"].eq("exact") & rows["star"].isin([f"s{i}" for i in range(50)]))]
    assert set(shares.common(few).query("method == 'mixture'")["star"]) == set(few.query("method == 'exact'")["star"])


def test_few_draws_pull_a_wrong_share_to_683_by_as_much_as_is_said(rng):
    for n in (8, 32):
        assert shares.pulled(shares.CENTRAL, n) == pytest.approx(shares.CENTRAL, abs=1e-4)
    true, n, stars = 0.85, 8, 40000
    width = 1.4395  # a Gaussian so wide holds 85 % where 68.27 are right
    x = rng.standard_normal(stars)
    rank = (width * rng.standard_normal((n, stars)) < x).sum(axis=0)
    told = shares.inside(pd.DataFrame({"rank": rank, "n": n}))
    assert told == pytest.approx(shares.pulled(true, n), abs=4 * 0.42 / np.sqrt(stars))
    assert told < true - 0.03  # the control: as it is read it is not the true share
    assert abs(shares.pulled(true, 32) - true) < abs(shares.pulled(true, 8) - true) / 2


def test_ratios_take_few_draws_off_and_leave_the_worst_stars_out(rng):
    """Exact and mixture are one posterior asked for 8 and 32 draws; then one star of the mixture's runs away."""
    rows = judged(rng, {"cool": 1.0, "other": 1.0}, n=8)
    few = rows[rows["method"] == "exact"]
    many = judged(rng, {"cool": 1.0, "other": 1.0}, n=32).query("method == 'mixture'")
    # the same truths, as a table of the judge has them
    keys = ["star", "quantity"]
    truths = few.set_index(keys)["truth"]
    many = many.assign(truth=pd.MultiIndex.from_frame(many[keys]).map(truths).to_numpy(float))
    both = pd.concat([few, many], ignore_index=True)
    row = exact_pages.ratios(both).query("over == 'mixture'").iloc[0]
    assert abs(row["rms"] - 1) < 4 * row["rms_err"]
    assert abs(row["EW"] - 1) < 4 * row["EW_err"]
    assert row["better_p"] > 1e-3
    away = both["method"].eq("mixture") & both["star"].eq("s3") & both["quantity"].eq("rms")
    lone = exact_pages.ratios(both.assign(mean=both["mean"].mask(away, 60.0))).query("over == 'mixture'").iloc[0]
    assert lone["pooled"] < 0.4  # the control: pooled, one star decides
    assert abs(lone["pooled_1"] - 1) < 0.1


def test_the_typical_star_s_error_over_the_chains_is_one_for_who_reaches_them(rng):
    stars = pd.DataFrame({"star": [f"s{i}" for i in range(400)], "snr": 20.0, "ok": True, "ess": 1e6, "width:all": 1.0,
                          "error:all": rng.chisquare(3, 400) / 3})
    judged_rows = pd.DataFrame({"star": stars["star"], "method": "exact", "snr": 20.0, "quantity": "rms", "extra": 0.0,
                                "mse": rng.chisquare(3, 400) / 3})
    row = floor_tables.rho_table(stars, judged_rows).iloc[0]
    assert abs(row["median_reached"] - 1) < 4 * row["median_reached_err"]
    assert row["median_chains"] == pytest.approx(0.89, abs=0.08)  # the median of chi-square, not 1: no fault of theirs
    worse = floor_tables.rho_table(stars, judged_rows.assign(mse=4 * judged_rows["mse"])).iloc[0]  # the control
    assert worse["median_reached"] - 1 > 4 * worse["median_reached_err"]
