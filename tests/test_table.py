"""The tidy table: right numbers for known stars, widths only where there are draws, and what is missing said."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from core.data.library import bundled
from core.metrics.calibration import summary
from core.metrics.lines import LINES, equivalent_width
from core.metrics.table import COLUMNS, Known, measure, rows_of
from core.pipeline import evaluate, infer, reconstruct, velocity_templates
from core.pipeline import measure as measure_through_the_door
from core.spectrum import Samples


@pytest.fixture(scope="module")
def stars():
    spectra, truth = bundled()
    return spectra.select(slice(0, 4)), truth[:4]


def test_draws_about_the_truth_cover_it_and_draws_half_as_wide_do_not(rng):
    truth = rng.standard_normal(600)
    centre = truth + rng.standard_normal(600)
    draws = centre + rng.standard_normal((64, 600))
    names = [str(i) for i in range(600)]
    good = rows_of(names, "m", "q", "1", 10.0, truth, draws, 0)
    narrow = rows_of(names, "m", "q", "1", 10.0, truth, centre + 0.5 * (draws - centre), 0)
    a, b = (summary(t).iloc[0] for t in (good, narrow))
    assert abs(a["coverage"] - 0.6827) < 4 * a["coverage_err"]
    assert abs(b["coverage"] - 0.6827) > 4 * b["coverage_err"]
    assert tuple(good.columns) == COLUMNS
    np.testing.assert_allclose(good["mean"], draws.mean(0))
    np.testing.assert_allclose(good["q50"], np.median(draws, axis=0))


def test_a_point_estimate_has_no_width_and_says_so():
    row = rows_of(["a"], "savgol", "RV", "km/s", 5.0, [1.0], [[2.0]], 0).iloc[0]
    assert row["n"] == 1
    assert row[["std", "q16", "q50", "q84", "rank"]].isna().all()
    again = rows_of(["a"], "savgol", "RV", "km/s", 5.0, [1.0], [[2.0], [2.0]], 0).iloc[0]
    assert again["n"] == 1


def test_a_star_whose_draws_all_failed_has_no_row_and_one_draw_less_is_one_less():
    draws = np.array([[np.nan, 1.0], [np.nan, 2.0], [np.nan, np.nan]])
    table = rows_of(["a", "b"], "m", "RV", "km/s", 5.0, [0.0, 0.0], draws, 0)
    assert table["star"].tolist() == ["b"]
    assert table["n"].tolist() == [2]


def test_the_truth_itself_has_no_error_in_any_quantity(stars):
    spectra, truth = stars
    log, templates = velocity_templates()
    table = measure(Samples(spectra.wave, truth[None], "truth"), spectra, Known(truth, templates, 10.0**log), 20.0)
    known = table[table["truth"].notna()]
    np.testing.assert_allclose(known["mean"], known["truth"], atol=1e-6, rtol=1e-6)
    scores = table.set_index(["quantity", "star"])["mean"]
    assert scores["rms"].max() < 1e-12
    assert scores["ssim"].min() > 0.999999
    line = LINES["H alpha"]
    got = table[(table["quantity"] == "EW:H alpha") & (table["star"] == spectra.stars[0])]["mean"].iloc[0]
    assert got == pytest.approx(float(equivalent_width(spectra.wave, truth[0], line)))


def test_velocities_come_out_as_they_went_in(stars):
    spectra, truth = stars
    log, templates = velocity_templates()
    table = measure(Samples(spectra.wave, truth[None], "truth"), spectra, Known(truth, templates, 10.0**log), 20.0)
    got = table[table["quantity"] == "RV"].set_index("star")["mean"]
    want = spectra.meta.set_index("star")["rv"]
    # templates are six and the stars are any: a template of another kind shifts by a fraction of a pixel (69 km/s)
    assert np.abs(got - want[got.index]).max() < 10.0
    assert np.abs(got + want[got.index]).max() > 10.0  # control: the other sign


def test_lines_beyond_what_is_known_have_no_truth(stars):
    spectra, truth = stars
    unknown = np.where(spectra.wave > 7400, np.nan, truth)
    table = measure(Samples(spectra.wave, truth[None], "truth"), spectra, Known(unknown), 20.0)
    red = table["quantity"] == "EW:Ca II 8542"
    assert table["truth"][red].isna().all()
    assert table["truth"][table["quantity"] == "EW:H beta"].notna().all()


def test_a_star_s_rows_do_not_depend_on_its_neighbours(stars):
    spectra, truth = stars
    answer = reconstruct(spectra, "wiener", 8, 3)
    alone = reconstruct(spectra.select(1), "wiener", 8, 3)
    both = measure_through_the_door(answer, spectra, truth, rv_draws=2)
    one = measure_through_the_door(alone, spectra.select(1), truth[1:2], rv_draws=2)
    mine = both[both["star"] == spectra.stars[1]].reset_index(drop=True)
    pd.testing.assert_frame_equal(mine, one, check_dtype=False, rtol=1e-5, atol=1e-7)


def test_samples_of_other_stars_are_refused(stars):
    spectra, truth = stars
    samples = Samples(spectra.wave, truth[None, :2], "truth")
    with pytest.raises(ValueError, match="same stars"):
        measure(samples, spectra, Known(truth))
    with pytest.raises(ValueError, match="do not belong"):
        infer(samples, spectra, None)


def test_a_method_that_fails_on_one_star_costs_that_star_s_rows(stars, monkeypatch):
    spectra, truth = stars
    from core.models.baselines import Noisy

    def sample(self, observation, n, seed):
        if spectra.stars[2] in observation.keys:
            raise ValueError("this one never")
        return observation.y.expand(n, -1, -1)

    monkeypatch.setattr(Noisy, "sample", sample)
    table, failed = evaluate(spectra, truth, ["noisy"], 1)
    assert failed["star"].tolist() == [spectra.stars[2]]
    assert "this one never" in failed["reason"][0]
    assert set(table["star"]) == set(spectra.stars) - {spectra.stars[2]}


def test_one_draw_is_refused_where_draws_have_a_width_and_not_where_they_have_none(stars):
    spectra, truth = stars
    with pytest.raises(ValueError, match=r"^1 draw has no width \(wiener\); ask for at least 2, better 32"):
        evaluate(spectra, truth, ["noisy", "wiener"], 1)
    table, _ = evaluate(spectra.select(0), truth[:1], ["wiener"], 2, rv_draws=2)
    assert table["n"].max() == 2


def test_lines_may_be_named_and_an_unknown_one_is_told_the_nearest(stars):
    spectra, truth = stars
    samples = Samples(spectra.wave, truth[None], "truth")
    with pytest.raises(ValueError, match="no line is called 'H alfa'; did you mean 'H alpha'"):
        measure_through_the_door(samples, spectra, truth, lines=["H alfa"])
    named = [measure(samples, spectra, Known(truth), 20.0, lines=lines)
             for lines in (["H alpha"], "H alpha", [LINES["H alpha"]])]
    for table in named:
        assert set(table["quantity"][table["quantity"].str.startswith("EW")]) == {"EW:H alpha"}
        pd.testing.assert_frame_equal(table, named[0])


def test_an_unknown_method_is_refused_with_the_nearest_known(stars):
    spectra, truth = stars
    with pytest.raises(ValueError, match="wiener"):
        evaluate(spectra, truth, ["weiner"])
