"""Lines and labels as a reader gets them: the judge's numbers, where the star has its lines, with their error."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from core import pipeline, report
from core.data import library, noise
from core.metrics import photon
from core.metrics.fidelity import error
from core.metrics.flags import Flag
from core.metrics.lines import LINES, equivalent_width
from core.spectrum import Array, Samples, Spectra


@pytest.fixture(scope="module")
def stars() -> tuple[Spectra, Array]:
    return library.bundled()


def one_star(stars: tuple[Spectra, Array], row: int = 0) -> tuple[Spectra, Array]:
    return stars[0].select(row), stars[1][row : row + 1]


def draws_about(spectra: Spectra, truth: Array, n: int, rng: np.random.Generator, width: float = 1.0) -> Samples:
    """Draws that scatter about a centre as the truth does."""
    scatter = 0.05 * rng.standard_normal((n + 1, *truth.shape))
    return Samples(spectra.wave, truth + scatter[0] + width * scatter[1:], "mixture")


def test_a_star_at_rest_has_the_numbers_of_the_judges_table(stars) -> None:
    spectra, truth = one_star(stars)
    still = replace(spectra, meta=spectra.meta.assign(rv=0.0))
    samples = pipeline.reconstruct(still, "mixture", 8)
    ours = report.line_table(samples, still, truth).set_index(["quantity", "line"])
    tidy = pipeline.measure(samples, still, truth).set_index("quantity")
    for line in ("H beta", "Mg b", "Na D"):
        for name in ("EW", "depth"):
            row, judged = ours.loc[(name, line)], tidy.loc[f"{name}:{line}"]
            assert (row["value"], row["reference"]) == (judged["q50"], judged["truth"])
            assert row["minus"] == judged["q50"] - judged["q16"]
    assert ours.loc[("RV", "all"), "value"] == tidy.loc["RV", "q50"]
    whole = ours[ours.index.get_level_values("quantity") != "FWHM"]  # a draw may have no width
    assert set(whole["error_is"]) == {"68 % of 8 draws"}


def test_bands_lie_where_the_star_has_its_lines(stars) -> None:
    """Control: with bands at rest a fast star's line is measured beside itself."""
    row = int(np.argmax(np.abs(stars[0].meta["rv"])))
    spectra, truth = one_star(stars, row)
    velocity = float(spectra.meta["rv"].iloc[0])
    assert abs(velocity) > 200
    samples = Samples(spectra.wave, truth[None], "pca")
    depth = report.line_table(samples, spectra).set_index(["quantity", "line"])["value"]
    moved = report.at_velocity(LINES["Ca II 8542"], velocity)
    at = spectra.wave[np.argmin(np.where(np.abs(spectra.wave - moved.centre) < 12, truth[0], 9))]
    assert abs(at - moved.centre) < 2 < abs(at - LINES["Ca II 8542"].centre)
    assert depth["EW", "Ca II 8542"] == pytest.approx(float(equivalent_width(spectra.wave, truth[0], moved)))
    assert depth["EW", "Ca II 8542"] > 1.05 * float(equivalent_width(spectra.wave, truth[0], LINES["Ca II 8542"]))


def test_residuals_of_honest_draws_scatter_by_one_and_of_narrow_ones_by_more(stars, rng) -> None:
    spectra, truth = one_star(stars, 5)

    def spread(width: float) -> float:
        tables = [report.line_table(draws_about(spectra, truth, 40, rng, width), spectra, truth, rv_draws=1)
                  for _ in range(8)]
        every = pd.concat(tables)
        ew = every.loc[every["quantity"] == "EW", "residual"]
        assert len(ew) > 100
        return float(np.sqrt(np.mean(ew**2)))

    assert 0.8 < spread(1.0) < 1.3  # side bands are shared by some lines: fewer than 100 independent numbers
    assert spread(0.5) > 1.6


def test_a_method_without_draws_has_the_photon_error_and_says_so(stars) -> None:
    spectra, truth = one_star(stars)
    rows = report.line_table(pipeline.reconstruct(spectra, "savgol"), spectra, truth)
    assert set(rows["error_is"]) <= {report.PHOTON, report.NONE}
    ew = rows[rows["quantity"] == "EW"]
    assert (ew["error_is"] == report.PHOTON).all()
    assert (ew["minus"] == ew["plus"]).all()
    assert (ew["minus"] > 0).all()
    velocity = rows[rows["quantity"] == "RV"].iloc[0]
    assert velocity["error_is"] == report.PHOTON
    assert 0 < velocity["plus"] < 50


def test_the_photon_error_of_a_depth_is_its_scatter_over_noise(stars, rng) -> None:
    """Control: half the noise is seen as half."""
    spectra, truth = stars[0].select(11), stars[1][11]
    line = report.at_velocity(LINES["H alpha"], float(spectra.meta["rv"].iloc[0]))
    half = replace(spectra, noise=replace(spectra.noise, scale=tuple(s / 2 for s in spectra.noise.scale)))
    full, less = (photon.line_errors(one, truth, [line])["depth", "H alpha"] for one in (spectra, half))
    assert 1.6 < full / less < 2.4
    sigma = error(spectra)[0][np.argmin(np.abs(spectra.wave - line.centre))]
    assert 0.4 < full / sigma < 1.6, "the lowest pixel's noise, smoothed by a parabola"
    np.testing.assert_array_equal(photon.noise_draws(spectra, 3, 0), photon.noise_draws(spectra, 3, 0))
    assert np.abs(photon.noise_draws(spectra, 3, 1) - photon.noise_draws(spectra, 3, 0)).max() > 0


def test_the_undegraded_spectrum_as_reference_brings_its_own_error(stars) -> None:
    own, truth = one_star(stars, 10)
    spectra = noise.degrade(own, 15, 1)
    samples = pipeline.reconstruct(spectra, "wiener", 8)
    known, before = report.line_table(samples, spectra, truth), report.line_table(samples, spectra, own=own)
    gaps = known["value"] - known["reference"], before["value"] - before["reference"]
    smaller = np.abs(before["residual"]) / np.abs(gaps[1]) < 1 / before[["minus", "plus"]].min(axis=1) + 1e-9
    assert smaller[before["residual"].notna()].all()
    with pytest.raises(ValueError, match="one of them"):
        report.line_table(samples, spectra, truth, own=own)
    with pytest.raises(ValueError, match="prior_share"):
        report.line_table(samples, spectra, truth, prior_share=np.ones(3))


def test_prior_and_flags_are_said_of_the_line_they_are_in(stars) -> None:
    spectra, _ = one_star(stars)
    centre = report.at_velocity(LINES["H alpha"], float(spectra.meta["rv"].iloc[0])).centre
    share = np.where(np.abs(spectra.wave - centre) < 40, 1.0, 0.1)[None]
    flag = Flag(centre + 3, 2.0, 5.1, 0.001, 0.4)
    rows = report.line_table(pipeline.reconstruct(spectra, "pca"), spectra, prior_share=share, flags=[[flag]])
    at = rows.set_index(["quantity", "line"])
    assert at.loc[("EW", "H alpha"), "prior_share"] == 1
    assert at.loc[("EW", "Mg b"), "prior_share"] == pytest.approx(0.1)
    assert "5.1 sigma" in at.loc[("EW", "H alpha"), "flags"]
    assert set(rows.loc[rows["line"] != "H alpha", "flags"]) == {""}
    assert np.isnan(at.loc[("RV", "all"), "prior_share"])
    assert rows["residual"].isna().all(), "no truth, no residual"


def test_labels_are_those_of_the_judge_and_closed_ones_do_not_know_their_neighbours(stars) -> None:
    two = stars[0].select([1, 2])
    samples = pipeline.reconstruct(two, "mixture", 6)
    labels = report.labels_of(samples, two)
    rows = report.label_table(labels, two, "mixture", report.known_labels(two))
    tidy = pipeline.infer(samples, two, report.ridge())
    for name in pipeline.NAMES.values():
        assert list(rows[rows["quantity"] == name]["value"]) == list(tidy[tidy["quantity"] == name]["q50"])
    assert (rows["reference"].notna()).all()
    assert set(rows["unit"]) == {"K", "dex", "km/s"}
    alone, together = report.closed_form(two.select(1), 50), report.closed_form(two, 50)
    np.testing.assert_array_equal(alone[:, 0], together[:, 1])
    inside = np.abs(report.label_table(report.closed_form(two), two, report.CLOSED,
                                       report.known_labels(two))["residual"])
    assert (inside < 4).all()
    point = report.label_table(report.labels_of(pipeline.reconstruct(two, "pca"), two), two, "pca")
    assert set(point["error_is"]) == {report.NONE}
    with pytest.raises(ValueError, match="give"):
        report.label_table(labels[:, :1], two, "mixture")
