"""Samples that are stars pass at the level promised; shifted ones, noise and copies (a few, or noisy) are found."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.spatial.distance import cdist
from scipy.stats import binom

from core.metrics.samples import FAR, copying, energy, features, one_by_one
from scripts import evaluate_samples
from scripts.evaluate_samples import read, samples, simulated

WAVE = 10.0 ** (3.57 + 1e-4 * np.arange(3840))
CENTRES = np.array([3934.8, 4102.9, 4341.7, 4862.7, 5177.8, 5894.7, 6564.6, 8544.4])


def stars(n: int, rng: np.random.Generator, shift: float = 0.0) -> np.ndarray:
    """(n, 3840) smooth curves with eight lines whose depths go with one temperature and a scatter of their own."""
    hot = rng.standard_normal((n, 1))
    log_depth = -1.2 + shift + 0.3 * hot * np.linspace(-1, 1, 8) + 0.2 * rng.standard_normal((n, 8))
    shape = np.exp(-0.5 * ((WAVE - CENTRES[:, None]) / 5.0) ** 2)
    slope = 0.03 * rng.standard_normal((n, 1)) * np.linspace(-1, 1, 3840)
    return 1 + slope - np.minimum(np.exp(log_depth), 0.95) @ shape


def binomial(wrong: int, trials: int, level: float) -> bool:
    """Whether so many false alarms are what this level gives, to 3 in 1000 on either side."""
    return bool(binom.cdf(wrong, trials, level) > 0.003 and binom.sf(wrong - 1, trials, level) > 0.003)


def test_features_are_widths_and_band_means(rng: np.random.Generator) -> None:
    flux = stars(5, rng)
    table = features(WAVE, flux)
    assert table.shape == (5, 18 + 20 + 2)
    rough = features(WAVE, 1 + 0.02 * rng.standard_normal((5, 3840))).filter(like="roughness")
    np.testing.assert_allclose(10**rough, 0.02, rtol=0.1)  # white noise has its own deviation
    np.testing.assert_allclose(table.filter(like="band:").mean(axis=1), flux.mean(axis=1))
    dark = flux.copy()
    dark[0] -= 2.0
    assert features(WAVE, dark).loc[0].isna().sum() == 18  # no continuum, no width; the bands still tell it
    for wrong, why in ((flux[0], "one row a spectrum"), (flux[:, :9], "one row a spectrum"),
                       (np.where(flux > 1, np.nan, flux), "diverges")):
        with pytest.raises(ValueError, match=why):
            features(WAVE, wrong)


def test_the_energy_distance_is_its_definition(rng: np.random.Generator) -> None:
    x, y = rng.standard_normal((7, 3)), 0.5 + 2 * rng.standard_normal((9, 3))
    both = np.concatenate([x, y])
    low, middle, high = np.percentile(both, [16, 50, 84], axis=0)
    a, b = ((v - middle) / ((high - low) / 2) for v in (x, y))
    want = 2 * cdist(a, b).mean() - cdist(a, a).mean() - cdist(b, b).mean()
    got = energy(x, y, rng, 19)
    assert got.distance == pytest.approx(want)
    assert got.coefficient == pytest.approx(want / (2 * cdist(a, b).mean()))
    assert energy(x, x, rng, 19).distance == pytest.approx(0, abs=1e-9)
    assert energy(x, x, rng, 19).p == 1.0


def test_one_distribution_passes_at_its_level(rng: np.random.Generator) -> None:
    p = np.array([energy(*rng.standard_normal((2, 30, 6)).cumsum(axis=2), rng, 99).p for _ in range(400)])
    for level in (0.05, 0.2, 0.5):
        assert binomial(int((p <= level).sum()), len(p), level), (level, (p <= level).mean())


@pytest.mark.parametrize("kind", ["honest", "crowded", "noise"])
def test_samples_that_copy_nothing_are_accused_no_more_often_than_promised(kind: str, rng: np.random.Generator) -> None:
    """Whatever they are: by distance to the training set alone, the crowded ones and noise would be copies."""
    basis, p = rng.standard_normal((6, 40)), []
    for _ in range(300):
        known, held = rng.standard_normal((2, 60, 6)) @ basis
        drawn = rng.standard_normal((40, 6)) @ basis * (0.3 if kind == "crowded" else 1.0)
        p.append(copying(drawn if kind != "noise" else rng.standard_normal((40, 40)), known, held, rng, 99, 6).p)
    for level in (0.05, 0.2, 0.5):
        assert binomial(int((np.array(p) <= level).sum()), len(p), level), (level, np.mean(np.array(p) <= level))


def test_stars_pass_and_every_planted_failure_is_found(rng: np.random.Generator) -> None:
    truth = features(WAVE, stars(150, rng))
    wide = stars(150, rng)
    planted = {
        "shifted by a tenth in depth": stars(150, rng, 0.1), "noise": 1 + 0.2 * rng.standard_normal((150, 3840)),
        "stars with a little noise left": stars(150, rng) + 0.005 * rng.standard_normal((150, 3840)),
        "loud noise": 3.0 * rng.standard_normal((150, 3840)), "one star": np.repeat(stars(1, rng), 150, axis=0),
        "half noise": np.concatenate([stars(75, rng), 1 + 0.2 * rng.standard_normal((75, 3840))]),
        "half as varied": wide.mean(axis=0) + 0.5 * (wide - wide.mean(axis=0)),
    }
    for name, flux in planted.items():
        got = energy(features(WAVE, flux), truth, rng, 199)
        assert got.p == 1 / 200, (name, got)
        assert got.coefficient > 2 * got.null, (name, got)
    assert energy(features(WAVE, stars(150, rng)), truth, rng, 199).p > 0.01  # the control


def test_a_diverged_sample_does_not_hide_the_others(rng: np.random.Generator) -> None:
    x, y = rng.standard_normal((100, 4)) + 0.7, rng.standard_normal((100, 4))
    x[0] = 1e9
    x[1] = np.nan
    assert energy(x, y, rng, 199).p == 1 / 200
    assert energy(x, y, rng, 9).distance < FAR


def test_single_features_say_where_it_is(rng: np.random.Generator) -> None:
    flux = stars(200, rng)
    window = np.exp(-0.5 * ((WAVE - 6564.6) / 5.0) ** 2)
    table = one_by_one(features(WAVE, flux - 0.15 * window), features(WAVE, stars(200, rng))).set_index("feature")
    assert table["p"].idxmin() == "EW:H alpha"
    assert table.loc["EW:H alpha", "samples"] > table.loc["EW:H alpha", "reference"] + 1
    assert table.loc["EW:H beta", "p"] > 1e-4
    assert table["width"].between(0.6, 1.6).all()
    nothing = one_by_one(features(WAVE, np.full((50, 3840), -1.0)), features(WAVE, flux)).set_index("feature")
    assert nothing.loc["EW:H alpha", "invalid"] == 1.0
    assert nothing.loc["EW:H alpha", "p"] < 1e-10


@pytest.fixture(scope="module")
def library() -> np.ndarray:
    return stars(400, np.random.default_rng(5))


@pytest.mark.parametrize("noise", [0.0, 0.01])
@pytest.mark.parametrize("share", [1.0, 0.1])
def test_copies_are_found_also_a_few_and_noisy(library, share: float, noise: float, rng: np.random.Generator) -> None:
    n = 150
    copies = int(share * n)
    which = rng.integers(0, len(library), copies)
    flux = np.concatenate([library[which], stars(n - copies, rng)]) + noise * rng.standard_normal((n, 3840))
    got = copying(flux, library, stars(400, rng), rng, 199)
    assert got.p == 1 / 200
    np.testing.assert_array_equal(got.row[:copies], which)


def test_learned_nearly_by_heart_is_found(library, rng: np.random.Generator) -> None:
    """No sample is a copy, but each is halfway between a new star and its nearest training spectrum."""
    fresh, held = stars(150, rng), stars(400, rng)
    honest = copying(fresh, library, held, rng, 199)
    assert honest.p > 0.05  # the control
    assert abs(np.log(np.median(honest.nearest) / np.median(honest.held))) < 0.1
    assert copying(0.5 * (fresh + library[honest.row]), library, held, rng, 199).p == 1 / 200


def test_crowding_about_the_mean_star_is_not_taken_for_copying(library, rng: np.random.Generator) -> None:
    mean, held = library.mean(axis=0), stars(400, rng)
    honest = copying(stars(150, rng), library, held, rng, 9)
    got = copying(mean + 0.3 * (stars(150, rng) - mean), library, held, rng, 199)
    assert np.median(got.nearest) < 0.9 * np.median(honest.nearest)  # nearer, and yet
    assert got.p > 0.05


def test_distances_are_rms_over_pixels_and_agree_both_ways_of_solving(rng: np.random.Generator) -> None:
    known, held, x = (rng.standard_normal((n, 12)) for n in (30, 20, 4))
    got = copying(x, known, held, rng, 9, components=12)  # all of them: no part is left out
    np.testing.assert_allclose(got.nearest, cdist(x, known).min(1) / np.sqrt(12))
    np.testing.assert_allclose(got.held, cdist(x, held).min(1) / np.sqrt(12))
    np.testing.assert_array_equal(got.row, cdist(x, known).argmin(1))
    assert got.nearer == pytest.approx(np.log(got.held / got.nearest).mean())
    few = copying(x, known[:4], held[:4], rng, 9, components=7)  # 8 spectra span no more
    both = np.concatenate([known[:4], held[:4]])
    lead = np.linalg.svd(both - both.mean(0), full_matrices=False)[2][:7]
    np.testing.assert_allclose(few.nearest, cdist(x @ lead.T, known[:4] @ lead.T).min(1) / np.sqrt(12))


def test_sets_that_cannot_be_compared_are_refused(rng: np.random.Generator) -> None:
    x = rng.standard_normal((5, 3))
    for one, other in ((x, x[:, :2]), (x[:1], x), (x[0], x)):
        with pytest.raises(ValueError, match="cannot be compared"):
            energy(one, other, rng)
    with pytest.raises(ValueError, match="0 deals"):
        energy(x, x, rng, 0)
    with pytest.raises(ValueError, match="0 deals"):
        copying(x, x, x, rng, 0, 2)
    with pytest.raises(ValueError, match="4 components asked of 10 spectra of 3"):
        copying(x, x, x, rng, components=4)
    with pytest.raises(ValueError, match="diverges"):
        copying(np.where(x > 0, np.nan, x), x, x, rng, components=2)


# ---------------------------------------------------------------------------------- scripts.evaluate_samples


def toy(number: int, seed: int) -> np.ndarray:
    return stars(number, np.random.default_rng(seed))


def test_stars_pass_copies_and_noise_do_not_and_the_controls_stand_beside(tmp_path: Path) -> None:
    files = tmp_path / "t.csv", tmp_path / "g.png"
    training = toy(300, 77)
    half = np.concatenate([training[:20], toy(60, 78)])
    samples(lambda n, seed: half, 80, toy, training, table=files[0], picture=files[1])
    found = pd.read_csv(files[0])
    p = found[found["test"] != "feature"].set_index(["what", "test"])["p"]
    assert p["control: other stars"].min() > 0.01
    assert p["control: noise", "energy"] == pytest.approx(1e-3)
    assert p["control: copies", "copying"] == p["control: copies"].min() < 0.003 < 0.01 < p["control: noise", "copying"]
    assert p["samples", "copying"] < 0.003 < 0.01 < p["samples", "energy"]  # stars, but some of them not its own
    assert (found.groupby("what").size() == 2 + 18 + 20 + 2).all()
    assert files[1].read_bytes().startswith(b"\x89PNG")


def test_the_usual_reference_is_clean_stars_on_the_grid() -> None:
    drawn = simulated(3, 1)
    assert drawn.shape == (3, 3840)
    np.testing.assert_array_equal(drawn, simulated(3, 1))
    assert 0.8 < np.median(drawn) < 1.2


def test_what_is_no_sample_is_refused(tmp_path: Path, monkeypatch, capsys) -> None:
    with pytest.raises(ValueError, match="give spectra on the grid"):
        samples(lambda n, seed: np.ones((n, 7)), 20, toy, toy(50, 1))
    with pytest.raises(ValueError, match="diverges"):
        samples(lambda n, seed: np.full((n, 3840), np.nan), 20, toy, toy(50, 1))
    np.save(tmp_path / "a.npy", np.ones((2, 3840)))
    np.save(tmp_path / "b.npy", np.ones(3840))
    assert read(tmp_path).shape == (3, 3840)
    np.save(tmp_path / "c.npy", np.ones((2, 9)))
    (tmp_path / "empty").mkdir()
    for path in (tmp_path, tmp_path / "empty", tmp_path / "none.npy"):
        with pytest.raises(ValueError, match="holds no samples"):
            read(path)
    with pytest.raises(ValueError, match="on the grid"):
        read(tmp_path / "c.npy")
    monkeypatch.setattr(sys, "argv", ["evaluate_samples", str(tmp_path / "none.npy")])
    with pytest.raises(SystemExit):
        evaluate_samples.main()
    assert "holds no samples" in capsys.readouterr().err
