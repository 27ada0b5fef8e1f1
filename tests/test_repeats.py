"""Option A: pairs of real observations, from LAMOST's files to the loss; neither member's noise is forgotten."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from core.data.grid import C_KMS, N_PIXELS
from core.data.instrument import MARGIN
from core.data.lamost_write import LAMOST_WAVE, write
from core.data.pairs import from_folder
from core.models.schedule import linear_beta
from core.training.feed import simulator
from core.training.repeats import Members, between, first_step, members
from core.training.tasks import DnCNNTask, PairsTask, SupervisedTask
from scripts.train import build

STARS = 6
ALPHA_BAR = linear_beta()
LEVEL = ((1 - ALPHA_BAR) / ALPHA_BAR).sqrt()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Six simulated stars seen twice, at S/N 10 and 25 and at two velocities, as files of LAMOST; and one seen once."""
    sim, rng = simulator(), np.random.default_rng(4)
    out = tmp_path_factory.mktemp("lamost")
    labels = sim.population(STARS + 1, rng)
    velocity = rng.normal(0, 40, STARS + 1)
    for which, snr, shift in (("low", 10.0, 0.0), ("high", 25.0, 35.0)):
        flux = sim.physical(labels, velocity + shift, np.random.default_rng(9))[:, MARGIN:-MARGIN]
        seen, ivar = sim.observe(flux, np.full(STARS + 1, snr), rng)
        for b in range(STARS + (which == "low")):
            whole, weight = np.ones(LAMOST_WAVE.size), np.zeros(LAMOST_WAVE.size)
            whole[18 : 18 + N_PIXELS], weight[18 : 18 + N_PIXELS] = 300 * seen[b], ivar[b] / 300**2
            head = {"OBSID": f"{b}{which}", "DESIG": f"J{b}", "RA": 10.0 + b, "DEC": 20.0, "SNRG": snr,
                    "Z": (velocity[b] + shift) / C_KMS, "LMJD": 57000, "PLANID": "P", "SPID": 1, "FIBERID": b}
            write(out / f"{b}-{which}.fits.gz", whole, weight, "coadd", header=head)
    return out


@pytest.fixture(scope="module")
def repeats(folder) -> Members:
    return members(from_folder(folder), torch.device("cpu"))


def test_a_folder_of_lamost_files_gives_each_star_s_two_observations_as_a_pair(folder):
    pairs = from_folder(folder)
    assert sorted(pairs.table["star"]) == [f"{b}low" for b in range(STARS)]
    assert all(high == low.replace("low", "high") for low, high in pairs.table[["star", "clean_star"]].to_numpy())
    np.testing.assert_allclose(pairs.table["shift"], -35.0, atol=0.1)
    assert (pairs.table["snr_clean"] > 2 * pairs.table["snr_noisy"]).all()


def test_the_two_members_differ_by_the_noise_of_both_and_not_by_that_of_one(repeats):
    both = torch.isfinite(repeats.sigma) & torch.isfinite(repeats.left)
    gap = (repeats.y - repeats.truth)[both] ** 2
    allowed = repeats.sigma[both] ** 2 + repeats.left[both] ** 2
    error = 3 * (2 / int(both.sum())) ** 0.5
    assert abs(float((gap / allowed).mean()) - 1) < error
    blind = float((gap / repeats.sigma[both] ** 2).mean())
    assert blind - 1 > 1.5 * error  # the control: the better member's noise is 7 % of the variance


def test_a_folder_that_cannot_serve_is_refused_with_the_reason(tmp_path, folder):
    with pytest.raises(ValueError, match="no spectrum that can be read|holds no"):
        from_folder(tmp_path)
    (tmp_path / "bad.fits").write_bytes(b"no file")
    with pytest.raises(ValueError, match="bad.fits"):
        from_folder(tmp_path)
    (tmp_path / "bad.fits").unlink()
    for name in ("0-low", "1-high"):  # two stars
        (tmp_path / f"{name}.fits.gz").write_bytes((folder / f"{name}.fits.gz").read_bytes())
    with pytest.raises(ValueError, match="no star has two observations"):
        from_folder(tmp_path)


def slope(own: float, t: int, counted: bool) -> float:
    """Least-squares k of eps' = k x_t for stars N(0, 1) that are seen with noise `own` of their own."""
    g = torch.Generator().manual_seed(t)
    star, n, z = torch.randn(3, 400_000, generator=g).double()
    w = between(torch.tensor([[own]]), LEVEL[t].float()[None, None])[0, 0].double() if counted else torch.tensor(1.0)
    a = ALPHA_BAR[t]
    x = a.sqrt() * (star + own * n) + (1 - a).sqrt() * w.sqrt() * z
    return float((w.sqrt() * z * x).sum() / (w * x**2).sum())


@pytest.mark.parametrize("t", [150, 300, 600])
def test_a_noisy_better_member_teaches_what_a_clean_one_would(t):
    right = float((1 - ALPHA_BAR[t]).sqrt())  # E[eps | x_t] = sqrt(1 - abar) x_t for stars of variance 1
    error = 5 / 400_000**0.5
    assert slope(0.4, t, counted=True) == pytest.approx(right, abs=2 * error)
    assert slope(0.0, t, counted=True) == pytest.approx(right, abs=error)
    if t == 150:  # the control: taken for clean, it teaches that less of x is noise
        assert abs(slope(0.4, t, counted=False) - right) > 4 * error


def test_steps_below_the_better_member_s_noise_are_not_asked():
    own = torch.full((3, 100), 0.2)
    own[1] = 0.0
    own[2, :50] = torch.inf
    begin = first_step(own, LEVEL)
    assert begin[1] == 0
    assert begin[0] == begin[2]
    assert LEVEL[begin[0]] > 0.2 > LEVEL[begin[0] - 1]
    assert (between(own, torch.tensor([[0.1], [0.1], [0.3]]))[0] == 0).all()
    assert (between(own, torch.tensor([[0.1], [0.1], [0.3]]))[2, :50] == 0).all()


@pytest.mark.parametrize("name", ["supervised_ivar", "supervised_mixture", "dncnn", "dncnn_blind"])
def test_half_of_each_batch_are_repeats_and_a_loss_is_left(real, repeats, name):
    clean, sigma = torch.ones(4, N_PIXELS), torch.full((4, N_PIXELS), 0.05)
    task = build(name, real, clean + 0.1 * torch.randn(4, N_PIXELS, generator=torch.Generator().manual_seed(1)))
    assert isinstance(task, PairsTask)
    task.repeats = repeats
    pair = task.pair(clean, sigma, torch.Generator().manual_seed(2))
    assert not pair.left[:2].any()
    assert (pair.left[2:] > 0).all()
    loss, _ = task.loss(clean, sigma, torch.Generator().manual_seed(2))
    loss.backward()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(p.grad).all() for p in task.module.parameters() if p.grad is not None)
    # what nobody knows of the better member does not matter
    other = copy.copy(repeats)
    hidden = Members(torch.where(torch.isfinite(other.left), other.truth, 7.0), other.left, other.y, other.sigma)
    if isinstance(task, (SupervisedTask, DnCNNTask)):
        task.repeats = hidden
        task.module.zero_grad()
        again, _ = task.loss(clean, sigma, torch.Generator().manual_seed(2))
        assert float(again.detach()) == pytest.approx(float(loss.detach()), rel=1e-4)
