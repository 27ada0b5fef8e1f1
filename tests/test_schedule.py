"""Noise levels are those of the papers, and the two forms of diffusion are one."""

from __future__ import annotations

import math

import pytest
import torch

from core.models.schedule import (
    alpha_bar_of,
    check_levels,
    cosine,
    geometric,
    karras,
    linear_beta,
    respaced,
    sigma_of,
)


def test_linear_beta_is_ddpms() -> None:
    alpha_bar = linear_beta()
    assert alpha_bar.shape == (1000,)
    assert alpha_bar[0] == pytest.approx(1 - 1e-4)
    # the paper's own statement: the KL of q(x_T | x_0) to N(0, I) is about 1e-5 bits a dimension, so alpha_bar_T ~ 4e-5
    assert alpha_bar[-1] == pytest.approx(4.04e-5, rel=1e-2)
    assert (alpha_bar.diff() < 0).all()


def test_cosine_is_flat_at_both_ends_and_half_way_in_the_middle() -> None:
    alpha_bar = cosine()
    assert alpha_bar[0] > 0.9999
    assert alpha_bar[499] == pytest.approx(math.cos(0.508 / 1.008 * math.pi / 2) ** 2 / math.cos(
        0.008 / 1.008 * math.pi / 2) ** 2, rel=1e-6)
    assert (1 - alpha_bar[1:] / alpha_bar[:-1]).max() <= 0.999 + 1e-12
    assert (alpha_bar.diff() < 0).all()


def test_the_two_forms_are_one() -> None:
    alpha_bar = linear_beta()
    sigma = sigma_of(alpha_bar)
    torch.testing.assert_close(alpha_bar_of(sigma), alpha_bar)
    g = torch.Generator().manual_seed(1)
    x0, z = torch.randn(2, 1000, generator=g, dtype=torch.float64)
    vp = alpha_bar.sqrt() * x0 + (1 - alpha_bar).sqrt() * z
    torch.testing.assert_close(vp / alpha_bar.sqrt(), x0 + sigma * z)


@pytest.mark.parametrize("make", [geometric, karras])
def test_levels_fall_from_first_to_last(make) -> None:
    levels = make(2.0, 0.01, 7)
    assert len(levels) == 7
    assert levels[0] == pytest.approx(2.0)
    assert levels[-1] == pytest.approx(0.01)
    check_levels(levels)


def test_a_large_rho_of_karras_is_geometric() -> None:
    assert karras(1.0, 0.01, 9, rho=1e5) == pytest.approx(geometric(1.0, 0.01, 9), rel=1e-3)
    assert karras(1.0, 0.01, 9, rho=3) != pytest.approx(geometric(1.0, 0.01, 9), rel=1e-1)


def test_respaced_keeps_both_ends_and_all_when_asked_for_all() -> None:
    alpha_bar = linear_beta()
    few, every = respaced(alpha_bar, 100), respaced(alpha_bar, 1000)
    assert every == pytest.approx(sigma_of(alpha_bar).flip(0).tolist())
    assert (few[0], few[-1], len(few)) == (every[0], every[-1], 100)


@pytest.mark.parametrize(("call", "says"), [
    (lambda: linear_beta(0), "at least 1"),
    (lambda: linear_beta(10, 0.02, 1e-4), "first <= last"),
    (lambda: cosine(0), "at least 1"),
    (lambda: geometric(1.0, 0.1, 1), "at least 2"),
    (lambda: geometric(0.1, 1.0, 5), "first > last > 0"),
    (lambda: karras(1.0, 0.0, 5), "first > last > 0"),
    (lambda: karras(float("nan"), 0.1, 5), "first > last > 0"),
    (lambda: karras(1.0, 0.1, 5, rho=0), "rho is 0"),
    (lambda: respaced(linear_beta(10), 11), "give 2 to 10"),
    (lambda: check_levels([]), "above 0"),
    (lambda: check_levels([1.0, 0.0]), "above 0"),
    (lambda: check_levels([1.0, 1.0]), "do not fall"),
])
def test_bad_levels_are_refused_with_the_remedy(call, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        call()
