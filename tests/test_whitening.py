"""The banded algebra of one observation's noise is the dense algebra of its covariance, dead pixels left out."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from core.models.observation import Observation
from core.models.whitening import Whitener, coloured
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


TAPS = {"independent": [1.0], "as wide as a line": [0.2, 0.5, 1.0, 0.6, 0.1, 0.05, 0.3]}


def taps_of(name: str) -> torch.Tensor:
    taps = torch.tensor(TAPS[name])
    return taps / taps.norm()


def dense_residual(residual: torch.Tensor, taps: torch.Tensor) -> Array:
    """R, spelled out: the moving average as a matrix."""
    average = np.zeros((L, L + len(taps) - 1))
    for i in range(L):
        average[i, i : i + len(taps)] = taps.numpy()
    root = residual.double().numpy() ** 0.5
    return root[:, None] * (average @ average.T) * root


@pytest.fixture(params=[(k, d, t) for k in KERNELS for d in DEAD for t in TAPS], ids=lambda p: "-".join(p))
def case(request, rng) -> tuple[Whitener, Array, Array, Array]:
    """Whitener, dense D over all pixels, its inverse over the live ones (zero elsewhere), and which live."""
    kernel, dead, name = request.param
    observation, residual, noise = question(KERNELS[kernel], DEAD[dead], rng)
    live = observation.live[0].numpy()
    total = noise + dense_residual(residual, taps_of(name))
    inverse = np.zeros((L, L))
    inverse[np.ix_(live, live)] = np.linalg.inv(total[np.ix_(live, live)])
    return Whitener(observation, residual, taps_of(name)), total, inverse, live


def test_solve_is_the_inverse_over_live_pixels(case, rng):
    whitener, _, inverse, live = case
    columns = rng.standard_normal((L, 6))
    got = whitener.solve(torch.as_tensor(columns, dtype=torch.float32)).numpy()
    np.testing.assert_allclose(got, inverse @ columns, atol=2e-5 * np.abs(inverse).max())
    assert np.all(got[~live] == 0)


def test_half_makes_the_products_of_the_inverse(case, rng):
    whitener, _, inverse, _ = case
    columns = rng.standard_normal((L, 4))
    white = whitener.half(torch.as_tensor(columns, dtype=torch.float32)).double().numpy()
    want = columns.T @ inverse @ columns
    np.testing.assert_allclose(white.T @ white, want, atol=1e-5 * np.abs(want).max())


def test_what_lies_in_dead_pixels_means_nothing(case, rng):
    whitener, _, _, live = case
    columns = rng.standard_normal((L, 2)).astype(np.float32)
    other = np.where(live[:, None], columns, 1e6).astype(np.float32)
    for apply in (whitener.half, whitener.solve):
        got, again = apply(torch.as_tensor(columns)), apply(torch.as_tensor(other))
        np.testing.assert_array_equal(got[:L][live], again[:L][live])


def test_what_the_data_leave_open_is_the_posterior_of_the_residual(case, rng):
    whitener, total, inverse, _ = case
    noise = whitener.noise(torch.eye(L + 2)).double().numpy().T
    residual = total - noise @ noise.T
    left = np.eye(L) - residual @ inverse
    columns = rng.standard_normal((L, 3))
    got = whitener.open(torch.as_tensor(columns, dtype=torch.float32)).numpy()
    np.testing.assert_allclose(got, left @ columns, atol=2e-4)
    variance = np.diag(residual - residual @ inverse @ residual)
    np.testing.assert_allclose(whitener.variance().numpy(), variance, rtol=1e-3, atol=1e-8)
    np.testing.assert_array_equal(whitener.variance(), whitener.variance())  # also the second time


def test_the_determinant_is_that_of_the_live_block(case):
    whitener, total, _, live = case
    want = np.linalg.slogdet(total[np.ix_(live, live)])[1]
    assert abs(whitener.log_det - want) < 1e-4
    if not live.all():  # the control: dead pixels' residual counted as data
        assert abs(np.linalg.slogdet(total)[1] - want) > 1


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
    rows = whitener.half((whitener.noise(z) + e * residual.sqrt()).T).numpy()[:L]
    off = rows @ rows.T / n - np.eye(L)
    assert np.abs(off).max() < 5.5 * np.sqrt(2 / n)  # the largest of 3240 numbers: 4 sigma is likely, 5.5 is not
    pretend = Whitener(Observation(observation.wave, observation.y, observation.ivar, ("a",),
                                   Kernel(KERNELS["strong"].scale)), residual)
    wrong = pretend.half((whitener.noise(z) + e * residual.sqrt()).T).numpy()[:L]  # the control: correlation forgotten
    assert np.abs(wrong @ wrong.T / n - np.eye(L)).max() > 20 * np.sqrt(2 / n)


def test_decoupling_is_the_marginal_and_not_the_limit_of_a_large_sigma(rng):
    """The control of the idea: a huge sigma in C keeps its neighbours' correlation, and the answer is another."""
    observation, _, noise = question(KERNELS["strong"], DEAD["gap"], rng)
    whitener = Whitener(observation, torch.zeros(L))
    huge = torch.where(observation.ivar > 0, observation.ivar, 1e-4)  # sigma 100
    limit = Whitener(Observation(observation.wave, observation.y, huge, ("a",), KERNELS["strong"]), torch.zeros(L))
    columns = torch.as_tensor(rng.standard_normal((L, 3)), dtype=torch.float32)
    live = observation.live[0]
    got = whitener.solve(columns)[live]
    beside = torch.zeros(L, 2)
    beside[[29, 41], [0, 1]] = 1.0
    for pixel, column in ((29, 0), (41, 1)):
        assert abs(limit.solve(beside)[pixel, column] / whitener.solve(beside)[pixel, column] - 1) > 0.2
    block = np.linalg.inv(noise[np.ix_(live.numpy(), live.numpy())])
    np.testing.assert_allclose(got, block @ columns[live].double().numpy(), atol=1e-4 * np.abs(got.numpy()).max())


def test_a_pixel_cut_off_from_all_others_stands_alone():
    """Live, dead, dead, live: two dead pixels between are more than the kernel reaches."""
    dead = [i for i in range(L) if i % 3]
    observation, residual, noise = question(KERNELS["strong"], dead, np.random.default_rng(1))
    whitener = Whitener(observation, residual)
    total = np.diag(noise) + residual.double().numpy()
    want = np.where(observation.live[0].numpy(), 1 / total, 0)
    np.testing.assert_allclose(whitener.solve(torch.ones(L, 1))[:, 0], want, rtol=1e-5)


def test_a_kernel_too_long_for_the_blocks_is_refused(rng):
    observation, residual, _ = question(KERNELS["white"], [], rng)
    with pytest.raises(ValueError, match="at most"):
        Whitener(observation, residual, torch.ones(40) / 40**0.5)


def test_coloured_numbers_have_the_taps_autocorrelation():
    taps = taps_of("as wide as a line")
    matrix = coloured(torch.eye(L + len(taps) - 1), taps).double().numpy().T
    np.testing.assert_allclose(matrix @ matrix.T, dense_residual(torch.ones(L), taps), atol=1e-6)
