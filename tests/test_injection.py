"""The audit tells a method that keeps from one that erases and one that paints, and flags find both at their limit."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binom

from core.metrics.audit import Test, calibrate
from core.metrics.injection import filled, gap, nothing, put_in, take_out
from core.metrics.lines import Line, equivalent_width
from core.spectrum import Kernel, Spectra, star_seed

PIXELS = 500
WAVE = 10.0 ** (3.79 + 1e-4 * np.arange(PIXELS))  # 6166-6918 Angstrom
LAMOST = Kernel((0.8, 0.7), (0.3, 0.4))
WHITE = Kernel((1.0, 0.9))
LINE = Line("planted", 6301.0, (6292.0, 6310.0), (6265.0, 6290.0), (6312.0, 6337.0), "this test")


def line_at(centre: float, depth: float, sigma: float = 2.5) -> np.ndarray:
    return depth * np.exp(-0.5 * ((WAVE - centre) / sigma) ** 2)


def stars(rng: np.random.Generator, truth: np.ndarray, noise: Kernel = LAMOST, sigma: float = 0.05) -> Spectra:
    """One star for each row of truth, 1 % of its pixels dead."""
    n = noise.scales(WAVE) * sigma * noise.colour(WAVE, rng.standard_normal((len(truth), PIXELS + 2)))
    live, ones = rng.random(truth.shape) > 0.01, np.ones(truth.shape)
    meta = pd.DataFrame({"star": [f"s{i}" for i in range(len(truth))]})
    return Spectra(WAVE, np.where(live, truth + n, 3.0), live / sigma**2, ones, meta, noise)


def keep(spectra: Spectra, n: int, seed: int) -> np.ndarray:
    """The observation itself."""
    return np.broadcast_to(spectra.flux, (n, *spectra.flux.shape))


def erase(spectra: Spectra, n: int, seed: int) -> np.ndarray:
    """The prior's mean: no line anywhere."""
    return np.ones((n, *spectra.flux.shape))


def paint(spectra: Spectra, n: int, seed: int) -> np.ndarray:
    """Always a line at 6301 Angstrom, whatever was observed."""
    return erase(spectra, n, seed) - line_at(6301.0, 0.4)


def at_most(count: int, of: int, rate: float) -> bool:
    return count <= binom.ppf(1 - 5e-4, of, rate)


def test_a_method_that_keeps_everything_keeps_every_line_and_raises_no_flag(rng: np.random.Generator) -> None:
    table = put_in(stars(rng, np.ones((30, PIXELS))), keep, n=2, lines=2)
    assert len(table) == 60
    np.testing.assert_allclose(table["survival"], 1.0, rtol=1e-6)
    assert not table["flagged"].any()
    assert (table["ew_in"] * table["strength"] > 0).all(), "absorption is positive in both"
    assert set(np.sign(table["strength"])) == {-1.0, 1.0}


@pytest.mark.parametrize("noise", [WHITE, LAMOST])
def test_what_a_method_erases_is_flagged_as_often_as_the_best_test_can(rng: np.random.Generator, noise: Kernel) -> None:
    spectra = stars(rng, np.ones((400, PIXELS)), noise)
    quiet = nothing(spectra, erase, n=1)
    assert at_most(int(quiet["flagged"].sum()), 400, 0.01)
    for s in (4.0, 5.0, 6.5):
        table = put_in(spectra, erase, n=1, strengths=(s, s))
        assert (table["survival"] == 0).all()
        power, best = table["flagged"].mean(), table["limit"].mean()
        # noise may lift a neighbour over the threshold, and a line between places and widths loses 3 % of its strength
        assert abs(power - best) < 0.05 + 3 * np.sqrt(best * (1 - best) / 400), (s, power, best)
    coarse = put_in(spectra, erase, n=1, strengths=(5.0, 5.0), widths=(0.5, 1.0), test=Test(widths=(5.0,)))
    assert coarse["flagged"].mean() < coarse["limit"].mean() - 0.2, "the control: a test of the wrong widths has less"
    blind = put_in(spectra, erase, n=1, strengths=(0.1, 0.1))
    assert at_most(int(blind["flagged"].sum()), 400, 0.01), "the control: what is too faint is not found"


def test_ignoring_the_noise_s_correlation_alarms_too_often(rng: np.random.Generator) -> None:
    spectra = stars(rng, np.ones((400, PIXELS))).with_noise(Kernel(LAMOST.scale))
    assert not at_most(int(nothing(spectra, erase, n=1)["flagged"].sum()), 400, 0.01)


def test_a_line_painted_back_is_measured_and_flagged(rng: np.random.Generator) -> None:
    truth = np.ones((40, PIXELS)) - line_at(6301.0, 0.4)
    spectra = stars(rng, truth)
    painted = take_out(spectra, truth, paint, n=2, lines=[LINE])
    np.testing.assert_allclose(painted["painted"], 1.0, atol=1e-6)
    assert (painted["strength"] > 10).all()
    assert (painted["limit"] > 0.999).all()
    assert painted["flagged"].all()
    honest = take_out(spectra, truth, erase, n=2, lines=[LINE])  # the control: where the line is gone this is the truth
    assert at_most(int(honest["flagged"].sum()), 40, 0.01)
    assert honest["painted"].abs().max() < 0.02
    kept = take_out(spectra, truth, keep, n=2, lines=[LINE])
    assert not kept["flagged"].any()
    assert abs(kept["painted"].mean()) < 4 * kept["painted"].std() / np.sqrt(40)


def test_the_filled_truth_has_no_line_and_is_otherwise_itself() -> None:
    truth = 1 + 1e-4 * (WAVE - 6301.0) - line_at(6301.0, 0.4, 1.5)
    empty = filled(WAVE, truth, LINE)
    assert abs(equivalent_width(WAVE, empty, LINE)) < 1e-3 * equivalent_width(WAVE, truth, LINE)
    outside = (WAVE < LINE.band[0]) | (WAVE > LINE.band[1])
    assert np.array_equal(empty[outside], truth[outside])


class Gaussian:
    """Draws from the posterior of a Gaussian prior in closed form, made `stretch` times as wide."""

    def __init__(self, stretch: float = 1.0, size: int = 140) -> None:
        self.part = slice(60, 60 + size)  # 6252-6457 Angstrom
        i = np.arange(size)
        # lines of any depth at 6301 Angstrom, and an uneven continuum
        shape = line_at(6301.0, 1.0)[self.part]
        self.P = 0.15**2 * np.outer(shape, shape) + 0.02**2 * np.exp(-0.5 * ((i[:, None] - i) / 6.0) ** 2)
        self.P[i, i] += 1e-6
        self.mean, self.stretch = 1 - 0.4 * shape, stretch

    def truths(self, rng: np.random.Generator, number: int) -> np.ndarray:
        out = np.ones((number, PIXELS))
        root = np.linalg.cholesky(self.P)
        out[:, self.part] = self.mean + rng.standard_normal((number, len(self.mean))) @ root.T
        return out

    def __call__(self, spectra: Spectra, n: int, seed: int) -> np.ndarray:
        draws = np.ones((n, *spectra.flux.shape))
        for b, star in enumerate(spectra.stars):
            rng = np.random.default_rng(star_seed(star, seed, "gaussian"))
            live = spectra.measured[b, self.part]
            sigma = spectra.sigma[b, self.part][live] * spectra.noise.scales(WAVE[self.part][live])
            gain = np.linalg.solve(self.P[np.ix_(live, live)] + np.diag(sigma**2), self.P[live]).T
            mean = self.mean + gain @ (spectra.flux[b, self.part][live] - self.mean[live])
            root = np.linalg.cholesky(self.P - gain @ self.P[live] + 1e-9 * np.eye(len(self.mean)))
            draws[:, b, self.part] = mean + self.stretch * rng.standard_normal((n, len(mean))) @ root.T
        return draws


def test_in_a_gap_an_exact_posterior_is_as_wide_as_it_should_be_and_half_as_wide_is_found(
    rng: np.random.Generator,
) -> None:
    exact, number = Gaussian(), 300
    truth = exact.truths(rng, number)
    spectra = stars(rng, truth, WHITE)
    table = gap(spectra, truth, exact, n=16, lines=[LINE], pixels=(20, 50))
    error = np.sqrt(0.683 * 0.317 / number)
    assert abs(table["covered"].mean() - 0.683) < 4 * error
    # Student's t with 15 degrees of freedom: variance 15 / 13, fourth moment 3 * 15^2 / (13 * 11)
    assert abs(table["chi2"].mean() - 15 / 13) < 4 * np.sqrt((675 / 143 - (15 / 13) ** 2) / number)
    assert abs(table["rank"].mean() - 8) < 4 * np.sqrt((17**2 - 1) / 12 / number)
    assert (table["width"] > table["width_open"]).mean() > 0.99
    assert table["pixels"].between(20, 50).all()
    assert table["pixels"].nunique() > 10
    narrow = gap(spectra, truth, Gaussian(0.5), n=16, lines=[LINE], pixels=(20, 50))  # the control
    assert narrow["covered"].mean() < 0.683 - 6 * error
    assert narrow["chi2"].mean() > 3
    point = gap(spectra.select([0]), truth[:1], erase, n=2, lines=[LINE])
    assert point["z"].isna().all()
    assert not point["covered"].any()


def test_what_lies_in_a_gap_does_not_leak() -> None:
    truth = np.ones((5, PIXELS)) - line_at(6301.0, 0.4)
    clean = Spectra(WAVE, truth, np.ones(truth.shape), np.ones(truth.shape), pd.DataFrame(index=range(5)))
    table = gap(clean, truth, keep, n=2, lines=[LINE])  # what the method was given, without noise
    assert table["ew_mean"].abs().max() < 0.01
    assert table["ew_truth"].min() > 2  # the control: it was there to leak


def test_a_star_s_rows_do_not_depend_on_its_neighbours(rng: np.random.Generator) -> None:
    method = Gaussian()
    truth = method.truths(rng, 5)
    spectra = stars(rng, truth, WHITE)
    for run in (lambda r: put_in(spectra.select(r), method, n=4, lines=2, block=2),
                lambda r: take_out(spectra.select(r), truth[r], method, n=4, lines=[LINE], block=2),
                lambda r: gap(spectra.select(r), truth[r], method, n=4, lines=[LINE], block=2),
                lambda r: nothing(spectra.select(r), method, n=4, block=2)):
        every, alone = run(np.arange(5)), run(np.array([3]))
        pd.testing.assert_frame_equal(every[every["star"] == "s3"].reset_index(drop=True), alone, rtol=1e-9)
    moved = put_in(spectra, method, n=4, seed=1)
    assert (moved["wavelength"] != put_in(spectra, method, n=4, seed=0)["wavelength"]).all()


def test_a_method_s_own_null_makes_its_promise_hold(rng: np.random.Generator) -> None:
    def wavy(spectra: Spectra, n: int, seed: int) -> np.ndarray:
        return erase(spectra, n, seed) + 0.1 * np.sin(WAVE / 3)

    spectra = stars(rng, np.ones((500, PIXELS)), WHITE)
    some, others = spectra.select(slice(0, 250)), spectra.select(slice(250, None))
    assert nothing(others, wavy, n=1)["flagged"].mean() > 0.05, "the control: a method that adds waves"
    test = Test(calibration=calibrate(some, wavy, n=1))
    # the null of 250 stars is uncertain too
    assert nothing(others, wavy, n=1, test=test)["flagged"].mean() < 0.01 + 4 * np.sqrt(2 * 0.01 / 250)


def test_bad_input_is_refused_with_a_remedy(rng: np.random.Generator) -> None:
    truth = np.ones((2, PIXELS))
    spectra = stars(rng, truth)
    with pytest.raises(ValueError, match="at least 2 draws"):
        gap(spectra, truth, keep, n=1, lines=[LINE])
    with pytest.raises(ValueError, match="at least 1"):
        nothing(spectra, keep, n=0)
    with pytest.raises(ValueError, match="finite everywhere"):
        take_out(spectra, np.where(truth > 0, np.nan, 1), keep, lines=[LINE])
    with pytest.raises(ValueError, match="Angstrom with its side bands"):
        take_out(spectra, truth, keep, lines=[Line("far", 9000.0, (8990.0, 9010.0), (8950.0, 8980.0), (9020.0, 9050.0),
                                                   "this test")])
    with pytest.raises(ValueError, match="two positive numbers"):
        put_in(spectra, keep, strengths=(5.0, 1.0))
    with pytest.raises(ValueError, match="rising positive lengths"):
        gap(spectra, truth, keep, pixels=(0, 5), lines=[LINE])
    with pytest.raises(ValueError, match="answered with shape"):
        nothing(spectra, lambda s, n, seed: s.flux)
    dead = Spectra(WAVE, truth, 0 * truth, truth, spectra.meta)
    with pytest.raises(ValueError, match="live pixels"):
        put_in(dead, keep)
