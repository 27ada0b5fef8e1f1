"""Plans for few calls are as wide as they say in every direction, on a formula that the sampler itself confirms."""

from __future__ import annotations

import pytest
import torch

from core.models.balance import BALANCED, SPREADS, Plan, fit, width_error
from core.models.samplers import multistep
from core.models.schedule import geometric

STATED = {(8, 0.02): 0.027, (9, 0.02): 0.02, (10, 0.02): 0.014, (12, 0.02): 0.008, (16, 0.02): 0.003,
          (8, 0.01): 0.019, (9, 0.01): 0.011, (10, 0.01): 0.007, (12, 0.01): 0.003, (16, 0.01): 0.001}


@pytest.mark.parametrize("which", list(STATED))
def test_a_plan_is_as_wide_as_it_says_in_every_direction(which: tuple[int, float]) -> None:
    plan, (calls, last) = BALANCED[which], which
    assert plan.calls == calls
    assert plan.levels[0] == 1.0
    assert plan.levels[-1] == last
    assert width_error(plan).abs().max() < STATED[which]
    # control: the same number of calls spaced evenly in log tau
    assert width_error(Plan(tuple(geometric(1.0, last, calls)))).abs().max() > 2.5 * STATED[which]


def test_every_plan_is_tested() -> None:
    assert set(BALANCED) == set(STATED)


def test_without_the_last_draw_narrow_directions_are_lost() -> None:
    assert width_error(BALANCED[10, 0.01], drawn=False)[0] < -0.03
    assert abs(width_error(BALANCED[10, 0.01])[0]) < 0.01


@pytest.mark.parametrize("pull", [1.0, 0.85])
def test_the_formula_is_what_the_sampler_does(pull: float) -> None:
    plan, u = Plan(tuple(geometric(1.0, 0.02, 7)), pull), torch.tensor([0.05, 0.4, 1.0, 6.0], dtype=torch.float64)
    steps = plan.calls - 1
    push = torch.eye(steps, dtype=torch.float64)[:, :, None].expand(steps, steps, 4)  # step i pushes row i alone

    def denoise(x: torch.Tensor, tau: float) -> torch.Tensor:
        return u**2 / (u**2 + tau**2) * x

    start = torch.zeros(steps, 4, dtype=torch.float64)
    rows = multistep(denoise, start, plan.levels, lambda i: push[i], pull=plan.pull)
    width = (rows**2).sum(0).sqrt() / (u / (1 + u**2).sqrt()) - 1
    torch.testing.assert_close(width, width_error(plan, u, drawn=False))


def test_the_table_is_what_fit_makes() -> None:
    plan = fit(8, 0.02)
    assert plan.levels == pytest.approx(BALANCED[8, 0.02].levels, rel=0.02)
    assert plan.pull == pytest.approx(BALANCED[8, 0.02].pull, abs=0.02)
    assert len(SPREADS) == 80


def test_bad_plans_are_refused_with_the_remedy() -> None:
    with pytest.raises(ValueError, match="do not fall"):
        Plan((0.1, 1.0))
    with pytest.raises(ValueError, match="at least 4"):
        fit(3, 0.02)
