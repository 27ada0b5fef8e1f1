"""Levels for few calls: where to ask so that a posterior started at y is as wide as it should be in every direction."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from core.models.schedule import check_levels, karras
from core.spectrum import Array

#: Width of the prior in units of the noise, direction by direction: what a plan is made for and judged on.
SPREADS = torch.logspace(math.log10(0.03), math.log10(30.0), 80, dtype=torch.float64)


@dataclass(frozen=True)
class Plan:
    """Levels of `core.models.samplers.multistep` and its `pull`.

    A plan's last answer is to be a draw: the denoiser's answer plus its posterior deviation times fresh white noise.
    Directions narrower than the last level (most of a spectrum's residual is) would otherwise be missing.

    Args:
        levels: falling from 1; pull: factor on the second-order term.

    Raises:
        ValueError: levels that do not fall or reach 0.
    """

    levels: tuple[float, ...]
    pull: float = 1.0

    def __post_init__(self) -> None:
        check_levels(self.levels)

    @property
    def calls(self) -> int:
        """Of the denoiser."""
        return len(self.levels)


def width_error(plan: Plan, spreads: Tensor = SPREADS, drawn: bool = True) -> Tensor:
    """Relative error of the width, exactly, for a Gaussian prior of width u sigma in each direction (K,).

    There the denoiser is k x with k = u^2 / (u^2 + tau^2), so x_i and x_i-1 are Gaussian with a covariance that one
    recursion carries along; the mean is right at any levels.

    Args:
        drawn: False for the denoiser's last answer as it is.
    """
    u2, tau = spreads**2, plan.levels
    own, before, cross = (torch.zeros_like(spreads) for _ in range(3))  # of x_i, of x_i-1, between them
    k_before, h_before = torch.zeros_like(spreads), math.inf
    for now, then in pairwise(tau):
        k, h = u2 / (u2 + now**2), math.log(now / then)
        move = -math.expm1(-2 * h)
        term = plan.pull / 2 * move * h / h_before  # 0 in the first step
        a, b = 1 - move + (move + term) * k, -term * k_before
        own, before, cross = (a**2 * own + b**2 * before + 2 * a * b * cross + then**2 * move, own,
                              a * own + b * cross)
        k_before, h_before = k, h
    k = u2 / (u2 + tau[-1] ** 2)
    variance = k**2 * own + (k * tau[-1] ** 2 if drawn else 0.0)
    return (variance * (1 + u2) / u2).sqrt() - 1


def fit(calls: int, last: float, ratio: float = 2.0) -> Plan:
    """The plan whose width is right in all SPREADS, as well as so few calls can.

    Args:
        calls: of the denoiser; last: level of the last one.
        ratio: neighbouring steps in log tau differ by at most about this factor: a longer step on a shorter one would
            stretch a small difference of two answers, and a network's errors with it.

    Raises:
        ValueError: fewer than 4 calls.
    """
    if calls < 4:
        raise ValueError(f"{calls} calls are too few to balance; give at least 4.")

    def plan_of(p: Array) -> Plan:
        steps = np.exp(p[:-1])
        tau = np.exp(np.concatenate([[0.0], np.cumsum(steps / steps.sum())]) * math.log(last))
        return Plan(tuple(float(t) for t in tau), 1 + float(p[-1]))

    def cost(p: Array, sharp: bool) -> float:
        plan = plan_of(p)
        off = width_error(plan)
        steps = np.diff(np.log(plan.levels))
        unlike = np.clip(np.abs(np.log(steps[1:] / steps[:-1])) - math.log(ratio), 0, None)
        size = (off**8).mean() ** 0.25 if sharp else (off**2).mean()
        return float(size) * 1e4 + 20 * float((unlike**2).sum())

    found = []
    for rho in (7.0, 15.0):
        p = np.append(np.log(-np.diff(np.log(karras(1.0, last, calls, rho)))), -0.2)
        for sharp in (False, True):
            p = minimize(cost, p, args=(sharp,), method="BFGS", options={"maxiter": 200}).x
        found.append(p)
    return plan_of(min(found, key=lambda p: cost(p, True)))


#: `fit(calls, last)` by its calls and last level, and the largest width error over all SPREADS.
BALANCED: dict[tuple[int, float], Plan] = {
    (8, 0.02): Plan((1.0, 0.6372, 0.292, 0.1758, 0.09995, 0.05585, 0.04052, 0.02), 0.923),  # 2.7 %
    (9, 0.02): Plan((1.0, 0.6632, 0.3269, 0.2052, 0.132, 0.07354, 0.05103, 0.03775, 0.02), 0.929),  # 1.9 %
    (10, 0.02): Plan((1.0, 0.6853, 0.3594, 0.2364, 0.1617, 0.1047, 0.06421, 0.04829, 0.03621, 0.02), 0.944),  # 1.4 %
    (12, 0.02): Plan((1.0, 0.7229, 0.4161, 0.2914, 0.2134, 0.1515, 0.1015,
                      0.06968, 0.05037, 0.04282, 0.03328, 0.02), 0.950),  # 0.7 %
    (16, 0.02): Plan((1.0, 0.7764, 0.5074, 0.3852, 0.3013, 0.2286, 0.1703,
                      0.1288, 0.09791, 0.07324, 0.05677, 0.04698, 0.03886, 0.03535, 0.02924, 0.02), 0.959),  # 0.2 %
    (8, 0.01): Plan((1.0, 0.6606, 0.3089, 0.1846, 0.09586, 0.04973, 0.03039, 0.01), 0.845),  # 1.9 %
    (9, 0.01): Plan((1.0, 0.6939, 0.3557, 0.2164, 0.1386, 0.06342, 0.04291, 0.02664, 0.01), 0.840),  # 1.1 %
    (10, 0.01): Plan((1.0, 0.728, 0.4086, 0.2737, 0.1658, 0.1079, 0.05371, 0.0379, 0.02439, 0.01), 0.844),  # 0.6 %
    (12, 0.01): Plan((1.0, 0.7771, 0.4922, 0.3576, 0.2549, 0.165, 0.1086,
                      0.07365, 0.04131, 0.03094, 0.02125, 0.01), 0.856),  # 0.2 %
    (16, 0.01): Plan((1.0, 0.8371, 0.6065, 0.4856, 0.3868, 0.2829, 0.207,
                      0.1575, 0.1117, 0.07612, 0.06132, 0.0398, 0.02826, 0.02381, 0.01783, 0.01), 0.869),  # 0.03 %
}
