"""The banded algebra of one observation's noise is the dense algebra of its covariance, dead pixels left out."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from core.models.observation import Observation
from core.models.whitening import Whitener
from core.spectrum import ARM_JOIN, Array, Kernel

L = 80
WAVELENGTHS = ARM_JOIN - 50 + 1.35 * np.arange(L)  # two arms: the join falls at pixel 37
KERNELS = {
    "white": Kernel(),
    "white, scaled": Kernel((0.7, 1.3)),
    "LAMOST": Kernel((0.74, 0.60), (0.10, 0.05)),
    "one arm": Kernel((1.0, 0.8), (0.0, 0.3)),
    "strong": Kernel((0.9, 1.2), (0.6, 0.5)),
}
DEAD = {"all live": [], "edges": [0, 1, L - 1], "gap": list(range(30, 41)), "every other": list(range(1, 20, 2))}


def question(kernel: Kernel, dead: list[int], rng: np.random.Generator) -> tuple[Observation, torch.Tensor, Array]:
    """An observation, a residual variance, and D's noise part N by rows of K, dense."""
    sigma = 0.05 * np.exp(0.5 * rng.standard_normal(L))
    ivar = sigma**-2.0
    ivar[dead] = 0.0
    residual = torch.as_tensor(1e-3 * rng.uniform(0.5, 2.0, L), dtype=torch.float32)
    centre, side = kernel.taps(WAVELENGTHS)
    k = np.zeros((L, L + 2))
    for i in range(L):
        k[i, i : i + 3] = side[i], centre[i], side[i]
    s = np.where(ivar > 0, sigma, 0.0) * kernel.scales(WAVELENGTHS)
    observation = Observation(torch.as_tensor(WAVELENGTHS), torch.ones(1, L, dtype=torch.float64),
                              torch.as_tensor(ivar)[None], ("a",), kernel)
    return observation, residual, s[:, None] * (k @ k.T) * s


@pytest.fixture(params=[(k, d) for k in KERNELS for d in DEAD], ids=lambda p: f"{p[0]}-{p[1]}")
def case(request, rng) -> tuple[Whitener, Array, Array, Array]:
    """Whitener, dense D over all pixels, its inverse over the live ones (zero elsewhere), and which live."""
    kernel, dead = request.param
    observation, residual, noise = question(KERNELS[kernel], DEAD[dead], rng)
    live = observation.live[0].numpy()
    total = noise + np.diag(residual.double().numpy())
    inverse = np.zeros((L, L))
    inverse[np.ix_(live, live)] = np.linalg.inv(total[np.ix_(live, live)])
    return Whitener(observation, residual), total, inverse, live


def test_solve_is_the_inverse_over_live_pixels(case, rng):
    whitener, _, inverse, live = case
    rows = rng.standard_normal((2, 3, L))
    got = whitener.solve(torch.as_tensor(rows, dtype=torch.float32)).numpy()
    np.testing.assert_allclose(got, rows @ inverse, atol=2e-5 * np.abs(inverse).max())
    assert np.all(got[..., ~live] == 0)


def test_half_makes_the_products_of_the_inverse(case, rng):
    whitener, _, inverse, _ = case
    rows = rng.standard_normal((4, L))
    white = whitener.half(torch.as_tensor(rows, dtype=torch.float32)).double().numpy()
    want = rows @ inverse @ rows.T
    np.testing.assert_allclose(white @ white.T, want, atol=1e-5 * np.abs(want).max())


def test_what_lies_in_dead_pixels_means_nothing(case, rng):
    whitener, _, _, live = case
    rows = rng.standard_normal((2, L)).astype(np.float32)
    other = np.where(live, rows, 1e6).astype(np.float32)
    for apply in (whitener.half, whitener.solve):
        np.testing.assert_array_equal(apply(torch.as_tensor(rows)), apply(torch.as_tensor(other)))


def test_the_determinant_is_that_of_the_live_block(case):
    whitener, total, _, live = case
    want = np.linalg.slogdet(total[np.ix_(live, live)])[1]
    assert abs(whitener.log_det - want) < 1e-4
    if not live.all():  # the control: dead pixels' residual counted as data
        assert abs(np.linalg.slogdet(total)[1] - want) > 1


def test_the_diagonal_is_the_inverse_s(case):
    whitener, _, inverse, live = case
    np.testing.assert_allclose(whitener.diagonal().numpy(), np.diag(inverse), rtol=2e-5)
    assert np.all(whitener.diagonal().numpy()[~live] == 0)
    np.testing.assert_array_equal(whitener.diagonal(), whitener.diagonal())  # also the second time


def test_noise_has_the_observation_s_covariance(rng):
    """`noise` is linear in z, so its matrix tells all: no statistics needed."""
    for kernel in KERNELS.values():
        observation, residual, want = question(kernel, DEAD["gap"], rng)
        whitener = Whitener(observation, residual)
        matrix = whitener.noise(torch.eye(L + 2)).numpy().T
        np.testing.assert_allclose(matrix @ matrix.T, want, atol=2e-6 * np.abs(want).max())
        assert np.all(matrix[30:41] == 0)


def test_white_noise_comes_out_white(rng):
    observation, residual, _ = question(KERNELS["strong"], [], rng)
    whitener = Whitener(observation, residual)
    n = 20_000
    z = torch.as_tensor(rng.standard_normal((n, L + 2)), dtype=torch.float32)
    e = torch.as_tensor(rng.standard_normal((n, L)), dtype=torch.float32)
    rows = whitener.half(whitener.noise(z) + e * residual.sqrt()).numpy()
    off = rows.T @ rows / n - np.eye(L)
    assert np.abs(off).max() < 5.5 * np.sqrt(2 / n)  # the largest of 3240 numbers: 4 sigma is likely, 5.5 is not
    pretend = Whitener(Observation(observation.wave, observation.y, observation.ivar, ("a",),
                                   Kernel(KERNELS["strong"].scale)), residual)
    wrong = pretend.half(whitener.noise(z) + e * residual.sqrt()).numpy()  # the control: correlation forgotten
    assert np.abs(wrong.T @ wrong / n - np.eye(L)).max() > 20 * np.sqrt(2 / n)


def test_decoupling_is_the_marginal_and_not_the_limit_of_a_large_sigma(rng):
    """The control of the idea: a huge sigma in C keeps its neighbours' correlation, and the answer is another."""
    observation, _, noise = question(KERNELS["strong"], DEAD["gap"], rng)
    whitener = Whitener(observation, torch.zeros(L))
    huge = torch.where(observation.ivar > 0, observation.ivar, 1e-4)  # sigma 100
    limit = Whitener(Observation(observation.wave, observation.y, huge, ("a",), KERNELS["strong"]), torch.zeros(L))
    rows = torch.as_tensor(rng.standard_normal((3, L)), dtype=torch.float32)
    live = observation.live[0]
    got = whitener.solve(rows)[:, live]
    beside = [29, 41]
    assert (limit.diagonal()[beside] / whitener.diagonal()[beside] - 1).abs().min() > 0.2
    block = np.linalg.inv(noise[np.ix_(live.numpy(), live.numpy())])
    np.testing.assert_allclose(got, rows[:, live].double().numpy() @ block, atol=1e-4 * np.abs(got.numpy()).max())


def test_a_pixel_cut_off_from_all_others_stands_alone():
    """Live, dead, dead, live: two dead pixels between are more than the kernel reaches."""
    dead = [i for i in range(L) if i % 3]
    observation, residual, noise = question(KERNELS["strong"], dead, np.random.default_rng(1))
    whitener = Whitener(observation, residual)
    total = np.diag(noise) + residual.double().numpy()
    want = np.where(observation.live[0].numpy(), 1 / total, 0)
    np.testing.assert_allclose(whitener.solve(torch.ones(1, L))[0], want, rtol=1e-5)
