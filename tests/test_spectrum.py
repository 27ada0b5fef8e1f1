"""What travels checks itself: bad input gets a fact and a remedy, arrays are frozen, correlated noise is as stated."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from core.spectrum import ARM_JOIN, WHITE, Kernel, Samples, Spectra, star_seed

WAVE = np.linspace(4000.0, 4100.0, 20)
JOINED = np.linspace(ARM_JOIN - 500, ARM_JOIN + 500, 40)  # as many pixels in each arm
FOUR_ARMS = Kernel(scale=(0.8, 0.7), rho=(0.15, 0.6))


def spectra(**change) -> Spectra:
    shape = (3, WAVE.size)
    parts = {"wave": WAVE, "flux": np.ones(shape), "ivar": np.full(shape, 4.0), "continuum": np.ones(shape),
             "meta": pd.DataFrame({"star": ["a", "b", "c"]})}
    return Spectra(**(parts | change))


def changed(pixel: float, name: str) -> dict[str, np.ndarray]:
    array = np.ones((3, WAVE.size))
    array[1, 5] = pixel
    return {name: array}


@pytest.mark.parametrize(("change", "fact", "remedy"), [
    ({"wave": WAVE[::-1]}, "rising", "sort it"),
    ({"wave": np.where(WAVE == WAVE[3], WAVE[2], WAVE)}, "rising", "sort it"),
    ({"wave": np.where(WAVE == WAVE[3], np.nan, WAVE)}, "rising", "sort it"),
    ({"wave": WAVE[:1]}, "at least two", "Angstrom"),
    ({"flux": np.ones(WAVE.size)}, "1 dimension", "give .spectra, pixels."),
    ({"ivar": np.ones((2, WAVE.size))}, "ivar has shape", "must be"),
    ({"continuum": np.ones((3, 5))}, "continuum has shape", "must be"),
    (changed(np.nan, "flux"), "flux has 1 values that are not finite", "set ivar to 0"),
    (changed(np.inf, "ivar"), "ivar has 1 values that are not finite", "set ivar to 0"),
    (changed(-1.0, "ivar"), "negative in 1 pixels", "0 marks"),
    (changed(0.0, "continuum"), "positive", "grid.prepare"),
    ({"meta": pd.DataFrame({"star": ["a"]})}, "meta", "3 rows"),
    ({"meta": {"star": ["a", "b", "c"]}}, "meta", "DataFrame"),
])
def test_bad_spectra_are_refused_with_the_fact_and_the_remedy(change, fact, remedy):
    with pytest.raises(ValueError, match=fact) as caught:
        spectra(**change)
    assert caught.match(remedy)


def test_good_spectra_are_not_refused_and_dead_pixels_have_infinite_sigma():
    good = spectra(**changed(0.0, "ivar"))
    assert len(good) == 3
    assert np.isinf(good.sigma[1, 5])
    assert not good.measured[1, 5]
    assert good.measured.sum() == good.flux.size - 1


def test_arrays_are_frozen_copies_that_do_not_follow_their_source():
    flux, meta = np.ones((3, WAVE.size)), pd.DataFrame({"star": ["a", "b", "c"]})
    made = spectra(flux=flux, meta=meta)
    flux[:] = 7.0
    meta["star"] = "x"
    assert (made.flux == 1.0).all()
    assert made.stars == ["a", "b", "c"]
    for name in ("wave", "flux", "ivar", "continuum"):
        with pytest.raises(ValueError, match="read-only"):
            getattr(made, name)[..., 0] = 5.0


def test_a_star_without_an_id_keeps_the_one_it_got_when_it_is_selected():
    nameless = spectra(meta=pd.DataFrame(index=range(3)))
    assert nameless.stars == ["0", "1", "2"]
    assert nameless.select([2, 0]).stars == ["2", "0"]


@pytest.mark.parametrize(("rows", "stars"), [(1, ["b"]), (slice(1, 3), ["b", "c"]), ([2, 0], ["c", "a"]),
                                             (np.array([True, False, True]), ["a", "c"]), ([], [])])
def test_selected_rows_keep_their_own_numbers(rows, stars):
    all_ = spectra(flux=np.arange(3.0)[:, None] * np.ones(WAVE.size))
    part = all_.select(rows)
    assert part.stars == stars
    np.testing.assert_array_equal(part.flux[:, 0], [{"a": 0, "b": 1, "c": 2}[s] for s in stars])


def test_comparing_spectra_or_samples_does_not_fail_on_their_arrays():
    a, b = spectra(), spectra()
    assert a == a
    assert a != b
    assert len({a, b}) == 2
    assert Samples(WAVE, np.ones((1, 2, WAVE.size)), "m") != Samples(WAVE, np.ones((1, 2, WAVE.size)), "m")


@pytest.mark.parametrize(("draws", "message"), [
    (np.ones((2, WAVE.size)), "give .draws, spectra, pixels."),
    (np.ones((0, 2, WAVE.size)), "at least one draw"),
    (np.ones((1, 2, 4)), "draws has shape"),
    (np.full((1, 2, WAVE.size), np.nan), "not finite; method 'm' failed"),
])
def test_bad_samples_are_refused_with_the_fact_and_the_remedy(draws, message):
    with pytest.raises(ValueError, match=message):
        Samples(WAVE, draws, "m")


def test_one_draw_has_no_quantile_and_no_spread_and_two_have():
    one = Samples(WAVE, np.ones((1, 2, WAVE.size)), "m")
    assert (one.spread == 0).all()
    with pytest.raises(ValueError, match="ask for more draws"):
        one.quantile(0.5)
    two = Samples(WAVE, np.stack([np.zeros((2, WAVE.size)), np.ones((2, WAVE.size))]), "m")
    with pytest.raises(ValueError, match="outside"):
        two.quantile(1.5)
    np.testing.assert_allclose(two.quantile(0.25), 0.25)
    np.testing.assert_allclose(two.mean, 0.5)
    np.testing.assert_allclose(two.spread, np.sqrt(0.5))


# ------------------------------------------------------------------------------------------------ correlated noise


@pytest.mark.parametrize("bad", [{"scale": (0.0, 1.0)}, {"scale": (np.nan, 1.0)}, {"scale": (1.0, 1.0, 1.0)},
                                 {"rho": (-0.1, 0.0)}, {"rho": (0.0, 0.71)}, {"rho": (0.1,)}, {"rho": (np.nan, 0.0)}])
def test_a_kernel_that_cannot_be_is_refused(bad):
    with pytest.raises(ValueError, match="blue arm, red arm"):
        Kernel(**bad)


def exact_covariance(kernel: Kernel, wave: np.ndarray) -> np.ndarray:
    """K K' by pushing unit impulses through `colour`, no random number."""
    K = kernel.colour(wave, np.eye(wave.size + 2)).T
    return K @ K.T


@pytest.mark.parametrize("rho", [0.0, 0.1, 0.35, 0.6, 0.7])
def test_coloured_noise_has_unit_variance_and_the_stated_correlations(rho):
    covariance = exact_covariance(Kernel(rho=(rho, rho)), JOINED)
    a = 0.0 if rho == 0 else (1 - np.sqrt(1 - 2 * rho**2)) / (2 * rho)
    expected = {0: 1.0, 1: rho, 2: a**2 / (1 + 2 * a**2), 3: 0.0, 7: 0.0}
    for lag, value in expected.items():
        np.testing.assert_allclose(np.diagonal(covariance, lag), value, atol=1e-12)


def test_each_arm_has_its_own_correlation_and_the_boundary_pixels_share_both():
    covariance, last = exact_covariance(FOUR_ARMS, JOINED), int((JOINED < ARM_JOIN).sum()) - 1
    np.testing.assert_allclose(np.diagonal(covariance), 1.0, atol=1e-12)  # also at the boundary
    np.testing.assert_allclose(np.diagonal(covariance, 1)[:last], 0.15, atol=1e-12)
    np.testing.assert_allclose(np.diagonal(covariance, 1)[last + 1 :], 0.6, atol=1e-12)
    centre, side = FOUR_ARMS.taps(JOINED)
    across = centre[last] * side[last + 1] + side[last] * centre[last + 1]
    assert covariance[last, last + 1] == pytest.approx(across)
    assert 0.15 < across < 0.6
    np.testing.assert_array_equal(FOUR_ARMS.scales(JOINED), np.where(JOINED < ARM_JOIN, 0.8, 0.7))


def test_a_pixel_at_the_join_belongs_to_the_red_arm():
    np.testing.assert_array_equal(FOUR_ARMS.scales(np.array([ARM_JOIN - 1e-6, ARM_JOIN])), [0.8, 0.7])


def test_drawn_noise_has_the_variance_and_correlation_of_the_kernel_and_white_noise_is_told_apart(rng):
    stars, wave = 400, np.linspace(4000, 5000, 500)
    rho = 0.3
    pairs = stars * (wave.size - 1)

    def lag1(kernel: Kernel) -> float:
        n = kernel.colour(wave, rng.standard_normal((stars, wave.size + 2)))
        return float((n[:, 1:] * n[:, :-1]).sum() / pairs)

    # Bartlett: var of a lag-1 covariance is sum_k (rho_k^2 + rho_k+1 rho_k-1) / pairs, below 2 / pairs here
    error = np.sqrt(2 / pairs)
    assert abs(lag1(Kernel(rho=(rho, rho))) - rho) < 5 * error
    assert abs(lag1(WHITE)) < 5 * error
    assert abs(lag1(Kernel(rho=(0.27, 0.27))) - rho) > 5 * error  # the control: a tenth less is found


def test_white_is_the_special_case_that_changes_nothing(rng):
    z = rng.standard_normal((2, WAVE.size + 2))
    assert WHITE.white
    assert not FOUR_ARMS.white
    np.testing.assert_array_equal(WHITE.colour(WAVE, z), z[:, 1:-1])
    with pytest.raises(ValueError, match="colouring 20 needs 22"):
        WHITE.colour(WAVE, z[:, 1:])


def test_a_star_s_seed_depends_on_id_seed_and_purpose_and_on_nothing_else():
    assert star_seed("a", 1, "noise") == 3012877615472621946  # the same on every machine and in every process
    seeds = {star_seed(s, n, p) for s in ("a", "b", 11, "1") for n in (0, 1, 11) for p in ("noise", "degrade")}
    assert len(seeds) == 4 * 3 * 2
    assert all(0 <= s < 2**63 for s in seeds)
    assert star_seed(11, 0, "p") == star_seed("11", 0, "p")


def test_neighbouring_seeds_give_independent_noise():
    rows = np.array([np.random.default_rng(star_seed(s, n, "noise")).standard_normal(2000)
                     for s in ("a", "b") for n in range(20)])
    correlation = np.corrcoef(rows)[np.triu_indices(len(rows), 1)]
    assert np.abs(correlation).max() < 5 / np.sqrt(2000)  # 780 pairs: the largest of them is expected at 3.2
    same = np.corrcoef(rows[0], rows[0] + 0.2 * rows[1])[0, 1]
    assert same > 5 / np.sqrt(2000)  # the control


@pytest.mark.parametrize("n", [2, 3, 6, 7, 16])
def test_draws_that_repeat_one_answer_have_no_spread_whatever_their_number(n: int) -> None:
    """Control: the plain standard deviation of six equal numbers is not always 0."""
    one = np.random.default_rng(1).standard_normal((1, 2, 500))
    again = np.repeat(one, n, axis=0)
    assert n != 6 or again.std(axis=0, ddof=1).any()
    assert not Samples(np.linspace(4000.0, 5000.0, 500), again, "savgol").spread.any()
    again[0] += 0.1
    assert (Samples(np.linspace(4000.0, 5000.0, 500), again, "savgol").spread > 0).all()
