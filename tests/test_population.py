"""The population prior says what it draws: inside its domain, in the stated fractions."""

from __future__ import annotations

import numpy as np
import pytest

from core.data.population import DOMAIN, FEH_RANGE, LABEL_NAMES, draw_labels

N = 40_000


@pytest.fixture(scope="module")
def traffic() -> np.ndarray:
    return draw_labels(N, np.random.default_rng(41), even=0.0)


@pytest.fixture(scope="module")
def even() -> np.ndarray:
    return draw_labels(N, np.random.default_rng(42), even=1.0)


def within(count: int, n: int, p: float, sigmas: float = 4.0) -> bool:
    return abs(count - n * p) < sigmas * np.sqrt(n * p * (1 - p))


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_every_label_lies_in_the_domain_of_its_kind(share):
    labels = draw_labels(N, np.random.default_rng(43), even=share)
    assert labels.shape == (N, len(LABEL_NAMES)) == (N, 28)
    assert np.isfinite(labels).all()
    assert set(np.unique(labels[:, 0])) == set(DOMAIN)
    for kind, ((t0, t1), (g0, g1)) in DOMAIN.items():
        of = labels[labels[:, 0] == kind]
        assert of[:, 1].min() >= t0
        assert of[:, 1].max() <= t1
        assert of[:, 2].min() >= g0
        assert of[:, 2].max() <= g1
    assert labels[:, 3].min() >= FEH_RANGE[0]
    assert labels[:, 3].max() <= FEH_RANGE[1]
    assert np.abs(labels[:, 8:]).max() <= 0.3


def test_kinds_come_in_the_stated_fractions(traffic, even):
    for kind, p, q in ((0, 0.55, 0.45), (1, 0.33, 0.40), (2, 0.12, 0.15)):
        assert within((traffic[:, 0] == kind).sum(), N, p)
        assert within((even[:, 0] == kind).sum(), N, q)
        assert not within((traffic[:, 0] == kind).sum(), N, q)  # the control: the other prior's
    mixed = draw_labels(N, np.random.default_rng(44), even=0.4)
    assert within((mixed[:, 0] == 0).sum(), N, 0.6 * 0.55 + 0.4 * 0.45)


def test_metallicities_are_a_thin_disk_a_thick_disk_and_a_halo(traffic):
    from scipy.stats import norm

    parts = ((0.80, -0.10, 0.22), (0.16, -0.55, 0.25), (0.04, -1.50, 0.50))
    for edge in (-2.0, -1.5, -1.0, -0.5, -0.1, 0.2):
        assert within((traffic[:, 3] < edge).sum(), N, sum(w * norm.cdf(edge, m, s) for w, m, s in parts))
    assert not within((traffic[:, 3] < -1.0).sum(), N, norm.cdf(-1.0, -0.1, 0.22))  # the control: the thin disk alone


def test_the_even_part_fills_teff_and_logg_evenly_and_leans_to_the_metal_rich(even):
    dwarfs = even[even[:, 0] == 0]
    (t0, t1), (g0, g1) = DOMAIN[0]
    for column, low, high in ((1, t0, t1), (2, g0, g1)):
        for part in (0.1, 0.5, 0.8):
            assert within((dwarfs[:, column] < low + part * (high - low)).sum(), len(dwarfs), part)
    low, high = FEH_RANGE
    for part in (0.2, 0.6):  # feh = low + range * u^.6
        assert within((even[:, 3] < low + part * (high - low)).sum(), N, part ** (1 / 0.6))
    assert not within((even[:, 3] < (low + high) / 2).sum(), N, 0.5)  # the control: not flat


def test_the_even_part_reaches_stars_that_traffic_lacks(traffic, even):
    rare = [(x[:, 3] < -2.2).mean() for x in (traffic, even)]
    assert rare[1] > 5 * rare[0]


def test_a_third_of_the_giants_are_in_the_red_clump(traffic):
    giants = traffic[traffic[:, 0] == 1]
    inside = (np.abs(giants[:, 2] - 2.45) < 0.36).sum()
    # the branch alone puts some there too: logg = 3.4 - 2.4 u^1.5 between 2.09 and 2.81
    branch = ((3.4 - 2.09) / 2.4) ** (1 / 1.5) - ((3.4 - 2.81) / 2.4) ** (1 / 1.5)
    assert within(inside, len(giants), 0.35 * 0.9973 + 0.65 * branch)
    assert not within(inside, len(giants), branch)  # the control: no clump


def test_alpha_rises_towards_the_metal_poor(traffic):
    poor, rich = traffic[traffic[:, 3] < -1.2, 4], traffic[traffic[:, 3] > -0.2, 4]
    assert abs(np.median(poor) - 0.25) < 4 * 1.25 * 0.09 / np.sqrt(len(poor))
    assert abs(np.median(rich) - 0.04) < 0.02


def test_one_generator_state_is_one_population():
    a, b, c = (draw_labels(50, np.random.default_rng(s)) for s in (1, 1, 2))
    np.testing.assert_array_equal(a, b)
    assert not np.array_equal(a, c)
    assert draw_labels(0, np.random.default_rng(0)).shape == (0, 28)
