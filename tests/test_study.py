"""The study's page says what its results say; its tables find what is there, and fail where nothing is."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import torch

from core import checkpoint
from core.data.noise import LAMOST_NOISE
from core.models.noise_seen import FEATURES, Seen, features
from core.models.observation import Observation
from core.pipeline import METHODS, build, reconstruct
from core.spectrum import Kernel, Samples
from scripts import evaluate_maps, evaluate_study, study_pages, study_tables
from scripts.evaluate_learning import seen, squares, with_weights
from scripts.evaluate_survival import by_star
from scripts.evaluate_survival import card as survival_card
from scripts.judge_stars import simulated
from scripts.pages import markdown

# ------------------------------------------------------------------------------------------------ the page


def test_the_page_s_tables_are_those_of_the_committed_results():
    text = study_pages.PAGE.read_text()
    shown = study_pages.parts()
    assert {"errors", "bias", "coverage"} <= set(shown)
    for mark, table in shown.items():
        between = text.split(f"<!-- {mark} -->")[1].split("<!-- end -->")[0].strip()
        assert between == markdown(table), f"run `python -m scripts.evaluate --collect study`: {mark} is out of date"
    changed = shown["errors"].assign(stars=0)  # the control
    assert markdown(changed) not in text


def test_the_study_s_rows_are_of_the_new_methods_and_name_their_checkpoints():
    table = pd.read_parquet(evaluate_study.TABLE)
    told = json.loads(evaluate_study.ORIGIN.read_text())
    assert set(table["method"].unique()) == set(told) <= {*evaluate_study.NEW}
    for method, origin in told.items():
        file = f"{method}.safetensors"
        assert origin["checkpoints"][file] == checkpoint.sha256(checkpoint.path_of(method))[:16]


# ------------------------------------------------------------------------------------------------ the tables


def made(rng, pull: float = 0.0, width: float = 1.0, stars: int = 60, draws: int = 8) -> pd.DataFrame:
    """Rows of a method `new`, drawn to the mean label by `pull`, with draws `width` times as wide as they should be."""
    rows = []
    for method, off, claimed in (("wiener", 0.0, 1.0), ("new", pull, width)):
        for b in range(stars):
            star, label = f"s{b}", float(np.linspace(-1.5, 0.5, stars)[b])
            truth = {"EW:Mg b": 3.0, "flux:5219": 0.9, "RV": 10.0, "[Fe/H]": label}
            for quantity, value in truth.items():
                given = value - off * (value + 0.5) if quantity == "[Fe/H]" else value
                mid, sd = given + 0.1 * rng.standard_normal(), 0.1 * claimed
                drawn = mid + sd * rng.standard_normal(draws)
                rows.append((star, method, quantity, value, drawn.mean(), drawn.std(ddof=1), (drawn < value).sum()))
            size = 0.02 * (2.0 if method == "new" else 1.0)
            scores = {"rms": size, "width": 1e-9, "ssim": 0.9}
            rows += [(star, method, q, np.nan, v, 0.0, np.nan) for q, v in scores.items()]
    table = pd.DataFrame(rows, columns=["star", "method", "quantity", "truth", "mean", "std", "rank"])
    return table.assign(snr=10.0, n=draws, sample="simulated")


def of(table: pd.DataFrame, method: str = "new") -> pd.Series:
    return table[table["method"] == method].iloc[0]


def test_a_method_of_twice_the_error_has_four_times_the_mse(rng):
    row = of(study_tables.errors(made(rng)))
    assert row["over_wiener"] == pytest.approx(4.0, rel=1e-6)
    assert row["mse"] == pytest.approx(1.6e-3, rel=1e-6)
    assert of(study_tables.errors(made(rng)), "wiener")["over_wiener"] == pytest.approx(1.0)


def test_a_pull_to_the_mean_label_is_seen_in_the_slope_and_an_honest_method_has_none(rng):
    drawn, honest = (of(study_tables.biases(made(rng, pull))) for pull in (0.4, 0.0))
    assert drawn["[Fe/H]_slope"] == pytest.approx(0.6, abs=3 * drawn["[Fe/H]_slope_err"])
    assert abs(drawn["[Fe/H]_slope"] - 1) > 5 * drawn["[Fe/H]_slope_err"]
    assert honest["[Fe/H]_slope"] == pytest.approx(1.0, abs=3 * honest["[Fe/H]_slope_err"])


def test_draws_that_are_right_cover_68_percent_and_narrow_ones_less(rng):
    right, narrow = (of(study_tables.coverage(made(rng, width=w, stars=200))) for w in (1.0, 0.4))
    for what in ("EW", "pixels", "RV"):
        assert right[what] == pytest.approx(0.683, abs=4 * right[f"{what}_err"])
        assert narrow[what] < 0.683 - 4 * narrow[f"{what}_err"]  # the control


def test_only_stars_that_the_asked_method_answered_are_compared(rng):
    rows = made(rng)
    rows = rows[(rows["method"] == "wiener") | rows["star"].isin(["s1", "s2"])]
    kept = study_tables.common(rows, "simulated", ("none", "new"))
    assert set(kept["star"]) == {"s1", "s2"}
    assert set(kept["method"]) == {"new", "wiener"}
    assert study_tables.common(rows, "real", ("new",)).empty


def test_survival_and_paint_are_told_apart():
    rows = pd.DataFrame({"star": ["a"] * 8, "experiment": ["put in"] * 4 + ["take out"] * 4, "method": "m", "snr": 10.0,
                         "strength": [7, -8, 15, 16, 20, 20, 20, 3], "survival": [0.5, 0.5, 1.0, 1.0, *[np.nan] * 4],
                         "painted": [*[np.nan] * 4, 0.5, 0.1, 0.0, 9.0]})
    row = survival_card(rows).iloc[0]
    assert (row["kept_5_10"], row["kept_10_20"]) == (0.5, 1.0)
    assert row["painted"] == pytest.approx(0.1)
    assert row["false_lines"] == pytest.approx(1 / 3)
    assert row["painted_err"] == 0  # one star: how far another one is, it cannot say


def test_lines_of_one_star_are_not_told_for_independent(rng):
    stars = np.repeat(np.arange(40), 4)
    own = pd.Series(rng.normal(size=40)[stars], index=stars)  # all four lines of a star alike
    lone = pd.Series(rng.normal(size=160), index=stars)
    assert by_star(own, np.mean) == pytest.approx(1 / np.sqrt(40), rel=0.25)
    assert by_star(lone, np.mean) == pytest.approx(1 / np.sqrt(160), rel=0.25)


# ------------------------------------------------------------------------------------------------ noise maps


NETWORKS = [m for m in ("dncnn", "dncnn_blind", "supervised", "supervised_ivar", "supervised_mixture") if m in METHODS]


@pytest.mark.parametrize("name", evaluate_maps.MAPS)
def test_a_map_is_changed_where_it_says_and_nowhere_else(name):
    plain, truth = evaluate_maps.observed("LAMOST", 10.0, 2)
    spectra, same = evaluate_maps.observed(name, 10.0, 2)
    np.testing.assert_array_equal(truth, same)
    where = evaluate_maps.MAPS[name][1]
    if not where.all():
        np.testing.assert_allclose(spectra.flux[:, ~where], plain.flux[:, ~where], rtol=1e-12)
        assert (spectra.ivar[:, where] != plain.ivar[:, where]).mean() > 0.5
    if name == "correlated .6":
        assert spectra.noise == Kernel(LAMOST_NOISE.scale, (0.6, 0.6))


@pytest.mark.parametrize("method", NETWORKS)
def test_a_network_warns_under_noise_it_never_saw_and_is_silent_under_its_own(method):
    built = build(method)
    for name, warned in (("LAMOST", False), ("red arm 4 x", True), ("flat", True), ("correlated .6", True)):
        spectra, _ = evaluate_maps.observed(name, 10.0, 4)
        told = built.warnings(Observation.of(spectra))
        assert bool(told) == warned, (name, told)
        assert all("trained on" in line for line in told)


def test_the_warning_travels_with_the_answer_and_is_absent_where_there_is_none():
    quiet, loud = (evaluate_maps.observed(name, 10.0, 1)[0] for name in ("LAMOST", "flat"))
    assert "warnings" not in reconstruct(quiet, "dncnn").origin
    answer = reconstruct(loud, "dncnn")
    assert isinstance(answer, Samples)
    assert json.loads(json.dumps(answer.origin))["warnings"] == build("dncnn").warnings(Observation.of(loud))
    assert "warnings" not in reconstruct(loud, "wiener").origin  # which was trained on no noise


@pytest.mark.parametrize("snr", [5.0, 20.0, 100.0])
def test_the_judge_s_own_stars_are_inside_what_the_networks_saw(snr):
    asked = simulated(snr, 12)
    assert build("supervised_ivar").warnings(Observation.of(asked.spectra)) == []
    far = asked.spectra.with_noise(Kernel((20.0, 20.0), LAMOST_NOISE.rho))  # the control: far noisier than any
    assert snr > 50 or build("supervised_ivar").warnings(Observation.of(far))


def test_a_card_declares_every_feature_and_one_that_declares_none_is_refused():
    for name in NETWORKS:
        card = checkpoint.load(checkpoint.path_of(name))[2]
        assert set(Seen.of(card).ranges) == set(FEATURES)
        assert card["noise"]["rho"] == list(LAMOST_NOISE.rho)
        assert card["noise"]["snr"] == [1.5, 500.0]
    with pytest.raises(ValueError, match="does not declare the noise"):
        Seen.of({"what": "x"})


def test_features_say_what_a_map_is_like():
    sigma = np.full((2, 3840), 0.1)
    sigma[1, 2500:] = 0.4
    sigma[1, 1000:1200] = np.inf
    sigma[1, ::50] *= 9
    flat, odd = ({k: v[b] for k, v in features(sigma).items()} for b in (0, 1))
    assert np.exp(flat["level"]) == pytest.approx(0.1)
    assert (flat["tilt"], flat["roughness"], flat["peaks"], flat["dead"], flat["gap"]) == (0, 0, 0, 0, 0)
    assert odd["gap"] == 200
    assert np.exp(odd["peaks"]) == pytest.approx(9, rel=0.01)
    assert np.exp(odd["tilt"]) < 0.5


# ------------------------------------------------------------------------------------------------ learning


def test_weights_kept_on_the_way_answer_as_the_network_that_has_them(tmp_path):
    state = checkpoint.load(checkpoint.path_of("dncnn"))[0]
    file = tmp_path / "seen-20480.safetensors"
    checkpoint.save_state({"weights": state}, file)
    assert seen(file) == 20480
    asked = simulated(20.0, 2)
    with torch.inference_mode():
        answer = with_weights("dncnn", file).sample(Observation.of(asked.spectra), 1, 0).numpy()
    np.testing.assert_allclose(answer, reconstruct(asked.spectra, "dncnn").draws, atol=1e-5)
    for value in state.values():
        value.mul_(0 if value.is_floating_point() else 1)
    checkpoint.save_state({"weights": state}, file)
    with torch.inference_mode():
        other = with_weights("dncnn", file).sample(Observation.of(asked.spectra), 1, 0).numpy()
    assert np.abs(other - answer).max() > 0.01  # the control
    assert (squares(answer, asked.truth) < squares(other, asked.truth)).all()


def test_a_named_strength_is_the_method_s_setting_and_nonsense_is_refused():
    assert build("dps@0.01").strength == 0.01
    with pytest.raises(ValueError, match="names no strength"):
        build("dps@lots")
    with pytest.raises(ValueError, match="unknown"):
        build("wiener@3")
