"""The residual's filter is the dense answer, where noise and residual change slowly, and says how wide it is."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from core.models.mixture import Mixture
from core.models.residual_filter import ResidualFilter
from core.models.whitening import coloured

L = 640
TAPS = Mixture.load().taps


def dense(share: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Posterior mean operator (L, L) and variance (L,) of e / sqrt(R + v), in closed form."""
    taps = TAPS.double().numpy()
    full = np.correlate(taps, taps, "full")
    rho = np.zeros(len(share))
    rho[: len(taps)] = full[len(taps) - 1 :]
    prior = np.sqrt(share)[:, None] * rho[np.abs(np.subtract.outer(range(L), range(L)))] * np.sqrt(share)
    gain = prior @ np.linalg.inv(prior + np.diag(1 - share))
    return gain, np.diag(prior - gain @ prior)


@pytest.mark.parametrize("share", [0.02, 0.2, 0.5, 0.8])
def test_a_constant_share_gives_the_dense_answer(share):
    rng = np.random.default_rng(3)
    q = np.full(L, share)
    own = ResidualFilter(TAPS)
    at = torch.as_tensor(q, dtype=torch.float32)
    gain, variance = dense(q)
    e = coloured(torch.as_tensor(rng.standard_normal((200, L + len(TAPS) - 1)), dtype=torch.float32), TAPS).numpy()
    seen = np.sqrt(share) * e + np.sqrt(1 - share) * rng.standard_normal((200, L))
    got = own.mean(torch.as_tensor(seen, dtype=torch.float32), own.weights(at)).numpy()
    inside = slice(32, -32)
    scale = (seen @ gain.T)[:, inside].std()
    assert np.abs(got - seen @ gain.T)[:, inside].std() < 0.04 * scale
    np.testing.assert_allclose(own.variance(at).numpy()[inside], variance[inside], rtol=0.03)
    # what it says it leaves is left; pixel by pixel, without the correlation, more is: the control
    left = ((got - np.sqrt(share) * e)[:, inside] ** 2).mean()
    assert left == pytest.approx(float(own.variance(at)[0]), rel=0.05)
    assert ((share * seen - np.sqrt(share) * e)[:, inside] ** 2).mean() > 1.02 * left


def test_a_slowly_changing_share_costs_little():
    rng = np.random.default_rng(4)
    q = 0.5 + 0.4 * np.sin(np.arange(L) / 60)
    own = ResidualFilter(TAPS)
    at = torch.as_tensor(q, dtype=torch.float32)
    gain, variance = dense(q)
    e = coloured(torch.as_tensor(rng.standard_normal((300, L + len(TAPS) - 1)), dtype=torch.float32), TAPS).numpy()
    e = np.sqrt(q) * e
    seen = e + np.sqrt(1 - q) * rng.standard_normal((300, L))
    got = own.mean(torch.as_tensor(seen, dtype=torch.float32), own.weights(at)).numpy()
    best, mine = (((x - e)[:, 32:-32] ** 2).mean() for x in (seen @ gain.T, got))
    assert best <= mine < 1.02 * best
    np.testing.assert_allclose(own.variance(at).numpy()[32:-32], variance[32:-32], rtol=0.1)


def test_nothing_is_known_of_a_residual_that_is_all_noise_or_not_there():
    own = ResidualFilter(TAPS)
    seen = torch.randn(2, 3, L, generator=torch.Generator().manual_seed(0))
    none = torch.zeros(3, L)
    assert own.mean(seen, own.weights(none)).abs().max() < 1e-6
    assert own.variance(none).abs().max() == 0
    assert own.variance(torch.ones(L)).abs().max() == 0  # no noise: it is seen
